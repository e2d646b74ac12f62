package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		q := start(t, nil, relay)
		r := q.MustSubmit(queuetest.Submission("hello", "a@example.org", "b@example.org"))
		if got := r.Message.Status(); got != queue.StatusQueued || r.Replayed {
			t.Errorf("Submit = %s, replayed %v, want queued, false", got, r.Replayed)
		}
		queuetest.SettleDown()
		m := q.WantStatus(r.Message.ID, queue.StatusDelivered)
		if len(m.Attempts) != 1 || m.Recipients[1].Result.Reply.Code != 250 {
			t.Errorf("story = %+v, want one attempt and its reply", m)
		}
		if seen := relay.Attempts(); len(seen) != 1 || len(seen[0].Envelope.ForwardPaths) != 2 || seen[0].Content != "hello" {
			t.Errorf("relay saw %+v, want one transaction with both recipients", seen)
		}
		if u := q.Usage(); u != (queue.Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
		if _, err := q.Content(t.Context(), "app", m.ID); !errors.Is(err, queue.ErrContentGone) {
			t.Errorf("Content = %v, want ErrContentGone", err)
		}
	})
}

// TestFiveDays: a recipient that is always deferred is tried on schedule and
// expires with the relay's last reply.
func TestFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Greylisted)
		q := start(t, nil, relay)
		began := time.Now()
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(5*24*time.Hour - time.Minute)
		q.WantStatus(id, queue.StatusDeferred)
		time.Sleep(2 * time.Minute)
		queuetest.SettleDown()
		m := q.WantStatus(id, queue.StatusFailed)
		if r := m.Recipients[0]; r.State != queue.Expired || r.Result.Reply.Code != 450 {
			t.Errorf("recipient = %+v, want expired with the last reply", r)
		}
		seen := relay.Attempts()
		if n := len(seen); n < 110 || n > 150 {
			t.Errorf("attempts = %d, want about 125", n)
		}
		for i, want := range []time.Duration{0, 1, 3, 7, 15, 31, 63, 123} {
			want *= time.Minute
			if at := seen[i].At.Sub(began); at < want-want/7 || at > want+want/7+time.Second {
				t.Errorf("attempt %d came after %v, want about %v", i+1, at, want)
			}
		}
		if n := len(m.Attempts); n != len(seen) {
			t.Errorf("attempts kept = %d, want %d", n, len(seen))
		}
	})
}

// TestRelayDeadForFiveDays: the relay, which after a day is back but refuses all
// logins, is probed; messages are not churned, and all expire; what comes later
// is delivered once the relay is well.
func TestRelayDeadForFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		q := start(t, nil, relay)
		var ids []string
		for range 50 {
			ids = append(ids, q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID)
		}
		time.Sleep(24 * time.Hour)
		if n := len(relay.Attempts()); n < 24*12-30 || n > 24*12+60 {
			t.Errorf("attempts in a day = %d, want about one each 5 min", n)
		}
		if p := q.Pauses(); len(p) != 1 || p[0].Reason.Class != mailer.ClassRelay || p[0].Failures < 100 {
			t.Errorf("Pauses = %+v, want the relay", p)
		}
		relay.Set(queuetest.Fail(mailer.ClassRelay, mailer.StageAuth, 535))
		store := q.Options.Store.(*memory.Store)
		before, commits := len(relay.Attempts()), store.Commits()
		time.Sleep(24 * time.Hour)
		if n := len(relay.Attempts()) - before; n < 24*4-15 || n > 24*4+20 {
			t.Errorf("attempts to log in in a day = %d, want about one each 15 min", n)
		}
		// Two for each probe, and housekeeping.
		if n := store.Commits() - commits; n > 24*4*3+24*6*5 {
			t.Errorf("commits in a day of pause = %d, want a few for each probe", n)
		}
		time.Sleep(3*24*time.Hour + time.Minute)
		for _, id := range ids {
			m := q.WantStatus(id, queue.StatusFailed)
			if f := m.Recipients[0].Result.Failure; m.Recipients[0].State != queue.Expired || f == nil || f.Class != mailer.ClassRelay {
				t.Errorf("recipient = %+v, want expired with the reason", m.Recipients[0])
			}
		}
		late := q.MustSubmit(queuetest.Submission("late", "a@example.org")).Message.ID
		relay.Set(queuetest.Accept)
		time.Sleep(20 * time.Minute)
		q.WantStatus(late, queue.StatusDelivered)
		if p := q.Pauses(); len(p) != 0 {
			t.Errorf("Pauses = %+v, want none", p)
		}
	})
}

func TestOneProbeEndsAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		const takes = 10 * time.Millisecond
		relay.Slow(takes, 0)
		q := start(t, nil, relay)
		var ids []string
		for range 30 {
			ids = append(ids, q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID)
		}
		const pause = time.Second
		time.Sleep(pause / 2)
		if n := len(relay.Attempts()); n != 8 {
			t.Errorf("attempts before the pause = %d, want one for each worker", n)
		}
		relay.Set(queuetest.Accept)
		relay.Most()
		time.Sleep(pause / 4)
		if n := len(relay.Attempts()); n != 8 {
			t.Errorf("attempts during the pause = %d, want no more", n-8)
		}
		time.Sleep(pause)
		for _, id := range ids {
			q.WantStatus(id, queue.StatusDelivered)
		}
		seen := relay.Attempts()
		if gap := seen[9].At.Sub(seen[8].At); gap < takes {
			t.Errorf("the second message came %v after the probe, want after its end", gap)
		}
		if most := relay.Most(); len(seen) != 38 || most != 8 {
			t.Errorf("attempts = %d, at a time %d, want 38, 8", len(seen), most)
		}
	})
}

func TestPartialOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			switch {
			case path == "bad@example.org":
				return queuetest.Refused(n, path)
			case path == "grey@example.org" && n == 1:
				return queuetest.Greylisted(n, path)
			}
			return nil
		})
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "good@example.org", "bad@example.org", "grey@example.org")).Message.ID
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusDeferred)
		time.Sleep(2 * time.Minute)
		m := q.WantStatus(id, queue.StatusPartial)
		seen := relay.Attempts()
		if len(seen) != 2 || !slices.Equal(seen[1].Envelope.ForwardPaths, []string{"grey@example.org"}) || seen[0].Content != seen[1].Content {
			t.Errorf("relay saw %+v, want only the deferred recipient again, same bytes", seen)
		}
		if m.Recipients[1].State != queue.Bounced || m.Recipients[1].Result.Reply.Code != 550 {
			t.Errorf("refused recipient = %+v", m.Recipients[1])
		}
	})
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := queuetest.NamedRelay("one", queuetest.Unreachable), queuetest.NamedRelay("two", queuetest.Accept)
		q := start(t, nil, one, two)
		first := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if m := q.WantStatus(first, queue.StatusDelivered); len(m.Attempts) != 2 || m.Attempts[1].Relay != "two" {
			t.Errorf("attempts = %+v, want one then two", m.Attempts)
		}
		second := q.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if m := q.WantStatus(second, queue.StatusDelivered); len(m.Attempts) != 1 || m.Attempts[0].Relay != "two" {
			t.Errorf("attempts during the pause = %+v, want two only", m.Attempts)
		}
		one.Set(queuetest.Accept)
		time.Sleep(10 * time.Second)
		third := q.MustSubmit(queuetest.Submission("z", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if m := q.WantStatus(third, queue.StatusDelivered); len(m.Attempts) != 1 || m.Attempts[0].Relay != "one" {
			t.Errorf("attempts after the pause = %+v, want one again", m.Attempts)
		}
	})
}

// Test421DelaysTheRelay: before any transaction. In one it may mean the message, see
// TestOddMessagesStopNobody.
func Test421DelaysTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			if n <= 3 {
				return queuetest.Fail(mailer.ClassTransient, mailer.StageGreeting, 421)(n, path)
			}
			return nil
		})
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(59 * time.Second)
		q.WantStatus(id, queue.StatusDelivered)
		if seen := relay.Attempts(); len(seen) != 4 {
			t.Errorf("attempts within a minute = %d, want 4", len(seen))
		}
	})
}

// TestPushedBackDelaysTheMessage: a relay that takes mail and asked for less at a
// time gets less; it is not paused.
func TestPushedBackDelaysTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			if n == 1 {
				return queuetest.PushedBack(421)(n, path)
			}
			return nil
		})
		q := start(t, nil, relay)
		first := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		q.WantStatus(first, queue.StatusDeferred)
		if p := q.Pauses(); len(p) > 0 {
			t.Errorf("after a wish for less the pauses are %+v, want none", p)
		}
		q.WantStatus(q.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID, queue.StatusQueued)
		queuetest.SettleDown()
		time.Sleep(5 * time.Second)
		q.WantStatus(first, queue.StatusDelivered)
	})
}

func TestSendAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		q := start(t, nil, relay)
		s := queuetest.Submission("x", "a@example.org")
		s.SendAt, s.Wait = time.Now().Add(48*time.Hour), time.Minute
		began := time.Now()
		r := q.MustSubmit(s)
		if time.Since(began) > time.Second {
			t.Error("Submit of a scheduled message waited")
		}
		time.Sleep(24 * time.Hour)
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		q = restart(t, q, nil, relay)
		time.Sleep(24*time.Hour - time.Minute)
		q.WantStatus(r.Message.ID, queue.StatusQueued)
		time.Sleep(2 * time.Minute)
		q.WantStatus(r.Message.ID, queue.StatusDelivered)
		if at := relay.Attempts()[0].At; at.Before(s.SendAt) || at.After(s.SendAt.Add(time.Second)) {
			t.Errorf("sent at %v, want %v", at, s.SendAt)
		}
	})
}

func TestExpiresIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Greylisted)
		q := start(t, nil, relay)
		s := queuetest.Submission("x", "a@example.org")
		s.ExpiresIn = 40 * time.Second
		id := q.MustSubmit(s).Message.ID
		time.Sleep(39 * time.Second)
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusFailed)
		if n := len(relay.Attempts()); n != 2 {
			t.Errorf("attempts = %d, want one more shortly before it expired", n)
		}
		// A bounced or expired message can be retried, with its lifetime anew.
		relay.Set(queuetest.Accept)
		if m, err := q.Retry(t.Context(), "app", id); err != nil || m.Status() != queue.StatusDeferred {
			t.Fatalf("Retry = %v, %v, want deferred", m.Status(), err)
		}
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusDelivered)
		if _, err := q.Retry(t.Context(), "app", id); !errors.Is(err, queue.ErrNothingToRetry) {
			t.Errorf("Retry(delivered) = %v, want ErrNothingToRetry", err)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(3*time.Second, 0)
		q := start(t, nil, relay)
		s := queuetest.Submission("x", "a@example.org")
		tests := []struct {
			name     string
			wait     time.Duration
			say      func(int, string) *mailer.Failure
			want     queue.Status
			min, max time.Duration
		}{
			{"accepted", 10 * time.Second, queuetest.Accept, queue.StatusDelivered, 3 * time.Second, 4 * time.Second},
			{"too slow", time.Second, queuetest.Accept, queue.StatusQueued, time.Second, 2 * time.Second},
			{"refused", 10 * time.Second, queuetest.Refused, queue.StatusFailed, 3 * time.Second, 4 * time.Second},
			{"deferred", 10 * time.Second, queuetest.Greylisted, queue.StatusDeferred, 3 * time.Second, 4 * time.Second},
			{"relay lost", 10 * time.Second, queuetest.Unreachable, queue.StatusDeferred, 3 * time.Second, 4 * time.Second},
			{"relay paused", 10 * time.Second, queuetest.Accept, queue.StatusQueued, 0, time.Second},
		}
		for _, c := range tests {
			relay.Set(c.say)
			s.Wait = c.wait
			began := time.Now()
			r := q.MustSubmit(s)
			took := time.Since(began)
			if got := r.Message.Status(); got != c.want || took < c.min || took > c.max {
				t.Errorf("%s: Submit = %s after %v, want %s after %v", c.name, got, took, c.want, c.min)
			}
			if c.want == queue.StatusQueued && c.name == "too slow" {
				time.Sleep(10 * time.Second)
				q.WantStatus(r.Message.ID, queue.StatusDelivered)
			}
		}
		if n := q.Load().Waiters; n != 0 {
			t.Errorf("waiters left = %d, want 0", n)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	for _, how := range []string{"client gone", "shutdown"} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Accept)
			relay.Slow(2*time.Second, 0)
			q := start(t, nil, relay)
			ctx, cancel := context.WithCancel(t.Context())
			s := queuetest.Submission("x", "a@example.org")
			s.Wait = time.Minute
			go func() {
				time.Sleep(time.Second)
				if how == "shutdown" {
					go func() { _ = q.End() }()
				} else {
					cancel()
				}
			}()
			began := time.Now()
			r, err := q.Submit(ctx, s)
			if took := time.Since(began); err != nil || took > 1100*time.Millisecond {
				t.Errorf("%s: Submit = %v after %v, want an answer at once", how, err, took)
			}
			time.Sleep(5 * time.Second)
			if n := relay.Copies("x", "a@example.org"); n != 1 {
				t.Errorf("%s: delivered %d times, want once", how, n)
			}
			if how == "client gone" {
				q.WantStatus(r.Message.ID, queue.StatusDelivered)
			}
			cancel()
		})
	}
}

func TestIdempotency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Second, 0)
		q := start(t, nil, relay)
		s := queuetest.Submission("x", "a@example.org")
		s.IdempotencyKey, s.Fingerprint = "order-1", [32]byte{1}
		first := q.MustSubmit(s)
		again := q.MustSubmit(s)
		if !again.Replayed || again.Message.ID != first.Message.ID || again.Message.Status() != queue.StatusQueued {
			t.Errorf("repeat = %+v, want the same message, queued", again)
		}
		s.Wait = 10 * time.Second
		if waited := q.MustSubmit(s); !waited.Replayed || waited.Message.Status() != queue.StatusDelivered {
			t.Errorf("waiting repeat = %s, want delivered", waited.Message.Status())
		}
		other := s
		other.Fingerprint = [32]byte{2}
		if _, err := q.Submit(t.Context(), other); !errors.Is(err, queue.ErrIdempotencyMismatch) {
			t.Errorf("Submit(other fingerprint) = %v, want ErrIdempotencyMismatch", err)
		}
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		q = restart(t, q, nil, relay)
		if again := q.MustSubmit(s); !again.Replayed || again.Message.ID != first.Message.ID {
			t.Errorf("repeat after a restart = %+v, want the same message", again)
		}
		time.Sleep(25 * time.Hour)
		if fresh := q.MustSubmit(s); fresh.Replayed {
			t.Error("repeat after a day was replayed, want a new message")
		}
		if n := len(relay.Attempts()); n != 2 {
			t.Errorf("attempts = %d, want 2", n)
		}
	})
}

// slowed returns a store that calls wait before a method of that name takes
// effect.
func slowed(method string, wait func()) *memory.Store {
	return memory.New(memory.Options{Before: func(_ context.Context, m string) error {
		if m == method {
			wait()
		}
		return nil
	}})
}

func TestIdempotencyInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := slowed("Insert", func() { time.Sleep(time.Second) })
		q := queuetest.Start(t, slow, nil, queuetest.NewRelay(queuetest.Accept))
		s := queuetest.Submission("x", "a@example.org")
		s.IdempotencyKey = "k"
		go func(first queue.Submission) {
			if _, err := q.Submit(t.Context(), first); err != nil {
				t.Errorf("Submit = %v", err)
			}
		}(s)
		synctest.Wait()
		if _, err := q.Submit(t.Context(), s); !errors.Is(err, queue.ErrIdempotencyInProgress) {
			t.Errorf("Submit during the first = %v, want ErrIdempotencyInProgress", err)
		}
		s.Key = "another app"
		time.Sleep(2 * time.Second)
		if r := q.MustSubmit(s); r.Replayed {
			t.Error("another API key's request was replayed")
		}
	})
}

// TestAnswerAfterCommit: the message is in the store when Submit returns, and
// is neither answered nor delivered before.
func TestAnswerAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		store := slowed("Insert", func() { <-gate })
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, store, nil, relay)
		answered := make(chan queue.Receipt)
		go func() { answered <- q.MustSubmit(queuetest.Submission("x", "a@example.org")) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(answered) != 0 || len(relay.Attempts()) != 0 {
			t.Fatal("answered or delivered before the commit")
		}
		before := store.Commits()
		close(gate)
		r := <-answered
		if n := store.Commits() - before; n == 0 {
			t.Error("Submit answered without a commit")
		}
		if _, err := store.Get(t.Context(), "app", r.Message.ID); err != nil {
			t.Errorf("Get right after the answer = %v", err)
		}
	})
}

func TestUncertain(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.LostReply)
			q := start(t, func(o *queue.Options) { o.HoldUncertain = hold }, relay)
			s := queuetest.Submission("x", "a@example.org")
			s.Wait = 10 * time.Second
			r := q.MustSubmit(s)
			if n := len(relay.Attempts()); n != 1 {
				t.Errorf("attempts in the request = %d, want 1", n)
			}
			relay.Set(queuetest.Accept)
			time.Sleep(6 * 24 * time.Hour)
			if !hold {
				q.WantStatus(r.Message.ID, queue.StatusDelivered)
				return
			}
			q.WantStatus(r.Message.ID, queue.StatusHeld)
			if _, err := q.Retry(t.Context(), "app", r.Message.ID); err != nil {
				t.Errorf("Retry(held) = %v", err)
			}
			queuetest.SettleDown()
			q.WantStatus(r.Message.ID, queue.StatusDelivered)
		})
	}
}

// TestCrash: a process that dies leaves leases behind.
func TestCrash(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			edit := func(o *queue.Options) { o.HoldUncertain, o.Workers = hold, 1 }
			relay := queuetest.NewRelay(queuetest.Accept)
			relay.Slow(1000*time.Hour, 0)
			q := start(t, edit, relay)
			inFlight := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
			time.Sleep(time.Second)
			waits := q.MustSubmit(queuetest.Submission("2", "a@example.org")).Message.ID
			relay = queuetest.NewRelay(queuetest.Accept)
			next := restart(t, q, edit, relay)
			queuetest.SettleDown()
			next.WantStatus(waits, queue.StatusDelivered)
			if hold {
				m := next.WantStatus(inFlight, queue.StatusHeld)
				if len(m.Attempts) != 1 || m.Recipients[0].Result.Failure.Class != mailer.ClassUncertain {
					t.Errorf("attempts = %+v, want one uncertain", m.Attempts)
				}
				return
			}
			if m := next.WantStatus(inFlight, queue.StatusDelivered); len(m.Attempts) != 2 {
				t.Errorf("attempts = %+v, want the uncertain one and another", m.Attempts)
			}
		})
	}
}

// TestCrashThenHold: a process that does not mark what it sends leaves mail in
// flight behind. It is uncertain for one that holds such mail.
func TestCrashThenHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(1000*time.Hour, 0)
		q := start(t, nil, relay)
		inFlight := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
		time.Sleep(time.Second)

		next := restart(t, q, func(o *queue.Options) { o.HoldUncertain = true }, queuetest.NewRelay(queuetest.Accept))
		queuetest.SettleDown()
		next.WantStatus(inFlight, queue.StatusHeld)
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(3*time.Second, 0)
		q := start(t, func(o *queue.Options) { o.Workers = 2 }, relay)
		var ids []string
		for i := range 5 {
			ids = append(ids, q.MustSubmit(queuetest.Submission(fmt.Sprint(i), "a@example.org")).Message.ID)
		}
		time.Sleep(time.Second)
		began := time.Now()
		if err := q.End(); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("Run took %v to stop, want until the deliveries in flight were over", took)
		}
		if _, err := q.Submit(t.Context(), queuetest.Submission("late", "a@example.org")); !errors.Is(err, queue.ErrShuttingDown) {
			t.Errorf("Submit = %v, want ErrShuttingDown", err)
		}
		q = restart(t, q, nil, relay)
		time.Sleep(10 * time.Second)
		for _, id := range ids {
			if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 {
				t.Errorf("attempts = %d, want 1: what was not in flight was released", len(m.Attempts))
			}
		}
	})
}

// TestStopCutsShort: a delivery that does not end in time is cut short and was
// no attempt.
func TestStopCutsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Hour, 0)
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		began := time.Now()
		if err := q.End(); err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("Run = %v after %v, want nil after 5s", err, time.Since(began))
		}
		relay.Slow(0, 0)
		q = restart(t, q, nil, relay)
		queuetest.SettleDown()
		if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 {
			t.Errorf("attempts = %d, want 1", len(m.Attempts))
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Greylisted)
		q := start(t, func(o *queue.Options) { o.MaxMessages, o.MaxBytes = 3, 100 }, relay)
		q.MustSubmit(queuetest.Submission("1", "a@example.org"))
		id := q.MustSubmit(queuetest.Submission("2", "a@example.org")).Message.ID
		large := queuetest.Submission(string(make([]byte, 99)), "a@example.org")
		if _, err := q.Submit(t.Context(), large); !errors.Is(err, queue.ErrFull) {
			t.Errorf("Submit over MaxBytes = %v, want ErrFull", err)
		}
		if _, err := q.SubmitBatch(t.Context(), []queue.Submission{queuetest.Submission("3", "a@example.org"), queuetest.Submission("4", "a@example.org")}); !errors.Is(err, queue.ErrFull) {
			t.Errorf("SubmitBatch over MaxMessages = %v, want ErrFull", err)
		}
		q.MustSubmit(queuetest.Submission("3", "a@example.org"))
		if _, err := q.Submit(t.Context(), queuetest.Submission("4", "a@example.org")); !errors.Is(err, queue.ErrFull) {
			t.Errorf("Submit over MaxMessages = %v, want ErrFull", err)
		}
		queuetest.SettleDown() // its first attempt is over and recorded
		if m, err := q.Cancel(t.Context(), "app", id); err != nil || m.Status() != queue.StatusCanceled {
			t.Errorf("Cancel = %s, %v, want canceled", m.Status(), err)
		}
		if _, err := q.Cancel(t.Context(), "app", id); !errors.Is(err, queue.ErrNothingToCancel) {
			t.Errorf("second Cancel = %v, want ErrNothingToCancel", err)
		}
		q.MustSubmit(queuetest.Submission("4", "a@example.org"))
	})
}

// TestBoundedMemory: past the budget a message is a row, and is delivered all
// the same.
func TestBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(10*time.Millisecond, 0)
		q := start(t, func(o *queue.Options) { o.MaxMemory, o.Workers = 20_000, 2 }, relay)
		var ids []string
		for i := range 100 {
			ids = append(ids, q.MustSubmit(queuetest.Submission(fmt.Sprintf("%04d%1000s", i, ""), "a@example.org")).Message.ID)
			if l := q.Load(); l.Fresh > 20_000 || l.Loaded > 20_000 {
				t.Errorf("memory = %d + %d, want at most 20000 each", l.Fresh, l.Loaded)
			}
		}
		big := q.MustSubmit(queuetest.Submission(string(make([]byte, 50_000)), "a@example.org")).Message.ID
		time.Sleep(5 * time.Second)
		for _, id := range append(ids, big) {
			q.WantStatus(id, queue.StatusDelivered)
		}
		if l := q.Load(); len(relay.Attempts()) != 101 || l != (queue.Load{}) {
			t.Errorf("attempts = %d, load = %+v, want 101, none", len(relay.Attempts()), l)
		}
	})
}

// TestMemoryOfRewritten: a relay that changes every message needs room for a copy of it.
func TestMemoryOfRewritten(t *testing.T) {
	for _, rewrites := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const size = 100_000
			relay := queuetest.NewRelay(queuetest.Accept)
			relay.Slow(time.Second, 0)
			relay.Rewriting = rewrites
			q := start(t, nil, relay)
			q.MustSubmit(queuetest.Submission(string(make([]byte, size)), "a@example.org"))
			synctest.Wait()
			l := q.Load()
			if got := l.Fresh+l.Loaded >= 2*size; got != rewrites || l.Fresh+l.Loaded < size {
				t.Errorf("load = %+v with a relay whose Rewrites() is %v", l, rewrites)
			}
			time.Sleep(5 * time.Second)
		})
	}
}

func TestCancelWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Greylisted)
		relay.Slow(time.Second, 0)
		q := start(t, func(o *queue.Options) { o.Workers = 1 }, relay)
		inFlight := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
		waits := q.MustSubmit(queuetest.Submission("2", "a@example.org")).Message.ID
		synctest.Wait()
		for _, id := range []string{inFlight, waits} {
			if _, err := q.Cancel(t.Context(), "app", id); err != nil {
				t.Errorf("Cancel = %v", err)
			}
		}
		q.WantStatus(waits, queue.StatusCanceled)
		time.Sleep(time.Hour)
		q.WantStatus(inFlight, queue.StatusCanceled)
		if n := len(relay.Attempts()); n != 1 {
			t.Errorf("attempts = %d, want only the one that was in flight", n)
		}
		if u := q.Usage(); u != (queue.Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
	})
}

// TestCancelGivenBack: a message that is canceled while it goes back to the store,
// since its relay is in trouble, is not sent when that is over.
func TestCancelGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		relay.Slow(time.Second, 0)
		slow := slowed("Release", func() { time.Sleep(5 * time.Second) })
		q := queuetest.Start(t, slow, func(o *queue.Options) { o.Workers = 1 }, relay)
		q.MustSubmit(queuetest.Submission("1", "a@example.org"))
		for range 2 { // one more than the spare worker takes
			q.MustSubmit(queuetest.Submission("2", "b@example.org"))
		}
		waits := q.MustSubmit(queuetest.Submission("3", "c@example.org")).Message.ID
		time.Sleep(2 * time.Second)
		if _, err := q.Cancel(t.Context(), "app", waits); err != nil {
			t.Errorf("Cancel = %v", err)
		}
		relay.Set(queuetest.Accept)
		time.Sleep(3 * time.Minute)
		q.WantStatus(waits, queue.StatusCanceled)
		if relay.Copies("3", "c@example.org") != 0 {
			t.Error("the canceled message was sent")
		}
		if u := q.Usage(); u != (queue.Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
	})
}

// TestRetryMatchingStops: a retry that takes long stops, and goes on from there.
func TestRetryMatchingStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Refused)
		slow := false
		q := queuetest.Start(t, memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if slow && method == "List" {
				time.Sleep(3 * time.Second)
			}
			return nil
		}}), nil, relay)
		const messages = 2500
		for range messages {
			q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		}
		queuetest.SettleDown()
		slow = true
		total, requests := 0, 0
		for cursor, more := "", true; more; more = cursor != "" {
			began := time.Now()
			b, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app"}, 0, cursor)
			if took := time.Since(began); err != nil || took > 24*time.Second || b.Next == cursor && cursor != "" || b.Matched != b.Changed {
				t.Fatalf("RetryMatching = %+v, %v after %v, want it to stop after 20 s", b, err, took)
			}
			total, cursor = total+b.Changed, b.Next
			requests++
		}
		if total != messages || requests < 2 {
			t.Errorf("retried = %d in %d requests, want each of %d once, in several", total, requests, messages)
		}
		for _, cursor := range []string{"delivered.", "failed.!", "x"} {
			if _, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app"}, 0, cursor); !errors.Is(err, queue.ErrInvalidCursor) {
				t.Errorf("RetryMatching(cursor %q) = %v, want ErrInvalidCursor", cursor, err)
			}
		}
	})
}

func TestRetryMatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Refused)
		q := start(t, nil, relay)
		for range 5 {
			q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		}
		time.Sleep(time.Second)
		relay.Set(queuetest.Accept)
		if b, err := q.RetryMatching(t.Context(), queue.Filter{Key: "other"}, 0, ""); b.Changed != 0 || err != nil {
			t.Errorf("RetryMatching(other key) = %+v, %v, want 0", b, err)
		}
		if b, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app", Recipient: "a@example.org"}, 0, ""); b.Changed != 5 || err != nil {
			t.Errorf("RetryMatching = %+v, %v, want 5", b, err)
		}
		queuetest.SettleDown()
		page, err := q.List(t.Context(), queue.Filter{Key: "app", Status: queue.StatusDelivered}, 10, "")
		if err != nil || len(page.Messages) != 5 {
			t.Errorf("delivered = %d, %v, want 5", len(page.Messages), err)
		}
	})
}

func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			if n == 1 {
				return queuetest.Greylisted(n, path)
			}
			return nil
		})
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		q.Skew(-24 * time.Hour)
		time.Sleep(4 * time.Minute)
		q.WantStatus(id, queue.StatusDelivered)
		fresh := q.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID
		queuetest.SettleDown()
		q.WantStatus(fresh, queue.StatusDelivered)
	})
}

// TestClockSetForwardAndBack: within a minute. What was put off meanwhile is not put off
// for a day.
func TestClockSetForwardAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		q := start(t, nil, relay)
		time.Sleep(time.Second)
		q.Skew(24 * time.Hour)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		q.Skew(0)
		relay.Set(queuetest.Accept)
		time.Sleep(4 * time.Minute)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestClockSetBackWhileStoring: what is being stored while the clock is set back, or
// cannot be repaired just then, does not wait for a day.
func TestClockSetBackWhileStoring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down, slow atomic.Bool
		store := memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if method == "Insert" && slow.Load() {
				time.Sleep(90 * time.Second)
			}
			if method == "Rewind" && down.Load() {
				return queue.ErrDiskFull
			}
			return nil
		}})
		relay := queuetest.NewRelay(queuetest.Unreachable)
		q := queuetest.Start(t, store, nil, relay)
		first := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		slow.Store(true)
		down.Store(true)
		second := make(chan string)
		go func() { second <- q.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID }()
		time.Sleep(time.Second)
		q.Skew(-24 * time.Hour)
		relay.Set(queuetest.Accept)
		time.Sleep(80 * time.Second)
		down.Store(false)
		id := <-second
		time.Sleep(2 * time.Hour)
		q.WantStatus(first, queue.StatusDelivered)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestClockSetForward: what is due by the new clock goes out soon, though a timer
// runs by the old one.
func TestClockSetForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		q := start(t, nil, relay)
		s := queuetest.Submission("x", "a@example.org")
		s.SendAt = time.Now().Add(12 * time.Hour)
		id := q.MustSubmit(s).Message.ID
		time.Sleep(time.Second)
		q.Skew(24 * time.Hour)
		time.Sleep(2 * time.Minute)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestRouteGone: mail for a route that is no longer configured moves to the one
// that is, or waits.
func TestRouteGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, current := queuetest.NamedRelay("old", queuetest.Unreachable), queuetest.NamedRelay("current", queuetest.Accept)
		q := start(t, nil, old)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		elsewhere := func(o *queue.Options) { o.Routes[0].Senders = []string{"other.example"} }
		q = restart(t, q, elsewhere, current)
		time.Sleep(time.Hour)
		q.WantStatus(id, queue.StatusDeferred)
		if _, err := q.Submit(t.Context(), queuetest.Submission("x", "a@example.org")); !errors.Is(err, queue.ErrNoRoute) {
			t.Errorf("Submit = %v, want ErrNoRoute", err)
		}
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		q = restart(t, q, nil, current)
		time.Sleep(2 * time.Hour)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

func TestPanicIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, _ string) *mailer.Failure {
			if n == 1 {
				panic("boom")
			}
			return nil
		})
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(10 * time.Minute)
		m := q.WantStatus(id, queue.StatusDelivered)
		if len(m.Attempts) != 2 || m.Attempts[0].Results[0].Failure.Class != mailer.ClassUncertain {
			t.Errorf("attempts = %+v, want an uncertain one first", m.Attempts)
		}
	})
}

// TestRateUsedUp: mail beyond a relay's rate waits until the relay may take it.
// That is no trouble: nothing is counted, and no pause grows.
func TestRateUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := time.Now().Add(-time.Hour)
		relay := queuetest.NewRelay(func(int, string) *mailer.Failure { // one in an hour
			if at := next.Add(time.Hour); time.Now().Before(at) {
				return queuetest.RateUsedUp("relay", at)
			}
			next = time.Now()
			return nil
		})
		var text lockedLog
		q := start(t, func(o *queue.Options) { o.Workers, o.Logger = 1, slog.New(slog.NewTextHandler(&text, nil)) }, relay)
		var ids []string
		for i := range 5 {
			ids = append(ids, q.MustSubmit(queuetest.Submission(fmt.Sprint(i), "a@example.org")).Message.ID)
		}
		time.Sleep(30 * time.Minute)
		if p := q.Pauses(); len(p) != 0 {
			t.Errorf("Pauses = %+v, want none", p)
		}
		if n := len(relay.Attempts()); n != 2 {
			t.Errorf("attempts in the first half hour = %d, want the one that got through and one that told", n)
		}
		turn := next.Add(time.Hour)
		if at := q.Message(ids[4]).Recipients[0].NextAttempt; at.Before(turn.Add(-time.Millisecond)) {
			t.Errorf("NextAttempt = %v, want %v", at, turn)
		}
		time.Sleep(4 * time.Hour)
		for _, id := range ids {
			q.WantStatus(id, queue.StatusDelivered)
		}
		if n := len(relay.Attempts()); n > 10 {
			t.Errorf("attempts = %d, want at most two for each message", n)
		}
		if log := text.String(); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") || !strings.Contains(log, "rate used up") {
			t.Errorf("log = %s, want what goes on, and no trouble", log)
		}
	})
}

// TestStored: who waits for the first attempt learns when the message is stored.
func TestStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Minute, 0)
		q := start(t, nil, relay)
		began := time.Now()
		var stored []time.Duration
		s := queuetest.Submission("x", "a@example.org")
		s.Stored = func() { stored = append(stored, time.Since(began)) }
		for _, s.Wait = range []time.Duration{0, 2 * time.Minute} {
			if _, err := q.Submit(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if len(stored) != 1 || stored[0] != 0 || time.Since(began) != time.Minute {
			t.Errorf("Stored was called after %v, and the answer came after %v, want at once and after 1m", stored, time.Since(began))
		}
	})
}
