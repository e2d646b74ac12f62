package smtp_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// load is deliveries by a number of callers that each send the next message when
// the last was answered, and one that was deferred again after a second.
type load struct {
	relay    *smtp.Relay
	mu       sync.Mutex
	results  map[string]mailer.Result // by recipient; the last one of each
	deferred map[string]int           // attempts that were, by outcome
	pushed   int                      // of them: with ErrPushedBack
}

func (l *load) run(t *testing.T, callers int, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.deliver(t.Context(), fmt.Sprintf("c%d-%d-%d@example.org", caller, i, time.Now().UnixNano()))
			}
		})
	}
	all.Wait()
}

func (l *load) deliver(ctx context.Context, path string) {
	for {
		r := l.relay.Deliver(ctx, envelope(path), content(numbered(path))).Results[0]
		l.mu.Lock()
		l.results[path] = r
		again := r.Failure != nil && r.Failure.Class != mailer.ClassUncertain
		if again {
			l.deferred[outcome(r)]++
		}
		if again && errors.Is(r.Failure, mailer.ErrPushedBack) {
			l.pushed++
		}
		l.mu.Unlock()
		if !again {
			return
		}
		time.Sleep(time.Second)
	}
}

func newLoad(relay *smtp.Relay) *load {
	return &load{relay: relay, results: map[string]mailer.Result{}, deferred: map[string]int{}}
}

// sum is how many attempts were deferred.
func (l *load) sum() int {
	n := 0
	for _, times := range l.deferred {
		n += times
	}
	return n
}

// TestWindowOpens: a backlog has eight connections after a few round trips.
func TestWindowOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 20ms 250 2.0.0 ok"}, nil)
		l := newLoad(p.relay)
		time.AfterFunc(50*time.Millisecond, func() {
			if got, want := p.relay.Connections(), (smtp.Connections{Open: 8, Limit: 8, Max: 8, Reason: "messages waited"}); got != want {
				t.Errorf("after two round trips: Connections() = %+v, want %+v", got, want)
			}
		})
		l.run(t, 16, 200*time.Millisecond)
		if got, want := len(l.results), 60; got < want || l.sum() > 0 {
			t.Errorf("%d messages went in 200 ms, %v were deferred; want at least %d", got, l.deferred, want)
		}
	})
}

// TestWindowLimits runs relays with limits of their own: the window comes near
// them, few messages are refused, none is lost, and the window opens again when a
// limit ends.
func TestWindowLimits(t *testing.T) {
	const slow = "after 500ms 250 2.0.0 ok"
	tests := []struct {
		name     string
		opts     relaytest.Options
		script   relaytest.Script
		took     time.Duration
		least    int // limit in the last third, for most of the time
		most     int
		deferred int     // attempts at most
		rate     float64 // messages in a second at least
	}{
		{
			name: "three connections", opts: relaytest.Options{MaxConnections: 3}, script: relaytest.Script{".": slow},
			least: 3, most: 3, rate: 5.5,
		},
		{
			name: "one connection", opts: relaytest.Options{MaxConnections: 1}, script: relaytest.Script{".": slow},
			least: 1, most: 1, rate: 1.8,
		},
		{
			name: "three transactions", opts: relaytest.Options{MaxBusy: 3}, script: relaytest.Script{".": slow},
			least: 3, most: 4, deferred: 5, rate: 5.5,
		},
		{
			name: "a rate, and 421", opts: relaytest.Options{MaxRate: 10, TooFast: "bye 421 4.7.0 try again later"}, script: relaytest.Script{".": slow},
			least: 2, most: 6, deferred: 10, rate: 6,
		},
		{
			name: "a rate, and 450", opts: relaytest.Options{MaxRate: 10, TooFast: "450 4.7.1 Error: too much mail from 192.0.2.1"}, script: relaytest.Script{".": slow},
			least: 2, most: 6, deferred: 20, rate: 6,
		},
		{
			name: "messages of a connection", opts: relaytest.Options{MaxMessages: 5}, script: relaytest.Script{".": slow}, took: 30 * time.Second,
			least: 8, most: 8, rate: 14,
		},
		{
			name: "capacity for one", opts: relaytest.Options{Delay: func(n int) time.Duration { return time.Duration(n) * time.Second }},
			least: 2, most: 5, rate: 0.7, // a step ahead at times: the latency of a limit shows a round later
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log lockedBuffer
				p := newPoolTest(t, tt.opts, tt.script, func(o *smtp.Options) {
					o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
					o.MessagesPerConnection = 1000 // the relay may notice late that one has gone
				})
				l := newLoad(p.relay)
				took := cmp.Or(tt.took, 150*time.Second)
				// The limit swings around what the relay takes: one moment says little.
				var limits []int
				ticker := time.NewTicker(took / 150)
				defer ticker.Stop()
				go func() {
					for begun := time.Now(); time.Since(begun) < took; {
						<-ticker.C
						limits = append(limits, p.relay.Connections().Limit)
					}
				}()
				l.run(t, 16, took)
				checkDelivered(t, p.scripted, l.results)
				synctest.Wait()
				last := slices.Sorted(slices.Values(limits[2*len(limits)/3:]))
				if got := last[len(last)/2]; got < tt.least || got > tt.most {
					t.Errorf("limit %d for most of the time, at the end %s, want %d to %d; all: %v", got, p.relay.Connections().Reason, tt.least, tt.most, limits)
				}
				if l.sum() > tt.deferred || l.pushed != l.sum() {
					t.Errorf("deferred: %v, %d of them pushed back; want at most %d", l.deferred, l.pushed, tt.deferred)
				}
				if rate := float64(countAccepted(l.results)) / took.Seconds(); rate < tt.rate {
					t.Errorf("%.1f messages in a second, want at least %v", rate, tt.rate)
				}
				if n := strings.Count(log.String(), "fewer connections"); n > 10 {
					t.Errorf("%d lines about fewer connections", n)
				}
				p.relay.Close()
				p.checkConnections(t, p.scripted.Served(), 0)
			})
		})
	}
}

// TestWindowRecovers: the window opens again when the relay allows more again.
func TestWindowRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{MaxConnections: 2}, relaytest.Script{".": "after 500ms 250 2.0.0 ok"}, nil)
		l := newLoad(p.relay)
		l.run(t, 16, 10*time.Second)
		if got := p.relay.Connections().Limit; got != 2 {
			t.Errorf("limit %d while the relay takes two, want 2", got)
		}
		p.scripted.Allow(0)
		l.run(t, 16, 3*time.Minute)
		if got := p.relay.Connections().Limit; got != 8 {
			t.Errorf("limit %d three minutes after the relay took any number, want 8", got)
		}
		checkDelivered(t, p.scripted, l.results)
		if l.sum() > 0 {
			t.Errorf("deferred: %v, want none", l.deferred)
		}
	})
}

// TestWindowHangs: messages that hang do not keep the others from connections.
func TestWindowHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			".": strings.Repeat("after 5m 250 2.0.0 ok then ", 3) + "250 2.0.0 ok",
		}, nil)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { p.deliver(t, "accepted 250") })
			time.Sleep(time.Millisecond)
		}
		begin := time.Now()
		p.deliver(t, "accepted 250")
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("a message waited %v for those that hang, want 3s at most", took)
		}
		all.Wait()
	})
}

// TestPushedBackIdle: connections over the limit are ended, idle ones included.
func TestPushedBackIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			".": strings.Repeat("after 500ms 250 ok then ", 40) + "454 Throttling failure",
		}, nil)
		deliverMany(t.Context(), p.relay, 40)
		p.checkConnections(t, 8, 8)
		p.deliver(t, "transient content 454")
		p.checkConnections(t, 8, 4)
		if got := p.relay.Connections(); got.Open != 4 || got.Limit != 4 {
			t.Errorf("Connections() = %+v, want four", got)
		}
	})
}

// TestPushedBack: the outcome of a message that the relay pushes back.
func TestPushedBack(t *testing.T) {
	const too = "432 4.3.2 Concurrent connections limit exceeded"
	tests := []struct {
		name   string
		script relaytest.Script
		warm   int // connections beside it
		want   string
		pushed bool
		limit  int
	}{
		{"over another connection", relaytest.Script{"MAIL": "default then default then " + too + " then default"}, 2, "accepted 250", false, 1},
		{"there is no other", relaytest.Script{"MAIL": "default then " + too}, 1, "transient mail 432", true, 1},
		{"again", relaytest.Script{"MAIL": "default then default then " + too}, 2, "transient mail 432", true, 1},
		{"at DATA", relaytest.Script{"DATA": "default then default then 451 4.7.500 Server busy then default"}, 2, "accepted 250", false, 1},
		{"at RCPT", relaytest.Script{"RCPT": "default then default then 450 4.2.1 peak relay limit"}, 2, "transient rcpt 450", true, 1},
		{"at the dot", relaytest.Script{".": "after 1s 250 ok then after 1s 250 ok then 454 Throttling failure"}, 2, "transient content 454", true, 1},
		{"it does not work at all", relaytest.Script{"MAIL": "432 4.3.2 no"}, 0, "transient mail 432", false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				if tt.script["."] == "" {
					tt.script["."] = "after 1s 250 ok"
				}
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) {
					o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				})
				if tt.warm > 0 {
					deliverMany(t.Context(), p.relay, tt.warm)
				}
				a := p.deliver(t, tt.want)
				if f := a.Results[0].Failure; f != nil && errors.Is(f, mailer.ErrPushedBack) != tt.pushed {
					t.Errorf("the failure's cause is %v; want ErrPushedBack: %v", f.Err, tt.pushed)
				}
				if got := p.relay.Connections().Limit; got != tt.limit {
					t.Errorf("limit %d, want %d: %s", got, tt.limit, &log)
				}
			})
		})
	}
}
