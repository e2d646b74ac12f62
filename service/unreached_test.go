package service

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
)

// TestNeverReached: while the database has not been reached since the start, every request has its
// answer soon, and those that need the store a 503 that does not say that something may be stored.
func TestNeverReached(t *testing.T) {
	c := serviceWith(t, "none", refusedPort(t))
	c.Service.Queue = config.Queue{Store: "postgres", URL: config.NewSecret(fmt.Sprintf("postgres://shop:hunter2@127.0.0.1:%d/mail", refusedPort(t)))}
	s, stop := start(t, c)
	defer func() { _ = stop() }()
	client, err := api.New(s.URL(), "", "test", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.HTTP.CloseIdleConnections()
	const id = "/v1/messages/0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55"
	relay := "/v1/relays/" + s.monitor.Status()[0].Name
	for _, r := range []struct {
		method, path, body string
		status             int
		detail             string // part of it
	}{
		{"POST", "/v1/messages", smallMessage, 503, api.NothingDone},
		{"POST", "/v1/messages/batch", `{"messages": [` + smallMessage + `]}`, 503, api.NothingDone},
		{"GET", "/v1/messages", "", 503, ""},
		{"GET", "/v1/messages/count", "", 503, ""},
		{"GET", id, "", 503, ""},
		{"GET", id + "/content", "", 503, ""},
		{"POST", id + "/retry", "", 503, api.NothingDone},
		{"POST", id + "/resend", `{"to": "ana@example.org"}`, 503, api.NothingDone},
		{"POST", "/v1/messages/retry", `{"status": "deferred"}`, 503, api.NothingDone},
		{"POST", "/v1/messages/cancel", `{"status": "deferred"}`, 503, api.NothingDone},
		{"DELETE", id, "", 503, api.NothingDone},
		{"GET", "/v1/stats", "", 503, ""},
		{"POST", relay + "/pause", "", 503, api.NothingDone},
		{"POST", relay + "/resume", "", 503, api.NothingDone},
		{"GET", "/v1/drain", "", 503, ""},
		{"POST", "/v1/drain", "", 503, "New mail is refused from now on."},
		{"DELETE", "/v1/drain", "", 503, "The drain has ended."},
		{"GET", "/v1/relays", "", 200, ""},
		{"GET", "/metrics", "", 200, ""},
		{"GET", "/readyz", "", 503, ""},
		{"GET", "/livez", "", 200, ""},
		{"GET", "/healthz/flow", "", 503, ""},
	} {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			header := http.Header{}
			var body []byte
			if r.body != "" {
				header.Set("Content-Type", "application/json")
				body = []byte(r.body)
			}
			a, err := client.Do(ctx, r.method, r.path, header, body)
			switch {
			case err != nil:
				t.Fatalf("no answer: %v", err)
			case a.Status != r.status || !strings.Contains(string(a.Body), r.detail):
				t.Errorf("%d %s, want %d and %q", a.Status, a.Body, r.status, r.detail)
			case strings.Contains(string(a.Body), "may be "):
				t.Errorf("%s says that something may have happened", a.Body)
			}
		})
	}
}
