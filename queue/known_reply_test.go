package queue_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// TestKnownQuotas: replies of relays, as they are, pause them for as long as the reply says
// or is known of them. Nothing bounces, few messages ask in vain, and all goes out when
// it is over.
func TestKnownQuotas(t *testing.T) {
	for _, tt := range []struct {
		host, stage, reply string
		pause              time.Duration
	}{
		{"smtp.gmail.com", ".", "550-5.4.5 Daily user sending limit exceeded. For more information on Gmail\n550 5.4.5 sending limits go to https://support.google.com/a/answer/166852 s5sm12197523qke.120 - gsmtp", time.Hour},
		{"smtp-relay.gmail.com", ".", "550 5.7.1 Daily SMTP relay limit exceeded for customer. For more information on SMTP relay sending limits please contact your administrator - gsmtp", time.Hour},
		{"smtp.mailgun.org", ".", "554 Your account is on probation and domains are limited to 100 messages / hour. Account will be enabled in 341 seconds", 341 * time.Second},
		{"smtp.example.org", "DATA", "554 5.7.1 <DATA>: Data command rejected: only 10 messages per day", time.Hour},
	} {
		t.Run(tt.host, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				relay := newMoodyRelay(t, relaytest.Script{tt.stage: tt.reply}, tt.host)
				q := start(t, relay.route)
				for i := range 100 {
					q.MustSubmit(numberedMessage("app", "shop@example.com", i))
					time.Sleep(time.Second)
				}
				p := q.Pauses()
				if len(p) != 1 || p[0].Reason.Cause == "" || p[0].Reason.Remedy == "" {
					t.Fatalf("pauses = %+v, want one that says why and what to do", p)
				}
				if left := time.Until(p[0].Until); left > tt.pause || left < tt.pause-101*time.Second {
					t.Errorf("paused for %v more, want %v from the first message on", left, tt.pause)
				}
				relay.set(t, nil)
				time.Sleep(tt.pause + 10*time.Minute)
				if u := q.Usage(); u.Messages != 0 {
					t.Errorf("%d messages are left, want none", u.Messages)
				}
				for _, m := range listed(t, q, queue.AnyKey) {
					if m.Status() != queue.StatusDelivered {
						t.Errorf("%s is %s", m.ID, m.Status())
					}
				}
			})
		})
	}
}

// TestKnownSender: a relay that does not take mail of a sender is followed by the next one.
// Where none takes it, the answer says which setting helps.
func TestKnownSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuses := newMoodyRelay(t, relaytest.Script{"RCPT": "553 5.7.1 <shop@example.com>: Sender address rejected: not owned by user user@example.org"}, "one.example")
		takes := newMoodyRelay(t, nil, "two.example")
		alone, err := queue.NewDirect(queue.Routes{{Relay: refuses}}, nil).Submit(t.Context(), numberedMessage("app", "shop@example.com", 1))
		if err != nil {
			t.Fatal(err)
		}
		if r := alone.Message.Recipients[0]; r.State != queue.Bounced || !strings.Contains(r.Result.Failure.Remedy, "MAILSIDECAR_FROM") {
			t.Errorf("with that relay alone: %s, %+v, want it bounced, and MAILSIDECAR_FROM named", r.State, r.Result.Failure)
		}
		q := start(t, func(o *queue.Options) { o.Routes = queue.Routes{{Relay: refuses}, {Relay: takes}} })
		for i := range 20 {
			id := q.MustSubmit(numberedMessage("app", "shop@example.com", i)).Message.ID
			time.Sleep(time.Second)
			q.WantStatus(id, queue.StatusDelivered)
		}
	})
}

// TestKnownSenderEnds: a relay that ends the connection over one sender whose domain is not
// verified takes the mail of others as fast as before, over as many connections.
func TestKnownSenderEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newMoodyRelay(t, relaytest.Script{"MAIL FROM:<odd": "bye 421 4.7.1 Sender domain is not verified"}, "smtp.example.org")
		q := start(t, relay.route)
		for i := range 200 {
			if i%5 == 0 {
				q.MustSubmit(numberedMessage("odd", fmt.Sprintf("odd%d@example.com", i%3), 1000+i))
			}
			id := q.MustSubmit(numberedMessage("app", "shop@example.com", i)).Message.ID
			time.Sleep(200 * time.Millisecond)
			q.WantStatus(id, queue.StatusDelivered)
			if p := q.Pauses(); len(p) > 0 {
				t.Fatalf("pauses = %+v, want none", p)
			}
		}
		if c := relay.Connections(); strings.Contains(c.Reason, "asked") {
			t.Errorf("connections = %+v, want no fewer for it", c)
		}
		for _, m := range listed(t, q, "odd") {
			if m.Recipients[0].State.Final() {
				t.Errorf("%s of the sender is %s, want it to wait", m.ID, m.Recipients[0].State)
			}
		}
	})
}

// listed returns the first messages of a key.
func listed(t *testing.T, q *queuetest.Queue, key string) []queue.Message {
	t.Helper()
	page, err := q.List(t.Context(), queue.Filter{Key: key}, 500, "")
	if err != nil {
		t.Fatal(err)
	}
	return page.Messages
}
