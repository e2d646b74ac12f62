//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sqlite

import (
	"os"
	"syscall"
)

// freeDisk returns the octets that an unprivileged user may still write.
func freeDisk(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // no disk has 2^63 octets; the types differ by system
}

func syncOpenDirectory(d *os.File) error { return d.Sync() }
