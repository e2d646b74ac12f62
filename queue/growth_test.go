package queue_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// TestManyExpired: after a long downtime thousands of messages have expired. Those that
// have not go out beside the work of expiring them, and no expired one goes out.
func TestManyExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var expired, before atomic.Int32
		store := memory.New(memory.Options{After: func(_ context.Context, method string) error {
			switch method {
			case "Expire":
				expired.Add(1)
			case "Claim":
				before.CompareAndSwap(0, expired.Load())
			}
			return nil
		}})
		const many = 5000
		now := time.Now()
		stored := func(key, data string, expires time.Time) queue.Entry {
			s := queuetest.Submission(data, "a@example.org")
			m := queue.Message{
				ID: queue.NewID(now), Key: key, Sender: s.Sender, Envelope: s.Envelope, Size: int64(len(data)), Created: now, Expires: expires,
			}
			return queue.Entry{Message: m, Content: s.Content, Route: "relay", Due: now}
		}
		var batch []queue.Entry
		for n := range many {
			batch = append(batch, stored("app", fmt.Sprint("late", n), now.Add(time.Hour)))
		}
		fresh := stored("other", "fresh", now.Add(24*time.Hour))
		if _, err := store.Insert(t.Context(), queue.Batch{Entries: append(batch, fresh)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, store, nil, relay)
		time.Sleep(time.Minute)
		if n := before.Load(); n > 2 {
			t.Errorf("%d steps of expiring came before the first claim, want one or two", n)
		}
		if got := relay.Deliveries(); len(got) != 1 || relay.Copies("fresh", "a@example.org") != 1 {
			t.Errorf("%d messages went out, want the fresh one", len(got))
		}
		for _, e := range batch {
			if m := q.Message(e.Message.ID); m.Recipients[0].State != queue.Expired || len(m.Attempts) != 0 {
				t.Fatalf("the message is %s after %d attempts, want expired after none", m.Recipients[0].State, len(m.Attempts))
			}
		}
		if u := q.Usage(); u.Messages != 0 {
			t.Errorf("Usage = %+v, want nothing", u)
		}
	})
}

// TestStopWithMuch: at a stop with much in memory no commit takes all of it, and nothing is
// left leased.
func TestStopWithMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := memory.New(memory.Options{})
		store := &measuring{Store: inner}
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Hour, 0)
		q := queuetest.Start(t, store, nil, relay)
		const many = 3000
		for range many / 1000 {
			var subs []queue.Submission
			for range 1000 {
				subs = append(subs, queuetest.Submission("x", "a@example.org"))
			}
			if _, err := q.SubmitBatch(t.Context(), subs); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		if store.all < many-20 || store.most > 500 {
			t.Errorf("%d leases given back or ended, up to %d in a commit, want nearly all of %d, up to 500", store.all, store.most, many)
		}
	})
}

// measuring notes how much each commit takes.
type measuring struct {
	queue.Store
	mu        sync.Mutex
	all, most int
}

func (m *measuring) note(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all, m.most = m.all+n, max(m.most, n)
}

func (m *measuring) Release(ctx context.Context, owner string, now time.Time, leases []queue.Lease) error {
	m.note(len(leases))
	return m.Store.Release(ctx, owner, now, leases)
}

func (m *measuring) Record(ctx context.Context, outcomes []queue.Outcome) (queue.Settled, error) {
	m.note(len(outcomes))
	return m.Store.Record(ctx, outcomes)
}

// TestLongSweep: the house looks after the rest while it sweeps away very much, which it
// does to the end.
func TestLongSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const steps = 5000
		var swept, recovered atomic.Int32
		store := sweeping{memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if method == "Recover" && swept.Load() > 0 && swept.Load() < steps {
				recovered.Add(1)
			}
			return nil
		}}), steps, &swept}
		queuetest.Start(t, store, nil, queuetest.NewRelay(queuetest.Accept))
		time.Sleep(10 * time.Minute)
		if swept.Load() != steps || recovered.Load() < 3 {
			t.Errorf("%d steps of %d, the house looked after leases %d times meanwhile, want some", swept.Load(), steps, recovered.Load())
		}
	})
}

// sweeping is a store with so many steps to sweep.
type sweeping struct {
	queue.Store
	steps int32
	swept *atomic.Int32
}

func (s sweeping) Sweep(_ context.Context, _ time.Time, limit int) (int, error) {
	if s.swept.Load() == s.steps {
		return 0, nil
	}
	s.swept.Add(1)
	return limit, nil
}
