package queue

import (
	"log/slog"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// TestNoneLog: without a store there is the same mail log.
func TestNoneLog(t *testing.T) {
	wrongPassword := fail(mailer.ClassRelay, mailer.StageAuth, 535)
	tests := []struct {
		name string
		say  func(int, string) *mailer.Failure
		want []string
	}{
		{"accepted", accept, []string{"level=INFO msg=delivered id=", "reverse_path=bounce@example.com forward_path=a@example.org relay=relay attempt=1 code=250"}},
		{"refused", refused, []string{"level=INFO msg=bounced", "code=550", "class=permanent stage=rcpt"}},
		{"deferred", greylisted, []string{"level=INFO msg=deferred", "code=450"}},
		{"lost", lostReply, []string{"level=WARN msg=deferred", "class=uncertain"}},
		{"down", unreachable, []string{`level=WARN msg="relay failed" id=`, "stage=connect", "msg=deferred", "class=relay"}},
		{"wrong password", wrongPassword, []string{`level=WARN msg="relay failed" id=`, "stage=auth code=535", "msg=deferred"}},
	}
	for _, tt := range tests {
		var log lockedLog
		n := NewNone(Routes{{Relay: newFakeRelay(tt.say)}}, slog.New(slog.NewTextHandler(&log, nil)))
		if _, err := n.Submit(t.Context(), submission("x", "a@example.org")); err != nil {
			t.Fatalf("%s: Submit = %v", tt.name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: log = %s, want %q in it", tt.name, log.String(), want)
			}
		}
	}
}
