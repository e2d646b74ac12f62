package mailer_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
)

// TestRate: in no period do more messages set out than the rate allows. Who would
// wait for long is told so.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *mailer.RelayOptions) {
			o.Rate = mailer.Rate{Messages: 3, Per: 10 * time.Second}
		})
		begin := time.Now()
		for i, want := range []int{0, 0, 0, 10, 10, 10, 20} {
			p.deliver(t, "accepted 250")
			if took := time.Since(begin); took != time.Duration(want)*time.Second {
				t.Errorf("message %d went after %v, want %ds", i, took, want)
			}
		}
		time.Sleep(7 * time.Second) // of the period that began with the last one
		for i, want := range []int{0, 0, 3} {
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
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *mailer.RelayOptions) {
			o.Rate = mailer.Rate{Messages: 1, Per: time.Hour}
		})
		p.deliver(t, "accepted 250")
		begin := time.Now()
		p.deliver(t, "relay connect")
		if took := time.Since(begin); took != 0 {
			t.Errorf("it was told after %v, want at once", took)
		}
		time.Sleep(59*time.Minute + 30*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, want := outcomes(p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText))), "transient connect"; got != want {
			t.Errorf("Deliver() with an ended context = %s, want %s", got, want)
		}
	})
}
