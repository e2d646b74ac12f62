package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"mailsidecar/queue"
)

// lostFrames says what a damaged log has lost.
type lostFrames string

func (l lostFrames) Error() string { return string(l) }

// Unwrap makes it damage.
func (l lostFrames) Unwrap() error { return queue.ErrCorrupt }

// openLooked opens the store at path for one who only reads. Where no server works on it, its
// log is looked at first, and damage there is an error ([lostFrames]): SQLite would use what
// is before it, and note that this is all there was. The next start would believe it.
func openLooked(ctx context.Context, path string) (*snapshot, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil { // the log is beside the target
		path = target
	}
	lock, err := lockToRead(path)
	switch {
	case errors.Is(err, queue.ErrLocked): // by the server, which has looked
		return openSnapshot(ctx, path)
	case err != nil:
		return nil, err
	case lock != nil:
		defer lock.Close() //nolint:errcheck // a server may start once the snapshot is open
	}
	if err := lookForLoss(path); err != nil {
		return nil, err
	}
	return openSnapshot(ctx, path)
}

// lockToRead is [lockFile] for one who changes nothing: it makes no lock file. It returns nil
// where there is none, for no server has worked on the store then.
func lockToRead(path string) (*flock.Flock, error) {
	lock := flock.New(path+lockSuffix, flock.SetFlag(os.O_RDONLY|openOwn))
	locked, err := lock.TryLock()
	switch {
	case locked:
		return lock, nil
	case err == nil:
		return nil, fault(path, queue.ErrLocked, "one process uses it at a time")
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil //nolint:nilnil // see above
	default:
		return nil, fault(path, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "the lock file beside it must be readable for this user")
	}
}

// lookForLoss returns [lostFrames] where SQLite would not use all of the log of the store at
// path, on which no server works. It changes nothing.
func lookForLoss(path string) error {
	f, err := os.OpenFile(logPath(path), os.O_RDONLY|openOwn, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault(path, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "the log must be readable for this user")
	}
	defer f.Close() //nolint:errcheck // it was only read
	gone := fileSize(path) == 0
	r, err := inspectLog(f, path, gone)
	name := filepath.Base(logPath(path))
	switch {
	case err != nil:
		return err
	case gone && r.frames+r.behind > 0:
		return lostFrames(fmt.Sprintf("the log %s is without its database: it has %d frames (pages), which may hold accepted mail", name, r.frames+r.behind))
	case r.lost:
		return lostFrames(fmt.Sprintf("the log %s: the first %d frames (pages) are sound, and %d behind the damage are lost to SQLite: they may hold accepted mail",
			name, r.frames, r.behind))
	}
	return nil
}
