package queue_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// quota is a relay that takes so many messages, and then refuses all until its window
// ends. It names that end, or asks to be tried once an hour.
type quota struct {
	mu       sync.Mutex
	left     int
	ends     time.Time
	window   time.Duration
	probed   bool // the end is not named
	refused  []time.Time
	accepted int
}

func (q *quota) verdict(int, string) *mailer.Failure {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if !q.ends.IsZero() && !now.Before(q.ends) {
		q.ends, q.left = time.Time{}, 1000
	}
	if q.left--; q.left >= 0 {
		q.accepted++
		return nil
	}
	if q.ends.IsZero() {
		q.ends = now.Add(q.window)
	}
	q.refused = append(q.refused, now)
	f := &mailer.Failure{
		Class: mailer.ClassRelay, Stage: mailer.StageContent, Relay: "relay", Reply: mailer.Reply{Code: 550, Enhanced: "5.4.5", Text: "Daily user sending limit exceeded"},
		Until: q.ends, Cause: "The account's daily limit is used up.", Remedy: "Wait, or use another account.",
	}
	if q.probed {
		f.Until = now.Add(time.Hour)
	}
	return f
}

func (q *quota) refusals() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.refused)
}

// TestQuota: a relay whose quota is used up is left alone until the time that it names,
// or is asked once an hour. Mail is accepted and waits, nothing bounces, no message's own
// schedule is used up, and all goes out when it is over.
func TestQuota(t *testing.T) {
	for _, probed := range []bool{false, true} {
		t.Run(fmt.Sprint("once an hour ", probed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				relay := &quota{left: 5, window: 5*time.Hour + 10*time.Minute, probed: probed}
				q := start(t, nil, queuetest.NewRelay(relay.verdict))
				var ids []string
				for i := range 200 {
					ids = append(ids, q.MustSubmit(message("app", "shop@example.com", fmt.Sprintf("u%d@example.org", i))).Message.ID)
					time.Sleep(time.Minute)
				}
				if err := q.Ready(t.Context()); err != nil {
					t.Errorf("Ready() = %v while the relay is paused", err)
				}
				p := q.Pauses()
				if len(p) != 1 || p[0].Reason.Cause == "" || p[0].Until.Before(time.Now()) {
					t.Errorf("pauses = %+v, want one that says why", p)
				}
				most := 1
				if probed {
					most = 4
				}
				if n := relay.refusals(); n > most {
					t.Errorf("the relay refused %d messages in its quota, want %d at most", n, most)
				}
				begin := time.Now()
				s := message("app", "shop@example.com", "waits@example.org")
				s.Wait = time.Minute
				if q.MustSubmit(s); time.Since(begin) > 0 {
					t.Errorf("a client that waits for a paused relay is answered after %v, want at once", time.Since(begin))
				}
				time.Sleep(4 * time.Hour)
				for _, id := range ids {
					m := q.WantStatus(id, queue.StatusDelivered)
					if len(m.Attempts) > 6 {
						t.Errorf("%d attempts", len(m.Attempts))
					}
				}
				if n := len(q.Pauses()); n > 0 {
					t.Errorf("%d pauses are left", n)
				}
			})
		})
	}
}

// TestQuotaOfFirstRelay: the next relay of the route takes over at once, and gives back
// when the quota ends.
func TestQuotaOfFirstRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := &quota{left: 2, window: 3 * time.Hour}
		first, second := queuetest.NamedRelay("first", quota.verdict), queuetest.NamedRelay("second", queuetest.Accept)
		q := start(t, nil, first, second)
		for i := range 300 {
			id := q.MustSubmit(message("app", "shop@example.com", fmt.Sprintf("u%d@example.org", i))).Message.ID
			time.Sleep(time.Minute)
			q.WantStatus(id, queue.StatusDelivered)
		}
		if n := quota.refusals(); n != 1 {
			t.Errorf("the first relay refused %d messages, want one", n)
		}
		if took := len(second.Attempts()); took < 178 || took > 181 {
			t.Errorf("the second relay took %d messages, want those of three hours", took)
		}
	})
}

// TestQuotaOutlastsMail: what waits for a quota expires in its time.
func TestQuotaOutlastsMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := &quota{window: 30 * time.Hour}
		q := start(t, nil, queuetest.NewRelay(quota.verdict))
		s := message("app", "shop@example.com", "u@example.org")
		s.ExpiresIn = 2 * time.Hour
		id := q.MustSubmit(s).Message.ID
		time.Sleep(2*time.Hour + 2*time.Minute)
		if m := q.Message(id); m.Recipients[0].State != queue.Expired {
			t.Errorf("state %s after its time, want expired", m.Recipients[0].State)
		}
		if n := quota.refusals(); n != 1 {
			t.Errorf("the relay was asked %d times, want once", n)
		}
	})
}

// TestQuotaAndRestart: the pause is not stored: one message of each start finds out anew.
func TestQuotaAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := &quota{window: 10 * time.Hour}
		relay := queuetest.NewRelay(quota.verdict)
		q := start(t, func(o *queue.Options) { o.Workers = 8 }, relay)
		q.MustSubmit(message("app", "shop@example.com", "first@example.org"))
		time.Sleep(time.Minute)
		for i := range 100 {
			q.MustSubmit(message("app", "shop@example.com", fmt.Sprintf("u%d@example.org", i)))
		}
		for n := range 3 {
			if err := q.End(); err != nil {
				t.Fatal(err)
			}
			q = restart(t, q, func(o *queue.Options) { o.Workers = 8 }, relay)
			time.Sleep(time.Hour)
			if got := quota.refusals(); got > 1+9*(n+1) {
				t.Errorf("after %d starts %d messages were refused, want as many as begin at once for each", n+1, got)
			}
		}
		if q.Usage().Messages != 101 {
			t.Errorf("%d messages wait, want 101", q.Usage().Messages)
		}
	})
}

// TestRetryDuringQuota: a person's retry is one probe.
func TestRetryDuringQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := &quota{window: 10 * time.Hour}
		q := start(t, nil, queuetest.NewRelay(quota.verdict))
		var ids []string
		for i := range 50 {
			ids = append(ids, q.MustSubmit(message("app", "shop@example.com", fmt.Sprintf("u%d@example.org", i))).Message.ID)
			time.Sleep(time.Second)
		}
		for n := range 5 {
			if _, err := q.Retry(t.Context(), queue.AnyKey, ids[n]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := quota.refusals(); got != n+2 {
				t.Errorf("after %d retries the relay has refused %d messages, want one for each, and the first", n+1, got)
			}
			if p := q.Pauses(); len(p) != 1 || time.Until(p[0].Until) < 9*time.Hour {
				t.Errorf("pauses after a retry = %+v, want the relay's end", p)
			}
		}
	})
}

// TestMisreadQuota: a reply that reads as a quota, and is always given to one message, to the
// messages for one recipient or to those of one sender, pauses the relay once. Then the
// relay has taken other mail, and these are tried on their own schedule.
func TestMisreadQuota(t *testing.T) {
	limit := func(int, string) *mailer.Failure {
		return &mailer.Failure{
			Class: mailer.ClassRelay, Stage: mailer.StageRcpt, Relay: "relay", Reply: mailer.Reply{Code: 550, Text: "limit exceeded"},
			Until: time.Now().Add(time.Hour),
		}
	}
	for _, tt := range []struct {
		name string
		odd  func(env mailer.Envelope) bool
		make func(i int) queue.Submission
		most int // attempts at the first one in a day
	}{
		{"one message", oddRecipient, nil, 40},
		{"one recipient", oddRecipient, func(int) queue.Submission { return message("odd", "shop@example.com", "-odd@example.org") }, 40},
		{"one sender", oddSender, func(i int) queue.Submission {
			return message("odd", "-odd@example.com", fmt.Sprintf("u%d@example.org", i))
		}, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), limit, tt.odd}
				q := start(t, relay.route)
				s := message("odd", "shop@example.com", "-odd@example.org")
				if tt.make != nil {
					s = tt.make(0)
				}
				id := q.MustSubmit(s).Message.ID
				paused := 0
				for i := range 24 * 60 {
					q.MustSubmit(message("app", "shop@example.com", fmt.Sprintf("v%d@example.org", i)))
					if tt.make != nil && i%10 == 0 {
						q.MustSubmit(tt.make(i))
					}
					time.Sleep(time.Minute)
					if len(q.Pauses()) > 0 {
						paused++
					}
				}
				if paused > 65 {
					t.Errorf("the relay was paused for %d minutes of a day, want an hour", paused)
				}
				m, err := q.Get(t.Context(), "odd", id)
				if n := len(m.Attempts); err != nil || m.Recipients[0].State != queue.Deferred || n < 10 || n > tt.most {
					t.Errorf("the message is %s and was tried %d times in a day, %v, want its own schedule", m.Recipients[0].State, n, err)
				}
			})
		})
	}
}
