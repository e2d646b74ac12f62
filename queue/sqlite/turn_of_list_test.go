package sqlite

import (
	"context"
	"errors"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/processor"
	"mailsidecar/queue"
)

// goroutinesCreated is how many there were since the start.
func goroutinesCreated() uint64 {
	s := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// TestListStartsFewGoroutines: a page does not start goroutines for each message, although its
// time is limited and the client may leave.
func TestListStartsFewGoroutines(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	var b queue.Batch
	for range 200 {
		b.Entries = append(b.Entries, randomEntry(1, time.Now()))
	}
	if _, err := s.Insert(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := goroutinesCreated()
	page, err := s.List(ctx, queue.Filter{Key: "app"}, 200, "")
	if err != nil || len(page.Messages) != 200 {
		t.Fatalf("List = %d messages, %v, want 200", len(page.Messages), err)
	}
	if n := goroutinesCreated() - before; n > 100 {
		t.Errorf("a list of 200 messages started %d goroutines, want 100 at most", n)
	}
	before = goroutinesCreated()
	if _, err := s.Get(ctx, "app", page.Messages[0].ID); err != nil {
		t.Fatal(err)
	}
	if n := goroutinesCreated() - before; n > 5 {
		t.Errorf("a look-up started %d goroutines, want 5 at most", n)
	}
}

// TestListStopsBetweenMessages: a list ends with its context, also where no statement takes long.
func TestListStopsBetweenMessages(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	e := randomEntry(1, time.Now())
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := newWalk(queue.Filter{Key: "app"}, 10, "")
	if err != nil {
		t.Fatal(err)
	}
	err = s.lists.view(ctx, func(v *session) error {
		spans, err := w.plan(v)
		if err != nil {
			return err
		}
		w.spans = spans
		ids, err := w.match(v, spans, w.floor, 10)
		if err != nil || len(ids) != 1 {
			t.Fatalf("match = %d, %v", len(ids), err)
		}
		cancel()
		_, err = w.read(v, ids, part{spans: spans, to: w.floor}, time.Now())
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a list whose client has left = %v, want %v", err, context.Canceled)
	}
}

// TestListsTakeTurns: a list waits for its turn at the processors, as other long work does, but
// no longer than a page may take.
func TestListsTakeTurns(t *testing.T) {
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		turns := processor.New()
		s, err := Open(t.Context(), Options{Path: path, MinFreeDisk: 1, Processor: turns})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close() //nolint:errcheck // nothing is left to write
		for turns.TryEnter() {
		}
		began := time.Now()
		if _, err := s.List(t.Context(), queue.Filter{Key: "app"}, 10, ""); !errors.Is(err, queue.ErrTooManyLists) || time.Since(began) != listTime {
			t.Errorf("a list that gets no turn = %v after %v, want %v after %v", err, time.Since(began), queue.ErrTooManyLists, listTime)
		}
		go func() {
			time.Sleep(time.Second)
			turns.Leave()
		}()
		began = time.Now()
		if _, err := s.List(t.Context(), queue.Filter{Key: "app"}, 10, ""); err != nil || time.Since(began) != time.Second {
			t.Errorf("a list that gets a turn after a second = %v after %v", err, time.Since(began))
		}
		if !turns.TryEnter() {
			t.Error("the list has kept its turn")
		}
	})
}
