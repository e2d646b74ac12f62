package queue

import (
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
)

// TestPauseShows: a message waits for its relay as long as that is paused, and
// says so; an operator who asks for a retry, or has seen the relay at work, does
// not wait.
func TestPauseShows(t *testing.T) {
	for _, how := range []string{"retry", "retry matching", "resume"} {
		synctest.Test(t, func(t *testing.T) {
			relay := newFakeRelay(fail(mailer.ClassRelay, mailer.StageAuth, 535))
			q := start(t, dbPath(t), nil, relay)
			id := q.submit(submission("1", "a@example.org")).Message.ID
			settleDown()
			until := q.Pauses()[0].Until
			later := q.submit(submission("2", "b@example.org")).Message
			page, err := q.List(t.Context(), Filter{Key: "app"}, 10, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range append(page.Messages, later, q.message(id)) {
				if got := m.Recipients[0].NextAttempt; !got.Equal(until) {
					t.Errorf("%s: NextAttempt = %v, want %v, the end of the pause", how, got, until)
				}
			}
			relay.set(accept)
			switch how {
			case "retry":
				_, err = q.Retry(t.Context(), "app", id)
			case "retry matching":
				_, err = q.RetryMatching(t.Context(), Filter{Key: "app"})
			case "resume":
				q.Resume("another")
				q.Resume(relay.name)
			}
			if err != nil {
				t.Fatalf("%s = %v", how, err)
			}
			settleDown()
			q.wantStatus(id, StatusDelivered)
			q.wantStatus(later.ID, StatusDelivered)
			if p := q.Pauses(); len(p) != 0 {
				t.Errorf("%s: Pauses = %+v, want none", how, p)
			}
		})
	}
}

// TestCancelWhileTried: the attempt decides, and who waits for it is not
// answered before.
func TestCancelWhileTried(t *testing.T) {
	tests := []struct {
		name string
		say  func(int, string) *mailer.Failure
		want Status
	}{
		{"accepted", accept, StatusDelivered},
		{"refused", refused, StatusFailed},
		{"deferred", greylisted, StatusCanceled},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			relay := newFakeRelay(tt.say)
			relay.takes = 5 * time.Second
			q := start(t, dbPath(t), nil, relay)
			s := submission("x", "a@example.org")
			s.Wait = time.Minute
			go func() {
				time.Sleep(time.Second)
				page, err := q.List(t.Context(), Filter{Key: "app"}, 1, "")
				if err != nil {
					t.Errorf("List = %v", err)
					return
				}
				m, err := q.Cancel(t.Context(), "app", page.Messages[0].ID)
				if err != nil || m.Status() != StatusQueued {
					t.Errorf("%s: Cancel = %s, %v, want queued until the attempt is over", tt.name, m.Status(), err)
				}
			}()
			began := time.Now()
			m := q.submit(s).Message
			if took := time.Since(began); m.Status() != tt.want || took < relay.takes {
				t.Errorf("%s: Submit = %s after %v, want %s after %v", tt.name, m.Status(), took, tt.want, relay.takes)
			}
		})
	}
}
