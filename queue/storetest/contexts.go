package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailsidecar/queue"
)

// hasty calls every method of a store, on one message and what is around it.
func hasty(s queue.Store, e queue.Entry) []func(context.Context) error {
	id := e.Message.ID
	lane := queue.Lane{Key: e.Message.Key}
	return []func(context.Context) error{
		func(ctx context.Context) error { _, err := s.Get(ctx, queue.AnyKey, id); return err },
		func(ctx context.Context) error { _, err := s.Content(ctx, queue.AnyKey, id); return err },
		func(ctx context.Context) error {
			_, err := s.List(ctx, queue.Filter{Key: queue.AnyKey, Sender: "shop@example.com"}, 20, "")
			return err
		},
		func(ctx context.Context) error {
			_, _, err := s.Count(ctx, queue.Filter{Key: queue.AnyKey, Sender: "shop@example.com"}, "")
			return err
		},
		func(ctx context.Context) error { _, err := s.Waiting(ctx, Start); return err },
		func(ctx context.Context) error { _, err := s.Usage(ctx); return err },
		func(ctx context.Context) error { _, err := s.Week(ctx, queue.AnyKey, Start); return err },
		func(ctx context.Context) error { _, err := s.Turns(ctx, "relay", Start, 10); return err },
		func(ctx context.Context) error {
			_, err := s.Replay(ctx, queue.Idempotency{Key: "app", Name: "x", Expires: Start.Add(time.Hour)})
			return err
		},
		func(ctx context.Context) error { _, err := s.Leases(ctx, "me"); return err },
		func(ctx context.Context) error { return s.Check(ctx) },
		func(ctx context.Context) error { return s.Heartbeat(ctx, "me", Start) },
		func(ctx context.Context) error {
			_, err := s.Insert(ctx, queue.Batch{Entries: []queue.Entry{entry(0, "a@example.org")}})
			return err
		},
		func(ctx context.Context) error {
			_, err := s.Claim(ctx, "me", Start, []queue.Want{{Route: "relay", Lane: lane, Limit: 1}})
			return err
		},
		func(ctx context.Context) error {
			return s.Mark(ctx, "me", queue.Lease{ID: id, Route: "=relay", ForwardPaths: []string{"a@example.org"}},
				[]queue.Turn{{Relay: "other", At: Start, Window: time.Hour}})
		},
		func(ctx context.Context) error { return s.MarkAlone(ctx, "me", id, true) },
		func(ctx context.Context) error { return s.End(ctx, "me") },
		func(ctx context.Context) error {
			_, err := s.Record(ctx, []queue.Outcome{{ID: id, Owner: "me", Route: "relay", At: Start, Changes: []queue.Change{
				{ForwardPath: "a@example.org", State: queue.Deferred, Next: Start},
			}}})
			return err
		},
		func(ctx context.Context) error {
			return s.Release(ctx, "me", Start, []queue.Lease{{ID: id, Route: "relay", ForwardPaths: []string{"a@example.org"}}})
		},
		func(ctx context.Context) error { _, err := s.Recover(ctx, "me", Start, false); return err },
		func(ctx context.Context) error { _, err := s.Expire(ctx, Start, 1); return err },
		func(ctx context.Context) error { _, err := s.Rewind(ctx, Start.Add(time.Hour), ""); return err },
		func(ctx context.Context) error { _, err := s.Retry(ctx, "app", []string{id}, Start); return err },
		func(ctx context.Context) error {
			_, err := s.Cancel(ctx, "app", "me", []queue.Withdrawal{{ID: idOf(Start)}}, Start)
			return err
		},
		func(ctx context.Context) error {
			_, err := s.Reschedule(ctx, "app", id, Start.Add(time.Hour), nil, Start)
			return err
		},
		func(ctx context.Context) error { _, err := s.Sweep(ctx, Start, 1); return err },
	}
}

// reading is how many of the methods above come first because they only read.
const reading = 12

// EndContexts calls every method of the store from several goroutines, with
// contexts that end at random times: before the call, within the microseconds
// that a statement takes, or later. No call fails for another reason than that.
func EndContexts(t *testing.T, s queue.Store) {
	t.Helper()
	// More threads than processors: one that is put aside in the middle of a
	// statement leaves another one time to end its context.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
	e := entry(0, "a@example.org")
	insert(t, s, e)
	methods := hasty(s, e)
	var wg sync.WaitGroup
	for seed := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // it need not be secret
			for i := range 5000 {
				n := random.IntN(reading)
				if i%40 == 0 { // a write waits for the disk
					n = random.IntN(len(methods))
				}
				ctx := EndingAt(t.Context(), random.IntN(1+random.IntN(30)))
				if random.IntN(4) == 0 {
					var cancel func()
					ctx, cancel = context.WithCancel(t.Context())
					go endAfter(time.Duration(random.IntN(100))*time.Microsecond, cancel)
				}
				err := methods[n](ctx)
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, queue.ErrNotFound) && !errors.Is(err, queue.ErrLeaseLost) {
					t.Errorf("method %d with a context that ends = %v, want context.Canceled if anything", n, err)
				}
			}
		})
	}
	wg.Wait()
}

// endAfter cancels after a time that is too short for a timer.
func endAfter(wait time.Duration, cancel func()) {
	begin := time.Now()
	for time.Since(begin) < wait {
		runtime.Gosched()
	}
	cancel()
}

// watched is a context that ends when it is looked at, some time: so a statement that
// watches it is hit while it runs, however short it is.
type watched struct {
	context.Context
	cancel func()
	looks  atomic.Int64 // that are left
}

// EndingAt returns a context that ends when it is looked at once more after so many
// looks, or with ctx.
func EndingAt(ctx context.Context, looks int) context.Context {
	w := &watched{}
	w.Context, w.cancel = context.WithCancel(ctx)
	w.looks.Store(int64(looks))
	return w
}

func (w *watched) look() {
	if w.looks.Add(-1) < 0 {
		w.cancel()
	}
}

func (w *watched) Done() <-chan struct{} {
	w.look()
	return w.Context.Done()
}

func (w *watched) Err() error {
	w.look()
	return w.Context.Err()
}

// testContexts: a caller that leaves, whatever it has asked for and whenever,
// leaves the store as able as it was.
func testContexts(t *testing.T, s queue.Store) {
	EndContexts(t, s)
	e := entry(0, "a@example.org")
	insert(t, s, e)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 8 {
				if _, err := s.Get(t.Context(), queue.AnyKey, e.Message.ID); err != nil {
					t.Errorf("Get after callers have left = %v", err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check after callers have left = %v", err)
	}
}
