package diagnosis

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailsidecar/credentials"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/relays"
)

// TestTokenWordsHaveTexts: each word of an OAuth2 server has sentences of its own.
func TestTokenWordsHaveTexts(t *testing.T) {
	seen := map[adviceText]relays.TokenWord{}
	for w := relays.TokenRefused; w <= relays.ProxyRefused; w++ {
		text := tokenTexts[w]
		if text.found == "" || text.do == "" || !strings.HasSuffix(text.found, ".") || !strings.HasSuffix(text.do, ".") {
			t.Errorf("tokenTexts[%d] = %+v, want two sentences", w, text)
		}
		if other, ok := seen[text]; ok {
			t.Errorf("tokenTexts[%d] is that of %d", w, other)
		}
		seen[text] = w
	}
	if len(tokenTexts) != len(seen) {
		t.Errorf("tokenTexts has %d texts, want %d", len(tokenTexts), len(seen))
	}
}

func TestOfToken(t *testing.T) {
	person := Settings{Number: 2, Grant: GrantLogin, Issuer: "microsoft"}
	gmail := Settings{Grant: GrantLogin, Issuer: "google"}
	client := Settings{Grant: GrantClient, Issuer: "microsoft"}
	other := Settings{Grant: GrantLogin}
	account := Settings{Grant: GrantServiceAccount, Issuer: "google"}
	refusal := func(code, description string, numbers ...int) error {
		return &token.Error{Status: 400, Code: code, Description: description, Numbers: numbers}
	}
	tests := []struct {
		name     string
		err      error
		settings Settings
		want     []string
		no       []string
	}{
		{"ended", refusal("invalid_grant", "AADSTS700082: …", 700082), person, []string{"not valid any more", "mailsidecar login microsoft --relay 2", "docker compose exec mailsidecar mailsidecar login microsoft --relay 2"}, []string{"testing"}},
		{"ended, the first of two", refusal("invalid_grant", ""), Settings{Number: 1, Others: true, Grant: GrantLogin, Issuer: "google"}, []string{"mailsidecar login google --relay 1 ("}, nil},
		{"ended at Google", refusal("invalid_grant", "Token has been expired or revoked."), gmail, []string{"mailsidecar login google (", "publish the app"}, []string{"--relay"}},
		{"ended elsewhere", refusal("invalid_grant", ""), other, []string{"set SMTP_OAUTH2_REFRESH_TOKEN", "run mailsidecar login"}, []string{"new refresh token"}},
		{"ended elsewhere, with a browser", refusal("invalid_grant", ""), Settings{Grant: GrantLogin, LoginURL: true, DeviceURL: true, Number: 3}, []string{"again: mailsidecar login --relay 3 ("}, nil},
		{"ended elsewhere, with a device code", refusal("invalid_grant", ""), Settings{Grant: GrantLogin, DeviceURL: true}, []string{"again: mailsidecar login --device ("}, nil},
		{"single tenant", refusal("invalid_request", "", 50194), person, []string{"a single directory", "SMTP2_OAUTH2_TENANT"}, nil},
		{"single tenant of a client", refusal("invalid_request", "", 50194), client, []string{"client credentials need", "SMTP_OAUTH2_TENANT"}, nil},
		{"secret ended", refusal("invalid_client", "", 7000222), client, []string{"has run out", "SMTP_OAUTH2_CLIENT_SECRET"}, nil},
		{"secret's id", refusal("invalid_client", "", 7000215), client, []string{"Value", "Secret ID"}, nil},
		{"wrong cloud", refusal("unauthorized_client", "", 700016), client, []string{"SMTP_OAUTH2_CLOUD"}, nil},
		{"no delegation", refusal("unauthorized_client", "Client is unauthorized to retrieve access tokens using this method"), account, []string{"may not act", "Domain Wide Delegation"}, nil},
		{"assertion of a client", refusal("invalid_grant", "no"), account, []string{"in place of a login"}, []string{"mailsidecar login"}},
		{"clock", refusal("invalid_grant", "Invalid JWT: Token must be … in a reasonable timeframe"), account, []string{"clock is wrong", "date -u"}, nil},
		{"not stored", fmt.Errorf("relay: %w", token.ErrNotStored), person, []string{"no OAuth2 login is stored", "mailsidecar login microsoft --relay 2"}, nil},
		{"foreign", &token.ForeignError{What: "client", Stored: "a", Configured: "b"}, person, []string{"does not belong", "mailsidecar login"}, nil},
		{"damaged", &token.DamagedError{Where: "/data/x", Err: errors.New("no")}, person, []string{"damaged", "mailsidecar login"}, nil},
		{"certificate file", &token.ClientError{File: "/x.pem", Err: errors.New("no"), Kind: credentials.KindCertificate}, client, []string{"SMTP_OAUTH2_CERT_FILE"}, nil},
		{"token file", &os.PathError{Op: "open", Path: "/x", Err: os.ErrPermission}, Settings{Grant: GrantGiven}, []string{"cannot be read", "65532"}, nil},
		{"DNS", &net.DNSError{Name: "login.microsoftonline.com", IsNotFound: true}, person, []string{"login.microsoftonline.com could not be looked up", "HTTPS_PROXY"}, nil},
		{"not reached", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, person, []string{"cannot be reached", "HTTPS_PROXY"}, []string{"mailsidecar login"}},
		{"closed in the middle", fmt.Errorf("token endpoint login.example.com: %w", io.ErrUnexpectedEOF), person, []string{"cannot be reached"}, nil},
		{"locked by another process", fmt.Errorf("auth: %w", &token.LockedError{Path: "/data/oauth2-1.lock", Err: context.DeadlineExceeded}), person, []string{"another mailsidecar process holds", "MAILSIDECAR_DATA_DIR"}, []string{"cannot be reached"}},
		{"refused, in memory", &token.MemoryError{Err: &token.Error{Status: 400, Code: "invalid_grant"}}, person, []string{"Set MAILSIDECAR_DATA_DIR", "Then: Log in again"}, nil},
		{"too slow", fmt.Errorf("token endpoint: %w", context.DeadlineExceeded), person, []string{"cannot be reached"}, []string{"mailsidecar login"}},
		{"proxy", fmt.Errorf("token endpoint: %w", &net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}), person, []string{"through the HTTP proxy", "HTTPS_PROXY"}, nil},
		{"proxy without name", &net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: "proxy"}}}, person, []string{"through the HTTP proxy"}, nil},
		{"proxy that forbids", &token.ProxyError{Status: 403}, person, []string{"through the HTTP proxy"}, nil},
		{"proxy that wants a login", &token.ProxyError{Status: 407}, person, []string{"HTTP proxy", "wants a login"}, nil},
		{"intercepted", x509.UnknownAuthorityError{}, person, []string{"intercepts HTTPS", "SSL_CERT_FILE"}, nil},
		{"not valid yet", x509.CertificateInvalidError{Reason: x509.Expired}, person, []string{"clock is wrong", "date -u"}, nil},
		{"no endpoint", &token.Error{Status: 404, Description: "the answer is no JSON object"}, other, []string{"no token endpoint", "SMTP_OAUTH2_TOKEN_URL"}, nil},
		{"fault", &token.Error{Status: 503}, person, []string{"has a fault", "Nothing has to be done"}, []string{"mailsidecar login"}},
		{"unknown", errors.New("what"), person, []string{"no OAuth2 access token"}, nil},
	}
	for _, tt := range tests {
		a := OfToken(tt.err, tt.settings)
		got := a.Found + " " + a.Do
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: OfToken(%v) = %q, want %q in it", tt.name, tt.err, got, want)
			}
		}
		for _, no := range append(tt.no, "$") {
			if strings.Contains(got, no) {
				t.Errorf("%s: OfToken(%v) = %q, want no %q", tt.name, tt.err, got, no)
			}
		}
		f := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageAuth, Err: tt.err}
		if smtp.ProblemOf(f) == smtp.ProblemToken {
			t.Errorf("%s: a bare %v is taken for a missing token", tt.name, tt.err)
		}
	}
}

// TestReportQuotes: the endpoint's own words stand in the advice, as they are.
func TestReportQuotes(t *testing.T) {
	refused := &token.Error{Status: 400, Code: "invalid_grant", Description: "AADSTS700082: SMTP_ $HOST $LOGIN $SAID", Numbers: []int{700082}}
	r := report1("smtp.office365.com", "", []smtp.RungCheck{{Port: 587, Failure: &smtp.CheckFailure{
		Problem: smtp.ProblemToken, Text: "the OAuth2 token could not be fetched", Cause: refused.Error(), Err: refused,
	}}})
	got := flatten(OfReport(r, Settings{Number: 2, Grant: GrantLogin, Issuer: "microsoft"}))
	for _, want := range []string{"not valid any more", "400 invalid_grant: AADSTS700082: SMTP_ $HOST $LOGIN $SAID", "mailsidecar login microsoft --relay 2"} {
		if !strings.Contains(got, want) {
			t.Errorf("OfReport() = %q, want %q in it", got, want)
		}
	}
}

// TestLoginWords: with OAuth2 no advice is about a password, and each says what to do.
func TestLoginWords(t *testing.T) {
	for _, p := range []smtp.Problem{
		smtp.ProblemSubmissionOff, smtp.ProblemForbidden, smtp.ProblemBrowser, smtp.ProblemMechanism, smtp.ProblemTokenDead,
		smtp.ProblemTokenEndsSoon, smtp.ProblemTokenUnfit, smtp.ProblemTokenScope,
	} {
		for grant := GrantGiven; grant <= GrantServiceAccount; grant++ {
			a := OfReport(report1("smtp.office365.com", "", []smtp.RungCheck{replied(587, p, 535, "5.7.3", "no")}), Settings{Grant: grant, Issuer: "microsoft"})
			got := flatten(a)
			for _, no := range []string{"needs OAuth2", "SMTP_PASSWORD", "refused the user name", "$LOGIN"} {
				if strings.Contains(got, no) {
					t.Errorf("%s with grant %d: %q, want no %q", p, grant, got, no)
				}
			}
			if grant != GrantLogin && strings.Contains(got, "log in again") {
				t.Errorf("%s with grant %d: %q, want no login of a person", p, grant, got)
			}
			if !strings.Contains(got, "535 5.7.3 no") || a[0].Do == "" {
				t.Errorf("%s with grant %d: %q, want the reply and what to do", p, grant, got)
			}
		}
	}
	got := flatten(OfReport(report1("smtp.office365.com", "", []smtp.RungCheck{replied(587, smtp.ProblemSubmissionOff, 535, "5.7.139", "x")}), Settings{}))
	for _, want := range []string{"Set-CASMailbox", "Set-TransportConfig -SmtpClientAuthenticationDisabled $false"} {
		if !strings.Contains(got, want) {
			t.Errorf("smtp_auth_disabled = %q, want %q", got, want)
		}
	}
	if got = flatten(OfReport(report1("smtp-mail.outlook.com", "", []smtp.RungCheck{replied(587, smtp.ProblemSubmissionOff, 535, "5.7.139", "x")}), Settings{})); strings.Contains(got, "Set-CASMailbox") {
		t.Errorf("smtp_auth_disabled at Outlook.com = %q, want no command of Exchange", got)
	}
}

func TestOfWarning(t *testing.T) {
	soon, past := time.Now().Add(72*time.Hour), time.Now().Add(-72*time.Hour)
	s := Settings{Number: 2, Issuer: "microsoft", Grant: GrantLogin}
	for _, tt := range []struct {
		w    token.Warning
		want []string
	}{
		{token.Warning{Kind: token.WarningLogin, At: soon}, []string{"ends on", "before that day: mailsidecar login microsoft --relay 2"}},
		{token.Warning{Kind: token.WarningLogin, At: past}, []string{"ended on", "Log in again now"}},
		{token.Warning{Kind: token.WarningSecret, At: soon}, []string{"SMTP2_OAUTH2_CLIENT_SECRET", "SMTP2_OAUTH2_SECRET_EXPIRES"}},
		{token.Warning{Kind: token.WarningCertificate, At: soon}, []string{"SMTP2_OAUTH2_CERT_FILE, together with its key"}},
		{token.Warning{Kind: token.WarningClock, Skew: -time.Hour}, []string{"clock", "date -u"}},
		{token.Warning{Kind: token.WarningNotStored}, []string{"MAILSIDECAR_DATA_DIR"}},
	} {
		a := OfWarning(tt.w, s)
		for _, want := range tt.want {
			if !strings.Contains(a.Found+" "+a.Do, want) {
				t.Errorf("OfWarning(%s) = %+v, want %q in it", tt.w.Kind, a, want)
			}
		}
	}
	if a := OfWarning(token.Warning{Kind: token.WarningLogin, At: soon}, Settings{Issuer: "google", Grant: GrantLogin}); !strings.Contains(a.Do, "publish the app") {
		t.Errorf("OfWarning() for Google = %+v, want how to publish the app", a)
	}
}

// TestOfFailureUnwraps: what wraps the cause does not hide it.
func TestOfFailureUnwraps(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, "through the HTTP proxy"},
		{&token.ProxyError{Status: 407}, "wants a login"},
		{x509.UnknownAuthorityError{}, "intercepts HTTPS"},
		{&token.Error{Status: 400, Code: "invalid_client", Numbers: []int{7000222}}, "has run out"},
		{token.ErrNotStored, "no OAuth2 login is stored"},
		{context.DeadlineExceeded, "cannot be reached"},
	} {
		wrapped := &mailer.LoginError{Next: time.Now(), Err: fmt.Errorf("cause: %w", fmt.Errorf("token endpoint: %w", tt.err))}
		if got := tokenText(wrapped, Settings{}).found; !strings.Contains(got, tt.want) {
			t.Errorf("tokenText(%v) = %q, want %q in it", tt.err, got, tt.want)
		}
	}
}

// TestNotStoredIsSaidOnce: what a sentence of ours says is not repeated as an error.
func TestNotStoredIsSaidOnce(t *testing.T) {
	r := report1("smtp.gmail.com", "", []smtp.RungCheck{{Port: 587, Failure: &smtp.CheckFailure{
		Problem: smtp.ProblemToken, Cause: token.ErrNotStored.Error(), Err: token.ErrNotStored,
	}}})
	got := flatten(OfReport(r, Settings{Grant: GrantLogin, Issuer: "google"}))
	if strings.Contains(got, "The error is") || !strings.Contains(got, "Log in: mailsidecar login google") {
		t.Errorf("OfReport() = %q, want the command and no error", got)
	}
}
