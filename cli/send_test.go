package cli

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
)

// TestLongestWait: MAILSIDECAR_WAIT may be as long as the server waits, and no longer.
func TestLongestWait(t *testing.T) {
	clearEnv(t)
	for wait, want := range map[time.Duration]bool{api.MaxWait: true, api.MaxWait + time.Second: false} {
		t.Setenv("MAILSIDECAR_WAIT", wait.String())
		if _, err := config.LoadClient(); (err == nil) != want {
			t.Errorf("MAILSIDECAR_WAIT=%s: %v, want it taken: %v", wait, err, want)
		}
	}
}

// TestSendUnknown: who has no idempotency key cannot repeat with it what may be stored.
func TestSendUnknown(t *testing.T) {
	clearEnv(t)
	detail := "The message may be stored."
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerWith(503, `{"title":"no store","status":503,"code":"queue_unavailable","retryable":true,"detail":"`+detail+`"}`)(w, r)
	}))
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	send := []string{"send", "--from", "a@example.org", "--to", "b@example.org", "--text", "x"}
	for _, tc := range []struct {
		detail string
		more   []string
		want   int
	}{
		{detail, nil, 76}, {detail, []string{"--json"}, 76}, {detail, []string{"--idempotency-key", "k"}, 75}, {api.NothingDone, nil, 75},
	} {
		detail = tc.detail
		if status, out, errOut := run(t.Context(), append(send, tc.more...)...); status != tc.want {
			t.Errorf("send %q, %s: exit status %d, want %d: %s%s", tc.more, tc.detail, status, tc.want, out, errOut)
		}
	}
}
