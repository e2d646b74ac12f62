package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
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

// service is a process that can be killed: a queue on a store that outlives it.
type service struct {
	t     *testing.T
	store *memory.Store
	q     *queuetest.Queue
	edit  func(*queue.Options)
	log   bytes.Buffer
	relay deadlyRelay

	mu   sync.Mutex
	dead chan struct{} // closed when the run was killed
}

func newService(t *testing.T, edit func(*queue.Options)) *service {
	s := &service{t: t, store: memory.New(memory.Options{}), edit: edit}
	s.relay = deadlyRelay{queuetest.NewRelay(queuetest.Accept), s}
	return s
}

// begin starts the service.
func (s *service) begin() {
	s.mu.Lock()
	s.dead = make(chan struct{})
	store := s.store
	s.mu.Unlock()
	s.q = queuetest.Start(s.t, store, func(o *queue.Options) {
		o.Routes, o.StopTimeout = queue.Routes{{Relay: s.relay}}, time.Nanosecond
		o.Logger = slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelError}))
		if s.edit != nil {
			s.edit(o)
		}
	})
}

// kill is kill -9: what the run does from now on changes nothing in the store.
func (s *service) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.dead:
	default:
		s.store = s.store.Reopen()
		close(s.dead)
	}
}

// survive lets the service run for so long, and says whether it was killed before.
func (s *service) survive(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.dead:
		_ = s.q.End()
		return false
	}
}

// deadlyRelay kills the service with a message whose content begins with "poison".
type deadlyRelay struct {
	*queuetest.Relay
	service *service
}

func (r deadlyRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if strings.HasPrefix(string(c.Data), "poison") {
		r.service.kill()
		<-ctx.Done()
	}
	return r.Relay.Deliver(ctx, env, c)
}

// TestPoison: messages that bring the service down are held, after two crashes with each
// of them alone in hand. All others go out, and an operator is told.
func TestPoison(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(t, func(o *queue.Options) { o.HoldUncertain = hold })
			s.relay.Slow(50*time.Millisecond, 10*time.Millisecond)
			s.begin()
			var good, bad []string
			for i := range 40 {
				data := fmt.Sprint("good ", i)
				if i == 7 || i == 20 {
					data = fmt.Sprint("poison ", i)
				}
				r, err := s.q.Submit(t.Context(), queuetest.Submission(data, "a@example.org"))
				switch {
				case err != nil:
				case strings.HasPrefix(data, "poison"):
					bad = append(bad, r.Message.ID)
				default:
					good = append(good, r.Message.ID)
				}
				if !s.survive(time.Millisecond) {
					s.begin()
				}
			}
			crashes := 1
			for ; crashes < 20 && !s.survive(time.Hour); crashes++ {
				s.begin()
				if !hold {
					continue
				}
				// What was being sent at the first crash, beside the poison, is held for
				// another reason, and a person lets it go.
				for _, id := range good {
					_, _ = s.q.Retry(t.Context(), "app", id)
				}
			}
			if crashes > 8 {
				t.Errorf("hold %v: %d crashes, want 8 at most", hold, crashes)
			}
			for _, id := range good {
				s.q.WantStatus(id, queue.StatusDelivered)
			}
			if blamed := s.q.Trouble().Blamed; !hold && (len(blamed) == 0 || !slices.Contains(bad, blamed[0])) {
				t.Errorf("Trouble after the last start = %q, want a message of %q", blamed, bad)
			}
			for _, id := range bad {
				m := s.q.WantStatus(id, queue.StatusHeld)
				if hold {
					continue // as what may have been sent, after the first crash
				}
				if f := m.Recipients[0].Result.Failure; f == nil || !strings.Contains(f.Text, "crashed repeatedly") {
					t.Errorf("hold %v: result = %+v, want why it is held", hold, f)
				}
				if !strings.Contains(s.log.String(), `msg="message held because the service crashed with it" id=`+id) {
					t.Errorf("hold %v: no ERROR names %s: %s", hold, id, s.log.String())
				}
			}
		})
	}
}

// TestKills: the service is killed at random, fifty times. No message is held for it.
func TestKills(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := newService(t, nil)
			s.relay.Slow(20*time.Millisecond, 10*time.Millisecond)
			var ids []string
			for range 50 {
				s.begin()
				alive := time.Duration(300+random.IntN(20_000)) * time.Millisecond
				for killed := time.Now().Add(alive); time.Now().Before(killed); time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) {
					for range random.IntN(4) {
						ids = append(ids, s.q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID)
					}
				}
				s.kill()
				_ = s.q.End()
			}
			s.begin()
			time.Sleep(time.Hour)
			for _, id := range ids {
				s.q.WantStatus(id, queue.StatusDelivered)
			}
			if log := s.log.String(); strings.Contains(log, "held") {
				t.Errorf("seed %d: a message was held: %s", seed, log)
			}
		})
	}
}

// TestSuspectsInTurn: what may make the service crash goes out alone, though some of it
// hangs, and new mail waits for it only shortly.
func TestSuspectsInTurn(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(t, nil)
			relay := &suspectRelay{deadlyRelay: s.relay, hangs: hangs}
			s.edit = func(o *queue.Options) { o.Routes = queue.Routes{{Relay: relay}} }
			s.relay.Slow(time.Hour, 0)
			for run := range 2 { // two crashes with all in hand
				s.begin()
				for i := range 20 * (1 - run) {
					s.q.MustSubmit(queuetest.Submission(fmt.Sprint("suspect ", i), "a@example.org"))
				}
				time.Sleep(time.Second)
				s.kill()
				_ = s.q.End()
			}
			s.relay.Slow(time.Second, 0)
			relay.watching.Store(true)
			s.begin()
			limit := 5 * time.Second
			if hangs {
				limit = 25 * time.Second
			}
			for i := range 60 {
				sub := queuetest.Submission(fmt.Sprint("fresh ", i), "a@example.org")
				sub.Wait = time.Minute
				began := time.Now()
				if m := s.q.MustSubmit(sub).Message; m.Status() != queue.StatusDelivered || time.Since(began) > limit {
					t.Errorf("hangs %v: message %d is %s after %v, want delivered after %v at most", hangs, i, m.Status(), time.Since(began), limit)
				}
			}
			time.Sleep(30 * time.Minute)
			if u := s.q.Usage(); u != (queue.Usage{}) {
				t.Errorf("hangs %v: Usage = %+v, want nothing", hangs, u)
			}
			relay.mu.Lock()
			defer relay.mu.Unlock()
			if relay.beside > 0 {
				t.Errorf("hangs %v: %d deliveries began beside a suspect", hangs, relay.beside)
			}
		})
	}
}

// TestSuspectNotUnmarked: others go on beside a suspect that hangs, though the store fails
// when its mark is taken away.
func TestSuspectNotUnmarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, nil)
		calls := 0
		s.store = memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if method == "MarkAlone" {
				if calls++; calls == 2 {
					return queue.ErrDiskFull
				}
			}
			return nil
		}})
		relay := &suspectRelay{deadlyRelay: s.relay, hangs: true}
		s.edit = func(o *queue.Options) { o.Routes = queue.Routes{{Relay: relay}} }
		s.relay.Slow(time.Hour, 0)
		for run := range 2 {
			s.begin()
			if run == 1 {
				s.q.MustSubmit(queuetest.Submission("suspect 3", "a@example.org"))
			}
			time.Sleep(time.Second)
			s.kill()
			_ = s.q.End()
		}
		s.relay.Slow(time.Second, 0)
		relay.watching.Store(true)
		s.begin()
		time.Sleep(time.Second)
		id := s.q.MustSubmit(queuetest.Submission("fresh", "a@example.org")).Message.ID
		time.Sleep(25 * time.Second)
		s.q.WantStatus(id, queue.StatusDelivered)
		time.Sleep(time.Hour)
	})
}

// suspectRelay counts what begins while a suspect has been in flight for less than ten
// seconds.
type suspectRelay struct {
	deadlyRelay
	hangs    bool
	watching atomic.Bool
	mu       sync.Mutex
	suspect  time.Time // when the one in flight began; zero: none is
	beside   int
}

func (r *suspectRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if !r.watching.Load() {
		return r.deadlyRelay.Deliver(ctx, env, c)
	}
	suspect := strings.HasPrefix(string(c.Data), "suspect")
	r.mu.Lock()
	if !r.suspect.IsZero() && time.Since(r.suspect) < 10*time.Second {
		r.beside++
	}
	if suspect {
		r.suspect = time.Now()
	}
	r.mu.Unlock()
	if suspect && r.hangs && strings.HasSuffix(string(c.Data), "3") {
		time.Sleep(9 * time.Minute)
	}
	a := r.deadlyRelay.Deliver(ctx, env, c)
	if suspect {
		r.mu.Lock()
		r.suspect = time.Time{}
		r.mu.Unlock()
	}
	return a
}
