package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/units"
)

// board keeps notes, with a clock of its own.
type board struct {
	mu     sync.Mutex
	ahead  time.Duration // of its clock
	values map[string][]byte
	calls  int
	random *rand.Rand // nil: it answers at once
	slow   time.Duration
	away   bool
}

func newBoard() *board { return &board{values: map[string][]byte{}, ahead: 7 * time.Minute} }

var errAway = errors.New("the database is away")

// note is the board as one instance has it: its answers may come late, or not at all, and its
// changes may be made after it has stopped to wait for them.
func (b *board) note(ctx context.Context, kind, name string, change func([]byte, time.Time) []byte) error {
	b.mu.Lock()
	b.calls++
	wait, lost, away := [2]time.Duration{}, 0, b.away
	random := b.random != nil
	if random {
		wait = [2]time.Duration{time.Duration(b.random.Int64N(int64(b.slow))), time.Duration(b.random.Int64N(int64(b.slow)))}
		lost = b.random.IntN(30)
	}
	b.mu.Unlock()
	if away || lost == 0 && random {
		return errAway
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(wait[0])
		b.mu.Lock()
		b.values[kind+" "+name] = change(b.values[kind+" "+name], time.Now().Add(b.ahead))
		b.mu.Unlock()
		time.Sleep(wait[1])
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if lost == 1 {
		return errAway
	}
	return nil
}

func (b *board) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// instances are relays of several instances that share their rate.
func instances(t *testing.T, n int, b *board, rate units.Rate, script relaytest.Script) (*relaytest.Relay, []*smtp.Relay) {
	t.Helper()
	p := newPoolTest(t, relaytest.Options{}, script, func(o *smtp.Options) { o.Rate = rate })
	relays := []*smtp.Relay{p.relay}
	for len(relays) < n {
		relays = append(relays, newRelay(t, p.opts))
	}
	for _, r := range relays {
		r.ShareRate(b.note, nil)
	}
	return p.scripted, relays
}

// deliverTurn delivers a message, however often its turn is put off, until ctx ends.
func deliverTurn(ctx context.Context, r *smtp.Relay, env mailer.Envelope) bool {
	for ctx.Err() == nil {
		a := r.Deliver(ctx, env, content(messageText))
		rate, ok := usedUp(a.Results[0])
		if !ok {
			return a.Results[0].Failure == nil
		}
		time.Sleep(time.Until(rate.At))
	}
	return false
}

// TestSharedRate: instances that share a rate keep to it in sum, and each gets its part of the
// turns. What there is to be had is used.
func TestSharedRate(t *testing.T) {
	for _, tt := range []struct {
		rate  units.Rate
		runs  time.Duration
		least int // messages, of all instances
		calls int // of the place where the note is, for each message
	}{
		{units.Rate{Messages: 10, Per: time.Hour}, 12 * time.Hour, 108, 12},
		{units.Rate{Messages: 1, Per: time.Minute}, time.Hour, 56, 12},
		{units.Rate{Messages: 14, Per: time.Second}, 30 * time.Second, 350, 4},
		{units.Rate{Messages: 600, Per: time.Minute}, 5 * time.Minute, 2800, 2},
		{units.Rate{Messages: 100_000, Per: 24 * time.Hour}, 15 * time.Second, 500, 1},
	} {
		t.Run(tt.rate.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoard()
				b.random, b.slow = rand.New(rand.NewPCG(1, 1)), 4*time.Millisecond
				scripted, relays := instances(t, 3, b, tt.rate, nil)
				ctx, cancel := context.WithTimeout(t.Context(), tt.runs)
				defer cancel()
				sent := make([]int, len(relays))
				var all sync.WaitGroup
				for i, r := range relays {
					var mu sync.Mutex
					for range 8 {
						all.Go(func() {
							for ctx.Err() == nil {
								if deliverTurn(ctx, r, envelope(fmt.Sprintf("r%d@example.org", i))) {
									mu.Lock()
									sent[i]++
									mu.Unlock()
									if tt.rate.Messages > 10_000 {
										time.Sleep(100 * time.Millisecond)
									}
								}
							}
						})
					}
				}
				all.Wait()
				times := mails(scripted)
				checkRate(t, tt.rate, times)
				if len(times) < tt.least {
					t.Errorf("%d MAILs in %v, want at least %d", len(times), tt.runs, tt.least)
				}
				for i, n := range sent {
					if n < len(times)/5 {
						t.Errorf("instance %d sent %d of %d", i, n, len(times))
					}
				}
				var calls int
				b.set(func() { calls = b.calls })
				if calls > tt.calls*len(times)+50 {
					t.Errorf("the note was changed %d times for %d messages", calls, len(times))
				}
				t.Logf("%v of %d messages, %d changes", sent, len(times), calls)
			})
		})
	}
}

// TestSharedRateAtRandom: whatever the relay, the place of the note and the instances do, no period has more
// MAILs than the rate names: answers come late or not at all, the place is away for minutes,
// instances end, and others begin.
func TestSharedRateAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			pick := func(n int, actions ...string) string {
				steps := make([]string, n)
				for i := range steps {
					steps[i] = actions[random.IntN(len(actions))]
				}
				return strings.Join(append(steps, "default"), " then ")
			}
			const ok = "default"
			rate := units.Rate{Messages: 1 + random.IntN(12), Per: time.Duration(1+random.IntN(90)) * time.Second}
			b := newBoard()
			b.random = rand.New(rand.NewPCG(seed, 4))
			b.slow = []time.Duration{time.Millisecond, 300 * time.Millisecond, 6 * time.Second}[random.IntN(3)]
			scripted, relays := instances(t, 1+random.IntN(4), b, rate, relaytest.Script{
				"greeting": pick(20, ok, ok, "after 2s 220 slow", "after 20s 220 slow", "bye 421 4.7.0 no"),
				"MAIL":     pick(80, ok, ok, ok, ok, "drop", "450 4.2.0 no", "after 2s 250 ok"),
				"RSET":     pick(20, ok, "after 3s 250 ok"),
				"RCPT":     pick(80, ok, ok, ok, "550 5.1.1 unknown", "452 4.5.3 too many", "drop"),
				".":        pick(60, ok, ok, "after 3s 250 ok", "after 20s 250 ok", "450 4.2.0 no"),
			})
			var all sync.WaitGroup
			for i := range 80 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(200))*time.Second)
				env := envelope(fmt.Sprintf("r%d@example.org", i), fmt.Sprintf("s%d@example.org", i))
				env.Priority = mailer.Priority(random.IntN(3) - 1)
				r := relays[random.IntN(len(relays))]
				all.Go(func() {
					defer cancel()
					r.Deliver(ctx, env, content(messageText))
				})
				if random.IntN(3) == 0 {
					time.Sleep(time.Duration(random.Int64N(int64(rate.Per))) / time.Duration(1+random.IntN(rate.Messages)))
				}
				switch random.IntN(40) {
				case 0:
					b.set(func() { b.away = true })
					time.Sleep(time.Duration(random.IntN(100)) * time.Second)
					b.set(func() { b.away = false })
				case 1: // it ends
					i := random.IntN(len(relays))
					go relays[i].Close()
					another := newRelay(t, relaysOptions(t, scripted, rate))
					another.ShareRate(b.note, nil)
					relays[i] = another
				}
			}
			all.Wait()
			// Nothing stays away for good.
			b.set(func() { b.random = nil })
			time.Sleep(3*time.Minute + rate.Per)
			begin := time.Now()
			a := relays[0].Deliver(t.Context(), envelope("t@example.org"), content(messageText))
			if late, is := usedUp(a.Results[0]); is {
				t.Errorf("seed %d: after a long pause the turn would have come at %v", seed, late.At.Sub(begin))
			}
			checkRate(t, rate, mails(scripted))
		})
	}
}

// relaysOptions are those of a further relay at the same server.
func relaysOptions(_ *testing.T, scripted *relaytest.Relay, rate units.Rate) smtp.Options {
	o := options(&relaytest.Network{Port: map[int]any{587: scripted}})
	o.Ladder, o.Rate = o.Ladder[:1], rate
	return o
}

// TestSharedRateCut: what an instance held that is cut off counts as used until its period has passed, and the
// instance itself does not use it any more after that.
func TestSharedRateCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := units.Rate{Messages: 2, Per: 30 * time.Second}
		b, cut := newBoard(), newBoard()
		cut.values = b.values
		// Connections take longer than a turn is held.
		script := relaytest.Script{"greeting": "after 100s 220 slow then after 100s 220 slow then default"}
		scripted, relays := instances(t, 1, b, rate, nil)
		slow := newPoolTest(t, relaytest.Options{}, script, func(o *smtp.Options) { o.Rate, o.Timeouts.Hello = rate, 5*time.Minute })
		slow.relay.ShareRate(cut.note, nil)
		env := envelope("a@example.org")
		env.Priority = mailer.PriorityHigh
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { slow.relay.Deliver(t.Context(), env, content(messageText)) })
		}
		time.Sleep(time.Second)
		cut.set(func() { cut.away = true })
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 110*time.Second)
		defer cancel()
		for range 2 {
			all.Go(func() { deliverTurn(ctx, relays[0], env) })
		}
		all.Wait()
		times := append(mails(scripted), mails(slow.scripted)...)
		slices.SortFunc(times, time.Time.Compare)
		checkRate(t, rate, times)
		if len(times) != 2 || times[0].Sub(began) < 88*time.Second || times[0].Sub(began) > 95*time.Second {
			t.Errorf("MAILs at %v after %v, want two by the other instance, 90 s later", times, began)
		}
	})
}

// TestSharedRateSeed: what was used before there was a note counts.
func TestSharedRateSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) { o.Rate = units.Rate{Messages: 2, Per: time.Minute} })
		b := newBoard()
		b.ahead = 0
		now := time.Now()
		p.relay.ShareRate(b.note, []time.Time{now.Add(-30 * time.Second), now.Add(-20 * time.Second)})
		env := envelope("b@example.org")
		env.Priority = mailer.PriorityHigh
		if a := p.relay.Deliver(t.Context(), env, content(messageText)); outcomes(a) != "accepted 250" || time.Since(now) < 30*time.Second || time.Since(now) > 31*time.Second {
			t.Errorf("Deliver() = %s after %v, want accepted after 30 s", outcomes(a), time.Since(now))
		}
	})
}

// TestSharedRateUsed: an instance tells how much of the rate all have used, as it has heard; where it has not
// heard for the rate's time it does not know.
func TestSharedRateUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, relays := instances(t, 2, newBoard(), units.Rate{Messages: 20, Per: time.Minute}, nil)
		if a, b := relays[0].Turns().Used, relays[1].Turns().Used; a != -1 || b != -1 {
			t.Errorf("Used = %d, %d before the first delivery, want unknown", a, b)
		}
		for _, r := range []*smtp.Relay{relays[0], relays[0], relays[0], relays[1]} {
			deliverTurn(t.Context(), r, envelope("a@example.org"))
			time.Sleep(2 * time.Second)
		}
		if got := relays[1].Turns().Used; got != 4 {
			t.Errorf("Used = %d, want 4 of both instances", got)
		}
		time.Sleep(55 * time.Second)
		if got := relays[1].Turns().Used; got > 2 {
			t.Errorf("Used = %d, want what was used within the minute", got)
		}
		time.Sleep(time.Minute)
		if a, b := relays[0].Turns().Used, relays[1].Turns().Used; a != -1 || b != -1 {
			t.Errorf("Used = %d, %d after two minutes, want unknown", a, b)
		}
	})
}
