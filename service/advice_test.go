package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
)

// oauth2Relay is a relay in clear text on loopback that offers XOAUTH2, and a token
// endpoint that answers every request alike.
func oauth2Relay(t *testing.T, script relaytest.Script, status int, answer string) (c config.Relay, relay *relaytest.Relay) {
	t.Helper()
	relay = relaytest.New(t, relaytest.Options{Extensions: []string{"AUTH LOGIN XOAUTH2"}, Password: "secret"}, script)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(endpoint.Close)
	c = config.Default().Relays[0]
	c.Number, c.Host, c.Ports, c.TLS, c.Auth, c.Username = 2, "127.0.0.1", config.Ladder{{Port: relay.Listen(t)}}, "none", "auto", "shop@example.com"
	c.OAuth2.Provider, c.OAuth2.ClientID, c.OAuth2.TokenURL = "microsoft", "client", endpoint.URL
	c.OAuth2.RefreshToken = config.NewSecret("refresh-secret")
	return c, relay
}

// TestTokenRefusalIsTold: what the token endpoint says, what it means and what to do
// stand in the log, in GET /v1/relays and in the answer of a check.
func TestTokenRefusalIsTold(t *testing.T) {
	const answer = `{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired due to inactivity. refresh-secret\u001b","error_codes":[700082]}`
	c, scripted := oauth2Relay(t, nil, http.StatusBadRequest, answer)
	told := tellsOf(t, c)
	for place, text := range told {
		for _, want := range []string{"invalid_grant", "AADSTS700082: The refresh token has expired", "login is not valid any more", "mailsidecar login microsoft --relay 2"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s = %s\nwant %q in it", place, text, want)
			}
		}
		for _, no := range []string{"refresh-secret", "\x1b", "SMTP2_PASSWORD", "needs OAuth2"} {
			if strings.Contains(text, no) {
				t.Errorf("%s = %s\nwant no %q", place, text, no)
			}
		}
	}
	if n := scripted.Said("AUTH"); n != 0 {
		t.Errorf("%d logins without a token", n)
	}
}

// TestLoginRefusalIsTold: with OAuth2 a refused login is not about a password, and
// tells what to do everywhere.
func TestLoginRefusalIsTold(t *testing.T) {
	for _, tt := range []struct {
		reply string
		want  []string
	}{
		{"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", []string{"SMTP AUTH is switched off", "Set-CASMailbox", "Set-TransportConfig"}},
		{"535 5.7.3 Authentication unsuccessful", []string{"another resource or another mailbox", "SMTP2_USERNAME", "Microsoft Graph"}},
		{"535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy.", []string{"a rule of the mailbox's organization", "security defaults"}},
	} {
		c, scripted := oauth2Relay(t, relaytest.Script{"AUTH": tt.reply}, http.StatusOK, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
		for place, text := range tellsOf(t, c) {
			for _, want := range append(tt.want, "Authentication unsuccessful") {
				if !strings.Contains(text, want) {
					t.Errorf("%s after %q = %s\nwant %q in it", place, tt.reply, text, want)
				}
			}
			for _, no := range []string{"SMTP2_PASSWORD", "needs OAuth2", "user name or the password"} {
				if strings.Contains(text, no) {
					t.Errorf("%s after %q = %s\nwant no %q", place, tt.reply, text, no)
				}
			}
		}
		if n := scripted.Said("AUTH"); n != 2 { // of the delivery and of the check
			t.Errorf("%d logins after %q, want 2", n, tt.reply)
		}
	}
}

// tellsOf makes a delivery and a check fail, and returns what is told where.
func tellsOf(t *testing.T, relay config.Relay) map[string]string {
	t.Helper()
	c := serviceWith(t, "none")
	c.Relays = []config.Relay{relay}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{Config: c, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if _, err := post(s, http.Header{}); err != nil {
		t.Error(err)
	}
	client, err := api.New(s.URL(), "", "test", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.HTTP.CloseIdleConnections()
	told := map[string]string{}
	for _, route := range []string{"GET /v1/relays", "POST /v1/relays/check"} {
		method, path, _ := strings.Cut(route, " ")
		answer, err := client.Do(ctx, method, path, http.Header{}, nil)
		var body any
		if err != nil || json.Unmarshal(answer.Body, &body) != nil || answer.Status != http.StatusOK {
			t.Fatalf("%s = %d, %v", route, answer.Status, err)
		}
		told[route] = fmt.Sprint(body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	told["log"] = log.String()
	return told
}

// TestTokensAreTold: what ends when, and what that means, stand in the answers before
// mail stops.
func TestTokensAreTold(t *testing.T) {
	c, _ := oauth2Relay(t, nil, http.StatusOK, `{"access_token":"secret","token_type":"Bearer","expires_in":3600,"refresh_token_expires_in":86400}`)
	c.OAuth2.SecretExpires = config.Date{Time: time.Now().Add(72 * time.Hour)}
	for place, text := range tellsOf(t, c) {
		for _, want := range map[string][]string{
			"GET /v1/relays":        {"token_expires_at:", "login_expires_at:", "warnings:[login_expires secret_expires]", "the OAuth2 login ends on", "mailsidecar login microsoft --relay 2"},
			"POST /v1/relays/check": {"secret_expires_at:", "the OAuth2 client secret ends on", "SMTP2_OAUTH2_CLIENT_SECRET"},
			"log":                   {"the OAuth2 login ends on"},
		}[place] {
			if !strings.Contains(text, want) {
				t.Errorf("%s = %s\nwant %q in it", place, text, want)
			}
		}
		if strings.Contains(text, "refresh-secret") {
			t.Errorf("%s = %s\nholds the refresh token", place, text)
		}
	}
}

// TestTroubleIsLoggedWhenNew: within an hour the same trouble is logged once, and another one
// of the same kind again.
func TestTroubleIsLoggedWhenNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 0
		relay, err := smtp.New(smtp.Options{
			Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", RootCAs: relaytest.RootCAs(),
			Dial:        (&relaytest.Network{Port: map[int]any{587: relaytest.New(t, relaytest.Options{}, nil)}}).Dial,
			TokenSource: func(context.Context, string) (string, error) { return "", &token.Error{Status: status} },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer relay.Close()
		var log bytes.Buffer
		m := newRelayMonitor(config.Default().Relays, []Relay{relay}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		for _, status = range []int{503, 502, 404, 404, 503} {
			m.routes()[0].Relay.Deliver(t.Context(), mailer.Envelope{ForwardPaths: []string{"b@example.org"}}, mailer.Content{})
			time.Sleep(50 * time.Minute)
		}
		if got := strings.Count(log.String(), "relay cannot be used"); got != 3 {
			t.Errorf("logged %d times, want for 503, 404 and 503:\n%s", got, log.String())
		}
	})
}
