package queue

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

	"mailsidecar/mailer"
)

// mail is a message of the key with that priority. Its content names it.
func mail(key string, p mailer.Priority, name string) Submission {
	s := submission(fmt.Sprintf("%s %1000s", name, ""), "a@example.org")
	s.Key, s.Envelope.Priority = key, p
	return s
}

// flood submits n messages like mail(key, p, key).
func (r *testQueue) flood(n int, key string, p mailer.Priority) {
	r.t.Helper()
	for n > 0 {
		subs := make([]Submission, min(n, 100))
		for i := range subs {
			subs[i] = mail(key, p, key)
		}
		if _, err := r.SubmitBatch(r.t.Context(), subs); err != nil {
			r.t.Fatalf("SubmitBatch = %v", err)
		}
		n -= len(subs)
	}
}

// names are those of the messages that the relay has seen, in order.
func (f *fakeRelay) names() []string {
	var names []string
	for _, a := range f.seen() {
		name, _, _ := strings.Cut(a.data, " ")
		names = append(names, name)
	}
	return names
}

// since returns when the first message of that name began, after t; negative
// when none has.
func (f *fakeRelay) since(t time.Time, name string) time.Duration {
	if i := slices.Index(f.names(), name); i >= 0 {
		return f.seen()[i].at.Sub(t)
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
				relay := newFakeRelay(accept)
				relay.slow(5*time.Minute, 0)
				q := start(t, dbPath(t), func(o *Options) { o.MaxMemory = memory }, relay)
				q.flood(100, "app", c.backlog)
				settleDown()
				if relay.most() != q.opts.Workers {
					t.Errorf("%s, in %s: %d of %d workers busy, want all", c.name, place, relay.most(), q.opts.Workers)
				}
				now := time.Now()
				q.submit(mail(c.key, c.p, "reset"))
				later := mail(c.key, c.p, "later") // comes from the store, whatever the memory
				later.SendAt = now.Add(7 * time.Minute)
				q.submit(later)
				time.Sleep(13 * time.Minute)
				if took := relay.since(now, "reset"); took < 0 || took > time.Second {
					t.Errorf("%s, backlog in %s: set out after %v, want at once", c.name, place, took)
				}
				if took := relay.since(later.SendAt, "later"); took < 0 || took > time.Second {
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
		relay := newFakeRelay(accept)
		relay.slow(5*time.Minute, 0)
		q := start(t, dbPath(t), nil, relay)
		for i := range 20 {
			q.flood(5, fmt.Sprint("app", i), mailer.PriorityBulk)
		}
		settleDown()
		if relay.most() != 8 {
			t.Errorf("bulk in hand = %d, want 8", relay.most())
		}
		now := time.Now()
		q.submit(mail("app1", mailer.PriorityNormal, "reset"))
		settleDown()
		if took := relay.since(now, "reset"); took < 0 || took > time.Second {
			t.Errorf("mail beside bulk set out after %v, want at once", took)
		}
	})
}

// crowdedRelay can make use of so many deliveries at a time.
type crowdedRelay struct {
	*fakeRelay
	useful atomic.Int32
}

func (r *crowdedRelay) Useful() int { return int(r.useful.Load()) }

// TestNoMoreThanUseful: a backlog does not stand in line at a relay that gets few
// connections, and takes all that it gets later.
func TestNoMoreThanUseful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := OpenSQLite(t.Context(), SQLiteOptions{Path: dbPath(t)})
		if err != nil {
			t.Fatal(err)
		}
		relay := &crowdedRelay{fakeRelay: newFakeRelay(accept)}
		relay.slow(time.Second, 0)
		relay.useful.Store(3)
		q := startOn(t, store, store, func(o *Options) { o.Routes = Routes{{Relay: relay}} })
		q.flood(100, "app", mailer.PriorityNormal)
		time.Sleep(5500 * time.Millisecond)
		if relay.most() != 3 {
			t.Errorf("deliveries at a time = %d, want 3", relay.most())
		}
		now := time.Now()
		q.submit(mail("other", mailer.PriorityNormal, "reset"))
		settleDown()
		if took := relay.since(now, "reset"); took < 0 || took > time.Second {
			t.Errorf("another key's mail set out after %v, want at once", took)
		}
		time.Sleep(2 * time.Second)
		relay.useful.Store(100)
		time.Sleep(3 * time.Second)
		if relay.most() != 8 {
			t.Errorf("deliveries at a time = %d later, want 8", relay.most())
		}
	})
}

// TestKeysTakeTurns: of several backlogs each gets its share, message by message,
// also from the store and after a restart.
func TestKeysTakeTurns(t *testing.T) {
	for place, memory := range map[string]int64{"memory": 1 << 20, "store": 5000} {
		synctest.Test(t, func(t *testing.T) {
			path := dbPath(t)
			edit := func(o *Options) { o.MaxMemory, o.Workers = memory, 1 }
			relay := newFakeRelay(accept)
			relay.slow(time.Second, 0)
			q := start(t, path, edit, relay)
			q.flood(300, "a", mailer.PriorityNormal)
			q.flood(100, "b", mailer.PriorityNormal)
			q.flood(100, "c", mailer.PriorityNormal)
			time.Sleep(time.Minute)
			wantTurns(t, "from "+place, relay.names()[5:])
			if err := q.end(); err != nil {
				t.Fatal(err)
			}
			relay = newFakeRelay(accept)
			relay.slow(time.Second, 0)
			q = start(t, path, edit, relay)
			time.Sleep(time.Minute)
			wantTurns(t, "after a restart, from "+place, relay.names()[5:])
			relay.slow(0, 0)
			time.Sleep(10 * time.Minute)
			if u := q.Usage(); u != (Usage{}) {
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
			relay := newFakeRelay(accept)
			relay.slow(time.Second, 0)
			q := start(t, dbPath(t), func(o *Options) { o.MaxMemory = memory }, relay)
			q.flood(100, "bulk", mailer.PriorityBulk)
			q.flood(100, "normal", mailer.PriorityNormal)
			q.flood(180, "high", mailer.PriorityHigh)
			time.Sleep(20*time.Second - time.Millisecond)
			count := map[string]int{}
			for _, name := range relay.names()[20:] {
				count[name]++
			}
			if total := len(relay.names()) - 20; count["high"] < total/2 || count["normal"] < total/12 || count["bulk"] < total/12 {
				t.Errorf("from %s: turns = %v, want over half for high, and a share for each of the others", place, count)
			}
			time.Sleep(10 * time.Minute)
			if u := q.Usage(); u != (Usage{}) {
				t.Errorf("from %s: Usage = %+v, want nothing", place, u)
			}
		})
	}
}

// TestFairAfterAPause: when a relay is back, a backlog that waited for it does
// not go before the rest.
func TestFairAfterAPause(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			path := dbPath(t)
			relay := newFakeRelay(unreachable)
			q := start(t, path, nil, relay)
			q.flood(100, "app", mailer.PriorityNormal)
			q.flood(100, "app", mailer.PriorityBulk)
			time.Sleep(time.Minute)
			q.submit(mail("other", mailer.PriorityNormal, "reset"))
			q.submit(mail("app", mailer.PriorityHigh, "urgent"))
			time.Sleep(time.Hour)
			if restart {
				if err := q.end(); err != nil {
					t.Fatal(err)
				}
			}
			relay.set(accept)
			relay.slow(time.Second, 0)
			before := len(relay.seen())
			if restart {
				start(t, path, nil, relay)
			}
			time.Sleep(10 * time.Minute)
			names := relay.names()[before:]
			for _, name := range []string{"reset", "urgent"} {
				if at := slices.Index(names, name); at < 0 || at > 8 {
					t.Errorf("restart %v: %s was number %d after the pause, want one of the first", restart, name, at)
				}
			}
		})
	}
}

// TestProbesTakeTurns: a message that makes the relay hang up is not the probe
// for ever, however urgent it is.
func TestProbesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(func(n int, path string) *mailer.Failure {
			if path == "poison@example.org" {
				return unreachable(n, path)
			}
			return nil
		})
		q := start(t, dbPath(t), nil, relay)
		poison := mail("app", mailer.PriorityHigh, "poison")
		poison.Envelope.ForwardPaths = []string{"poison@example.org"}
		q.submit(poison)
		settleDown()
		q.flood(10, "app", mailer.PriorityNormal)
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
	*fakeRelay
	mu   sync.Mutex
	next time.Time
	line []mailer.Priority
}

const ratedTurn = 10 * time.Second

func (r *ratedRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if failure := r.turn(env.Priority); failure != nil {
		a := mailer.Attempt{Relay: r.name, Started: time.Now()}
		for _, path := range env.ForwardPaths {
			a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: failure})
		}
		return a
	}
	return r.fakeRelay.Deliver(ctx, env, c)
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
		return &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: r.name, Text: "rate", Err: &mailer.RateError{At: at}}
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
		store, err := OpenSQLite(t.Context(), SQLiteOptions{Path: dbPath(t)})
		if err != nil {
			t.Fatal(err)
		}
		relay := &ratedRelay{fakeRelay: newFakeRelay(accept)}
		q := startOn(t, store, store, func(o *Options) { o.Routes = Routes{{Relay: relay}} })
		q.flood(100, "app", mailer.PriorityBulk)
		time.Sleep(5 * time.Minute)
		for i, c := range []struct {
			key string
			p   mailer.Priority
		}{{"other", mailer.PriorityNormal}, {"app", mailer.PriorityNormal}, {"app", mailer.PriorityHigh}} {
			now, name := time.Now(), fmt.Sprint("reset", i)
			q.submit(mail(c.key, c.p, name))
			time.Sleep(100 * time.Second)
			if took := relay.since(now, name); took < 0 || took > ratedTurn+time.Second {
				t.Errorf("%v of %s set out after %v, want with the next turn", c.p, c.key, took)
			}
		}
		// Turns are not lost meanwhile.
		if n := len(relay.seen()); n < 58 {
			t.Errorf("attempts in ten minutes = %d, want about 60", n)
		}
	})
}

// TestMemoryForOthers: a lane's first message has room in memory where others
// fill it, though not without bound.
func TestMemoryForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(accept)
		relay.slow(time.Minute, 0)
		q := start(t, dbPath(t), func(o *Options) { o.MaxMemory, o.Workers = 20_000, 1 }, relay)
		q.flood(50, "app", mailer.PriorityNormal)
		for i := range 10 {
			key := fmt.Sprint("other", i)
			q.flood(1, key, mailer.PriorityNormal)
			q.mu.Lock()
			var inMemory bool
			for _, g := range q.groups {
				l := g.lane(Lane{Key: key})
				inMemory = inMemory || len(l.fresh) > 0 || l.inHand > 0
			}
			if i == 1 && !inMemory {
				t.Error("the first message of a lane is not in memory, want it there")
			}
			if q.fresh > 25_000 || q.loaded > 25_000 {
				t.Errorf("memory = %d + %d, want at most a quarter over 20000", q.fresh, q.loaded)
			}
			q.mu.Unlock()
		}
	})
}

// TestLargeIsNotStarved: a message that needs most of the memory gets it,
// although small ones of other keys could fill it for ever.
func TestLargeIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(unreachable)
		relay.slow(0, 100*time.Millisecond)
		q := start(t, dbPath(t), func(o *Options) { o.MaxMemory, o.Workers = 20_000, 6 }, relay)
		q.flood(1, "b", mailer.PriorityNormal)
		settleDown() // paused: all that follows waits in the store
		relay.set(accept)
		relay.slow(time.Second, 0)
		q.flood(150, "b", mailer.PriorityNormal)
		q.flood(150, "c", mailer.PriorityNormal)
		large := mail("a", mailer.PriorityNormal, "large")
		large.Content.Data = append(large.Content.Data, make([]byte, 50_000)...)
		large.SendAt = time.Now().Add(10 * time.Second) // the workers are busy then
		q.submit(large)
		time.Sleep(5 * time.Minute)
		if at := slices.Index(relay.names(), "large"); at < 20 || at > 100 {
			t.Errorf("the large message was number %d of %d, want it in the middle of them", at, len(relay.names()))
		}
		if u := q.Usage(); u != (Usage{}) {
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
			relay := newFakeRelay(accept)
			relay.slow(20*time.Millisecond, 10*time.Millisecond)
			q := start(t, dbPath(t), func(o *Options) { o.MaxMemory, o.Workers = 20_000, 1+random.IntN(8) }, relay)
			const n = 80
			for i := range n {
				s := mail(fmt.Sprint("app", random.IntN(4)), mailer.Priority(random.IntN(levels)-1), fmt.Sprint(i))
				s.Content.Data = append(s.Content.Data, make([]byte, random.IntN(4)*random.IntN(6000))...)
				q.submit(s)
				switch random.IntN(10) {
				case 0:
					relay.set([]func(int, string) *mailer.Failure{unreachable, greylisted, accept}[random.IntN(3)])
				case 1, 2, 3:
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				}
			}
			relay.set(accept)
			time.Sleep(time.Hour)
			if u := q.Usage(); u != (Usage{}) || len(relay.deliveries()) != n {
				t.Errorf("seed %d: Usage = %+v, delivered %d, want nothing, %d", seed, u, len(relay.deliveries()), n)
			}
			for content, copies := range relay.deliveries() {
				if copies != 1 {
					t.Errorf("seed %d: %.4s delivered %d times, want once", seed, content, copies)
				}
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			for _, g := range q.groups {
				for _, l := range g.lanes {
					if l.inHand+l.storing+l.waiting() != 0 {
						t.Errorf("seed %d: lane %+v, want nothing in it", seed, l)
					}
				}
				if g.active+g.spare+g.waiting() != 0 || g.cramped != nil || q.fresh != 0 || q.loaded != 0 {
					t.Errorf("seed %d: group %+v, memory %d + %d, want nothing in them", seed, g, q.fresh, q.loaded)
				}
			}
		})
	}
}
