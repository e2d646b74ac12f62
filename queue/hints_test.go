package queue_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// tellingStore is a shared store whose other instances are the test.
type tellingStore struct {
	*sharedStore
	hear chan queue.Hint

	mu   sync.Mutex
	told []queue.Hint
}

var _ queue.TellingStore = (*tellingStore)(nil)

func (s *tellingStore) Hears() bool { return true }

func (s *tellingStore) Tell(_ context.Context, h queue.Hint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, h)
	return nil
}

func (s *tellingStore) Hear(ctx context.Context, f func(queue.Hint)) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-s.hear:
			f(h)
		}
	}
}

// has says whether that was told.
func (s *tellingStore) has(kind queue.HintKind, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.told, func(h queue.Hint) bool { return h.Kind == kind && slices.Contains(h.IDs, id) })
}

// TestHints: an instance tells of an attempt only those who wait for it, and gives back what
// another one was told to cancel.
func TestHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tellingStore{sharedStore: newSharedStore(), hear: make(chan queue.Hint)}
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept), after: 10 * time.Second}
		q := queuetest.Start(t, s, func(o *queue.Options) {
			relay.route(o)
			o.Workers = 1
		})
		awaited := q.MustSubmit(queuetest.Submission("awaited", "a@example.org")).Message.ID
		other := q.MustSubmit(queuetest.Submission("other", "a@example.org")).Message.ID
		var more []string
		for range 3 { // as many as there are workers for mail that is alone in its lane
			more = append(more, q.MustSubmit(queuetest.Submission("more", "a@example.org")).Message.ID)
		}
		canceled := more[2]
		queuetest.SettleDown()
		s.hear <- queue.Hint{Kind: queue.HintWaited, IDs: []string{awaited, queue.NewID(time.Now())}}
		// Another instance cancels what waits here in memory.
		if ended, err := s.Cancel(t.Context(), queue.AnyKey, "another", []queue.Withdrawal{{ID: canceled}}, time.Now()); err != nil || len(ended) != 1 || ended[0].Final {
			t.Fatalf("Cancel = %v, %v, want the message, not final yet", ended, err)
		}
		s.hear <- queue.Hint{Kind: queue.HintCanceled, IDs: []string{canceled}}
		queuetest.SettleDown()
		q.WantStatus(canceled, queue.StatusCanceled)
		time.Sleep(time.Minute)
		if !s.has(queue.HintTried, awaited) {
			t.Error("nobody is told of the attempt that another instance waits for")
		}
		if s.has(queue.HintTried, other) {
			t.Error("the others are told of an attempt that nobody waits for")
		}
		if got := relay.Copies("more", "a@example.org"); got != 2 {
			t.Errorf("%d copies went out of three messages of which one was canceled, want 2", got)
		}
		if s.has(queue.HintWaited, awaited) || s.has(queue.HintCanceled, canceled) {
			t.Error("an instance tells what it was told")
		}
	})
}

// TestHintsOfRequests: what a request waits for that another instance has, and what one cancels
// there, the others are told.
func TestHintsOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tellingStore{sharedStore: newSharedStore(), hear: make(chan queue.Hint)}
		relay := askingRelay{Relay: queuetest.NewRelay(queuetest.Accept)}
		q := queuetest.Start(t, s, relay.route)
		queuetest.SettleDown()
		now := time.Now()
		m := queuetest.Submission("elsewhere", "a@example.org")
		e := queue.Entry{
			Message: queue.Message{ID: queue.NewID(now), Key: m.Key, Sender: m.Sender, Envelope: m.Envelope, Created: now, Expires: now.Add(time.Hour)},
			Content: m.Content, Route: "relay", Owner: "another", Due: now,
		}
		i := queue.Idempotency{Key: m.Key, Name: "order", Expires: now.Add(queue.IdempotencyLife)}
		if _, err := s.Store.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}, Idempotency: &i}); err != nil {
			t.Fatal(err)
		}
		m.IdempotencyKey, m.Wait = "order", 20*time.Second
		answered := make(chan time.Duration)
		go func() {
			began := time.Now()
			if r := q.MustSubmit(m); !r.Replayed || r.Message.ID != e.Message.ID {
				t.Errorf("the repeated request is answered with %v", r.Message.ID)
			}
			answered <- time.Since(began)
		}()
		time.Sleep(time.Second)
		if !s.has(queue.HintWaited, e.Message.ID) {
			t.Error("nobody is told that a request waits")
		}
		s.hear <- queue.Hint{Kind: queue.HintTried, IDs: []string{e.Message.ID}}
		if took := <-answered; took > time.Second {
			t.Errorf("answered %v after the request, want at once when another instance tells", took)
		}
		if _, err := q.Cancel(t.Context(), queue.AnyKey, e.Message.ID); err != nil {
			t.Fatal(err)
		}
		queuetest.SettleDown()
		if !s.has(queue.HintCanceled, e.Message.ID) {
			t.Error("nobody is told of the cancel")
		}
	})
}
