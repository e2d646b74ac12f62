//go:build linux

package postgres

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
	"mailsidecar/queue/storetest"
	"mailsidecar/queue/transfer"
)

func copyPlace(t *testing.T) storetest.Place {
	return placeOf(t, options(t, start(t).url()))
}

func placeOf(t *testing.T, o Options) storetest.Place {
	return storetest.Place{
		Open: func() (queue.Store, error) { return Open(t.Context(), o) },
		Side: func() (transfer.Side, error) { return OpenSide(t.Context(), o) },
	}
}

func filePlace(t *testing.T) storetest.Place {
	o := sqlite.Options{Path: filepath.Join(t.TempDir(), "queue.db"), Retention: storetest.Retention}
	return storetest.Place{
		Open: func() (queue.Store, error) { return sqlite.Open(t.Context(), o) },
		Side: func() (transfer.Side, error) { return sqlite.OpenSide(t.Context(), o) },
	}
}

// TestCopy: a queue moves from a file to a database, back, and from one schema to another.
func TestCopy(t *testing.T) {
	start(t)
	pooled := func(t *testing.T) storetest.Place { return placeOf(t, options(t, start(t).pooledURL())) }
	t.Run("FromFile", func(t *testing.T) { t.Parallel(); storetest.RunCopy(t, filePlace, copyPlace) })
	t.Run("ToFile", func(t *testing.T) { t.Parallel(); storetest.RunCopy(t, copyPlace, filePlace) })
	t.Run("Pooled", func(t *testing.T) { t.Parallel(); storetest.RunCopy(t, copyPlace, pooled) })
}

// TestCopyLocks: while an instance lives its queue is not copied; from the copy's begin on none
// begins, and one that was suspended changes nothing, and says that it is not ready.
func TestCopyLocks(t *testing.T) {
	o := options(t, start(t).url())
	o.Lease = 10 * time.Second
	s := open(t, o)
	if err := s.Heartbeat(t.Context(), "lives", time.Now()); err != nil {
		t.Fatal(err)
	}
	e := storetest.Entry(0, "b@example.org")
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	start(t).exec(t, s.sql(`UPDATE {s}.recipients SET state = 'deferred'`))
	from, to := placeOf(t, o), filePlace(t)
	a, err := from.Side()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close() //nolint:errcheck // the end of the test
	b, err := to.Side()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // the end of the test
	copyAll := func() error {
		_, err := transfer.Copy(t.Context(), a, b, false, func(transfer.Progress) {})
		return err
	}
	if err := copyAll(); !errors.Is(err, transfer.ErrInUse) || !strings.Contains(err.Error(), "instances that work with it: 1; stop them first") {
		t.Errorf("copy while an instance lives = %v, want %v", err, transfer.ErrInUse)
	}
	// It is suspended, and its lease ends. A copy was killed while it took over.
	start(t).exec(t, s.sql(`UPDATE {s}.instances SET until = clock_timestamp() - interval '1 s'`))
	start(t).exec(t, s.sql(`INSERT INTO {s}.instances VALUES ('copy-1', clock_timestamp() + interval '10 s')`))
	start(t).exec(t, s.sql(`INSERT INTO {s}.runs VALUES ('copy-1')`))
	if err := copyAll(); err != nil {
		t.Fatalf("copy = %v", err)
	}
	var refused *queue.StoreError
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{storetest.Entry(0, "a@example.org")}}); !errors.As(err, &refused) {
		t.Errorf("Insert after the copy = %v, want a StoreError", err)
	}
	if err := s.Heartbeat(t.Context(), "another", time.Now()); !errors.As(err, &refused) {
		t.Errorf("Heartbeat of a new owner after the copy = %v, want a StoreError", err)
	}
	now := storetest.Start
	for name, change := range map[string]func() error{
		"Cancel": func() error {
			_, err := s.Cancel(t.Context(), queue.AnyKey, "", []queue.Withdrawal{{ID: e.Message.ID}}, now)
			return err
		},
		"Retry": func() error {
			_, err := s.Retry(t.Context(), queue.AnyKey, []string{e.Message.ID}, now)
			return err
		},
		"Record": func() error {
			_, err := s.Record(t.Context(), []queue.Outcome{{Owner: "lives", ID: e.Message.ID}})
			return err
		},
		"Sweep": func() error {
			_, err := s.Sweep(t.Context(), now.Add(100*storetest.Retention), 10)
			return err
		},
		"SetManualPauses": func() error { return s.SetManualPauses(t.Context(), []queue.ManualPause{{Relay: "one", Since: now}}) },
		"Check":           func() error { return s.Check(t.Context()) },
	} {
		if err := change(); !errors.As(err, &refused) {
			t.Errorf("%s after the copy = %v, want a StoreError", name, err)
		}
	}
	if err := transfer.Undo(t.Context(), a, func(transfer.Mark) error { return nil }); err != nil {
		t.Fatalf("Undo = %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check after Undo = %v", err)
	}
	if ended, err := s.Cancel(t.Context(), queue.AnyKey, "", []queue.Withdrawal{{ID: e.Message.ID}}, now); err != nil || len(ended) != 1 {
		t.Errorf("Cancel after Undo = %v, %v, want that it is canceled", ended, err)
	}
}

// overlapping is a side that calls before once, before a mark or rows.
type overlapping struct {
	transfer.Side
	mark, rows func()
}

func (o *overlapping) SetMark(ctx context.Context, was, now transfer.Mark) error {
	call(&o.mark)
	return o.Side.SetMark(ctx, was, now)
}

func (o *overlapping) Put(ctx context.Context, mark transfer.Mark, rows transfer.Rows) error {
	call(&o.rows)
	return o.Side.Put(ctx, mark, rows)
}

func call(f *func()) {
	if once := *f; once != nil {
		*f = nil
		once()
	}
}

// TestCopiesOverlap: of two copies, or a copy and its undoing, one ends well at most, and
// none unlocks what the other one needs locked.
func TestCopiesOverlap(t *testing.T) {
	start(t)
	none := func(transfer.Mark) error { return nil }
	side := func(t *testing.T, p storetest.Place) transfer.Side {
		t.Helper()
		s, err := p.Side()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	copyAll := func(t *testing.T, a, b transfer.Side) error {
		_, err := transfer.Copy(t.Context(), a, b, false, func(transfer.Progress) {})
		return err
	}
	starts := func(t *testing.T, p storetest.Place) error {
		s, err := p.Open()
		if err != nil {
			return err
		}
		return s.Close()
	}
	source := func(t *testing.T) storetest.Place {
		from := copyPlace(t)
		s, err := from.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{storetest.Entry(0, "a@example.org")}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return from
	}
	want := func(t *testing.T, what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s = %v, want %v", what, err, want)
		}
	}

	t.Run("TwoTargets", func(t *testing.T) {
		from, one, two := source(t), copyPlace(t), copyPlace(t)
		b := &overlapping{Side: side(t, one), rows: func() { want(t, "the other copy", copyAll(t, side(t, from), side(t, two)), transfer.ErrMovedAway) }}
		want(t, "the copy", copyAll(t, side(t, from), b), nil)
		want(t, "start of the old one", starts(t, from), transfer.ErrMovedAway)
	})
	t.Run("GivenUp", func(t *testing.T) {
		from, one, two := source(t), copyPlace(t), copyPlace(t)
		b := &overlapping{Side: side(t, one), rows: func() {
			want(t, "Undo", transfer.Undo(t.Context(), side(t, from), none), nil)
			want(t, "the other copy", copyAll(t, side(t, from), side(t, two)), nil)
		}}
		want(t, "the copy", copyAll(t, side(t, from), b), transfer.ErrTakenOver)
		want(t, "start of its target", starts(t, one), transfer.ErrUnfinished)
		want(t, "start of the other target", starts(t, two), nil)
	})
	t.Run("Undone", func(t *testing.T) {
		from, one := source(t), copyPlace(t)
		b := &overlapping{Side: side(t, one), rows: func() { want(t, "Undo", transfer.Undo(t.Context(), side(t, from), none), nil) }}
		want(t, "the copy", copyAll(t, side(t, from), b), transfer.ErrTakenOver)
		want(t, "start of the old one", starts(t, from), nil)
		want(t, "start of the new one", starts(t, one), transfer.ErrUnfinished)
	})
	t.Run("Late", func(t *testing.T) {
		from, one := source(t), copyPlace(t)
		a := &overlapping{Side: side(t, from), mark: func() {
			want(t, "the other copy", copyAll(t, side(t, from), side(t, one)), nil)
			s, err := one.Open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			if err := s.Heartbeat(t.Context(), "lives", time.Now()); err != nil {
				t.Fatal(err)
			}
		}}
		want(t, "the late copy", copyAll(t, a, side(t, one)), transfer.ErrTakenOver)
		want(t, "start of the old one", starts(t, from), transfer.ErrMovedAway)
	})
}

// TestCopyOwner: a role that may work with the tables, and does not own them, is told so before
// anything is marked.
func TestCopyOwner(t *testing.T) {
	srv := start(t)
	o := options(t, srv.url())
	schema := `"` + o.Schema + `"`
	srv.exec(t, `CREATE ROLE copier LOGIN`)
	defer func() {
		srv.exec(t, `DROP OWNED BY copier`)
		srv.exec(t, `DROP ROLE copier`)
	}()
	srv.exec(t, `GRANT USAGE ON SCHEMA `+schema+` TO copier; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+schema+` TO copier`)
	app := o
	app.URL = strings.Replace(o.URL, "test@", "copier@", 1)
	refused := func(remedy string) {
		t.Helper()
		var known *queue.StoreError
		if _, err := OpenSide(t.Context(), app); !errors.As(err, &known) || !strings.Contains(known.Remedy, remedy) {
			t.Errorf("OpenSide = %v, want the remedy %q", err, remedy)
		}
	}
	refused("use the URL of the role that owns the tables")
	for _, table := range tables() {
		srv.exec(t, `ALTER TABLE `+schema+`.`+table+` OWNER TO copier`)
	}
	refused(`GRANT CREATE ON SCHEMA ` + schema + ` TO "copier"`)
	srv.exec(t, `GRANT CREATE ON SCHEMA `+schema+` TO copier`)
	s, err := OpenSide(t.Context(), app)
	if err != nil {
		t.Fatalf("OpenSide of the owner = %v", err)
	}
	mark := transfer.Mark{Role: transfer.Source, Copy: "one", At: storetest.Start}
	if err := errors.Join(s.SetMark(t.Context(), transfer.Mark{}, mark), s.SetMark(t.Context(), mark, transfer.Mark{}), s.Close()); err != nil {
		t.Errorf("SetMark by the owner = %v", err)
	}
}

// TestCopySizeSlow: counting may take longer than any other answer, and ends with its context.
func TestCopySizeSlow(t *testing.T) {
	o := options(t, start(t).url())
	opened, err := OpenSide(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*side)
	_ = s.Close()
	s.answerTime = 300 * time.Millisecond
	if s.conn, err = s.connect(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the end of the test
	holder, err := pgx.Connect(t.Context(), o.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background()) //nolint:errcheck // the end of the test
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), s.sql(`LOCK TABLE {s}.messages`)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Size(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Size = %v, want that its context ends it", err)
	}
	done := make(chan error, 1)
	time.AfterFunc(time.Second, func() { done <- tx.Rollback(context.Background()) })
	if _, err := s.Size(t.Context()); err != nil {
		t.Errorf("Size that took a second = %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCopyBrokenOff: what ends a copy says whether the old queue is locked.
func TestCopyBrokenOff(t *testing.T) {
	o := options(t, start(t).url())
	from, to := copyPlace(t), placeOf(t, o)
	s, err := from.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{storetest.Entry(0, "a@example.org")}}); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	run := func(ctx context.Context, f func(*side)) error {
		a, err := from.Side()
		if err != nil {
			t.Fatal(err)
		}
		b, err := to.Side()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close() //nolint:errcheck // the end of the test
		defer b.Close() //nolint:errcheck // the end of the test
		_, err = transfer.Copy(ctx, a, &overlapping{Side: b, rows: func() { f(b.(*side)) }}, false, func(transfer.Progress) {})
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, nil); !errors.Is(err, context.Canceled) || errors.Is(err, transfer.ErrOldLocked) {
		t.Errorf("copy that was stopped at once = %v, want no word of a lock", err)
	}
	ended := func(b *side) {
		start(t).exec(t, `SELECT pg_terminate_backend($1)`, b.conn.PgConn().PID())
	}
	if err := run(t.Context(), ended); !errors.Is(err, transfer.ErrOldLocked) {
		t.Errorf("copy whose connection is lost = %v, want %q in it", err, transfer.ErrOldLocked)
	}
	if err := run(t.Context(), func(*side) {}); err != nil {
		t.Errorf("the same copy again = %v", err)
	}
}
