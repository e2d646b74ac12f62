package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"mailsidecar/config"
	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
)

// KeptStore says under which names the store is that a restore has replaced.
type KeptStore = sqlite.Kept

// StoreReport is what a look at a whole store has found.
type StoreReport = sqlite.Report

// What does with a database what these commands do with a file.
const (
	backupInstead  = "back it up with pg_dump, or as the rest of the server is"
	restoreInstead = "restore it with pg_restore while no instance runs; what was delivered since the backup is sent again"
	checkInstead   = "check it with pg_amcheck; a backup in a file can be named"
)

// storePath is the file of the store that the configuration names.
func storePath(c config.Service, instead string) (string, error) {
	if c.Queue.Shared() {
		return "", &ConfigError{"MAILSIDECAR_QUEUE", errors.New("it is PostgreSQL, and no file: " + instead)}
	}
	if c.Queue.Store == "none" {
		return "", &ConfigError{"MAILSIDECAR_QUEUE", errors.New("it is none: there is no store")}
	}
	return c.Queue.Path, nil
}

// BackupStore writes a copy of the store that the configuration names to a file, which
// it replaces if asked to, and returns its size in octets. A server may work on the
// store. progress is told how many octets were copied, of how many, and log of a damaged log
// of a store on which no server works.
func BackupStore(ctx context.Context, c config.Service, to string, replace bool, progress func(done, total int64), log *slog.Logger) (int64, error) {
	path, err := storePath(c, backupInstead)
	if err != nil {
		return 0, err
	}
	size, err := sqlite.Backup(ctx, path, to, sqlite.BackupOptions{Replace: replace, MinFreeDisk: int64(c.MinFreeDisk), Progress: progress, Logger: log})
	return size, noStore(path, err)
}

// BackupStoreTo is [BackupStore] to a writer.
func BackupStoreTo(ctx context.Context, c config.Service, w io.Writer, progress func(done, total int64), log *slog.Logger) (int64, error) {
	path, err := storePath(c, backupInstead)
	if err != nil {
		return 0, err
	}
	size, err := sqlite.BackupTo(ctx, path, w, sqlite.BackupOptions{MinFreeDisk: int64(c.MinFreeDisk), Progress: progress, Logger: log})
	return size, noStore(path, err)
}

// RestoreStore puts a copy in the place of the store that the configuration names, on which
// no server may work. confirm is told what the copy holds before anything is changed. kept
// has the new names of the store that was there.
func RestoreStore(ctx context.Context, c config.Service, from string, progress func(done, total int64), confirm func(StoreReport) error) (kept KeptStore, err error) {
	path, err := storePath(c, restoreInstead)
	if err != nil {
		return kept, err
	}
	kept, err = sqlite.Restore(ctx, path, from, time.Now(), progress, confirm)
	if errors.Is(err, queue.ErrLocked) {
		err = fmt.Errorf("a store is restored while no server works on it: %w", err)
	}
	return kept, err
}

// CheckStore looks at all of the store in a file, without changing it; an empty name means the
// store that the configuration names. A server may work on it.
func CheckStore(ctx context.Context, c config.Service, file string) (path string, r StoreReport, err error) {
	if path = file; path == "" {
		if path, err = storePath(c, checkInstead); err != nil {
			return "", r, err
		}
	}
	r, err = sqlite.Verify(ctx, path)
	return path, r, noStore(path, err)
}

// noStore says which store is not there.
func noStore(path string, err error) error {
	var none *fs.PathError
	if errors.As(err, &none) && none.Path == path && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no store at %s: MAILSIDECAR_QUEUE or MAILSIDECAR_DATA_DIR must be that of the server", path)
	}
	return err
}
