package queue

import (
	"errors"
	"time"

	"mailsidecar/mailer"
)

// decision holds what the outcome of attempts depends on, apart from them.
type decision struct {
	now  time.Time
	hold bool // uncertain recipients wait for a person
	// interrupted says that the service cut the attempt short because it stops.
	// Recipients that the relay did not judge were not tried.
	interrupted bool
	random      func() float64
}

// decide turns the attempts made on a message into a change for each leased
// recipient, and drops an attempt that was cut short before any verdict.
//
//	accepted                   delivered
//	permanent                  bounced
//	uncertain                  tried again on schedule at the same relay, or held
//	about the relay            waits for the relay; its schedule is not touched
//	421 before its transaction the same, after a short while, a few times
//	asks for less at a time    the same, after a short while, a few times
//	otherwise transient        tried again on schedule
//
// A recipient that has no time left for another try is expired.
func (d decision) decide(w Work, attempts []mailer.Attempt) ([]Change, []mailer.Attempt) {
	if d.interrupted && len(attempts) > 0 && cutShort(attempts[len(attempts)-1]) {
		attempts = attempts[:len(attempts)-1]
	}
	last, relays := map[string]*mailer.Result{}, map[string]string{}
	tried := map[string]int{}
	onSchedule := map[string]bool{}
	for _, a := range attempts {
		for i, r := range a.Results {
			last[r.ForwardPath], relays[r.ForwardPath] = &a.Results[i], a.Relay
			tried[r.ForwardPath]++
			onSchedule[r.ForwardPath] = onSchedule[r.ForwardPath] || r.Failure != nil && !aboutRelay(r.Failure)
		}
	}
	changes := make([]Change, len(w.Recipients))
	for i, l := range w.Recipients {
		l.Attempts += tried[l.ForwardPath]
		changes[i] = d.change(l, last[l.ForwardPath], onSchedule[l.ForwardPath], w.Expires)
		if r := last[l.ForwardPath]; r != nil && r.Failure != nil && r.Failure.Class == mailer.ClassUncertain {
			changes[i].Route = TakenRoute(relays[l.ForwardPath])
		}
	}
	return changes, attempts
}

// cutShort says that the relay judged nothing in a.
func cutShort(a mailer.Attempt) bool {
	for _, r := range a.Results {
		if r.Failure == nil || r.Failure.Reply.Code != 0 || r.Failure.Class == mailer.ClassUncertain || r.Failure.Class == mailer.ClassPermanent {
			return false
		}
	}
	return true
}

// aboutRelay says that a failure does not use up a recipient's schedule.
func aboutRelay(f *mailer.Failure) bool {
	return f.Class == mailer.ClassRelay || f.Scope() == mailer.ScopeRelay || errors.Is(f, mailer.ErrPushedBack)
}

// change decides on a recipient by its last result. onSchedule says that one of the
// relays tried may mean the message: it must not be asked again sooner because
// another one was not reached.
func (d decision) change(l Leased, r *mailer.Result, onSchedule bool, expires time.Time) Change {
	c := Change{ForwardPath: l.ForwardPath, Tries: l.Tries}
	switch {
	case r == nil && !d.now.Before(expires):
		c.State = Expired
		return c
	case r == nil:
		c.State, c.Next = l.State, d.now
		return c
	case r.Failure == nil:
		c.State = Delivered
		return c
	case r.Failure.Class == mailer.ClassPermanent:
		c.State = Bounced
		return c
	case r.Failure.Class == mailer.ClassUncertain && d.hold:
		c.State = Held
		return c
	}
	var delay time.Duration
	switch {
	case !onSchedule && r.Failure.Class == mailer.ClassRelay:
	case !onSchedule && l.Attempts-l.Tries <= quickTries:
		delay = troubleDelay(l.Attempts-l.Tries, d.random())
	default:
		c.Tries++
		delay = retry.Delay(c.Tries, d.random())
	}
	var ok bool
	if c.Next, ok = nextTry(d.now, expires, delay); !ok {
		c.State = Expired
		return c
	}
	c.State = Deferred
	return c
}
