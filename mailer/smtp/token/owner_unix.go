//go:build unix

package token

import (
	"os"
	"path/filepath"
	"syscall"
)

// giveToOwner gives a file that root has made to the owner of its directory: else the
// service, which runs as that user, could not read what a command of root has stored.
func giveToOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}
