package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// TestRecordInPlace gives the same random outcomes to two stores: one may change
// a message's first recipient by its key, the other is kept from it by a change
// that matches nobody. Their stories must be equal.
func TestRecordInPlace(t *testing.T) {
	const paths = 3
	random := rand.New(rand.NewPCG(1, 2))
	var stores [2]*Store
	for i := range stores {
		stores[i] = openUnsynced(t, dbPath(t))
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	for range 40 {
		e := randomEntry(random.IntN(paths), now)
		for _, s := range stores {
			if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
				t.Fatal(err)
			}
		}
		for range 1 + random.IntN(3) {
			now = now.Add(time.Second)
			o := randomOutcome(random, e, now)
			cancel := random.IntN(4) == 0
			slow := o
			slow.Changes = append([]queue.Change{{ForwardPath: "nobody@example.org", State: queue.Delivered}}, o.Changes...)
			first, second := recordStory(t, stores[0], e, o, cancel), recordStory(t, stores[1], e, slow, cancel)
			if !reflect.DeepEqual(first, second) {
				t.Fatalf("Record(%+v) = \n%+v, want\n%+v", o, first, second)
			}
		}
	}
}

func randomEntry(others int, now time.Time) queue.Entry {
	e := queue.Entry{
		Message: queue.Message{ID: queue.NewID(now), Key: "app", Created: now, Expires: now.Add(time.Hour), Size: 3},
		Content: mailer.Content{Data: []byte("abc")}, Route: "relay", Owner: "me", Due: now,
	}
	for n := range 1 + others {
		e.Message.Envelope.ForwardPaths = append(e.Message.Envelope.ForwardPaths, fmt.Sprintf("to%d@example.org", n))
	}
	return e
}

// randomOutcome decides on some recipients of e. One in four has lost its lease.
func randomOutcome(random *rand.Rand, e queue.Entry, now time.Time) queue.Outcome {
	o := queue.Outcome{ID: e.Message.ID, Owner: "me", Route: "relay", At: now}
	if random.IntN(4) == 0 {
		o.Owner = "lost"
	}
	a := mailer.Attempt{Relay: "relay", Started: now}
	states := []queue.State{queue.Delivered, queue.Delivered, queue.Delivered, queue.Deferred, queue.Queued, queue.Bounced, queue.Expired, queue.Held}
	for _, path := range e.Message.Envelope.ForwardPaths {
		if random.IntN(4) == 0 {
			continue
		}
		o.Changes = append(o.Changes, queue.Change{ForwardPath: path, State: states[random.IntN(len(states))], Next: now.Add(time.Minute), Tries: random.IntN(3)})
		a.Results = append(a.Results, mailer.Result{ForwardPath: path, Reply: mailer.Reply{Code: 250 + random.IntN(3)}})
	}
	if len(a.Results) > 0 {
		o.Attempts = []mailer.Attempt{a}
	}
	return o
}

// story is all that a store tells of a message, and what recording it returned.
type story struct {
	Message queue.Message
	Status  int // how many are listed under the message's own status
	Settled queue.Settled
	Usage   queue.Usage
	Gone    bool
	Chunks  int
}

// recordStory leases what waits anew, perhaps asks for it to be canceled, and
// records.
func recordStory(t *testing.T, s *Store, e queue.Entry, o queue.Outcome, cancel bool) story {
	t.Helper()
	ctx := t.Context()
	id, _ := blob(e.Message.ID)
	err := s.write(ctx, func(w *writer) error {
		return w.exec(`UPDATE recipients SET owner = 'me' WHERE message = ? AND state IN ('queued', 'deferred')`, id)
	})
	if err == nil && cancel {
		_, err = s.Cancel(ctx, queue.AnyKey, "me", []queue.Withdrawal{{ID: e.Message.ID}}, o.At)
	}
	if err != nil {
		t.Fatal(err)
	}
	var tale story
	if tale.Settled, err = s.Record(ctx, []queue.Outcome{o}); err != nil {
		t.Fatal(err)
	}
	if tale.Message, err = s.Get(ctx, queue.AnyKey, e.Message.ID); err != nil {
		t.Fatal(err)
	}
	page, err := s.List(ctx, queue.Filter{Key: queue.AnyKey, Status: tale.Message.Status()}, 1000, "")
	if err != nil {
		t.Fatal(err)
	}
	tale.Status = len(page.Messages)
	if tale.Usage, err = s.Usage(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = s.Content(ctx, queue.AnyKey, e.Message.ID)
	tale.Gone = errors.Is(err, queue.ErrContentGone)
	err = s.view(ctx, func(v *session) error { return v.row(`SELECT count(*) FROM contents`, nil, &tale.Chunks) })
	if want := countUsage(t, s); tale.Usage != want {
		t.Fatalf("Usage after %+v = %+v, want %+v", o, tale.Usage, want)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tale
}
