package queue_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// TestCancelMatching: a cancel by filter ends what waits in few commits, of the key alone,
// lets what is in a relay's hands end by itself, and does no more when it is repeated.
func TestCancelMatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages = 1050
		s := memory.New(memory.Options{})
		relay := queuetest.NewRelay(queuetest.Greylisted)
		q := queuetest.Start(t, s, nil, relay)
		var one string
		for range messages {
			one = q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		}
		theirs := queuetest.Submission("x", "a@example.org")
		theirs.Key = "other"
		q.MustSubmit(theirs)
		queuetest.SettleDown()
		f := queue.Filter{Key: "app", Domain: "example.org"}
		if n, next, err := q.Count(t.Context(), f.Cancelable(), ""); n != messages || next != "" || err != nil {
			t.Fatalf("Count = %d, %q, %v, want %d", n, next, err, messages)
		}
		if b, err := q.CancelMatching(t.Context(), queue.Filter{Key: "app", Domain: "example.com"}, 0, ""); b != (queue.Bulk{}) || err != nil {
			t.Errorf("CancelMatching(no match) = %+v, %v", b, err)
		}
		before := s.Commits()
		b, err := q.CancelMatching(t.Context(), f, 450, "")
		if err != nil || b.Matched != 450 || b.Changed != 450 || b.Next == "" {
			t.Fatalf("CancelMatching(450) = %+v, %v", b, err)
		}
		if commits := s.Commits() - before; commits > 4 {
			t.Errorf("450 messages are canceled in %d commits, want 3", commits)
		}
		if b, err = q.CancelMatching(t.Context(), f, 0, b.Next); err != nil || b != (queue.Bulk{Matched: 600, Changed: 600}) {
			t.Errorf("CancelMatching(the rest) = %+v, %v, want 600", b, err)
		}
		if b, err = q.CancelMatching(t.Context(), f, 0, ""); err != nil || b != (queue.Bulk{}) {
			t.Errorf("CancelMatching again = %+v, %v, want nothing", b, err)
		}
		q.WantStatus(one, queue.StatusCanceled)
		if n, _, err := q.Count(t.Context(), queue.Filter{Key: "other"}.Cancelable(), ""); n != 1 || err != nil {
			t.Errorf("messages of the other key = %d, %v, want its one", n, err)
		}
		if u := q.Usage(); u.Messages != 1 {
			t.Errorf("Usage = %+v, want one message", u)
		}
	})
}

// TestCancelMatchingInHand: what a relay has in its hands is delivered, or canceled where it
// would have waited.
func TestCancelMatchingInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Greylisted)
		relay.Slow(time.Minute, 0)
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		b, err := q.CancelMatching(t.Context(), queue.Filter{Key: "app", Status: queue.StatusQueued}, 0, "")
		if err != nil || b != (queue.Bulk{Matched: 1, Changed: 1}) {
			t.Errorf("CancelMatching = %+v, %v, want one", b, err)
		}
		q.WantStatus(id, queue.StatusQueued)
		time.Sleep(2 * time.Minute)
		q.WantStatus(id, queue.StatusCanceled)
	})
}

// TestBulkCrash: wherever the process dies in a command by filter, each message is done or not
// done, and the same command does the rest.
func TestBulkCrash(t *testing.T) {
	const messages = 1000
	for dies := range 6 {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				died := errors.New("died")
				calls, armed := 0, false
				die := func(now bool) func(context.Context, string) error {
					return func(_ context.Context, method string) error {
						if !armed || method != "Cancel" || !now {
							return nil
						}
						if calls++; calls > dies {
							return died
						}
						return nil
					}
				}
				s := memory.New(memory.Options{Before: die(!after), After: die(after)})
				q := queuetest.Start(t, s, nil, queuetest.NewRelay(queuetest.Greylisted))
				for range messages {
					q.MustSubmit(queuetest.Submission("x", "a@example.org", "b@example.org"))
				}
				queuetest.SettleDown()
				armed = true
				f := queue.Filter{Key: "app"}
				b, err := q.CancelMatching(t.Context(), f, 0, "")
				if dies > 0 && dies < 5 {
					if err != nil || b.Matched != 200*dies || b.Next == "" {
						t.Fatalf("CancelMatching = %+v, %v, want what was done before the failure", b, err)
					}
					if after { // then the step has happened, and there may be nothing to go on with
						err = died
					} else {
						_, err = q.CancelMatching(t.Context(), f, 0, b.Next)
					}
				}
				if dies < 5 && !errors.Is(err, died) {
					t.Fatalf("CancelMatching = %v, want the failure", err)
				}
				armed = false
				s = s.Reopen()
				_ = q.End()
				q = queuetest.Start(t, s, nil, queuetest.NewRelay(queuetest.Greylisted))
				page, err := q.List(t.Context(), f, 2*messages, "")
				if err != nil {
					t.Fatal(err)
				}
				done := 0
				for _, m := range page.Messages {
					switch m.Status() {
					case queue.StatusCanceled:
						done++
					case queue.StatusDeferred:
						if m.Recipients[0].State != queue.Deferred || m.Recipients[1].State != queue.Deferred {
							t.Fatalf("a message is half canceled: %+v", m.Recipients)
						}
					default:
						t.Fatalf("a message is %s", m.Status())
					}
				}
				if done < b.Changed || !after && done != b.Changed {
					t.Errorf("%d messages are canceled, and the answer said %d", done, b.Changed)
				}
				if rest, err := q.CancelMatching(t.Context(), f, 0, ""); err != nil || rest.Changed != messages-done {
					t.Errorf("CancelMatching again = %+v, %v, want the other %d", rest, err, messages-done)
				}
			})
		}
	}
}
