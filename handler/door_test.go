package handler

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
)

// doorOf returns a server with pages that answer with what show writes, and its door.
func doorOf(t *testing.T, prefix string, entries []keys.Entry, show http.HandlerFunc) (*Server, *Door) {
	t.Helper()
	var door *Door
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) {
		o.Keys, o.PagesPath = entries, prefix
		o.Pages = func(d *Door) http.Handler {
			door = d
			return show
		}
	})
	return s, door
}

func visitPage(s *Server, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:8587"+target, http.NoBody)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// TestRoot: a browser is sent to the pages, everything else gets JSON.
func TestRoot(t *testing.T) {
	s, _ := doorOf(t, "/mail", []keys.Entry{{Name: "shop", Secret: testKey}}, nil)
	if w := visitPage(s, "GET", "/", "Accept: text/html,application/xhtml+xml;q=0.9"); w.Code != 303 || w.Header().Get("Location") != "/mail/ui/" {
		t.Errorf("GET / of a browser = %d to %s, want 303 to /mail/ui/", w.Code, w.Header().Get("Location"))
	}
	if w := visitPage(s, "GET", "/", "Accept: */*"); w.Code != 200 || !strings.Contains(w.Body.String(), `"dashboard":"/ui/"`) {
		t.Errorf("GET / of curl = %d %s, want JSON with links", w.Code, w.Body)
	}
	without := newTestServer(t, &fakeQueue{durable: true}, nil)
	for _, path := range []string{"/", "/ui/", "/ui/relays"} {
		if w := visitPage(without, "GET", path, "Accept: text/html"); w.Code != 404 {
			t.Errorf("GET %s without pages = %d, want 404", path, w.Code)
		}
	}
}

// TestPagesPath: the pages see the same path, whether the proxy leaves the prefix in it or not.
func TestPagesPath(t *testing.T) {
	s, _ := doorOf(t, "/mail", nil, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.EscapedPath())) })
	for target, want := range map[string]string{"/ui": "/ui", "/ui/": "/ui/", "/mail/ui/": "/ui/", "/mail/ui": "/ui", "/mail/ui/relays/a%2Fb/pause": "/ui/relays/a%2Fb/pause"} {
		if w := visitPage(s, "GET", target); w.Body.String() != want {
			t.Errorf("GET %s: the pages see %q (%d), want %q", target, w.Body, w.Code, want)
		}
	}
}

// TestDoorServesAsKey: a request that a page makes is one of the key, with its roles; and
// nothing that comes from outside is taken for such a request.
func TestDoorServesAsKey(t *testing.T) {
	entries := []keys.Entry{{Name: "shop", Secret: testKey, Roles: []string{"read"}}, {Name: "boss", Secret: "other", Roles: []string{"admin"}}}
	s, door := doorOf(t, "", entries, nil)
	ask := func(key, method, path string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(context.Background(), method, "http://evil.example"+path, http.NoBody)
		door.Serve(w, r, key)
		return w.Code
	}
	for _, tc := range []struct {
		key, method, path string
		want              int
	}{
		{"shop", "GET", "/v1/messages", 200},
		{"shop", "POST", "/v1/messages", 403},
		{"shop", "GET", "/v1/messages?key=boss", 403},
		{"boss", "GET", "/v1/messages?key=shop", 200},
		{"nobody", "GET", "/v1/messages", 404},
		{"", "GET", "/v1/messages", 404},
		{"shop", "GET", "/ui/", 404},
		{"boss", "GET", "/metrics", 404},
	} {
		if got := ask(tc.key, tc.method, tc.path); got != tc.want {
			t.Errorf("%s %s as %q = %d, want %d", tc.method, tc.path, tc.key, got, tc.want)
		}
	}
	for _, header := range []string{"Mailsidecar-Refresh: 1", "X-Key: boss", "Cookie: mailsidecar=boss", "Host: localhost"} {
		if w := visitPage(s, "GET", "/v1/messages", header); w.Code != 401 {
			t.Errorf("with %s: %d, want 401", header, w.Code)
		}
	}
}

// TestDoorMAC: it is another one for each key and each secret, and there is none without a key.
func TestDoorMAC(t *testing.T) {
	of := func(entries ...keys.Entry) *Door { _, d := doorOf(t, "", entries, nil); return d }
	one := of(keys.Entry{Name: "shop", Secret: "a"}, keys.Entry{Name: "blog", Secret: "b"})
	same, changed, keyless := of(keys.Entry{Name: "shop", Secret: "a"}), of(keys.Entry{Name: "shop", Secret: "c"}), of()
	mac := string(one.MAC("shop", "x"))
	if mac != string(same.MAC("shop", "x")) {
		t.Error("two instances with the same key disagree")
	}
	for name, other := range map[string][]byte{"another key": one.MAC("blog", "x"), "another text": one.MAC("shop", "y"), "a changed secret": changed.MAC("shop", "x"), "a server without keys": keyless.MAC("", "x")} {
		if string(other) == mac || len(other) == 0 {
			t.Errorf("the MAC of %s is the same, or none", name)
		}
	}
	if one.MAC("nobody", "x") != nil || one.MAC("", "x") != nil {
		t.Error("there is a MAC without a key")
	}
	if string(keyless.MAC("", "x")) == string(of().MAC("", "x")) {
		t.Error("two servers without keys have the same secret")
	}
}

// TestPagesWithoutKeys: as for the API, a foreign name that leads here is refused.
func TestPagesWithoutKeys(t *testing.T) {
	s, door := doorOf(t, "", nil, func(http.ResponseWriter, *http.Request) {})
	r := httptest.NewRequest(http.MethodGet, "http://rebound.example/ui/", http.NoBody)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 403 && w.Code != 421 {
		t.Errorf("Host rebound.example = %d, want a refusal", w.Code)
	}
	r = httptest.NewRequest(http.MethodPost, "http://localhost:8587/ui/drain", http.NoBody)
	r.Header.Set("Origin", "http://evil.example")
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("a form of another site = %d, want 403", w.Code)
	}
	w = httptest.NewRecorder()
	door.Serve(w, httptest.NewRequest(http.MethodGet, "/v1/messages", http.NoBody), "")
	if w.Code != 200 {
		t.Errorf("without keys a page gets %d, want 200", w.Code)
	}
}

// TestDoorIsNoStranger: what a page asks waits for no stranger, also where it is refused, and is
// counted once: as the visit.
func TestDoorIsNoStranger(t *testing.T) {
	m := &countingMeter{}
	var door *Door
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) {
		o.Meter = m
		o.Pages = func(d *Door) http.Handler {
			door = d
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if p := d.Enter(r, "shop"); p != nil {
					t.Errorf("Enter() = %v", p)
				}
				for range 3 {
					d.Serve(httptest.NewRecorder(), httptest.NewRequestWithContext(r.Context(), "GET", "/v1/messages/none", http.NoBody), "shop")
				}
				_, _ = w.Write([]byte("page"))
			})
		}
	})
	s.strangers <- struct{}{} // another stranger's
	began := time.Now()
	w := visitPage(s, "GET", "/ui/")
	if took := time.Since(began); took >= strangersWait || w.Body.String() != "page" {
		t.Errorf("the page took %v: %d %s", took, w.Code, w.Body)
	}
	if want := []string{"/ui/* 200 shop"}; !slices.Equal(m.answered, want) {
		t.Errorf("counted %q, want %q", m.answered, want)
	}
	<-s.strangers
	r := httptest.NewRequest(http.MethodGet, "/ui/", http.NoBody)
	door.Stranger(r) // of no visit: nothing happens
}

// countingMeter notes what it counts.
type countingMeter struct{ answered []string }

func (m *countingMeter) Answered(route, _ string, status int, key string, _ api.Code, _ time.Duration) {
	m.answered = append(m.answered, fmt.Sprint(route, " ", status, " ", key))
}

func (m *countingMeter) Panicked() {}
