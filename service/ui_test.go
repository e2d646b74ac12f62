package service

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"mailsidecar/config"
)

// browse answers like a browser that keeps cookies and follows redirects.
type browse struct {
	t    *testing.T
	base string
	http http.Client
}

func newBrowse(t *testing.T, s *Service) *browse {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browse{t: t, base: s.URL(), http: http.Client{Jar: jar}}
	t.Cleanup(b.http.CloseIdleConnections)
	return b
}

func (b *browse) do(method, path string, form url.Values) (status int, at, page string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html,*/*;q=0.8")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	a, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return a.StatusCode, a.Request.URL.RequestURI(), string(body)
}

var formToken = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// TestDashboard: a person signs in, sees why mail waits, pauses the relay and sends a test.
func TestDashboard(t *testing.T) {
	c := serviceWith(t, "sqlite", refusedPort(t))
	c.Service.Keys = []config.APIKey{{Name: "ops", Secret: config.NewSecret("0123456789abcdef"), Roles: []string{"admin"}}}
	s, stop := start(t, c)
	defer func() { _ = stop() }()
	b := newBrowse(t, s)
	if status, at, page := b.do("GET", "/", nil); status != 401 || at != "/ui/" || !strings.Contains(page, "API key") {
		t.Errorf("a browser at / = %d at %s, want the page to sign in", status, at)
	}
	if status, _, _ := b.do("POST", "/ui/sign-in", url.Values{"key": {"wrong"}}); status != 403 {
		t.Errorf("a wrong key = %d", status)
	}
	status, at, page := b.do("POST", "/ui/sign-in", url.Values{"key": {"0123456789abcdef"}, "next": {"/ui/send"}})
	if status != 200 || at != "/ui/send" {
		t.Fatalf("signed in = %d at %s", status, at)
	}
	token := formToken.FindStringSubmatch(page)[1]
	status, at, page = b.do("POST", "/ui/send", url.Values{"csrf": {token}, "from": {"a@example.com"}, "to": {"b@example.org"}, "text": {"x"}, "once": {"1"}})
	if status != 200 || !strings.HasPrefix(at, "/ui/messages/") || !strings.Contains(page, "Mail waits") {
		t.Errorf("a test = %d at %s: %s", status, at, page)
	}
	for _, path := range []string{"/ui/", "/ui/messages", "/ui/relays", "/ui/keys", "/ui/settings"} {
		if status, _, page := b.do("GET", path, nil); status != 200 || !strings.Contains(page, "nothing listens there, or a firewall rejects it") || strings.Contains(page, "0123456789abcdef") {
			t.Errorf("%s = %d, without the cause, or with the secret: %s", path, status, page)
		}
	}
	if _, at, page := b.do("POST", "/ui/relays/127.0.0.1/pause", url.Values{"csrf": {token}, "reason": {"moves"}}); at != "/ui/relays?done=paused" || !strings.Contains(page, "moves") {
		t.Errorf("paused: at %s: %s", at, page)
	}
	if relay := s.monitor.Status()[0]; relay.Manual == nil {
		t.Error("the relay is not paused")
	}
	if status, _, _ := b.do("POST", "/ui/drain", url.Values{"csrf": {"x"}}); status != 403 {
		t.Errorf("a form without its token = %d", status)
	}
	if _, at, _ := b.do("POST", "/ui/sign-out", url.Values{"csrf": {token}}); at != "/ui/sign-in" {
		t.Errorf("signed out: at %s", at)
	}
	if status, _, _ := b.do("GET", "/ui/", nil); status != 401 {
		t.Errorf("after that = %d", status)
	}
}

// TestNoDashboard: MAILSIDECAR_UI=none leaves nothing of it; without keys nobody signs in.
func TestNoDashboard(t *testing.T) {
	c := serviceWith(t, "none", refusedPort(t))
	s, stop := start(t, c)
	if status, _, page := newBrowse(t, s).do("GET", "/ui/", nil); status != 200 || !strings.Contains(page, "Relays") {
		t.Errorf("without keys and queue: %d %s", status, page)
	}
	_ = stop()
	c.Service.UI = "none"
	s, stop = start(t, c)
	defer func() { _ = stop() }()
	for _, path := range []string{"/", "/ui/", "/ui/static/style.css"} {
		if status, _, _ := newBrowse(t, s).do("GET", path, nil); status != 404 {
			t.Errorf("%s with MAILSIDECAR_UI=none = %d", path, status)
		}
	}
}
