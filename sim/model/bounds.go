package model

import (
	"slices"
	"time"

	"mailsidecar/sim/relay"
)

// wire is by how much what is sent may arrive later than something else.
const wire = 2 * time.Millisecond

// rates: no window has more messages than the rate allows, as the relay sees them. Where
// the clock is set, a new run does not know what an earlier one has used.
func (c *checker) rates() {
	if c.Steps {
		return
	}
	for name, r := range c.Relays {
		if n := r.Rate.Messages; n > 0 {
			c.rate(name, n, r.Rate.Per, r.Notes.Mails)
		}
	}
}

func (c *checker) rate(name string, n int, per time.Duration, mails []relay.Transaction) {
	at := make([]time.Time, len(mails))
	for i, m := range mails {
		at[i] = m.At
	}
	slices.SortFunc(at, time.Time.Compare)
	for i := n; i < len(at); i++ {
		if took := at[i].Sub(at[i-n]); took < per-wire && !c.crashed(at[i-n], at[i]) {
			c.fail("rate", "relay %s saw %d messages in %v; its rate is %d in %v", name, n+1, took, n, per)
			return
		}
	}
}

// What the product promises of refused logins.
const (
	freeRefusals  = 2
	refusalPause  = time.Minute
	manyRefusals  = 5
	refusedPause  = 15 * time.Minute
	undecidedWait = 10 * time.Second
)

// logins: a login that was refused is tried again rarely. A new run knows nothing of the
// one before. Where replies answer no command it is not seen what was refused.
func (c *checker) logins() {
	for name, r := range c.Relays {
		if r.Strays {
			continue
		}
		refusals := 0
		var last time.Time
		for _, l := range r.Notes.Logins {
			if !last.IsZero() && c.restarted(last, l.At) {
				refusals = 0
			}
			pause := time.Duration(0)
			switch {
			case refusals >= manyRefusals:
				pause = refusedPause
			case refusals >= freeRefusals:
				pause = refusalPause
			}
			if gap := l.At.Sub(last); pause > 0 && gap < pause-time.Second {
				c.fail("login", "relay %s saw a login %v after the %dth refusal in a row", name, gap, refusals)
			}
			switch {
			case l.Accepted:
				refusals = 0
			case l.Refused:
				refusals++
				last = l.At
			}
		}
	}
}

// restarted says whether a run began in the time.
func (c *checker) restarted(from, to time.Time) bool {
	return slices.ContainsFunc(c.Lives, func(l Life) bool { return l.Begun.After(from) && l.Begun.Before(to) })
}
