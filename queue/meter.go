package queue

import (
	"slices"
	"time"

	"mailsidecar/mailer"
)

// Meter counts what happens to messages. Its methods return at once, and any number of
// goroutines may call them at the same time.
type Meter interface {
	// Accepted counts a message that was stored; without a store one that a relay took for
	// some recipient. door is as in [Origin].
	Accepted(key, door string, p mailer.Priority)
	// Refused counts a request with new mail for which there was no room, or whose store is
	// faulty: [ErrFull], [ErrDiskFull] or a [StoreError].
	Refused(why error)
	// Tried counts the attempts of one outcome, in order, once they are recorded.
	Tried(attempts []mailer.Attempt)
	// Ended counts a recipient that is delivered, bounced or expired. took is how long that
	// was after the message was accepted, or was to be sent; zero where it is not known.
	Ended(s State, p mailer.Priority, took time.Duration)
	// Panicked counts a delivery that panicked.
	Panicked()
}

// unmetered counts nothing.
type unmetered struct{}

func (unmetered) Accepted(string, string, mailer.Priority)    {}
func (unmetered) Refused(error)                               {}
func (unmetered) Tried([]mailer.Attempt)                      {}
func (unmetered) Ended(State, mailer.Priority, time.Duration) {}
func (unmetered) Panicked()                                   {}

// countEnded counts the recipients that an outcome ends.
func countEnded(m Meter, o pendingOutcome) {
	for _, c := range o.Changes {
		if c.State == Delivered || c.State == Bounced || c.State == Expired {
			m.Ended(c.State, o.job.Envelope.Priority, o.At.Sub(o.job.Since))
		}
	}
}

// countVerdicts counts a message that no store has.
func (d *Direct) countVerdicts(m Message, door string) {
	d.meter.Tried(asked(m.Attempts))
	accepted := false
	for _, r := range m.Recipients {
		if r.State == Delivered || r.State == Bounced {
			d.meter.Ended(r.State, m.Envelope.Priority, time.Since(m.Created))
		}
		accepted = accepted || r.State == Delivered
	}
	if accepted {
		d.meter.Accepted(m.Key, door, m.Envelope.Priority)
	}
}

// asked leaves out the attempt that stands for relays which are paused, see notAsked: they
// saw nothing of the message.
func asked(attempts []mailer.Attempt) []mailer.Attempt {
	return slices.DeleteFunc(slices.Clone(attempts), func(a mailer.Attempt) bool {
		return slices.ContainsFunc(a.Results, func(r mailer.Result) bool { return r.Failure != nil && isPaused(r.Failure) })
	})
}
