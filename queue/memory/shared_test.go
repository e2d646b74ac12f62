package memory_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/storetest"
)

func TestConformanceShared(t *testing.T) {
	databases := map[queue.Store]*memory.Database{}
	o := memory.Options{Retention: storetest.Retention}
	storetest.Run(t, func(*testing.T) queue.Store {
		d := memory.NewDatabase(time.Minute)
		s := d.Open(o)
		databases[s] = d
		return s
	}, func(t *testing.T, old queue.Store) queue.Store {
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		s := databases[old].Open(o)
		databases[s] = databases[old]
		return s
	})
}

func TestShared(t *testing.T) {
	storetest.RunShared(t, func(*testing.T) storetest.Shared {
		d := memory.NewDatabase(600 * time.Millisecond)
		return storetest.Shared{A: d.Open(memory.Options{}), B: d.Open(memory.Options{}), Outdate: d.Outdate, Beat: func() { time.Sleep(150 * time.Millisecond) }}
	})
}

// TestLease: the lease of an instance that lives does not end, and that of one whose beats are
// lost does: first for itself, then for the others.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = time.Minute
		d := memory.NewDatabase(lease)
		var away atomic.Bool
		a := d.Open(memory.Options{Before: func(_ context.Context, method string) error {
			if away.Load() {
				return queue.ErrUnavailable
			}
			return nil
		}})
		defer func() { _ = a.Close() }()
		b := d.Open(memory.Options{})
		defer func() { _ = b.Close() }()
		if err := a.Heartbeat(t.Context(), "marks-a", time.Now()); err != nil {
			t.Fatal(err)
		}
		e := queue.Entry{Message: queue.Message{ID: queue.NewID(time.Now()), Expires: time.Now().Add(time.Hour)}, Owner: "marks-a"}
		e.Message.Envelope.ForwardPaths = []string{"x@example.org"}
		if _, err := a.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*lease + time.Second)
		if r, err := b.Recover(t.Context(), "marks-b", time.Now(), false); err != nil || r.Any() || !a.Trusts("marks-a") {
			t.Fatalf("Recover from an instance that beats = %+v, %v", r, err)
		}
		away.Store(true)
		time.Sleep(lease*5/6 - 2*time.Second)
		if !a.Trusts("marks-a") {
			t.Error("not trusted while the lease lasts")
		}
		time.Sleep(2 * time.Second)
		if a.Trusts("marks-a") {
			t.Error("trusted in the last sixth of the lease")
		}
		if r, err := b.Recover(t.Context(), "marks-b", time.Now(), false); err != nil || r.Any() {
			t.Errorf("Recover within the lease = %+v, %v", r, err)
		}
		time.Sleep(lease / 6)
		if r, err := b.Recover(t.Context(), "marks-b", time.Now(), false); err != nil || r.Released != 1 || r.Crashes != 0 {
			t.Errorf("Recover after the lease = %+v, %v, want one released", r, err)
		}
		if err := a.Heartbeat(t.Context(), "marks-a", time.Now()); !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("Heartbeat while it is away = %v, want ErrUnavailable", err)
		}
		away.Store(false)
		time.Sleep(lease / 6)
		if err := a.Heartbeat(t.Context(), "marks-a", time.Now()); !errors.Is(err, queue.ErrLeaseLost) {
			t.Errorf("Heartbeat afterwards = %v, want ErrLeaseLost", err)
		}
	})
}
