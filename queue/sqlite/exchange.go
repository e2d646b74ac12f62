package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"time"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailsidecar/queue"
)

// exchange keeps the store at path under another name, and puts the restored one there. SQLite
// would play a log into whatever database it is beside: so the old one must have none
// by then.
func exchange(ctx context.Context, path, restored string, now time.Time) (kept Kept, err error) {
	if kept.Damage, err = foldLog(ctx, path); err != nil {
		return Kept{}, err
	}
	_, missing := os.Lstat(path)
	name := path + ".before-restore-" + now.UTC().Format("20060102T150405Z")
	if kept.Log, err = keepFile(logPath(path), name+"-wal"); err != nil {
		return Kept{}, err
	}
	if kept.Store, err = keepFile(path, name); err != nil {
		return Kept{}, err
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil {
		return Kept{}, err
	}
	if err := errors.Join(removeLeftovers(path), removeBeside(path, "-shm")); err != nil {
		return Kept{}, err
	}
	return kept, place(restored, path, missing == nil)
}

// keepFile gives a file a second name, so that it has one at any time, and returns that; for
// a file that is empty or not there it returns "".
func keepFile(path, name string) (kept string, err error) {
	if fileSize(path) == 0 {
		return "", nil
	}
	err = os.Link(path, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return name, err
	}
	from, err := os.Open(path) // a file system without links
	if err != nil {
		return "", err
	}
	defer from.Close() //nolint:errcheck // it was only read
	return name, errors.Join(writeCopy(from, name, math.MaxInt64), syncDirectory(filepath.Dir(name)))
}

// foldLog brings what is in the log into the database, and ends the log. Where the store is
// damaged it returns how, and both files stay as they are. Its lock is held.
func foldLog(ctx context.Context, path string) (damage []string, err error) {
	if fileSize(logPath(path)) == 0 {
		return nil, nil
	}
	if err = lookForLoss(path); err == nil {
		damage, err = damageOf(ctx, path)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && unreadable(err):
		return []string{err.Error()}, nil
	case err != nil || len(damage) > 0:
		return damage, err
	}
	return nil, storeError(path, endLog(ctx, path))
}

func damageOf(ctx context.Context, path string) ([]string, error) {
	s, err := openSnapshot(ctx, path)
	if err != nil {
		return nil, err
	}
	r, err := s.verifyAndClose()
	return r.Damage, err
}

// unreadable says that a store cannot be read by this version, now or later.
func unreadable(err error) bool {
	e, ok := errors.AsType[*sqlitedriver.Error](err)
	return errors.Is(err, queue.ErrCorrupt) || errors.Is(err, queue.ErrNewerSchema) || errors.Is(err, syscall.EIO) ||
		ok && e.Code()&0xff == sqlite3.SQLITE_IOERR
}

// endLog copies the log into the database. It waits a little for others who read the two.
func endLog(ctx context.Context, path string) error {
	const patience = "2000" // milliseconds
	db, err := sql.Open("sqlite", dsn(path)+"&mode=rw&_synchronous=full")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "PRAGMA busy_timeout = "+patience); err != nil {
		return err
	}
	var busy, frames, copied int
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &copied); err != nil {
		return fmt.Errorf("bring the log of the queue that is there into its file: %w", err)
	}
	if busy != 0 {
		return fmt.Errorf("%s: another process reads it: end that first, such as a backup or a check of it; nothing was changed", path)
	}
	return nil
}

func removeBeside(path string, suffixes ...string) error {
	var errs []error
	for _, suffix := range suffixes {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
