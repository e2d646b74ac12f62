package queue_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
	"mailsidecar/units"
)

// scripted is a real client of a scripted relay.
func scripted(t *testing.T, script relaytest.Script, edit func(*smtp.Options)) (*relaytest.Relay, func(*queue.Options)) {
	t.Helper()
	relay := relaytest.New(t, relaytest.Options{}, script)
	network := &relaytest.Network{Port: map[int]any{587: relay}}
	o := smtp.Options{
		Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: network.Dial,
	}
	if edit != nil {
		edit(&o)
	}
	client, err := smtp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return relay, func(o *queue.Options) { o.Routes, o.Workers = queue.Routes{{Relay: client}}, 24 }
}

// TestRetryDoesNotLogIn: with a wrong password, a hundred messages and a retry every
// second cause no more logins than there would be without. The answer to a retry has
// the relay's last verdict and the time of the next login.
func TestRetryDoesNotLogIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay, route := scripted(t, relaytest.Script{"AUTH": strings.Repeat("after 10ms 535 5.7.8 wrong password then ", 5) + "default"}, nil)
		q := start(t, route)
		begin := time.Now()
		var ids []string
		for i := range 100 {
			ids = append(ids, q.MustSubmit(queuetest.Submission(fmt.Sprint(i), "a@example.org")).Message.ID)
		}
		time.Sleep(5 * time.Second) // two logins
		if until := q.Pauses()[0].Until; until.Sub(begin) < time.Minute || until.Sub(begin) > 65*time.Second {
			t.Errorf("paused for %v, want a minute, as long as logins are", until.Sub(begin))
		}
		for i := range 150 {
			m, err := q.Retry(t.Context(), "app", ids[0])
			if err != nil {
				t.Fatal(err)
			}
			r, pause := m.Recipients[0], q.Pauses()[0]
			if f := r.Result.Failure; f == nil || f.Reply.Code != 535 || !r.NextAttempt.Equal(pause.Until) {
				t.Fatalf("retry %d: %+v, want the relay's verdict, and the end of the pause %v", i, r, pause.Until)
			}
			if _, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app"}, 0, ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := relay.Said("AUTH"); n != 4 {
			t.Errorf("%d logins in 150 s, want 4", n)
		}
		if n := len(q.Message(ids[0]).Attempts); n > 4 {
			t.Errorf("%d attempts of a message, want no more than there were logins", n)
		}
		time.Sleep(20 * time.Minute)
		for _, id := range ids {
			q.WantStatus(id, queue.StatusDelivered)
		}
	})
}

// TestRetryOfDeadRelay: whoever retries again and again makes the relay's back-off no longer: it is found at work as soon as
// without.
func TestRetryOfDeadRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("1", "a@example.org")).Message.ID
		time.Sleep(20 * time.Second)
		begin := time.Now()
		before := q.Pauses()[0]
		asked := len(relay.Attempts())
		for range 5 {
			if _, err := q.Retry(t.Context(), "app", id); err != nil {
				t.Fatal(err)
			}
			queuetest.SettleDown()
			if _, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app"}, 0, ""); err != nil {
				t.Fatal(err)
			}
			queuetest.SettleDown()
		}
		after := q.Pauses()[0]
		if lasts := after.Until.Sub(begin); lasts > before.Until.Sub(begin)+time.Second || after.Failures != before.Failures {
			t.Errorf("retries make a pause of %v one of %v, and %d failures %d", before.Until.Sub(begin), lasts, before.Failures, after.Failures)
		}
		if n := len(relay.Attempts()) - asked; n < 5 {
			t.Errorf("the relay was asked %d times, want with each retry", n)
		}
		relay.Set(queuetest.Accept)
		time.Sleep(before.Until.Sub(begin) + time.Second)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestRevokedPasswordDefersNothing: the sessions that are open when the password is
// revoked take all the mail, and the relay is not paused for that.
func TestRevokedPasswordDefersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay, route := scripted(t, relaytest.Script{
			"AUTH": strings.Repeat("default then ", 4) + "535 5.7.8 revoked", ".": "after 100ms 250 2.0.0 ok",
		}, func(o *smtp.Options) { o.MaxConnections, o.MessagesPerConnection = 20, 1000 })
		q := start(t, route)
		var ids []string
		for i := range 500 {
			ids = append(ids, q.MustSubmit(queuetest.Submission(fmt.Sprint(i), "a@example.org")).Message.ID)
		}
		for range 20 {
			time.Sleep(time.Second)
			if p := q.Pauses(); len(p) != 0 {
				t.Fatalf("Pauses = %+v, want none", p)
			}
		}
		for _, id := range ids {
			if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 {
				t.Fatalf("%d attempts, want one", len(m.Attempts))
			}
		}
		if n := relay.Said("AUTH"); n > 4+2 {
			t.Errorf("%d logins, want 4 and 2 refused ones", n)
		}
	})
}

// TestLoginsShared: with a wrong password several instances at one store make no more logins than one would, and send when
// it is right again.
func TestLoginsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"AUTH": strings.Repeat("after 10ms 535 5.7.8 wrong password then ", 6) + "default"})
		d := memory.NewDatabase(lease)
		var queues []*queuetest.Queue
		for range 3 {
			client := pacedRelayAt(t, relay, units.Rate{})
			queues = append(queues, queuetest.Start(t, d.Open(memory.Options{}), client.route))
		}
		var ids []string
		for _, q := range queues {
			for range 5 {
				ids = append(ids, q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID)
			}
		}
		logins := func() (n int) {
			for _, c := range relay.Commands() {
				if strings.HasPrefix(c.Line, "AUTH") {
					n++
				}
			}
			return n
		}
		time.Sleep(30 * time.Second)
		if n := logins(); n != 2 {
			t.Errorf("%d logins at once, want 2 as one instance makes", n)
		}
		time.Sleep(18 * time.Minute)
		if n := logins(); n < 5 || n > 6 {
			t.Errorf("%d logins in 18 minutes, want 5 or 6", n)
		}
		time.Sleep(time.Hour)
		for _, id := range ids {
			queues[0].WantStatus(id, queue.StatusDelivered)
		}
	})
}
