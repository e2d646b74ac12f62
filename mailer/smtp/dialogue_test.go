package smtp_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestReplyTooMany: no recipient fails for good by a reply that is not its own. What
// goes once more in lock-step is delivered where the relay says one reply too many
// only once.
func TestReplyTooMany(t *testing.T) {
	const late = "after 10ms 354 go ahead then 354 go ahead"
	tests := []struct {
		name   string
		script relaytest.Script
		want   string // for b and c
	}{
		{"after MAIL, once", relaytest.Script{"MAIL": "250 ok\n250 ok then default", "RCPT TO:<c@": "550 5.1.1 unknown", "DATA": late}, "accepted 250, permanent rcpt 550"},
		{"after MAIL, always", relaytest.Script{"MAIL": "250 ok\n250 ok", "RCPT TO:<c@": "550 5.1.1 unknown", "DATA": late}, "transient mail, transient mail"},
		{"after the first RCPT, once", relaytest.Script{"RCPT TO:<b@": "250 ok\n250 ok then default", "RCPT TO:<c@": "550 5.1.1 unknown", "DATA": late}, "accepted 250, permanent rcpt 550"},
		{"after the first RCPT, always", relaytest.Script{"RCPT TO:<b@": "250 ok\n250 ok", "RCPT TO:<c@": "550 5.1.1 unknown", "DATA": late}, "transient rcpt, transient rcpt"},
		{"a refusal after MAIL, once", relaytest.Script{"MAIL": "extra default | 550 5.7.1 no then default", "DATA": late}, "accepted 250, accepted 250"},
		{"a refusal before MAIL, once", relaytest.Script{"MAIL": "stray 550 5.7.1 no | default then default", "DATA": late}, "accepted 250, accepted 250"},
		{"a refusal before the reply to the dot", relaytest.Script{".": "stray 554 5.7.1 no | default"}, "uncertain content, uncertain content"},
		{"one too few", relaytest.Script{"RCPT TO:<b@": "unsaid 250 ok then default", "RCPT TO:<c@": "550 5.1.1 unknown"}, "accepted 250, permanent rcpt 550"},
		{"one too few, and DATA refused", relaytest.Script{"RCPT TO:<b@": "unsaid 250 ok then default", "RCPT TO:<c@": "550 5.1.1 unknown", "DATA": "451 4.3.0 later"}, "transient data, transient rcpt 451"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scripted := relaytest.New(t, relaytest.Options{}, tt.script)
				network := &relaytest.Network{Port: map[int]any{587: scripted}}
				relay := newRelay(t, options(network))
				a := relay.Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
				if got := outcomes(a); got != tt.want {
					t.Errorf("Deliver() = %s, want %s (%v)", got, tt.want, a.Results[0].Failure)
				}
				relay.Close()
				if n := network.Open(); n != 0 {
					t.Errorf("%d connections left open", n)
				}
			})
		})
	}
}

// TestProofOfTheStep: what proves that a refusal is a recipient's own costs nothing where
// the other replies prove it, and one EHLO where they do not.
func TestProofOfTheStep(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
		fences int
	}{
		{"all accepted", relaytest.Script{}, 0},
		{"one refused", relaytest.Script{"RCPT TO:<b@": "550 5.1.1 unknown"}, 0},
		{"all refused", relaytest.Script{"RCPT": "550 5.1.1 unknown"}, 0},
		{"all deferred", relaytest.Script{"RCPT": "450 4.2.1 busy"}, 0},
		{"MAIL refused", relaytest.Script{"MAIL": "550 5.7.1 no"}, 0},
		{"content deferred", relaytest.Script{".": "450 4.2.1 busy"}, 0},
		{"DATA deferred", relaytest.Script{"DATA": "450 4.2.1 busy"}, 0},
		{"DATA refused", relaytest.Script{"DATA": "554 5.7.1 no"}, 1},
		{"content refused", relaytest.Script{".": "554 5.7.1 no"}, 1},
		{"one refused, one deferred", relaytest.Script{"RCPT TO:<b@": "550 5.1.1 unknown", "RCPT TO:<c@": "450 4.2.1 busy"}, 1},
		{"refused out of order", relaytest.Script{"RCPT": "503 5.5.1 MAIL first"}, 1},
	}
	for _, tt := range tests {
		for _, lockStep := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				opts := relaytest.Options{}
				if lockStep {
					opts.TLSExtensions = relaytest.Without("PIPELINING")
				}
				scripted := relaytest.New(t, opts, tt.script)
				relay := newRelay(t, options(&relaytest.Network{Port: map[int]any{587: scripted}}))
				a := relay.Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
				const session = 2 // EHLO in clear and over TLS
				if got := scripted.Said("EHLO") - session; got != tt.fences || scripted.Said("RSET")+scripted.Said("NOOP") > 0 || scripted.Served() != 1 {
					t.Errorf("%s (lock-step %v): %d EHLO more on %d connections, want %d on one: %s", tt.name, lockStep, got, scripted.Served(), tt.fences, outcomes(a))
				}
				if strings.Contains(outcomes(a), "uncertain") {
					t.Errorf("%s (lock-step %v): %s", tt.name, lockStep, outcomes(a))
				}
			})
		}
	}
}

// TestOtherEHLO: after a login a relay need not offer what it offered before. Some offer
// no AUTH then. The reply proves the step all the same.
func TestOtherEHLO(t *testing.T) {
	for name, again := range map[string]string{
		"without AUTH":       "250-relay.test Hello\n250-SIZE 1000\n250-8BITMIME\n250 PIPELINING",
		"with more, and XYZ": "250-relay.test Hello\n250-SIZE 1000\n250-8BITMIME\n250-PIPELINING\n250-AUTH PLAIN\n250-XYZ\n250 CHUNKING",
	} {
		synctest.Test(t, func(t *testing.T) {
			scripted := relaytest.New(t, relaytest.Options{TLSExtensions: []string{"SIZE 1000", "8BITMIME", "PIPELINING", "AUTH PLAIN"}}, relaytest.Script{
				"EHLO": "default then default then " + again, "RCPT TO:<b@": "550 5.1.1 unknown", "RCPT TO:<c@": "452 too many recipients then default",
			})
			relay := newRelay(t, options(&relaytest.Network{Port: map[int]any{587: scripted}}))
			a := relay.Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
			if got, want := outcomes(a), "permanent rcpt 550, accepted 250"; got != want || scripted.Served() != 1 {
				t.Errorf("EHLO answered %s: Deliver() = %s over %d connections, want %s over one", name, got, scripted.Served(), want)
			}
		})
	}
}

// TestNoSecondEHLO: where the relay takes EHLO only once, as OpenSMTPD does, RSET
// serves as proof.
func TestNoSecondEHLO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{
			"EHLO": "default then default then 503 5.5.1 Already identified", ".": "554 5.7.1 spam then default",
		})
		relay := newRelay(t, options(&relaytest.Network{Port: map[int]any{587: scripted}}))
		for _, want := range []string{"permanent content 554", "accepted 250"} {
			if got := outcomes(relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))); got != want {
				t.Errorf("Deliver() = %s, want %s", got, want)
			}
		}
		if scripted.Served() != 1 {
			t.Errorf("%d connections, want one", scripted.Served())
		}
	})
}

// TestRefusedContentStaysOpen: after a refusal of the content, the transaction may be
// open still. The next message goes out, on the same connection where that can be, and
// never as a part of the one before; neither the extension nor the relay is blamed.
func TestRefusedContentStaysOpen(t *testing.T) {
	for _, reply := range []string{"450 4.7.1 later", "554 5.7.1 spam"} {
		for _, backlog := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var log lockedBuffer
				script := relaytest.Script{".": reply + " then default then " + reply + " then default"}
				if backlog {
					script["DATA"] = slowDATA
				}
				p := newPoolTest(t, relaytest.Options{StaysOpen: true}, script, func(o *smtp.Options) {
					o.MaxConnections, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
				})
				var got []string
				if backlog {
					for _, a := range deliverBehind(t, p.relay, 4) {
						got = append(got, outcomes(a))
					}
				} else {
					for range 4 {
						got = append(got, outcomes(p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))))
					}
				}
				refused := 0
				for _, o := range got {
					if strings.HasSuffix(o, " content "+reply[:3]) {
						refused++
					} else if o != "accepted 250" {
						t.Errorf("%s, backlog %v: %s", reply, backlog, o)
					}
				}
				if refused != 2 {
					t.Errorf("%s, backlog %v: outcomes %q, want two refused and two accepted", reply, backlog, got)
				}
				for _, m := range p.scripted.Messages() {
					if len(m.ForwardPaths) != 1 {
						t.Errorf("%s, backlog %v: a message went to %v", reply, backlog, m.ForwardPaths)
					}
				}
				if !backlog && p.scripted.Served() != 1 {
					t.Errorf("%s: %d connections, want one", reply, p.scripted.Served())
				}
				if strings.Contains(log.String(), "misbehaves") {
					t.Errorf("%s, backlog %v: %s", reply, backlog, log.String())
				}
			})
		}
	}
}

// TestNoResetAfterAcceptance: Exim counts RSET. It is sent only where the relay may need
// it.
func TestNoResetAfterAcceptance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "default then 450 4.7.1 later then default"}, nil)
		for range 4 {
			p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
		}
		if got := p.scripted.Said("RSET"); got != 1 {
			t.Errorf("%d RSET, want one, after the content that was deferred", got)
		}
	})
}

// TestSessionFull: a relay that takes only so many messages on a connection, and says so
// at MAIL without closing it, gets the next one over another.
func TestSessionFull(t *testing.T) {
	for _, reply := range []string{
		"450 4.7.1 Error: too many messages in this session", "452 4.5.3 Too many messages per session", "452 too many messages in one connection",
	} {
		for _, opts := range []relaytest.Options{{}, {TLSExtensions: relaytest.Without("PIPELINING")}} {
			synctest.Test(t, func(t *testing.T) {
				opts.MaxMessages, opts.SessionFull = 1, reply
				p := newPoolTest(t, opts, nil, func(o *smtp.Options) { o.MaxConnections = 1 })
				begin := time.Now()
				for range 5 {
					if got := outcomes(p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))); got != "accepted 250" {
						t.Errorf("%s: Deliver() = %s, want accepted", reply, got)
					}
				}
				if p.scripted.Served() != 5 || time.Since(begin) > time.Second {
					t.Errorf("%s: %d connections in %v, want 5 at once", reply, p.scripted.Served(), time.Since(begin))
				}
				p = newPoolTest(t, opts, nil, nil)
				checkDelivered(t, p.scripted, deliverMany(t.Context(), p.relay, 5))
			})
		}
	}
}

// TestEHLOEndsLogin: some relays forget the login when EHLO comes again, as Brevo and
// Proton do. No other mail goes over that connection, be it the rest of the message or the
// next one.
func TestEHLOEndsLogin(t *testing.T) {
	for name, script := range map[string]relaytest.Script{
		"recipients refused": {"RCPT TO:<b@": "550 5.1.1 unknown", "RCPT TO:<c@": "452 4.5.3 too many recipients then default"},
		"content refused":    {".": "554 5.7.1 spam then default"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{EHLOEndsLogin: true}, script, func(o *smtp.Options) { o.MaxConnections = 1 })
				first := p.relay.Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
				if got := outcomes(first); strings.Contains(got, "transient") || strings.Contains(got, "rcpt 554") {
					t.Errorf("first message: %s", got)
				}
				p.relay.Deliver(t.Context(), envelope("b@example.org", "d@example.org"), content(messageText))
				if got := outcomes(p.relay.Deliver(t.Context(), envelope("d@example.org"), content(messageText))); got != "accepted 250" {
					t.Errorf("next message: %s, want it accepted", got)
				}
			})
		})
	}
}

// TestShortReplyToEHLO: a relay may answer a further EHLO without its extensions. What it
// refused is refused all the same.
func TestShortReplyToEHLO(t *testing.T) {
	for _, script := range []relaytest.Script{{"DATA": "554 5.7.1 no"}, {".": "554 5.7.1 spam"}} {
		synctest.Test(t, func(t *testing.T) {
			script["EHLO"] = strings.Repeat("default then default then 250 relay.test pleased to meet you again then ", 3) + "default"
			p := newPoolTest(t, relaytest.Options{}, script, nil)
			if got := outcomes(p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))); !strings.HasPrefix(got, "permanent ") {
				t.Errorf("%v: Deliver() = %s, want permanent", script, got)
			}
		})
	}
}

// TestSlowEHLO: a relay that takes long for a further EHLO, as Sendmail does after the
// third, is not blamed for its pipelining.
func TestSlowEHLO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			"EHLO": "default then default then silence then default", "RCPT TO:<b@": "550 5.1.1 unknown", "RCPT TO:<c@": "450 4.2.1 busy",
		}, func(o *smtp.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		a := p.relay.Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
		if got, want := outcomes(a), "permanent rcpt 550, transient rcpt 450"; got != want {
			t.Errorf("Deliver() = %s, want %s", got, want)
		}
		if strings.Contains(log.String(), "misbehaves") {
			t.Error(log.String())
		}
	})
}

// TestFencesAreCounted: Exim counts a further EHLO as it counts RSET. No connection is
// brought to its limit, so no message needs a second try for that.
func TestFencesAreCounted(t *testing.T) {
	for _, pattern := range [][]string{{"x", "x", "b"}, {"x", "b"}, {"x", "y", "b"}, {"y", "y", "x", "b"}} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{MaxNonmail: 10}, relaytest.Script{"RCPT TO:<x": "550 5.1.1 unknown", "RCPT TO:<y": "450 4.2.1 busy"}, nil)
			const messages = 60
			for i := range messages {
				paths := []string{"b@example.org"}
				switch pattern[i%len(pattern)] {
				case "x": // the reply to DATA proves nothing
					paths = []string{"x@example.org", "y@example.org"}
				case "y":
					paths = []string{"y@example.org"}
				}
				p.relay.Deliver(t.Context(), envelope(paths...), content(messageText))
			}
			if n := p.scripted.Said("MAIL"); n > messages+1 { // one until it is known that the relay keeps the login
				t.Errorf("%v: %d MAILs for %d messages over %d connections", pattern, n, messages, p.scripted.Served())
			}
		})
	}
}
