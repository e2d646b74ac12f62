package queue_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/queuetest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// mail is a message of the key with that priority. Its content names it.
func mail(key string, p mailer.Priority, name string) queue.Submission {
	s := queuetest.Submission(fmt.Sprintf("%s %1000s", name, ""), "a@example.org")
	s.Key, s.Envelope.Priority = key, p
	return s
}

// flood submits n messages like mail(key, p, key).
func flood(t *testing.T, q *queuetest.Queue, n int, key string, p mailer.Priority) {
	t.Helper()
	for n > 0 {
		subs := make([]queue.Submission, min(n, 100))
		for i := range subs {
			subs[i] = mail(key, p, key)
		}
		if _, err := q.SubmitBatch(t.Context(), subs); err != nil {
			t.Fatalf("SubmitBatch = %v", err)
		}
		n -= len(subs)
	}
}

// names are those of the messages that the relay has seen, in order.
func names(relay *queuetest.Relay) []string {
	var names []string
	for _, a := range relay.Attempts() {
		name, _, _ := strings.Cut(a.Content, " ")
		names = append(names, name)
	}
	return names
}

// since returns when the first message of that name began, after t; negative
// when none has.
func since(relay *queuetest.Relay, t time.Time, name string) time.Duration {
	if i := slices.Index(names(relay), name); i >= 0 {
		return relay.Attempts()[i].At.Sub(t)
	}
	return -1
}

// TestBacklogDelaysNobody: while a relay takes minutes for a message and a key's
// backlog has every worker, mail of another key, and more urgent mail of the
// same, sets out at once: wherever the backlog is.
func TestBacklogDelaysNobody(t *testing.T) {
	tests := []struct {
		name    string
		backlog mailer.Priority // of the key app
		key     string
		p       mailer.Priority
	}{
		{"another key", mailer.PriorityNormal, "other", mailer.PriorityNormal},
		{"another key behind bulk", mailer.PriorityBulk, "other", mailer.PriorityNormal},
		{"the same key behind bulk", mailer.PriorityBulk, "app", mailer.PriorityNormal},
		{"the same key in a hurry", mailer.PriorityNormal, "app", mailer.PriorityHigh},
	}
	for _, c := range tests {
		for place, memory := range map[string]int64{"memory": 1 << 20, "store": 20_000} {
			synctest.Test(t, func(t *testing.T) {
				relay := queuetest.NewRelay(queuetest.Accept)
				relay.Slow(5*time.Minute, 0)
				q := start(t, func(o *queue.Options) { o.MaxMemory = memory }, relay)
				flood(t, q, 100, "app", c.backlog)
				queuetest.SettleDown()
				if most := relay.Most(); most != 8 {
					t.Errorf("%s, in %s: %d of 8 workers busy, want all", c.name, place, most)
				}
				now := time.Now()
				q.MustSubmit(mail(c.key, c.p, "reset"))
				later := mail(c.key, c.p, "later") // comes from the store, whatever the memory
				later.SendAt = now.Add(7 * time.Minute)
				q.MustSubmit(later)
				time.Sleep(13 * time.Minute)
				if took := since(relay, now, "reset"); took < 0 || took > time.Second {
					t.Errorf("%s, backlog in %s: set out after %v, want at once", c.name, place, took)
				}
				if took := since(relay, later.SendAt, "later"); took < 0 || took > time.Second {
					t.Errorf("%s, backlog in %s: scheduled mail set out %v after its time, want then", c.name, place, took)
				}
			})
		}
	}
}

// TestBulkLeavesWorkers: bulk of many keys does not take what is kept for other
// mail, nor does one key's other mail.
func TestBulkLeavesWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(5*time.Minute, 0)
		q := start(t, nil, relay)
		for i := range 20 {
			flood(t, q, 5, fmt.Sprint("app", i), mailer.PriorityBulk)
		}
		queuetest.SettleDown()
		if most := relay.Most(); most != 8 {
			t.Errorf("bulk in flight = %d, want 8", most)
		}
		now := time.Now()
		q.MustSubmit(mail("app1", mailer.PriorityNormal, "reset"))
		queuetest.SettleDown()
		if took := since(relay, now, "reset"); took < 0 || took > time.Second {
			t.Errorf("mail beside bulk set out after %v, want at once", took)
		}
	})
}

// crowdedRelay can make use of so many deliveries at a time.
type crowdedRelay struct {
	*queuetest.Relay
	useful atomic.Int32
}

func (r *crowdedRelay) Useful() int { return int(r.useful.Load()) }

// TestNoMoreThanUseful: a backlog does not wait in line at a relay that gets few
// connections, and uses all that it gets later.
func TestNoMoreThanUseful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &crowdedRelay{Relay: queuetest.NewRelay(queuetest.Accept)}
		relay.Slow(time.Second, 0)
		relay.useful.Store(3)
		q := start(t, func(o *queue.Options) { o.Routes = queue.Routes{{Relay: relay}} })
		flood(t, q, 100, "app", mailer.PriorityNormal)
		time.Sleep(5500 * time.Millisecond)
		if most := relay.Most(); most != 3 {
			t.Errorf("deliveries at a time = %d, want 3", most)
		}
		now := time.Now()
		q.MustSubmit(mail("other", mailer.PriorityNormal, "reset"))
		queuetest.SettleDown()
		if took := since(relay.Relay, now, "reset"); took < 0 || took > time.Second {
			t.Errorf("another key's mail set out after %v, want at once", took)
		}
		time.Sleep(2 * time.Second)
		relay.useful.Store(100)
		time.Sleep(3 * time.Second)
		if most := relay.Most(); most != 8 {
			t.Errorf("deliveries at a time = %d later, want 8", most)
		}
	})
}

// TestKeysTakeTurns: of several backlogs each gets its share, message by message,
// also from the store and after a restart.
func TestKeysTakeTurns(t *testing.T) {
	for place, memory := range map[string]int64{"memory": 1 << 20, "store": 5000} {
		synctest.Test(t, func(t *testing.T) {
			edit := func(o *queue.Options) { o.MaxMemory, o.Workers = memory, 1 }
			relay := queuetest.NewRelay(queuetest.Accept)
			relay.Slow(time.Second, 0)
			q := start(t, edit, relay)
			flood(t, q, 300, "a", mailer.PriorityNormal)
			flood(t, q, 100, "b", mailer.PriorityNormal)
			flood(t, q, 100, "c", mailer.PriorityNormal)
			time.Sleep(time.Minute)
			wantTurns(t, "from "+place, names(relay)[5:])
			if err := q.End(); err != nil {
				t.Fatal(err)
			}
			relay = queuetest.NewRelay(queuetest.Accept)
			relay.Slow(time.Second, 0)
			q = restart(t, q, edit, relay)
			time.Sleep(time.Minute)
			wantTurns(t, "after a restart, from "+place, names(relay)[5:])
			relay.Slow(0, 0)
			time.Sleep(10 * time.Minute)
			if u := q.Usage(); u != (queue.Usage{}) {
				t.Errorf("Usage = %+v, want nothing", u)
			}
		})
	}
}

// wantTurns checks that the keys a, b and c have about a third each.
func wantTurns(t *testing.T, what string, names []string) {
	t.Helper()
	count := map[string]int{}
	for _, name := range names {
		count[name]++
	}
	for _, key := range []string{"a", "b", "c"} {
		if n, third := count[key], len(names)/3; n < third-3 || n > third+3 {
			t.Errorf("%s: %s had %d of %d turns, want about a third: %v", what, key, n, len(names), names)
		}
	}
}

// TestPriorities: the higher goes first, and yet the lower ones move on.
func TestPriorities(t *testing.T) {
	for place, memory := range map[string]int64{"memory": 1 << 20, "store": 20_000} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Accept)
			relay.Slow(time.Second, 0)
			q := start(t, func(o *queue.Options) { o.MaxMemory = memory }, relay)
			flood(t, q, 100, "bulk", mailer.PriorityBulk)
			flood(t, q, 100, "normal", mailer.PriorityNormal)
			flood(t, q, 180, "high", mailer.PriorityHigh)
			time.Sleep(20*time.Second - time.Millisecond)
			count := map[string]int{}
			for _, name := range names(relay)[20:] {
				count[name]++
			}
			if total := len(names(relay)) - 20; count["high"] < total/2 || count["normal"] < total/12 || count["bulk"] < total/12 {
				t.Errorf("from %s: turns = %v, want over half for high, and a share for each of the others", place, count)
			}
			time.Sleep(10 * time.Minute)
			if u := q.Usage(); u != (queue.Usage{}) {
				t.Errorf("from %s: Usage = %+v, want nothing", place, u)
			}
		})
	}
}

// TestFairAfterAPause: when a relay is back, a backlog that waited for it does
// not go before the rest.
func TestFairAfterAPause(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Unreachable)
			q := start(t, nil, relay)
			flood(t, q, 100, "app", mailer.PriorityNormal)
			flood(t, q, 100, "app", mailer.PriorityBulk)
			time.Sleep(time.Minute)
			q.MustSubmit(mail("other", mailer.PriorityNormal, "reset"))
			q.MustSubmit(mail("app", mailer.PriorityHigh, "urgent"))
			time.Sleep(time.Hour)
			if again {
				if err := q.End(); err != nil {
					t.Fatal(err)
				}
			}
			relay.Set(queuetest.Accept)
			relay.Slow(time.Second, 0)
			before := len(relay.Attempts())
			if again {
				restart(t, q, nil, relay)
			}
			time.Sleep(10 * time.Minute)
			names := names(relay)[before:]
			for _, name := range []string{"reset", "urgent"} {
				if at := slices.Index(names, name); at < 0 || at > 8 {
					t.Errorf("restart %v: %s was number %d after the pause, want one of the first", again, name, at)
				}
			}
		})
	}
}

// TestProbesTakeTurns: a message that makes the relay hang up is not the probe
// for ever, however urgent it is.
func TestProbesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			if path == "poison@example.org" {
				return queuetest.Unreachable(n, path)
			}
			return nil
		})
		q := start(t, nil, relay)
		poison := mail("app", mailer.PriorityHigh, "poison")
		poison.Envelope.ForwardPaths = []string{"poison@example.org"}
		q.MustSubmit(poison)
		queuetest.SettleDown()
		flood(t, q, 10, "app", mailer.PriorityNormal)
		time.Sleep(time.Hour)
		if u := q.Usage(); u.Messages != 1 {
			t.Errorf("Usage = %+v, want only the message that cannot be sent", u)
		}
	})
}

// ratedRelay gives a turn every ten seconds to the most urgent message that
// waits for one, and sends away those whose turn is over a minute off, as
// mailer.Relay does.
type ratedRelay struct {
	*queuetest.Relay
	mu   sync.Mutex
	next time.Time
	line []mailer.Priority
}

const ratedTurn = 10 * time.Second

func (r *ratedRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if failure := r.turn(env.Priority); failure != nil {
		a := mailer.Attempt{Relay: r.Name(), Started: time.Now()}
		for _, path := range env.ForwardPaths {
			a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: failure})
		}
		return a
	}
	return r.Relay.Deliver(ctx, env, c)
}

func (r *ratedRelay) turn(p mailer.Priority) *mailer.Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	ahead := 0
	for _, other := range r.line {
		if other >= p {
			ahead++
		}
	}
	now := time.Now()
	if at := r.next.Add(time.Duration(ahead) * ratedTurn); at.After(now.Add(time.Minute)) {
		return queuetest.RateUsedUp(r.Name(), at)
	}
	r.line = append(r.line, p)
	for r.next.After(now) || slices.Max(r.line) > p {
		r.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		r.mu.Lock()
		now = time.Now()
	}
	r.next = now.Add(ratedTurn)
	i := slices.Index(r.line, p)
	r.line = slices.Delete(r.line, i, i+1)
	return nil
}

// TestRateIsForTheUrgent: where a relay's rate is the bottleneck, and used up
// for bulk for a minute to come, other mail has the next turn.
func TestRateIsForTheUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := &ratedRelay{Relay: queuetest.NewRelay(queuetest.Accept)}
		q := start(t, func(o *queue.Options) { o.Routes = queue.Routes{{Relay: relay}} })
		flood(t, q, 100, "app", mailer.PriorityBulk)
		time.Sleep(5 * time.Minute)
		for i, c := range []struct {
			key string
			p   mailer.Priority
		}{{"other", mailer.PriorityNormal}, {"app", mailer.PriorityNormal}, {"app", mailer.PriorityHigh}} {
			now, name := time.Now(), fmt.Sprint("reset", i)
			q.MustSubmit(mail(c.key, c.p, name))
			time.Sleep(100 * time.Second)
			if took := since(relay.Relay, now, name); took < 0 || took > ratedTurn+time.Second {
				t.Errorf("%v of %s set out after %v, want with the next turn", c.p, c.key, took)
			}
		}
		// No turn is lost.
		if n := len(relay.Attempts()); n < 58 {
			t.Errorf("attempts in ten minutes = %d, want about 60", n)
		}
	})
}

// TestMemoryForOthers: a lane's first message has room in memory where others
// fill it, though not without bound.
func TestMemoryForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Minute, 0)
		q := start(t, func(o *queue.Options) { o.MaxMemory, o.Workers = 20_000, 1 }, relay)
		flood(t, q, 50, "app", mailer.PriorityNormal)
		for i := range 10 {
			synctest.Wait() // what was stored before is in its place
			l := q.Load()
			before := l.Waiting + l.InFlight
			flood(t, q, 1, fmt.Sprint("other", i), mailer.PriorityNormal)
			l = q.Load()
			if inMemory := l.Waiting + l.InFlight - before; i == 1 && inMemory != 1 {
				t.Error("the first message of a lane is not in memory, want it there")
			}
			if l.Fresh > 25_000 || l.Loaded > 25_000 {
				t.Errorf("memory = %d + %d, want at most a quarter over 20000", l.Fresh, l.Loaded)
			}
		}
	})
}

// TestLargeIsNotStarved: a message that needs most of the memory gets it,
// although small ones of other keys could fill it for ever.
func TestLargeIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		relay.Slow(0, 100*time.Millisecond)
		q := start(t, func(o *queue.Options) { o.MaxMemory, o.Workers = 20_000, 6 }, relay)
		flood(t, q, 1, "b", mailer.PriorityNormal)
		queuetest.SettleDown() // paused: all that follows waits in the store
		relay.Set(queuetest.Accept)
		relay.Slow(time.Second, 0)
		flood(t, q, 150, "b", mailer.PriorityNormal)
		flood(t, q, 150, "c", mailer.PriorityNormal)
		large := mail("a", mailer.PriorityNormal, "large")
		large.Content.Data = append(large.Content.Data, make([]byte, 50_000)...)
		large.SendAt = time.Now().Add(10 * time.Second) // the workers are busy then
		q.MustSubmit(large)
		time.Sleep(5 * time.Minute)
		if at := slices.Index(names(relay), "large"); at < 20 || at > 100 {
			t.Errorf("the large message was number %d of %d, want it in the middle of them", at, len(names(relay)))
		}
		if u := q.Usage(); u != (queue.Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
	})
}

// TestLanesAtRandom: whatever is submitted by whom, and however the relay fares,
// every message goes out once, and the accounts end as they began.
func TestLanesAtRandom(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			relay := queuetest.NewRelay(queuetest.Accept)
			relay.Slow(20*time.Millisecond, 10*time.Millisecond)
			q := start(t, func(o *queue.Options) { o.MaxMemory, o.Workers = 20_000, 1+random.IntN(8) }, relay)
			const n = 80
			for i := range n {
				s := mail(fmt.Sprint("app", random.IntN(4)), mailer.Priority(random.IntN(3)-1), fmt.Sprint(i))
				s.Content.Data = append(s.Content.Data, make([]byte, random.IntN(4)*random.IntN(6000))...)
				q.MustSubmit(s)
				switch random.IntN(10) {
				case 0:
					relay.Set([]queuetest.Verdict{queuetest.Unreachable, queuetest.Greylisted, queuetest.Accept}[random.IntN(3)])
				case 1, 2, 3:
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				}
			}
			relay.Set(queuetest.Accept)
			time.Sleep(time.Hour)
			if u := q.Usage(); u != (queue.Usage{}) || len(relay.Deliveries()) != n {
				t.Errorf("seed %d: Usage = %+v, delivered %d, want nothing, %d", seed, u, len(relay.Deliveries()), n)
			}
			for content, copies := range relay.Deliveries() {
				if copies != 1 {
					t.Errorf("seed %d: %.4s delivered %d times, want once", seed, content, copies)
				}
			}
			if l := q.Load(); l != (queue.Load{}) {
				t.Errorf("seed %d: load = %+v, want none", seed, l)
			}
		})
	}
}

// TestConversionCounts: a message that a relay may need in another form counts with
// that, whether it comes with its content or from the store.
func TestConversionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(time.Minute, 0)
		q := start(t, func(o *queue.Options) { o.MaxMemory, o.Workers = 100_000, 8 }, relay)
		for range 40 {
			s := queuetest.Submission(strings.Repeat("x", 10_000), "a@example.org")
			s.Content.EightBit = true
			q.MustSubmit(s)
		}
		time.Sleep(time.Second)
		if l := q.Load(); l.InFlight < 4 || relay.Most() > 5 {
			t.Errorf("of 8-bit messages of 10 kB in 100 kB %d are tried at a time, want two with their content, and two or three from the store", relay.Most())
		}
	})
}
