package queue_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

const lease = time.Minute

// sharedStore is a store in memory that takes owners for gone when the test says so. Another
// instance is the test itself.
type sharedStore struct {
	*memory.Store

	mu       sync.Mutex
	gone     map[string]bool // by owner; empty: another instance lives, which is not to be taken over from
	late     bool            // the last beats were not answered
	owner    string
	inserted []string // owners
	unmarked bool     // marks go unanswered
	noAnswer bool     // to Release, which happens
	away     bool     // the database does not answer
	crashes  int      // the most that were counted
	looks    int      // at what waits
	polls    int      // for what requests wait for
}

var _ queue.SharedStore = (*sharedStore)(nil)

func newSharedStore() *sharedStore {
	return &sharedStore{Store: memory.New(memory.Options{}), gone: map[string]bool{}}
}

func (s *sharedStore) Lease() time.Duration { return lease }

func (s *sharedStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// read reads a field of the store while the queue may use it.
func read[T any](s *sharedStore, field *T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *field
}

// lose takes the present owner for gone.
func (s *sharedStore) lose() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[s.owner] = true
	return s.owner
}

func (s *sharedStore) isGone(owner string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[owner]
}

func (s *sharedStore) Trusts(owner string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone[owner] && !s.late
}

func (s *sharedStore) unanswered() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return queue.ErrUnavailable
	}
	return nil
}

func (s *sharedStore) Heartbeat(ctx context.Context, owner string, now time.Time) error {
	if err := s.unanswered(); err != nil {
		return err
	}
	if s.isGone(owner) {
		return queue.ErrLeaseLost
	}
	s.set(func() { s.owner = owner })
	return s.Store.Heartbeat(ctx, owner, now)
}

func (s *sharedStore) Recover(ctx context.Context, owner string, now time.Time, hold bool) (queue.Recovered, error) {
	if s.isGone(owner) {
		return queue.Recovered{}, queue.ErrLeaseLost
	}
	if s.isGone("") {
		return queue.Recovered{}, nil
	}
	r, err := s.Store.Recover(ctx, owner, now, hold)
	s.set(func() { s.crashes = max(s.crashes, r.Crashes) })
	return r, err
}

func (s *sharedStore) Waiting(ctx context.Context, now time.Time) (queue.Waiting, error) {
	s.set(func() { s.looks++ })
	if err := s.unanswered(); err != nil {
		return queue.Waiting{}, err
	}
	return s.Store.Waiting(ctx, now)
}

func (s *sharedStore) Tried(ctx context.Context, ids []string) (tried []string, err error) {
	s.set(func() { s.polls++ })
	for _, id := range ids {
		if m, err := s.Get(ctx, queue.AnyKey, id); err == nil && len(m.Attempts) > 0 {
			tried = append(tried, id)
		}
	}
	return tried, nil
}

func (s *sharedStore) Insert(ctx context.Context, b queue.Batch) ([]string, error) {
	s.set(func() {
		for _, e := range b.Entries {
			s.inserted = append(s.inserted, e.Owner)
		}
	})
	return s.Store.Insert(ctx, b)
}

func (s *sharedStore) Claim(ctx context.Context, owner string, now time.Time, wants []queue.Want) ([]queue.Work, error) {
	if s.isGone(owner) {
		return nil, nil
	}
	return s.Store.Claim(ctx, owner, now, wants)
}

func (s *sharedStore) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	if err := s.Store.Mark(ctx, owner, l, turns); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone[owner] || s.unmarked {
		return queue.ErrLeaseLost
	}
	return nil
}

func (s *sharedStore) Record(ctx context.Context, outcomes []queue.Outcome) (queue.Settled, error) {
	if err := s.unanswered(); err != nil {
		return queue.Settled{}, err
	}
	return s.Store.Record(ctx, outcomes)
}

func (s *sharedStore) Release(ctx context.Context, owner string, now time.Time, leases []queue.Lease) error {
	if err := s.Store.Release(ctx, owner, now, leases); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noAnswer {
		return queue.ErrUnavailable
	}
	return nil
}

// takeOver has another instance take over from the owner, and lease all that is due.
func (s *sharedStore) takeOver(t *testing.T) []queue.Work {
	t.Helper()
	s.set(func() { s.gone[""] = true })
	if _, err := s.Store.Recover(t.Context(), "marks-other", time.Now(), false); err != nil {
		t.Fatal(err)
	}
	w, err := s.Waiting(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var wants []queue.Want
	for _, l := range w.Lanes {
		wants = append(wants, queue.Want{Route: l.Route, Lane: l.Lane, Limit: 100})
	}
	works, err := s.Store.Claim(t.Context(), "marks-other", time.Now(), wants)
	if err != nil {
		t.Fatal(err)
	}
	return works
}

// askingRelay waits, asks whether the message may be sent, waits again, and asks again, as a
// relay does before the content and before the final dot.
type askingRelay struct {
	*queuetest.Relay
	before, between, after time.Duration
}

func (r askingRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	for _, wait := range []time.Duration{r.before, r.between} {
		time.Sleep(wait)
		if !env.Sendable() {
			a := mailer.Attempt{Relay: r.Name(), Started: time.Now()}
			for _, path := range env.ForwardPaths {
				a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: &mailer.Failure{
					Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: r.Name(), Err: mailer.ErrMayNotSend,
				}})
			}
			return a
		}
	}
	a := r.Relay.Deliver(ctx, env, c)
	time.Sleep(r.after) // the reply to the final dot
	return a
}

func (r askingRelay) route(o *queue.Options) { o.Routes = queue.Routes{{Relay: r}} }

// TestSharedOwnerMarks: the owner of a store that several instances share marks always: what others take
// over that it has not begun with is not uncertain.
func TestSharedOwnerMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), after: time.Hour}
		q := queuetest.Start(t, store, func(o *queue.Options) {
			relay.route(o)
			o.Workers = 1
		})
		begun := q.MustSubmit(queuetest.Submission("begun", "a@example.org")).Message.ID
		for range 3 {
			q.MustSubmit(queuetest.Submission("more", "a@example.org"))
		}
		waits := q.MustSubmit(queuetest.Submission("waits", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if owner := store.lose(); !strings.HasPrefix(owner, "marks-") || len(owner) != len("marks-")+36 {
			t.Errorf("owner = %q, want one that marks, and that never comes again", owner)
		}
		store.takeOver(t)
		if n := len(q.Message(begun).Attempts); n != 1 {
			t.Errorf("what was being sent has %d attempts, want an uncertain one", n)
		}
		if n := len(q.Message(waits).Attempts); n != 0 {
			t.Errorf("what waited in memory has %d attempts, want none", n)
		}
		time.Sleep(lease)
		if n := q.Load().Waiting; n != 0 {
			t.Errorf("%d messages wait in memory that another instance has, want none", n)
		}
	})
}

// TestLeaseLost: whatever an owner has in hand whose lease is lost is not sent, and the service goes on
// with another owner, without a restart.
func TestLeaseLost(t *testing.T) {
	tests := map[string]struct {
		relay   askingRelay
		lose    time.Duration // after the message was accepted
		workers int
		sent    int // by this instance, of the first message
	}{
		"before the content":       {relay: askingRelay{before: 10 * time.Second}, lose: 5 * time.Second},
		"before the final dot":     {relay: askingRelay{between: 10 * time.Second}, lose: 5 * time.Second},
		"after the final dot":      {relay: askingRelay{after: 10 * time.Second}, lose: 5 * time.Second, sent: 1},
		"before it is even begun":  {relay: askingRelay{}, lose: -1},
		"while the mark is waited": {relay: askingRelay{}, lose: 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSharedStore()
				tt.relay.Relay = queuetest.NewRelay(queuetest.Accept)
				q := queuetest.Start(t, store, tt.relay.route)
				queuetest.SettleDown()
				if tt.lose < 0 {
					store.lose()
				}
				if tt.lose == 0 {
					store.set(func() { store.unmarked = true })
				}
				id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
				time.Sleep(max(tt.lose, 10*time.Millisecond))
				first := store.lose()
				store.set(func() { store.unmarked = false })
				works := store.takeOver(t)
				if len(works) != 1 {
					t.Fatalf("the other instance got %d messages, want the one", len(works))
				}
				time.Sleep(2 * lease)
				if got := tt.relay.Copies("one", "a@example.org"); got != tt.sent {
					t.Errorf("the first owner sent %d copies of what another one has, want %d", got, tt.sent)
				}
				second := q.MustSubmit(queuetest.Submission("two", "a@example.org")).Message.ID
				time.Sleep(time.Minute)
				q.WantStatus(second, queue.StatusDelivered)
				if n := len(q.Message(second).Attempts); n != 1 {
					t.Errorf("%d attempts of a message of the next owner, want 1", n)
				}
				store.mu.Lock()
				defer store.mu.Unlock()
				if store.owner == first || store.inserted[len(store.inserted)-1] != store.owner {
					t.Errorf("owners = %q, now %q, want another than %q", store.inserted, store.owner, first)
				}
				if m := q.Message(id); tt.sent > 0 && m.Status() != queue.StatusDelivered {
					t.Errorf("status of what was delivered = %s", m.Status())
				}
			})
		})
	}
}

// TestCanceledElsewhere: what one instance has in memory, and another one is told to cancel, is not sent.
func TestCanceledElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memory.NewDatabase(lease)
		here, there := d.Open(memory.Options{}), d.Open(memory.Options{})
		t.Cleanup(func() { _, _ = here.Close(), there.Close() })
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), after: time.Minute}
		q := queuetest.Start(t, here, func(o *queue.Options) {
			relay.route(o)
			o.Workers = 1
		})
		for range 3 { // which keep the workers busy
			q.MustSubmit(queuetest.Submission("begun", "a@example.org"))
		}
		m := q.MustSubmit(queuetest.Submission("waits", "a@example.org")).Message
		queuetest.SettleDown()
		if _, err := there.Cancel(t.Context(), m.Key, "marks-other", []queue.Withdrawal{{ID: m.ID}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		q.WantStatus(m.ID, queue.StatusCanceled)
		if n := relay.Copies("waits", "a@example.org"); n > 0 {
			t.Errorf("%d copies were sent of what was canceled at another instance, want none", n)
		}
	})
}

// TestDeliveredLate: an instance that was suspended says that it has delivered what another one has taken over
// by then. That one, which finds no content any more, makes no attempt of it.
func TestDeliveredLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memory.NewDatabase(lease)
		var suspended atomic.Bool
		var log bytes.Buffer
		there := d.Open(memory.Options{Before: func(context.Context, string) error {
			if suspended.Load() {
				return queue.ErrUnavailable
			}
			return nil
		}})
		here := d.Open(memory.Options{})
		t.Cleanup(func() { _, _ = here.Close(), there.Close() })
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), after: time.Minute}
		q := queuetest.Start(t, here, func(o *queue.Options) {
			relay.route(o)
			o.Workers, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
		})
		const path = "a@example.org"
		e := queue.Entry{
			Message: queue.Message{ID: queue.NewID(time.Now()), Key: "app", Created: time.Now(), Expires: time.Now().Add(24 * time.Hour)},
			Content: mailer.Content{Data: []byte("other")}, Route: "relay", Due: time.Now(), Owner: "marks-there",
		}
		e.Message.Envelope.ForwardPaths = []string{path}
		e.Message.Recipients = []queue.Recipient{{ForwardPath: path, State: queue.Queued}}
		if err := there.Heartbeat(t.Context(), e.Owner, time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := there.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		for range 10 { // which keep the worker busy
			q.MustSubmit(queuetest.Submission("begun", path))
		}
		suspended.Store(true)
		time.Sleep(3 * lease / 2)
		suspended.Store(false)
		late := queue.Outcome{
			ID: e.Message.ID, Owner: e.Owner, At: time.Now(), Changes: []queue.Change{{ForwardPath: path, State: queue.Delivered, Tries: 1}},
			Attempts: []mailer.Attempt{{Relay: "relay", Started: time.Now().Add(-2 * lease), Results: []mailer.Result{{ForwardPath: path}}}},
		}
		if _, err := there.Record(t.Context(), []queue.Outcome{late}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		q.WantStatus(e.Message.ID, queue.StatusDelivered)
		if m := q.Message(e.Message.ID); len(m.Attempts) != 1 {
			t.Errorf("%d attempts %+v, want the late one alone", len(m.Attempts), m.Attempts)
		}
		if text := log.String(); strings.Contains(text, "could not be tried") || strings.Contains(text, "msg=bounced") {
			t.Errorf("the log tells of a failure:\n%s", text)
		}
	})
}

// TestLateBeats: while beats are not answered nothing is sent, though the lease is not lost; and all goes on
// as soon as they are, with the same owner. The relay is not in trouble, and no attempt is made of it.
func TestLateBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), between: 10 * time.Second}
		q := queuetest.Start(t, store, relay.route)
		id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
		time.Sleep(5 * time.Second)
		store.set(func() { store.late = true })
		before := store.Commits()
		owner := read(store, &store.owner)
		second := q.MustSubmit(queuetest.Submission("two", "a@example.org")).Message.ID
		time.Sleep(30 * time.Minute)
		if n := len(relay.Attempts()); n != 0 {
			t.Errorf("%d messages were sent by an owner that is not trusted, want none", n)
		}
		if n := store.Commits() - before; n > 30*6*3 {
			t.Errorf("%d commits in half an hour, want a few in each ten seconds", n)
		}
		if p := q.Pauses(); len(p) != 0 {
			t.Errorf("Pauses = %v, want none: the relay has no part in it", p)
		}
		store.set(func() { store.late = false })
		time.Sleep(30 * time.Second)
		for _, id := range []string{id, second} {
			if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 {
				t.Errorf("%d attempts, want 1", len(m.Attempts))
			}
		}
		if got := read(store, &store.owner); got != owner {
			t.Errorf("owner = %s, want %s: its lease was not lost", got, owner)
		}
	})
}

// TestReleasedIsNotSent: what an instance has asked to give back it does not send, though the answer was lost.
func TestReleasedIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), before: 10 * time.Second}
		q := queuetest.Start(t, store, relay.route)
		store.set(func() { store.noAnswer = true })
		q.MustSubmit(queuetest.Submission("one", "a@example.org"))
		time.Sleep(5 * time.Second)
		store.set(func() { store.late = true })
		time.Sleep(10 * time.Second) // it is released
		works := store.takeOver(t)
		if len(works) != 1 {
			t.Fatalf("the other instance got %d messages, want the one", len(works))
		}
		store.set(func() { store.late, store.noAnswer = false, false })
		time.Sleep(2 * lease)
		if n := len(relay.Attempts()); n != 0 {
			t.Errorf("%d copies were sent of what was given back, want none", n)
		}
	})
}

// TestDatabaseAwayLongerThanLease: outcomes of deliveries that ended while the database was away, for longer than the
// lease, are stored before the instance takes over from the owner that it was: nothing is
// uncertain, and nothing goes twice.
func TestDatabaseAwayLongerThanLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), after: 40 * time.Second}
		q := queuetest.Start(t, store, relay.route)
		id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
		time.Sleep(10 * time.Second)
		store.set(func() { store.away = true })
		time.Sleep(5 * lease)
		store.lose()
		store.set(func() { store.away = false })
		time.Sleep(2 * lease)
		if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 {
			t.Errorf("%d attempts, want the one", len(m.Attempts))
		}
		if got := relay.Copies("one", "a@example.org"); got != 1 {
			t.Errorf("%d copies were sent, want one", got)
		}
		// It is still being sent, too.
		id = q.MustSubmit(queuetest.Submission("still", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		store.lose()
		time.Sleep(2 * lease)
		if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 || relay.Copies("still", "a@example.org") != 1 {
			t.Errorf("%d attempts and %d copies, want one", len(m.Attempts), relay.Copies("still", "a@example.org"))
		}
		// What becomes of it counts, too, if it is not a delivery.
		relay.Set(queuetest.Greylisted)
		id = q.MustSubmit(queuetest.Submission("later", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		store.lose()
		time.Sleep(50 * time.Second)
		if m := q.WantStatus(id, queue.StatusDeferred); len(m.Attempts) != 1 || m.Recipients[0].Result.Reply.Code != 450 {
			t.Errorf("%d attempts, the last with %v, want the one with 450", len(m.Attempts), m.Recipients[0].Result)
		}
		if n := read(store, &store.crashes); n > 0 {
			t.Errorf("%d crashes were counted, want none: there was none", n)
		}
	})
}

// TestLeaseLostToNobody: what was stopped before the final dot is given back by the owner that had it. Nothing of
// it is uncertain: it goes out again at once.
func TestLeaseLostToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), between: 40 * time.Second}
		q := queuetest.Start(t, store, relay.route)
		id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		store.lose()
		time.Sleep(3 * lease)
		if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 {
			t.Errorf("%d attempts, want one", len(m.Attempts))
		}
	})
}

// losingStore says at once that a lease is lost.
type losingStore struct {
	*sharedStore
	lost chan struct{}
}

func (s *losingStore) Lost() <-chan struct{} { return s.lost }

// TestLeaseLostIsTold: an instance whose store says that its lease is lost has another one at once, and sends.
func TestLeaseLostIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &losingStore{newSharedStore(), make(chan struct{}, 1)}
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept)}
		q := queuetest.Start(t, store, relay.route)
		time.Sleep(time.Second)
		store.lose()
		store.lost <- struct{}{}
		time.Sleep(100 * time.Millisecond)
		id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
		time.Sleep(100 * time.Millisecond)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestLeaseLostBetweenRelays: the next relay of a route gets nothing either.
func TestLeaseLostBetweenRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		first, second := queuetest.NamedRelay("first", queuetest.Unreachable), queuetest.NamedRelay("second", queuetest.Accept)
		first.Slow(40*time.Second, 0)
		q := queuetest.Start(t, store, nil, first, second)
		id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		store.lose()
		store.takeOver(t)
		time.Sleep(2 * lease)
		if n := len(second.Attempts()); n != 0 {
			t.Errorf("the second relay was asked %d times for what another instance has, want never", n)
		}
		if leases, err := store.Leases(t.Context(), "marks-other"); err != nil || len(leases) != 1 || leases[0].ID != id {
			t.Errorf("leases of the other instance = %v, %v, want its one", leases, err)
		}
	})
}

// entry is a message as another instance stores it.
func entry(key, owner string) queue.Entry {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return queue.Entry{
		Message: queue.Message{
			ID: queue.NewID(now), Key: key, Sender: "shop@example.com", Size: 5, Created: now, Expires: now.Add(time.Hour),
			Envelope:   mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: []string{"a@example.org"}},
			Recipients: []queue.Recipient{{ForwardPath: "a@example.org", State: queue.Queued, NextAttempt: now}},
		},
		Content: mailer.Content{Data: []byte("other")}, Route: "relay", Owner: owner, Due: now,
	}
}

// TestSeesOthers: what another instance has stored, retried or given back is seen within a second or so, and the
// store is not looked at more often than that, nor as often while it fails. What others have stored counts, too.
func TestSeesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, store, nil, relay)
		store.set(func() { store.gone[""] = true })
		time.Sleep(10 * time.Minute)
		store.set(func() { store.looks = 0 })
		time.Sleep(time.Minute)
		if looks, polls := read(store, &store.looks), read(store, &store.polls); looks > 65 || polls > 0 {
			t.Errorf("%d looks and %d polls in an idle minute, want one look a second", looks, polls)
		}
		insert := func(e queue.Entry) string {
			t.Helper()
			if _, err := store.Store.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
				t.Fatal(err)
			}
			return e.Message.ID
		}
		first := insert(entry("app", ""))
		insert(entry("other key", ""))
		time.Sleep(1500 * time.Millisecond)
		if n := len(relay.Attempts()); n != 2 {
			t.Errorf("%d messages were sent of another instance's, want both", n)
		}
		q.WantStatus(first, queue.StatusDelivered)

		relay.Set(queuetest.Refused)
		again := q.MustSubmit(queuetest.Submission("again", "a@example.org")).Message.ID
		queuetest.SettleDown()
		q.WantStatus(again, queue.StatusFailed)
		relay.Set(queuetest.Accept)
		leased := insert(entry("app", "marks-other"))
		time.Sleep(time.Minute)
		if u := q.Usage(); u.Messages != 1 {
			t.Errorf("Usage = %+v, want the message of another instance", u)
		}
		if _, err := store.Retry(t.Context(), "app", []string{again}, time.Now()); err != nil {
			t.Fatal(err)
		}
		l := queue.Lease{ID: leased, Route: "relay", ForwardPaths: []string{"a@example.org"}}
		if err := store.Store.Release(t.Context(), "marks-other", time.Now(), []queue.Lease{l}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		q.WantStatus(again, queue.StatusDelivered)
		q.WantStatus(leased, queue.StatusDelivered)

		store.set(func() { store.away, store.looks = true, 0 })
		time.Sleep(time.Minute)
		if n := read(store, &store.looks); n > 20 {
			t.Errorf("%d looks in a minute without a database, want one in five seconds, and with each heartbeat", n)
		}
	})
}

// TestWaitsForAnother: a request that waits for a message which another instance sends is answered when that
// has tried it.
func TestWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		q := queuetest.Start(t, store, nil, queuetest.NewRelay(queuetest.Accept))
		store.set(func() { store.gone[""] = true })
		s := queuetest.Submission("one", "a@example.org")
		s.IdempotencyKey, s.Wait = "k", 20*time.Second
		e := entry("app", "marks-other")
		b := queue.Batch{Entries: []queue.Entry{e}, Idempotency: &queue.Idempotency{Key: "app", Name: "k", Expires: time.Now().Add(time.Hour)}}
		if _, err := store.Store.Insert(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, func() {
			_, err := store.Store.Record(context.Background(), []queue.Outcome{{
				ID: e.Message.ID, Owner: "marks-other", Route: "relay", At: time.Now(),
				Attempts: []mailer.Attempt{{Relay: "relay", Results: []mailer.Result{{ForwardPath: "a@example.org"}}}},
				Changes:  []queue.Change{{ForwardPath: "a@example.org", State: queue.Delivered}},
			}})
			if err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		r := q.MustSubmit(s)
		if took := time.Since(began); !r.Replayed || r.Message.Status() != queue.StatusDelivered || took < 3*time.Second || took > 3500*time.Millisecond {
			t.Errorf("answer after %v: replayed %v, %s, want delivered within half a second of 3s", took, r.Replayed, r.Message.Status())
		}
		store.set(func() { store.polls = 0 })
		time.Sleep(time.Minute)
		if n := read(store, &store.polls); n > 0 {
			t.Errorf("%d polls, though nobody waits", n)
		}
	})
}

// TestTakeOverLog: that leases cannot be taken over is logged at once, and then once a minute.
func TestTakeOverLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore()
		var log bytes.Buffer
		q := queuetest.Start(t, store, func(o *queue.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		queuetest.SettleDown()
		store.set(func() { store.away = true })
		time.Sleep(5*time.Minute - time.Second)
		store.set(func() { store.away = false })
		time.Sleep(time.Minute)
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "take over leases"); n != 5 {
			t.Errorf("logged %d times in 5 minutes, want 5:\n%s", n, &log)
		}
	})
}
