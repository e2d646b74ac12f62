package smtp_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// tokens is a source of these tokens: the next one where the relay refused one, then
// the last one again.
func tokens(list ...string) (source func(context.Context, string) (string, error), fetched func() int) {
	i := 0
	return func(_ context.Context, refused string) (string, error) {
		if refused == list[i] {
			i = min(i+1, len(list)-1)
		}
		return list[i], nil
	}, func() int { return i + 1 }
}

func withToken(source func(context.Context, string) (string, error)) func(*smtp.Options) {
	return func(o *smtp.Options) { o.Password, o.TokenSource = "", source }
}

// responses are the lines that follow AUTH up to the next command, as they were sent.
func responses(scripted *relaytest.Relay) []string {
	var lines []string
	for _, c := range scripted.Commands() {
		switch verb, _, _ := strings.Cut(c.Line, " "); {
		case verb == "AUTH":
			lines = []string{}
		case slices.Contains([]string{"MAIL", "RCPT", "DATA", "QUIT", "EHLO", "RSET"}, verb):
		case lines != nil:
			lines = append(lines, c.Line)
		}
	}
	return lines
}

// TestBearerMechanism: XOAUTH2 where it is offered, OAUTHBEARER where it stands alone,
// and each by name.
func TestBearerMechanism(t *testing.T) {
	tests := []struct{ configured, offered, want string }{
		{"auto", "AUTH LOGIN XOAUTH2", "XOAUTH2"},
		{"auto", "AUTH LOGIN PLAIN OAUTHBEARER XOAUTH2", "XOAUTH2"},
		{"auto", "AUTH PLAIN OAUTHBEARER", "OAUTHBEARER"},
		{"auto", "AUTH PLAIN LOGIN XOAUTH", ""},
		{"oauthbearer", "AUTH OAUTHBEARER XOAUTH2", "OAUTHBEARER"},
		{"oauthbearer", "AUTH XOAUTH2", ""},
		{"xoauth2", "AUTH OAUTHBEARER", ""},
	}
	for _, tt := range tests {
		for _, token := range []string{"secret", strings.Repeat("t", 1500)} {
			synctest.Test(t, func(t *testing.T) {
				source, _ := tokens(token)
				a, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{tt.offered}, Password: token}, nil, func(o *smtp.Options) {
					withToken(source)(o)
					o.Mechanism, o.Username = tt.configured, "shop=a,b@example.com"
				})
				if a.Auth != tt.want {
					t.Errorf("mechanism %q of %q = %q, want %q (%v)", tt.configured, tt.offered, a.Auth, tt.want, a.Results[0].Failure)
				}
				for _, c := range scripted.Credentials() {
					if !c.Accepted || c.Username != "shop=a,b@example.com" || c.Secret != token {
						t.Errorf("%s: credential = %+v, want the user and the token", tt.want, c)
					}
				}
			})
		}
	}
}

// TestBearerMessage: the octets that RFC 7628 §4.1 and Google's page show.
func TestBearerMessage(t *testing.T) {
	for mechanism, want := range map[string]string{
		"XOAUTH2":     "user=user\x01auth=Bearer secret\x01\x01",
		"OAUTHBEARER": "n,a=user,\x01host=" + relaytest.Host + "\x01port=587\x01auth=Bearer secret\x01\x01",
	} {
		synctest.Test(t, func(t *testing.T) {
			_, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{"AUTH " + mechanism}}, relaytest.Script{"AUTH": "235 ok"},
				func(o *smtp.Options) { o.Mechanism = mechanism })
			if got := scripted.Credentials()[0].Secret; got != encoded(want) {
				t.Errorf("AUTH %s %s, want %s", mechanism, got, want)
			}
		})
	}
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestBearerError: after the error of a challenge comes the answer of the mechanism, and
// the 535 after it is read, in every shape that it may have.
func TestBearerError(t *testing.T) {
	const google = `{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}`
	const refusal = "535 5.7.8 Username and Password not accepted"
	tests := []struct {
		name        string
		challenge   string // to AUTH
		after       string // to the response
		want        string
		problem     smtp.Problem
		text        string // of the failure; contains
		responses   int
		unpredicted bool // the number of responses
	}{
		{name: "Google", challenge: "334 " + encoded(google), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, text: "status 401, schemes Bearer, scope https://mail.google.com/", responses: 1},
		{name: "no right", challenge: "334 " + encoded(`{"status":"403"}`), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenScope, text: "status 403", responses: 1},
		{name: "a number", challenge: "334 " + encoded(`{"status":400}`), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenUnfit, text: "status 400", responses: 1},
		{name: "the standard's word", challenge: "334 " + encoded(`{"status":"invalid_token","scope":"mail","openid-configuration":"https://id.example.com/"}`), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, text: "status invalid_token, scope mail", responses: 1},
		{name: "no challenge", challenge: "535 5.7.3 Authentication unsuccessful", want: "relay auth 535", problem: smtp.ProblemTokenUnfit},
		{name: "an empty challenge", challenge: "334 ", after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, responses: 1},
		{name: "no base64", challenge: "334 {!", after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, responses: 1},
		{name: "no JSON", challenge: "334 " + encoded("go away"), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, responses: 1},
		{name: "JSON of another kind", challenge: "334 " + encoded(`[{"status":"401"}]`), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, responses: 1},
		{name: "a deep one", challenge: "334 " + encoded(`{"status":`+strings.Repeat("[", 3000)), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, responses: 1},
		{name: "control characters", challenge: "334 " + encoded(`{"status":"401\u001b[31m\r\n","scope":"x`+strings.Repeat("y", 1000)+`"}`), after: refusal, want: "relay auth 535", text: `status 401\x1b[31m`, problem: smtp.ProblemTokenDead, responses: 1, unpredicted: true},
		{name: "too much of it", challenge: "334 " + encoded(google+strings.Repeat(" ", 20<<10)), after: refusal, want: "relay auth 535", problem: smtp.ProblemTokenDead, responses: 1},
		{name: "1 MB", challenge: "334 " + strings.Repeat("QUFB", 256<<10), after: refusal, want: "relay auth", problem: smtp.ProblemNotSMTP},
		{name: "without end", challenge: "endless line", want: "relay auth", problem: smtp.ProblemNotSMTP},
		{name: "for ever", challenge: "334 " + encoded(google), after: "334 " + encoded(google), want: "relay auth", problem: smtp.ProblemTokenDead, text: "status 401", responses: 10},
		{name: "silence after it", challenge: "334 " + encoded(google), after: "silence", want: "relay auth", problem: smtp.ProblemTokenDead, text: "status 401", responses: 1},
		{name: "the end after it", challenge: "334 " + encoded(google), after: "drop", want: "relay auth", problem: smtp.ProblemTokenDead, text: "status 401", responses: 1},
		{name: "the end after nothing of use", challenge: "334 " + encoded("{}"), after: "drop", want: "relay auth", problem: smtp.ProblemDropped, responses: 1},
		{name: "the end in its place", challenge: "drop", want: "relay auth", problem: smtp.ProblemDropped},
		{name: "accepted after it", challenge: "334 " + encoded(google), after: "235 2.7.0 welcome", want: "relay auth", problem: smtp.ProblemOther, responses: 1},
		{name: "later", challenge: "334 " + encoded(google), after: "454 4.7.0 later", want: "relay auth 454", problem: smtp.ProblemAuthUnavailable, responses: 1},
		{name: "the token comes back", challenge: "334 " + encoded(`{"status":"400","scope":"the token was secret-token"}`), after: "535 5.7.8 no secret-token", want: "relay auth 535", text: "scope the token was [redacted]", problem: smtp.ProblemTokenUnfit, responses: 1},
	}
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER"} {
		answer := map[string]string{"XOAUTH2": "", "OAUTHBEARER": "AQ=="}[mechanism]
		for _, tt := range tests {
			t.Run(mechanism+" "+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					script := relaytest.Script{"AUTH": tt.challenge, "AUTH+": tt.after}
					source, _ := tokens("secret-token")
					a, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{"AUTH " + mechanism}}, script, withToken(source))
					f := a.Results[0].Failure
					if got := outcomes(a); got != tt.want || smtp.ProblemOf(f) != tt.problem {
						t.Fatalf("Deliver() = %s, %s, want %s, %s (%v)", got, smtp.ProblemOf(f), tt.want, tt.problem, f)
					}
					shown := f.Text + f.Reply.Text + f.Error() + fmt.Sprint(f.Err)
					if !strings.Contains(f.Text, tt.text) || strings.ContainsAny(shown, "\x1b\r\n") || strings.Contains(shown, "secret-token") || len(f.Text) > 1000 {
						t.Errorf("Text = %q, want %q in it", f.Text, tt.text)
					}
					sent := responses(scripted)
					if !tt.unpredicted && len(sent) != tt.responses || slices.ContainsFunc(sent, func(s string) bool { return s != answer }) {
						t.Errorf("responses %q, want %d of %q", sent, tt.responses, answer)
					}
				})
			})
		}
	}
}

// TestAuthLineTooLong: a relay that takes shorter lines than it should gets the response
// in a line of its own, in the same login.
func TestAuthLineTooLong(t *testing.T) {
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER", "PLAIN"} {
		for refusal, want := range map[string]string{
			"500 5.5.2 Line too long":                        "accepted 250",
			"555 5.5.2 Syntax error, command line too long.": "accepted 250",
			"500 5.5.2 Syntax error":                         "relay auth 500",
			"535 5.7.8 your password is too long":            "relay auth 535",
		} {
			synctest.Test(t, func(t *testing.T) {
				script := relaytest.Script{"AUTH " + mechanism + " ": refusal, "AUTH " + mechanism: "334 "}
				a, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{"AUTH " + mechanism}}, script,
					func(o *smtp.Options) { o.Mechanism = mechanism })
				if got := outcomes(a); got != want {
					t.Errorf("%s after %q: Deliver() = %s, want %s", mechanism, refusal, got, want)
				}
				if logins := scripted.Said("AUTH"); want == "accepted 250" && (logins != 2 || len(responses(scripted)) != 1) {
					t.Errorf("%s after %q: AUTH said %d times, responses %q, want two and one", mechanism, refusal, logins, responses(scripted))
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) { // that says so for ever
		a, scripted := deliverOne(t, relaytest.Options{}, relaytest.Script{"AUTH": "500 5.5.2 Line too long"}, nil)
		if got := outcomes(a); got != "relay auth 500" || scripted.Said("AUTH") != 2 {
			t.Errorf("Deliver() = %s after %d times AUTH, want relay auth 500 after two", got, scripted.Said("AUTH"))
		}
	})
}

// TestRefusedToken: a new token is fetched and tried, once, where it can help, and
// never where it cannot: not in the same login, and not in those that follow.
func TestRefusedToken(t *testing.T) {
	const disabled = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
	dead := func(status string) relaytest.Script {
		return relaytest.Script{"AUTH": "334 " + encoded(`{"status":"`+status+`"}`), "AUTH+": "535 5.7.8 no"}
	}
	says := func(reply string) relaytest.Script { return relaytest.Script{"AUTH": reply} }
	tests := []struct {
		name    string
		script  relaytest.Script
		worked  bool // the relay took the first token before
		problem smtp.Problem
		renews  bool
	}{
		{"disabled for the tenant", says(disabled + "Tenant."), false, smtp.ProblemSubmissionOff, false},
		{"disabled for the mailbox", says(disabled + "Mailbox."), true, smtp.ProblemSubmissionOff, false},
		{"security defaults", says("535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy."), true, smtp.ProblemForbidden, false},
		{"passwords only refused", says("550 5.7.30 Basic authentication is not supported"), true, smtp.ProblemForbidden, false},
		{"unfit", says("535 5.7.3 Authentication unsuccessful"), false, smtp.ProblemTokenUnfit, false},
		{"unfit, but it worked before", says("535 5.7.3 Authentication unsuccessful"), true, smtp.ProblemTokenUnfit, true},
		{"another mailbox", dead("400"), false, smtp.ProblemTokenUnfit, false},
		{"another mailbox, but it worked before", dead("400"), true, smtp.ProblemTokenUnfit, true},
		{"without the right", dead("403"), false, smtp.ProblemTokenScope, false},
		{"dead", dead("401"), false, smtp.ProblemTokenDead, true},
		{"dead in the standard's word", dead("invalid_token"), false, smtp.ProblemTokenDead, true},
		{"not accepted", says("535 5.7.8 Username and Password not accepted"), false, smtp.ProblemTokenDead, true},
		{"ends soon", says("501 5.5.127 Token will expire soon"), false, smtp.ProblemTokenEndsSoon, true},
		{"unknown mechanism", says("504 5.7.4 Unrecognized authentication type"), true, smtp.ProblemMechanism, false},
		{"not logged in", says("530 5.7.57 Client not authenticated"), true, smtp.ProblemLoginNeeded, false},
		{"browser", says("534 5.7.14 Please log in with your web browser"), true, smtp.ProblemBrowser, false},
		{"later", says("454 4.7.0 Temporary authentication failure"), true, smtp.ProblemAuthUnavailable, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logins := 0
				if tt.worked {
					tt.script = relaytest.Script{"AUTH": "235 2.7.0 welcome then " + tt.script["AUTH"], "AUTH+": tt.script["AUTH+"]}
					logins++
				}
				source, fetched := tokens("first", "second", "third", "fourth", "fifth", "sixth")
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) {
					withToken(source)(o)
					o.MessagesPerConnection, o.MaxConnections = 1, 1
				})
				if tt.worked {
					p.deliver(t, "accepted 250")
				}
				a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
				if f := a.Results[0].Failure; f == nil || smtp.ProblemOf(f) != tt.problem {
					t.Fatalf("Deliver() = %s, %s, want %s", outcomes(a), smtp.ProblemOf(f), tt.problem)
				}
				want := 1
				if tt.renews {
					want = 2
				}
				if n := p.scripted.Said("AUTH") - logins; n != want || fetched() != want {
					t.Errorf("%d logins with %d tokens, want %d", n, fetched(), want)
				}
				if tt.renews {
					return
				}
				for range 60 { // the next logins come with the same token
					p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
					time.Sleep(time.Minute)
				}
				if n := p.scripted.Said("AUTH") - logins; n < 5 || fetched() != 1 {
					t.Errorf("in an hour: %d logins with %d tokens, want some with one", n, fetched())
				}
			})
		})
	}
}

// TestRefusedTokenIsRemembered: the relay that hangs up after its refusal is said to have
// refused the token, and the next login comes with a new one.
func TestRefusedTokenIsRemembered(t *testing.T) {
	for name, script := range map[string]relaytest.Script{
		"after the reply":  {"AUTH": "bye 535 5.7.8 no then default"},
		"before the reply": {"AUTH": "334 " + encoded(`{"status":"401"}`) + " then default", "AUTH+": "drop"},
	} {
		synctest.Test(t, func(t *testing.T) {
			source, fetched := tokens("first", "second")
			p := newPoolTest(t, relaytest.Options{Password: "second"}, script, withToken(source))
			p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			if f := p.relay.Logins().Failure; f == nil || smtp.ProblemOf(f) != smtp.ProblemTokenDead {
				t.Errorf("%s: Logins() = %v, want a refused token", name, f)
			}
			time.Sleep(time.Minute)
			p.deliver(t, "accepted 250")
			if fetched() != 2 || p.scripted.Said("AUTH") != 2 {
				t.Errorf("%s: %d logins with %d tokens, want 2", name, p.scripted.Said("AUTH"), fetched())
			}
		})
	}
}

// TestTokenIsOneWord: no token gets into a line that would end it or its field,
// wherever it comes from.
func TestTokenIsOneWord(t *testing.T) {
	for _, token := range []string{"a b", "a\r\nMAIL FROM:<x@example.com>", "a\x01auth=Bearer b", "a\x00", "tökén", "a\x7f"} {
		synctest.Test(t, func(t *testing.T) {
			source, _ := tokens(token)
			a, scripted := deliverOne(t, relaytest.Options{Password: token}, nil, withToken(source))
			if f := a.Results[0].Failure; f == nil || smtp.ProblemOf(f) != smtp.ProblemToken || scripted.Said("AUTH") > 0 {
				t.Errorf("Deliver() with token %q = %s, want none without AUTH", token, outcomes(a))
			}
		})
	}
}

// FuzzBearer: whatever a relay says of a token, the login ends, nothing of it is shown
// raw or beyond the limits, and mail goes out only where the relay accepted the token
// and said nothing else of it.
func FuzzBearer(f *testing.F) {
	f.Add([]byte(`{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}`), "535 5.7.8 no", true, true)
	f.Add([]byte(`{"status":{"status":1e999}}`), "235 ok", false, true)
	f.Add([]byte("secret-token"), "334 secret-token", true, false)
	f.Add([]byte(`{"scope":"secret-token\u0000\r\n\u202e"}`), "535-5.7.3 secret-token\n535 5.7.3 x", false, true)
	f.Add([]byte("\xff{}"), "drop", false, false)
	f.Fuzz(func(t *testing.T, challenge []byte, after string, standard, encode bool) {
		mechanism := "XOAUTH2"
		if standard {
			mechanism = "OAUTHBEARER"
		}
		text := string(challenge)
		if encode {
			text = encoded(text)
		}
		if strings.ContainsAny(text+after, "\r|") || strings.Contains(text+after, " then ") || strings.HasPrefix(after, "after ") {
			return // a script of its own
		}
		synctest.Test(t, func(t *testing.T) {
			script := relaytest.Script{"AUTH": "334 " + text, "AUTH+": after}
			source, _ := tokens("secret-token")
			a, scripted := deliverOne(t, relaytest.Options{TLSExtensions: []string{"AUTH " + mechanism}}, script, withToken(source))
			if a.Results[0].Failure == nil || scripted.Said("MAIL") > 0 {
				t.Fatalf("%q: mail went out after an error", text)
			}
			failure := a.Results[0].Failure
			for _, shown := range []string{failure.Text, failure.Reply.Text, failure.Error(), fmt.Sprint(failure.Err)} {
				if strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(shown, "secret-token") || len(shown) > 1500 {
					t.Errorf("%q, then %q: shows %q", text, after, shown)
				}
			}
			if a.Duration > 2*time.Minute {
				t.Errorf("the login took %v", a.Duration)
			}
		})
	})
}

// TestTokenNotFetched: the endpoint's words are told to callers, our own addresses are
// not.
func TestTokenNotFetched(t *testing.T) {
	address := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 40000}
	for _, tt := range []struct {
		err         error
		text, cause string
	}{
		{
			errors.New("token endpoint answered 400 invalid_grant: AADSTS700082: expired\x1b"),
			`the OAuth2 token could not be fetched: token endpoint answered 400 invalid_grant: AADSTS700082: expired\x1b`,
			`token endpoint answered 400 invalid_grant: AADSTS700082: expired\x1b`,
		},
		{
			fmt.Errorf("endpoint: %w", &net.OpError{Op: "read", Source: address, Addr: address, Err: errors.New("connection reset")}),
			"the OAuth2 token could not be fetched: the token endpoint cannot be reached: connection reset",
			"the token endpoint cannot be reached: connection reset",
		},
		{
			&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Addr: address, Err: errors.New("connection refused")}},
			"the OAuth2 token could not be fetched: the token endpoint cannot be reached: connection refused",
			"the token endpoint cannot be reached: connection refused",
		},
		{
			&net.DNSError{Err: "no such host", Name: "login.example.com", Server: "10.1.2.3:53"},
			"the OAuth2 token could not be fetched: the name login.example.com could not be looked up",
			"the name login.example.com could not be looked up",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _ := deliverOne(t, relaytest.Options{}, nil, withToken(func(context.Context, string) (string, error) { return "", tt.err }))
			f := a.Results[0].Failure
			if f.Text != tt.text || smtp.LoginCause(f) != tt.cause || smtp.ProblemOf(f) != smtp.ProblemToken || !errors.Is(f, tt.err) {
				t.Errorf("Text = %q, LoginCause() = %q, %s, want %q, %q", f.Text, smtp.LoginCause(f), smtp.ProblemOf(f), tt.text, tt.cause)
			}
		})
	}
}
