//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// lockFile keeps other processes away from the store at path. It locks a file
// beside it: closing any descriptor of the database would drop the locks that
// SQLite has on it (POSIX record locks belong to the process).
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &StoreError{path, fmt.Errorf("%w: %w", ErrDirectory, err), "the lock file beside it must be writable for this user"}
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		notePID(f)
		return f, nil
	}
	holder := readPID(f)
	_ = f.Close() // it was only read
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, &StoreError{path, ErrLocked, "one process uses it at a time; stop the other one" + holder + ", or give this one its own MAILSIDECAR_DATA_DIR"}
	}
	return nil, &StoreError{path, fmt.Errorf("%w: lock: %w", ErrFileSystem, err), "put the queue on a local disk"}
}

// notePID is for the message to whoever comes second; nothing depends on it.
func notePID(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
}

func readPID(f *os.File) string {
	b, _ := io.ReadAll(io.LimitReader(f, 20))
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}

// freeDisk returns the octets that an unprivileged user may still write.
func freeDisk(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // no disk has 2^63 octets; the types differ by system
}

func syncOpenDirectory(d *os.File) error { return d.Sync() }
