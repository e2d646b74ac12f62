package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"

	"mailsidecar/queue"
)

// TestRepeatWhileRefusing: a request that was stored is answered again where a
// new one is refused.
func TestRepeatWhileRefusing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		store := memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if method == "Insert" && full.Load() {
				return queue.ErrDiskFull
			}
			return nil
		}})
		q := queuetest.Start(t, store, func(o *queue.Options) { o.MaxMessages = 2 }, queuetest.NewRelay(queuetest.Greylisted))
		s := queuetest.Submission("x", "a@example.org")
		s.IdempotencyKey, s.Fingerprint = "order-1", [32]byte{1}
		id := q.MustSubmit(s).Message.ID
		queuetest.SettleDown()
		other, fresh := s, s
		other.Fingerprint, fresh.IdempotencyKey = [32]byte{2}, "order-2"
		for _, why := range []error{queue.ErrDiskFull, queue.ErrFull} {
			full.Store(true)
			if errors.Is(why, queue.ErrFull) {
				full.Store(false)
				q.MustSubmit(queuetest.Submission("y", "a@example.org"))
			}
			if r, err := q.Submit(t.Context(), s); err != nil || !r.Replayed || r.Message.ID != id {
				t.Errorf("%v: repeat = %+v, %v, want the message", why, r, err)
			}
			if _, err := q.Submit(t.Context(), other); !errors.Is(err, queue.ErrIdempotencyMismatch) {
				t.Errorf("%v: Submit(other fingerprint) = %v, want ErrIdempotencyMismatch", why, err)
			}
			if _, err := q.Submit(t.Context(), fresh); !errors.Is(err, why) {
				t.Errorf("Submit(new key) = %v, want %v", err, why)
			}
		}
	})
}

// unrecording returns a store that cannot record outcomes while broken.
func unrecording(broken *atomic.Bool) *memory.Store {
	return memory.New(memory.Options{Before: func(_ context.Context, method string) error {
		if method == "Record" && broken.Load() {
			return queue.ErrDiskFull
		}
		return nil
	}})
}

// TestOutcomesCannotBeStored: deliveries stop, nothing is sent twice, and what
// became of the mail is recorded when it can be.
func TestOutcomesCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, unrecording(&broken), nil, relay)
		broken.Store(true)
		var ids []string
		for i := range 10 {
			ids = append(ids, q.MustSubmit(queuetest.Submission(fmt.Sprint(i), "a@example.org")).Message.ID)
			time.Sleep(time.Second)
		}
		if n := len(relay.Attempts()); n != 1 {
			t.Errorf("attempts while outcomes cannot be stored = %d, want 1", n)
		}
		time.Sleep(time.Hour)
		broken.Store(false)
		time.Sleep(10 * time.Second)
		for _, id := range ids {
			q.WantStatus(id, queue.StatusDelivered)
		}
		for what, n := range relay.Deliveries() {
			if n != 1 {
				t.Errorf("%q was delivered %d times, want once", what, n)
			}
		}
	})
}

// TestStopWithoutStore: Run returns why it could not record an outcome.
func TestStopWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		q := queuetest.Start(t, unrecording(&broken), nil, queuetest.NewRelay(queuetest.Accept))
		broken.Store(true)
		q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		time.Sleep(time.Second)
		if err := q.End(); !errors.Is(err, queue.ErrDiskFull) {
			t.Errorf("Run = %v, want ErrDiskFull", err)
		}
	})
}

// TestStopBesideHangingStore: Run returns though a commit takes longer than the time to
// stop, and then fails.
func TestStopBesideHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if method == "Record" {
				time.Sleep(time.Minute)
				return queue.ErrDiskFull
			}
			return nil
		}})
		q := queuetest.Start(t, store, nil, queuetest.NewRelay(queuetest.Accept))
		q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		time.Sleep(time.Second)
		began := time.Now()
		if err := q.End(); err == nil || time.Since(began) > 2*time.Minute {
			t.Errorf("Run = %v after %v, want an error within two minutes", err, time.Since(began))
		}
	})
}

// TestLog: each event has its line, without control characters or secrets.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		relay := queuetest.NewRelay(queuetest.Unreachable)
		q := start(t, func(o *queue.Options) { o.Logger = slog.New(slog.NewTextHandler(&out, nil)) }, relay)
		q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		queuetest.SettleDown()
		relay.Set(queuetest.Refused)
		time.Sleep(time.Minute)
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"msg=queued id=", "forward_path=a@example.org", `msg="relay paused" relay=relay failures=1`, "msg=deferred", "class=relay stage=connect",
			`msg="relay resumed"`, "msg=bounced", "attempt=2 code=550",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("log lacks %q:\n%s", want, out.String())
			}
		}
	})
}

// TestStopKeepsOrder: what a stop takes out of a relay's hands, unjudged, keeps its place
// in line: after the restart it goes before what came later.
func TestStopKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Hour, 0)
		q := queuetest.Start(t, store, func(o *queue.Options) { o.Workers = 1 }, relay)
		first := q.MustSubmit(queuetest.Submission("first", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		second := q.MustSubmit(queuetest.Submission("second", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		_ = q.End()
		relay = queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Second, 0)
		q = queuetest.Start(t, store.Reopen(), func(o *queue.Options) { o.Workers = 1 }, relay)
		time.Sleep(time.Minute)
		a, b := q.Message(first).Attempts, q.Message(second).Attempts
		if len(a) != 1 || len(b) != 1 || a[0].Started.After(b[0].Started) {
			t.Errorf("after the stop the attempts are %v and %v, want the first one's to come first", a, b)
		}
	})
}
