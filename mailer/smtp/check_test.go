package smtp_test

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

func lookup(context.Context, string) ([]string, error) { return []string{"192.0.2.1"}, nil }

func newRelayToCheck(t *testing.T, opts smtp.Options) *smtp.Relay {
	t.Helper()
	r := newRelay(t, opts)
	r.SetLookup(lookup)
	return r
}

func TestCheckRung(t *testing.T) {
	tests := []struct {
		name     string
		behind   any // a fate or nil for a relay
		opts     relaytest.Options
		script   relaytest.Script
		implicit bool
		tcp      string
		auth     string
		problem  smtp.Problem
		within   time.Duration
	}{
		{name: "works", tcp: "open", auth: "accepted"},
		{name: "works with implicit TLS", opts: relaytest.Options{Implicit: true}, implicit: true, tcp: "open", auth: "accepted"},
		{name: "refused", behind: relaytest.Refused, tcp: "refused", auth: "not_tried", problem: smtp.ProblemRefused},
		{name: "black hole", behind: relaytest.BlackHole, tcp: "no_answer", auth: "not_tried", problem: smtp.ProblemNoAnswer, within: 5 * time.Second},
		{name: "silent", script: relaytest.Script{"greeting": "silence"}, tcp: "open", auth: "not_tried", problem: smtp.ProblemSilent, within: 36 * time.Second},
		{name: "dropped", script: relaytest.Script{"greeting": "drop"}, tcp: "open", auth: "not_tried", problem: smtp.ProblemDropped},
		{name: "not SMTP", script: relaytest.Script{"greeting": "SSH-2.0-OpenSSH"}, tcp: "open", auth: "not_tried", problem: smtp.ProblemNotSMTP},
		{name: "implicit TLS where STARTTLS is configured", opts: relaytest.Options{Implicit: true}, tcp: "open", auth: "not_tried", problem: smtp.ProblemTLSMode, within: 30 * time.Second},
		{name: "STARTTLS where implicit TLS is configured", implicit: true, tcp: "open", auth: "not_tried", problem: smtp.ProblemTLSMode},
		{name: "no STARTTLS", opts: relaytest.Options{Extensions: []string{"SIZE"}}, tcp: "open", auth: "not_tried", problem: smtp.ProblemNoSTARTTLS},
		{name: "TLS 1.1", opts: relaytest.Options{MaxTLS: 0x0302}, tcp: "open", auth: "not_tried", problem: smtp.ProblemTLS},
		{name: "expired", opts: relaytest.Options{Certificate: relaytest.Expired}, tcp: "open", auth: "not_tried", problem: smtp.ProblemExpired},
		{name: "wrong name", opts: relaytest.Options{Certificate: relaytest.WrongName}, tcp: "open", auth: "not_tried", problem: smtp.ProblemWrongName},
		{name: "unknown CA", opts: relaytest.Options{Certificate: relaytest.UnknownCA}, tcp: "open", auth: "not_tried", problem: smtp.ProblemUnknownCA},
		{name: "no AUTH", opts: relaytest.Options{TLSExtensions: []string{"SIZE"}}, tcp: "open", auth: "not_tried", problem: smtp.ProblemNoMechanism},
		{name: "wrong password", opts: relaytest.Options{Password: "other"}, tcp: "open", auth: "refused", problem: smtp.ProblemCredentials},
		{name: "app password", script: relaytest.Script{"AUTH": "534 5.7.9 Application-specific password required."}, tcp: "open", auth: "refused", problem: smtp.ProblemAppPassword},
		{name: "OAuth2", script: relaytest.Script{"AUTH": "535 5.7.139 Authentication unsuccessful, basic authentication is disabled."}, tcp: "open", auth: "refused", problem: smtp.ProblemOAuth2},
		{name: "busy", script: relaytest.Script{"AUTH": "454 4.7.0 Temporary authentication failure"}, tcp: "open", auth: "refused", problem: smtp.ProblemAuthUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scripted := relaytest.New(t, tt.opts, tt.script)
				network := &relaytest.Network{Port: map[int]any{587: tt.behind}}
				if tt.behind == nil {
					network.Set(587, scripted)
				}
				opts := options(network)
				opts.Ladder = []mailer.Rung{{Port: 587, Implicit: tt.implicit}}
				relay := newRelayToCheck(t, opts)
				begin := time.Now()
				report := relay.Check(t.Context(), "")
				if took := time.Since(begin); took > tt.within {
					t.Errorf("Check() took %v, want %v", took, tt.within)
				}
				rung := report.Rungs[0]
				var problem smtp.Problem
				if rung.Failure != nil {
					problem = rung.Failure.Problem
				}
				if rung.TCP != tt.tcp || rung.Auth != tt.auth || problem != tt.problem {
					t.Errorf("Check() = TCP %s, AUTH %s, problem %q, want %s, %s, %q (%+v)",
						rung.TCP, rung.Auth, problem, tt.tcp, tt.auth, tt.problem, rung.Failure)
				}
				if report.OK != (tt.problem == "") {
					t.Errorf("Check().OK = %v", report.OK)
				}
				if scripted.Said("MAIL") > 0 {
					t.Error("the check began a mail")
				}
				relay.Close()
				if n := network.Open(); n != 0 {
					t.Errorf("%d connections left open", n)
				}
			})
		})
	}
}

// TestCheckLadder: all rungs at once, one login.
func TestCheckLadder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second, third := relaytest.New(t, relaytest.Options{}, nil), relaytest.New(t, relaytest.Options{Implicit: true}, nil)
		network := &relaytest.Network{Port: map[int]any{587: relaytest.BlackHole, 588: relaytest.BlackHole, 2525: second, 465: third}}
		opts := options(network)
		opts.Ladder = []mailer.Rung{{Port: 587}, {Port: 588}, {Port: 2525}, {Port: 465, Implicit: true}}
		begin := time.Now()
		report := newRelayToCheck(t, opts).Check(t.Context(), "")
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("Check() took %v, want that of the slowest rung, 5s", took)
		}
		if !report.OK || !slices.Equal(report.Addresses, []string{"192.0.2.1"}) {
			t.Errorf("Check() = %+v, want it good at 192.0.2.1", report)
		}
		if n := len(second.Credentials()) + len(third.Credentials()); n != 1 {
			t.Errorf("Check() logged in %d times, want once", n)
		}
		good := report.Rungs[2]
		if good.TLS == nil || good.TLS.Version != "TLS 1.3" || !slices.Contains(good.TLS.Names, relaytest.Host) ||
			good.TLS.Issuer != "CN=relaytest CA" || good.TLS.DaysLeft < 365 {
			t.Errorf("TLS = %+v, want version, names, issuer and days", good.TLS)
		}
		if good.Banner != "220 relay.test ESMTP" || !slices.Contains(good.Mechanisms, "XOAUTH2") ||
			!slices.Contains(good.Capabilities, "8BITMIME") || good.Mechanism != "PLAIN" {
			t.Errorf("rung = %+v, want banner, mechanisms and capabilities", good)
		}
		if _, err := json.Marshal(report); err != nil {
			t.Error(err)
		}
	})
}

func TestCheckName(t *testing.T) {
	network := &relaytest.Network{}
	relay := newRelay(t, options(network))
	relay.SetLookup(func(context.Context, string) ([]string, error) {
		return nil, &net.DNSError{Err: "no such host", Name: relaytest.Host, IsNotFound: true}
	})
	report := relay.Check(t.Context(), "")
	if report.OK || report.Failure == nil || report.Failure.Problem != smtp.ProblemName || len(network.Dials()) > 0 {
		t.Errorf("Check() = %+v, want only that the name is not found", report)
	}
}

// TestCheckExpired: the certificate that does not verify is shown.
func TestCheckExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &relaytest.Network{Port: map[int]any{587: relaytest.New(t, relaytest.Options{Certificate: relaytest.Expired}, nil)}}
		opts := options(network)
		opts.Ladder = opts.Ladder[:1]
		rung := newRelayToCheck(t, opts).Check(t.Context(), "").Rungs[0]
		if rung.TLS == nil || rung.TLS.DaysLeft >= 0 || rung.TLS.Version != "" {
			t.Errorf("TLS = %+v, want negative days left and no version", rung.TLS)
		}
		if !strings.Contains(rung.Failure.Text, "expired") {
			t.Errorf("Failure = %+v, want to read of an expired certificate", rung.Failure)
		}
	})
}

// TestCheckFailureJSON: the reply code has its name, and its old one for a release.
func TestCheckFailureJSON(t *testing.T) {
	want := smtp.CheckFailure{Stage: "auth", Class: "relay", Problem: smtp.ProblemCredentials, Code: 535, Enhanced: "5.7.8", Text: "no"}
	text, err := json.Marshal(want)
	if err != nil || !strings.Contains(string(text), `"reply_code":535`) || !strings.Contains(string(text), `"code":535`) {
		t.Errorf("Marshal(%+v) = %s, %v, want the reply code by both names", want, text, err)
	}
	for _, text := range []string{
		string(text), strings.Replace(string(text), `"code":535`, `"x":1`, 1), strings.Replace(string(text), `"reply_code":535`, `"x":1`, 1),
	} {
		var got smtp.CheckFailure
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("Unmarshal(%s) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	if text, err := json.Marshal(smtp.CheckFailure{Stage: "connect"}); err != nil || strings.Contains(string(text), "code") {
		t.Errorf("Marshal without a reply = %s, %v, want no code", text, err)
	}
}

// TestCheckForcedSender: what is tried is the reverse-path that mail would have there.
func TestCheckForcedSender(t *testing.T) {
	for _, tt := range []struct{ from, path, sender, want string }{
		{"news@example.com", "", "shop@example.com", "news@example.com"},
		{"news@example.com", "", "", "news@example.com"},
		{"news@example.com", "bounces@example.com", "shop@example.com", "bounces@example.com"},
		{"", "bounces@example.com", "", "bounces@example.com"},
	} {
		synctest.Test(t, func(t *testing.T) {
			scripted := relaytest.New(t, relaytest.Options{}, nil)
			o := options(&relaytest.Network{Port: map[int]any{587: scripted}})
			o.ForceFrom.Email, o.ReturnPath = tt.from, tt.path
			report := newRelayToCheck(t, o).Check(t.Context(), tt.sender)
			if synctest.Wait(); report.Sender != tt.want || scripted.Said("MAIL FROM:<"+tt.want+">") != 1 || scripted.Said("MAIL") != 1 {
				t.Errorf("Check(%q) with %q and %q tries %q and says %v, want %q", tt.sender, tt.from, tt.path, report.Sender, scripted.Commands(), tt.want)
			}
		})
	}
}

// TestCheckSender: MAIL is taken back, and said once on the connection that is logged in.
func TestCheckSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := relaytest.New(t, relaytest.Options{}, nil), relaytest.New(t, relaytest.Options{}, nil)
		network := &relaytest.Network{Port: map[int]any{587: one, 2525: two}}
		report := newRelayToCheck(t, options(network)).Check(t.Context(), "shop@example.com")
		synctest.Wait()
		if !report.OK || report.Sender != "shop@example.com" {
			t.Errorf("Check() = %+v, want the sender accepted", report)
		}
		if one.Said("MAIL FROM:<shop@example.com>") != 1 || one.Said("RSET") != 1 || two.Said("MAIL")+two.Said("AUTH") != 0 || one.Said("RCPT") != 0 {
			t.Errorf("commands = %v and %v, want MAIL and RSET once", one.Commands(), two.Commands())
		}
	})
}
