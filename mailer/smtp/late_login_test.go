package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// lateRefusals are replies that want a login, though there was one, by the step of the
// relay's script.
var lateRefusals = []struct{ step, stage, reply string }{
	{"MAIL", "mail", "535 5.7.8 not authenticated"},
	{"RCPT", "rcpt", "530 SMTP authentication is required."},
	{"MAIL", "mail", "538 5.7.11 encryption wanted"},
	{"RCPT", "rcpt", "535 5.7.8 not authenticated"},
	{"DATA", "data", "530 5.7.0 Authentication required"},
	{"DATA", "data", "538 5.7.11 encryption wanted"},
	{".", "content", "530 5.7.0 Authentication required"},
	{".", "content", "535 5.7.8 not authenticated"},
}

// TestLoginWantedLate: a relay that accepts the login and refuses mail for want of one
// bounces nothing, and sees as many logins as after refused ones.
func TestLoginWantedLate(t *testing.T) {
	for _, tt := range lateRefusals {
		for _, callers := range []int{1, 20} {
			t.Run(fmt.Sprint(tt.step, " ", tt.reply, " ", callers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPoolTest(t, relaytest.Options{}, relaytest.Script{tt.step: tt.reply}, nil)
					for range 300 {
						results := map[string]mailer.Result{}
						if callers == 1 {
							a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
							results["b"] = a.Results[0]
						} else {
							results = deliverMany(t.Context(), p.relay, callers)
						}
						for _, r := range results {
							if r.Failure == nil || r.Failure.Class != mailer.ClassRelay || r.Failure.Scope() != mailer.ScopeRelay {
								t.Fatalf("%s: %+v, want it about the relay", outcome(r), r.Failure)
							}
							if !errors.As(r.Failure.Err, new(*mailer.LoginError)) {
								t.Fatalf("%v does not say when the next login is", r.Failure)
							}
						}
						time.Sleep(10 * time.Second)
					}
					checkLogins(t, p.scripted, time.Time{}, loginLimits)
				})
			})
		}
	}
}

// TestLoginWantedAfterSilence: what a relay says of the login after the caller has left
// counts, too: once it is known, logins are rare.
func TestLoginWantedAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 40s 535 5.7.8 not authenticated"}, nil)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			for path, r := range deliverMany(ctx, p.relay, 20) {
				if r.Failure == nil || r.Failure.Class == mailer.ClassPermanent {
					t.Fatalf("%s: %s, want it to wait", path, outcome(r))
				}
			}
			cancel()
			time.Sleep(10 * time.Second)
		}
		checkLogins(t, p.scripted, time.Time{}, map[time.Duration]int{time.Minute: 8})
		checkLogins(t, p.scripted, begin.Add(time.Minute), loginLimits)
	})
}

// TestSenderWantsLogin: 530 to MAIL may be about the reverse-path, so nobody else waits.
// But no message has a login of its own for that.
func TestSenderWantsLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"MAIL": "530 5.7.1 not yours"}, nil)
		for range 100 {
			deliverMany(t.Context(), p.relay, 20)
			time.Sleep(10 * time.Second)
		}
		checkLogins(t, p.scripted, time.Time{}, map[time.Duration]int{15 * time.Minute: 5})
	})
}

// TestFirstVerdictFreesLogins: further sessions wait for the first verdict only, whether
// the relay takes that mail or not. Of a slow relay they come as after refused logins.
func TestFirstVerdictFreesLogins(t *testing.T) {
	for step, want := range map[string]time.Duration{
		"RCPT: 550 5.1.1 user unknown": time.Minute, ".: after 2s 250 ok": 20 * time.Second, ".: after 5m 250 ok": 16 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			command, reply, _ := strings.Cut(step, ": ")
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{command: reply}, nil)
			begin := time.Now()
			deliverMany(t.Context(), p.relay, 20)
			if took := time.Since(begin); took > want {
				t.Errorf("%s: 20 messages took %v, want %v at most", step, took, want)
			}
		})
	}
}

// TestSessionLosesLogin: a session whose login is not valid any more is replaced, and
// the mail goes on over the new one.
func TestSessionLosesLogin(t *testing.T) {
	for _, tt := range append(lateRefusals, struct{ step, stage, reply string }{"MAIL", "mail", "530 5.7.1 Authentication required"}) {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{TLSExtensions: relaytest.Without("PIPELINING")}, relaytest.Script{
				tt.step: "default then default then " + tt.reply + " then default",
			}, nil)
			for range 5 {
				p.deliver(t, "accepted 250")
			}
			if s := p.relay.Logins(); s != (smtp.LoginState{}) {
				t.Errorf("%s %s: Logins() = %+v, want nothing", tt.step, tt.reply, s)
			}
			if n := p.scripted.Said("AUTH"); n != 2 {
				t.Errorf("%s %s: %d logins, want 2", tt.step, tt.reply, n)
			}
		})
	}
}

// TestLateRefusalEnds: when the relay takes mail again, all is forgotten.
func TestLateRefusalEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const refusal = "535 5.7.8 not authenticated"
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			"MAIL": strings.Repeat(refusal+" then ", 3) + "default then " + refusal,
		}, func(o *smtp.Options) { o.MessagesPerConnection = 1 })
		for range 2 {
			p.deliver(t, "relay mail 535")
		}
		if s := p.relay.Logins(); s.Refused != 2 || time.Until(s.Next) != time.Minute || s.Failure == nil {
			t.Errorf("Logins() = %+v, want two refused, and the next in a minute", s)
		}
		served := p.scripted.Served()
		p.deliver(t, "relay mail 535")
		if p.scripted.Served() != served {
			t.Error("the relay was connected to within the pause")
		}
		time.Sleep(time.Minute)
		p.deliver(t, "relay mail 535")
		time.Sleep(time.Minute)
		p.deliver(t, "accepted 250")
		if s := p.relay.Logins(); s != (smtp.LoginState{}) {
			t.Errorf("Logins() after mail was taken = %+v, want nothing", s)
		}
		p.deliver(t, "relay mail 535")
		p.deliver(t, "relay mail 535")
		if n := p.scripted.Said("AUTH"); n != 6 {
			t.Errorf("%d logins, want 4, and 2 after mail was taken", n)
		}
	})
}
