package model

import (
	"slices"
	"time"

	"mailsidecar/sim/relay"
)

// wire is by how much what is sent may arrive later than something else.
const wire = 2 * time.Millisecond

// rates: no window has more messages than the rate allows, as the relay sees them. Where
// the clock is set, a new run does not know what an earlier one has used: then each run is
// judged by itself.
func (c *checker) rates() {
	for name, r := range c.Relays {
		if r.Rate.Messages == 0 {
			continue
		}
		if !c.Steps && (c.Instances < 2 || c.SharedRates) {
			c.rate(name, r, c.turns(r.Notes.Mails))
			continue
		}
		if !c.Steps {
			for i := range c.Instances {
				c.rate(name, r, c.turns(slices.DeleteFunc(slices.Clone(r.Notes.Mails), func(t relay.Transaction) bool { return t.Instance != i })))
			}
			continue
		}
		for n := range c.Lives {
			c.rate(name, r, c.turns(slices.DeleteFunc(slices.Clone(r.Notes.Mails), func(t relay.Transaction) bool { return c.lifeOf(&t) != n })))
		}
	}
}

// turns are when messages set out within the rate, the oldest first, as far as it is known
// that they count. What a run that is gone had sent, and the relay reads later, does not. Nor does a MAIL
// that was there before a slow relay was ready for it: it set out at some time between.
func (c *checker) turns(mails []relay.Transaction) []time.Time {
	var at []time.Time
	for _, t := range mails {
		n := c.lifeOf(&t)
		if n < 0 {
			continue
		}
		readLate := t.Ahead && t.At.Sub(t.After) > wire
		if l := c.Lives[n]; (l.Ended.IsZero() || !t.At.After(l.Ended)) && !c.heldBack(&t) && !readLate {
			at = append(at, t.At)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// heldBack says that the transaction came when its instance, which had been suspended, went on: the
// simulator holds back what its goroutines send meanwhile, and in truth they do not run.
func (c *checker) heldBack(t *relay.Transaction) bool {
	return slices.ContainsFunc(c.Absences, func(a Absence) bool {
		return a.Suspended && a.Instance == t.Instance && !t.At.Before(a.To) && t.At.Before(a.To.Add(wire))
	})
}

// lifeOf is the place of the run that the transaction was of; -1 where that is not known.
func (c *checker) lifeOf(t *relay.Transaction) int {
	return slices.IndexFunc(c.Lives, func(l Life) bool {
		return l.Instance == t.Instance && !l.Begun.After(t.Opened) && (l.Ended.IsZero() || l.Ended.After(t.Opened))
	})
}

func (c *checker) rate(name string, r Relay, at []time.Time) {
	n, per := r.Rate.Messages, r.Rate.Per
	for i := n; i < len(at); i++ {
		if took := at[i].Sub(at[i-n]); took < per-wire {
			c.fail("rate", "relay %s saw %d messages in %v until %v; its rate is %d in %v", name, n+1, took, at[i], n, per)
			return
		}
	}
}
