package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
