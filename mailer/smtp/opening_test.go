package smtp_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestOpeningHangs: a relay that greets no third connection, like Postfix with every
// process busy, makes no message wait for the time-out, because two connections are
// free again and again; whether or not callers limit their time.
func TestOpeningHangs(t *testing.T) {
	for _, limit := range []time.Duration{time.Hour, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{MaxConnections: 2, Crowded: relaytest.Script{"greeting": "silence"}},
				relaytest.Script{".": "after 20ms 250 2.0.0 ok"}, nil)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			begin := time.Now()
			results := deliverMany(ctx, p.relay, 60)
			checkDelivered(t, p.scripted, results)
			if n, took := countAccepted(results), time.Since(begin); n != 60 || took > time.Second {
				t.Errorf("%d of 60 accepted after %v, want all within a second", n, took)
			}
			if n := p.network.Most(); n != 8 {
				t.Errorf("%d connections at a time, want 8: two that serve, six that hang", n)
			}
			time.Sleep(36 * time.Second) // the time-out of those that hang
			if got := p.relay.Connections(); got.Open != 0 || got.Limit != 2 && got.Reason != "the relay is new, or was not reached" {
				t.Errorf("Connections() after the time-out = %+v, want none open", got)
			}
			p.deliver(t, "accepted 250")
			p.relay.Close()
			p.checkConnections(t, 9, 0)
		})
	}
}

// TestOpeningWaits: a relay that has two processes, and lets all other connections
// wait for one of them, keeps both busy until the last message.
func TestOpeningWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{MaxConnections: 2, Crowded: relaytest.Script{"greeting": "wait"}},
			relaytest.Script{".": "after 100ms 250 2.0.0 ok"}, func(o *smtp.Options) { o.MessagesPerConnection = 5 })
		begin := time.Now()
		results := deliverMany(t.Context(), p.relay, 200)
		checkDelivered(t, p.scripted, results)
		if n, took := countAccepted(results), time.Since(begin); n != 200 || took > 11*time.Second {
			t.Errorf("%d of 200 accepted after %v, want all within 11s", n, took)
		}
		if n := p.scripted.Most(); n != 2 {
			t.Errorf("%d connections served at a time, want 2", n)
		}
		time.Sleep(time.Hour)
		p.relay.Close()
		p.checkConnections(t, p.scripted.Served(), 0)
	})
}

// TestOpeningFreesClose: connections that hang while they are being opened do not
// keep Close.
func TestOpeningFreesClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"greeting": "silence"}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if got, want := outcomes(p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText))), "transient connect"; got != want {
			t.Errorf("Deliver() = %s, want %s", got, want)
		}
		begin := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			a := p.deliver(t, "transient connect")
			if f := a.Results[0].Failure; f != nil && f.Text != "the attempt was stopped" {
				t.Errorf("a delivery in flight failed with %q, want that it was stopped", f.Text)
			}
		})
		synctest.Wait()
		p.relay.Close()
		all.Wait()
		if took := time.Since(begin); took != 0 {
			t.Errorf("Close took %v, want no time", took)
		}
		p.checkConnections(t, 1, 0)
	})
}

// TestOpeningStops: a delivery whose time is over before the first connection is open
// tells how far that has come; the next delivery gets the connection.
func TestOpeningStops(t *testing.T) {
	tests := []struct {
		script relaytest.Script
		want   string
		text   string
	}{
		{relaytest.Script{"greeting": "after 3s 220 relay.test"}, "relay greeting", "the relay did not answer in time"},
		{relaytest.Script{"EHLO": "after 3s 250-relay.test\n250 STARTTLS then default"}, "relay ehlo", "the relay did not answer in time"},
		{relaytest.Script{"STARTTLS": "after 3s 220 go"}, "relay starttls", "the relay did not answer in time"},
		{relaytest.Script{"AUTH": "after 3s 235 2.7.0 welcome"}, "relay auth", "the relay did not answer in time"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{}, tt.script, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			a := p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText))
			if got := outcomes(a); got != tt.want || a.Results[0].Failure.Text != tt.text {
				t.Errorf("Deliver() = %s (%v), want %s: %s", got, a.Results[0].Failure, tt.want, tt.text)
			}
			if a := p.deliver(t, "accepted 250"); a.Duration != time.Second || len(a.Ladder) != 1 || !a.Ladder[0].Won {
				t.Errorf("the next message took %v over the rungs %+v, want 1s and the one that was opened for the first", a.Duration, a.Ladder)
			}
			p.checkConnections(t, 1, 1)
		})
	}
}

// TestOpeningFails: all deliveries that wait for the only connection learn at once why
// it failed, with the rungs that were tried.
func TestOpeningFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"AUTH": "after 1s 535 5.7.8 no"}, func(o *smtp.Options) { o.MaxConnections = 1 })
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				a := p.deliver(t, "relay auth 535")
				if a.Duration != time.Second || a.Rung.Port != 587 || a.TLS == "" || len(a.Ladder) != 1 {
					t.Errorf("attempt %+v, want after 1s, with the connection's properties and the rung", a)
				}
			})
		}
		all.Wait()
		time.Sleep(time.Second)
		p.checkConnections(t, 1, 0)
		if got := p.relay.Connections(); got.Open != 0 {
			t.Errorf("Connections() = %+v, want none open", got)
		}
	})
}

// TestFurtherRefused: whatever the relay replies to a third connection, and wherever,
// all messages go over the two that are open.
func TestFurtherRefused(t *testing.T) {
	for _, at := range []string{"greeting", "EHLO", "STARTTLS", "AUTH"} {
		for _, reply := range []string{
			"bye 421 4.7.0 too many connections", "454 4.7.0 too many connections", "535 5.7.8 authentication failed",
			"bye 554 5.7.1 too many connections", "drop", "silence",
		} {
			t.Run(at+" "+reply, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPoolTest(t, relaytest.Options{MaxConnections: 2, Crowded: relaytest.Script{at: reply}},
						relaytest.Script{".": "after 50ms 250 2.0.0 ok"}, nil)
					begin := time.Now()
					results := deliverMany(t.Context(), p.relay, 60)
					checkDelivered(t, p.scripted, results)
					if n, took := countAccepted(results), time.Since(begin); n != 60 || took > 5*time.Second {
						t.Errorf("%d of 60 accepted after %v, want all within 5s: %v", n, took, results)
					}
					if got := p.scripted.Most(); got != 2 {
						t.Errorf("%d connections served at a time, want 2", got)
					}
					if got := p.relay.Connections(); reply != "silence" && (got.Limit != 2 || !strings.Contains(got.Reason, "a further connection was refused")) {
						t.Errorf("Connections() = %+v, want two because a third was refused", got)
					}
				})
			})
		}
	}
}

// TestLastRefused: where the relay refuses the only connection, each message learns
// that, and there is no second login before the next message.
func TestLastRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"AUTH": "after 1s 535 5.7.8 no", "QUIT": "silence"}, nil)
		for path, r := range deliverMany(t.Context(), p.relay, 20) {
			if got, want := outcome(r), "relay auth 535"; got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if n := len(p.scripted.Credentials()); n != 2 { // two connections at the start
			t.Errorf("%d logins, want 2", n)
		}
	})
}

// TestOpeningHangsBesideOthers: where all that is open hangs, and what is being opened
// as well, one more connection is tried.
func TestOpeningHangsBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			"greeting": "default then default then silence then default",
			".":        "after 5m 250 2.0.0 ok then after 5m 250 2.0.0 ok then default",
		}, nil)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { p.deliver(t, "accepted 250") })
		}
		time.Sleep(time.Millisecond)
		if a := p.deliver(t, "accepted 250"); a.Duration > 4*time.Second {
			t.Errorf("a message waited %v for those that hang, want 4s at most", a.Duration)
		}
		all.Wait()
	})
}

// TestOpeningHangsAtFirst: a relay that may be dead gets no more connections than at
// the start.
func TestOpeningHangsAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"greeting": "silence"}, nil)
		begin := time.Now()
		for path, r := range deliverMany(t.Context(), p.relay, 20) {
			if got, want := outcome(r), "relay greeting"; got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("the failures came after %v, want 30s", took)
		}
		p.checkConnections(t, 2, 0)
	})
}

// TestMaxConnections: whatever the relay does, it never has more connections than
// MaxConnections at a time, every message is answered, and nothing is left over.
func TestMaxConnections(t *testing.T) {
	refusals := []string{
		"bye 421 4.7.0 no", "bye 554 5.7.1 no", "drop", "silence", "after 40s 220 late", "after 200ms 220 slow",
	}
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			pick := func(n int, actions ...string) string {
				steps := make([]string, n)
				for i := range steps {
					steps[i] = "default"
					if random.IntN(3) == 0 {
						steps[i] = actions[random.IntN(len(actions))]
					}
				}
				return strings.Join(append(steps, "default"), " then ")
			}
			script := relaytest.Script{
				"greeting": pick(20, refusals...), "AUTH": pick(20, "535 5.7.8 no", "454 4.7.0 no", "drop"),
				"MAIL": pick(30, "421 4.7.0 no", "drop", "450 4.2.0 no", "432 4.3.2 Concurrent connections limit exceeded"),
				".":    pick(60, "after 200ms 250 ok", "after 3s 250 ok", "after 90s 250 ok", "drop"),
				"QUIT": pick(20, "silence", "after 1s 221 bye"),
			}
			limit := 1 + random.IntN(5)
			p := newPoolTest(t, relaytest.Options{MaxConnections: random.IntN(4), MaxMessages: random.IntN(4) * 3}, script, func(o *smtp.Options) {
				o.MaxConnections, o.MessagesPerConnection = limit, 1+random.IntN(12)
			})
			var all sync.WaitGroup
			for i := range 80 {
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(8) == 0 {
					cancel() // at once, so that no connection waits for a late verdict
				}
				all.Go(func() {
					defer cancel()
					path := fmt.Sprintf("r%d@example.org", i)
					env := envelope(path)
					env.Priority = mailer.Priority(i%3 - 1)
					if r := p.relay.Deliver(ctx, env, content(numbered(path))).Results[0]; r.Failure != nil && r.Failure.Text == "not tried" {
						t.Errorf("seed %d: %s has no verdict", seed, path)
					}
				})
			}
			all.Wait()
			if n := p.network.Most(); n > limit {
				t.Errorf("seed %d: %d connections at a time, want at most %d", seed, n, limit)
			}
			p.relay.Close()
			if c := p.relay.Connections(); c.Open != 0 || c.Waiting != 0 || p.network.Open() != 0 {
				t.Errorf("seed %d: after Close: %+v and %d sockets, want none", seed, c, p.network.Open())
			}
		})
	}
}
