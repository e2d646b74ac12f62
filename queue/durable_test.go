package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
)

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(accept)
		q := start(t, dbPath(t), nil, relay)
		r := q.submit(submission("hello", "a@example.org", "b@example.org"))
		if got := r.Message.Status(); got != StatusQueued || r.Replayed {
			t.Errorf("Submit = %s, replayed %v, want queued, false", got, r.Replayed)
		}
		settleDown()
		m := q.wantStatus(r.Message.ID, StatusDelivered)
		if len(m.Attempts) != 1 || m.Recipients[1].Result.Reply.Code != 250 {
			t.Errorf("story = %+v, want one attempt and its reply", m)
		}
		if seen := relay.seen(); len(seen) != 1 || len(seen[0].env.ForwardPaths) != 2 || seen[0].data != "hello" {
			t.Errorf("relay saw %+v, want one transaction with both recipients", seen)
		}
		if u := q.Usage(); u != (Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
		if _, err := q.Content(t.Context(), "app", m.ID); !errors.Is(err, ErrContentGone) {
			t.Errorf("Content = %v, want ErrContentGone", err)
		}
	})
}

// TestFiveDays: a recipient that is always deferred is tried on schedule and
// expires with the relay's last reply.
func TestFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(greylisted)
		q := start(t, dbPath(t), nil, relay)
		began := time.Now()
		id := q.submit(submission("x", "a@example.org")).Message.ID
		time.Sleep(5*24*time.Hour - time.Minute)
		q.wantStatus(id, StatusDeferred)
		time.Sleep(2 * time.Minute)
		settleDown()
		m := q.wantStatus(id, StatusFailed)
		if r := m.Recipients[0]; r.State != Expired || r.Result.Reply.Code != 450 {
			t.Errorf("recipient = %+v, want expired with the last reply", r)
		}
		seen := relay.seen()
		if n := len(seen); n < 110 || n > 150 {
			t.Errorf("attempts = %d, want about 125", n)
		}
		for i, want := range []time.Duration{0, 1, 3, 7, 15, 31, 63, 123} {
			want *= time.Minute
			if at := seen[i].at.Sub(began); at < want-want/7 || at > want+want/7+time.Second {
				t.Errorf("attempt %d came after %v, want about %v", i+1, at, want)
			}
		}
		if n := len(m.Attempts); n != len(seen) {
			t.Errorf("attempts kept = %d, want %d", n, len(seen))
		}
	})
}

// TestRelayDeadForFiveDays: the relay, which after a day is back but lets nobody
// log in, is probed; messages are not churned, and all expire; what comes later
// is delivered once the relay is well.
func TestRelayDeadForFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(unreachable)
		q := start(t, dbPath(t), nil, relay)
		var ids []string
		for range 50 {
			ids = append(ids, q.submit(submission("x", "a@example.org")).Message.ID)
		}
		time.Sleep(24 * time.Hour)
		if n := len(relay.seen()); n < 24*12-30 || n > 24*12+60 {
			t.Errorf("attempts in a day = %d, want about one each 5 min", n)
		}
		if p := q.Pauses(); len(p) != 1 || p[0].Reason.Class != mailer.ClassRelay || p[0].Failures < 100 {
			t.Errorf("Pauses = %+v, want the relay", p)
		}
		relay.set(fail(mailer.ClassRelay, mailer.StageAuth, 535))
		before, commits := len(relay.seen()), q.store.writer.commits.Load()
		time.Sleep(24 * time.Hour)
		if n := len(relay.seen()) - before; n < 24*4-15 || n > 24*4+20 {
			t.Errorf("attempts to log in in a day = %d, want about one each 15 min", n)
		}
		// Two for each probe, and housekeeping.
		if n := q.store.writer.commits.Load() - commits; n > 24*4*3+24*6*5 {
			t.Errorf("commits in a day of pause = %d, want a few for each probe", n)
		}
		time.Sleep(3*24*time.Hour + time.Minute)
		for _, id := range ids {
			m := q.wantStatus(id, StatusFailed)
			if f := m.Recipients[0].Result.Failure; m.Recipients[0].State != Expired || f == nil || f.Class != mailer.ClassRelay {
				t.Errorf("recipient = %+v, want expired with the reason", m.Recipients[0])
			}
		}
		late := q.submit(submission("late", "a@example.org")).Message.ID
		relay.set(accept)
		time.Sleep(20 * time.Minute)
		q.wantStatus(late, StatusDelivered)
		if p := q.Pauses(); len(p) != 0 {
			t.Errorf("Pauses = %+v, want none", p)
		}
	})
}

func TestOneProbeEndsAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(unreachable)
		relay.takes = 10 * time.Millisecond
		q := start(t, dbPath(t), nil, relay)
		var ids []string
		for range 30 {
			ids = append(ids, q.submit(submission("x", "a@example.org")).Message.ID)
		}
		time.Sleep(firstPause / 2)
		if n := len(relay.seen()); n != 8 {
			t.Errorf("attempts before the pause = %d, want one for each worker", n)
		}
		relay.set(accept)
		relay.peak = 0
		time.Sleep(firstPause / 4)
		if n := len(relay.seen()); n != 8 {
			t.Errorf("attempts during the pause = %d, want no more", n-8)
		}
		time.Sleep(firstPause)
		for _, id := range ids {
			q.wantStatus(id, StatusDelivered)
		}
		seen := relay.seen()
		if gap := seen[9].at.Sub(seen[8].at); gap < relay.takes {
			t.Errorf("the second message came %v after the probe, want after its end", gap)
		}
		if len(seen) != 38 || relay.peak != 8 {
			t.Errorf("attempts = %d, at a time %d, want 38, 8", len(seen), relay.peak)
		}
	})
}

func TestPartialOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(func(n int, path string) *mailer.Failure {
			switch {
			case path == "bad@example.org":
				return refused(n, path)
			case path == "grey@example.org" && n == 1:
				return greylisted(n, path)
			}
			return nil
		})
		q := start(t, dbPath(t), nil, relay)
		id := q.submit(submission("x", "good@example.org", "bad@example.org", "grey@example.org")).Message.ID
		settleDown()
		q.wantStatus(id, StatusDeferred)
		time.Sleep(2 * time.Minute)
		m := q.wantStatus(id, StatusPartial)
		seen := relay.seen()
		if len(seen) != 2 || !slices.Equal(seen[1].env.ForwardPaths, []string{"grey@example.org"}) || seen[0].data != seen[1].data {
			t.Errorf("relay saw %+v, want only the deferred recipient again, same bytes", seen)
		}
		if m.Recipients[1].State != Bounced || m.Recipients[1].Result.Reply.Code != 550 {
			t.Errorf("refused recipient = %+v", m.Recipients[1])
		}
	})
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newFakeRelay(unreachable), newFakeRelay(accept)
		one.name, two.name = "one", "two"
		q := start(t, dbPath(t), nil, one, two)
		first := q.submit(submission("x", "a@example.org")).Message.ID
		settleDown()
		if m := q.wantStatus(first, StatusDelivered); len(m.Attempts) != 2 || m.Attempts[1].Relay != "two" {
			t.Errorf("attempts = %+v, want one then two", m.Attempts)
		}
		second := q.submit(submission("y", "a@example.org")).Message.ID
		settleDown()
		if m := q.wantStatus(second, StatusDelivered); len(m.Attempts) != 1 || m.Attempts[0].Relay != "two" {
			t.Errorf("attempts during the pause = %+v, want two only", m.Attempts)
		}
		one.set(accept)
		time.Sleep(10 * time.Second)
		third := q.submit(submission("z", "a@example.org")).Message.ID
		settleDown()
		if m := q.wantStatus(third, StatusDelivered); len(m.Attempts) != 1 || m.Attempts[0].Relay != "one" {
			t.Errorf("attempts after the pause = %+v, want one again", m.Attempts)
		}
	})
}

func Test421DelaysTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(func(n int, path string) *mailer.Failure {
			if n <= 3 {
				return fail(mailer.ClassTransient, mailer.StageMail, 421)(n, path)
			}
			return nil
		})
		q := start(t, dbPath(t), nil, relay)
		id := q.submit(submission("x", "a@example.org")).Message.ID
		time.Sleep(59 * time.Second)
		q.wantStatus(id, StatusDelivered)
		if seen := relay.seen(); len(seen) != 4 {
			t.Errorf("attempts within a minute = %d, want 4", len(seen))
		}
	})
}

// TestPushedBackDelaysTheMessage: a relay that takes mail and asked for less at a
// time gets less; it is not paused.
func TestPushedBackDelaysTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(func(n int, path string) *mailer.Failure {
			if n == 1 {
				return pushedBack(421)(n, path)
			}
			return nil
		})
		q := start(t, dbPath(t), nil, relay)
		first := q.submit(submission("x", "a@example.org")).Message.ID
		settleDown()
		q.wantStatus(first, StatusDeferred)
		if p := q.Pauses(); len(p) > 0 {
			t.Errorf("after a wish for less the pauses are %+v, want none", p)
		}
		q.wantStatus(q.submit(submission("y", "a@example.org")).Message.ID, StatusQueued)
		settleDown()
		time.Sleep(5 * time.Second)
		q.wantStatus(first, StatusDelivered)
	})
}

func TestSendAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(accept)
		path := dbPath(t)
		q := start(t, path, nil, relay)
		s := submission("x", "a@example.org")
		s.SendAt, s.Wait = time.Now().Add(48*time.Hour), time.Minute
		began := time.Now()
		r := q.submit(s)
		if time.Since(began) > time.Second {
			t.Error("Submit of a scheduled message waited")
		}
		time.Sleep(24 * time.Hour)
		if err := q.end(); err != nil {
			t.Fatal(err)
		}
		q = start(t, path, nil, relay)
		time.Sleep(24*time.Hour - time.Minute)
		q.wantStatus(r.Message.ID, StatusQueued)
		time.Sleep(2 * time.Minute)
		q.wantStatus(r.Message.ID, StatusDelivered)
		if at := relay.seen()[0].at; at.Before(s.SendAt) || at.After(s.SendAt.Add(time.Second)) {
			t.Errorf("sent at %v, want %v", at, s.SendAt)
		}
	})
}

func TestExpiresIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(greylisted)
		q := start(t, dbPath(t), nil, relay)
		s := submission("x", "a@example.org")
		s.ExpiresIn = 40 * time.Second
		id := q.submit(s).Message.ID
		time.Sleep(39 * time.Second)
		settleDown()
		q.wantStatus(id, StatusFailed)
		if n := len(relay.seen()); n != 2 {
			t.Errorf("attempts = %d, want one more shortly before it expired", n)
		}
		// A bounced or expired message can be retried, with its lifetime anew.
		relay.set(accept)
		if m, err := q.Retry(t.Context(), "app", id); err != nil || m.Status() != StatusDeferred {
			t.Fatalf("Retry = %v, %v, want deferred", m.Status(), err)
		}
		settleDown()
		q.wantStatus(id, StatusDelivered)
		if _, err := q.Retry(t.Context(), "app", id); !errors.Is(err, ErrNothingToRetry) {
			t.Errorf("Retry(delivered) = %v, want ErrNothingToRetry", err)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(accept)
		relay.takes = 3 * time.Second
		q := start(t, dbPath(t), nil, relay)
		s := submission("x", "a@example.org")
		tests := []struct {
			name     string
			wait     time.Duration
			say      func(int, string) *mailer.Failure
			want     Status
			min, max time.Duration
		}{
			{"accepted", 10 * time.Second, accept, StatusDelivered, 3 * time.Second, 4 * time.Second},
			{"too slow", time.Second, accept, StatusQueued, time.Second, 2 * time.Second},
			{"refused", 10 * time.Second, refused, StatusFailed, 3 * time.Second, 4 * time.Second},
			{"deferred", 10 * time.Second, greylisted, StatusDeferred, 3 * time.Second, 4 * time.Second},
			{"relay lost", 10 * time.Second, unreachable, StatusDeferred, 3 * time.Second, 4 * time.Second},
			{"relay paused", 10 * time.Second, accept, StatusQueued, 0, time.Second},
		}
		for _, c := range tests {
			relay.set(c.say)
			s.Wait = c.wait
			began := time.Now()
			r := q.submit(s)
			took := time.Since(began)
			if got := r.Message.Status(); got != c.want || took < c.min || took > c.max {
				t.Errorf("%s: Submit = %s after %v, want %s after %v", c.name, got, took, c.want, c.min)
			}
			if c.want == StatusQueued && c.name == "too slow" {
				time.Sleep(10 * time.Second)
				q.wantStatus(r.Message.ID, StatusDelivered)
			}
		}
		if n := len(q.watches); n != 0 {
			t.Errorf("watches left = %d, want 0", n)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	for _, how := range []string{"client gone", "shutdown"} {
		synctest.Test(t, func(t *testing.T) {
			relay := newFakeRelay(accept)
			relay.takes = 2 * time.Second
			q := start(t, dbPath(t), nil, relay)
			ctx, cancel := context.WithCancel(t.Context())
			s := submission("x", "a@example.org")
			s.Wait = time.Minute
			go func() {
				time.Sleep(time.Second)
				if how == "shutdown" {
					go func() { _ = q.end() }()
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
			if n := relay.copies("x", "a@example.org"); n != 1 {
				t.Errorf("%s: delivered %d times, want once", how, n)
			}
			if how == "client gone" {
				q.wantStatus(r.Message.ID, StatusDelivered)
			}
			cancel()
		})
	}
}

func TestIdempotency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(accept)
		relay.takes = time.Second
		path := dbPath(t)
		q := start(t, path, nil, relay)
		s := submission("x", "a@example.org")
		s.IdempotencyKey, s.Fingerprint = "order-1", [32]byte{1}
		first := q.submit(s)
		again := q.submit(s)
		if !again.Replayed || again.Message.ID != first.Message.ID || again.Message.Status() != StatusQueued {
			t.Errorf("repeat = %+v, want the same message, queued", again)
		}
		s.Wait = 10 * time.Second
		if waited := q.submit(s); !waited.Replayed || waited.Message.Status() != StatusDelivered {
			t.Errorf("waiting repeat = %s, want delivered", waited.Message.Status())
		}
		other := s
		other.Fingerprint = [32]byte{2}
		if _, err := q.Submit(t.Context(), other); !errors.Is(err, ErrIdempotencyMismatch) {
			t.Errorf("Submit(other fingerprint) = %v, want ErrIdempotencyMismatch", err)
		}
		if err := q.end(); err != nil {
			t.Fatal(err)
		}
		q = start(t, path, nil, relay)
		if again := q.submit(s); !again.Replayed || again.Message.ID != first.Message.ID {
			t.Errorf("repeat after a restart = %+v, want the same message", again)
		}
		time.Sleep(25 * time.Hour)
		if fresh := q.submit(s); fresh.Replayed {
			t.Error("repeat after a day was replayed, want a new message")
		}
		if n := len(relay.seen()); n != 2 {
			t.Errorf("attempts = %d, want 2", n)
		}
	})
}

// slowStore makes inserts wait, so that a test can look in between.
type slowStore struct {
	*SQLite
	insert func()
}

func (s *slowStore) Insert(ctx context.Context, b Batch) ([]string, error) {
	s.insert()
	return s.SQLite.Insert(ctx, b)
}

func TestIdempotencyInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := OpenSQLite(t.Context(), SQLiteOptions{Path: dbPath(t)})
		if err != nil {
			t.Fatal(err)
		}
		slow := &slowStore{store, func() { time.Sleep(time.Second) }}
		q := startOn(t, store, slow, nil, newFakeRelay(accept))
		s := submission("x", "a@example.org")
		s.IdempotencyKey = "k"
		go func(first Submission) {
			if _, err := q.Submit(t.Context(), first); err != nil {
				t.Errorf("Submit = %v", err)
			}
		}(s)
		synctest.Wait()
		if _, err := q.Submit(t.Context(), s); !errors.Is(err, ErrIdempotencyInProgress) {
			t.Errorf("Submit during the first = %v, want ErrIdempotencyInProgress", err)
		}
		s.Key = "another app"
		time.Sleep(2 * time.Second)
		if r := q.submit(s); r.Replayed {
			t.Error("another API key's request was replayed")
		}
	})
}

// TestAnswerAfterCommit: the message is in the store when Submit returns, and
// nobody was told or given it before.
func TestAnswerAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := OpenSQLite(t.Context(), SQLiteOptions{Path: dbPath(t)})
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		slow := &slowStore{store, func() { <-gate }}
		relay := newFakeRelay(accept)
		q := startOn(t, store, slow, nil, relay)
		answered := make(chan Receipt)
		go func() { answered <- q.submit(submission("x", "a@example.org")) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(answered) != 0 || len(relay.seen()) != 0 {
			t.Fatal("answered or delivered before the commit")
		}
		before := store.writer.commits.Load()
		close(gate)
		r := <-answered
		if n := store.writer.commits.Load() - before; n == 0 {
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
			relay := newFakeRelay(lostReply)
			q := start(t, dbPath(t), func(o *Options) { o.HoldUncertain = hold }, relay)
			s := submission("x", "a@example.org")
			s.Wait = 10 * time.Second
			r := q.submit(s)
			if n := len(relay.seen()); n != 1 {
				t.Errorf("attempts in the request = %d, want 1", n)
			}
			relay.set(accept)
			time.Sleep(6 * 24 * time.Hour)
			if !hold {
				q.wantStatus(r.Message.ID, StatusDelivered)
				return
			}
			q.wantStatus(r.Message.ID, StatusHeld)
			if _, err := q.Retry(t.Context(), "app", r.Message.ID); err != nil {
				t.Errorf("Retry(held) = %v", err)
			}
			settleDown()
			q.wantStatus(r.Message.ID, StatusDelivered)
		})
	}
}

// TestCrash: a process that dies leaves leases behind.
func TestCrash(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			path := dbPath(t)
			edit := func(o *Options) { o.HoldUncertain, o.Workers = hold, 1 }
			relay := newFakeRelay(accept)
			relay.takes = 1000 * time.Hour
			q := start(t, path, edit, relay)
			inHand := q.submit(submission("1", "a@example.org")).Message.ID
			time.Sleep(time.Second)
			waits := q.submit(submission("2", "a@example.org")).Message.ID
			// The store is all that a dead process leaves; what it would still
			// write comes to nothing.
			_ = q.store.writer.close()
			_ = q.store.closeReaders()
			_ = q.store.lock.Close()

			relay = newFakeRelay(accept)
			next := start(t, path, edit, relay)
			settleDown()
			next.wantStatus(waits, StatusDelivered)
			if hold {
				m := next.wantStatus(inHand, StatusHeld)
				if len(m.Attempts) != 1 || m.Recipients[0].Result.Failure.Class != mailer.ClassUncertain {
					t.Errorf("attempts = %+v, want one uncertain", m.Attempts)
				}
				return
			}
			if m := next.wantStatus(inHand, StatusDelivered); len(m.Attempts) != 2 {
				t.Errorf("attempts = %+v, want the uncertain one and another", m.Attempts)
			}
		})
	}
}

// TestCrashThenHold: what a process had in hand that does not mark what it sends
// is uncertain for one that holds such mail.
func TestCrashThenHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := dbPath(t)
		relay := newFakeRelay(accept)
		relay.takes = 1000 * time.Hour
		q := start(t, path, nil, relay)
		inHand := q.submit(submission("1", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		_ = q.store.writer.close()
		_ = q.store.closeReaders()
		_ = q.store.lock.Close()

		next := start(t, path, func(o *Options) { o.HoldUncertain = true }, newFakeRelay(accept))
		settleDown()
		next.wantStatus(inHand, StatusHeld)
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := dbPath(t)
		relay := newFakeRelay(accept)
		relay.takes = 3 * time.Second
		q := start(t, path, func(o *Options) { o.Workers = 2 }, relay)
		var ids []string
		for i := range 5 {
			ids = append(ids, q.submit(submission(fmt.Sprint(i), "a@example.org")).Message.ID)
		}
		time.Sleep(time.Second)
		began := time.Now()
		if err := q.end(); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("Run took %v to stop, want until the deliveries in hand were over", took)
		}
		if _, err := q.Submit(t.Context(), submission("late", "a@example.org")); !errors.Is(err, ErrShuttingDown) {
			t.Errorf("Submit = %v, want ErrShuttingDown", err)
		}
		q = start(t, path, nil, relay)
		time.Sleep(10 * time.Second)
		for _, id := range ids {
			if m := q.wantStatus(id, StatusDelivered); len(m.Attempts) != 1 {
				t.Errorf("attempts = %d, want 1: what was not in hand was released", len(m.Attempts))
			}
		}
	})
}

// TestStopCutsShort: a delivery that does not end in time is cut short and was
// no attempt.
func TestStopCutsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := dbPath(t)
		relay := newFakeRelay(accept)
		relay.takes = time.Hour
		q := start(t, path, nil, relay)
		id := q.submit(submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		began := time.Now()
		if err := q.end(); err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("Run = %v after %v, want nil after 5s", err, time.Since(began))
		}
		relay.takes = 0
		q = start(t, path, nil, relay)
		settleDown()
		if m := q.wantStatus(id, StatusDelivered); len(m.Attempts) != 1 {
			t.Errorf("attempts = %d, want 1", len(m.Attempts))
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(greylisted)
		q := start(t, dbPath(t), func(o *Options) { o.MaxMessages, o.MaxBytes = 3, 100 }, relay)
		q.submit(submission("1", "a@example.org"))
		id := q.submit(submission("2", "a@example.org")).Message.ID
		large := submission(string(make([]byte, 99)), "a@example.org")
		if _, err := q.Submit(t.Context(), large); !errors.Is(err, ErrFull) {
			t.Errorf("Submit over MaxBytes = %v, want ErrFull", err)
		}
		if _, err := q.SubmitBatch(t.Context(), []Submission{submission("3", "a@example.org"), submission("4", "a@example.org")}); !errors.Is(err, ErrFull) {
			t.Errorf("SubmitBatch over MaxMessages = %v, want ErrFull", err)
		}
		q.submit(submission("3", "a@example.org"))
		if _, err := q.Submit(t.Context(), submission("4", "a@example.org")); !errors.Is(err, ErrFull) {
			t.Errorf("Submit over MaxMessages = %v, want ErrFull", err)
		}
		settleDown() // its first attempt is over and recorded
		if m, err := q.Cancel(t.Context(), "app", id); err != nil || m.Status() != StatusCanceled {
			t.Errorf("Cancel = %s, %v, want canceled", m.Status(), err)
		}
		if _, err := q.Cancel(t.Context(), "app", id); !errors.Is(err, ErrNothingToCancel) {
			t.Errorf("second Cancel = %v, want ErrNothingToCancel", err)
		}
		q.submit(submission("4", "a@example.org"))
	})
}

// TestBoundedMemory: past the budget a message is a row, and is delivered all
// the same.
func TestBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(accept)
		relay.takes = 10 * time.Millisecond
		q := start(t, dbPath(t), func(o *Options) { o.MaxMemory, o.Workers = 20_000, 2 }, relay)
		var ids []string
		for i := range 100 {
			ids = append(ids, q.submit(submission(fmt.Sprintf("%04d%1000s", i, ""), "a@example.org")).Message.ID)
			q.mu.Lock()
			if q.fresh > 20_000 || q.loaded > 20_000 {
				t.Errorf("memory = %d + %d, want at most 20000 each", q.fresh, q.loaded)
			}
			q.mu.Unlock()
		}
		big := q.submit(submission(string(make([]byte, 50_000)), "a@example.org")).Message.ID
		time.Sleep(5 * time.Second)
		for _, id := range append(ids, big) {
			q.wantStatus(id, StatusDelivered)
		}
		if len(relay.seen()) != 101 || q.fresh != 0 || q.loaded != 0 {
			t.Errorf("attempts = %d, memory = %d + %d, want 101, none", len(relay.seen()), q.fresh, q.loaded)
		}
	})
}

func TestCancelWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(greylisted)
		relay.takes = time.Second
		q := start(t, dbPath(t), func(o *Options) { o.Workers = 1 }, relay)
		inHand := q.submit(submission("1", "a@example.org")).Message.ID
		waits := q.submit(submission("2", "a@example.org")).Message.ID
		synctest.Wait()
		for _, id := range []string{inHand, waits} {
			if _, err := q.Cancel(t.Context(), "app", id); err != nil {
				t.Errorf("Cancel = %v", err)
			}
		}
		q.wantStatus(waits, StatusCanceled)
		time.Sleep(time.Hour)
		q.wantStatus(inHand, StatusCanceled)
		if n := len(relay.seen()); n != 1 {
			t.Errorf("attempts = %d, want only the one that was in hand", n)
		}
		if u := q.Usage(); u != (Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
	})
}

// slowRelease is a store in which leases take long to be given back.
type slowRelease struct{ Store }

func (s slowRelease) Release(ctx context.Context, owner string, now time.Time, leases []Lease) error {
	time.Sleep(5 * time.Second)
	return s.Store.Release(ctx, owner, now, leases)
}

// TestCancelGivenBack: a message that is canceled while it goes back to the store,
// since its relay is in trouble, is not sent when that is over.
func TestCancelGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(unreachable)
		relay.takes = time.Second
		store, err := OpenSQLite(t.Context(), SQLiteOptions{Path: dbPath(t)})
		if err != nil {
			t.Fatal(err)
		}
		q := startOn(t, store, slowRelease{store}, func(o *Options) { o.Workers = 1 }, relay)
		q.submit(submission("1", "a@example.org"))
		for range 2 { // one more than the spare worker takes
			q.submit(submission("2", "b@example.org"))
		}
		waits := q.submit(submission("3", "c@example.org")).Message.ID
		time.Sleep(2 * time.Second)
		if _, err := q.Cancel(t.Context(), "app", waits); err != nil {
			t.Errorf("Cancel = %v", err)
		}
		relay.set(accept)
		time.Sleep(3 * time.Minute)
		q.wantStatus(waits, StatusCanceled)
		if relay.copies("3", "c@example.org") != 0 {
			t.Error("the canceled message was sent")
		}
		if u := q.Usage(); u != (Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
	})
}

func TestRetryMatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(refused)
		q := start(t, dbPath(t), nil, relay)
		for range 5 {
			q.submit(submission("x", "a@example.org"))
		}
		time.Sleep(time.Second)
		relay.set(accept)
		if n, err := q.RetryMatching(t.Context(), Filter{Key: "other"}); n != 0 || err != nil {
			t.Errorf("RetryMatching(other key) = %d, %v, want 0", n, err)
		}
		if n, err := q.RetryMatching(t.Context(), Filter{Key: "app", Recipient: "a@example.org"}); n != 5 || err != nil {
			t.Errorf("RetryMatching = %d, %v, want 5", n, err)
		}
		settleDown()
		page, err := q.List(t.Context(), Filter{Key: "app", Status: StatusDelivered}, 10, "")
		if err != nil || len(page.Messages) != 5 {
			t.Errorf("delivered = %d, %v, want 5", len(page.Messages), err)
		}
	})
}

func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(func(n int, path string) *mailer.Failure {
			if n == 1 {
				return greylisted(n, path)
			}
			return nil
		})
		q := start(t, dbPath(t), nil, relay)
		id := q.submit(submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		q.skew.Store(int64(-24 * time.Hour))
		time.Sleep(4 * time.Minute)
		q.wantStatus(id, StatusDelivered)
		fresh := q.submit(submission("y", "a@example.org")).Message.ID
		settleDown()
		q.wantStatus(fresh, StatusDelivered)
	})
}

// TestRouteGone: mail for a route that is no longer configured moves to the one
// that is, or waits.
func TestRouteGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := dbPath(t)
		old, current := newFakeRelay(unreachable), newFakeRelay(accept)
		old.name, current.name = "old", "current"
		q := start(t, path, nil, old)
		id := q.submit(submission("x", "a@example.org")).Message.ID
		settleDown()
		if err := q.end(); err != nil {
			t.Fatal(err)
		}
		elsewhere := func(o *Options) { o.Routes[0].Senders = []string{"other.example"} }
		q = start(t, path, elsewhere, current)
		time.Sleep(time.Hour)
		q.wantStatus(id, StatusDeferred)
		if _, err := q.Submit(t.Context(), submission("x", "a@example.org")); !errors.Is(err, ErrNoRoute) {
			t.Errorf("Submit = %v, want ErrNoRoute", err)
		}
		if err := q.end(); err != nil {
			t.Fatal(err)
		}
		q = start(t, path, nil, current)
		time.Sleep(2 * time.Hour)
		q.wantStatus(id, StatusDelivered)
	})
}

func TestPanicIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(func(n int, _ string) *mailer.Failure {
			if n == 1 {
				panic("boom")
			}
			return nil
		})
		q := start(t, dbPath(t), nil, relay)
		id := q.submit(submission("x", "a@example.org")).Message.ID
		time.Sleep(10 * time.Minute)
		m := q.wantStatus(id, StatusDelivered)
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
		relay := newFakeRelay(func(int, string) *mailer.Failure { // one in an hour
			if at := next.Add(time.Hour); time.Now().Before(at) {
				return &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: "relay", Text: "rate", Err: &mailer.RateError{At: at}}
			}
			next = time.Now()
			return nil
		})
		var text lockedLog
		q := start(t, dbPath(t), func(o *Options) { o.Workers, o.Logger = 1, slog.New(slog.NewTextHandler(&text, nil)) }, relay)
		var ids []string
		for i := range 5 {
			ids = append(ids, q.submit(submission(fmt.Sprint(i), "a@example.org")).Message.ID)
		}
		time.Sleep(30 * time.Minute)
		if p := q.Pauses(); len(p) != 0 {
			t.Errorf("Pauses = %+v, want none", p)
		}
		if n := len(relay.seen()); n != 2 {
			t.Errorf("attempts in the first half hour = %d, want the one that got through and one that told", n)
		}
		relay.mu.Lock()
		turn := next.Add(time.Hour)
		relay.mu.Unlock()
		if at := q.message(ids[4]).Recipients[0].NextAttempt; at.Before(turn.Add(-time.Millisecond)) {
			t.Errorf("NextAttempt = %v, want %v", at, turn)
		}
		time.Sleep(4 * time.Hour)
		for _, id := range ids {
			q.wantStatus(id, StatusDelivered)
		}
		if n := len(relay.seen()); n > 10 {
			t.Errorf("attempts = %d, want at most two for each message", n)
		}
		if log := text.String(); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") || !strings.Contains(log, "rate used up") {
			t.Errorf("log = %s, want what goes on, and no trouble", log)
		}
	})
}
