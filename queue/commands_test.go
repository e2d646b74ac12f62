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

// twoJobs starts a queue with one worker and submits a message whose recipients
// a and b are due at different times, so that they are two jobs.
func twoJobs(t *testing.T, relay *fakeRelay, workers int) (*testQueue, string) {
	t.Helper()
	q := start(t, dbPath(t), func(o *Options) { o.Workers = workers }, relay)
	id := q.submit(submission("two", "a@example.org", "b@example.org")).Message.ID
	settleDown()
	due := time.Now().Add(time.Minute).UnixMicro()
	err := q.store.write(t.Context(), func(w *writer) error {
		return w.exec("UPDATE recipients SET due = ? + n * 1000000", due)
	})
	if err != nil {
		t.Fatal(err)
	}
	q.poke()
	return q, id
}

// TestCancelAllJobs: recipients of one message stand in line by themselves. None
// that is reported as canceled is tried, and one in hand is not reported so.
func TestCancelAllJobs(t *testing.T) {
	tests := []struct {
		name        string
		busy        bool // the worker has another message
		after       time.Duration
		want, final State // of a; b is canceled
	}{
		{"both wait", true, 75 * time.Second, Canceled, Canceled},
		{"one is in hand", false, 65 * time.Second, Deferred, Delivered},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			relay := newFakeRelay(greylisted)
			q, id := twoJobs(t, relay, 1)
			if tt.busy {
				time.Sleep(45 * time.Second)
				tt.after -= 45 * time.Second
			}
			relay.mu.Lock()
			relay.takes, relay.say = time.Minute, accept
			relay.mu.Unlock()
			if tt.busy {
				q.submit(submission("busy", "c@example.org"))
			}
			time.Sleep(tt.after)
			m, err := q.Cancel(t.Context(), "app", id)
			if err != nil || m.Recipients[0].State != tt.want || m.Recipients[1].State != Canceled {
				t.Errorf("%s: Cancel = %+v, %v, want %s and canceled", tt.name, m.Recipients, err, tt.want)
			}
			time.Sleep(time.Hour)
			if m := q.message(id); m.Recipients[0].State != tt.final || m.Recipients[1].State != Canceled {
				t.Errorf("%s: recipients = %+v, want %s and canceled", tt.name, m.Recipients, tt.final)
			}
			wantA := 0
			if tt.final == Delivered {
				wantA = 1
			}
			if a, b := relay.copies("two", "a@example.org"), relay.copies("two", "b@example.org"); a != wantA || b != 0 {
				t.Errorf("%s: copies = %d, %d, want %d, 0", tt.name, a, b, wantA)
			}
			if u := q.Usage(); u != (Usage{}) {
				t.Errorf("%s: Usage = %+v, want nothing", tt.name, u)
			}
		})
	}
}

// TestReleaseLeavesInHand: when what waits goes back to the store, another
// recipient of the message, which is being tried, does not.
func TestReleaseLeavesInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay(greylisted)
		q, id := twoJobs(t, relay, 1)
		relay.mu.Lock()
		relay.takes, relay.say = time.Minute, accept
		relay.mu.Unlock()
		time.Sleep(65 * time.Second)
		q.mu.Lock()
		var leases []Lease
		for _, g := range q.groups {
			leases = append(leases, q.evict(g, everyPriority)...)
		}
		q.mu.Unlock()
		if len(leases) != 1 {
			t.Fatalf("leases = %+v, want the one that waits", leases)
		}
		q.ledger.release(leases)
		settleDown()
		works, err := q.store.Claim(t.Context(), "another", q.now(), []Want{{relay.name, Lane{Key: "app"}, 10}})
		if err != nil || len(works) != 0 {
			t.Errorf("Claim = %+v, %v, want nothing: one is in hand, one in line again", works, err)
		}
		time.Sleep(time.Hour)
		q.wantStatus(id, StatusDelivered)
		if got := relay.deliveries(); got["twoa@example.org"] != 1 || got["twob@example.org"] != 1 {
			t.Errorf("deliveries = %v, want one for each recipient", got)
		}
	})
}
