package queue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// TestPauseShows: a message waits for its relay as long as that is paused, and
// says so; an operator who asks for a retry, or has seen the relay at work, does
// not wait.
func TestPauseShows(t *testing.T) {
	for _, how := range []string{"retry", "retry matching", "resume"} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Fail(mailer.ClassRelay, mailer.StageAuth, 535))
			q := start(t, nil, relay)
			id := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
			queuetest.SettleDown()
			until := q.Pauses()[0].Until
			later := q.MustSubmit(queuetest.Submission("2", "b@example.org")).Message
			page, err := q.List(t.Context(), queue.Filter{Key: "app"}, 10, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range append(page.Messages, later, q.Message(id)) {
				if got := m.Recipients[0].NextAttempt; !got.Equal(until) {
					t.Errorf("%s: NextAttempt = %v, want %v, the end of the pause", how, got, until)
				}
			}
			relay.Set(queuetest.Accept)
			switch how {
			case "retry":
				_, err = q.Retry(t.Context(), "app", id)
			case "retry matching":
				_, err = q.RetryMatching(t.Context(), queue.Filter{Key: "app"}, 0, "")
			case "resume":
				q.Resume("another")
				q.Resume(relay.Name())
			}
			if err != nil {
				t.Fatalf("%s = %v", how, err)
			}
			queuetest.SettleDown()
			q.WantStatus(id, queue.StatusDelivered)
			q.WantStatus(later.ID, queue.StatusDelivered)
			if p := q.Pauses(); len(p) != 0 {
				t.Errorf("%s: Pauses = %+v, want none", how, p)
			}
		})
	}
}

// TestRetryUntried: a retry of a message that was not tried yet asks its paused relay; one
// that waits for its time has nothing to retry.
func TestRetryUntried(t *testing.T) {
	for _, how := range []string{"retry", "matching"} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Unreachable)
			q := start(t, nil, relay)
			first := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
			time.Sleep(10 * time.Minute) // the relay is paused for minutes
			untried := q.MustSubmit(queuetest.Submission("2", "b@example.org")).Message.ID
			scheduled := queuetest.Submission("3", "c@example.org")
			scheduled.SendAt = time.Now().Add(24 * time.Hour)
			later := q.MustSubmit(scheduled).Message.ID
			queuetest.SettleDown()
			q.WantStatus(untried, queue.StatusQueued)
			relay.Set(queuetest.Accept)
			if how == "retry" {
				if _, err := q.Retry(t.Context(), "app", later); !errors.Is(err, queue.ErrNothingToRetry) {
					t.Errorf("Retry(scheduled) = %v, want ErrNothingToRetry", err)
				}
				if m, err := q.Retry(t.Context(), "app", untried); err != nil || m.ID != untried {
					t.Errorf("Retry(queued) = %v, %v, want the message", m.ID, err)
				}
			} else if b, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app", Status: queue.StatusQueued}, 0, ""); b.Changed != 1 || err != nil {
				t.Errorf("RetryMatching(queued) = %+v, %v, want 1", b, err)
			}
			queuetest.SettleDown()
			q.WantStatus(untried, queue.StatusDelivered)
			q.WantStatus(first, queue.StatusDelivered)
			q.WantStatus(later, queue.StatusQueued)
		})
	}
}

// TestCancelWhileTried: the attempt decides, and a request that waits for it is
// not answered before.
func TestCancelWhileTried(t *testing.T) {
	tests := []struct {
		name string
		say  func(int, string) *mailer.Failure
		want queue.Status
	}{
		{"accepted", queuetest.Accept, queue.StatusDelivered},
		{"refused", queuetest.Refused, queue.StatusFailed},
		{"deferred", queuetest.Greylisted, queue.StatusCanceled},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(tt.say)
			const takes = 5 * time.Second
			relay.Slow(takes, 0)
			q := start(t, nil, relay)
			s := queuetest.Submission("x", "a@example.org")
			s.Wait = time.Minute
			go func() {
				time.Sleep(time.Second)
				page, err := q.List(t.Context(), queue.Filter{Key: "app"}, 1, "")
				if err != nil {
					t.Errorf("List = %v", err)
					return
				}
				m, err := q.Cancel(t.Context(), "app", page.Messages[0].ID)
				if err != nil || m.Status() != queue.StatusQueued {
					t.Errorf("%s: Cancel = %s, %v, want queued until the attempt is over", tt.name, m.Status(), err)
				}
			}()
			began := time.Now()
			m := q.MustSubmit(s).Message
			if took := time.Since(began); m.Status() != tt.want || took < takes {
				t.Errorf("%s: Submit = %s after %v, want %s after %v", tt.name, m.Status(), took, tt.want, takes)
			}
		})
	}
}

// TestRescheduleDate: the Date field of a message that waits is the time at which it
// goes out, unless it is the message's own or signed.
func TestRescheduleDate(t *testing.T) {
	filler := strings.Repeat("text\r\n", 50_000) // more than one chunk of the store
	for _, tt := range []struct {
		name, fields string
		own          bool
	}{
		{"ours", "", false},
		{"its own", "Date: Mon, 02 Feb 2026 15:04:05 +0000\r\n", true},
		{"signed", "DKIM-Signature: v=1; h=date; b=x\r\n", true},
	} {
		for _, to := range []time.Duration{-time.Hour, 30 * time.Minute, 30 * time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				relay := queuetest.NewRelay(queuetest.Accept)
				q := start(t, nil, relay)
				s := queuetest.Submission("x", "a@example.org")
				s.SendAt = time.Now().Add(time.Hour)
				date := "Date: " + mailer.FormatDate(s.SendAt) + "\r\n"
				if strings.HasPrefix(tt.fields, "Date") {
					date = ""
				}
				s.Content.Data = []byte("From: a@example.com\r\n" + tt.fields + date + "\r\n" + filler)
				id := q.MustSubmit(s).Message.ID
				for _, at := range []time.Duration{5 * time.Hour, to} {
					m, err := q.Reschedule(t.Context(), "app", id, time.Now().Add(at))
					if err != nil {
						t.Fatal(err)
					}
					want := string(s.Content.Data)
					if !tt.own {
						want = strings.Replace(want, date, "Date: "+mailer.FormatDate(m.SendAt)+"\r\n", 1)
					}
					if got, err := q.Content(t.Context(), "app", id); err != nil || string(got) != want || m.Size != int64(len(want)) {
						t.Errorf("%s, to %v: content = %.120q of %d octets, size %d, %v, want %.120q of %d", tt.name, at, got, len(got), m.Size, err, want, len(want))
					}
				}
				time.Sleep(31 * time.Hour)
				queuetest.SettleDown()
				q.WantStatus(id, queue.StatusDelivered)
			})
		}
	}
}

// slowContent is a store of which reading a content takes a second.
type slowContent struct{ *memory.Store }

func (s slowContent) Content(ctx context.Context, key, id string) (mailer.Content, error) {
	time.Sleep(time.Second)
	return s.Store.Content(ctx, key, id)
}

// TestRescheduleShares: however many messages one key reschedules at once, another key waits
// for two of them at most, and who gives up waiting leaves the line.
func TestRescheduleShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.Start(t, slowContent{memory.New(memory.Options{})}, nil, queuetest.NewRelay(queuetest.Accept))
		schedule := func(key string) string {
			s := queuetest.Submission("x", "a@example.org")
			s.Key, s.SendAt = key, time.Now().Add(time.Hour)
			return q.MustSubmit(s).Message.ID
		}
		reschedule := func(ctx context.Context, key, id string) (time.Duration, error) {
			began := time.Now()
			_, err := q.Reschedule(ctx, key, id, began.Add(5*time.Hour))
			return time.Since(began), err
		}
		one := schedule("one")
		brief, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		var done, gaveUp atomic.Int64
		for i := range 200 {
			go func() {
				time.Sleep(time.Duration(i))
				switch _, err := reschedule(brief, "many", schedule("many")); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					gaveUp.Add(1)
				default:
					t.Errorf("Reschedule = %v", err)
				}
			}()
		}
		time.Sleep(500 * time.Millisecond)
		for range 3 {
			if took, err := reschedule(t.Context(), "one", one); err != nil || took > 3*time.Second {
				t.Errorf("Reschedule of another key took %v, %v, want 3 s at most", took, err)
			}
			one = schedule("one")
		}
		time.Sleep(2 * time.Minute)
		if done.Load() < 80 || done.Load()+gaveUp.Load() != 200 {
			t.Errorf("%d done and %d gave up, want 200, and over 80 done", done.Load(), gaveUp.Load())
		}
		if took, err := reschedule(t.Context(), "many", schedule("many")); err != nil || took != time.Second {
			t.Errorf("Reschedule in the end took %v, %v, want 1 s", took, err)
		}
	})
}

// TestReschedule: a scheduled message goes out at its new time, earlier or later, and not
// at the old one. What does not wait for its time is not rescheduled.
func TestReschedule(t *testing.T) {
	for _, to := range []time.Duration{-time.Hour, 30 * time.Minute, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Accept)
			q := start(t, nil, relay)
			began := time.Now()
			s := queuetest.Submission("x", "a@example.org")
			s.SendAt, s.ExpiresIn = began.Add(time.Hour), time.Minute
			id := q.MustSubmit(s).Message.ID
			if _, err := q.Reschedule(t.Context(), "other", id, began); !errors.Is(err, queue.ErrNotFound) {
				t.Errorf("Reschedule(other key) = %v, want ErrNotFound", err)
			}
			m, err := q.Reschedule(t.Context(), "app", id, began.Add(to))
			want := began.Add(max(to, 0)).UTC().Truncate(time.Microsecond)
			if got := m.SendAt.Sub(want).Abs(); err != nil || got > time.Second || !m.Expires.Equal(m.SendAt.Add(time.Minute)) || !m.Recipients[0].NextAttempt.Equal(m.SendAt) {
				t.Fatalf("Reschedule(%v) = %+v, %v, want it sent at %v", to, m, err, want)
			}
			time.Sleep(4 * time.Hour)
			queuetest.SettleDown()
			q.WantStatus(id, queue.StatusDelivered)
			if seen := relay.Attempts(); len(seen) != 1 || seen[0].At.Sub(want).Abs() > time.Second {
				t.Errorf("Reschedule(%v): attempts = %+v, want one at %v", to, seen, want)
			}
			if _, err := q.Reschedule(t.Context(), "app", id, time.Now().Add(time.Hour)); !errors.Is(err, queue.ErrNotScheduled) {
				t.Errorf("Reschedule(delivered) = %v, want ErrNotScheduled", err)
			}
		})
	}
}

// twoJobs starts a queue with one worker and submits a message whose recipients
// a and b are two jobs: they are due about a minute from now, b a second later.
func twoJobs(t *testing.T) (q *queuetest.Queue, relay *queuetest.Relay, id string) {
	t.Helper()
	relay = queuetest.NewRelay(func(n int, path string) *mailer.Failure {
		if n == 1 && path == "b@example.org" {
			return queuetest.PushedBack(450)(n, path) // it is tried again after a second
		}
		return queuetest.Greylisted(n, path)
	})
	q = start(t, func(o *queue.Options) { o.Workers, o.Random = 1, func() float64 { return 0.5 } }, relay)
	id = q.MustSubmit(queuetest.Submission("two", "a@example.org", "b@example.org")).Message.ID
	time.Sleep(1500 * time.Millisecond)
	return q, relay, id
}

// TestCancelAllJobs: recipients of one message wait in line by themselves. A
// recipient that is reported as canceled is not tried, and one in flight is not
// reported so.
func TestCancelAllJobs(t *testing.T) {
	tests := []struct {
		name        string
		busy        bool // the worker has another message
		after       time.Duration
		want, final queue.State // of a; b is canceled
	}{
		{"both wait", true, 75 * time.Second, queue.Canceled, queue.Canceled},
		{"one is in flight", false, 65 * time.Second, queue.Deferred, queue.Delivered},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			q, relay, id := twoJobs(t)
			if tt.busy {
				time.Sleep(45 * time.Second)
				tt.after -= 45 * time.Second
			}
			relay.Slow(time.Minute, 0)
			relay.Set(queuetest.Accept)
			if tt.busy {
				q.MustSubmit(queuetest.Submission("busy", "c@example.org"))
			}
			time.Sleep(tt.after)
			m, err := q.Cancel(t.Context(), "app", id)
			if err != nil || m.Recipients[0].State != tt.want || m.Recipients[1].State != queue.Canceled {
				t.Errorf("%s: Cancel = %+v, %v, want %s and canceled", tt.name, m.Recipients, err, tt.want)
			}
			time.Sleep(time.Hour)
			if m := q.Message(id); m.Recipients[0].State != tt.final || m.Recipients[1].State != queue.Canceled {
				t.Errorf("%s: recipients = %+v, want %s and canceled", tt.name, m.Recipients, tt.final)
			}
			wantA := 0
			if tt.final == queue.Delivered {
				wantA = 1
			}
			if a, b := relay.Copies("two", "a@example.org"), relay.Copies("two", "b@example.org"); a != wantA || b != 0 {
				t.Errorf("%s: copies = %d, %d, want %d, 0", tt.name, a, b, wantA)
			}
			if u := q.Usage(); u != (queue.Usage{}) {
				t.Errorf("%s: Usage = %+v, want nothing", tt.name, u)
			}
		})
	}
}

// TestReleaseLeavesInHand: when what waits goes back to the store, another
// recipient of the message, which is being tried, does not.
func TestReleaseLeavesInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, relay, id := twoJobs(t)
		relay.Slow(time.Minute, 0)
		relay.Set(queuetest.Accept)
		time.Sleep(62 * time.Second) // a is in flight, b waits
		relay.Slow(0, 0)
		relay.Set(queuetest.Unreachable)
		trouble := queuetest.Submission("trouble", "c@example.org")
		trouble.Key = "other" // whose lane has a spare worker
		q.MustSubmit(trouble)
		queuetest.SettleDown()
		store := q.Options.Store
		works, err := store.Claim(t.Context(), "another", time.Now(), []queue.Want{{Route: relay.Name(), Lane: queue.Lane{Key: "app"}, Limit: 10}})
		if err != nil || len(works) != 1 || !slices.Equal(works[0].Envelope.ForwardPaths, []string{"b@example.org"}) {
			t.Fatalf("Claim = %+v, %v, want the recipient that is not in flight", works, err)
		}
		leases := []queue.Lease{{ID: id, Route: relay.Name(), ForwardPaths: []string{"b@example.org"}}}
		if err := store.Release(t.Context(), "another", time.Now(), leases); err != nil {
			t.Fatal(err)
		}
		relay.Set(queuetest.Accept)
		time.Sleep(time.Hour)
		q.WantStatus(id, queue.StatusDelivered)
		if got := relay.Deliveries(); got["twoa@example.org"] != 1 || got["twob@example.org"] != 1 {
			t.Errorf("deliveries = %v, want one for each recipient", got)
		}
	})
}

// TestPauseShowsInLog: the line of a message that was refused because the relay is paused says
// the same next attempt as the message itself.
func TestPauseShowsInLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		q := start(t, func(o *queue.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) },
			queuetest.NewRelay(queuetest.Fail(mailer.ClassRelay, mailer.StageAuth, 535)))
		id := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
		queuetest.SettleDown()
		next := q.Message(id).Recipients[0].NextAttempt
		want := "next_attempt=" + next.Format("2006-01-02T15:04:05.000Z07:00")
		if !next.After(time.Now()) || !strings.Contains(log.String(), want) {
			t.Errorf("the message is due at %v, the log says:\n%s", next, log.String())
		}
	})
}
