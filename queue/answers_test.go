package queue_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// between returns a store that calls f once, between the commit of a call of that method
// and its answer, and then answers with f's error. f is called when armed only.
func between(method string, armed *atomic.Bool, f func() error) *memory.Store {
	return memory.New(memory.Options{After: func(_ context.Context, called string) error {
		if called != method || !armed.CompareAndSwap(true, false) {
			return nil
		}
		return f()
	}})
}

// TestCancelBeforeAnswer: a cancel that comes when a claim or an insert is committed, and
// its answer is not there yet, is none the less the end of the message.
func TestCancelBeforeAnswer(t *testing.T) {
	for _, method := range []string{"Claim", "Insert", "Mark", "Content"} {
		synctest.Test(t, func(t *testing.T) {
			var q *queuetest.Queue
			var armed atomic.Bool
			var canceled atomic.Int32
			store := between(method, &armed, func() error {
				page, err := q.List(t.Context(), queue.Filter{Key: "app"}, 1, "")
				if err != nil || len(page.Messages) != 1 {
					t.Fatalf("List = %+v, %v, want the message", page, err)
				}
				if _, err = q.Cancel(t.Context(), "app", page.Messages[0].ID); err != nil {
					t.Errorf("Cancel = %v", err)
				}
				canceled.Add(1)
				return nil
			})
			relay := queuetest.NewRelay(queuetest.Greylisted)
			q = queuetest.Start(t, store, func(o *queue.Options) { o.HoldUncertain = method == "Mark" }, relay)
			armed.Store(method == "Insert")
			id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
			time.Sleep(10 * time.Second)
			relay.Set(queuetest.Accept)
			before := len(relay.Attempts())
			armed.Store(method != "Insert")
			time.Sleep(time.Hour)
			if n := len(relay.Attempts()); n > before || canceled.Load() != 1 {
				t.Errorf("%s: %d attempts after %d cancels, want none after one", method, n-before, canceled.Load())
			}
			q.WantStatus(id, queue.StatusCanceled)
			if u := q.Usage(); u != (queue.Usage{}) {
				t.Errorf("%s: Usage = %+v, want nothing", method, u)
			}
		})
	}
}

// TestAnswerLost: a call that failed, though its commit happened, keeps no message
// waiting, and nothing is sent twice.
func TestAnswerLost(t *testing.T) {
	lost := errors.New("the connection to the store was lost")
	for _, method := range []string{"Claim", "Insert", "Record", "Release", "Retry", "Expire"} {
		synctest.Test(t, func(t *testing.T) {
			var armed atomic.Bool
			var failed atomic.Int32
			store := between(method, &armed, func() error { failed.Add(1); return lost })
			relay := queuetest.NewRelay(queuetest.Accept)
			q := queuetest.Start(t, store, func(o *queue.Options) { o.Workers = 1 }, relay)
			submit := func(name string) {
				s := queuetest.Submission(name, "a@example.org")
				if method == "Expire" {
					s.ExpiresIn = time.Second / 2 // before the pause ends
				}
				_, _ = q.Submit(t.Context(), s)
			}
			switch method {
			case "Claim", "Retry":
				relay.Set(queuetest.Greylisted)
				submit("x")
				queuetest.SettleDown()
				armed.Store(true)
				if page, err := q.List(t.Context(), queue.Filter{Key: "app"}, 1, ""); method == "Retry" && err == nil {
					_, _ = q.Retry(t.Context(), "app", page.Messages[0].ID)
				}
				relay.Set(queuetest.Accept)
			case "Release", "Expire":
				relay.Set(queuetest.Unreachable)
				relay.Slow(10*time.Millisecond, 0)
				submit("y")
				armed.Store(true)
				submit("x") // waits behind y, and is given back when the relay is paused
				queuetest.SettleDown()
				relay.Set(queuetest.Accept)
			default:
				armed.Store(true)
				submit("x")
			}
			time.Sleep(80 * time.Second)
			copies, want := relay.Copies("x", "a@example.org"), 1
			if method == "Expire" {
				want = 0
			}
			if copies != want || failed.Load() != 1 {
				t.Errorf("%s: %d copies after %d failures, want %d after one", method, copies, failed.Load(), want)
			}
			time.Sleep(time.Minute)
			if u := q.Usage(); u != (queue.Usage{}) {
				t.Errorf("%s: Usage = %+v, want nothing", method, u)
			}
			if r, err := store.Recover(t.Context(), "auditor", time.Now(), false); r.Any() || err != nil {
				t.Errorf("%s: leases that are left: %+v, %v", method, r, err)
			}
		})
	}
}

// TestCountWhileStarting: a message that is accepted while the queue starts counts once.
func TestCountWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starting := true
		var q *queue.Durable
		store := memory.New(memory.Options{After: func(_ context.Context, method string) error {
			switch {
			case method == "Recover" && starting:
				starting = false
				go func() { _, _ = q.Submit(t.Context(), queuetest.Submission("x", "a@example.org")) }()
				time.Sleep(time.Second)
			case method == "Insert":
				time.Sleep(5 * time.Second)
			}
			return nil
		}})
		relay := queuetest.NewRelay(queuetest.Greylisted)
		q, err := queue.New(queue.Options{Store: store, Routes: queue.Routes{{Relay: relay}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- q.Run(ctx) }()
		time.Sleep(3 * time.Minute)
		if u := q.Usage(); u.Messages != 1 {
			t.Errorf("Usage = %+v, want one message", u)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
