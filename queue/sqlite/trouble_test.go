package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/queuetest"
	"mailsidecar/queue/storetest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// wantStoreError checks that err is what is wrong, with a remedy that helps.
func wantStoreError(t *testing.T, err, want error, remedy string) {
	t.Helper()
	var e *queue.StoreError
	if !errors.As(err, &e) || !errors.Is(err, want) || !strings.Contains(e.Error(), remedy) {
		t.Errorf("error = %v, want %v with a remedy that says %q", err, want, remedy)
	}
}

func openErr(t *testing.T, path string) error {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err == nil {
		_ = s.Close()
	}
	return err
}

func TestOpenLocked(t *testing.T) {
	path := dbPath(t)
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	wantStoreError(t, openErr(t, path), queue.ErrLocked, fmt.Sprintf("process %d", os.Getpid()))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, path); err != nil {
		t.Errorf("Open after Close = %v, want nil", err)
	}
}

// TestOpenBesideLog: the log of a store that was deleted is not played into the new
// one. It may hold accepted mail, and so is not lost without a word.
func TestOpenBesideLog(t *testing.T) {
	s := openStore(t, dbPath(t))
	d, err := queue.New(queue.Options{Store: s, Routes: queue.Routes{{Relay: queuetest.NewRelay(queuetest.Accept)}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Submit(t.Context(), queuetest.Submission("x", "a@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(s.opts.Path + "-wal")
	if err != nil || len(log) == 0 {
		t.Fatalf("the log has %d octets: %v", len(log), err)
	}
	for name, files := range map[string]map[string][]byte{
		"deleted": {"-wal": log, "-journal": log},
		"emptied": {"": nil, "-wal": log},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "queue.db")
			for suffix, data := range files {
				if err := os.WriteFile(path+suffix, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var logged bytes.Buffer
			s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if _, err := s.Get(t.Context(), queue.AnyKey, r.Message.ID); !errors.Is(err, queue.ErrNotFound) {
				t.Errorf("Get(message of the deleted store) = %v, want ErrNotFound", err)
			}
			kept, err := os.ReadFile(path + "-wal.damaged")
			if err != nil || !bytes.Equal(kept, log) || !strings.Contains(logged.String(), `level=ERROR msg="queue log without its database"`) {
				t.Errorf("%d octets of the log are kept, %v, want all of %d; it logs %q", len(kept), err, len(log), logged.String())
			}
		})
	}
}

func TestOpenPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b c?d#e", "queue.db")
	if err := openErr(t, path); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, path + ".lock": 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("Stat(%s) = %v, %v, want mode %v", filepath.Base(name), info, err, want)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 {
		t.Errorf("files left = %v, %v, want the store and its lock", entries, err)
	}
}

func TestOpenNewerSchema(t *testing.T) {
	path := dbPath(t)
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var vacuum, version int
	if err := s.writer.row("SELECT auto_vacuum, user_version FROM pragma_auto_vacuum, pragma_user_version", nil, &vacuum, &version); err != nil || vacuum != 2 || version != len(migrations) {
		t.Errorf("auto_vacuum, user_version = %d, %d, %v, want 2, %d", vacuum, version, err, len(migrations))
	}
	if err := s.write(t.Context(), func(w *writer) error { return w.exec("PRAGMA user_version = 99") }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantStoreError(t, openErr(t, path), queue.ErrNewerSchema, "schema 99")
}

// oldRows is what earlier versions wrote for one message with one recipient.
const oldRows = `
INSERT INTO contents (seq, data) VALUES (?1, 'hello');
INSERT INTO messages (id, key, message_id, sender, subject, reverse_path, size, eight_bit, utf8_header,
		created, expires, status, final, clock, body, chunks)
	VALUES (?2, ?3, '<1@example.com>', 'shop@example.com', 'Hello', 'bounce@example.com', 5, 0, 0, ?4, ?5, ?6, ?7, ?5, ?1, 1);
INSERT INTO recipients (message, n, forward_path, state, due, route, owner)
	VALUES (?2, 0, 'a@example.org', ?8, ?9, 'relay', ?10)`

// oldAttempt is an attempt as they wrote it, at which the relay was not reached.
const oldAttempt = `
INSERT INTO attempts (message, n, relay, port, mode, tls, auth, started, duration, results)
	VALUES (?1, 1, 'relay', 587, '', '', '', ?2, 5, '[]')`

// TestMigrate: a file of an earlier schema is brought up to date with what is in
// it.
func TestMigrate(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	for version := 1; version < len(all); version++ {
		path := dbPath(t)
		synctest.Test(t, func(t *testing.T) {
			migrations = all[:version]
			ids := writeOld(t, path)
			migrations = all
			relay := queuetest.NewRelay(queuetest.Accept)
			q := queuetest.Start(t, openUnsynced(t, path), nil, relay)
			queuetest.SettleDown()
			for _, key := range []string{"waits", "leased"} {
				m, err := q.Get(t.Context(), key, ids[key])
				if n := len(m.Attempts); n < 2 || m.Attempts[0].Relay != "relay" || m.Attempts[0].Why != "" {
					t.Errorf("from schema %d: %s has the attempts %+v, want the old one first, of which nothing says why", version, key, m.Attempts)
				}
				if err != nil || m.Status() != queue.StatusDelivered || m.Envelope.Priority != mailer.PriorityNormal {
					t.Errorf("from schema %d: %s = %s, %v, %v, want delivered, normal", version, key, m.Status(), m.Envelope.Priority, err)
				}
			}
			for _, key := range []string{"held", "bounced"} {
				if _, err := q.Retry(t.Context(), key, ids[key]); err != nil {
					t.Errorf("from schema %d: Retry(%s) = %v", version, key, err)
				}
				queuetest.SettleDown()
				if m, err := q.Get(t.Context(), key, ids[key]); err != nil || m.Status() != queue.StatusDelivered {
					t.Errorf("from schema %d: %s after Retry = %s, %v, want delivered", version, key, m.Status(), err)
				}
			}
		})
	}
}

// writeOld writes a store of the schema that migrations lead to, with a message
// for each state and keyed by it, and returns their ids.
func writeOld(t *testing.T, path string) map[string]string {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMicro()
	ids := map[string]string{}
	for i, row := range []struct {
		key, status, state string
		due, owner         any
	}{
		{"waits", "deferred", "deferred", now, nil},
		{"leased", "queued", "queued", now, "gone"},
		{"held", "held", "held", nil, nil},
		{"bounced", "failed", "bounced", nil, nil},
	} {
		ids[row.key] = queue.NewID(time.Now())
		id, _ := blob(ids[row.key])
		_, err := s.writer.conn.ExecContext(t.Context(), oldRows, i+1, id, row.key, now, now+int64(time.Hour/time.Microsecond),
			row.status, row.key == "bounced", row.state, row.due, row.owner)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.writer.conn.ExecContext(t.Context(), oldAttempt, id, now); err != nil {
			t.Fatal(err)
		}
		if len(migrations) >= 3 && row.key != "bounced" { // it has lanes
			if _, err := s.writer.conn.ExecContext(t.Context(), `UPDATE recipients SET lane = '1' || ? WHERE message = ?`, row.key, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestOpenDamaged(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, bytes.Repeat([]byte("not a database\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	wantStoreError(t, openErr(t, text), queue.ErrCorrupt, ".recover")

	foreign := filepath.Join(dir, "foreign.db")
	b, err := sql.Open("sqlite", dsn(foreign))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ExecContext(t.Context(), "CREATE TABLE t (x)"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wantStoreError(t, openErr(t, foreign), queue.ErrCorrupt, "not a queue")
}

func TestOpenUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		wantStoreError(t, openErr(t, filepath.Join(dir, "queue.db")), queue.ErrDirectory, "a file stands where")
	}
	readOnly := filepath.Join(t.TempDir(), "ro")
	if err := os.Mkdir(readOnly, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		readOnly = "/proc/self" // no mode keeps root out of a directory, but nobody creates files here
	}
	wantStoreError(t, openErr(t, filepath.Join(readOnly, "queue.db")), queue.ErrDirectory, "read-only")
}

// TestDamagedWhileInUse: reads and writes tell, and nothing is answered as
// stored.
func TestDamagedWhileInUse(t *testing.T) {
	path := dbPath(t)
	relay := queuetest.NewRelay(queuetest.Greylisted)
	q := queuetest.Start(t, openUnsynced(t, path), nil, relay)
	q.MustSubmit(queuetest.Submission(string(bytes.Repeat([]byte("x"), 1<<20)), "a@example.org"))
	if err := q.End(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, int(info.Size())-4096), 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		wantStoreError(t, err, queue.ErrCorrupt, ".recover")
		return
	}
	defer s.Close() //nolint:errcheck // it is damaged
	d, err := queue.New(queue.Options{Store: s, Routes: queue.Routes{{Relay: relay}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Submit(t.Context(), queuetest.Submission("y", "a@example.org"))
	wantStoreError(t, err, queue.ErrCorrupt, ".recover")
	wantStoreError(t, s.Check(t.Context()), queue.ErrCorrupt, ".recover")
	wantStoreError(t, d.Run(t.Context()), queue.ErrCorrupt, ".recover")
}

// TestDeletedWhileInUse: new mail is queuetest.Refused, what is stored is delivered.
func TestDeletedWhileInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Greylisted)
		store := openStore(t, dbPath(t))
		q := queuetest.Start(t, store, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if err := os.Remove(store.opts.Path); err != nil {
			t.Fatal(err)
		}
		_, err := q.Submit(t.Context(), queuetest.Submission("y", "a@example.org"))
		wantStoreError(t, err, queue.ErrMoved, "restart")
		wantStoreError(t, q.Ready(t.Context()), queue.ErrMoved, "restart")
		relay.Set(queuetest.Accept)
		time.Sleep(2 * time.Minute)
		q.WantStatus(id, queue.StatusDelivered)
		if err := os.WriteFile(store.opts.Path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = q.Submit(t.Context(), queuetest.Submission("y", "a@example.org"))
		wantStoreError(t, err, queue.ErrMoved, "restart")
	})
}

// TestDiskNearlyFull: new mail is refused while there still is room for
// outcomes.
func TestDiskNearlyFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := Open(t.Context(), Options{Path: dbPath(t)})
		if err != nil {
			t.Fatal(err)
		}
		var free atomic.Int64
		store.free = func(string) (int64, error) { return free.Load(), nil }
		free.Store(1 << 30)
		relay := queuetest.NewRelay(queuetest.Greylisted)
		q := queuetest.Start(t, store, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		free.Store(64<<20 + 100)
		if _, err := q.Submit(t.Context(), queuetest.Submission(string(make([]byte, 101)), "a@example.org")); !errors.Is(err, queue.ErrDiskFull) {
			t.Errorf("Submit = %v, want ErrDiskFull", err)
		}
		if err := q.Ready(t.Context()); err != nil {
			t.Errorf("Ready with room for small messages = %v", err)
		}
		free.Store(0)
		if err := q.Ready(t.Context()); !errors.Is(err, queue.ErrDiskFull) {
			t.Errorf("Ready = %v, want ErrDiskFull", err)
		}
		relay.Set(queuetest.Accept)
		time.Sleep(2 * time.Minute)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestDiskFull: SQLite itself finds no room. Nothing is answered as stored,
// nothing stored is lost.
func TestDiskFull(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: dbPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing hangs on it
	d, err := queue.New(queue.Options{Store: s, Routes: queue.Routes{{Relay: queuetest.NewRelay(queuetest.Accept)}}})
	if err != nil {
		t.Fatal(err)
	}
	before, err := d.Submit(t.Context(), queuetest.Submission("x", "a@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	limitPages := func(n int) {
		if err := s.write(t.Context(), func(w *writer) error {
			return w.each(fmt.Sprintf("PRAGMA max_page_count = %d", n), nil, func(*sql.Rows) error { return nil })
		}); err != nil {
			t.Fatal(err)
		}
	}
	limitPages(30)
	big := queuetest.Submission(string(make([]byte, 1<<20)), "a@example.org")
	if _, err := d.Submit(t.Context(), big); !errors.Is(err, queue.ErrDiskFull) {
		t.Errorf("Submit = %v, want ErrDiskFull", err)
	}
	if u := d.Usage(); u.Messages != 1 {
		t.Errorf("Usage = %+v, want what was stored", u)
	}
	if _, err := d.Get(t.Context(), "app", before.Message.ID); err != nil {
		t.Errorf("Get of what was stored before = %v", err)
	}
	limitPages(100_000)
	if _, err := d.Submit(t.Context(), big); err != nil {
		t.Errorf("Submit with room again = %v", err)
	}
}

// TestBadWriteLeavesGroup: a write that fails does not take those with it that
// share its transaction.
func TestBadWriteLeavesGroup(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: dbPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing hangs on it
	hold := make(chan struct{})
	go s.write(t.Context(), func(*writer) error { <-hold; return nil }) //nolint:errcheck // it only fills the writer's hands
	errs := make(chan error, 3)
	for _, query := range []string{
		"INSERT INTO contents (seq, data) VALUES (1, 'a')", "INSERT INTO nonsense VALUES (1)", "INSERT INTO contents (seq, data) VALUES (2, 'b')",
	} {
		op := &write{run: func(w *writer) error { return w.exec(query) }, done: make(chan error, 1)}
		s.writer.writes <- op
		go func() { errs <- <-op.done }()
	}
	close(hold)
	failed := 0
	for range 3 {
		if err := <-errs; err != nil {
			failed++
		}
	}
	var rows int
	if err := s.view(t.Context(), func(v *session) error { return v.row("SELECT count(*) FROM contents", nil, &rows) }); err != nil {
		t.Fatal(err)
	}
	if failed != 1 || rows != 2 {
		t.Errorf("failed writes = %d, rows = %d, want 1, 2", failed, rows)
	}
}

// TestDoubtfulGroup: what shares a commit that may have happened is not done again, and
// what shares one that has not is, each alone.
func TestDoubtfulGroup(t *testing.T) {
	for _, happened := range []bool{false, true} {
		s := openStore(t, dbPath(t))
		f := &storetest.Faults{}
		s.fault = f.Commit
		hold, held := make(chan struct{}), make(chan struct{})
		go s.write(t.Context(), func(*writer) error { close(held); <-hold; return nil }) //nolint:errcheck // it only fills the writer's hands
		<-held
		var runs atomic.Int32
		ops := make([]*write, 3)
		for i := range ops {
			ops[i] = &write{run: func(*writer) error {
				if runs.Add(1) == int32(len(ops)) {
					f.Fail(happened)
				}
				return nil
			}, done: make(chan error, 1)}
			s.writer.writes <- ops[i]
		}
		close(hold)
		failed := 0
		for _, op := range ops {
			if err := <-op.done; err != nil {
				failed++
			}
		}
		want, wantRuns := 0, int32(2*len(ops))
		if happened {
			want, wantRuns = len(ops), int32(len(ops))
		}
		if failed != want || runs.Load() != wantRuns {
			t.Errorf("with a commit that has happened: %v: failed = %d, runs = %d, want %d, %d", happened, failed, runs.Load(), want, wantRuns)
		}
	}
}

// TestBrokenIsNotUnknown: that the store cannot be read does not mean that the
// message is not there.
func TestBrokenIsNotUnknown(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: dbPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing hangs on it
	if err := s.write(t.Context(), func(w *writer) error { return w.exec("ALTER TABLE messages RENAME TO elsewhere") }); err != nil {
		t.Fatal(err)
	}
	id := queue.NewID(time.Now())
	if _, err := s.Retry(t.Context(), "app", []string{id}, time.Now()); err == nil {
		t.Error("Retry = nil, want what is wrong with the store")
	}
	if _, err := s.Cancel(t.Context(), "app", "me", []queue.Withdrawal{{ID: id}}, time.Now()); err == nil || errors.Is(err, queue.ErrNotFound) {
		t.Errorf("Cancel = %v, want what is wrong with the store", err)
	}
}

func TestKeepBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := Open(t.Context(), Options{Path: dbPath(t), KeepBodies: 36 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		q := queuetest.Start(t, store, nil, queuetest.NewRelay(queuetest.Accept))
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(35 * time.Hour)
		if data, err := q.Content(t.Context(), "app", id); err != nil || string(data) != "x" {
			t.Errorf("Content within KeepBodies = %q, %v, want it", data, err)
		}
		if m, err := q.Get(t.Context(), "app", id); err != nil || m.Kept.Gone || m.Kept.Until.Sub(m.Created) < 36*time.Hour || m.Kept.Until.Sub(m.Created) > 37*time.Hour {
			t.Errorf("the content is %+v, %v, want it kept for 36 h", m.Kept, err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := q.Content(t.Context(), "app", id); !errors.Is(err, queue.ErrContentGone) {
			t.Errorf("Content after KeepBodies = %v, want ErrContentGone", err)
		}
		q.WantStatus(id, queue.StatusDelivered)
		time.Sleep(7 * 24 * time.Hour)
		if _, err := q.Get(t.Context(), "app", id); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Get after Retention = %v, want ErrNotFound", err)
		}
	})
}

// TestGivesRoomBack: the file shrinks after a backlog.
func TestGivesRoomBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		store := openUnsynced(t, dbPath(t))
		q := queuetest.Start(t, store, nil, relay)
		for range 30 {
			q.MustSubmit(queuetest.Submission(string(make([]byte, 1<<20)), "a@example.org"))
		}
		relay.Set(queuetest.Accept)
		time.Sleep(time.Hour)
		var pages int
		if err := store.view(t.Context(), func(v *session) error { return v.row("SELECT page_count FROM pragma_page_count", nil, &pages) }); err != nil {
			t.Fatal(err)
		}
		if len(relay.Deliveries()) == 0 || pages > keptPages+vacuumPages {
			t.Errorf("pages after the backlog = %d, want at most %d", pages, keptPages+vacuumPages)
		}
	})
}

// TestManyReaders: more callers than connections, each with queries that were
// not prepared yet.
func TestManyReaders(t *testing.T) {
	store, err := Open(t.Context(), Options{Path: dbPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := queue.New(queue.Options{Store: store, Routes: queue.Routes{{Relay: queuetest.NewRelay(queuetest.Accept)}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Submit(t.Context(), queuetest.Submission("x", "a@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 * readConnections {
		wg.Go(func() {
			_, err1 := d.Content(ctx, "app", r.Message.ID)
			_, err2 := d.Get(ctx, "app", r.Message.ID)
			_, err3 := d.List(ctx, queue.Filter{Key: "app", Sender: "shop@example.com"}, 10, "")
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	gone, cut := context.WithCancel(t.Context())
	cut()
	if _, err := d.Get(gone, "app", r.Message.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("Get(ended context) = %v, want context.Canceled", err)
	}
	if err := store.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := d.Get(t.Context(), "app", r.Message.ID); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Get after Close = %v, want ErrClosed", err)
	}
}
