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

// mails returns the times at which a relay read MAIL, in order.
func mails(scripted *relaytest.Relay) []time.Time {
	var times []time.Time
	for _, c := range scripted.Commands() {
		if strings.HasPrefix(c.Line, "MAIL") {
			times = append(times, c.At)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// checkRate: no period of the rate's length, wherever it begins, has more of the times
// than the rate names.
func checkRate(t *testing.T, rate units.Rate, times []time.Time) {
	t.Helper()
	for i := rate.Messages; i < len(times); i++ {
		if d := times[i].Sub(times[i-rate.Messages]); d < rate.Per {
			t.Fatalf("the relay read %d MAILs in %v, want %v", rate.Messages+1, d, rate)
		}
	}
}

// usedUp returns when the turn of a recipient comes, where there was none.
func usedUp(r mailer.Result) (*mailer.RateError, bool) {
	if r.Failure == nil {
		return nil, false
	}
	return errors.AsType[*mailer.RateError](r.Failure)
}

// TestRateSlowConnections: messages have their turns while connections are opened
// slowly. The relay gets no more MAILs in a period than the rate names.
func TestRateSlowConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := units.Rate{Messages: 3, Per: time.Minute}
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"greeting": "after 25s 220 slow then default"}, func(o *smtp.Options) { o.Rate = rate })
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				for {
					a := p.relay.Deliver(t.Context(), envelope(fmt.Sprintf("r%d@example.org", i)), content(messageText))
					rate, ok := usedUp(a.Results[0])
					if !ok {
						break
					}
					time.Sleep(time.Until(rate.At))
				}
			})
		}
		all.Wait()
		times := mails(p.scripted)
		if checkRate(t, rate, times); len(times) != 6 {
			t.Errorf("%d MAILs, want 6", len(times))
		}
	})
}

// TestRateBehindContent: a MAIL that travels behind the content of another message is
// read only after that. It counts from then on, also when its delivery has left
// before, or the message in front has become uncertain.
func TestRateBehindContent(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second time.Duration // how long the deliveries have
	}{
		{"it is delivered", time.Hour, time.Hour},
		{"it has left", time.Hour, 10 * time.Second},
		{"the one in front has left", 10 * time.Second, time.Hour},
		{"both have left", 10 * time.Second, 15 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rate := units.Rate{Messages: 2, Per: time.Minute}
				p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"DATA": slowDATA, ".": "after 40s 250 ok then default"}, func(o *smtp.Options) {
					o.Rate, o.MaxConnections = rate, 1
				})
				var all sync.WaitGroup
				for i, has := range []time.Duration{tt.first, tt.second} {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), has)
						defer cancel()
						env := envelope(fmt.Sprintf("r%d@example.org", i))
						env.Priority = mailer.PriorityHigh // at once
						p.relay.Deliver(ctx, env, content(messageText))
					})
					synctest.Wait()
				}
				all.Wait()
				env := envelope("r2@example.org")
				env.Priority = mailer.PriorityHigh
				for time.Now().Before(time.Date(2000, 1, 1, 0, 5, 0, 0, time.UTC)) {
					p.relay.Deliver(t.Context(), env, content(messageText))
				}
				times := mails(p.scripted)
				if checkRate(t, rate, times); len(times) < 9 {
					t.Errorf("%d MAILs in five minutes, want at least 9", len(times))
				}
				if n := p.relay.Turns(); n.Waiting != 0 {
					t.Errorf("Turns() = %+v, want none that waits", n)
				}
			})
		})
	}
}

// TestRateEachMail: each further MAIL of a delivery has a turn of its own, and the
// connection serves others meanwhile.
func TestRateEachMail(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
		edit   func(*smtp.Options)
		paths  int
		mails  int
	}{
		{name: "recipients in several transactions", edit: func(o *smtp.Options) { o.MaxRecipients = 1 }, paths: 4, mails: 4},
		{name: "too many recipients", script: relaytest.Script{"RCPT TO:<r3": "452 4.5.3 too many then default"}, paths: 4, mails: 2},
		{name: "lost, and again", script: relaytest.Script{"MAIL": "default then drop then default"}, paths: 1, mails: 2},
		{name: "parameters refused", script: relaytest.Script{"MAIL": "default then 555 5.5.4 unknown parameter then default"}, paths: 1, mails: 2},
		{name: "parameters refused, and again", script: relaytest.Script{"MAIL": "default then 555 5.5.4 unknown parameter"}, paths: 1, mails: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rate := units.Rate{Messages: 1, Per: 10 * time.Second}
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) {
					if o.Rate = rate; tt.edit != nil {
						tt.edit(o)
					}
				})
				p.deliver(t, "accepted 250")
				a := p.relay.Deliver(t.Context(), envelope(manyRecipients(tt.paths)...), content(messageText))
				if n := len(a.Turns); n != tt.mails {
					t.Errorf("the attempt used %d turns, want %d: %s", n, tt.mails, outcomes(a))
				}
				times := mails(p.scripted)
				if checkRate(t, rate, times); len(times) != 1+tt.mails {
					t.Errorf("%d MAILs, want %d", len(times), 1+tt.mails)
				}
				if !slices.Equal(a.Turns, times[1:]) {
					t.Errorf("turns at %v, want those at which the relay read MAIL, %v", a.Turns, times[1:])
				}
			})
		})
	}
}

// TestRateSplitWaits: recipients for whose transaction there is no turn within a minute
// wait for it without an attempt, and the others are delivered.
func TestRateSplitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"RCPT TO:<r1": "452 4.5.3 too many"}, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: time.Hour}
		})
		begin := time.Now()
		a := p.relay.Deliver(t.Context(), envelope(manyRecipients(2)...), content(messageText))
		if got, want := outcomes(a), "accepted 250, relay connect"; got != want {
			t.Errorf("Deliver() = %s, want %s", got, want)
		}
		if rate, ok := usedUp(a.Results[1]); !ok || !rate.At.Equal(begin.Add(time.Hour)) {
			t.Errorf("the second recipient failed with %v, want a RateError for an hour from now", a.Results[1].Failure)
		}
	})
}

// TestRateGivenBackUnused: a turn whose MAIL was never written is not used up.
func TestRateGivenBackUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"greeting": "drop then default"}, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: time.Hour}
		})
		p.deliver(t, "relay greeting")
		if a := p.deliver(t, "accepted 250"); a.Duration != 0 {
			t.Errorf("a message waited %v for the turn of one that was never sent", a.Duration)
		}
	})
}

// TestUsed: what was sent before a restart counts within the rate.
func TestUsed(t *testing.T) {
	tests := []struct {
		name string
		ago  []time.Duration
		want time.Duration // until the next turn
	}{
		{"nothing", nil, 0},
		{"one turn left", []time.Duration{40 * time.Second, 10 * time.Second}, 0},
		{"all used up", []time.Duration{10 * time.Second, 40 * time.Second, 20 * time.Second}, 10 * time.Second},
		{"more than the rate has now", []time.Duration{49 * time.Second, 40 * time.Second, 30 * time.Second, 20 * time.Second, 10 * time.Second}, 20 * time.Second},
		{"long ago", []time.Duration{2 * time.Hour, 51 * time.Second, 50 * time.Second}, 0},
		{"the clock was set back", []time.Duration{-time.Hour, -2 * time.Hour, -3 * time.Hour}, 50 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) { o.Rate = units.Rate{Messages: 3, Per: 50 * time.Second} })
				var times []time.Time
				for _, ago := range tt.ago {
					times = append(times, time.Now().Add(-ago))
				}
				p.relay.Used(times)
				env := envelope("b@example.org")
				env.Priority = mailer.PriorityHigh
				a := p.relay.Deliver(t.Context(), env, content(messageText))
				if outcomes(a) != "accepted 250" || a.Duration != tt.want {
					t.Errorf("Deliver() = %s after %v, want accepted after %v", outcomes(a), a.Duration, tt.want)
				}
			})
		})
	}
	p := newPoolTest(t, relaytest.Options{}, nil, nil)
	p.relay.Used([]time.Time{time.Now()}) // without a rate
	p.deliver(t, "accepted 250")
}

// TestRateAtRandom: however slow and faulty the relay is, whatever the priorities, and
// whoever leaves, no period has more MAILs than the rate names, as the relay sees it;
// and no turn is lost for good.
func TestRateAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			pick := func(n int, actions ...string) string {
				steps := make([]string, n)
				for i := range steps {
					steps[i] = actions[random.IntN(len(actions))]
				}
				return strings.Join(append(steps, "default"), " then ")
			}
			const ok = "default"
			rate := units.Rate{Messages: 1 + random.IntN(8), Per: time.Duration(1+random.IntN(60)) * time.Second}
			opts := relaytest.Options{MaxConnections: random.IntN(4), MaxMessages: random.IntN(5), Crowded: relaytest.Script{"greeting": "wait"}}
			if random.IntN(3) == 0 {
				opts.TLSExtensions = relaytest.Without("PIPELINING")
			}
			p := newPoolTest(t, opts, relaytest.Script{
				"greeting": pick(20, ok, ok, "after 2s 220 slow", "after 20s 220 slow", "bye 421 4.7.0 no"),
				"MAIL":     pick(80, ok, ok, ok, ok, "drop", "450 4.2.0 no", "after 2s 250 ok", "432 4.3.2 Concurrent connections limit exceeded", "555 5.5.4 parameter"),
				"RSET":     pick(20, ok, "after 3s 250 ok"),
				"RCPT":     pick(80, ok, ok, ok, "550 5.1.1 unknown", "452 4.5.3 too many", "drop"),
				"DATA":     pick(40, ok, ok, "after 1s 354 go", "451 4.3.0 no"),
				".":        pick(60, ok, ok, "after 3s 250 ok", "after 40s 250 ok", "450 4.2.0 no", "drop"),
			}, func(o *smtp.Options) {
				o.Rate, o.MaxConnections, o.MaxRecipients = rate, 1+random.IntN(5), 1+random.IntN(3)
			})
			var all sync.WaitGroup
			for i := range 120 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(100))*time.Second)
				env := envelope(fmt.Sprintf("r%d@example.org", i), fmt.Sprintf("s%d@example.org", i))
				env.Priority = mailer.Priority(random.IntN(3) - 1)
				all.Go(func() {
					defer cancel()
					p.relay.Deliver(ctx, env, content(messageText))
				})
				if random.IntN(3) == 0 {
					time.Sleep(time.Duration(random.Int64N(int64(rate.Per))) / time.Duration(1+random.IntN(rate.Messages)))
				}
			}
			all.Wait()
			time.Sleep(10*time.Minute + rate.Per) // late verdicts
			begin := time.Now()
			for used := 0; used < rate.Messages; {
				env := envelope("t@example.org")
				env.Priority = mailer.PriorityHigh
				a := p.relay.Deliver(t.Context(), env, content(messageText))
				if used += len(a.Turns); used < rate.Messages && !time.Now().After(begin) {
					if _, is := usedUp(a.Results[0]); is {
						t.Errorf("seed %d: no turn after a long pause, and %d of %d used", seed, used, rate.Messages)
						break
					}
				}
			}
			if next := p.relay.Turns().Next; next.After(begin.Add(2*time.Minute + rate.Per)) {
				t.Errorf("seed %d: the next turn is at %v, want within a period", seed, next)
			}
			checkRate(t, rate, mails(p.scripted))
		})
	}
}

// TestRateInFull: over a long time the rate is used in full, though connections are
// opened slowly and end early, and messages take some time.
func TestRateInFull(t *testing.T) {
	for _, rate := range []units.Rate{{Messages: 1, Per: 5 * time.Second}, {Messages: 3, Per: time.Minute}, {Messages: 20, Per: time.Minute}, {Messages: 5, Per: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{MaxMessages: 7}, relaytest.Script{
				"greeting": "after 300ms 220 slow", ".": strings.Repeat("after 500ms 250 ok then after 3s 250 ok then after 100ms 250 ok then ", 50) + "after 800ms 250 ok",
			}, func(o *smtp.Options) { o.Rate = rate })
			periods := max(20, int(time.Minute/rate.Per))
			begin := time.Now()
			end := begin.Add(time.Duration(periods) * rate.Per)
			var all sync.WaitGroup
			for i := range 24 {
				all.Go(func() {
					for time.Now().Before(end) {
						env := envelope("b@example.org")
						env.Priority = mailer.Priority(i%3 - 1)
						a := p.relay.Deliver(t.Context(), env, content(messageText))
						if rate, ok := usedUp(a.Results[0]); ok {
							time.Sleep(time.Until(rate.At))
						}
					}
				})
			}
			all.Wait()
			times := mails(p.scripted)
			checkRate(t, rate, times)
			n := 0
			for _, at := range times {
				if at.Before(end) {
					n++
				}
			}
			if want := periods * rate.Messages; n < want*95/100 {
				t.Errorf("%v: %d MAILs in %d periods, want nearly %d", rate, n, periods, want)
			} else {
				t.Logf("%v: %d of %d", rate, n, want)
			}
		})
	}
}
