package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"mailsidecar/config"
	"mailsidecar/queue/postgres"
	"mailsidecar/queue/sqlite"
	"mailsidecar/queue/transfer"
)

// CopyReport says what was copied, CopyProgress how far a copy is, and CopyMark what a store
// knows of a copy.
type (
	CopyReport   = transfer.Report
	CopyProgress = transfer.Progress
	CopyMark     = transfer.Mark
)

// ErrOldLocked is part of the error of a copy that has locked the old queue.
var ErrOldLocked = transfer.ErrOldLocked

// CopyStore copies the queue that the configuration names to another place. No server may work
// on either.
func CopyStore(ctx context.Context, c config.Service, to config.Queue, progress func(CopyProgress), log *slog.Logger) (r CopyReport, err error) {
	from, err := openSource(ctx, c, true, log)
	if err != nil {
		return r, err
	}
	target := c
	target.Queue = to
	side, err := openSide(ctx, target, log)
	if err != nil {
		return r, errors.Join(err, from.Close())
	}
	r, err = transfer.Copy(ctx, from, side, c.Uncertain == "hold", progress)
	return r, errors.Join(err, side.Close(), from.Close())
}

// UndoCopy lets the queue that the configuration names be used again after it was copied.
func UndoCopy(ctx context.Context, c config.Service, confirm func(CopyMark) error, log *slog.Logger) error {
	s, err := openSource(ctx, c, false, log)
	if err != nil {
		return err
	}
	return errors.Join(transfer.Undo(ctx, s, confirm), s.Close())
}

// openSource opens a store that must be there. In a database it is brought to the newest version
// only where migrate says so.
func openSource(ctx context.Context, c config.Service, migrate bool, log *slog.Logger) (transfer.Side, error) {
	if c.Queue.Store == "none" {
		return nil, &ConfigError{"MAILSIDECAR_QUEUE", errors.New("it is none: there is no queue to copy")}
	}
	if !c.Queue.Shared() {
		if _, err := os.Stat(c.Queue.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, noStore(c.Queue.Path, err)
		}
		return openSide(ctx, c, log)
	}
	o := databaseOptions(c, log)
	o.Copying, o.Listen = true, postgres.ListenNone
	switch found, err := postgres.Examine(ctx, o); {
	case err != nil:
		return nil, err
	case found.Schema == 0: // else a name that was misspelt would be made, and moved
		return nil, fmt.Errorf("there is no queue in the schema of %s: MAILSIDECAR_QUEUE must be that of the server", c.Queue)
	case migrate:
		return openSide(ctx, c, log)
	}
	return postgres.OpenSide(ctx, o)
}

func openSide(ctx context.Context, c config.Service, log *slog.Logger) (transfer.Side, error) {
	if !c.Queue.Shared() {
		return sqlite.OpenSide(ctx, sqliteOptions(c, log))
	}
	o := databaseOptions(c, log)
	if _, _, err := postgres.Migrate(ctx, o); err != nil {
		return nil, err
	}
	return postgres.OpenSide(ctx, o)
}
