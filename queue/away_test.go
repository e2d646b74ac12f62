package queue_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// unmarkedStore loses the answers to marks while the database is away.
type unmarkedStore struct {
	*sharedStore
	lost atomic.Bool
}

func (s *unmarkedStore) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	err := s.sharedStore.Mark(ctx, owner, l, turns)
	if s.lost.Load() {
		return queue.ErrUnavailable
	}
	return err
}

// TestMarkWithoutAnswer: a message that was not sent because the database was away goes out when it is back, and not
// as late as one that a relay has deferred.
func TestMarkWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &unmarkedStore{sharedStore: newSharedStore()}
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, s, askingRelay{Relay: relay}.route)
		queuetest.SettleDown()
		s.lost.Store(true)
		s.set(func() { s.away = true })
		id := q.MustSubmit(queuetest.Submission("one", "a@example.org")).Message.ID
		time.Sleep(10 * time.Second)
		s.lost.Store(false)
		s.set(func() { s.away = false })
		time.Sleep(5 * time.Second)
		if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 || relay.Copies("one", "a@example.org") != 1 {
			t.Errorf("%d attempts and %d copies, want one", len(m.Attempts), relay.Copies("one", "a@example.org"))
		}
	})
}
