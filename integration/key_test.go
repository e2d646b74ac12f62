package integration

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"mailsidecar/mailer/relaytest"
)

// TestKeySettings: a key sends from its own addresses, at its own rate. A refused
// sender does not count against the rate.
func TestKeySettings(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	s := serve(t, durable(t, relay).with(environment{
		"MAILSIDECAR_API_KEYS":    "shop:0123456789abcdef,blog:fedcba9876543210",
		"MAILSIDECAR_KEY_SENDERS": "blog:blog@example.com|example.org",
		"MAILSIDECAR_KEY_RATES":   "blog:2/h",
	}))
	for i, step := range []struct {
		secret, from string
		status       int
		code         string
	}{
		{"0123456789abcdef", "anybody@example.net", http.StatusAccepted, ""},
		{"fedcba9876543210", "Blog@Example.com", http.StatusAccepted, ""},
		{"fedcba9876543210", "shop@example.com", http.StatusForbidden, "sender_not_allowed"},
		{"fedcba9876543210", "shop@example.org", http.StatusAccepted, ""},
		{"fedcba9876543210", "shop@example.org", http.StatusTooManyRequests, "rate_limited"},
		{"0123456789abcdef", "anybody@example.net", http.StatusAccepted, ""},
	} {
		body := `{"from":"` + step.from + `","to":"ana@example.org","subject":"Hello","text":"It works."}`
		a := s.post(t, "application/json", []byte(body), http.Header{"Authorization": {"Bearer " + step.secret}})
		if a.HTTPStatus != step.status || a.Code != step.code {
			t.Errorf("message %d from %s = %d %s, want %d %s", i+1, step.from, a.HTTPStatus, a.Code, step.status, step.code)
		}
		if wait, _ := strconv.Atoi(a.Header.Get("Retry-After")); step.status == http.StatusTooManyRequests && (wait < 1700 || wait > 1800) {
			t.Errorf("Retry-After = %d, want half an hour", wait)
		}
	}
}

// TestKeyRateOverRestart: a batch that overdrew a key's rate delays what follows, also when
// the server was killed meanwhile.
func TestKeyRateOverRestart(t *testing.T) {
	t.Parallel()
	env := durable(t, relaytest.New(t, relaytest.Options{}, nil)).with(environment{
		"MAILSIDECAR_API_KEYS": "shop:" + honestKey + ",blog:" + malloryKey, "MAILSIDECAR_KEY_RATES": "shop:5/h,blog:5/h",
	})
	one := `{"from":"shop@example.com","to":"ana@example.org","subject":"x","text":"x"}`
	send := func(s *sidecar, path, key, body string) int {
		return s.request(t, http.MethodPost, path, []byte(body), http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {"application/json"}}).HTTPStatus
	}
	s := serve(t, env)
	if got := send(s, "/v1/messages/batch", honestKey, `{"messages":[`+strings.Repeat(one+",", 49)+one+`]}`); got != http.StatusAccepted {
		t.Errorf("a batch of 50 with 5/h = %d, want 202", got)
	}
	s.kill(t)
	s = serve(t, env)
	for key, want := range map[string]int{honestKey: http.StatusTooManyRequests, malloryKey: http.StatusAccepted} {
		if got := send(s, "/v1/messages", key, one); got != want {
			t.Errorf("after a restart a message with %s = %d, want %d", key, got, want)
		}
	}
}
