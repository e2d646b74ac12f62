package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailsidecar/queue"
)

// BackupOptions says how a copy is made.
type BackupOptions struct {
	// Replace lets the copy take the place of a file that exists.
	Replace bool
	// MinFreeDisk is the octets of free disk that are left for the server where the copy
	// shares its disk.
	MinFreeDisk int64
	// Progress is told how many octets were copied, of how many; nil is told nothing.
	Progress func(done, total int64)
	// Logger is told of a damaged log of a store on which no server works, as at a start:
	// the copy has no more of it than SQLite uses. Nil discards it.
	Logger *slog.Logger
}

func (o BackupOptions) withDefaults() BackupOptions {
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o
}

// Backup writes a copy of the store at path, as it is at one moment, to the file named to,
// and returns its size in octets. Contents are a part of it. A server may use the store
// meanwhile: its commits do not wait, but its log grows until the copy is made. An error
// leaves nothing behind: the file appears when it is whole and synced.
func Backup(ctx context.Context, path, to string, o BackupOptions) (int64, error) {
	if err := checkTarget(path, to, o.Replace); err != nil {
		return 0, err
	}
	var size int64
	err := withCopy(ctx, path, filepath.Dir(to), o, func(f *os.File) error {
		size = fileSize(f.Name())
		return place(f.Name(), to, o.Replace)
	})
	return size, err
}

// BackupTo is Backup to a writer. The copy is made in the store's directory first: a reader
// that takes its time must not keep the server's log from being shortened. It has no name
// while it is read: a reader that ends early may kill this process (SIGPIPE).
func BackupTo(ctx context.Context, path string, w io.Writer, o BackupOptions) (size int64, err error) {
	err = withCopy(ctx, path, filepath.Dir(path), o, func(f *os.File) error {
		_ = os.Remove(f.Name()) // where that is not possible, it is removed at the end
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			size, err = io.Copy(w, f)
		}
		return err
	})
	return size, err
}

// withCopy makes a copy in dir, calls use with it, and removes what is left of it.
func withCopy(ctx context.Context, path, dir string, o BackupOptions, use func(*os.File) error) error {
	s, err := openSource(ctx, path, o.Logger)
	if err != nil {
		return err
	}
	defer s.close() //nolint:errcheck // it was only read
	removeStaleCopies(dir, filepath.Dir(path))
	if err := roomFor(s, dir, o.MinFreeDisk); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, copyPrefix+"*") // private
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it may have got its own name
	defer f.Close()           //nolint:errcheck // it is synced
	if err := s.copyTo(f, o.withDefaults().Progress); err != nil {
		return storeError(path, err)
	}
	_ = s.close() // the server's log may be shortened from here on
	return use(f)
}

const (
	copyPrefix = ".mailsidecar-copy-" // of the name of an unfinished copy
	// staleCopy is how long nobody has written to a copy whose maker was killed. One who lives
	// writes a piece in seconds.
	staleCopy = time.Hour
)

// removeStaleCopies removes what backups left that were killed. What cannot be removed stays.
func removeStaleCopies(dirs ...string) {
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // making the copy tells what is wrong
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), copyPrefix) || !e.Type().IsRegular() {
				continue
			}
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleCopy {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// openSource opens a store for a copy of it. Where no server uses it, its log is looked at
// first, as a start does: SQLite would forget what is behind damage without a word.
func openSource(ctx context.Context, path string, log *slog.Logger) (*snapshot, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	lock, err := lockAsCommand(path)
	switch {
	case errors.Is(err, queue.ErrLocked): // by the server, which has done so
		return openSnapshot(ctx, path)
	case err != nil:
		return nil, err
	}
	// A server may start once the snapshot is open.
	defer lock.Close() //nolint:errcheck // it was only read
	if err := (&Store{opts: Options{Path: path, Logger: log}.withDefaults()}).checkLog(); err != nil {
		return nil, err
	}
	return openSnapshot(ctx, path)
}

// roomFor fails where the copy would not fit into dir, or would take the room that the
// server needs.
func roomFor(s *snapshot, dir string, minFree int64) error {
	free, err := freeDisk(dir)
	if err != nil {
		return err
	}
	if !sameDirectory(dir, filepath.Dir(s.path)) {
		minFree = 0
	}
	if free-s.size() < minFree {
		return fault(dir, queue.ErrDiskFull, fmt.Sprintf("the copy needs %d octets, %d are free, and %d are kept free for the server", s.size(), free, max(minFree, 0)))
	}
	return nil
}

func sameDirectory(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
