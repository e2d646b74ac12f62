package queue_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/queuetest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// TestCancelLog: the mail log says of each recipient that it is canceled, once: of one that
// waits, of one in the line and of one whose attempt does not decide otherwise.
func TestCancelLog(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes time.Duration // of each delivery
		wait  time.Duration // until the cancel
		want  map[string]int
	}{
		{"deferred", 0, 10 * time.Second, map[string]int{"canceled": 2, "deferred": 2}},
		{"in flight", time.Minute, 10 * time.Second, map[string]int{"canceled": 2}},
		{"in line", 10 * time.Minute, time.Minute, map[string]int{"canceled": 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log lockedLog
			relay := queuetest.NewRelay(queuetest.Greylisted)
			relay.Slow(tt.takes, 0)
			q := start(t, func(o *queue.Options) {
				o.Workers, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
				o.Routes = queue.Routes{{Relay: relay}}
			})
			if tt.name == "in line" {
				for range 5 {
					q.MustSubmit(queuetest.Submission("x", "other@example.org"))
				}
			}
			id := q.MustSubmit(queuetest.Submission("x", "a@example.org", "b@example.org")).Message.ID
			time.Sleep(tt.wait)
			if _, err := q.Cancel(t.Context(), "app", id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			q.WantStatus(id, queue.StatusCanceled)
			for _, state := range []string{"canceled", "deferred"} {
				if got := strings.Count(log.String(), "msg="+state+" id="+id); got != tt.want[state] {
					t.Errorf("%s: the log says %d times %s, want %d", tt.name, got, state, tt.want[state])
				}
			}
		})
	}
}

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
