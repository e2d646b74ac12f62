package relay

import (
	"fmt"
	"time"
)

// Stop is a time in which the relay refuses all mail at a stage, as a relay does whose
// quota is used up.
type Stop struct {
	Span
	Stage Stage
	// Known says that the reply is one of those whose meaning is known. Else only what
	// other mail meets can tell what it means, and by its code the mail bounces.
	Known bool
	// Wait is how long the known reply says to wait; zero: it does not say.
	Wait time.Duration
}

// stopped returns the stop at a stage; nil when there is none.
func (r *Relay) stopped(stage Stage) *Stop {
	at := time.Since(r.began)
	for i, s := range r.opts.Stops {
		if s.Stage == stage && s.holds(at) && !r.calm.Load() {
			return &r.opts.Stops[i]
		}
	}
	return nil
}

// reply returns what the relay says, in place of another reply.
func (s *Stop) reply(to reply) reply {
	to.code = 550
	switch {
	case !s.Known:
		to.enhanced, to.text = "5.7.1", "Sending is over for today. "
	case s.Wait > 0:
		to.enhanced, to.text = "5.4.5", fmt.Sprintf("Daily user sending limit exceeded, try again in %.0f seconds. ", s.Wait.Seconds())
	default:
		to.enhanced, to.text = "5.4.5", "Daily user sending limit exceeded. "
	}
	return to
}
