package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

// TestStatusWhileDrainedWithoutQueue: new mail that is refused is told, and is exit status 2, without a queue, too.
func TestStatusWhileDrainedWithoutQueue(t *testing.T) {
	clearEnv(t)
	answers := map[string]http.HandlerFunc{
		"/v1/stats":  answerWith(422, `{"title":"no queue","status":422,"code":"queue_required"}`),
		"/v1/relays": answerWith(200, `{"relays":[{"name":"main","status":"up"}]}`),
		"/readyz":    answerWith(503, `{}`),
		"/v1/drain":  answerWith(200, `{"draining":true,"since":"2030-01-31T08:00:00Z"}`),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }))
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		status, out, errOut := run(t.Context(), args...)
		if status != 2 || !strings.Contains(out, "New mail is refused: an operator drains the server") || !strings.Contains(out, "The server has no queue") {
			t.Errorf("%q = %d, says\n%s%s\nwant 2, and that new mail is refused", args, status, out, errOut)
		}
	}
}

// TestStatusWithoutDatabase: while the database of the queue is away status says so, has an exit status of
// its help, and prints JSON where that was asked for.
func TestStatusWithoutDatabase(t *testing.T) {
	clearEnv(t)
	answers := map[string]http.HandlerFunc{
		"/v1/stats":  answerWith(503, `{"title":"no store","status":503,"code":"queue_unavailable","retryable":true,"detail":"The database of the queue does not answer."}`),
		"/v1/relays": answerWith(200, `{"relays":[{"name":"main","status":"up"}]}`),
		"/readyz":    answerWith(503, "not ready: the database of the queue does not answer\n"),
		"/v1/drain":  answerWith(503, `{"code":"queue_unavailable"}`),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }))
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		status, out, errOut := run(t.Context(), args...)
		if status != 2 || !strings.Contains(out, "New mail is refused: the database of the queue does not answer.") || !strings.Contains(out, "main") {
			t.Errorf("%q = %d, says\n%s%s\nwant 2, and that the database does not answer", args, status, out, errOut)
		}
	}
	answers["/v1/stats"] = answerWith(500, `{"title":"Internal","status":500,"code":"internal"}`)
	if status, out, _ := run(t.Context(), "status", "--json"); status != 3 || !strings.Contains(out, `"exit_status": 3`) {
		t.Errorf("status --json = %d, says %s, want 3", status, out)
	}
}

// TestHeadline: how long the oldest is due has a unit.
func TestHeadline(t *testing.T) {
	now := time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)
	for due, want := range map[time.Time]string{
		{}:                               "Mail flows: nothing is due.",
		now.Add(-300 * time.Millisecond): "Mail flows: the oldest is due now.",
		now.Add(time.Second):             "Mail flows: the oldest is due now.", // the server's clock
		now.Add(-90 * time.Second):       "Mail flows: the oldest has been due for 1m30s.",
	} {
		if got := headline(api.Stats{OldestDue: due}, 0, now); got != want {
			t.Errorf("headline with the oldest due at %v = %q, want %q", due, got, want)
		}
	}
}
