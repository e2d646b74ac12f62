package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
	"mailsidecar/units"
)

// TestMayHaveTaken: what a relay may have taken goes to no other, though it is not
// reached any more and others are; and what it certainly has not taken does.
func TestMayHaveTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := func(_ int, path string) *mailer.Failure {
			if path == "a@example.org" {
				return queuetest.LostReply(1, path)
			}
			return queuetest.Unreachable(1, path)
		}
		first, second := queuetest.NamedRelay("first", lost), queuetest.NamedRelay("second", queuetest.Accept)
		q := start(t, nil, first, second)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org", "b@example.org")).Message.ID
		queuetest.SettleDown()
		first.Set(queuetest.Unreachable)
		time.Sleep(24 * time.Hour)
		if got := second.Copies("x", "a@example.org"); got != 0 {
			t.Errorf("the second relay took %d copies of what the first may have taken, want none", got)
		}
		if got := second.Copies("x", "b@example.org"); got != 1 {
			t.Errorf("the second relay took %d copies of what the first has not taken, want one", got)
		}
		q.WantStatus(id, queue.StatusDeferred)
		first.Set(queuetest.Accept)
		time.Sleep(2 * time.Hour)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestMayHaveTakenAfterCrash: the service crashes while a relay has a message. No other
// relay gets it, neither before nor after a restart in between; what waited in memory for
// the same relay may go to the other one.
func TestMayHaveTakenAfterCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		// The second has the mail in hand, for the first is not reached.
		first, second := queuetest.NamedRelay("first", queuetest.Unreachable), queuetest.NamedRelay("second", queuetest.Accept)
		second.Slow(time.Hour, 0)
		q := queuetest.Start(t, store, func(o *queue.Options) { o.Workers = 1 }, first, second)
		sent := q.MustSubmit(queuetest.Submission("sent", "a@example.org")).Message.ID
		queuetest.SettleDown()
		waits := q.MustSubmit(queuetest.Submission("waits", "a@example.org")).Message.ID
		queuetest.SettleDown()
		store = store.Reopen()
		_ = q.End()

		for range 2 {
			first, second = queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Unreachable)
			q = queuetest.Start(t, store, nil, first, second)
			time.Sleep(2 * time.Hour)
			if got := first.Copies("sent", "a@example.org"); got != 0 {
				t.Errorf("the first relay took %d copies of what the second may have taken, want none", got)
			}
			q.WantStatus(sent, queue.StatusDeferred)
			q.WantStatus(waits, queue.StatusDelivered)
			if got := len(q.Message(waits).Attempts); got != 1 {
				t.Errorf("what waited in memory has %d attempts, want one", got)
			}
			store = store.Reopen()
			_ = q.End()
		}
		second = queuetest.NamedRelay("second", queuetest.Accept)
		q = queuetest.Start(t, store, nil, queuetest.NamedRelay("first", queuetest.Accept), second)
		time.Sleep(2 * time.Hour)
		q.WantStatus(sent, queue.StatusDelivered)
		if got := second.Copies("sent", "a@example.org"); got != 1 {
			t.Errorf("the second relay took %d copies, want one", got)
		}
	})
}

// TestRelayRemoved: what a relay may have taken waits for a person when that relay is not
// configured any more; a retry sends it elsewhere, and no other retry does.
func TestRelayRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		first, second := queuetest.NamedRelay("first", queuetest.LostReply), queuetest.NamedRelay("second", queuetest.Accept)
		q := queuetest.Start(t, store, nil, first, second)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		first.Set(queuetest.Unreachable)
		if _, err := q.Retry(t.Context(), "app", id); err != nil {
			t.Fatal(err)
		}
		queuetest.SettleDown()
		if got := second.Copies("x", "a@example.org"); got != 0 {
			t.Errorf("a retry of what waits for the first relay: %d copies at the second, want none", got)
		}
		if got := q.Message(id).Recipients[0].TakenBy; got != "first" {
			t.Errorf("TakenBy = %q, want the first relay", got)
		}
		store = store.Reopen()
		_ = q.End()

		q = queuetest.Start(t, store, nil, second)
		time.Sleep(6 * 24 * time.Hour) // held mail does not expire
		m := q.WantStatus(id, queue.StatusHeld)
		if f := m.Recipients[0].Result.Failure; f == nil || f.Relay != "first" || second.Copies("x", "a@example.org") != 0 {
			t.Errorf("result %+v, %d copies at the second relay; want why it is held, and none", f, second.Copies("x", "a@example.org"))
		}
		if _, err := q.Retry(t.Context(), "app", id); err != nil {
			t.Fatal(err)
		}
		queuetest.SettleDown()
		m = q.WantStatus(id, queue.StatusDelivered)
		if got := m.Recipients[0].TakenBy; got != "" || second.Copies("x", "a@example.org") != 1 {
			t.Errorf("TakenBy = %q, %d copies at the second relay; want none, and one", got, second.Copies("x", "a@example.org"))
		}
	})
}

// TestOtherRoute: mail that waits on a route that is configured no more takes the new one,
// also where no other mail goes there.
func TestOtherRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		first, second := queuetest.NamedRelay("first", queuetest.Unreachable), queuetest.NamedRelay("second", queuetest.Accept)
		q := queuetest.Start(t, store, nil, first)
		var ids []string
		for range 700 {
			ids = append(ids, q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID)
		}
		queuetest.SettleDown()
		_ = q.End()
		q = queuetest.Start(t, store.Reopen(), nil, second)
		time.Sleep(time.Minute)
		for _, id := range ids {
			q.WantStatus(id, queue.StatusDelivered)
		}
	})
}

// turnUser is a relay with a rate that uses a turn for each message.
type turnUser struct {
	*queuetest.Relay
	used []time.Time // that it is told of at the start
}

func (*turnUser) Rate() units.Rate                                  { return units.Rate{Messages: 2, Per: time.Hour} }
func (r *turnUser) Used(times []time.Time)                          { r.used = times }
func (*turnUser) NoteUsed(func(context.Context, []time.Time) error) {}
func (r *turnUser) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	a := r.Relay.Deliver(ctx, env, c)
	a.Turns = []time.Time{a.Started}
	return a
}

// TestTurnBeforeAnotherRelay: after a crash while one relay has a message in hand, the turn
// counts that it had used at the relay before.
func TestTurnBeforeAnotherRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		relays := func(first queuetest.Verdict, slow time.Duration) (*turnUser, func(*queue.Options)) {
			rated, second := &turnUser{Relay: queuetest.NamedRelay("first", first)}, queuetest.NamedRelay("second", queuetest.Accept)
			second.Slow(slow, 0)
			return rated, func(o *queue.Options) { o.Routes = queue.Routes{{Relay: rated}, {Relay: second}} }
		}
		_, routes := relays(queuetest.Unreachable, time.Hour)
		q := queuetest.Start(t, store, routes)
		q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		queuetest.SettleDown()
		store = store.Reopen()
		_ = q.End()
		rated, routes := relays(queuetest.Accept, 0)
		queuetest.Start(t, store, routes)
		if len(rated.used) != 1 {
			t.Errorf("after the crash the first relay is told of %d turns, want one", len(rated.used))
		}
	})
}
