package queue_test

import (
	"context"
	"errors"
	"slices"
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

// slowMeter notes what it is told, and takes its time.
type slowMeter struct {
	queue.Meter
	mu                     sync.Mutex
	accepted, ended, tried int
	refused                []error
}

func (m *slowMeter) add(to *int, n int) {
	time.Sleep(time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	*to += n
}

func (m *slowMeter) Accepted(string, string, mailer.Priority) { m.add(&m.accepted, 1) }

func (m *slowMeter) Ended(queue.State, mailer.Priority, time.Duration) { m.add(&m.ended, 1) }

func (m *slowMeter) Tried(attempts []mailer.Attempt) {
	for _, a := range attempts {
		m.add(&m.tried, len(a.Results))
	}
}

func (m *slowMeter) Refused(why error) {
	m.add(new(int), 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = append(m.refused, why)
}

func (m *slowMeter) counted() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return []int{m.accepted, m.tried, m.ended}
}

// TestCountedBeforeAnswer: a request that waits is answered once the attempt is counted, so
// that whoever reads the numbers then finds it there.
func TestCountedBeforeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(slowMeter)
		q := start(t, func(o *queue.Options) { o.Meter = m }, queuetest.NewRelay(queuetest.Accept))
		s := queuetest.Submission("shop", "a@example.org")
		s.Wait = time.Minute
		if r, err := q.Submit(t.Context(), s); err != nil || r.Message.Status() != queue.StatusDelivered {
			t.Fatalf("Submit = %+v, %v; want it delivered", r.Message, err)
		}
		if got := m.counted(); !slices.Equal(got, []int{1, 1, 1}) {
			t.Errorf("accepted, tried, ended = %v with the answer, want 1 of each", got)
		}
	})
}

// TestRefusalsCount: new mail that finds no room or a faulty store counts as refused. A look-up that
// fails does not, nor does what is wrong with the mail.
func TestRefusalsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var faulty atomic.Bool
		m, why := new(slowMeter), &queue.StoreError{Path: "queue.db", Err: errors.New("broken")}
		store := memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if faulty.Load() && (method == "Insert" || method == "Get") {
				return why
			}
			return nil
		}})
		q := queuetest.Start(t, store, func(o *queue.Options) { o.Meter, o.MaxMessages = m, 1 }, queuetest.NewRelay(queuetest.Greylisted))
		faulty.Store(true)
		if _, err := q.Get(t.Context(), queue.AnyKey, "x"); !errors.Is(err, why) {
			t.Fatalf("Get = %v, want %v", err, why)
		}
		if len(m.refused) > 0 {
			t.Errorf("a look-up counts: %v", m.refused)
		}
		if _, err := q.Submit(t.Context(), queuetest.Submission("x", "a@example.org")); !errors.Is(err, why) {
			t.Fatalf("Submit = %v, want %v", err, why)
		}
		faulty.Store(false)
		q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		if _, err := q.Submit(t.Context(), queuetest.Submission("x", "a@example.org")); !errors.Is(err, queue.ErrFull) {
			t.Fatalf("Submit = %v, want ErrFull", err)
		}
		if len(m.refused) != 2 || !errors.Is(m.refused[0], why) || !errors.Is(m.refused[1], queue.ErrFull) {
			t.Errorf("refused = %v, want the faulty store and the full queue", m.refused)
		}
	})
}

// TestDirectCountsAttemptsOnly: without a queue, what is answered for a relay that is left
// alone counts neither as an attempt nor as its reply.
func TestDirectCountsAttemptsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(slowMeter)
		d := queue.NewDirect(queue.Routes{{Relay: queuetest.NamedRelay("first", usedUp(2*time.Hour))}}, nil)
		d.Count(m)
		for n := range 5 {
			_ = tryDirect(t, d, n)
		}
		if got := m.counted(); !slices.Equal(got, []int{0, 1, 0}) {
			t.Errorf("accepted, tried, ended = %v after 5 messages of which the first alone reached the relay, want 0, 1, 0", got)
		}
	})
}
