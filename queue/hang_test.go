package queue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// hangingRelay takes nine minutes for the message "slow".
type hangingRelay struct{ *queuetest.Relay }

func (h hangingRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if string(c.Data) == "slow" {
		select {
		case <-ctx.Done():
		case <-time.After(9 * time.Minute):
		}
	}
	return h.Relay.Deliver(ctx, env, c)
}

// route sends all mail over the relay.
func (h hangingRelay) route(o *queue.Options) { o.Routes = queue.Routes{{Relay: h}} }

// TestHangingDeliveryIsNoProbe: a delivery that began before the relay was in
// trouble does not keep the probe from going out when the pause is over, and what
// becomes of it does not end the probe.
func TestHangingDeliveryIsNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := hangingRelay{queuetest.NewRelay(queuetest.Accept)}
		q := start(t, relay.route)
		q.MustSubmit(queuetest.Submission("slow", "slow@example.org"))
		queuetest.SettleDown()
		relay.Set(queuetest.Unreachable)
		q.MustSubmit(queuetest.Submission("bad", "bad@example.org"))
		queuetest.SettleDown()
		relay.Set(queuetest.Accept)
		if p := q.Pauses(); len(p) != 1 {
			t.Fatalf("pauses = %v, want one", p)
		}
		time.Sleep(5 * time.Second) // the pause is 1 s
		id := q.MustSubmit(queuetest.Submission("reset", "user@example.org")).Message.ID
		time.Sleep(time.Second)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestProbeHangs: when the probe after a pause hangs, another goes out after half a
// minute, then after a minute more, and all else with the first that does not hang.
func TestProbeHangs(t *testing.T) {
	for slow, want := range []time.Duration{0, 30 * time.Second, 90 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			relay := hangingRelay{queuetest.NewRelay(queuetest.Unreachable)}
			q := start(t, relay.route)
			first := q.MustSubmit(queuetest.Submission("x", "x@example.org")).Message.ID
			queuetest.SettleDown()
			relay.Set(queuetest.Accept)
			if _, err := q.Cancel(t.Context(), "app", first); err != nil {
				t.Fatal(err)
			}
			for range slow {
				q.MustSubmit(queuetest.Submission("slow", "slow@example.org"))
				time.Sleep(time.Millisecond)
			}
			var ids []string
			for range 20 {
				ids = append(ids, q.MustSubmit(queuetest.Submission("reset", "user@example.org")).Message.ID)
			}
			time.Sleep(want + time.Second/2)
			if n, sent := q.Load().InFlight, relay.Copies("reset", "user@example.org"); n != slow || sent > 0 {
				t.Errorf("%d probes hang, and %d other messages were sent, want %d and none", n, sent, slow)
			}
			time.Sleep(time.Second)
			for _, id := range ids {
				q.WantStatus(id, queue.StatusDelivered)
			}
		})
	}
}

// TestRestEndsWhileProbeHangs: the first relay's rate is used up for a minute, and
// the second one's probe hangs. Mail goes out over the first when its turn comes.
func TestRestEndsWhileProbeHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rested := time.Now().Add(time.Minute)
		first := queuetest.NamedRelay("first", func(int, string) *mailer.Failure {
			if time.Now().Before(rested) {
				return queuetest.RateUsedUp("first", rested)
			}
			return nil
		})
		second := queuetest.NamedRelay("second", queuetest.Unreachable)
		q := start(t, nil, first, second)
		q.MustSubmit(queuetest.Submission("one", "one@example.org"))
		queuetest.SettleDown()
		second.Set(queuetest.Accept)
		second.Slow(8*time.Minute, 0)
		q.MustSubmit(queuetest.Submission("two", "two@example.org"))
		time.Sleep(10 * time.Second) // the probe is under way
		id := q.MustSubmit(queuetest.Submission("three", "three@example.org")).Message.ID
		for range 4 { // whatever the number of probes that hang
			q.MustSubmit(queuetest.Submission("more", "more@example.org"))
		}
		time.Sleep(time.Until(rested) + time.Second)
		if first.Copies("three", "three@example.org") != 1 {
			t.Errorf("message is %s, want it sent when the rate allows it", q.Message(id).Status())
		}
	})
}

// TestHangingTakesNoWorkerOfAnother: deliveries that hang at a relay, as many as may
// be, leave the next relay of the route its workers.
func TestHangingTakesNoWorkerOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept)
		q := start(t, nil, first, second)
		first.Slow(9*time.Minute, 0)
		for range 7 {
			q.MustSubmit(queuetest.Submission("slow", "slow@example.org"))
		}
		queuetest.SettleDown()
		first.Slow(0, 0)
		first.Set(queuetest.Unreachable)
		second.Slow(9*time.Minute, 0)
		q.MustSubmit(queuetest.Submission("bad", "bad@example.org")) // pauses the first one, and hangs at the second
		queuetest.SettleDown()
		second.Slow(0, 0)
		var ids []string
		for range 20 {
			ids = append(ids, q.MustSubmit(queuetest.Submission("reset", "user@example.org")).Message.ID)
		}
		time.Sleep(time.Second / 2)
		for _, id := range ids {
			q.WantStatus(id, queue.StatusDelivered)
		}
	})
}

// TestWindowGrowsWhileAllHang: what waits in memory goes out over the connections
// that the relay gets while those in hand hang, though no delivery ends.
func TestWindowGrowsWhileAllHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hang, all = 6, 16
		relay := smtpRelay(t, relaytest.Script{".": strings.Repeat("after 9m 250 ok then ", hang) + "250 ok"})
		q := start(t, func(o *queue.Options) { o.Routes, o.Workers = queue.Routes{{Relay: relay}}, 48 })
		for i := range all {
			q.MustSubmit(queuetest.Submission("Subject: x\r\n\r\nx\r\n", fmt.Sprintf("u%d@example.org", i)))
		}
		time.Sleep(30 * time.Second)
		if left := q.Usage().Messages; left != hang {
			t.Errorf("%d messages are left half a minute later, want the %d that hang", left, hang)
		}
	})
}

// smtpRelay is a relay as it is in earnest, with that script.
func smtpRelay(t *testing.T, script relaytest.Script) *smtp.Relay {
	t.Helper()
	network := &relaytest.Network{Port: map[int]any{587: relaytest.New(t, relaytest.Options{}, script)}}
	r, err := smtp.New(smtp.Options{
		Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: network.Dial, MaxConnections: 16,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestExpiresInMemory: a message that waits in memory for deliveries that hang
// expires at its time, and who waits for it is told.
func TestExpiresInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(9*time.Minute, 0)
		q := start(t, nil, relay)
		for range 30 {
			q.MustSubmit(queuetest.Submission("slow", "slow@example.org"))
		}
		s := queuetest.Submission("short", "short@example.org")
		s.ExpiresIn, s.Wait = 30*time.Second, time.Minute
		begin := time.Now()
		r := q.MustSubmit(s)
		if took := time.Since(begin); took > 31*time.Second || r.Message.Status() != queue.StatusFailed {
			t.Errorf("status = %s after %v, want failed after 30s", r.Message.Status(), took)
		}
		time.Sleep(40 * time.Minute)
		if n := relay.Copies("short", "short@example.org"); n != 0 || q.Usage().Messages != 0 {
			t.Errorf("the message that expired was sent %d times, and %+v waits", n, q.Usage())
		}
	})
}

// TestHangsAndDrops: with a relay as it is in earnest, a final dot whose reply takes
// nine minutes and a connection that drops hold up nothing else.
func TestHangsAndDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := smtpRelay(t, relaytest.Script{".": "after 9m 250 ok then 250 ok", "MAIL": "default then drop then default"})
		q := start(t, func(o *queue.Options) { o.Routes, o.Workers = queue.Routes{{Relay: relay}}, 24 })
		submit := func(from string) string {
			s := queuetest.Submission("Subject: x\r\n\r\nx\r\n", "user@example.org")
			s.Envelope.ReversePath = from
			return q.MustSubmit(s).Message.ID
		}
		submit("slow@example.com")
		time.Sleep(time.Second)
		submit("second@example.com") // finds its connection dropped
		time.Sleep(5 * time.Second)
		id := submit("third@example.com")
		time.Sleep(2 * time.Second)
		q.WantStatus(id, queue.StatusDelivered)
	})
}
