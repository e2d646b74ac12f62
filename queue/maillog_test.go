package queue_test

import (
	"log/slog"
	"strings"
	"testing"

	"mailsidecar/queue/queuetest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// TestDirectLog: without a store there is the same mail log.
func TestDirectLog(t *testing.T) {
	wrongPassword := queuetest.Fail(mailer.ClassRelay, mailer.StageAuth, 535)
	tests := []struct {
		name string
		say  func(int, string) *mailer.Failure
		want []string
	}{
		{"accepted", queuetest.Accept, []string{"level=INFO msg=delivered id=", "reverse_path=bounce@example.com forward_path=a@example.org relay=relay attempt=1 code=250"}},
		{"refused", queuetest.Refused, []string{"level=INFO msg=bounced", "code=550", "class=permanent stage=rcpt"}},
		{"deferred", queuetest.Greylisted, []string{"level=INFO msg=deferred", "code=450"}},
		{"lost", queuetest.LostReply, []string{"level=WARN msg=deferred", "class=uncertain"}},
		{"down", queuetest.Unreachable, []string{`level=WARN msg="relay failed" id=`, "stage=connect", "msg=deferred", "class=relay"}},
		{"wrong password", wrongPassword, []string{`level=WARN msg="relay failed" id=`, "stage=auth code=535", "msg=deferred"}},
	}
	for _, tt := range tests {
		var log lockedLog
		n := queue.NewDirect(queue.Routes{{Relay: queuetest.NewRelay(tt.say)}}, slog.New(slog.NewTextHandler(&log, nil)))
		if _, err := n.Submit(t.Context(), queuetest.Submission("x", "a@example.org")); err != nil {
			t.Fatalf("%s: Submit = %v", tt.name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: log = %s, want %q in it", tt.name, log.String(), want)
			}
		}
	}
}
