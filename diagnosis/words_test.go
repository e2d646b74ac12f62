package diagnosis

import (
	"errors"
	"fmt"
	"io/fs"
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
)

// words is a row of a test of advice: what must be in it, and what must not.
type words struct {
	name     string
	settings Settings
	want, no []string
}

func (w words) check(t *testing.T, got string) {
	t.Helper()
	for _, want := range w.want {
		if !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", w.name, got, want)
		}
	}
	for _, no := range append(w.no, "$", "{", "|", "..", " .") {
		if strings.Contains(got, no) {
			t.Errorf("%s: %q, want no %q", w.name, got, no)
		}
	}
}

var (
	byCertificate = Settings{Grant: GrantClient, Issuer: "microsoft", Proof: ProofCertificate, KeyFile: true}
	byAssertion   = Settings{Grant: GrantClient, Issuer: "microsoft", Proof: ProofAssertion}
	bySecret      = Settings{Grant: GrantClient, Issuer: "microsoft", Proof: ProofSecret}
	byAccount     = Settings{Grant: GrantServiceAccount, Issuer: "google"}
	byPerson      = Settings{Grant: GrantLogin, Issuer: "microsoft"}
	byFile        = Settings{Grant: GrantGiven}
)

// TestFileWords: a file that cannot be used is told by its setting alone, with what is
// wrong.
func TestFileWords(t *testing.T) {
	others := func(own string) []string {
		var list []string
		for _, name := range []string{"CERT_FILE", "KEY_FILE", "ASSERTION_FILE", "SERVICE_ACCOUNT_FILE", "ACCESS_TOKEN_FILE"} {
			if !strings.Contains(own, name) {
				list = append(list, "SMTP_OAUTH2_"+name)
			}
		}
		return list
	}
	file := func(kind credentials.Kind, unread bool, err error) error {
		return fmt.Errorf("relay: %w", &token.ClientError{File: "/run/x", Err: err, Kind: kind, Unread: unread})
	}
	ended := &credentials.EndedError{At: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		words
		err error
	}{
		{words{"token missing", byFile, []string{"the file with the access token (SMTP_OAUTH2_ACCESS_TOKEN_FILE) cannot be read", "no such file", "65532"}, append(others("ACCESS_TOKEN_FILE"), "proves")}, file(credentials.KindAccessToken, true, syscall.ENOENT)},
		{words{"token empty", byFile, []string{"the file with the access token (SMTP_OAUTH2_ACCESS_TOKEN_FILE) cannot be used: it is empty"}, append(others("ACCESS_TOKEN_FILE"), "65532")}, file(credentials.KindAccessToken, false, errors.New("it is empty, and should hold the access token"))},
		{words{"certificate missing", byCertificate, []string{"(SMTP_OAUTH2_CERT_FILE) cannot be read"}, others("CERT_FILE")}, file(credentials.KindCertificate, true, fs.ErrPermission)},
		{words{"certificate ended", byCertificate, []string{"certificate has ended", "Make a new certificate", "upload it", "SMTP_OAUTH2_CERT_FILE", "SMTP_OAUTH2_KEY_FILE"}, append(others("CERT_FILE KEY_FILE"), "65532", "is there")}, file(credentials.KindCertificate, false, ended)},
		{words{"key missing", byCertificate, []string{"(SMTP_OAUTH2_KEY_FILE) cannot be read"}, others("KEY_FILE")}, file(credentials.KindKey, true, fs.ErrNotExist)},
		{words{"key of another", byCertificate, []string{"(SMTP_OAUTH2_KEY_FILE) cannot be used: its key does not belong"}, others("KEY_FILE CERT_FILE")}, file(credentials.KindKey, false, errors.New("its key does not belong to the certificate"))},
		{words{"assertion empty", byAssertion, []string{"(SMTP_OAUTH2_ASSERTION_FILE) cannot be used"}, others("ASSERTION_FILE")}, file(credentials.KindAssertion, false, errors.New("it is empty"))},
		{words{"service account missing", byAccount, []string{"(SMTP_OAUTH2_SERVICE_ACCOUNT_FILE) cannot be read"}, others("SERVICE_ACCOUNT_FILE")}, file(credentials.KindServiceAccount, true, fs.ErrNotExist)},
	} {
		a := OfToken(tt.err, tt.settings)
		tt.check(t, a.Found+" "+a.Do)
		r := report1("smtp.office365.com", "", []smtp.RungCheck{{Port: 587, Failure: &smtp.CheckFailure{Problem: smtp.ProblemToken, Cause: tt.err.Error(), Err: tt.err}}})
		if got := flatten(OfReport(r, tt.settings)); strings.Contains(got, "The error is") {
			t.Errorf("%s: %q says the error twice", tt.name, got)
		}
	}
}

// TestClientWords: what a client is refused for is told by what it proves itself with.
func TestClientWords(t *testing.T) {
	refusal := func(code string, numbers ...int) error {
		return &token.Error{Status: 401, Code: code, Numbers: numbers}
	}
	federation := []string{"SMTP_OAUTH2_ASSERTION_FILE", "ssuer, subject and audience"}
	for _, tt := range []struct {
		words
		err error
	}{
		{words{"secret", bySecret, []string{"SMTP_OAUTH2_CLIENT_SECRET"}, []string{"CERT_FILE", "ASSERTION_FILE"}}, refusal("invalid_client")},
		{words{"certificate", byCertificate, []string{"SMTP_OAUTH2_CERT_FILE", "Application (client) ID"}, []string{"SECRET", "its secret"}}, refusal("invalid_client")},
		{words{"assertion", byAssertion, federation, []string{"SECRET", "secret"}}, refusal("invalid_client")},
		{words{"service account", byAccount, []string{"SMTP_OAUTH2_SERVICE_ACCOUNT_FILE"}, []string{"CLIENT_SECRET", "CLIENT_ID"}}, refusal("invalid_client")},
		{words{"public client", byPerson, []string{"SMTP_OAUTH2_CLIENT_ID", "If the app has a secret"}, []string{"its secret is wrong"}}, refusal("invalid_client")},
		{words{"no federated credential", byAssertion, federation, []string{"SECRET", "its secret"}}, refusal("invalid_client", 70021)},
		{words{"issuer", byAssertion, federation, []string{"SECRET", "its secret"}}, refusal("invalid_client", 700211)},
		{words{"audience", byAssertion, federation, []string{"SECRET", "its secret"}}, refusal("invalid_request", 700212)},
		{words{"subject", byAssertion, federation, []string{"SECRET", "its secret"}}, refusal("invalid_client", 700213)},
		{words{"signature of an assertion", byAssertion, federation, []string{"Upload", "CERT_FILE"}}, refusal("invalid_client", 50012)},
	} {
		a := OfToken(tt.err, tt.settings)
		tt.check(t, a.Found+" "+a.Do)
	}
}

// TestMechanismWords: what is said of AUTH mechanisms follows what the relay offers, and
// SMTP_AUTH.
func TestMechanismWords(t *testing.T) {
	with := func(s Settings, auth string) Settings { s.Auth = auth; return s }
	for _, tt := range []struct {
		words
		problem   smtp.Problem
		mechanism string // tried
		offered   string
	}{
		{words{"XOAUTH2 alone", with(byPerson, "oauthbearer"), []string{"does not offer OAUTHBEARER, which SMTP_AUTH names", "It offers LOGIN XOAUTH2.", "Leave SMTP_AUTH unset: then XOAUTH2 is used"}, []string{"neither", "SMTP_PASSWORD"}}, smtp.ProblemNoMechanism, "", "LOGIN XOAUTH2"},
		{words{"OAUTHBEARER alone", with(byPerson, "xoauth2"), []string{"does not offer XOAUTH2", "then OAUTHBEARER is used"}, []string{"neither", "SMTP_PASSWORD"}}, smtp.ProblemNoMechanism, "", "PLAIN OAUTHBEARER"},
		{words{"no token", byPerson, []string{"neither XOAUTH2 nor OAUTHBEARER", "It offers PLAIN LOGIN.", "set SMTP_PASSWORD"}, []string{"SMTP_AUTH"}}, smtp.ProblemNoMechanism, "", "PLAIN LOGIN"},
		{words{"no token, and a mechanism named", with(byPerson, "xoauth2"), []string{"neither XOAUTH2 nor OAUTHBEARER", "It offers PLAIN LOGIN."}, nil}, smtp.ProblemNoMechanism, "", "PLAIN LOGIN"},
		{words{"another one for passwords", with(Settings{}, "cram-md5"), []string{"does not offer CRAM-MD5", "It offers PLAIN.", "Leave SMTP_AUTH unset"}, []string{"OAuth2"}}, smtp.ProblemNoMechanism, "", "PLAIN"},
		{words{"no password", Settings{}, []string{"no AUTH mechanism that takes a password", "It offers XOAUTH2.", "docs/oauth2.md"}, []string{"SMTP_AUTH"}}, smtp.ProblemNoMechanism, "", "XOAUTH2"},
		{words{"NTLM", Settings{}, []string{"SMTP_AUTH=ntlm"}, []string{"OAuth2"}}, smtp.ProblemNoMechanism, "", "NTLM"},
		{words{"no login", byPerson, []string{"offers no login there"}, []string{"neither", "SMTP_PASSWORD"}}, smtp.ProblemNoMechanism, "", ""},
		{words{"odd names", byPerson, []string{"It offers PLAIN."}, []string{"$HOST", "A|B"}}, smtp.ProblemNoMechanism, "", "$HOST {A|B} PLAIN"},

		{words{"refused, named", with(byPerson, "xoauth2"), []string{"It offers LOGIN XOAUTH2.", "Leave SMTP_AUTH unset", "504 5.7.4 no."}, []string{"lists them"}}, smtp.ProblemMechanism, "XOAUTH2", "LOGIN XOAUTH2"},
		{words{"refused, another token", byPerson, []string{"It offers XOAUTH2 OAUTHBEARER.", "SMTP_AUTH=oauthbearer"}, []string{"lists them"}}, smtp.ProblemMechanism, "XOAUTH2", "XOAUTH2 OAUTHBEARER"},
		{words{"refused, no other token", byPerson, []string{"no other one that takes an OAuth2 token"}, []string{"lists them", "SMTP_AUTH"}}, smtp.ProblemMechanism, "XOAUTH2", "LOGIN XOAUTH2"},
		{words{"refused, another password", Settings{}, []string{"SMTP_AUTH=login"}, []string{"lists them", "OAuth2"}}, smtp.ProblemMechanism, "PLAIN", "PLAIN LOGIN XOAUTH2"},
		{words{"refused, no other password", Settings{}, []string{"no other one that takes a password", "docs/oauth2.md"}, []string{"lists them"}}, smtp.ProblemMechanism, "PLAIN", "PLAIN XOAUTH2"},
	} {
		rung := replied(587, tt.problem, 504, "5.7.4", "no")
		if tt.problem == smtp.ProblemNoMechanism {
			rung = stopped(587, tt.problem)
			rung.Failure.Text = ""
		}
		rung.Mechanism, rung.Mechanisms = tt.mechanism, strings.Fields(tt.offered)
		tt.check(t, flatten(OfReport(report1("smtp.example.com", "", []smtp.RungCheck{rung}), tt.settings)))
	}
	f := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageAuth, Reply: mailer.Reply{Code: 504, Enhanced: "5.7.4", Text: "Unrecognized authentication type"}}
	a := OfFailure(f, "smtp.office365.com", nil, with(byPerson, "oauthbearer"))
	words{"in the log", Settings{}, []string{"Leave SMTP_AUTH unset"}, nil}.check(t, a.Found+" "+a.Do)
}

// TestLoginHints: a login that is missing is told with each way to do without it.
func TestLoginHints(t *testing.T) {
	own := Settings{Grant: GrantLogin}
	proved := own
	proved.Proof = ProofSecret
	for _, tt := range []words{
		{"own server", own, []string{"get a refresh token", "SMTP_OAUTH2_REFRESH_TOKEN", "SMTP_OAUTH2_AUTHORIZE_URL", "SMTP_OAUTH2_DEVICE_URL", "mailsidecar login", "SMTP_OAUTH2_CLIENT_SECRET", "SMTP_OAUTH2_CERT_FILE", "SMTP_OAUTH2_ASSERTION_FILE"}, []string{"new refresh token"}},
		{"own server with a secret", proved, []string{"SMTP_OAUTH2_AUTHORIZE_URL"}, []string{"SMTP_OAUTH2_CLIENT_SECRET"}},
		{"own server with an address", Settings{Grant: GrantLogin, LoginURL: true}, []string{"Log in: mailsidecar login (", "SMTP_OAUTH2_CLIENT_SECRET"}, []string{"REFRESH_TOKEN"}},
		{"Microsoft", byPerson, []string{"Log in: mailsidecar login microsoft (", "SMTP_OAUTH2_CLIENT_SECRET"}, []string{"REFRESH_TOKEN"}},
		{"Google", Settings{Grant: GrantLogin, Issuer: "google"}, []string{"Log in: mailsidecar login google ("}, []string{"CERT_FILE"}},
	} {
		a := OfToken(token.ErrNotStored, tt.settings)
		tt.check(t, a.Found+" "+a.Do)
	}
}

// TestEndingCommands: a command that ends does not promise what only a server does.
func TestEndingCommands(t *testing.T) {
	served := []string{"by itself", "next start", "Nothing has to be done"}
	for grant := GrantGiven; grant <= GrantServiceAccount; grant++ {
		for _, p := range []smtp.Problem{smtp.ProblemTokenDead, smtp.ProblemTokenEndsSoon, smtp.ProblemTokenUnfit, smtp.ProblemTokenScope, smtp.ProblemToken} {
			for _, issuer := range []string{"microsoft", "google", ""} {
				s := Settings{Grant: grant, Issuer: issuer, Ends: true}
				words{fmt.Sprint(p, grant), s, nil, served}.check(t, flatten(OfReport(report1("smtp.example.com", "", []smtp.RungCheck{replied(587, p, 535, "5.7.3", "no")}), s)))
			}
		}
	}
	for _, err := range []error{
		&token.Error{Status: 503}, &token.Error{Status: 429}, &token.ProxyError{Status: 403},
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, &net.DNSError{Name: "x"}, errors.New("x"),
	} {
		s := byPerson
		a := OfToken(err, s)
		words{err.Error(), s, nil, nil}.check(t, a.Found+" "+a.Do)
		s.Ends = true
		a = OfToken(err, s)
		words{err.Error(), s, nil, served}.check(t, a.Found+" "+a.Do)
		if a.Do == "" {
			t.Errorf("OfToken(%v) says nothing to do", err)
		}
	}
}

// TestSentencesEnd: the words of relay and OAuth2 server are sentences of their own.
func TestSentencesEnd(t *testing.T) {
	for text, want := range map[string]string{
		"authentication failed":     "535 5.7.8 authentication failed. Before that, the relay says that it is dead.",
		"Authentication failed.":    "535 5.7.8 Authentication failed. Before that, the relay says that it is dead.",
		"What is that? Try again!":  "Try again! Before that, the relay says that it is dead.",
		"Do you know what you did?": "did? Before that,",
	} {
		rung := replied(587, smtp.ProblemTokenDead, 535, "5.7.8", text)
		rung.Failure.Cause = "the relay says that it is dead"
		got := flatten(OfReport(report1("smtp.gmail.com", "", []smtp.RungCheck{rung}), Settings{Grant: GrantGiven}))
		words{text, Settings{}, []string{want}, nil}.check(t, got)
	}
}
