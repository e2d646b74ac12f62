package queue_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
	"mailsidecar/units"
)

// TestRateAfterRestart: what an earlier run has used of a relay's rate counts in the
// next one, however the earlier one ended and whether it marked what it sent.
func TestRateAfterRestart(t *testing.T) {
	rate := units.Rate{Messages: 20, Per: time.Minute}
	for _, crash := range []bool{false, true} {
		for _, hold := range []bool{false, true} {
			for _, after := range []time.Duration{150 * time.Millisecond, time.Second, 10 * time.Second, 59 * time.Second} {
				synctest.Test(t, func(t *testing.T) {
					server := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 100ms 250 2.0.0 queued"})
					mails := rateOverRestart(t, server, rate, crash, hold, after)
					for i := rate.Messages; i < len(mails); i++ {
						if d := mails[i].Sub(mails[i-rate.Messages]); d < rate.Per {
							t.Errorf("crash %v, hold %v, after %v: %d messages within %v", crash, hold, after, rate.Messages+1, d)
							break
						}
					}
					if len(mails) < 40 {
						t.Errorf("crash %v, hold %v, after %v: %d messages set out, want all 40", crash, hold, after, len(mails))
					}
				})
			}
		}
	}
}

// rateOverRestart sends 40 messages to a relay with a restart in between, and returns
// when each MAIL came.
func rateOverRestart(t *testing.T, server *relaytest.Relay, rate units.Rate, crash, hold bool, after time.Duration) []time.Time {
	t.Helper()
	first, second := pacedRelayAt(t, server, rate), pacedRelayAt(t, server, rate)
	options := func(o *queue.Options) { o.HoldUncertain, o.StopTimeout = hold, time.Nanosecond }
	q := start(t, func(o *queue.Options) { options(o); first.route(o) })
	flood(t, q, 20, "app", mailer.PriorityHigh)
	flood(t, q, 20, "app", mailer.PriorityNormal)
	time.Sleep(after)
	next := q.Options.Store
	if crash { // before the last outcomes are recorded
		next = next.(*memory.Store).Reopen()
	}
	_ = q.End()
	if !crash {
		next = next.(*memory.Store).Reopen()
	}
	q = queuetest.Start(t, next, func(o *queue.Options) { options(o); second.route(o) })
	if _, err := q.RetryMatching(t.Context(), queue.Filter{Key: "app", Status: queue.StatusHeld}, 0, ""); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Minute)
	if u := q.Usage(); u != (queue.Usage{}) {
		t.Errorf("Usage = %+v, want nothing", u)
	}
	var mails []time.Time
	for _, c := range server.Commands() {
		if strings.HasPrefix(c.Line, "MAIL") {
			mails = append(mails, c.At)
		}
	}
	return mails
}

// TestRateShared: instances keep to a relay's rate in sum, though one crashes, and another one starts
// later. All mail goes out, and each instance sends its part.
func TestRateShared(t *testing.T) {
	rate := units.Rate{Messages: 12, Per: time.Minute}
	synctest.Test(t, func(t *testing.T) {
		server := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 100ms 250 2.0.0 queued"})
		database := memory.NewDatabase(lease)
		var relays []*pacedRelay
		begin := func() (*queuetest.Queue, *atomic.Bool) {
			relay := pacedRelayAt(t, server, rate)
			relays = append(relays, relay)
			store, isDead := dies(database)
			return queuetest.Start(t, store, relay.route), isDead
		}
		a, _ := begin()
		b, isDead := begin()
		for _, q := range []*queuetest.Queue{a, b} {
			flood(t, q, 30, "app", mailer.PriorityNormal)
			flood(t, q, 10, "app", mailer.PriorityHigh)
		}
		time.Sleep(10 * time.Second)
		isDead.Store(true)
		time.Sleep(5 * time.Second)
		c, _ := begin()
		flood(t, c, 30, "app", mailer.PriorityNormal)
		time.Sleep(30 * time.Minute)
		if u := a.Usage(); u != (queue.Usage{}) {
			t.Errorf("Usage = %+v, want nothing", u)
		}
		var mails []time.Time
		for _, c := range server.Commands() {
			if strings.HasPrefix(c.Line, "MAIL") {
				mails = append(mails, c.At)
			}
		}
		for i := rate.Messages; i < len(mails); i++ {
			if d := mails[i].Sub(mails[i-rate.Messages]); d < rate.Per {
				t.Errorf("%d messages within %v", rate.Messages+1, d)
				break
			}
		}
		if took := mails[len(mails)-1].Sub(mails[0]); len(mails) < 110 || took > 12*time.Minute {
			t.Errorf("%d messages set out in %v, want all 110 in a little over 9 minutes", len(mails), took)
		}
		for i, r := range relays {
			t.Logf("instance %d sent %d", i, len(r.all))
			if i != 1 && len(r.all) < 15 {
				t.Errorf("instance %d sent %d messages of %d", i, len(r.all), len(mails))
			}
		}
	})
}
