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

// TestReversePathLog: the mail log has the reverse-path that the relay was given.
func TestReversePathLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.ReversePath = "bounces@example.com"
		q := start(t, func(o *queue.Options) {
			o.Logger, o.Routes = slog.New(slog.NewTextHandler(&log, nil)), queue.Routes{{Relay: relay}}
		})
		q.MustSubmit(queuetest.Submission("x", "a@example.org"))
		time.Sleep(time.Minute)
		direct := queue.NewDirect(queue.Routes{{Relay: relay}}, slog.New(slog.NewTextHandler(&log, nil)))
		if _, err := direct.Submit(t.Context(), queuetest.Submission("x", "a@example.org")); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(log.String()) {
			if want := strings.Contains(line, "msg=delivered"); strings.Contains(line, "reverse_path=bounces@example.com") != want {
				t.Errorf("the log says %s", line)
			}
		}
		if got := strings.Count(log.String(), "msg=delivered"); got != 2 {
			t.Errorf("%d lines, want 2:\n%s", got, log.String())
		}
	})
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

// TestAcceptedLog: a line joins each message to its request, before those of its recipients.
// A repeat accepts nothing.
func TestAcceptedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		q := start(t, func(o *queue.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }, queuetest.NewRelay(queuetest.Accept))
		first, second := queuetest.Submission("x", "a@example.org", "b@example.org"), queuetest.Submission("y", "c@example.org")
		for _, s := range []*queue.Submission{&first, &second} {
			s.IdempotencyKey, s.Origin = "once", queue.Origin{Door: "batch", RequestID: "r1"}
		}
		for range 2 {
			if _, err := q.SubmitBatch(t.Context(), []queue.Submission{first, second}); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "msg=accepted") && strings.Contains(line, " key=app door=batch request_id=r1 ") || strings.Contains(line, "msg=queued") {
				_, rest, _ := strings.Cut(line, "msg=")
				got = append(got, strings.Fields(rest)[0])
			}
		}
		if want := "accepted queued queued accepted queued"; strings.Join(got, " ") != want {
			t.Errorf("the log has %q, want %q:\n%s", got, want, log.String())
		}
	})
}

// TestSummaryLog: once an hour the log has the numbers of the queue and of the last hour.
func TestSummaryLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		relay := queuetest.NewRelay(func(_ int, path string) *mailer.Failure {
			if path == "later@example.org" {
				return queuetest.Greylisted(0, path)
			}
			return nil
		})
		q := start(t, func(o *queue.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }, relay)
		time.Sleep(45 * time.Minute)
		q.MustSubmit(queuetest.Submission("x", "a@example.org", "b@example.org"))
		q.MustSubmit(queuetest.Submission("y", "later@example.org"))
		time.Sleep(2*time.Hour + 30*time.Minute)
		var got []string
		for line := range strings.Lines(log.String()) {
			if _, rest, ok := strings.Cut(line, `msg="queue summary" `); ok {
				got = append(got, rest)
			}
		}
		if len(got) != 3 {
			t.Fatalf("%d summaries in three hours, want 3:\n%s", len(got), log.String())
		}
		for i, want := range [][]string{{"deferred=1 held=0", "hour_accepted=3 hour_delivered=2 ", "hour_bounced=0 hour_uncertain=0"}, {"deferred=1", "hour_accepted=0 hour_delivered=0 "}, {"deferred=1"}} {
			for _, part := range want {
				if !strings.Contains(got[i], part) {
					t.Errorf("summary %d is %q, want %q in it", i+1, got[i], part)
				}
			}
		}
	})
}

// TestDirectTellsHourly: without a queue the log has what an operator did again when mail
// meets it an hour later, and the end of a pause that had one.
func TestDirectTellsHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		relay := queuetest.NewRelay(queuetest.Accept)
		d := queue.NewDirect(queue.Routes{{Relay: relay}}, slog.New(slog.NewTextHandler(&log, nil)))
		count := func(what string, want int) {
			t.Helper()
			if got := strings.Count(log.String(), what); got != want {
				t.Errorf("%d times %q, want %d:\n%s", got, what, want, log.String())
			}
		}
		submit := func() { _, _ = d.Submit(t.Context(), queuetest.Submission("x", "a@example.org")) }
		if _, err := d.PauseRelay(t.Context(), relay.Name(), time.Now().Add(100*time.Minute), "audit"); err != nil {
			t.Fatal(err)
		}
		for range 6 { // to 90 minutes
			time.Sleep(15 * time.Minute)
			submit()
		}
		count("relay paused by an operator", 2)
		time.Sleep(15 * time.Minute)
		submit()
		submit()
		count("pause by an operator ended", 1)
		count("msg=delivered", 2)
		d.Drain()
		for range 6 {
			time.Sleep(15 * time.Minute)
			submit()
		}
		count("draining: new mail is refused", 2)
	})
}
