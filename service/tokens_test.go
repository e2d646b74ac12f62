package service

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp/token"
)

// endpoint is an OAuth2 server that replaces a refresh token with each use, and ends
// the family when a spent one comes again.
type endpoint struct {
	mu    sync.Mutex
	good  string // the refresh token that is good
	count int
	dead  bool
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.FormValue("refresh_token") != e.good || e.dead {
		e.dead = true
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant","error_description":"spent"}`)
		return
	}
	e.count++
	e.good = fmt.Sprintf("refresh%d", e.count)
	// Good for less than a renewal ahead, so that every user of the store asks again.
	fmt.Fprintf(w, `{"access_token":"access%d","refresh_token":"%s","expires_in":3600}`, e.count, e.good)
}

// oauthConfig is a server whose relay takes tokens of the endpoint.
func oauthConfig(t *testing.T, e *endpoint, store, user string) (config.Config, *relaytest.Relay) {
	t.Helper()
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	relay := relaytest.New(t, relaytest.Options{Extensions: []string{"AUTH XOAUTH2"}}, relaytest.Script{"AUTH": "235 2.7.0 accepted"})
	c := serviceWith(t, store, relay.Listen(t))
	c.Service.DataDir = filepath.Join(t.TempDir(), "data")
	r := &c.Relays[0]
	r.TLS, r.Auth, r.Username = "none", "auto", user
	r.OAuth2 = config.OAuth2{ClientID: "id", TokenURL: server.URL}
	return c, relay
}

// TestLoginWhileRunning: a server without a login queues the mail and says what is
// missing. It takes the login that is stored, with the account as user name, and
// delivers.
func TestLoginWhileRunning(t *testing.T) {
	e := &endpoint{good: "login"}
	c, relay := oauthConfig(t, e, "sqlite", "")
	s, stop := start(t, c)
	if a, err := post(s, http.Header{}); err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("post = %+v, %v, want 202", a, err)
	}
	for s.monitor.Status()[0].Failure == nil {
		time.Sleep(time.Millisecond)
	}
	if st, ok := TokenStatus(s.relays[0]); !ok || token.KindOf(st.Err) != token.KindLogin || relay.Said("AUTH") != 0 {
		t.Errorf("TokenStatus() = %+v, %v, %d logins, want an error that asks for a login", st, ok, relay.Said("AUTH"))
	}
	login := token.Record{
		RefreshToken: "login", TokenURL: c.Relays[0].OAuth2.TokenURL, ClientID: "id", Account: "jo@example.com", Issued: time.Now(),
	}
	if err := token.NewFileStore(c.Service.DataDir).Save(t.Context(), 1, login); err != nil {
		t.Fatal(err)
	}
	for len(relay.Messages()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if st, _ := TokenStatus(s.relays[0]); st.Account != "jo@example.com" || st.Err != nil {
		t.Errorf("TokenStatus() = %+v, want the account without an error", st)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if r, err := token.NewFileStore(c.Service.DataDir).Load(t.Context(), 1); err != nil || r.RefreshToken != e.good || r.Account != "jo@example.com" {
		t.Errorf("stored is %#v, %v, want %s", r, err, e.good)
	}
}

// TestCheckBesideServer: checks and a server share the stored login. No refresh token
// is spent twice, and one request serves all.
func TestCheckBesideServer(t *testing.T) {
	e := &endpoint{good: "configured"}
	c, _ := oauthConfig(t, e, "none", "jo@example.com")
	c.Relays[0].OAuth2.RefreshToken = config.NewSecret("configured")
	s, stop := start(t, c)
	var checks sync.WaitGroup
	for range 8 {
		checks.Go(func() {
			relays, err := NewRelays(c.Relays, RelayOptions{DataDir: c.Service.DataDir})
			if err != nil {
				t.Error(err)
				return
			}
			defer relays[0].Close()
			if report := relays[0].Check(t.Context(), ""); !report.OK {
				t.Errorf("Check() = %+v", report)
			}
		})
	}
	checks.Wait()
	if report := s.monitor.Check(t.Context(), "")[0]; !report.OK {
		t.Errorf("the server's Check() = %+v", report)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if e.dead || e.count != 1 {
		t.Errorf("the family ended: %v; the endpoint was asked %d times, want once", e.dead, e.count)
	}
}

// TestTokenStore: where a login is kept. One that ends with the process is warned of.
func TestTokenStore(t *testing.T) {
	c, _ := oauthConfig(t, &endpoint{}, "none", "jo@example.com")
	for dir, want := range map[string]int{"": 1, t.TempDir(): 0} {
		var out bytes.Buffer
		relays, err := NewRelays(c.Relays, RelayOptions{Logger: slog.New(slog.NewTextHandler(&out, nil)), DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		relays[0].Close()
		if got := strings.Count(out.String(), "level=WARN msg=\"OAuth2 login is kept in memory only\""); got != want {
			t.Errorf("data directory %q: log %q, want %d warnings", dir, out.String(), want)
		}
	}
	if newTokenStore(RelayOptions{}).Lasting() || !newTokenStore(RelayOptions{DataDir: t.TempDir()}).Lasting() {
		t.Error("newTokenStore() keeps logins in the wrong place")
	}
}

// TestStopSavesToken: a server that stops while the endpoint takes its time saves the
// token that the answer brings.
func TestStopSavesToken(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	e := &endpoint{good: "configured"}
	c, _ := oauthConfig(t, e, "none", "jo@example.com")
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-answer
		e.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	c.Relays[0].OAuth2.TokenURL, c.Relays[0].OAuth2.RefreshToken = slow.URL, config.NewSecret("configured")
	_, stop := start(t, c)
	<-asked
	stopped := make(chan error)
	go func() { stopped <- stop() }()
	close(answer)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if r, err := token.NewFileStore(c.Service.DataDir).Load(t.Context(), 1); err != nil || r.RefreshToken != "refresh1" {
		t.Errorf("stored is %#v, %v, want the token of the answer", r.RefreshToken, err)
	}
}
