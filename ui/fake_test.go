package ui

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/api"
)

// fakeDoor is a server of which tests say what it answers.
type fakeDoor struct {
	keys    map[string]string // secret by name; without any it is a server without keys
	roles   map[string][]string
	answers map[string]any // by method and path, such as "GET /v1/stats"; an api.Problem is an error
	busy    *api.Problem   // of Enter

	mu    sync.Mutex
	asked []string // "ops GET /v1/stats BODY"
	turns int      // of strangers
}

func (d *fakeDoor) Keyless() bool { return len(d.keys) == 0 }

func (d *fakeDoor) Find(secret string) (string, bool) {
	for name, s := range d.keys {
		if s == secret {
			return name, true
		}
	}
	return "", false
}

func (d *fakeDoor) MAC(key, text string) []byte {
	secret, ok := d.keys[key]
	if !ok && !d.Keyless() {
		return nil
	}
	return []byte("mac of " + secret + " " + text)
}

func (d *fakeDoor) Roles(key string) (send, read, admin bool) {
	roles, ok := d.roles[key]
	if !ok {
		return true, true, true
	}
	all := slices.Contains(roles, "admin")
	return all || slices.Contains(roles, "send"), all || slices.Contains(roles, "read"), all
}

func (d *fakeDoor) Stranger(*http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turns++
}

func (d *fakeDoor) Enter(*http.Request, string) *api.Problem { return d.busy }

func (d *fakeDoor) Serve(w http.ResponseWriter, r *http.Request, key string) {
	body := new(strings.Builder)
	if r.Body != nil {
		var raw json.RawMessage
		if json.NewDecoder(r.Body).Decode(&raw) == nil {
			body.Write(raw)
		}
	}
	d.mu.Lock()
	d.asked = append(d.asked, strings.TrimSpace(key+" "+r.Method+" "+r.URL.RequestURI()+" "+body.String()))
	answer, ok := d.answers[r.Method+" "+r.URL.EscapedPath()]
	d.mu.Unlock()
	if !ok {
		answer = api.Problem{Status: 404, Code: api.CodeNotFound, Title: "Not found", Detail: "There is no such thing."}
	}
	if wait, ok := answer.(time.Duration); ok {
		select {
		case <-r.Context().Done():
		case <-time.After(wait):
		}
		return
	}
	if f, ok := answer.(http.HandlerFunc); ok {
		f(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if p, ok := answer.(api.Problem); ok {
		w.WriteHeader(p.Status)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// posted are the changes that were asked for.
func (d *fakeDoor) posted() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.asked), func(s string) bool { return strings.Contains(s, " GET /") || strings.HasPrefix(s, "GET /") })
}

func newFake() *fakeDoor {
	at := time.Now().Add(-time.Minute).UTC()
	count := api.StatsCounts{Messages: 142, Accepted: 150, Delivered: 142, Deferred: 3, Bounced: 2}
	stats := api.Stats{
		Statuses:  map[string]int64{api.StatusDelivered: 142, api.StatusQueued: 1, api.StatusDeferred: 3, api.StatusFailed: 2},
		OldestDue: time.Now().Add(-4 * time.Second).UTC(), Hour: api.StatsSince{Since: at, StatsCounts: count}, Day: api.StatsSince{Since: at, StatsCounts: count},
		Keys:    []api.StatsKey{{Name: "shop", Statuses: map[string]int64{api.StatusQueued: 1}, Day: count}},
		Relays:  []api.StatsRelay{{Name: "relay.example.com", Status: api.RelayUp, Day: count}},
		Replies: []api.StatsReply{{Relay: "relay.example.com", Class: "permanent", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "no such user", Count: 2, First: at, Last: at, Filter: api.StatsFilter{Relay: "relay.example.com", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "=no such user"}}},
	}
	for i := range 144 {
		stats.Buckets = append(stats.Buckets, api.StatsBucket{At: at.Add(time.Duration(i-144) * 10 * time.Minute), StatsCounts: api.StatsCounts{Accepted: int64(i % 7), Delivered: int64(i % 5), Deferred: int64(i % 3), Bounced: int64(i % 2)}})
	}
	for i := range 169 {
		stats.Hours = append(stats.Hours, api.StatsBucket{At: at.Add(time.Duration(i-168) * time.Hour), StatsCounts: api.StatsCounts{Accepted: int64(i % 11), Delivered: int64(i % 9), Bounced: int64(i % 2)}})
	}
	return &fakeDoor{
		keys:  map[string]string{"ops": "ops-secret", "shop": "shop-secret", "monitor": "monitor-secret", "app": "app-secret"},
		roles: map[string][]string{"ops": {"admin"}, "shop": {"send", "read"}, "monitor": {"read"}, "app": {"send"}},
		answers: map[string]any{
			"GET /v1/stats": stats,
			"GET /v1/relays": api.Relays{Relays: []api.Relay{{
				Name: "relay.example.com", Host: "relay.example.com", Status: api.RelayUp,
				Ladder:      []api.RelayRung{{Port: 587, Mode: "starttls"}, {Port: 2525, Mode: "starttls", Serving: true}, {Port: 465, Mode: "tls"}},
				Connections: api.Connections{Open: 2, Limit: 4, Max: 8, Reason: "messages waited"}, Rate: &api.Rate{Messages: 30, Per: "1m0s", Waiting: 2, Next: at},
			}}},
			"GET /v1/events":   api.Events{Since: at, Events: []api.Event{{At: at, Kind: api.EventStarted, Level: api.EventInfo, Text: "The server has started."}}},
			"GET /v1/drain":    api.Drain{Due: 1, Later: 3},
			"GET /v1/keys":     api.Keys{Since: at, Keys: []api.Key{{Name: "shop", Roles: []string{"send", "read"}, Senders: []string{"example.com"}, Rate: &api.KeyRate{Messages: 100, Per: "1m0s"}, LastUsed: at}}},
			"GET /v1/settings": api.Settings{Settings: []api.Setting{{Name: "SMTP_HOST", Value: "relay.example.com", Source: api.SourceVariable, About: "Host."}, {Name: "SMTP_AUTH", Value: "auto", Source: api.SourceDefault, About: "AUTH."}}},
		},
	}
}

// browser is a visitor of the pages.
type browser struct {
	t      *testing.T
	ui     *UI
	cookie string
	csrf   string
}

// newBrowser is signed in with the key of that name; empty: not signed in.
func newBrowser(t *testing.T, d *fakeDoor, key string) *browser {
	t.Helper()
	b := &browser{t: t, ui: New(d, Options{Version: "1.2.3"})}
	if key != "" {
		b.cookie = b.ui.newSession(key, time.Now())
	}
	if key != "" || d.Keyless() {
		b.csrf = b.ui.token(key, b.cookie)
	}
	return b
}

func (b *browser) do(r *http.Request) *httptest.ResponseRecorder {
	b.t.Helper()
	if b.cookie != "" {
		r.AddCookie(&http.Cookie{Name: cookieName, Value: b.cookie})
	}
	w := httptest.NewRecorder()
	b.ui.ServeHTTP(w, r)
	if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		b.t.Errorf("%s %s: Content-Security-Policy = %q", r.Method, r.URL, got)
	}
	return w
}

func (b *browser) get(path string) *httptest.ResponseRecorder {
	b.t.Helper()
	return b.do(httptest.NewRequest(http.MethodGet, path, http.NoBody))
}

// post sends a form, with the right token.
func (b *browser) post(path string, fields ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	form := url.Values{tokenField: {b.csrf}}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}
