package sqlite

import (
	"io"
	"os"
	"path/filepath"
	"time"
)

// Bounds of the log, in octets. SQLite copies the log into the file when a commit has made
// it longer than checkpointPages, and begins it anew with the next commit; but not
// while a view reads from it, and views may overlap without end.
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
	var busy, log, copied int
	// Where it fails, the log stays as it is.
	_ = w.row("PRAGMA wal_checkpoint(PASSIVE)", nil, &busy, &log, &copied)
	w.store.gate.open(w.keep.opened)
	w.keep = logKeeper{after: time.Now().Add(trimPause)}
}

// logPath is where SQLite has the log of the database at path: beside the file that
// a link leads to.
func logPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path + "-wal"
}
