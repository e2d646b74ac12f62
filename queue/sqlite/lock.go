package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"mailsidecar/queue"
)

// lockFile keeps other processes away from the store at path. It locks a file
// beside it: closing any descriptor of the database would drop the locks that
// SQLite has on it (POSIX record locks belong to the process).
func lockFile(path string) (*flock.Flock, error) {
	lock := flock.New(path+lockSuffix, flock.SetFlag(os.O_CREATE|os.O_RDWR|openOwn), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	var unopened *fs.PathError
	switch {
	case locked:
		notePID(lock.Path())
		removeUnfinished(path)
		return lock, nil
	case err == nil:
		return nil, fault(path, queue.ErrLocked, "one process uses it at a time; stop the other one"+readPID(lock.Path())+
			", or give this one its own MAILSIDECAR_DATA_DIR")
	case errors.As(err, &unopened) && diskFault(filepath.Dir(path), err) != nil:
		return nil, diskFault(filepath.Dir(path), err)
	case errors.As(err, &unopened):
		return nil, fault(path, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "the lock file beside it must be writable for this user")
	default:
		return nil, fault(path, fmt.Errorf("%w: lock: %w", queue.ErrFileSystem, err), "put the queue on a local disk")
	}
}

// lockAsCommand is [lockFile] for a command, which root may run: a lock file of root's would
// keep the service from starting.
func lockAsCommand(path string) (*flock.Flock, error) {
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lock.Path(), os.O_RDWR|openOwn, 0)
	if err == nil {
		err = errors.Join(giveToOwner(f, ownedAs(path)), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("give the lock file to the owner of the store: %w", err), lock.Close())
	}
	return lock, nil
}

// ownedAs names a file whose owner is that of the store at path: the directory, where there is
// no store yet.
func ownedAs(path string) string {
	if _, err := os.Lstat(path); err != nil {
		return filepath.Dir(path)
	}
	return path
}

// removeUnfinished removes what a start or a restore has left that was killed: all mail of a
// backup may be in it. Nobody else makes such a file while the store is locked.
func removeUnfinished(path string) {
	if info, err := os.Lstat(path + unfinishedSuffix); err == nil && info.Mode().IsRegular() {
		_ = os.Remove(path + unfinishedSuffix) // who makes a new one tells what is wrong
	}
}

// notePID writes this process's id into the lock file, for the message to the
// process that comes second. Nothing else depends on it. A file with anything else in it
// stays as it is.
func notePID(name string) {
	f, err := os.OpenFile(name, os.O_RDWR|openOwn, 0)
	if err != nil {
		return
	}
	defer f.Close() //nolint:errcheck // see above
	if _, ok := pidIn(f); ok && f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
}

// pidIn reads the id of a process; empty when the file is empty. ok is false when there
// is anything else.
func pidIn(f *os.File) (pid string, ok bool) {
	const longest = 20
	b, err := io.ReadAll(io.LimitReader(f, longest+1))
	pid = strings.TrimSuffix(string(b), "\n")
	return pid, err == nil && len(pid) <= longest && strings.Trim(pid, "0123456789") == ""
}

func readPID(name string) string {
	f, err := os.OpenFile(name, os.O_RDONLY|openOwn, 0)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // it was only read
	if pid, ok := pidIn(f); ok && pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}
