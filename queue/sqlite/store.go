// Package sqlite is the queue's store in one SQLite file.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailsidecar/processor"
	"mailsidecar/queue"
)

// Options says where a store is and how long it keeps what is final.
type Options struct {
	// Path is the database file. Its directory is created when it is missing;
	// Path with "-wal", "-wal.damaged", "-shm", ".lock" and ".new" appended is used too.
	// None of them may be a link; the directory may.
	Path string
	// MinFreeDisk is the octets of free disk below which new messages are
	// refused, so that outcomes can still be written; zero means 64 MiB.
	MinFreeDisk int64
	// Retention is how long a message is kept after it became final, and so how
	// long a bounced or expired one can be retried; zero means 7 days, less
	// than a day means a day, the life of an idempotency key.
	Retention time.Duration
	// KeepBodies is how long the bytes of a message are kept that nobody can
	// retry, being delivered or canceled; zero drops them in the commit that
	// records so. Retention bounds it.
	KeepBodies time.Duration
	// Meter counts commits; nil counts nothing.
	Meter Meter
	// Processor gives lists their turns beside other work that takes long; nil lets each go on
	// at once.
	Processor *processor.Turns
	// Logger says at the start that a crash has left a damaged log, and that an older schema
	// is migrated; nil discards it.
	Logger *slog.Logger
	// Copying opens the store also where its mail was copied to another one, or a copy into it
	// is not whole.
	Copying bool
}

func (o Options) withDefaults() Options {
	if o.MinFreeDisk == 0 {
		o.MinFreeDisk = 64 << 20
	}
	if o.Retention == 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	o.Retention = max(o.Retention, queue.IdempotencyLife)
	o.KeepBodies = min(o.KeepBodies, o.Retention)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Store is the [queue.Store] in one SQLite file, for one process.
//
// One goroutine writes. It puts everything that waits to be written into one
// transaction, so that many callers share one fsync (group commit). WAL and
// synchronous=FULL make a commit durable when it returns. A few connections
// beside it read; they neither block the writer nor wait for it.
type Store struct {
	opts    Options
	lock    *flock.Flock
	file    os.FileInfo // of the database, to notice that it was replaced
	readers *readers
	lists   *readers
	line    *line // to the connections for lists
	gate    gate
	stages  stages
	janitor janitor
	counter janitor // counts the numbers anew
	closing sync.Once
	writer  *writer
	begun   atomic.Value                    // the owner that has begun to take over from others
	only    atomic.Value                    // the owner that has taken over from all others
	leases  atomic.Int64                    // the number of the last lease
	free    func(dir string) (int64, error) // octets; replaced in tests
	fault   func(happened bool) error       // fails commits, before or after they happened, in tests
	step    func()                          // called in each transaction of a list, in tests
}

// Open opens the store, creating it when it does not exist. Nothing is
// changed before the directory was probed and the lock file locked. What can go
// wrong is a [queue.StoreError] that says what to do.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	o.Path = path
	if err := prepareDirectory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := checkFiles(path); err != nil {
		return nil, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, lock: lock, free: freeDisk, line: newLine(listConnections), step: func() {}}
	s.leases.Store(queue.FirstLease + rand.Int64N(1<<40)) //nolint:gosec // it need not be secret, only other than before
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(named(path, err, probeDisk), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := s.checkLog(); err != nil {
		return err
	}
	if err := createDatabase(ctx, s.opts.Path); err != nil {
		return err
	}
	w, err := openWriter(ctx, s)
	if err != nil {
		return err
	}
	s.writer = w
	go w.run()
	if mark, err := readMark(w.session); err != nil || !s.opts.Copying && mark.Err(s.opts.Path) != nil {
		return cmp.Or(err, mark.Err(s.opts.Path))
	}
	if s.file, err = os.Stat(s.opts.Path); err != nil {
		return err
	}
	// The names of the file and of its log must be as durable as what is in
	// them.
	if err := syncDirectory(filepath.Dir(s.opts.Path)); err != nil {
		return err
	}
	if s.readers, err = openReaders(s, readConnections); err != nil {
		return err
	}
	if s.lists, err = openReaders(s, listConnections); err != nil {
		return err
	}
	s.startCounter() // first: what the janitor does may set it to work
	s.startJanitor()
	return ctx.Err()
}

// createDatabase makes a new database under another name, unless there is one at
// path, and renames it when it is whole and synced. SQLite would create it in
// place with a dozen fsyncs more, and the start waits for each.
func createDatabase(ctx context.Context, path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return nil
	}
	switch _, err := os.Lstat(path); {
	case err == nil: // somebody's empty file
		return createSchema(ctx, path, "")
	case !errors.Is(err, fs.ErrNotExist): // there may be one, which must not be replaced
		return err
	}
	unfinished := path + unfinishedSuffix
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a start that was cut short
		return err
	}
	if err := createFile(unfinished); err != nil {
		return err
	}
	if err := createSchema(ctx, unfinished, "PRAGMA synchronous = off; PRAGMA journal_mode = memory"); err != nil {
		return err
	}
	if err := syncFile(unfinished); err != nil {
		return err
	}
	if err := removeLeftovers(path); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}

// removeLeftovers removes the logs of a database that somebody has deleted:
// SQLite would take them for the new one's, and play them into it.
func removeLeftovers(path string) error {
	found := false
	for _, suffix := range []string{"-wal", "-journal"} {
		switch err := os.Remove(path + suffix); {
		case err == nil:
			found = true
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if found { // before the new name is
		return syncDirectory(filepath.Dir(path))
	}
	return nil
}

// createFile makes the database private before SQLite writes to it; the log
// beside it takes the same mode.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// createSchema fills an empty file. auto_vacuum must be set before the first
// table, and WAL at last: until then a transaction goes into the file itself.
func createSchema(ctx context.Context, path, pragmas string) error {
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(context.Background())
	if err != nil {
		return errors.Join(err, db.Close())
	}
	_, err = conn.ExecContext(context.Background(), pragmas+"; PRAGMA auto_vacuum = incremental")
	if err == nil {
		err = migrate(ctx, conn, path, slog.New(slog.DiscardHandler))
	}
	if err == nil {
		_, err = conn.ExecContext(context.Background(), "PRAGMA journal_mode = wal")
	}
	return errors.Join(err, conn.Close(), db.Close())
}

// dsn is the data source name of path. Double-quoted strings are off: a typo in
// a column's name must be an error.
func dsn(path string, pragmas ...string) string {
	name := filepath.ToSlash(path)
	if runtime.GOOS == "windows" {
		name = "/" + name
	}
	u := url.URL{Scheme: "file", Path: name}
	q := url.Values{"_dqs": {"0"}, "_defensive": {"1"}, "_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	u.RawQuery = q.Encode()
	return u.String()
}

// Close commits what was handed over, waits for those who read, and closes the
// file. The lock goes last.
func (s *Store) Close() error {
	var errs []error
	s.closing.Do(func() {
		for _, p := range []*readers{s.readers, s.lists} {
			if p != nil {
				p.refuse()
			}
		}
		s.janitor.end()
		s.counter.end()
		if s.writer != nil {
			errs = append(errs, s.writer.close())
		}
		for _, p := range []*readers{s.readers, s.lists} {
			if p != nil {
				errs = append(errs, p.close())
			}
		}
		errs = append(errs, s.lock.Close())
	})
	return errors.Join(errs...)
}

// Heartbeat has nothing to do: the lock file tells that every other owner is
// gone.
func (*Store) Heartbeat(context.Context, string, time.Time) error { return nil }

// Check says why messages are refused or cannot be read just now: the file was
// moved away, the disk is nearly full, the last write failed, or a read does.
func (s *Store) Check(ctx context.Context) error {
	if err := s.admit(0); err != nil {
		return err
	}
	if err := s.writer.lastError(); err != nil {
		return err
	}
	return s.tryRead(ctx)
}

// admit refuses size octets of new messages where they would be lost with the
// file, or would take the room that outcomes need.
func (s *Store) admit(size int64) error {
	if err := s.moved(); err != nil {
		return err
	}
	free, err := s.free(filepath.Dir(s.opts.Path))
	if err != nil {
		return fmt.Errorf("free disk: %w", err)
	}
	if free-size < s.opts.MinFreeDisk {
		return fmt.Errorf("%w: %d octets are free, and MAILSIDECAR_MIN_FREE_DISK keeps %d for the outcomes of what is stored",
			queue.ErrDiskFull, free, max(s.opts.MinFreeDisk, 0))
	}
	return nil
}

// moved says that the file at the path is not the one that is open.
func (s *Store) moved() error {
	now, err := os.Stat(s.opts.Path)
	if err != nil || !os.SameFile(s.file, now) {
		return fault(s.opts.Path, queue.ErrMoved, "new mail is refused; what is stored is still being delivered from the open file. "+
			"Let the queue drain, then restart")
	}
	return nil
}

// fault says what is wrong with the store at path, and what helps.
func fault(path string, err error, remedy string) error {
	return &queue.StoreError{Path: path, Err: err, Remedy: remedy}
}

const corruptRemedy = "stop the service, copy the file and its -wal away together, save what can be read with " +
	"`sqlite3 FILE .recover`, and start with a new file or a backup"

// storeError turns what SQLite says into what an operator can act on.
func storeError(path string, err error) error {
	var known *queue.StoreError
	var e *sqlitedriver.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, queue.ErrCorrupt):
		return fault(path, err, corruptRemedy)
	case !errors.As(err, &e):
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", queue.ErrDiskFull, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fault(path, fmt.Errorf("%w: %w", queue.ErrCorrupt, err), corruptRemedy)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fault(path, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "the file and its directory must be writable for this user")
	case sqlite3.SQLITE_IOERR:
		return fault(path, err, "the disk reports errors: see the kernel's log (dmesg), and move the queue to a sound disk")
	default:
		return fmt.Errorf("queue store: %w", err)
	}
}
