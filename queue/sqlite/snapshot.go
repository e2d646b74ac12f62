package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	sqlitedriver "modernc.org/sqlite"

	"mailsidecar/queue"
)

const (
	// copyPiece is how many octets of a copy are written before they are synced. What is
	// not synced yet may delay the commits of a server on the same disk.
	copyPiece = 4 << 20
	// maxLogGrowth is how much the log of a store may grow while somebody reads it as it was at
	// one moment, unless the store itself is larger: SQLite cannot begin the log anew
	// before the reader is done.
	maxLogGrowth = 512 << 20
)

// errLogGrown: a reader took so long that the log has become too long.
var errLogGrown = errors.New("the server wrote too much meanwhile: try again when it has less to do, or with a faster disk")

// snapshot reads a database as it is at one moment, whoever writes to it meanwhile. It
// writes nothing, not even where it is the last to close the database.
type snapshot struct {
	*session
	db       *sql.DB
	path     string
	pages    int64
	pageSize int64
	schema   int
	logSize  int64 // octets of the log at the beginning
}

// openSnapshot opens the store at path. The error is a [queue.StoreError] where the file is
// no store that this version can read.
func openSnapshot(ctx context.Context, path string) (*snapshot, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := dsn(full, "query_only(1)") + "&mode=ro"
	if isCopy(path) { // which may be where no file can be made beside it
		name += "&immutable=1"
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1)
	c, err := connect(db)
	if err != nil {
		return nil, errors.Join(storeError(path, err), db.Close())
	}
	s := &snapshot{session: &session{ctx, c}, db: db, path: path, logSize: fileSize(logPath(path))}
	if err := s.begin(); err != nil {
		return nil, errors.Join(storeError(path, err), s.close())
	}
	return s, nil
}

// isCopy says that no server works on the file, or ever has.
func isCopy(path string) bool {
	return !slices.ContainsFunc([]string{"-wal", "-shm", lockSuffix}, func(suffix string) bool {
		_, err := os.Lstat(path + suffix)
		return err == nil
	})
}

func (s *snapshot) begin() error {
	if err := s.control("BEGIN"); err != nil {
		return err
	}
	var app int
	if err := s.row(`SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),
		(SELECT page_count FROM pragma_page_count), (SELECT page_size FROM pragma_page_size), (SELECT count(*) FROM sqlite_schema)`,
		nil, &s.schema, &app, &s.pages, &s.pageSize, new(int)); err != nil {
		return err
	}
	switch {
	case app != applicationID:
		return fault(s.path, queue.ErrCorrupt, "this file is not a queue of mailsidecar")
	case s.schema > len(migrations):
		return fault(s.path, queue.ErrNewerSchema, fmt.Sprintf("it has schema %d and this version knows up to %d; use the newer version", s.schema, len(migrations)))
	}
	return nil
}

// size is the number of octets of the database.
func (s *snapshot) size() int64 { return s.pages * s.pageSize }

// close may be called with a transaction that failed.
func (s *snapshot) close() error {
	s.rollBack()
	return errors.Join(s.connection.close(), s.db.Close())
}

// patience returns an error once the reader has taken too long.
func (s *snapshot) patience() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if fileSize(logPath(s.path))-s.logSize > max(maxLogGrowth, s.size()) {
		return fault(s.path, errLogGrown, "nothing was changed")
	}
	return nil
}

// copyTo writes the database to an empty file that nothing else uses. progress is told the octets
// that were copied.
func (s *snapshot) copyTo(f *os.File, progress func(done, total int64)) error {
	return s.conn.Raw(func(c any) error {
		b, err := c.(interface {
			NewBackup(to string) (*sqlitedriver.Backup, error)
		}).NewBackup(dsn(f.Name(), "journal_mode(memory)", "synchronous(off)"))
		if err != nil {
			return err
		}
		return errors.Join(s.copyPieces(b, f, progress), b.Finish(), f.Sync())
	})
}

func (s *snapshot) copyPieces(b *sqlitedriver.Backup, f *os.File, progress func(done, total int64)) error {
	for more := true; more; {
		if err := s.patience(); err != nil {
			return err
		}
		var err error
		if more, err = b.Step(int32(copyPiece / s.pageSize)); err != nil { // pages have 512 octets at least
			return err
		}
		if err = f.Sync(); err != nil {
			return err
		}
		progress(int64(b.PageCount()-b.Remaining())*s.pageSize, int64(b.PageCount())*s.pageSize)
	}
	return nil
}

// fileSize is the length of a file in octets; zero where it cannot be told.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
