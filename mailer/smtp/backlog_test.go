package smtp_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// wire is the first connection of a test, in clear text so that it can be seen
// and cut at any octet.
type wire struct {
	net.Conn
	mu       sync.Mutex
	writes   []string
	times    []time.Time // of the writes
	jam      bool        // the envelope that joins goes out in part, and no more
	sent     int
	got      int
	cutSent  int  // the connection ends after so many octets from us; negative: never
	cutGot   int  // or after so many from the relay
	splitGot int  // what the relay sends comes in two packets, the first of so many octets; zero: as it was sent
	quiet    bool // the writes that are cut seem to succeed, as they do in a socket's buffer
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes, w.times = append(w.writes, string(p)), append(w.times, time.Now())
	if w.jam && len(w.writes) == 4 { // EHLO, MAIL, the content, MAIL
		n, _ := w.Conn.Write(p[:10])
		return n, os.ErrDeadlineExceeded
	}
	if left := w.cutSent - w.sent; w.cutSent >= 0 && left < len(p) {
		n, _ := w.Conn.Write(p[:max(left, 0)])
		w.sent += n
		w.Close()
		if w.quiet {
			return len(p), nil
		}
		return n, os.NewSyscallError("write", syscall.ECONNRESET)
	}
	n, err := w.Conn.Write(p)
	w.sent += n
	return n, err
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	left := w.cutGot - w.got
	w.mu.Unlock()
	if w.cutGot >= 0 {
		if left <= 0 {
			return 0, os.NewSyscallError("read", syscall.ECONNRESET)
		}
		p = p[:min(left, len(p))]
	}
	if left := w.splitGot - w.got; left > 0 {
		p = p[:min(left, len(p))]
	} else if left == 0 && w.splitGot > 0 {
		time.Sleep(time.Millisecond) // the second packet
	}
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got += n
	return n, err
}

// newWireTest is a relay in clear text with one connection at a time, the first
// of them over w.
func newWireTest(t *testing.T, script relaytest.Script, w *wire, edit func(*smtp.Options)) *poolTest {
	t.Helper()
	extensions := []string{"PIPELINING", "SIZE 1000000", "8BITMIME"}
	p := newPoolTest(t, relaytest.Options{Extensions: extensions}, script, func(o *smtp.Options) {
		o.Cleartext, o.MaxConnections = true, 1
		o.Username, o.Password = "", ""
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if w.Conn == nil && err == nil {
				w.Conn = c
				return w, nil
			}
			return c, err
		}
		if edit != nil {
			edit(o)
		}
	})
	return p
}

// deliverBehind delivers n messages; all but the first wait for the connection
// while the relay thinks about the first one's DATA.
func deliverBehind(t *testing.T, relay *smtp.Relay, n int) []mailer.Attempt {
	t.Helper()
	attempts := make([]mailer.Attempt, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			path := fmt.Sprintf("r%d@example.org", i)
			attempts[i] = relay.Deliver(t.Context(), envelope(path), content(numbered(path)))
		})
		synctest.Wait()
	}
	all.Wait()
	return attempts
}

func (p *poolTest) checkAttempts(t *testing.T, attempts []mailer.Attempt) {
	t.Helper()
	results := map[string]mailer.Result{}
	for _, a := range attempts {
		results[a.Results[0].ForwardPath] = a.Results[0]
	}
	checkDelivered(t, p.scripted, results)
	p.relay.Close()
	if n := p.network.Open(); n != 0 {
		t.Errorf("%d connections left open", n)
	}
}

// slowDATA lets the other messages come while the first one waits.
const slowDATA = "after 10ms 354 go then 354 go"

// TestBacklog: under a backlog the content of one message and the envelope of
// the next are one flight, so that a connection carries a message in each round
// trip.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		w := &wire{cutSent: -1, cutGot: -1}
		p := newWireTest(t, relaytest.Script{"DATA": slowDATA}, w, nil)
		p.checkAttempts(t, deliverBehind(t, p.relay, n))
		if got, want := len(w.writes), 1+1+n+1; got != want { // EHLO, the first envelope, contents, QUIT
			t.Errorf("%d messages took %d flights, want %d: %q", n, got, want, w.writes)
		}
		if got, want := w.writes[2], ".\r\nMAIL FROM:<a@example.com> SIZE="; !strings.Contains(got, want) || !strings.HasSuffix(got, "DATA\r\n") {
			t.Errorf("flight %q, want the content and the next envelope in it", got)
		}
	})
}

// TestBacklogLockStep: without PIPELINING no envelope follows the final dot.
func TestBacklogLockStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{TLSExtensions: relaytest.Without("PIPELINING")},
			relaytest.Script{"DATA": slowDATA, ".": "hold 250 ok then default", "QUIT": "default"},
			func(o *smtp.Options) { o.MaxConnections = 1 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		results := deliverMany(ctx, p.relay, 2)
		if n := len(p.scripted.Messages()); n != 1 {
			t.Errorf("the relay got %d messages while it had not answered the first: %v", n, results)
		}
	})
}

// TestBacklogFaults: whatever happens to one message, the other one keeps its own
// verdict.
func TestBacklogFaults(t *testing.T) {
	const ok = "accepted 250"
	tests := []struct {
		name          string
		script        relaytest.Script
		first, second string
		served        int
	}{
		{"working relay", relaytest.Script{}, ok, ok, 1},
		{"replies to the next command's moment", relaytest.Script{".": "hold 250 ok then default", "MAIL": "hold 250 ok", "RCPT": "hold 250 ok"}, ok, ok, 1},
		{"split replies", relaytest.Script{".": "split 250 2.0.0 ok", "MAIL": "split 250-a\n250 b", "RCPT": "split 250 ok"}, ok, ok, 1},
		{"dropped at the dot", relaytest.Script{".": "drop then default"}, "uncertain content", ok, 2},
		{"half a reply to the dot", relaytest.Script{".": "part 250 o then default"}, "uncertain content", ok, 2},
		{"421 at the dot", relaytest.Script{".": "bye 421 4.3.2 down then default"}, "transient content 421", ok, 2},
		{"accepted, then dropped", relaytest.Script{".": "bye 250 ok then default"}, ok, ok, 2},
		{"refused at the dot", relaytest.Script{".": "554 5.7.1 spam then default"}, "permanent content 554", ok, 1},
		{"deferred at the dot", relaytest.Script{".": "450 4.2.0 later then default"}, "transient content 450", ok, 1},
		{"354 at the dot", relaytest.Script{".": "354 go on then default"}, "uncertain content 354", ok, 2},
		{"two replies to the dot", relaytest.Script{".": "inject 250 ok then default"}, ok, ok, 2},
		{"dropped in the first content", relaytest.Script{"content": "drop then default"}, "transient content", ok, 2},
		{"second MAIL refused", relaytest.Script{"MAIL": "250 ok then 550 5.7.1 not you"}, ok, "permanent mail 550", 1},
		{"second MAIL refused, and yet 354", relaytest.Script{"MAIL": "250 ok then 550 5.7.1 not you", "RCPT": "250 ok", "DATA": slowDATA}, ok, "permanent mail 550", 1},
		{"second MAIL 421", relaytest.Script{"MAIL": "250 ok then bye 421 4.7.0 enough then 250 ok"}, ok, ok, 2},
		{"second MAIL 421 twice", relaytest.Script{"MAIL": "250 ok then bye 421 4.7.0 enough"}, ok, "transient mail 421", 2},
		{"second MAIL dropped", relaytest.Script{"MAIL": "250 ok then drop then 250 ok"}, ok, ok, 2},
		{"second RCPT refused", relaytest.Script{"RCPT": "250 ok then 550 5.1.1 unknown"}, ok, "permanent rcpt 550", 1},
		{"second RCPT refused, and yet 354", relaytest.Script{"RCPT": "250 ok then 550 5.1.1 unknown", "DATA": slowDATA}, ok, "permanent rcpt 550", 1},
		{"second RCPT dropped", relaytest.Script{"RCPT": "250 ok then drop then 250 ok"}, ok, ok, 2},
		{"second DATA refused", relaytest.Script{"DATA": "after 10ms 354 go then 451 4.3.0 later"}, ok, "transient data 451", 1},
		{"second DATA dropped", relaytest.Script{"DATA": "after 10ms 354 go then drop then 354 go"}, ok, ok, 2},
		{"second content dropped", relaytest.Script{"content": "default then drop"}, ok, "transient content", 1},
		{"second dot dropped", relaytest.Script{".": "default then drop"}, ok, "uncertain content", 1},
		{"first RCPT refused", relaytest.Script{"RCPT": "550 5.1.1 unknown then 250 ok"}, "permanent rcpt 550", ok, 1},
		{"first MAIL refused", relaytest.Script{"MAIL": "550 5.7.1 no then 250 ok"}, "permanent mail 550", ok, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.script["greeting"] = "after 10ms 220 relay.test" // the second message is there by then
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) { o.MaxConnections = 1 })
				attempts := deliverBehind(t, p.relay, 2)
				if first, second := outcomes(attempts[0]), outcomes(attempts[1]); first != tt.first || second != tt.second {
					t.Errorf("outcomes: %s; %s; want %s; %s", first, second, tt.first, tt.second)
				}
				if n := p.scripted.Served(); n != tt.served {
					t.Errorf("%d connections, want %d", n, tt.served)
				}
				p.checkAttempts(t, attempts)
			})
		})
	}
}

// TestBacklogCut loses the connection at every octet of the flight with two
// messages in it, and at every octet of the replies.
func TestBacklogCut(t *testing.T) {
	var from, to, replies int
	synctest.Test(t, func(t *testing.T) {
		w := &wire{cutSent: -1, cutGot: -1}
		p := newWireTest(t, relaytest.Script{"DATA": slowDATA}, w, nil)
		p.checkAttempts(t, deliverBehind(t, p.relay, 2))
		for _, s := range w.writes {
			if !strings.Contains(s, "\r\n.\r\nMAIL") {
				if to == 0 {
					from += len(s)
				}
				continue
			}
			to = from + len(s)
		}
		replies = w.got
	})
	if to == 0 {
		t.Fatal("no flight has two messages")
	}
	for at := from; at < to; at++ {
		for _, quiet := range []bool{false, true} {
			checkCut(t, fmt.Sprintf("sent %d of %d to %d, quiet %v", at, from, to, quiet), &wire{cutSent: at, cutGot: -1, quiet: quiet})
		}
	}
	for at := range replies {
		checkCut(t, fmt.Sprintf("got %d of %d", at, replies), &wire{cutSent: -1, cutGot: at})
	}
}

// TestBacklogSplit: where the packets of replies end does not matter.
func TestBacklogSplit(t *testing.T) {
	for _, script := range []relaytest.Script{
		{"DATA": slowDATA},
		// As few packets as can be: each reply waits for the next command.
		{"DATA": slowDATA, "MAIL": "hold 250-2.1.0 a\n250 2.1.0 b", "RCPT": "hold 250 ok", ".": "hold 250 2.0.0 ok then 250 2.0.0 ok"},
		{"DATA": slowDATA, "RCPT": "250 ok then 550-5.1.1 un\n550 5.1.1 known"},
	} {
		replies, want := 0, ""
		for at := 0; at == 0 || at < replies; at++ {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{cutSent: -1, cutGot: -1, splitGot: at}
				p := newWireTest(t, script, w, nil)
				attempts := deliverBehind(t, p.relay, 2)
				p.checkAttempts(t, attempts)
				got := outcomes(attempts[0]) + "; " + outcomes(attempts[1])
				if at == 0 {
					want, replies = got, w.got
				}
				if got != want || p.scripted.Served() != 1 {
					t.Errorf("replies split after %d of %d octets: %s over %d connections, want %s over one", at, replies, got, p.scripted.Served(), want)
				}
			})
		}
	}
}

func checkCut(t *testing.T, name string, w *wire) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newWireTest(t, relaytest.Script{"DATA": slowDATA}, w, nil)
		attempts := deliverBehind(t, p.relay, 2)
		p.checkAttempts(t, attempts)
		checkUndelivered(t, name, p, attempts)
		if second := attempts[1].Results[0].Failure; w.cutSent >= 0 && second != nil {
			t.Errorf("%s: the second message came to nothing: %s", name, outcome(attempts[1].Results[0]))
		}
	})
}

// checkUndelivered: the relay has no message that failed and is not uncertain.
func checkUndelivered(t *testing.T, name string, p *poolTest, attempts []mailer.Attempt) {
	t.Helper()
	for i, a := range attempts {
		f := a.Results[0].Failure
		if f == nil || f.Class == mailer.ClassUncertain {
			continue
		}
		for _, m := range p.scripted.Messages() {
			if bytes.Contains(m.Data, []byte(a.Results[0].ForwardPath)) {
				t.Errorf("%s: message %d is %s, and yet the relay has it", name, i, outcome(a.Results[0]))
			}
		}
	}
}

// TestBacklogStops: a delivery that is stopped while its envelope is under way
// ends at once, and the message before it is not touched by that.
func TestBacklogStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"DATA": slowDATA, ".": "after 10s 250 ok"},
			func(o *smtp.Options) { o.MaxConnections = 1 })
		var all sync.WaitGroup
		want := []string{"accepted 250", "transient connect", "accepted 250"}
		for i := range 3 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i == 1 {
					time.AfterFunc(time.Second, cancel)
				}
				begin := time.Now()
				path := fmt.Sprintf("r%d@example.org", i)
				a := p.relay.Deliver(ctx, envelope(path), content(numbered(path)))
				if got := outcomes(a); got != want[i] {
					t.Errorf("delivery %d = %s, want %s", i, got, want[i])
				}
				if took := time.Since(begin); i == 1 && took != time.Second {
					t.Errorf("delivery %d was stopped after %v, want 1s", i, took)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		if n := len(p.scripted.Messages()); n != 2 {
			t.Errorf("the relay got %d messages, want 2", n)
		}
	})
}

// TestBacklogLate: a late verdict is still heard when the delivery that booked
// the connection has left before its holder did.
func TestBacklogLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"DATA": slowDATA, ".": "after 60s 250 ok then default"},
			func(o *smtp.Options) {
				o.MaxConnections, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
			})
		var all sync.WaitGroup
		for i, want := range []string{"uncertain content", "transient connect"} {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(30-10*i)*time.Second)
				defer cancel()
				path := fmt.Sprintf("r%d@example.org", i)
				if got := outcomes(p.relay.Deliver(ctx, envelope(path), content(numbered(path)))); got != want {
					t.Errorf("delivery %d = %s, want %s", i, got, want)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		p.deliver(t, "accepted 250") // there is a place
		time.Sleep(time.Minute)
		p.relay.Close()
		if got, want := log.String(), "class=accepted"; !strings.Contains(got, `msg="late verdict"`) || !strings.Contains(got, want) {
			t.Errorf("log = %s, want a late verdict with %s", got, want)
		}
	})
}

// TestBacklogSlow: a delivery that booked a slow connection takes another one,
// and leaves nothing on the first.
func TestBacklogSlow(t *testing.T) {
	tests := []struct {
		name   string
		second string // reply to the DATA of the message on the other connection
		dot    string // reply to the dot of the one in front
		took   time.Duration
		served int
	}{
		{"the other is idle by then", "after 50ms 354 go", "after 200s 250 ok", time.Second + 10*time.Millisecond, 2},
		{"the other comes later", "after 5s 354 go", "after 200s 250 ok", 5 * time.Second, 2},
		{"the slow one comes first", "after 5s 354 go", "after 3s 250 ok", 3*time.Second + 10*time.Millisecond, 2},
		{"the slow one is lost", "after 5s 354 go", "drop", 10 * time.Millisecond, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{},
					relaytest.Script{"DATA": "after 10ms 354 go then " + tt.second + " then 354 go", ".": tt.dot + " then default"},
					func(o *smtp.Options) { o.MaxConnections = 2 })
				var all sync.WaitGroup
				attempts := make([]mailer.Attempt, 3)
				for i := range attempts {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(30+1000*max(0, 1-i))*time.Second)
						defer cancel()
						path := fmt.Sprintf("r%d@example.org", i)
						attempts[i] = p.relay.Deliver(ctx, envelope(path), content(numbered(path)))
					})
					synctest.Wait()
				}
				all.Wait()
				if got, want := outcomes(attempts[2]), "accepted 250"; got != want {
					t.Errorf("the delivery that had booked = %s, want %s", got, want)
				}
				if took := attempts[2].Duration; took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				if n := p.scripted.Served(); n != tt.served {
					t.Errorf("%d connections, want %d", n, tt.served)
				}
				p.checkAttempts(t, attempts)
			})
		})
	}
}

// TestBacklogCrowd: many messages over a relay that takes its time for some of
// them come neither twice nor not at all, and no place is lost.
func TestBacklogCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			".": strings.Repeat("after 200ms 250 ok then after 3s 250 ok then after 1s 250 ok then drop then after 7s 250 ok then ", 12) + "after 1100ms 250 ok",
		}, func(o *smtp.Options) { o.MaxConnections = 3 })
		var all sync.WaitGroup
		var mu sync.Mutex
		results := map[string]mailer.Result{}
		for i := range 120 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(2+i%7*40)*time.Second)
				defer cancel()
				path := fmt.Sprintf("r%d@example.org", i)
				a := p.relay.Deliver(ctx, envelope(path), content(numbered(path)))
				mu.Lock()
				defer mu.Unlock()
				results[path] = a.Results[0]
			})
			time.Sleep(50 * time.Millisecond)
		}
		all.Wait()
		checkDelivered(t, p.scripted, results)
		time.Sleep(time.Minute)
		if results = deliverMany(t.Context(), p.relay, 30); countAccepted(results) != 30 {
			t.Errorf("%d of 30 accepted afterwards", countAccepted(results))
		}
		p.relay.Close()
		if n := p.network.Open(); n != 0 {
			t.Errorf("%d connections left open", n)
		}
	})
}

// TestJoin: a message that comes while the relay thinks about another one's
// content sends its envelope at once, and its content as soon as that one is
// answered: each costs the relay's time for the content, and no round trip more.
func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{cutSent: -1, cutGot: -1}
		p := newWireTest(t, relaytest.Script{".": "after 1s 250 ok"}, w, nil)
		attempts := make([]mailer.Attempt, 3)
		begin := time.Now()
		var all sync.WaitGroup
		for i := range attempts {
			all.Go(func() {
				path := fmt.Sprintf("r%d@example.org", i)
				attempts[i] = p.relay.Deliver(t.Context(), envelope(path), content(numbered(path)))
			})
			time.Sleep(900 * time.Millisecond)
		}
		all.Wait()
		p.checkAttempts(t, attempts)
		var flights []string
		for _, s := range w.writes {
			first, _, _ := strings.Cut(s, " ")
			flights = append(flights, strings.TrimSpace(first))
		}
		if got, want := strings.Join(flights, " "), "EHLO MAIL To: MAIL To: MAIL To: QUIT"; got != want {
			t.Errorf("flights %s, want %s", got, want)
		}
		if got, want := w.times[3].Sub(begin), 900*time.Millisecond; got != want {
			t.Errorf("the second envelope was sent after %v, want %v", got, want)
		}
		for i, a := range attempts {
			if want := time.Second + time.Duration(i)*100*time.Millisecond; a.Duration != want {
				t.Errorf("message %d took %v, want %v", i, a.Duration, want)
			}
		}
	})
}

// TestJoinFaults is TestBacklogFaults for a message that joins.
func TestJoinFaults(t *testing.T) {
	const ok, late = "accepted 250", "after 1s 250 ok"
	tests := []struct {
		name          string
		script        relaytest.Script
		first, second string
		served        int
	}{
		{"working relay", relaytest.Script{}, ok, ok, 1},
		{"the reply comes with the envelope, then dropped", relaytest.Script{".": "hold 250 ok then default", "MAIL": "250 ok then drop then 250 ok"}, ok, ok, 2},
		{"dropped at the dot", relaytest.Script{".": "later drop then default"}, "uncertain content", ok, 2},
		{"421 at the dot", relaytest.Script{".": "later bye 421 4.3.2 down then default"}, "transient content 421", ok, 2},
		{"accepted, then dropped", relaytest.Script{".": "later bye 250 ok then default"}, ok, ok, 2},
		{"refused at the dot", relaytest.Script{".": "after 1s 554 5.7.1 spam then default"}, "permanent content 554", ok, 1},
		{"354 at the dot", relaytest.Script{".": "after 1s 354 go on then default"}, "uncertain content 354", ok, 2},
		{"second MAIL refused", relaytest.Script{"MAIL": "250 ok then 550 5.7.1 not you"}, ok, "permanent mail 550", 1},
		{"second MAIL 421", relaytest.Script{"MAIL": "250 ok then bye 421 4.7.0 enough then 250 ok"}, ok, ok, 2},
		{"second RCPT refused, and yet 354", relaytest.Script{"RCPT": "250 ok then 550 5.1.1 unknown", "DATA": "354 go"}, ok, "permanent rcpt 550", 1},
		{"second DATA dropped", relaytest.Script{"DATA": "354 go then drop then 354 go"}, ok, ok, 2},
		{"second content dropped", relaytest.Script{"content": "default then drop"}, ok, "transient content", 1},
		{"second dot dropped", relaytest.Script{".": late + " then drop"}, ok, "uncertain content", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.script["."] == "" {
					tt.script["."] = late
				}
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) { o.MaxConnections = 1 })
				attempts := make([]mailer.Attempt, 2)
				var all sync.WaitGroup
				for i := range attempts {
					all.Go(func() {
						path := fmt.Sprintf("r%d@example.org", i)
						attempts[i] = p.relay.Deliver(t.Context(), envelope(path), content(numbered(path)))
					})
					time.Sleep(500 * time.Millisecond)
				}
				all.Wait()
				if first, second := outcomes(attempts[0]), outcomes(attempts[1]); first != tt.first || second != tt.second {
					t.Errorf("outcomes: %s; %s; want %s; %s", first, second, tt.first, tt.second)
				}
				if n := p.scripted.Served(); n != tt.served {
					t.Errorf("%d connections, want %d", n, tt.served)
				}
				p.checkAttempts(t, attempts)
			})
		})
	}
}

// TestJoinCut loses the connection at every octet of the envelope that joins, and
// at every octet of the replies.
func TestJoinCut(t *testing.T) {
	script := func() relaytest.Script { return relaytest.Script{".": "after 1s 250 2.0.0 ok"} }
	deliver := func(t *testing.T, p *poolTest) []mailer.Attempt {
		attempts := make([]mailer.Attempt, 2)
		var all sync.WaitGroup
		for i := range attempts {
			all.Go(func() {
				path := fmt.Sprintf("r%d@example.org", i)
				attempts[i] = p.relay.Deliver(t.Context(), envelope(path), content(numbered(path)))
			})
			time.Sleep(500 * time.Millisecond)
		}
		all.Wait()
		return attempts
	}
	var from, to, replies int
	synctest.Test(t, func(t *testing.T) {
		w := &wire{cutSent: -1, cutGot: -1}
		p := newWireTest(t, script(), w, nil)
		p.checkAttempts(t, deliver(t, p))
		for i, s := range w.writes[:4] { // EHLO, MAIL, the content, MAIL
			if to += len(s); i < 3 {
				from += len(s)
			}
		}
		replies = w.got
	})
	check := func(name string, w *wire) {
		synctest.Test(t, func(t *testing.T) {
			p := newWireTest(t, script(), w, nil)
			attempts := deliver(t, p)
			p.checkAttempts(t, attempts)
			checkUndelivered(t, name, p, attempts)
			if f := attempts[1].Results[0].Failure; w.cutSent >= 0 && f != nil {
				t.Errorf("%s: the second message came to nothing: %s", name, outcome(attempts[1].Results[0]))
			}
		})
	}
	for at := from; at < to; at++ {
		for _, quiet := range []bool{false, true} {
			check(fmt.Sprintf("sent %d of %d to %d, quiet %v", at, from, to, quiet), &wire{cutSent: at, cutGot: -1, quiet: quiet})
		}
	}
	for at := range replies {
		check(fmt.Sprintf("got %d of %d", at, replies), &wire{cutSent: -1, cutGot: at})
	}
}

// TestJoinJams: an envelope that goes out in part does not touch the message
// before it, and ends the connection.
func TestJoinJams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{cutSent: -1, cutGot: -1, jam: true}
		p := newWireTest(t, relaytest.Script{".": "after 1s 250 ok"}, w, nil)
		attempts := make([]mailer.Attempt, 2)
		var all sync.WaitGroup
		for i := range attempts {
			all.Go(func() {
				path := fmt.Sprintf("r%d@example.org", i)
				attempts[i] = p.relay.Deliver(t.Context(), envelope(path), content(numbered(path)))
			})
			time.Sleep(500 * time.Millisecond)
		}
		all.Wait()
		for i, a := range attempts {
			if got, want := outcomes(a), "accepted 250"; got != want {
				t.Errorf("message %d = %s, want %s", i, got, want)
			}
		}
		if n := p.scripted.Served(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
		p.checkAttempts(t, attempts)
	})
}

// TestJoinLate: a delivery that booked a connection starts over when the time of
// its holder is over. The holder's verdict is still read.
func TestJoinLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 20s 250 ok then default"}, func(o *smtp.Options) {
			o.MaxConnections, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
		})
		var all sync.WaitGroup
		for i, want := range []string{"uncertain content", "accepted 250", "transient connect"} {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), []time.Duration{10 * time.Second, time.Minute, 5 * time.Second}[i])
				defer cancel()
				path := fmt.Sprintf("r%d@example.org", i)
				if got := outcomes(p.relay.Deliver(ctx, envelope(path), content(numbered(path)))); got != want {
					t.Errorf("delivery %d = %s, want %s", i, got, want)
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		all.Wait()
		time.Sleep(time.Minute)
		p.relay.Close()
		if got := log.String(); !strings.Contains(got, `msg="late verdict"`) || !strings.Contains(got, "forward_path=r0@example.org") {
			t.Errorf("log = %s, want a late verdict on the first message", got)
		}
	})
}

// deafWire is a connection over a firewall that discards what follows the final
// dot in its packet, or the first line of that.
type deafWire struct {
	net.Conn
	line bool
}

func (w deafWire) Write(p []byte) (int, error) {
	before, behind, found := bytes.Cut(p, []byte("\r\n.\r\nMAIL"))
	if !found {
		return w.Conn.Write(p)
	}
	heard := slices.Concat(before, []byte("\r\n.\r\n"))
	if _, rest, _ := bytes.Cut(behind, []byte("\r\n")); w.line {
		heard = append(heard, rest...)
	}
	if _, err := w.Conn.Write(heard); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestBacklogDeaf: where commands behind the final dot are discarded, only the
// first message meets that. PIPELINING is still used.
func TestBacklogDeaf(t *testing.T) {
	for _, line := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			p := newPoolTest(t, relaytest.Options{Extensions: []string{"PIPELINING"}}, relaytest.Script{"DATA": slowDATA}, func(o *smtp.Options) {
				o.Cleartext, o.MaxConnections, o.Logger = true, 1, slog.New(slog.NewTextHandler(&log, nil))
				o.Username, o.Password = "", ""
				dial := o.Dial
				o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := dial(ctx, network, addr)
					return deafWire{c, line}, err
				}
			})
			attempts := deliverBehind(t, p.relay, 6)
			for i, a := range attempts {
				if got, want := outcomes(a), "accepted 250"; got != want {
					t.Errorf("line %v: message %d = %s, want %s", line, i, got, want)
				}
				if a.Duration > 11*time.Second {
					t.Errorf("line %v: message %d took %v, want 10s at most", line, i, a.Duration)
				}
			}
			if n := p.scripted.Served(); n != 2 {
				t.Errorf("line %v: %d connections, want 2", line, n)
			}
			if n := strings.Count(log.String(), "switched off"); n != 1 || !strings.Contains(log.String(), `extension="PIPELINING behind the final dot"`) {
				t.Errorf("line %v: log = %s, want one extension switched off", line, &log)
			}
			p.checkAttempts(t, attempts)
		})
	}
}

// TestBacklogEnds: a relay that ends the connection when an envelope follows the
// final dot is found out after two of them, and an end by chance is not counted.
func TestBacklogEnds(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
		n      int
		served int // connections at most
		off    bool
	}{
		{"after the reply to the dot", relaytest.Script{".": "last 250 ok"}, 12, 3, true},
		{"instead of it", relaytest.Script{".": "last"}, 12, 3, true},
		{"by chance", relaytest.Script{".": "default then bye 250 ok then default then default then bye 250 ok then default then default then bye 250 ok then default"}, 12, 4, false},
		{"421 each time", relaytest.Script{".": "default", "MAIL": "default then bye 421 4.3.0 no"}, 3, 20, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log lockedBuffer
				tt.script["DATA"] = slowDATA
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) {
					o.MaxConnections, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
				})
				attempts := deliverBehind(t, p.relay, tt.n)
				if n := p.scripted.Served(); n > tt.served {
					t.Errorf("%d messages took %d connections, want %d at most", tt.n, n, tt.served)
				}
				if got := strings.Contains(log.String(), "behind the final dot"); got != tt.off {
					t.Errorf("switched off: %v, want %v: %s", got, tt.off, &log)
				}
				p.checkAttempts(t, attempts)
			})
		})
	}
}

// TestBacklogRestarts: connections that end together with the relay are no reason
// to send nothing behind the final dot.
func TestBacklogRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"DATA": "after 10ms 354 go", ".": "after 100ms 250 ok"}, func(o *smtp.Options) {
			o.MaxConnections, o.Logger = 2, slog.New(slog.NewTextHandler(&log, nil))
		})
		time.AfterFunc(50*time.Millisecond, p.scripted.Restart) // two contents and two envelopes are out
		results := deliverMany(t.Context(), p.relay, 10)
		checkDelivered(t, p.scripted, results)
		if n := countAccepted(results); n != 8 {
			t.Errorf("%d messages accepted, want 8 of 10", n)
		}
		if strings.Contains(log.String(), "switched off") {
			t.Errorf("log = %s, want nothing switched off", &log)
		}
	})
}

// TestBacklogInDoubt: a message with a recipient whose refusal is in doubt has one more
// transaction before it. So another envelope does not go behind its content: its
// replies would be taken for those to the recipient in doubt.
func TestBacklogInDoubt(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for comes := 2 * time.Millisecond; comes < 80*time.Millisecond; comes += 3 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
					"RCPT TO:<doubt": "550 5.1.1 no then 250 2.1.5 ok", "RCPT TO:<other": "553 5.1.1 not that one",
					"DATA": "default then drop then bye 421 4.3.2 too many connections then default",
					".":    "after 50ms 250 2.0.0 ok then after 10ms 250 2.0.0 ok",
				}, func(o *smtp.Options) { o.MaxConnections, o.MaxRecipients = 2, 1 })
				var all sync.WaitGroup
				deliver := func(after time.Duration, want int, to ...string) {
					all.Go(func() {
						time.Sleep(after)
						for _, r := range p.relay.Deliver(t.Context(), envelope(to...), content(messageText)).Results {
							if r.Reply.Code != want {
								t.Errorf("%d recipients beside the one in doubt, another message after %v: %s got %d %s, want %d", n, comes, r.ForwardPath, r.Reply.Code, r.Reply.Text, want)
							}
						}
					})
				}
				deliver(0, 250, "first@example.org")
				deliver(time.Millisecond, 250, []string{"doubt@example.org", "a@example.org", "b@example.org", "c@example.org"}[:1+n]...)
				deliver(comes, 553, "other@example.org")
				deliver(comes+time.Millisecond, 250, "last@example.org")
				all.Wait()
			})
		}
	}
}

// TestLastWord: a relay that takes no more of the content may say why.
func TestLastWord(t *testing.T) {
	tests := []struct {
		content string // what the script says
		want    string
	}{
		{"552 5.3.4 too large", "permanent content 552"},
		{"452 4.3.1 full", "transient content 452"},
		{"250 what", "transient content"},
		{"drop", "transient content"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"content": tt.content}, nil)
			large := "Subject: x\r\n\r\n" + strings.Repeat("x\r\n", 1<<20)
			a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(large))
			if got := outcomes(a); got != tt.want {
				t.Errorf("Deliver() to a relay that says %q in the content = %s, want %s", tt.content, got, tt.want)
			}
		})
	}
}
