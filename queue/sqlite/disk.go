package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailsidecar/queue"
)

// diskFault says in plain words why the system lets nothing be written in dir; nil where
// the error is another one.
func diskFault(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fault(dir, fmt.Errorf("%w: no space is left on the file system of %s", queue.ErrDiskFull, dir),
			"free some, or set MAILSIDECAR_DATA_DIR to a directory on a larger one; what is stored goes out then")
	case errors.Is(err, syscall.EDQUOT):
		return fault(dir, fmt.Errorf("%w: the disk quota for %s is used up", queue.ErrDiskFull, dir),
			"raise the quota of this user or directory, or free some space in it; what is stored goes out then")
	case errors.Is(err, syscall.EROFS):
		return fault(dir, fmt.Errorf("%w: %s is on a read-only file system", queue.ErrDirectory, dir),
			"mount it writable (one that found errors becomes read-only by itself: see the kernel's log, dmesg), "+
				"or set MAILSIDECAR_DATA_DIR to another directory")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fault(dir, errors.New("too many open files"), "raise the limit of open files (ulimit -n, LimitNOFILE)")
	case errors.Is(err, syscall.EIO):
		return fault(dir, errors.New("the disk reports errors"), "see the kernel's log (dmesg), and move the queue to a sound disk")
	default:
		return nil
	}
}

// FreeDisk is the room on the disk of the store, in octets.
func (s *Store) FreeDisk() (int64, error) { return s.free(filepath.Dir(s.opts.Path)) }

// ofDisk says that the cause of SQLite's error may be the disk: it keeps what the system
// said to itself.
func ofDisk(err error) bool {
	var e *sqlitedriver.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		return true
	default:
		return false
	}
}

// named is [storeError] with the cause that the disk has, if any.
func named(path string, err error, probe func(dir string) error) error {
	var known *queue.StoreError
	if err == nil || errors.As(err, &known) {
		return err
	}
	dir := filepath.Dir(path)
	cause := diskFault(dir, err)
	if cause == nil && ofDisk(err) {
		cause = diskFault(dir, probe(dir))
	}
	if cause == nil && errors.Is(storeError(path, err), queue.ErrDiskFull) { // there is room for less
		cause = diskFault(dir, syscall.ENOSPC)
	}
	if cause == nil {
		return storeError(path, err)
	}
	return cause
}

// probeSize is as much as SQLite writes at a time to the smallest of its files.
const probeSize = 64 << 10

// probeDisk writes a file and deletes it, and returns what the system says to it.
func probeDisk(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	defer closeProbe(f)()
	if _, err := f.Write(make([]byte, probeSize)); err != nil {
		return err
	}
	return f.Sync()
}

// closeProbe deletes the file at once, so that a crash leaves nothing, and returns what
// closes it. A system that deletes no open file does it then.
func closeProbe(f *os.File) func() {
	deleted := os.Remove(f.Name()) == nil
	return func() {
		_ = f.Close() // nothing in it is of use
		if !deleted {
			_ = os.Remove(f.Name())
		}
	}
}

// probeRest is how long the answer of a probe is used again: many writes may fail at a
// time.
const probeRest = time.Second

// probes asks the disk once in a while. One goroutine uses it.
type probes struct {
	ask  func(dir string) error
	at   time.Time
	last error
}

func (p *probes) probe(dir string) error {
	if now := time.Now(); p.at.IsZero() || now.Sub(p.at).Abs() >= probeRest {
		p.at, p.last = now, p.ask(dir)
	}
	return p.last
}
