package queue_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// peers is a store in memory as each of several instances has it, none of which dies.
type peers struct{ *memory.Store }

var _ queue.SharedStore = peers{}

func (peers) Lease() time.Duration { return lease }

func (peers) Trusts(string) bool { return true }

func (peers) Tried(context.Context, []string) ([]string, error) { return nil, nil }

func (peers) Recover(context.Context, string, time.Time, bool) (queue.Recovered, error) {
	return queue.Recovered{}, nil
}

// TestPausesShared: what a person pauses or resumes at one instance the others pause or resume within
// two seconds. What is paused at two instances at the same time is paused: none overwrites the other.
func TestPausesShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := peers{memory.New(memory.Options{})}
		var queues [3]*queuetest.Queue
		var relays [3][2]*queuetest.Relay
		for i := range queues {
			relays[i] = [2]*queuetest.Relay{queuetest.NamedRelay("one", queuetest.Accept), queuetest.NamedRelay("two", queuetest.Accept)}
			queues[i] = queuetest.Start(t, store, nil, relays[i][:]...)
		}
		want := func(when string, want ...string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			for i, q := range queues {
				var got []string
				for _, p := range q.ManualPauses() {
					got = append(got, p.Relay+" "+p.Reason)
				}
				if len(got) != len(want) || len(want) > 0 && got[0] != want[0] || len(want) > 1 && got[1] != want[1] {
					t.Errorf("%s: instance %d has pauses %q, want %q", when, i, got, want)
				}
			}
		}
		pause := func(i int, relay string, until time.Time, reason string) {
			t.Helper()
			if _, err := queues[i].PauseRelay(t.Context(), relay, until, reason); err != nil {
				t.Fatal(err)
			}
		}
		resume := func(i int, relay string) {
			t.Helper()
			if err := queues[i].ResumeRelay(t.Context(), relay); err != nil {
				t.Fatal(err)
			}
		}
		pause(0, "one", time.Time{}, "a")
		pause(1, "two", time.Time{}, "b")
		want("two pauses at once", "one a", "two b")
		id := queues[2].MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Minute)
		queues[2].WantStatus(id, queue.StatusQueued)
		pause(2, "one", time.Now().Add(time.Minute), "c")
		want("the last wish of a relay counts", "one c", "two b")
		resume(2, "two")
		want("resumed", "one c")
		time.Sleep(time.Minute)
		want("its time is over")
		queues[0].WantStatus(id, queue.StatusDelivered)
		pause(0, "two", time.Time{}, "d")
		resume(1, "two") // which it does not know of yet
		want("paused, and at once resumed elsewhere")
		pause(0, "one", time.Now().Add(time.Second), "e")
		time.Sleep(time.Hour)
		if stored, err := store.ManualPauses(t.Context()); err != nil || len(stored) > 0 {
			t.Errorf("long after the end the store has %v, %v", stored, err)
		}
	})
}

// instancesAt starts queues at one store, each with a relay of its own of the same name.
func instancesAt(t *testing.T, d *memory.Database, n int, v queuetest.Verdict) (queues []*queuetest.Queue, relays []*queuetest.Relay) {
	for range n {
		r := queuetest.NamedRelay("one", v)
		relays = append(relays, r)
		queues = append(queues, queuetest.Start(t, d.Open(memory.Options{}), nil, r))
	}
	return queues, relays
}

func attemptsOf(relays []*queuetest.Relay) (n int) {
	for _, r := range relays {
		n += len(r.Attempts())
	}
	return n
}

// TestTroubleShared: a relay that is in trouble is asked by several instances hardly more often than by one, and
// when it works again all of them send within two seconds.
func TestTroubleShared(t *testing.T) {
	asked := map[int]int{}
	for _, n := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			queues, relays := instancesAt(t, memory.NewDatabase(lease), n, queuetest.Unreachable)
			for _, q := range queues {
				for range 8 / n {
					q.MustSubmit(queuetest.Submission("x", "a@example.org"))
				}
			}
			time.Sleep(20 * time.Second)
			for i, q := range queues {
				if p := q.Pauses(); len(p) != 1 || p[0].Reason == nil || p[0].Reason.Stage != mailer.StageConnect {
					t.Errorf("instance %d of %d has pauses %+v, want that of the relay", i, n, p)
				}
			}
			early := attemptsOf(relays)
			time.Sleep(time.Hour)
			asked[n] = attemptsOf(relays) - early
			for _, r := range relays {
				r.Set(queuetest.Accept)
			}
			for queues[0].Pauses() != nil {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(2500 * time.Millisecond)
			for i, q := range queues {
				if p := q.Pauses(); p != nil {
					t.Errorf("instance %d of %d still has %+v", i, n, p)
				}
				id := q.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID
				queuetest.SettleDown()
				q.WantStatus(id, queue.StatusDelivered)
			}
			time.Sleep(time.Minute)
			if u := queues[0].Usage(); u.Messages > 0 {
				t.Errorf("%d messages are left", u.Messages)
			}
		})
	}
	if asked[4] > asked[1]*5/4 {
		t.Errorf("attempts in an hour by one and by four instances = %v, want about as many", asked)
	}
	t.Log(asked)
}

// slowNotes answers late what others have told to a look that must not wait for long.
type slowNotes struct{ *memory.Shared }

func (s *slowNotes) Notes(ctx context.Context, kind string) (map[string][]byte, time.Time, error) {
	notes, at, err := s.Shared.Notes(ctx, kind)
	if end, _ := ctx.Deadline(); time.Until(end) <= 2*time.Second {
		time.Sleep(900 * time.Millisecond)
	}
	return notes, at, err
}

// TestLearnsNothingOld: what was read before this instance found a relay in trouble does not end that pause.
func TestLearnsNothingOld(t *testing.T) {
	for after := range 20 {
		synctest.Test(t, func(t *testing.T) {
			store := &slowNotes{Shared: memory.NewDatabase(lease).Open(memory.Options{})}
			t.Cleanup(func() { _ = store.Close() })
			relay := queuetest.NewRelay(queuetest.Unreachable)
			q := queuetest.Start(t, store, nil, relay)
			time.Sleep(time.Second + time.Duration(after)*100*time.Millisecond) // notes are being read, or not
			q.MustSubmit(queuetest.Submission("x", "a@example.org"))
			queuetest.SettleDown()
			first := q.Pauses()
			for range 500 {
				if p := q.Pauses(); first != nil && p == nil {
					t.Fatalf("%d: the pause of a relay that was just found dead has ended", after)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// dies returns a store that answers nothing once it is dead.
func dies(d *memory.Database) (*memory.Shared, *atomic.Bool) {
	dead := &atomic.Bool{}
	return d.Open(memory.Options{Before: func(context.Context, string) error {
		if dead.Load() {
			return queue.ErrClosed
		}
		return nil
	}}), dead
}

// TestProbeDies: a probe whose instance is gone does not keep mail away for longer than half a minute, and what an
// instance knows that starts later is what the others know.
func TestProbeDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memory.NewDatabase(lease)
		dying := queuetest.NamedRelay("one", queuetest.Unreachable)
		store, isDead := dies(d)
		a := queuetest.Start(t, store, nil, dying)
		a.MustSubmit(queuetest.Submission("x", "a@example.org"))
		queuetest.SettleDown()
		dying.Slow(time.Hour, 0) // its next attempt, the probe, hangs
		time.Sleep(10 * time.Second)
		isDead.Store(true)
		relay := queuetest.NamedRelay("one", queuetest.Accept)
		b := queuetest.Start(t, d.Open(memory.Options{}), nil, relay)
		if p := b.Pauses(); len(p) != 1 {
			t.Errorf("Pauses of an instance that has just begun = %v, want that of the relay", p)
		}
		id := b.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID
		time.Sleep(15 * time.Second)
		b.WantStatus(id, queue.StatusQueued)
		time.Sleep(20 * time.Second)
		b.WantStatus(id, queue.StatusDelivered)
	})
}

// TestQuotaShared: where a relay names the end of a quota, no instance asks before.
func TestQuotaShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Hour)
		refuse := func(int, string) *mailer.Failure {
			if !time.Now().Before(until) {
				return nil
			}
			f := queuetest.Fail(mailer.ClassRelay, mailer.StageMail, 452)(0, "")
			f.Until = until
			return f
		}
		queues, relays := instancesAt(t, memory.NewDatabase(lease), 3, refuse)
		first := queues[0].MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(2 * time.Second)
		var ids []string
		for _, q := range queues {
			ids = append(ids, q.MustSubmit(queuetest.Submission("y", "a@example.org")).Message.ID)
		}
		time.Sleep(50 * time.Minute)
		if n := attemptsOf(relays); n != 1 {
			t.Errorf("%d attempts, want the first alone", n)
			for i, r := range relays {
				for _, a := range r.Attempts() {
					t.Logf("%d %+v", i, a)
				}
			}
		}
		time.Sleep(20 * time.Minute)
		for _, id := range append(ids, first) {
			queues[0].WantStatus(id, queue.StatusDelivered)
		}
	})
}

// TestOneProbes: while the probe of one instance is under way no other one asks the relay.
func TestOneProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 20 * time.Second
		queues, relays := instancesAt(t, memory.NewDatabase(lease), 3, queuetest.Unreachable)
		for i, q := range queues {
			q.MustSubmit(queuetest.Submission("x", "a@example.org"))
			q.MustSubmit(queuetest.Submission("y", "a@example.org"))
			relays[i].Slow(takes, 0)
		}
		time.Sleep(2 * takes)
		before := attemptsOf(relays)
		time.Sleep(20 * time.Minute)
		var times []time.Time
		for _, r := range relays {
			for _, a := range r.Attempts() {
				times = append(times, a.At)
			}
		}
		slices.SortFunc(times, time.Time.Compare)
		times = times[before:]
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d < takes {
				t.Errorf("a probe began %v after another one, which takes %v", d, takes)
			}
		}
		if len(times) < 5 {
			t.Errorf("%d probes in 20 minutes", len(times))
		}
	})
}

// TestHeldShared: what one instance holds, any other one shows, and lets go out again.
func TestHeldShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memory.NewDatabase(lease)
		var queues [2]*queuetest.Queue
		for i := range queues {
			relay := queuetest.NamedRelay("one", queuetest.Fail(mailer.ClassUncertain, mailer.StageContent, 0))
			if i == 1 {
				relay.Set(queuetest.Accept)
			}
			queues[i] = queuetest.Start(t, d.Open(memory.Options{}), func(o *queue.Options) { o.HoldUncertain = true }, relay)
		}
		a, b := queues[0], queues[1]
		id := a.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		b.WantStatus(id, queue.StatusHeld)
		page, err := b.List(t.Context(), queue.Filter{Key: "app", Status: queue.StatusHeld}, 10, "")
		if err != nil || len(page.Messages) != 1 {
			t.Errorf("the other instance lists %d held messages, %v", len(page.Messages), err)
		}
		if _, err := b.Retry(t.Context(), "app", id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if s := b.Message(id).Status(); s != queue.StatusDelivered && s != queue.StatusHeld {
			t.Errorf("after a retry it is %s", s)
		}
		if n := len(a.Message(id).Attempts); n != 2 {
			t.Errorf("%d attempts, want a second one after the retry", n)
		}
	})
}
