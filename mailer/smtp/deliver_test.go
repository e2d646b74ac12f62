package smtp_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

const messageText = "From: a@example.com\r\nSubject: x\r\n\r\n.one\r\n..two\r\nthree\r\n.\r\n"

func content(text string) mailer.Content {
	return mailer.Content{Data: []byte(text), MessageID: "<1@example.com>"}
}

func envelope(forwardPaths ...string) mailer.Envelope {
	return mailer.Envelope{ReversePath: "a@example.com", ForwardPaths: forwardPaths}
}

// options are for a relay on network with the ports 587 and 2525.
func options(network *relaytest.Network) smtp.Options {
	return smtp.Options{
		Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}, {Port: 2525}},
		Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: network.Dial,
	}
}

func newRelay(t *testing.T, opts smtp.Options) *smtp.Relay {
	t.Helper()
	r, err := smtp.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// outcome is what a table expects of one recipient, such as "accepted 250" or
// "transient rcpt 450".
func outcome(r mailer.Result) string {
	if r.Failure == nil {
		return "accepted " + code(r.Reply)
	}
	return strings.TrimSpace(r.Failure.Class.String() + " " + r.Failure.Stage.String() + " " + code(r.Failure.Reply))
}

func code(r mailer.Reply) string {
	s, _, _ := strings.Cut(r.String(), " ")
	return s
}

func outcomes(a mailer.Attempt) string {
	list := make([]string, len(a.Results))
	for i, r := range a.Results {
		list[i] = outcome(r)
	}
	return strings.Join(list, ", ")
}

// TestDialogues runs one fault at each stage. No secret crosses in clear, and no
// connection stays open.
func TestDialogues(t *testing.T) {
	const ten = 10 * time.Minute
	tests := []struct {
		name   string
		opts   relaytest.Options
		script relaytest.Script
		want   string        // outcomes for b, c
		within time.Duration // zero: at once
	}{
		{name: "working relay", want: "accepted 250, accepted 250"},
		{name: "implicit TLS", opts: relaytest.Options{Implicit: true}, want: "accepted 250, accepted 250"},
		{name: "lower case keywords", opts: relaytest.Options{
			Extensions: []string{"starttls"}, TLSExtensions: []string{"auth plain", "8bitmime", "pipelining"},
		}, want: "accepted 250, accepted 250"},
		{name: "no extensions", opts: relaytest.Options{TLSExtensions: []string{"AUTH PLAIN"}}, want: "accepted 250, accepted 250"},
		{name: "only LF", script: relaytest.Script{"EHLO": "lf 250-relay.test\n250-STARTTLS\n250 AUTH PLAIN", ".": "lf 250 ok"}, want: "accepted 250, accepted 250"},
		{name: "codes only", script: relaytest.Script{"greeting": "220", "MAIL": "250", "RCPT": "250", ".": "250"}, want: "accepted 250, accepted 250"},
		{name: "greeting split", script: relaytest.Script{"greeting": "split 220-a\n220 b"}, want: "accepted 250, accepted 250"},
		{name: "RCPT split", script: relaytest.Script{"RCPT": "split 250-2.1.5 a\n250 2.1.5 b"}, want: "accepted 250, accepted 250"},

		{name: "greeting dropped", script: relaytest.Script{"greeting": "drop"}, want: "relay greeting, relay greeting"},
		{name: "greeting 421", script: relaytest.Script{"greeting": "bye 421 4.7.0 slow down"}, want: "transient greeting 421, transient greeting 421"},
		{name: "greeting 554", script: relaytest.Script{"greeting": "554 5.7.1 blocked"}, want: "relay greeting 554, relay greeting 554"},
		{name: "greeting silent", script: relaytest.Script{"greeting": "silence"}, want: "relay greeting, relay greeting", within: 31 * time.Second},
		{name: "greeting drips", script: relaytest.Script{"greeting": "drip 220 " + strings.Repeat("x", 600)}, want: "relay greeting, relay greeting", within: 31 * time.Second},
		{name: "greeting endless line", script: relaytest.Script{"greeting": "endless line"}, want: "relay greeting, relay greeting"},
		{name: "greeting not SMTP", script: relaytest.Script{"greeting": "HTTP/1.1 400 Bad Request"}, want: "relay greeting, relay greeting"},
		{name: "greeting codes differ", script: relaytest.Script{"greeting": "220-a\n221 b"}, want: "relay greeting, relay greeting"},
		{name: "greeting unterminated", script: relaytest.Script{"greeting": "part 220 a"}, want: "relay greeting, relay greeting"},
		{name: "EHLO dropped", script: relaytest.Script{"EHLO": "drop"}, want: "relay ehlo, relay ehlo"},
		{name: "EHLO 421", script: relaytest.Script{"EHLO": "bye 421 4.3.2 down"}, want: "transient ehlo 421, transient ehlo 421"},
		{name: "EHLO 502, no HELO where TLS is needed", script: relaytest.Script{"EHLO": "502 5.5.1 what"}, want: "relay ehlo 502, relay ehlo 502"},
		{name: "EHLO endless reply", script: relaytest.Script{"EHLO": "endless reply"}, want: "relay ehlo, relay ehlo"},
		{name: "STARTTLS not offered", opts: relaytest.Options{Extensions: []string{"AUTH PLAIN"}}, want: "relay starttls, relay starttls"},
		{name: "STARTTLS 454", script: relaytest.Script{"STARTTLS": "454 4.7.0 not now"}, want: "relay starttls 454, relay starttls 454"},
		{name: "STARTTLS dropped", script: relaytest.Script{"STARTTLS": "drop"}, want: "relay starttls, relay starttls"},
		{name: "STARTTLS injected", script: relaytest.Script{"STARTTLS": "inject 220 go"}, want: "relay starttls, relay starttls"},
		{name: "TLS dropped", script: relaytest.Script{"TLS": "drop"}, want: "relay tls, relay tls"},
		{name: "TLS silent", script: relaytest.Script{"TLS": "silence"}, want: "relay tls, relay tls", within: 31 * time.Second},
		{name: "TLS answered in clear", opts: relaytest.Options{Implicit: true}, script: relaytest.Script{"TLS": "plain"}, want: "relay tls, relay tls"},
		{name: "TLS 1.1", opts: relaytest.Options{MaxTLS: 0x0302}, want: "relay tls, relay tls"},
		{name: "certificate expired", opts: relaytest.Options{Certificate: relaytest.Expired}, want: "relay tls, relay tls"},
		{name: "certificate for another name", opts: relaytest.Options{Certificate: relaytest.WrongName}, want: "relay tls, relay tls"},
		{name: "certificate of an unknown authority", opts: relaytest.Options{Certificate: relaytest.UnknownCA}, want: "relay tls, relay tls"},
		{name: "second EHLO dropped", script: relaytest.Script{"EHLO": "default then drop"}, want: "relay ehlo, relay ehlo"},
		{name: "no AUTH", opts: relaytest.Options{TLSExtensions: []string{"SIZE 1000"}}, want: "relay auth, relay auth"},
		{name: "AUTH 535", opts: relaytest.Options{Password: "other"}, want: "relay auth 535, relay auth 535"},
		{name: "AUTH 454", script: relaytest.Script{"AUTH": "454 4.7.0 later"}, want: "relay auth 454, relay auth 454"},
		{name: "AUTH 421", script: relaytest.Script{"AUTH": "bye 421 4.7.0 too many"}, want: "transient auth 421, transient auth 421"},
		{name: "AUTH dropped", script: relaytest.Script{"AUTH": "drop"}, want: "relay auth, relay auth"},
		{name: "AUTH silent", script: relaytest.Script{"AUTH": "silence"}, want: "relay auth, relay auth", within: 61 * time.Second},
		{name: "AUTH asks for ever", script: relaytest.Script{"AUTH": "334 ", "AUTH+": "334 "}, want: "relay auth, relay auth"},

		{name: "MAIL 450", script: relaytest.Script{"MAIL": "450 4.2.0 later"}, want: "transient mail 450, transient mail 450"},
		{name: "MAIL 550", script: relaytest.Script{"MAIL": "550 5.7.1 not you"}, want: "permanent mail 550, permanent mail 550"},
		{name: "MAIL 501 may be about us", script: relaytest.Script{"MAIL": "501 5.5.4 parameter"}, want: "transient mail 501, transient mail 501"},
		{name: "MAIL 530 may be about us", script: relaytest.Script{"MAIL": "530 5.7.57 not authenticated"}, want: "transient mail 530, transient mail 530"},
		{name: "MAIL 555 may be about us", script: relaytest.Script{"MAIL": "555 5.5.4 parameter"}, want: "transient mail 555, transient mail 555"},
		{name: "MAIL refused, yet DATA 354", script: relaytest.Script{"MAIL": "550 5.7.1 not you", "RCPT": "250 ok", "DATA": "354 go"}, want: "permanent mail 550, permanent mail 550"},
		{name: "MAIL 421", script: relaytest.Script{"MAIL": "bye 421 4.3.2 down"}, want: "transient mail 421, transient mail 421"},
		{name: "MAIL 354", script: relaytest.Script{"MAIL": "354 what"}, want: "transient mail, transient mail"},
		{name: "MAIL dropped", script: relaytest.Script{"MAIL": "drop"}, want: "transient mail, transient mail"},
		{name: "MAIL silent", script: relaytest.Script{"MAIL": "silence"}, want: "transient mail, transient mail", within: 301 * time.Second},
		{name: "MAIL drips", script: relaytest.Script{"MAIL": "drip 250 " + strings.Repeat("x", 900)}, want: "transient mail, transient mail", within: 301 * time.Second},
		{name: "MAIL endless line", script: relaytest.Script{"MAIL": "endless line"}, want: "transient mail, transient mail"},
		{name: "RCPT one 450", script: relaytest.Script{"RCPT TO:<b@": "450 4.2.1 busy"}, want: "transient rcpt 450, accepted 250"},
		{name: "RCPT one 550", script: relaytest.Script{"RCPT TO:<c@": "550 5.1.1 unknown"}, want: "accepted 250, permanent rcpt 550"},
		{name: "RCPT all 550", script: relaytest.Script{"RCPT": "550 5.1.1 unknown"}, want: "permanent rcpt 550, permanent rcpt 550"},
		{name: "RCPT all 550, yet DATA 354", script: relaytest.Script{"RCPT": "550 5.1.1 unknown", "DATA": "354 go"}, want: "permanent rcpt 550, permanent rcpt 550"},
		{name: "RCPT 421 at the second", script: relaytest.Script{"RCPT TO:<c@": "bye 421 4.3.2 down"}, want: "transient rcpt 421, transient rcpt 421"},
		{name: "RCPT dropped at the second", script: relaytest.Script{"RCPT TO:<b@": "550 5.1.1 unknown", "RCPT TO:<c@": "drop"}, want: "permanent rcpt 550, transient rcpt"},
		{name: "RCPT too many", script: relaytest.Script{"RCPT TO:<c@": "452 4.5.3 too many then default"}, want: "accepted 250, accepted 250"},
		{name: "RCPT too many as 552", script: relaytest.Script{"RCPT TO:<c@": "552 5.5.3 too many then default"}, want: "accepted 250, accepted 250"},
		{name: "RCPT too many as 550", script: relaytest.Script{"RCPT TO:<c@": "550 5.5.3 too many recipients then default"}, want: "accepted 250, accepted 250"},
		{name: "RCPT too many as 550, in words", script: relaytest.Script{"RCPT TO:<c@": "550 Too many recipients then default"}, want: "accepted 250, accepted 250"},
		{name: "RCPT first 550 is not too many", script: relaytest.Script{"RCPT": "550 5.5.3 too many recipients"}, want: "permanent rcpt 550, permanent rcpt 550"},
		{name: "RCPT first 452 is no more than transient", script: relaytest.Script{"RCPT": "452 4.3.1 full"}, want: "transient rcpt 452, transient rcpt 452"},
		{name: "RCPT mailbox full after an accepted one", script: relaytest.Script{"RCPT TO:<c@": "552 5.2.2 mailbox full"}, want: "accepted 250, permanent rcpt 552"},
		{name: "RCPT too many, and no further transaction", script: relaytest.Script{"RCPT TO:<c@": "552 5.5.3 too many", ".": "drop"}, want: "uncertain content, transient rcpt 552"},
		{name: "RCPT 552 is the account's quota", script: relaytest.Script{"RCPT TO:<c@": "552 5.4.5 Daily sending quota exceeded then default"}, want: "accepted 250, relay rcpt 552"},
		{name: "RCPT MailerSend", script: relaytest.Script{"RCPT TO:<c@": "450 The given data was invalid."}, want: "accepted 250, permanent rcpt 450"},
		{name: "RCPT Oracle", script: relaytest.Script{"RCPT TO:<c@": "254 4.7.1 Suppression for user x to c"}, want: "accepted 250, permanent rcpt 254"},
		{name: "DATA 450", script: relaytest.Script{"DATA": "450 4.2.0 later"}, want: "transient data 450, transient data 450"},
		{name: "DATA 554", script: relaytest.Script{"DATA": "554 5.7.1 no"}, want: "permanent data 554, permanent data 554"},
		{name: "DATA 250", script: relaytest.Script{"DATA": "250 what"}, want: "transient data, transient data"},
		{name: "DATA answered twice", script: relaytest.Script{"DATA": "inject 354 go"}, want: "transient data, transient data"},
		{
			name: "MAIL answered twice", opts: relaytest.Options{TLSExtensions: relaytest.Without("PIPELINING")},
			script: relaytest.Script{"MAIL": "inject 250 ok", "RCPT TO:<c@": "550 5.1.1 unknown"}, want: "transient mail, transient mail",
		},
		{name: "DATA 421", script: relaytest.Script{"DATA": "bye 421 4.3.2 down"}, want: "transient data 421, transient data 421"},
		{name: "DATA dropped", script: relaytest.Script{"DATA": "drop"}, want: "transient data, transient data"},
		{name: "DATA silent", script: relaytest.Script{"DATA": "silence"}, want: "transient data, transient data", within: 121 * time.Second},
		{name: "content dropped", script: relaytest.Script{"content": "drop"}, want: "transient content, transient content"},
		{name: "final dot 450", script: relaytest.Script{".": "450 4.2.0 later"}, want: "transient content 450, transient content 450"},
		{name: "final dot 554", script: relaytest.Script{".": "554 5.7.1 spam"}, want: "permanent content 554, permanent content 554"},
		{name: "final dot 421", script: relaytest.Script{".": "bye 421 4.3.2 down"}, want: "transient content 421, transient content 421"},
		{name: "final dot 550 Gmail quota", script: relaytest.Script{".": "550 5.4.5 Daily user sending limit exceeded"}, want: "relay content 550, relay content 550"},
		{name: "final dot M365 quota", script: relaytest.Script{".": "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"}, want: "relay content 554, relay content 554"},
		{name: "final dot Oracle names one", script: relaytest.Script{".": "254 4.7.1 Suppression for user x to c@example.org"}, want: "accepted 254, permanent content 254"},
		{name: "final dot dropped", script: relaytest.Script{".": "drop"}, want: "uncertain content, uncertain content"},
		{name: "final dot unterminated", script: relaytest.Script{".": "part 250 2.0.0 ok"}, want: "uncertain content, uncertain content"},
		{name: "final dot not SMTP", script: relaytest.Script{".": "oops"}, want: "uncertain content, uncertain content"},
		{name: "final dot 354", script: relaytest.Script{".": "354 go on"}, want: "uncertain content 354, uncertain content 354"},
		{name: "final dot silent", script: relaytest.Script{".": "silence"}, want: "uncertain content, uncertain content", within: ten + time.Second},
		{name: "final dot endless reply", script: relaytest.Script{".": "endless reply"}, want: "uncertain content, uncertain content"},
		{name: "dropped after the verdict", script: relaytest.Script{".": "default", "QUIT": "drop"}, want: "accepted 250, accepted 250"},
		{name: "QUIT silent", script: relaytest.Script{"QUIT": "silence"}, want: "accepted 250, accepted 250"},
		{name: "QUIT 500", script: relaytest.Script{"QUIT": "500 what"}, want: "accepted 250, accepted 250"},
	}
	for _, tt := range tests {
		for _, pipelining := range []bool{true, false} {
			name := tt.name
			if !pipelining {
				if tt.opts.TLSExtensions != nil {
					continue
				}
				name += ", lock-step"
				tt.opts.TLSExtensions = relaytest.Without("PIPELINING")
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					scripted := relaytest.New(t, tt.opts, tt.script)
					network := &relaytest.Network{Port: map[int]any{587: scripted}}
					opts := options(network)
					opts.Ladder = []mailer.Rung{{Port: 587, Implicit: tt.opts.Implicit}}
					relay := newRelay(t, opts)
					begin := time.Now()
					a := relay.Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
					if got := outcomes(a); got != tt.want {
						t.Errorf("Deliver() = %s, want %s (%v)", got, tt.want, a.Results[0].Failure)
					}
					if took := time.Since(begin); took > max(tt.within, time.Second) || took < tt.within-2*time.Second {
						t.Errorf("Deliver() took %v, want %v", took, tt.within)
					}
					checkKept(t, scripted, network, a, relay)
				})
			})
		}
	}
}

// checkKept holds the promises that no fault may break.
func checkKept(t *testing.T, scripted *relaytest.Relay, network *relaytest.Network, a mailer.Attempt, relay *smtp.Relay) {
	t.Helper()
	relay.Close()
	if n := network.Open(); n != 0 {
		t.Errorf("%d connections left open", n)
	}
	for _, secret := range []string{"secret", "AHVzZXIAc2VjcmV0", "c2VjcmV0", "AUTH", "MAIL", "three"} {
		if strings.Contains(string(scripted.Clear()), secret) {
			t.Errorf("%q crossed in clear", secret)
		}
	}
	delivered := map[string]int{}
	for _, m := range scripted.Messages() {
		if string(m.Data) != messageText {
			t.Errorf("relay got %q, want %q", m.Data, messageText)
		}
		for _, path := range m.ForwardPaths {
			if strings.HasPrefix(strings.TrimPrefix(m.Reply, "lf "), "2") {
				delivered[path]++
			}
		}
	}
	for _, r := range a.Results {
		dropped := r.Failure != nil && r.Failure.Reply.Code == 254
		if want := r.Failure == nil; !dropped && (delivered[r.ForwardPath] == 1) != want {
			t.Errorf("%s was delivered %d times, but its result is %s", r.ForwardPath, delivered[r.ForwardPath], outcome(r))
		}
	}
}

func TestDeliverCleartext(t *testing.T) {
	tests := []struct {
		ip    string
		allow bool
		want  string
	}{
		{"127.0.0.1", false, "accepted 250"},
		{"10.1.2.3", false, "accepted 250"},
		{"fd00::1", false, "accepted 250"},
		{"::ffff:192.168.1.1", false, "accepted 250"},
		{"203.0.113.5", false, "relay connect"},
		{"2001:db8::1", false, "relay connect"},
		{"203.0.113.5", true, "accepted 250"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			scripted := relaytest.New(t, relaytest.Options{Extensions: []string{"AUTH PLAIN"}}, nil)
			network := &relaytest.Network{IP: netip.MustParseAddr(tt.ip), Port: map[int]any{25: scripted}}
			opts := options(network)
			opts.Ladder = []mailer.Rung{{Port: 25}}
			opts.Cleartext, opts.AllowCleartext = true, tt.allow
			a := newRelay(t, opts).Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			if got := outcomes(a); got != tt.want {
				t.Errorf("Deliver() to %s (allowed: %v) = %s, want %s", tt.ip, tt.allow, got, tt.want)
			}
			if tt.want == "relay connect" && len(scripted.Clear()) > 0 {
				t.Errorf("%q was sent to %s", scripted.Clear(), tt.ip)
			}
		})
	}
}

// TestDeliverDots: an address that RFC 5321 allows in quotes only goes as it is, and in
// quotes to a relay that refuses it so. Other recipients are not sent to twice.
func TestDeliverDots(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
		want   string
		rcpts  string // in order
	}{
		{"lenient", nil, "accepted 250, accepted 250, accepted 250", "a..b@docomo.test b@example.org .c.@docomo.test"},
		{
			"strict",
			relaytest.Script{"RCPT TO:<a..": "501 5.1.3 syntax", "RCPT TO:<.": "553 5.1.3 not RFC 5321"},
			"accepted 250, accepted 250, accepted 250",
			`a..b@docomo.test b@example.org .c.@docomo.test "a..b"@docomo.test ".c."@docomo.test`,
		},
		{
			"unknown",
			relaytest.Script{"RCPT TO:<a..": "550 5.1.1 unknown", "RCPT TO:<\"a": "550 5.1.1 unknown"},
			"permanent rcpt 550, accepted 250, accepted 250",
			`a..b@docomo.test b@example.org .c.@docomo.test "a..b"@docomo.test`,
		},
		{"busy", relaytest.Script{"RCPT TO:<a..": "450 4.2.1 busy"}, "transient rcpt 450, accepted 250, accepted 250", "a..b@docomo.test b@example.org .c.@docomo.test"},
		{
			"no further transaction",
			relaytest.Script{"RCPT TO:<a..": "501 5.1.3 syntax", ".": "drop"},
			"transient rcpt 501, uncertain content, uncertain content",
			"a..b@docomo.test b@example.org .c.@docomo.test",
		},
	}
	for _, tt := range tests {
		for _, extensions := range [][]string{{"AUTH PLAIN", "PIPELINING"}, {"AUTH PLAIN"}} {
			synctest.Test(t, func(t *testing.T) {
				scripted := relaytest.New(t, relaytest.Options{TLSExtensions: extensions}, tt.script)
				opts := options(&relaytest.Network{Port: map[int]any{587: scripted}})
				opts.Ladder = opts.Ladder[:1]
				env := envelope("a..b@docomo.test", "b@example.org", ".c.@docomo.test")
				env.ReversePath = "bounce..x@docomo.test"
				a := newRelay(t, opts).Deliver(t.Context(), env, content(messageText))
				if got := outcomes(a); got != tt.want {
					t.Errorf("%s, %q: Deliver() = %s, want %s", tt.name, extensions, got, tt.want)
				}
				var rcpts []string
				for _, command := range scripted.Commands() {
					line := command.Line
					if path, ok := strings.CutPrefix(line, "RCPT TO:<"); ok {
						rcpts = append(rcpts, strings.TrimSuffix(path, ">"))
					}
					if strings.HasPrefix(line, "MAIL") && !strings.HasPrefix(line, `MAIL FROM:<"bounce..x"@docomo.test>`) {
						t.Errorf("%s: %s, want its local part quoted", tt.name, line)
					}
				}
				if got := strings.Join(rcpts, " "); got != tt.rcpts {
					t.Errorf("%s, %q: RCPT %s, want %s", tt.name, extensions, got, tt.rcpts)
				}
			})
		}
	}
}

// TestDeliverStops ends the context at every stage.
func TestDeliverStops(t *testing.T) {
	for _, stage := range []string{"greeting", "EHLO", "TLS", "AUTH", "MAIL", "RCPT", "DATA", "."} {
		synctest.Test(t, func(t *testing.T) {
			scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{stage: "silence"})
			network := &relaytest.Network{Port: map[int]any{587: scripted}}
			opts := options(network)
			opts.Ladder = opts.Ladder[:1]
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(400*time.Millisecond, cancel)
			begin := time.Now()
			a := newRelay(t, opts).Deliver(ctx, envelope("b@example.org"), content(messageText))
			if took := time.Since(begin); took != 400*time.Millisecond {
				t.Errorf("stopped at %s after %v, want 400ms", stage, took)
			}
			want := mailer.ClassTransient
			if stage == "." {
				want = mailer.ClassUncertain
			}
			if f := a.Results[0].Failure; f == nil || f.Class != want {
				t.Errorf("stopped at %s: %s, want %s", stage, outcome(a.Results[0]), want)
			}
		})
	}
}

// TestDeliverStalled: a relay that stops reading costs the time for progress,
// not for the whole content.
func TestDeliverStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{"content": "stall"})
		network := &relaytest.Network{Port: map[int]any{587: scripted}}
		large := "Subject: x\r\n\r\n" + strings.Repeat(".\r\n", 1<<20)
		begin := time.Now()
		a := newRelay(t, options(network)).Deliver(t.Context(), envelope("b@example.org"), content(large))
		if got, want := outcomes(a), "transient content"; got != want {
			t.Errorf("Deliver() = %s, want %s", got, want)
		}
		if took := time.Since(begin); took != 3*time.Minute+time.Second {
			t.Errorf("Deliver() took %v, want 3m and 1s for a last word", took)
		}
	})
}
