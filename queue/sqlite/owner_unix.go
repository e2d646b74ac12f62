//go:build unix

package sqlite

import (
	"os"
	"syscall"
)

// giveToOwner gives a file of root's, which has one name, to the owner of another one. A process
// of any other user changes nothing: what it makes is its own.
func giveToOwner(f *os.File, other string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(other)
	if err != nil {
		return err
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	now, known := mine.Sys().(*syscall.Stat_t)
	if !ok || !known || now.Uid != 0 || now.Nlink != 1 || owner.Uid == 0 && owner.Gid == 0 {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
