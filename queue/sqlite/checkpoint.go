package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	sqlitedriver "modernc.org/sqlite"
)

// Limits of the log, in octets. The log is copied into the file when it has become longer by
// copyPages, and SQLite begins it anew with the next commit; but not while a view reads
// from it, and views may overlap without end.
const (
	// longLog is the length from which on the log gets a moment without views. SQLite
	// shortens a longer file to it.
	longLog = 32 << 20
	// longestLog is the length that new messages must not exceed: they wait for that
	// moment. What their rows and outcomes take comes on top, so that the file may get
	// 64 MiB long.
	longestLog = 46 << 20
	// trimPause is how long the log may be left alone after such a moment: it becomes
	// short with the next commit that changes something.
	trimPause = 50 * time.Millisecond
	// hungPause is how long it is left alone after a view that did not end in time.
	hungPause = 5 * time.Second
)

// logKeeper keeps the log short. It belongs to the writer.
type logKeeper struct {
	quiet  <-chan struct{} // closed when no view is inside; nil while the gate is not shut for us
	opened <-chan struct{} // closed when the gate has opened though there was no such moment
	after  time.Time       // when to try again, unless the log is full
	hung   time.Time       // when to try again in any case
}

// logFile is the log, open to find its length. To ask for the attributes of the file with
// each commit is expensive: Linux then notes the exact time of the next change, and each
// fsync writes that, too.
type logFile struct {
	path string
	file *os.File // nil until the length is asked for
}

// size is the length of the log, in octets: what is in it, and up to longLog of what was.
func (l *logFile) size() int64 {
	if l.file == nil {
		f, err := os.Open(l.path)
		if err != nil { // deleted; it has no length that matters
			return 0
		}
		l.file = f
	}
	n, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0
	}
	return n
}

// close closes the file. The next call of size opens the one that is there then.
func (l *logFile) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// trimLog makes room in the log for a commit of so many octets. It waits for the views
// inside, for viewTime at most, only where there is not enough.
func (w *writer) trimLog(size int64) {
	log := w.log.size()
	full := log+size > longestLog
	if full {
		w.awaitCopy()
	} else if log > longLog && w.grown > restPages && w.keep.quiet == nil {
		w.beginCopy()
	}
	if w.copying {
		return
	}
	if w.keep.quiet == nil {
		now := time.Now()
		if now.Before(w.keep.hung) || !full && (log <= longLog || now.Before(w.keep.after)) {
			return
		}
		w.keep.quiet, w.keep.opened = w.store.gate.shut()
	}
	if full {
		select {
		case <-w.keep.quiet:
		case <-w.keep.opened:
		}
	}
	select {
	case <-w.keep.quiet:
		w.checkpoint()
	case <-w.keep.opened:
		w.keep = logKeeper{hung: time.Now().Add(hungPause)}
	default:
	}
}

// checkpoint copies all of the log into the file, while no view is inside. Those that
// begin afterwards, and before the next commit, read the file alone, so that this
// commit can begin the log anew.
func (w *writer) checkpoint() {
	copyLogged(w.session)
	w.grown = 0
	w.store.gate.open(w.keep.opened)
	w.keep = logKeeper{after: time.Now().Add(trimPause)}
}

const (
	// copyPages of log (16 MiB) are collected before they are copied into the file. Most
	// octets are deleted again before that and never get there.
	copyPages = 4000
	// restPages of log are copied by the writer itself.
	restPages = 1024
)

// copier copies the log into the file beside the writer, whose commits need not wait for
// it. Only large writes do, lest the log grow as fast as it is copied. The fields are the
// writer's.
type copier struct {
	db      *sql.DB
	session *session
	grown   int           // pages of log that were written since a copy began
	copying bool          // a copy was begun and has not ended
	copied  chan struct{} // receives when it ends
}

func newCopier(path string) (*copier, error) {
	db, err := sql.Open("sqlite", dsn(path, "wal_autocheckpoint(0)")+"&mode=rw&_synchronous=full")
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1)
	c, err := connect(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &session{context.Background(), c}
	if err := s.read(); err != nil { // once the file is deleted it cannot be opened any more
		return nil, errors.Join(err, c.close(), db.Close())
	}
	return &copier{db: db, session: s, copied: make(chan struct{}, 1)}, nil
}

func (c *copier) close() error { return errors.Join(c.session.close(), c.db.Close()) }

// beginCopy copies what is in the log by now.
func (c *copier) beginCopy() {
	if c.copying {
		return
	}
	c.grown, c.copying = 0, true
	go func() {
		copyLogged(c.session)
		c.copied <- struct{}{}
	}()
}

// copyLogged copies the log into the file, as far as no view needs the old state of that.
func copyLogged(s *session) {
	var busy, log, copied int
	// Where it fails, the log stays as it is.
	_ = s.row("PRAGMA wal_checkpoint(PASSIVE)", nil, &busy, &log, &copied)
}

// copySome counts what the last commit has written, and begins a copy when it is time.
func (w *writer) copySome() {
	w.grown += w.pagesWritten()
	if w.copying {
		select {
		case <-w.copied:
			w.endCopy()
		default:
		}
	} else if w.grown >= copyPages && w.keep.quiet == nil {
		w.beginCopy()
	}
}

// endCopy copies what few pages were written beside the copy that ended: the log begins anew
// only when all of it was copied. Where they are many it is left to the next copy; trimLog
// insists.
func (w *writer) endCopy() {
	w.copying = false
	if w.grown > 0 && w.grown <= restPages {
		copyLogged(w.session)
		w.grown = 0
	}
}

// awaitCopy waits for the copy that is under way.
func (w *writer) awaitCopy() {
	for w.copying {
		<-w.copied
		w.copying = false
	}
}

// pagesWritten is how many pages were written to the log since the last call.
func (w *writer) pagesWritten() (n int) {
	_ = w.conn.Raw(func(c any) (err error) {
		n, _, err = c.(sqlitedriver.DBStatus).Status(sqlitedriver.DBStatusCacheWrite, true)
		return err
	})
	return n
}

// logPath is where SQLite has the log of the database at path: beside the file that
// a link leads to.
func logPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path + "-wal"
}
