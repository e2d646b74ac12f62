//go:build unix

package token

import (
	"os"
	"path/filepath"
	"syscall"
)

// openOwn is for files of ours: a link that another user has put in the place is not
// followed, and a named pipe is not waited for.
const openOwn = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// giveToOwner gives a file that root has made to the owner of its directory: else the
// service, which runs as that user, could not read what a command of root has stored.
// A file with another name elsewhere is left alone.
func giveToOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	owner, ok := dir.Sys().(*syscall.Stat_t)
	own, ok2 := info.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || owner.Uid == 0 || own.Uid != 0 || own.Nlink != 1 || !info.Mode().IsRegular() {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
