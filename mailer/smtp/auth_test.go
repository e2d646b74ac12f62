package smtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

const everyMechanism = "AUTH NTLM CRAM-MD5 XOAUTH2 LOGIN PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS"

// deliverOne sends one message through a relay of its own on port 587.
func deliverOne(t *testing.T, relayOpts relaytest.Options, script relaytest.Script, change func(*smtp.Options)) (mailer.Attempt, *relaytest.Relay) {
	t.Helper()
	scripted := relaytest.New(t, relayOpts, script)
	opts := options(&relaytest.Network{Port: map[int]any{587: scripted}})
	opts.Ladder = opts.Ladder[:1]
	if change != nil {
		change(&opts)
	}
	return newRelay(t, opts).Deliver(t.Context(), envelope("b@example.org"), content(messageText)), scripted
}

func TestAuthMechanisms(t *testing.T) {
	tests := []struct {
		configured, offered, want string
		maxTLS                    uint16
	}{
		{"auto", everyMechanism, "SCRAM-SHA-256-PLUS", 0},
		{"auto", everyMechanism, "SCRAM-SHA-256-PLUS", 0x0303},
		{"auto", "AUTH PLAIN SCRAM-SHA-256 SCRAM-SHA-1", "SCRAM-SHA-256", 0},
		{"auto", "AUTH LOGIN PLAIN CRAM-MD5", "PLAIN", 0},
		{"auto", "AUTH CRAM-MD5 LOGIN", "LOGIN", 0},
		{"auto", "AUTH CRAM-MD5", "CRAM-MD5", 0},
		{"", "auth plain", "PLAIN", 0},
		{"scram-sha-1", everyMechanism, "SCRAM-SHA-1", 0},
		{"SCRAM-SHA-1-PLUS", everyMechanism, "SCRAM-SHA-1-PLUS", 0},
		{"CRAM-MD5", everyMechanism, "CRAM-MD5", 0},
		{"LOGIN", everyMechanism, "LOGIN", 0},
		{"XOAUTH2", everyMechanism, "XOAUTH2", 0}, // the password is the token
		{"oauthbearer", everyMechanism + " OAUTHBEARER", "OAUTHBEARER", 0},
		// Not offered: tokens are whole words, and NTLM is never chosen.
		{"auto", "AUTH NTLM", "", 0},
		{"auto", "AUTH XPLAIN SCRAM-SHA-256X PLAIN-CLIENTTOKEN", "", 0},
		{"auto", "AUTH=PLAIN", "", 0},
		{"auto", "XAUTH PLAIN", "", 0},
		{"CRAM-MD5", "AUTH PLAIN", "", 0},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			a, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{tt.offered}, MaxTLS: tt.maxTLS}, nil,
				func(o *smtp.Options) { o.Mechanism = tt.configured })
			if a.Auth != tt.want {
				t.Errorf("mechanism %q of %q = %q, want %q (%v)", tt.configured, tt.offered, a.Auth, tt.want, a.Results[0].Failure)
			}
			for _, c := range scripted.Credentials() {
				if !c.TLS || !c.Accepted || c.Username != "user" {
					t.Errorf("credential = %+v, want user accepted over TLS", c)
				}
			}
			if n := len(scripted.Credentials()); (n == 1) != (tt.want != "") {
				t.Errorf("mechanism %q of %q: logged in %d times", tt.configured, tt.offered, n)
			}
		})
	}
}

func TestAuthToken(t *testing.T) {
	long := strings.Repeat("t", 1500) // does not fit the AUTH command
	tests := []struct {
		token, accepted string
		err             error
		want            string
	}{
		{"token", "token", nil, "accepted 250"},
		{long, long, nil, "accepted 250"},
		{"old", "new", nil, "relay auth 535"},
		{"", "", errors.New("endpoint down"), "relay auth"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			a, scripted := deliverOne(t, relaytest.Options{Password: tt.accepted}, nil, func(o *smtp.Options) {
				o.Password = ""
				o.TokenSource = func(context.Context, string) (string, error) { return tt.token, tt.err }
			})
			if got := outcomes(a); got != tt.want {
				t.Fatalf("Deliver() with token %.10q = %s, want %s", tt.token, got, tt.want)
			}
			if f := a.Results[0].Failure; tt.token == "old" && !strings.Contains(f.Text, "status 401, schemes bearer, scope https://mail.test/") {
				t.Errorf("Text = %q, want the error that came with the challenge", f.Text)
			}
			for _, c := range scripted.Commands() {
				if strings.HasPrefix(c.Line, "AUTH") && len(c.Line) > 510 {
					t.Errorf("AUTH command of %d octets, want at most 510", len(c.Line))
				}
			}
		})
	}
}

// TestAuthTokenRefused: where a token is refused, another one is tried, if there is
// any, and once only.
func TestAuthTokenRefused(t *testing.T) {
	tests := []struct {
		name   string
		tokens []string // in turn, then the last one
		script relaytest.Script
		want   string
		logins int
	}{
		{"revoked", []string{"old", "new"}, nil, "accepted 250", 2},
		{"no other", []string{"old"}, nil, "relay auth 535", 1},
		{"the next one is refused, too", []string{"old", "older", "new"}, nil, "relay auth 535", 2},
		{"the relay has heard enough", []string{"old", "new"}, relaytest.Script{"AUTH": "bye 535 5.7.8 no"}, "relay auth 535", 1},
		{"busy", []string{"old", "new"}, relaytest.Script{"AUTH": "454 4.7.0 later"}, "relay auth 454", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				a, scripted := deliverOne(t, relaytest.Options{Password: "new"}, tt.script, func(o *smtp.Options) {
					o.Password = ""
					o.TokenSource = func(_ context.Context, refused string) (string, error) {
						if asked > 0 && refused != tt.tokens[asked-1] {
							t.Errorf("asked for a token in place of %q, want %q", refused, tt.tokens[asked-1])
						}
						asked = min(asked+1, len(tt.tokens))
						return tt.tokens[asked-1], nil
					}
				})
				if got := outcomes(a); got != tt.want {
					t.Errorf("Deliver() = %s, want %s", got, tt.want)
				}
				if n := scripted.Said("AUTH"); n != tt.logins {
					t.Errorf("AUTH said %d times, want %d", n, tt.logins)
				}
			})
		})
	}
}

// TestAuthDistrusts: a relay does not get away with skipping its part.
func TestAuthDistrusts(t *testing.T) {
	scram := []string{"AUTH SCRAM-SHA-256"}
	tests := []struct {
		name   string
		opts   relaytest.Options
		script relaytest.Script
	}{
		{"no server signature", relaytest.Options{SCRAMUnproved: true, TLSExtensions: scram}, nil},
		{"235 at once", relaytest.Options{TLSExtensions: scram}, relaytest.Script{"AUTH": "235 2.7.0 welcome"}},
		{"signature before the challenge", relaytest.Options{TLSExtensions: scram}, relaytest.Script{"AUTH": "334 dj1BQUFB", "AUTH+": "235 ok"}},
		{"too many iterations", relaytest.Options{SCRAMIterations: 10_000_000, TLSExtensions: scram}, nil},
		{"another nonce", relaytest.Options{TLSExtensions: scram}, relaytest.Script{"AUTH": "334 cj1hYmMscz1hYmNkLGk9NDA5Ng=="}},
		{"challenge is not base64", relaytest.Options{TLSExtensions: []string{"AUTH CRAM-MD5"}}, relaytest.Script{"AUTH": "334 !!"}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			a, scripted := deliverOne(t, tt.opts, tt.script, nil)
			if got, want := outcomes(a), "relay auth"; got != want {
				t.Errorf("%s: Deliver() = %s, want %s", tt.name, got, want)
			}
			if scripted.Said("MAIL") > 0 {
				t.Errorf("%s: mail followed", tt.name)
			}
		})
	}
}

// TestAuthNTLM gets as far as the challenge: NTLM only runs when it is named.
func TestAuthNTLM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{everyMechanism}},
			relaytest.Script{"AUTH": "334 Tk9U", "AUTH+": "535 5.7.3 no"},
			func(o *smtp.Options) { o.Mechanism, o.Username = "NTLM", `CORP\user` })
		if got, want := outcomes(a), "relay auth"; got != want {
			t.Errorf("Deliver() = %s, want %s", got, want)
		}
		if c := scripted.Credentials(); len(c) != 1 || c[0].Mechanism != "NTLM" || !strings.HasPrefix(c[0].Secret, "TlRMTVNTUAAB") {
			t.Errorf("credentials = %+v, want an NTLM negotiate message", c)
		}
	})
}

// TestAuthRedacts: our credentials never show, even where the relay repeats them.
func TestAuthRedacts(t *testing.T) {
	for _, reply := range []string{
		"535 5.7.8 bad password hunter2-hunter2",
		"500 5.5.2 unrecognized: AUTH PLAIN AHVzZXIAaHVudGVyMi1odW50ZXIy",
		"535 " + strings.Repeat("x", 490) + "hunter2-hunter2",
		"500 5.5.2 too long: AUTH PLAIN AHVzZXIAaHVudGVyMi1o",
		"AUTH PLAIN AHVzZXIAaHVudGVyMi1odW50ZXIy", // an echo
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			a, _ := deliverOne(t, relaytest.Options{}, relaytest.Script{"AUTH": reply}, func(o *smtp.Options) {
				o.Password, o.Logger = "hunter2-hunter2", slog.New(slog.NewTextHandler(&log, nil))
			})
			f := a.Results[0].Failure
			for _, shown := range []string{f.Error(), fmt.Sprint(f.Err), f.Text, f.Reply.Text, log.String()} {
				for _, secret := range []string{"hunter2", "AHVzZXIA"} {
					if strings.Contains(shown, secret) {
						t.Errorf("%q shows the credentials", shown)
					}
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	rungs := []mailer.Rung{{Port: 587}}
	tests := []smtp.Options{
		{Ladder: rungs},
		{Host: "a b", Ladder: rungs},
		{Host: "relay.test\r\n", Ladder: rungs},
		{Host: "relay.test", Helo: "a\r\nRSET", Ladder: rungs},
		{Host: "relay.test"},
		{Host: "relay.test", Ladder: []mailer.Rung{{}}},
		{Host: "relay.test", Ladder: []mailer.Rung{{Port: 65536}}},
		{Host: "relay.test", Ladder: []mailer.Rung{{Port: 25, Clear: true}}},
		{Host: "relay.test", Ladder: rungs, Username: "user"},
		{Host: "relay.test", Ladder: rungs, Password: "secret"},
		{Host: "relay.test", Ladder: rungs, Username: "user", Password: "secret", Mechanism: "KERBEROS"},
		{Host: "relay.test", Ladder: rungs, MaxRecipients: -1},
	}
	for _, opts := range tests {
		if r, err := smtp.New(opts); err == nil {
			r.Close()
			t.Errorf("New(%+v) succeeded", opts)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("New() = %v: shows the password", err)
		}
	}
}
