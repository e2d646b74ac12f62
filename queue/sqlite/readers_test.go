package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// viewTogether has so many views at the same time, and returns their errors.
func viewTogether(t *testing.T, s *Store, n int) error {
	t.Helper()
	errs := make([]error, n)
	var here, all sync.WaitGroup
	here.Add(n)
	for i := range n {
		all.Go(func() {
			arrived := sync.OnceFunc(here.Done)
			defer arrived()
			errs[i] = s.view(t.Context(), func(v *session) error {
				arrived()
				here.Wait()
				return v.read()
			})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// openAll opens every connection that there may be, and returns them.
func openAll(t *testing.T, p *readers) []*connection {
	t.Helper()
	var all []*connection
	for range cap(p.free) {
		c, err := p.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		p.giveBack(c)
	}
	return all
}

// TestReadersOpenWhenNeeded: there are as many connections as were in use at once, but
// one from the start on, so that what is stored is read when the file is gone.
func TestReadersOpenWhenNeeded(t *testing.T) {
	s := openStore(t, dbPath(t))
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{randomEntry(0, time.Now())}}); err != nil {
		t.Fatal(err)
	}
	readOne := func() {
		t.Helper()
		for range 3 {
			page, err := s.List(t.Context(), queue.Filter{Key: queue.AnyKey}, 50, "")
			if err != nil || len(page.Messages) == 0 {
				t.Fatalf("List = %d messages, %v, want some", len(page.Messages), err)
			}
			if _, err := s.Content(t.Context(), queue.AnyKey, page.Messages[0].ID); err != nil {
				t.Errorf("Content = %v", err)
			}
		}
	}
	readOne()
	if look, list := s.readers.left(), s.lists.left(); look != 1 || list != 1 {
		t.Errorf("connections of one who reads = %d and %d, want 1 and 1", look, list)
	}
	if err := viewTogether(t, s, readConnections-1); err != nil {
		t.Errorf("views at once = %v", err)
	}
	if err := os.Remove(s.opts.Path); err != nil {
		t.Fatal(err)
	}
	readOne()
	if err := viewTogether(t, s, readConnections-1); err != nil {
		t.Errorf("views at once of a file that is gone = %v", err)
	}
	if got := s.readers.left(); got != readConnections-1 {
		t.Errorf("connections after %d views at once = %d", readConnections-1, got)
	}
}

// TestEveryReaderSurvives: after callers have left at any time, as many read at
// once as there are connections, and the writer writes.
func TestEveryReaderSurvives(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	storetest.EndContexts(t, s)
	if err := viewTogether(t, s, readConnections); err != nil {
		t.Errorf("views at once = %v", err)
	}
	if err := s.write(t.Context(), (*writer).probe); err != nil {
		t.Errorf("write = %v", err)
	}
}

// TestOpenGivenUp: a start that is given up at any time, be it while the store is
// created or migrated, is followed by one that succeeds.
func TestOpenGivenUp(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	for looks := range 12 {
		path := dbPath(t)
		if looks%2 == 1 {
			migrations = all[:1]
			openStore(t, path).Close() //nolint:errcheck // the next one tells
			migrations = all
		}
		if s, err := Open(storetest.EndingAt(t.Context(), looks), Options{Path: path}); err == nil {
			_ = s.Close()
		}
		s := openStore(t, path)
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("Check after a start given up at look %d = %v", looks, err)
		}
	}
}

// spoil brings a connection into a state that nobody knows.
var spoil = map[string]func(t *testing.T, c *connection){
	"in a transaction": func(t *testing.T, c *connection) {
		if err := c.control("BEGIN"); err != nil {
			t.Fatal(err)
		}
	},
	"closed": func(t *testing.T, c *connection) {
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	},
	"unsure": func(_ *testing.T, c *connection) { c.unsure = true },
}

// TestSpoiledReaders: connections that are of no use are replaced, and the store
// goes on.
func TestSpoiledReaders(t *testing.T) {
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, dbPath(t))
			openAll(t, s.readers)
			spoilReaders(t, s, spoil)
			for range 2 {
				if err := viewTogether(t, s, readConnections); err != nil {
					t.Errorf("views at once = %v", err)
				}
			}
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("Check = %v", err)
			}
		})
	}
}

func spoilReaders(t *testing.T, s *Store, spoil func(*testing.T, *connection)) {
	t.Helper()
	var all []*connection
	for range readConnections {
		all = append(all, <-s.readers.free)
	}
	for _, c := range all {
		spoil(t, c)
		s.readers.free <- c
	}
}

// TestSpoiledWriter: the next write goes over another connection.
func TestSpoiledWriter(t *testing.T) {
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, dbPath(t))
			cause := errors.New("cause")
			if err := s.write(t.Context(), func(w *writer) error {
				if name != "in a transaction" { // it is
					spoil(t, w.connection)
				}
				return cause
			}); !errors.Is(err, cause) {
				t.Errorf("write that spoils the connection = %v, want its error", err)
			}
			if err := s.write(t.Context(), (*writer).probe); err != nil {
				t.Errorf("write = %v", err)
			}
		})
	}
}

// TestSpoiledAfterDeletion: no connection can be opened any more. What can still be
// used is, and what happens is told.
func TestSpoiledAfterDeletion(t *testing.T) {
	s := openStore(t, dbPath(t))
	s.janitor.end() // it reads, too, and would find the closed connection first
	openAll(t, s.readers)
	if err := os.Remove(s.opts.Path); err != nil {
		t.Fatal(err)
	}
	one := true
	spoilReaders(t, s, func(t *testing.T, c *connection) {
		if spoil["unsure"](t, c); one {
			spoil["closed"](t, c)
		}
		one = false
	})
	failed := 0
	for range 2 * readConnections {
		if err := s.view(t.Context(), (*session).read); err != nil {
			failed++
			wantStoreError(t, err, queue.ErrMoved, "restart")
		}
	}
	if failed != 1 {
		t.Errorf("views that failed = %d, want the one on the closed connection", failed)
	}
	if err := viewTogether(t, s, readConnections-1); err != nil {
		t.Errorf("views at once = %v", err)
	}
	if err := s.write(t.Context(), func(w *writer) error { w.unsure = true; return w.probe() }); err != nil {
		t.Errorf("write = %v", err)
	}
	if err := s.write(t.Context(), (*writer).probe); err != nil {
		t.Errorf("write on the open file = %v", err)
	}
}

// TestLastReader: with every connection lost each read fails at once, Check tells,
// and Close does not wait for what is gone.
func TestLastReader(t *testing.T) {
	s := openStore(t, dbPath(t))
	openAll(t, s.readers)
	open := s.readers.db
	s.readers.db = closedDB(t)
	spoilReaders(t, s, spoil["closed"])
	for range 2 * readConnections {
		if _, err := s.Get(t.Context(), queue.AnyKey, queue.NewID(time.Now())); err == nil || errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Get without a connection = %v, want what is wrong", err)
		}
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("Check = nil, though nothing can be read")
	}
	s.readers.db = open
	if err := viewTogether(t, s, readConnections); err != nil {
		t.Errorf("views at once with connections again = %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with connections again = %v", err)
	}
}

// closedDB opens no connections.
func closedDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:closed")
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return db
}
