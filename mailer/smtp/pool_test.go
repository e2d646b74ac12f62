package smtp_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// poolTest is a relay with one rung and its client.
type poolTest struct {
	scripted *relaytest.Relay
	network  *relaytest.Network
	opts     smtp.Options
	relay    *smtp.Relay
}

func newPoolTest(t *testing.T, opts relaytest.Options, script relaytest.Script, edit func(*smtp.Options)) *poolTest {
	t.Helper()
	p := &poolTest{scripted: relaytest.New(t, opts, script)}
	p.network = &relaytest.Network{Port: map[int]any{587: p.scripted}}
	p.opts = options(p.network)
	p.opts.Ladder = p.opts.Ladder[:1]
	if edit != nil {
		edit(&p.opts)
	}
	p.relay = newRelay(t, p.opts)
	return p
}

func (p *poolTest) deliver(t *testing.T, want string) mailer.Attempt {
	t.Helper()
	a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
	if got := outcomes(a); got != want {
		t.Errorf("Deliver() = %s, want %s (%v)", got, want, a.Results[0].Failure)
	}
	return a
}

// checkConnections compares the number of connections so far, and of those that
// are open.
func (p *poolTest) checkConnections(t *testing.T, served, open int) {
	t.Helper()
	synctest.Wait()
	if p.scripted.Served() != served || p.network.Open() != open {
		t.Errorf("%d connections, %d open; want %d, %d open", p.scripted.Served(), p.network.Open(), served, open)
	}
}

// TestPoolReuse: one connection serves one message after the other, without a
// word between them, up to its limits; then it ends with QUIT.
func TestPoolReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) { o.MessagesPerConnection = 3 })
		for i, open := range []int{1, 1, 0, 1} {
			a := p.deliver(t, "accepted 250")
			if a.Rung.Port != 587 || a.Auth != "PLAIN" || a.TLS == "" {
				t.Errorf("message %d: attempt %+v lacks the connection's properties", i, a)
			}
			p.checkConnections(t, 1+i/3, open)
		}
		if rset, noop, quit := p.scripted.Said("RSET"), p.scripted.Said("NOOP"), p.scripted.Said("QUIT"); rset+noop > 0 || quit != 1 {
			t.Errorf("RSET %d times, NOOP %d, QUIT %d; want 0, 0, 1", rset, noop, quit)
		}
		time.Sleep(29 * time.Second)
		p.checkConnections(t, 2, 1)
		time.Sleep(2 * time.Second) // longer than idle connections are kept
		p.checkConnections(t, 2, 0)
		p.deliver(t, "accepted 250")
		p.relay.Close()
		p.checkConnections(t, 3, 0)
		if quit := p.scripted.Said("QUIT"); quit != 3 {
			t.Errorf("QUIT said %d times, want 3", quit)
		}
		p.deliver(t, "transient connect")
	})
}

// TestPoolFarewell: a relay that does not answer QUIT does not keep Close for long,
// however many connections there are and whether QUIT was said before.
func TestPoolFarewell(t *testing.T) {
	for _, early := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"QUIT": "silence", ".": "after 1s 250 ok"}, func(o *smtp.Options) {
				if early {
					o.MessagesPerConnection = 1
				}
			})
			deliverMany(t.Context(), p.relay, 2)
			synctest.Wait()
			if n := p.scripted.Said("QUIT"); early != (n == 2) {
				t.Errorf("QUIT was said %d times before Close, early %v", n, early)
			}
			begin := time.Now()
			p.relay.Close()
			if took := time.Since(begin); took != 500*time.Millisecond {
				t.Errorf("Close took %v, want 200ms", took)
			}
			p.checkConnections(t, 2, 0)
			if n := p.scripted.Said("QUIT"); n != 2 {
				t.Errorf("QUIT was said %d times, want 2", n)
			}
		})
	}
}

// TestPoolAge: a connection that is used all the time does not live for ever.
func TestPoolAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, nil)
		for range 17 { // over five minutes
			p.deliver(t, "accepted 250")
			time.Sleep(20 * time.Second)
		}
		p.deliver(t, "accepted 250")
		p.checkConnections(t, 2, 1)
	})
}

// TestPoolStale: no message fails because the relay has ended an idle connection.
func TestPoolStale(t *testing.T) {
	tests := []struct {
		name   string
		opts   relaytest.Options
		script relaytest.Script
		pause  time.Duration
		want   string // of the second message
		served int
	}{
		{name: "421 and closed while idle", opts: relaytest.Options{IdleTimeout: time.Second}, pause: 2 * time.Second, want: "accepted 250", served: 2},
		{name: "says something while idle", script: relaytest.Script{".": "inject 250 ok then default"}, want: "accepted 250", served: 2},
		{name: "closed with the last reply", script: relaytest.Script{".": "bye 250 ok then default"}, want: "accepted 250", served: 2},
		{name: "421 at MAIL", script: relaytest.Script{"MAIL": "default then bye 421 4.7.0 enough then default"}, want: "accepted 250", served: 2},
		{name: "421 at MAIL, and again", script: relaytest.Script{"MAIL": "default then bye 421 4.7.0 enough"}, want: "transient mail 421", served: 2},
		{name: "dropped at MAIL", script: relaytest.Script{"MAIL": "default then drop then default"}, want: "accepted 250", served: 2},
		{name: "dropped at RCPT", script: relaytest.Script{"RCPT": "default then drop then default"}, want: "accepted 250", served: 2},
		{name: "dropped at DATA", script: relaytest.Script{"DATA": "default then drop then default"}, want: "accepted 250", served: 2},
		{name: "dropped within the reply to DATA", script: relaytest.Script{"DATA": "default then part 35 then default"}, want: "accepted 250", served: 2},
		{name: "dropped at MAIL, and again", script: relaytest.Script{"MAIL": "default then drop"}, want: "transient mail", served: 2},
		{name: "dropped in the content", script: relaytest.Script{"content": "default then drop then default"}, want: "transient content", served: 1},
		{name: "dropped at the dot", script: relaytest.Script{".": "default then drop then default"}, want: "uncertain content", served: 1},
		{name: "refused at MAIL", script: relaytest.Script{"MAIL": "default then 550 5.7.1 no then default"}, want: "permanent mail 550", served: 1},
		{name: "4yz at MAIL", script: relaytest.Script{"MAIL": "default then 450 4.2.0 no then default"}, want: "transient mail 450", served: 1},
	}
	for _, tt := range tests {
		for _, keywords := range [][]string{nil, {"PIPELINING"}} {
			t.Run(fmt.Sprintf("%s without %v", tt.name, keywords), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tt.opts.TLSExtensions = relaytest.Without(keywords...)
					p := newPoolTest(t, tt.opts, tt.script, nil)
					p.deliver(t, "accepted 250")
					time.Sleep(tt.pause)
					synctest.Wait()
					p.deliver(t, tt.want)
					if got := p.scripted.Served(); got != tt.served {
						t.Errorf("%d connections, want %d", got, tt.served)
					}
					p.relay.Close()
					if n := p.network.Open(); n != 0 {
						t.Errorf("%d connections left open", n)
					}
				})
			})
		}
	}
}

// TestPoolSilent: a connection that was idle and is lost without a word costs a
// message ten seconds; one that was in use a moment ago is not doubted.
func TestPoolSilent(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
		dirty  bool // the first transaction leaves one open
		pause  time.Duration
		want   string
		took   time.Duration
		served int
	}{
		{"after a while", relaytest.Script{"MAIL": "default then silence then default"}, false, 6 * time.Second, "accepted 250", 10 * time.Second, 2},
		{"RSET", relaytest.Script{"RSET": "silence", "RCPT": "550 5.1.1 unknown then default"}, true, 6 * time.Second, "accepted 250", 10 * time.Second, 2},
		{"and again", relaytest.Script{"MAIL": "default then silence"}, false, 6 * time.Second, "transient mail", 10*time.Second + 5*time.Minute, 2},
		{"a slow relay", relaytest.Script{"MAIL": "default then after 1m 250 ok"}, false, 6 * time.Second, "accepted 250", 70 * time.Second, 2},
		{"a slow relay, in use", relaytest.Script{"MAIL": "default then after 1m 250 ok"}, false, time.Second, "accepted 250", time.Minute, 1},
		{"only RCPT is silent", relaytest.Script{"RCPT": "default then silence"}, false, 6 * time.Second, "transient rcpt", 5 * time.Minute, 1},
	}
	for _, tt := range tests {
		for _, keywords := range [][]string{nil, {"PIPELINING"}} {
			t.Run(fmt.Sprintf("%s without %v", tt.name, keywords), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPoolTest(t, relaytest.Options{TLSExtensions: relaytest.Without(keywords...)}, tt.script, nil)
					first := "accepted 250"
					if tt.dirty {
						first = "permanent rcpt 550"
					}
					p.deliver(t, first)
					time.Sleep(tt.pause)
					if a := p.deliver(t, tt.want); a.Duration != tt.took {
						t.Errorf("it took %v, want %v", a.Duration, tt.took)
					}
					if got := p.scripted.Served(); got != tt.served {
						t.Errorf("%d connections, want %d", got, tt.served)
					}
				})
			})
		}
	}
}

// TestPoolErrorLimit: a relay that limits the refusals of a connection, as
// Postfix does, or the commands outside transactions, as Exim does, is not
// brought to its limit. A relay that reaches it is not mistaken for one for which
// we are too fast.
func TestPoolErrorLimit(t *testing.T) {
	tests := []struct {
		name string
		opts relaytest.Options
	}{
		{"Postfix", relaytest.Options{MaxErrors: 20}},
		{"Exim", relaytest.Options{MaxNonmail: 10}},
	}
	for _, tt := range tests {
		for _, keywords := range [][]string{nil, {"PIPELINING"}} {
			t.Run(fmt.Sprintf("%s without %v", tt.name, keywords), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tt.opts.TLSExtensions = relaytest.Without(keywords...)
					p := newPoolTest(t, tt.opts, relaytest.Script{"RCPT TO:<x": "550 5.1.1 unknown"}, nil)
					for i := range 60 {
						path, want := fmt.Sprintf("x%d@example.org", i), "permanent rcpt 550"
						if i%7 == 0 {
							path, want = "b@example.org", "accepted 250"
						}
						if got := outcomes(p.relay.Deliver(t.Context(), envelope(path), content(messageText))); got != want {
							t.Errorf("message %d: Deliver() = %s, want %s", i, got, want)
						}
					}
					paths := manyRecipients(31)
					for i := range 30 {
						paths[i] = "x" + paths[i]
					}
					a := p.relay.Deliver(t.Context(), envelope(paths...), content(messageText))
					if got, want := outcome(a.Results[30]), "accepted 250"; got != want {
						t.Errorf("behind many unknown recipients: %s, want %s", got, want)
					}
					if got := p.relay.Connections().Limit; got != 2 {
						t.Errorf("limit %d (%s), want 2 as at the start", got, p.relay.Connections().Reason)
					}
					if n := p.scripted.Served(); n > 15 {
						t.Errorf("%d connections, want one for several messages", n)
					}
				})
			})
		}
	}
}

// TestPoolReset: after a transaction without content the next begins with RSET.
func TestPoolReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"RCPT": "550 5.1.1 unknown then default"}, nil)
		p.deliver(t, "permanent rcpt 550")
		p.deliver(t, "accepted 250")
		p.deliver(t, "accepted 250")
		p.checkConnections(t, 1, 1)
		if n := p.scripted.Said("RSET"); n != 1 {
			t.Errorf("RSET said %d times, want 1", n)
		}
	})
}

// TestPoolFruitless: relays count refusals, and slow down or end the session. A
// connection that delivers no message, or few, is closed before that.
func TestPoolFruitless(t *testing.T) {
	unknown := func(n int) string { return strings.Repeat("550 5.1.1 unknown then ", n) }
	refused := func(n int) []string { return slices.Repeat([]string{"permanent rcpt 550"}, n) }
	accepted := []string{"accepted 250"}
	tests := []struct {
		name   string
		script relaytest.Script
		want   []string // the outcomes, one after the other
		served int      // connections
	}{
		{"recipients refused", relaytest.Script{"RCPT": "550 5.1.1 unknown"}, refused(8), 2},
		// One more, because the relay may have forgotten the login after the first one.
		{"content refused", relaytest.Script{".": "554 5.7.1 spam"}, slices.Repeat([]string{"permanent content 554"}, 8), 3},
		{
			"a message in time",
			relaytest.Script{"RCPT": unknown(3) + "default then " + unknown(3) + "default"},
			slices.Concat(refused(3), accepted, refused(3), accepted), 1,
		},
		{
			"a message now and then",
			relaytest.Script{"RCPT": strings.Repeat(unknown(3)+"default then ", 5) + unknown(3) + "default"},
			slices.Repeat(slices.Concat(refused(3), accepted), 6), 2,
		},
		{
			"one refused beside each message",
			relaytest.Script{"RCPT": strings.Repeat(unknown(1)+"default then ", 19) + unknown(1) + "default"},
			slices.Repeat(slices.Concat(refused(1), accepted), 20), 1,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{}, tt.script, nil)
				for _, want := range tt.want {
					p.deliver(t, want)
				}
				synctest.Wait()
				if n := p.scripted.Served(); n != tt.served {
					t.Errorf("%d connections, want %d", n, tt.served)
				}
				if n := p.scripted.Said("QUIT"); n != tt.served-p.network.Open() {
					t.Errorf("QUIT said %d times, want %d", n, tt.served-p.network.Open())
				}
			})
		})
	}
}

// deliverMany delivers n messages at the same time, each to a recipient of its
// own, and returns the outcomes by recipient.
func deliverMany(ctx context.Context, relay *smtp.Relay, n int) map[string]mailer.Result {
	var mu sync.Mutex
	var all sync.WaitGroup
	results := map[string]mailer.Result{}
	for i := range n {
		all.Go(func() {
			path := fmt.Sprintf("r%d@example.org", i)
			a := relay.Deliver(ctx, envelope(path), content(numbered(path)))
			mu.Lock()
			defer mu.Unlock()
			results[path] = a.Results[0]
		})
	}
	all.Wait()
	return results
}

// numbered is a message that tells whose it is.
func numbered(path string) string { return "To: " + path + "\r\n\r\n.hello\r\n" }

// checkDelivered compares results with the messages that the relay got: accepted
// means one copy of the right message.
func checkDelivered(t *testing.T, scripted *relaytest.Relay, results map[string]mailer.Result) {
	t.Helper()
	copies := map[string]int{}
	for _, m := range scripted.Messages() {
		for _, path := range m.ForwardPaths {
			if strings.Contains(m.Reply, "250 ") || m.Reply == "default" || m.Reply == "last" {
				copies[path]++
			}
			if string(m.Data) != numbered(path) {
				t.Errorf("%s got %q", path, m.Data)
			}
		}
	}
	for path, r := range results {
		accepted := r.Failure == nil
		uncertain := !accepted && r.Failure.Class == mailer.ClassUncertain
		if n := copies[path]; n > 1 || (n == 1) != accepted && !uncertain {
			t.Errorf("%s got %d copies, but its result is %s", path, n, outcome(r))
		}
	}
}

func countAccepted(results map[string]mailer.Result) int {
	n := 0
	for _, r := range results {
		if r.Failure == nil {
			n++
		}
	}
	return n
}

// TestPoolGrows: from two connections to as many as there are deliveries at a
// time, up to the limit; the others wait for one.
func TestPoolGrows(t *testing.T) {
	tests := []struct {
		name      string
		opts      relaytest.Options
		max       int // ours
		n         int
		most      int // zero: the relay notices late that one has gone
		minServed int
	}{
		{name: "one message", max: 8, n: 1, most: 1, minServed: 1},
		{name: "few", max: 8, n: 5, most: 3, minServed: 3},
		{name: "many", max: 8, n: 100, most: 8, minServed: 8},
		{name: "one connection", max: 1, n: 20, most: 1, minServed: 1},
		{name: "relay takes three", opts: relaytest.Options{MaxConnections: 3}, max: 8, n: 50, most: 3, minServed: 3},
		{name: "421 after five", opts: relaytest.Options{MaxMessages: 5}, max: 4, n: 100, minServed: 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, tt.opts, relaytest.Script{".": "after 10ms 250 2.0.0 ok"}, func(o *smtp.Options) { o.MaxConnections = tt.max })
				results := deliverMany(t.Context(), p.relay, tt.n)
				checkDelivered(t, p.scripted, results)
				if n := countAccepted(results); n != tt.n {
					t.Errorf("%d of %d accepted: %v", n, tt.n, results)
				}
				if got := p.scripted.Most(); got != tt.most && tt.most > 0 {
					t.Errorf("%d connections at a time, want %d", got, tt.most)
				}
				if got := p.scripted.Served(); got < tt.minServed {
					t.Errorf("%d connections, want at least %d", got, tt.minServed)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := p.network.Open(); n != 0 {
					t.Errorf("%d connections open though idle", n)
				}
			})
		})
	}
}

// TestPoolLine: deliveries that wait for a connection are served in order, and
// may leave.
func TestPoolLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 1s 250 2.0.0 ok"}, func(o *smtp.Options) { o.MaxConnections = 1 })
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i == 2 {
					ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
					defer cancel()
				}
				begin := time.Now()
				a := p.relay.Deliver(ctx, envelope(fmt.Sprintf("r%d@example.org", i)), content(messageText))
				want, took := "accepted 250", time.Duration(i+1)*time.Second
				switch {
				case i == 2:
					want, took = "transient connect", 500*time.Millisecond
				case i > 2:
					took -= time.Second
				}
				if got := outcomes(a); got != want || time.Since(begin).Round(100*time.Millisecond) != took {
					t.Errorf("delivery %d = %s after %v, want %s after %v", i, got, time.Since(begin), want, took)
				}
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
	})
}

// TestPoolPriority: deliveries that wait for a connection are served by priority,
// also those whose envelope is sent ahead.
func TestPoolPriority(t *testing.T) {
	for _, keywords := range [][]string{nil, {"PIPELINING"}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{TLSExtensions: relaytest.Without(keywords...)},
				relaytest.Script{"DATA": "after 1s 354 go", ".": "250 2.0.0 ok"}, func(o *smtp.Options) { o.MaxConnections = 1 })
			var all sync.WaitGroup
			for i, priority := range []mailer.Priority{
				mailer.PriorityNormal, // has the connection
				mailer.PriorityBulk, mailer.PriorityNormal, mailer.PriorityBulk, mailer.PriorityHigh, mailer.PriorityNormal, mailer.PriorityHigh,
			} {
				all.Go(func() {
					env := envelope(fmt.Sprintf("r%d@example.org", i))
					env.Priority = priority
					if got, want := outcomes(p.relay.Deliver(t.Context(), env, content(messageText))), "accepted 250"; got != want {
						t.Errorf("message %d = %s, want %s", i, got, want)
					}
				})
				time.Sleep(time.Millisecond)
			}
			all.Wait()
			var got []string
			for _, m := range p.scripted.Messages() {
				got = append(got, m.ForwardPaths[0][:2])
			}
			if want := "r0 r4 r6 r2 r5 r1 r3"; strings.Join(got, " ") != want {
				t.Errorf("without %v the relay got %v, want %s", keywords, got, want)
			}
		})
	}
}

// TestPoolPriorityBounded: bulk mail is not overtaken for ever.
func TestPoolPriorityBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 1s 250 2.0.0 ok"}, func(o *smtp.Options) { o.MaxConnections = 1 })
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 { // more than the connection can take
			all.Go(func() {
				for ctx.Err() == nil {
					env := envelope("high@example.org")
					env.Priority = mailer.PriorityHigh
					p.relay.Deliver(t.Context(), env, content(messageText))
				}
			})
		}
		time.Sleep(time.Millisecond)
		env := envelope("bulk@example.org")
		env.Priority = mailer.PriorityBulk
		if got, want := outcomes(p.relay.Deliver(t.Context(), env, content(messageText))), "accepted 250"; got != want {
			t.Errorf("the bulk message = %s, want %s", got, want)
		}
		cancel()
		all.Wait()
		if took := time.Since(begin); took < 3*time.Minute || took > 3*time.Minute+10*time.Second {
			t.Errorf("the bulk message took %v, want about 3m", took)
		}
	})
}

// TestPoolDead: deliveries in line learn at once that the relay cannot be
// reached.
func TestPoolDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) { o.MaxConnections = 2 })
		p.network.Set(587, relaytest.BlackHole)
		begin := time.Now()
		for path, r := range deliverMany(t.Context(), p.relay, 20) {
			if got, want := outcome(r), "relay connect"; got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("the failures came after %v, want 5s", took)
		}
		p.network.Set(587, p.scripted)
		p.deliver(t, "accepted 250")
	})
}

// TestPoolLate: a relay that hangs at the final dot gets no more connections than
// allowed: those that wait for late verdicts count.
func TestPoolLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 4m 250 2.0.0 ok then after 4m 250 2.0.0 ok then default"}, func(o *smtp.Options) {
			o.MaxConnections, o.Logger = 2, slog.New(slog.NewTextHandler(&log, nil))
		})
		for i, want := range []string{"uncertain content", "uncertain content", "transient connect", "transient connect"} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if got := outcomes(p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText))); got != want {
				t.Errorf("message %d: Deliver() = %s, want %s", i, got, want)
			}
			cancel()
			p.checkConnections(t, min(i+1, 2), min(i+1, 2))
		}
		p.deliver(t, "accepted 250") // after the first verdict
		time.Sleep(time.Minute)
		p.checkConnections(t, 3, 0)
		if heard := strings.Count(log.String(), `msg="late verdict"`); heard != 2 || p.scripted.Most() != 2 {
			t.Errorf("%d late verdicts, %d connections at a time, want 2 and 2", heard, p.scripted.Most())
		}
	})
}

// TestPoolSoak: a relay that restarts, closes idle connections, limits the
// messages of a connection, refuses half of the connections, and limits
// transactions at a time and in a second. Every message arrives once, no
// connection is left, and the relay gets less load.
func TestPoolSoak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, each = 24, 30
		p := newPoolTest(t, relaytest.Options{
			IdleTimeout: time.Second, MaxMessages: 5, MaxConnections: 6, MaxBusy: 4, MaxRate: 80, TooFast: "bye 421 4.7.0 try again later",
		},
			relaytest.Script{".": "after 20ms 250 2.0.0 ok", "DATA": "after 5ms 354 go"}, nil)
		var dials atomic.Int64
		dial := p.opts.Dial
		p.opts.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1)%2 == 0 {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			return dial(ctx, network, addr)
		}
		relay := newRelay(t, p.opts)
		ctx, cancel := context.WithCancel(t.Context())
		var restarts sync.WaitGroup
		restarts.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(333 * time.Millisecond)
				p.scripted.Restart()
			}
		})
		var mu sync.Mutex
		var all sync.WaitGroup
		results := map[string]mailer.Result{}
		for w := range workers {
			all.Go(func() {
				for i := range each {
					path := fmt.Sprintf("w%d-%d@example.org", w, i)
					env := envelope(path)
					env.Priority = mailer.Priority(w%3 - 1)
					a := relay.Deliver(t.Context(), env, content(numbered(path)))
					for a.Results[0].Failure != nil && a.Results[0].Failure.Class != mailer.ClassUncertain {
						time.Sleep(50 * time.Millisecond) // as the queue does, though later
						a = relay.Deliver(t.Context(), env, content(numbered(path)))
					}
					mu.Lock()
					results[path] = a.Results[0]
					mu.Unlock()
					if i%10 == 9 {
						time.Sleep(2 * time.Second) // idle
					}
				}
			})
		}
		all.Wait()
		cancel()
		restarts.Wait()
		checkDelivered(t, p.scripted, results)
		if n := countAccepted(results); n < workers*each*9/10 {
			t.Errorf("%d of %d accepted", n, workers*each)
		}
		if c := relay.Connections(); c.Limit > 6 || c.Waiting != 0 {
			t.Errorf("Connections() = %+v, want no more than the relay takes and nobody in line", c)
		}
		relay.Close()
		if c := relay.Connections(); c.Open != 0 {
			t.Errorf("Connections() after Close() = %+v, want none", c)
		}
		if n := p.network.Open(); n != 0 {
			t.Errorf("%d connections left open", n)
		}
		t.Logf("%d accepted of %d, %d connections", countAccepted(results), len(results), p.scripted.Served())
	})
}
