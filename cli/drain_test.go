package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestDrainEndedElsewhere: a drain that another person ends is not begun anew, and one that
// a restart has ended is.
func TestDrainEndedElsewhere(t *testing.T) {
	const draining, done = `{"draining": true, "since": "2030-01-31T08:00:00Z", "due": 3}`, `{"draining": true, "since": "2030-01-31T08:01:00Z", "due": 0}`
	for name, tt := range map[string]struct {
		answers []string // one after the other; the last one again and again
		asked   string
		status  int
		says    string
	}{
		"ended":     {[]string{draining, `{"draining": false, "ended_at": "2030-01-31T08:00:01Z", "due": 3}`}, "POST GET ", exitTransient, "somebody ended the drain"},
		"restarted": {[]string{draining, `{"draining": false, "due": 3}`, done}, "POST GET POST ", exitOK, "Drained: nothing is due"},
	} {
		t.Run(name, func(t *testing.T) {
			clearEnv(t)
			var asked strings.Builder
			answers := tt.answers
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/drain" {
					answerWith(http.StatusOK, `{"relays": []}`)(w, r)
					return
				}
				asked.WriteString(r.Method + " ")
				answerWith(http.StatusOK, answers[0])(w, r)
				answers = answers[min(1, len(answers)-1):]
			}))
			defer server.Close()
			t.Setenv("MAILSIDECAR_URL", server.URL)
			status, out, errOut := run(t.Context(), "drain")
			if status != tt.status || !strings.Contains(out+errOut, tt.says) || asked.String() != tt.asked {
				t.Errorf("drain = %d after %s, says\n%s%s", status, asked.String(), out, errOut)
			}
		})
	}
}
