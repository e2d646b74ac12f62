package queue_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue/queuetest"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// pacedRelay is a relay with a rate as it is in earnest, which remembers what it
// took.
type pacedRelay struct {
	*smtp.Relay
	mu   sync.Mutex
	took map[string]time.Time // the first message of each name
	all  []time.Time
}

func newPacedRelay(t *testing.T, rate units.Rate) *pacedRelay {
	t.Helper()
	return pacedRelayAt(t, relaytest.New(t, relaytest.Options{}, nil), rate)
}

func pacedRelayAt(t *testing.T, server *relaytest.Relay, rate units.Rate) *pacedRelay {
	t.Helper()
	network := &relaytest.Network{Port: map[int]any{587: server}}
	r, err := smtp.New(smtp.Options{
		Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: network.Dial, Rate: rate,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return &pacedRelay{Relay: r, took: map[string]time.Time{}}
}

func (r *pacedRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	a := r.Relay.Deliver(ctx, env, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.Results[0].Failure == nil {
		name, _, _ := strings.Cut(string(c.Data), " ")
		if now := time.Now(); r.took[name].IsZero() {
			r.took[name] = now
		}
		r.all = append(r.all, time.Now())
	}
	return a
}

// route sends all mail over the relay.
func (r *pacedRelay) route(o *queue.Options) { o.Routes = queue.Routes{{Relay: r}} }

// TestRateBeforeBulk: where bulk uses up a relay's rate, mail of another key and
// mail in a hurry have the next turn, however far it is, and the rate is used in
// full. No message is shown an attempt that never was.
func TestRateBeforeBulk(t *testing.T) {
	for _, rate := range []units.Rate{{Messages: 20, Per: time.Minute}, {Messages: 20, Per: time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			relay := newPacedRelay(t, rate)
			var text lockedLog
			q := start(t, func(o *queue.Options) {
				relay.route(o)
				o.Workers, o.Logger = 24, slog.New(slog.NewTextHandler(&text, nil))
			})
			begin := time.Now()
			flood(t, q, 150, "app", mailer.PriorityBulk)
			time.Sleep(rate.Per / 10)
			gap := rate.Per / 16
			for i, c := range []struct {
				key  string
				p    mailer.Priority
				want time.Duration
			}{
				{"app", mailer.PriorityHigh, 0}, // turns are left in the first period
				{"other", mailer.PriorityNormal, gap},
				{"other", mailer.PriorityHigh, gap},
				{"app", mailer.PriorityNormal, gap},
				{"app", mailer.PriorityHigh, gap},
			} {
				now, name := time.Now(), fmt.Sprint("reset", i)
				id := q.MustSubmit(mail(c.key, c.p, name)).Message.ID
				time.Sleep(rate.Per*2/3 + time.Duration(i)*gap/3)
				relay.mu.Lock()
				took := relay.took[name].Sub(now)
				relay.mu.Unlock()
				if took < 0 || took > c.want+time.Second {
					t.Errorf("%v: %v of %s set out after %v, want after %v at most", rate, c.p, c.key, took, c.want)
				}
				if m, err := q.Get(t.Context(), c.key, id); err != nil || len(m.Attempts) != 1 {
					t.Errorf("%v: attempts = %+v (%v), want the one that was", rate, m.Attempts, err)
				}
			}
			time.Sleep(time.Until(begin.Add(6*rate.Per - 2*time.Second)))
			relay.mu.Lock()
			defer relay.mu.Unlock()
			if n := len(relay.all); n < 118 || n > 120 {
				t.Errorf("%v: %d messages in six periods, want 120", rate, n)
			}
			slices.SortFunc(relay.all, time.Time.Compare)
			for i := 20; i < len(relay.all); i++ {
				if d := relay.all[i].Sub(relay.all[i-20]); d < rate.Per-time.Second {
					t.Errorf("%v: 21 messages within %v", rate, d)
				}
			}
			log := text.String()
			if n := strings.Count(log, "rate used up"); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") || n > 4 ||
				strings.Contains(log, "msg=deferred") || rate.Per > time.Minute && !strings.Contains(log, "setting=SMTP_RATE") {
				t.Errorf("%v: told %d times that the rate is used up, want once for each priority, and no trouble; log = %.3000s", rate, n, log)
			}
		})
	}
}

// TestRateLeavesHigh: mail that only waits because the rate is spread does not hold up mail
// of high priority, for which turns are left: whatever the priority of what waits, the number of
// its keys and that of the workers.
func TestRateLeavesHigh(t *testing.T) {
	for _, rate := range []units.Rate{{Messages: 5, Per: time.Minute}, {Messages: 20, Per: time.Minute}, {Messages: 60, Per: time.Hour}} {
		for _, workers := range []int{1, 2, 8, 24, 48} {
			for _, p := range []mailer.Priority{mailer.PriorityNormal, mailer.PriorityBulk} {
				for _, keys := range []int{1, 2, 10} {
					synctest.Test(t, func(t *testing.T) {
						relay := newPacedRelay(t, rate)
						q := start(t, func(o *queue.Options) { relay.route(o); o.Workers = workers })
						for i := range keys {
							flood(t, q, 20, fmt.Sprint("app", i), p)
						}
						time.Sleep(rate.Per / 50)
						now := time.Now()
						for i, key := range []string{"app0", "other"} {
							q.MustSubmit(mail(key, mailer.PriorityHigh, fmt.Sprint("reset", i)))
							time.Sleep(time.Second)
						}
						relay.mu.Lock()
						defer relay.mu.Unlock()
						for _, name := range []string{"reset0", "reset1"} {
							if took := relay.took[name].Sub(now); took < 0 {
								t.Errorf("%v, %d workers, %d keys with %v mail: %s did not set out at once", rate, workers, keys, p, name)
							}
						}
					})
				}
			}
		}
	}
}

// TestRateStop: what waits for its turn does not hold up the end of the service,
// and is as if it had never been tried.
func TestRateStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newPacedRelay(t, units.Rate{Messages: 1, Per: time.Minute})
		q := start(t, relay.route)
		q.MustSubmit(queuetest.Submission("first", "a@example.org"))
		queuetest.SettleDown()
		id := q.MustSubmit(queuetest.Submission("second", "a@example.org")).Message.ID
		queuetest.SettleDown()
		if n := relay.Turns().Waiting; n != 1 {
			t.Errorf("%d deliveries wait for their turn, want 1", n)
		}
		begin := time.Now()
		if err := q.End(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("the end took %v, want none", took)
		}
		q = restart(t, q, nil, queuetest.NewRelay(queuetest.Accept))
		queuetest.SettleDown()
		if m := q.WantStatus(id, queue.StatusDelivered); len(m.Attempts) != 1 || m.Attempts[0].Relay != "relay" {
			t.Errorf("attempts = %+v, want the one after the restart", m.Attempts)
		}
	})
}
