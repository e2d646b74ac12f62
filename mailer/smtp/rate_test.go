package smtp_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/units"
)

// TestRate: in no period do more messages set out than the rate allows, and they
// do so evenly.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 4, Per: 12 * time.Second}
		})
		begin := time.Now()
		for i, want := range []int{0, 3, 6, 9, 12, 15, 18} {
			p.deliver(t, "accepted 250")
			if took := time.Since(begin); took != time.Duration(want)*time.Second {
				t.Errorf("message %d went after %v, want %ds", i, took, want)
			}
		}
		time.Sleep(7 * time.Second) // two turns more are left
		for i, want := range []int{0, 1, 1} {
			now := time.Now()
			p.deliver(t, "accepted 250")
			if took := time.Since(now); took != time.Duration(want)*time.Second {
				t.Errorf("message %d after the pause went after %v, want %ds", i, took, want)
			}
		}
	})
}

func TestRateUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: time.Hour}
		})
		p.deliver(t, "accepted 250")
		begin := time.Now()
		a := p.deliver(t, "relay connect")
		var rate *mailer.RateError
		if f := a.Results[0].Failure; f != nil && (!errors.As(f, &rate) || !rate.At.Equal(begin.Add(time.Hour))) {
			t.Errorf("Deliver() failed with %#v, want a RateError for an hour from now", f.Err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("it was told after %v, want at once", took)
		}
		time.Sleep(59*time.Minute + 30*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, want := outcomes(p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText))), "relay connect"; got != want {
			t.Errorf("Deliver() with an early deadline = %s, want %s", got, want)
		}
		if took := time.Since(begin); took != 59*time.Minute+30*time.Second {
			t.Errorf("it was told after %v, want at once", took)
		}
	})
}

// TestRateOverload: deliveries that cannot wait take no turn from those that can,
// and the rate is used in full for any number of messages.
func TestRateOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "after 2s 250 2.0.0 ok"}, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: time.Second}
		})
		const seconds = 120
		var accepted atomic.Int64
		var all sync.WaitGroup
		for range 5 * seconds {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if a := p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText)); a.Results[0].Failure == nil {
					accepted.Add(1)
				}
			})
			time.Sleep(time.Second / 5)
		}
		all.Wait()
		if n := accepted.Load(); n < seconds || n > seconds+16 {
			t.Errorf("%d messages were accepted in %d s, want one in each second", n, seconds)
		}
	})
}

// TestRateGivenBack: another delivery gets the turn of one that was stopped while
// it waited.
func TestRateGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: 10 * time.Second}
		})
		p.deliver(t, "accepted 250")
		begin := time.Now()
		var all sync.WaitGroup
		stopped, stop := context.WithCancel(t.Context())
		all.Go(func() {
			a := p.relay.Deliver(stopped, envelope("b@example.org"), content(messageText))
			if got, want := outcomes(a), "transient connect"; got != want {
				t.Errorf("Deliver() that was stopped = %s, want %s", got, want)
			}
		})
		synctest.Wait()
		all.Go(func() { // has the turn after that
			p.deliver(t, "accepted 250")
			if took := time.Since(begin); took != 10*time.Second {
				t.Errorf("the turn that was given back came after %v, want 10s", took)
			}
		})
		synctest.Wait()
		time.Sleep(time.Second)
		stop()
		synctest.Wait()
		p.deliver(t, "accepted 250")
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("the turn after it came after %v, want 20s", took)
		}
		all.Wait()
	})
}

// TestRatePriority: a turn goes to the delivery that is due first at that time,
// and no more messages start than the rate allows.
func TestRatePriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: 2 * time.Second}
		})
		p.deliver(t, "accepted 250")
		begin := time.Now()
		var all sync.WaitGroup
		for i, tt := range []struct {
			priority mailer.Priority
			want     time.Duration
		}{
			{mailer.PriorityBulk, 14 * time.Second},
			{mailer.PriorityNormal, 8 * time.Second},
			{mailer.PriorityHigh, 2 * time.Second},
			{mailer.PriorityBulk, 16 * time.Second},
			{mailer.PriorityNormal, 10 * time.Second},
			{mailer.PriorityHigh, 4 * time.Second},
			{mailer.PriorityNormal, 12 * time.Second},
			{mailer.PriorityHigh, 6 * time.Second},
		} {
			all.Go(func() {
				env := envelope("b@example.org")
				env.Priority = tt.priority
				a := p.relay.Deliver(t.Context(), env, content(messageText))
				if got, took := outcomes(a), time.Since(begin); got != "accepted 250" || took != tt.want {
					t.Errorf("message %d of priority %v = %s after %v, want accepted after %v", i, tt.priority, got, took, tt.want)
				}
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
	})
}

// TestRateOvertaken: a delivery that is overtaken waits for half of its time at
// most, and then learns when its turn would have come.
func TestRateOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 1, Per: 20 * time.Second}
		})
		deliver := func(ctx context.Context, priority mailer.Priority) mailer.Attempt {
			env := envelope("b@example.org")
			env.Priority = priority
			return p.relay.Deliver(ctx, env, content(messageText))
		}
		p.deliver(t, "accepted 250")
		begin := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			a := deliver(ctx, mailer.PriorityBulk)
			var rate *mailer.RateError
			if f := a.Results[0].Failure; f == nil || !errors.As(f.Err, &rate) || !rate.At.Equal(begin.Add(100*time.Second)) {
				t.Errorf("the bulk message = %s (%v), want a RateError for the turn at 100s", outcomes(a), f)
			}
			if took := time.Since(begin); took != time.Minute {
				t.Errorf("it was told after %v, want 1m", took)
			}
		})
		for range 4 {
			time.Sleep(time.Millisecond)
			all.Go(func() {
				if got, want := outcomes(deliver(t.Context(), mailer.PriorityHigh)), "accepted 250"; got != want {
					t.Errorf("a message of high priority = %s, want %s", got, want)
				}
			})
			time.Sleep(18 * time.Second)
		}
		all.Wait()
	})
}

// TestRateAges: where mail of higher priority takes every turn, a message that
// waits gets one all the same when it has waited for long enough.
func TestRateAges(t *testing.T) {
	for _, tt := range []struct {
		busy, waits mailer.Priority
		most        time.Duration
	}{
		{mailer.PriorityHigh, mailer.PriorityNormal, 80 * time.Second},
		{mailer.PriorityNormal, mailer.PriorityBulk, 140 * time.Second},
		{mailer.PriorityHigh, mailer.PriorityBulk, 200 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
				o.Rate = units.Rate{Messages: 1, Per: 5 * time.Second}
			})
			deliver := func(ctx context.Context, priority mailer.Priority) string {
				env := envelope("b@example.org")
				env.Priority = priority
				return outcomes(p.relay.Deliver(ctx, env, content(messageText)))
			}
			ctx, stop := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 2 {
				all.Go(func() {
					for ctx.Err() == nil {
						deliver(ctx, tt.busy)
					}
				})
			}
			time.Sleep(time.Second)
			begin := time.Now()
			got := deliver(t.Context(), tt.waits)
			if took := time.Since(begin); got != "accepted 250" || took > tt.most {
				t.Errorf("a message of priority %v among those of %v = %s after %v, want accepted within %v", tt.waits, tt.busy, got, took, tt.most)
			}
			stop()
			all.Wait()
		})
	}
}

// TestRateStopWaiting: when the service stops, deliveries that wait for a turn
// fail at once, and so do later ones.
func TestRateStopWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate = units.Rate{Messages: 2, Per: time.Minute}
		})
		p.deliver(t, "accepted 250")
		begin := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			var rate *mailer.RateError
			a := p.deliver(t, "relay connect")
			if f := a.Results[0].Failure; f != nil && (!errors.As(f, &rate) || !rate.At.Equal(begin.Add(30*time.Second))) {
				t.Errorf("Deliver() failed with %#v, want a RateError for the turn at 30s", f.Err)
			}
		})
		synctest.Wait()
		if got, want := p.relay.Turns(), (smtp.Turns{Rate: p.opts.Rate, Waiting: 1, Next: begin.Add(30 * time.Second), Used: 1}); got != want {
			t.Errorf("Turns() = %+v, want %+v", got, want)
		}
		time.Sleep(time.Second)
		if got := p.relay.Turns().Used; got != 1 {
			t.Errorf("Used = %d, want the message that was sent", got)
		}
		p.relay.StopWaiting()
		p.relay.StopWaiting()
		all.Wait()
		p.deliver(t, "relay connect")
		if took := time.Since(begin); took != time.Second {
			t.Errorf("they were told after %v, want 1s", took)
		}
		time.Sleep(time.Minute - time.Second)
		if got := p.relay.Turns().Used; got != 0 {
			t.Errorf("Used = %d when the minute is over, want 0", got)
		}
	})
}

// TestNoteUsed: an attempt with several transactions tells what it used of the rate before
// each further one, and not again at its end. Where that cannot be noted it goes no further.
func TestNoteUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) {
			o.Rate, o.MaxRecipients = units.Rate{Messages: 100, Per: time.Hour}, 1
		})
		var noted []time.Time
		var full error
		p.relay.NoteUsed(func(_ context.Context, times []time.Time) error {
			if sent := len(p.scripted.Messages()); full == nil && sent != len(noted)+len(times) {
				t.Errorf("%d of %d are noted before the next one", len(noted)+len(times), sent)
			}
			noted = append(noted, times...)
			return full
		})
		a := p.relay.Deliver(t.Context(), envelope("a@example.org", "b@example.org", "c@example.org"), content(messageText))
		if len(noted) != 2 || len(a.Turns) != 1 {
			t.Errorf("%d turns were noted before the end and %d are told at it, want 2 and 1", len(noted), len(a.Turns))
		}
		noted, full = nil, errors.New("the store is full")
		a = p.relay.Deliver(t.Context(), envelope("a@example.org", "b@example.org"), content(messageText))
		if got, want := outcomes(a), "accepted 250, transient connect"; got != want || len(a.Turns) != 1 {
			t.Errorf("without a store: %s and %d turns, want %s and 1", got, len(a.Turns), want)
		}
	})
}
