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

// loginLimits is how many refused logins a relay may see in any window.
var loginLimits = map[time.Duration]int{time.Minute: 2, 15 * time.Minute: 5, time.Hour: 8}

// checkLogins counts the AUTH commands that the relay has seen from then on, in every
// window.
func checkLogins(t *testing.T, scripted *relaytest.Relay, from time.Time, limits map[time.Duration]int) {
	t.Helper()
	var logins []time.Time
	for _, c := range scripted.Commands() {
		if strings.HasPrefix(c.Line, "AUTH") && !c.At.Before(from) {
			logins = append(logins, c.At)
		}
	}
	for window, limit := range limits {
		first := 0
		for i, at := range logins {
			for !logins[first].Add(window).After(at) {
				first++
			}
			if n := i - first + 1; n > limit {
				t.Errorf("%d logins within %v, want %d at most", n, window, limit)
				break
			}
		}
	}
	if len(logins) == 0 {
		t.Error("no login was tried")
	}
}

// loginError returns what the attempt says of the next login, and fails the test when
// it says nothing.
func loginError(t *testing.T, a mailer.Attempt) *mailer.LoginError {
	t.Helper()
	f := a.Results[0].Failure
	if f == nil || f.Class != mailer.ClassRelay || f.Stage != mailer.StageAuth || f.Reply.Code != 535 {
		t.Fatalf("Deliver() = %s, want relay auth 535", outcomes(a))
	}
	why, ok := f.Err.(*mailer.LoginError) //nolint:errorlint // no other error is around it
	if !ok {
		t.Fatalf("Err = %v, want a LoginError", f.Err)
	}
	return why
}

// TestWrongPassword: messages, checks, callers that leave, all at random times, cause
// no more logins than the rule allows.
func TestWrongPassword(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
	}{
		{"refused at once", nil},
		{"refused slowly", relaytest.Script{"AUTH": "after 3s 535 5.7.8 authentication failed"}},
		{"refused as temporary", relaytest.Script{"AUTH": "435 4.7.8 Error: authentication failed"}},
		{"not allowed", relaytest.Script{"AUTH": "550 5.7.30 Basic authentication is not supported"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				p := newPoolTest(t, relaytest.Options{Password: "other"}, tt.script, nil)
				p.relay.SetLookup(func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil })
				var callers sync.WaitGroup
				deliverMany(t.Context(), p.relay, 100)
				for range 600 {
					switch random.IntN(3) {
					case 0:
						callers.Go(func() { p.relay.Check(t.Context(), "") })
					default:
						wait := time.Duration(random.Int64N(int64(5 * time.Second)))
						callers.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), wait)
							defer cancel()
							if a := p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText)); a.Results[0].Failure == nil {
								t.Error("a message was accepted without a login")
							}
						})
					}
					time.Sleep(time.Duration(random.Int64N(int64(20 * time.Second))))
				}
				callers.Wait()
				checkLogins(t, p.scripted, time.Time{}, loginLimits)
			})
		})
	}
}

// TestWrongPasswordTells: within the pause the last verdict is told again, with the
// time of the next login, and the relay is not even connected to.
func TestWrongPasswordTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{Password: "other"}, nil, nil)
		p.relay.SetLookup(func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil })
		begin := time.Now()
		for i, next := range []time.Time{{}, begin.Add(time.Minute)} {
			if why := loginError(t, p.deliver(t, "relay auth 535")); !why.Tried || !why.Next.Equal(next) {
				t.Errorf("login %d: %+v, want the next at %v", i, why, next)
			}
		}
		time.Sleep(20 * time.Second)
		served := p.scripted.Served()
		a := p.deliver(t, "relay auth 535")
		if why := loginError(t, a); why.Tried || !why.Next.Equal(begin.Add(time.Minute)) {
			t.Errorf("within the pause: %+v, want not tried, the next at %v", why, begin.Add(time.Minute))
		}
		if p.scripted.Served() != served {
			t.Error("the relay was connected to within the pause")
		}
		want := "auth: 535 5.7.8 authentication failed; the next login is not before " + begin.Add(time.Minute).UTC().Format(time.RFC3339)
		if got := a.Results[0].Failure.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
		report := p.relay.Check(t.Context(), "")
		rung := report.Rungs[0]
		if report.OK || rung.Auth != "paused" || !rung.NextLogin.Equal(begin.Add(time.Minute)) || rung.Failure.Code != 535 ||
			rung.Failure.Problem != smtp.ProblemCredentials || rung.TLS == nil {
			t.Errorf("Check() within the pause = %+v, %+v; want paused, the last verdict, and TLS", rung, rung.Failure)
		}
		if s := p.relay.Logins(); s.Refused != 2 || !s.Next.Equal(begin.Add(time.Minute)) || s.Failure.Reply.Code != 535 {
			t.Errorf("Logins() = %+v, want 2 refused", s)
		}
		if n := p.scripted.Said("AUTH"); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
		time.Sleep(40 * time.Second)
		if rung = p.relay.Check(t.Context(), "").Rungs[0]; rung.Auth != "refused" || !rung.NextLogin.Equal(begin.Add(2*time.Minute)) {
			t.Errorf("Check() after the pause = %+v, want refused, the next a minute later", rung)
		}
	})
}

// TestWrongPasswordEnds: an accepted login forgets the refused ones.
func TestWrongPasswordEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const refusal = "535 5.7.8 no"
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			"AUTH": strings.Repeat(refusal+" then ", 3) + "235 2.7.0 yes then " + refusal,
		}, func(o *smtp.Options) { o.MessagesPerConnection = 1 })
		for range 2 {
			p.deliver(t, "relay auth 535")
		}
		time.Sleep(time.Minute)
		p.deliver(t, "relay auth 535")
		time.Sleep(time.Minute)
		p.deliver(t, "accepted 250")
		if s := p.relay.Logins(); s != (smtp.LoginState{}) {
			t.Errorf("Logins() after one was accepted = %+v, want nothing", s)
		}
		for range 3 {
			p.deliver(t, "relay auth 535")
		}
		if n := p.scripted.Said("AUTH"); n != 6 {
			t.Errorf("%d logins, want 4, and 2 after the accepted one", n)
		}
	})
}

// TestPasswordRevoked: four sessions are open when the password is revoked. They take
// all the mail that there is, and their success brings no further login about.
func TestPasswordRevoked(t *testing.T) {
	for _, refusal := range []string{"535 5.7.8 revoked", "454 4.7.0 temporary authentication failure"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
				"AUTH": strings.Repeat("default then ", 4) + refusal, ".": "after 200ms 250 2.0.0 ok",
			}, func(o *smtp.Options) { o.MaxConnections, o.MessagesPerConnection = 20, 1000 })
			begin := time.Now()
			for path, r := range deliverMany(t.Context(), p.relay, 500) {
				if got := outcome(r); got != "accepted 250" {
					t.Fatalf("message to %s: %s, want accepted (%v)", path, got, r.Failure)
				}
			}
			if took := time.Since(begin); took > 30*time.Second { // 25 s with four sessions
				t.Errorf("500 messages took %v", took)
			}
			if n := p.scripted.Said("AUTH"); n > 4+2 {
				t.Errorf("%d logins, want 4 and 2 refused ones", n)
			}
		})
	}
}

// TestLoginsShared: relays that are one account share its logins, and another
// password is tried at once.
func TestLoginsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logins smtp.Logins
		share := func(host, password string) func(*smtp.Options) {
			return func(o *smtp.Options) {
				o.Logins, o.Host, o.ServerName, o.Password = &logins, host, relaytest.Host, password
			}
		}
		first := newPoolTest(t, relaytest.Options{Password: "other"}, nil, share(relaytest.Host, "wrong"))
		second := newPoolTest(t, relaytest.Options{Password: "other"}, nil, share(strings.ToUpper(relaytest.Host)+".", "wrong"))
		first.deliver(t, "relay auth 535")
		second.deliver(t, "relay auth 535")
		for _, p := range []*poolTest{first, second} {
			p.deliver(t, "relay auth 535")
			if n := p.scripted.Said("AUTH"); n != 1 {
				t.Errorf("%d logins, want 1 by each relay", n)
			}
		}
		newPoolTest(t, relaytest.Options{Password: "other"}, nil, share(relaytest.Host, "other")).deliver(t, "accepted 250")
		if why := loginError(t, first.deliver(t, "relay auth 535")); why.Tried {
			t.Error("the wrong password is tried again because another one was accepted")
		}
		if n := first.scripted.Said("AUTH"); n != 1 {
			t.Errorf("%d logins with the wrong password, want no further one", n)
		}
	})
}

// TestLoginWithoutVerdict: a relay that cannot judge credentials is asked less and
// less, whatever asks.
func TestLoginWithoutVerdict(t *testing.T) {
	for _, action := range []string{"454 4.7.0 Temporary authentication failure", "bye 421 4.7.0 too many auth failures", "drop", "silence"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"AUTH": action}, nil)
			for range 1200 {
				p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
				time.Sleep(500 * time.Millisecond)
			}
			checkLogins(t, p.scripted, time.Time{}, map[time.Duration]int{time.Minute: 3, 10 * time.Minute: 6})
		})
	}
}

// TestLoginsTogether: two logins are under way. The first to end is not decided on, the
// other is accepted, and does not end the pause that the first one causes.
func TestLoginsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{
			"AUTH": "after 1s bye 421 4.7.0 too many logins then after 2s 235 2.7.0 welcome then 235 2.7.0 welcome",
		}, func(o *smtp.Options) { o.MessagesPerConnection = 1 })
		go deliverMany(t.Context(), p.relay, 3)
		time.Sleep(11*time.Second - 1)
		if n := p.scripted.Said("AUTH"); n != 2 {
			t.Errorf("%d logins until 10 s after one was not decided on, want 2", n)
		}
		time.Sleep(time.Second)
		p.deliver(t, "accepted 250")
	})
}

// TestLoginOutlivesCaller: a caller that leaves while it is logged in does not end the
// login. The connection serves the next one.
func TestLoginOutlivesCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"AUTH": "after 5s 235 2.7.0 welcome"}, func(o *smtp.Options) { o.MaxConnections = 1 })
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if a := p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText)); a.Results[0].Failure == nil || a.Duration != time.Second {
				t.Errorf("Deliver() = %s after %v, want a failure after 1s", outcomes(a), a.Duration)
			}
			cancel()
		}
		p.deliver(t, "accepted 250")
		if n := p.scripted.Said("AUTH"); n != 1 || p.scripted.Most() != 1 {
			t.Errorf("%d logins over %d connections, want one", n, p.scripted.Most())
		}
	})
}

// TestTokenChanges: a new token is tried at once, also while the old one has to wait;
// but a source that always has a new one does not get around the rule.
func TestTokenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := "old"
		p := newPoolTest(t, relaytest.Options{Password: "new"}, nil, func(o *smtp.Options) {
			o.Password, o.TokenSource = "", func(context.Context, string) (string, error) { return token, nil }
		})
		for range 10 * 60 {
			p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			time.Sleep(time.Second)
		}
		checkLogins(t, p.scripted, time.Time{}, loginLimits)
		why := loginError(t, p.deliver(t, "relay auth 535"))
		if want := time.Now().Add(time.Minute); !why.Next.Equal(want) {
			t.Errorf("Next = %v, want a look at the token within a minute, %v", why.Next, want)
		}
		token = "new"
		p.deliver(t, "accepted 250")
	})
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Password, o.TokenSource = "", func(context.Context, string) (string, error) {
				n++
				return fmt.Sprint("token", n), nil
			}
		})
		for range 30 * 60 {
			p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			time.Sleep(time.Second)
		}
		checkLogins(t, p.scripted, time.Time{}, map[time.Duration]int{time.Minute: 3, 30 * time.Minute: 30 + 5})
	})
}
