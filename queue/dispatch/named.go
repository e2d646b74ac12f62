package dispatch

import (
	"time"

	"mailsidecar/mailer"
)

// Named keeps the pauses of one relay whose end a reply named, for a caller that stores
// nothing and asks a relay for each message. Other trouble of the relay pauses nothing: it
// may be over with the next message. As a [Dispatcher] it is a value without lock or clock.
type Named struct{ health health }

// NewNamed returns that of the relay with this name.
func NewNamed(name string) *Named { return &Named{health{name: name}} }

// Open says whether the relay may be asked. At the end of a pause one message is a probe,
// and until it is done the relay is not open; while that hangs, another one follows.
func (n *Named) Open(now time.Time) bool { return n.Reason(now) == nil }

// Reason returns the failure of the message that the relay has refused, while it may not
// be asked, with Until as it is by now; else nil.
func (n *Named) Reason(now time.Time) *mailer.Failure {
	n.bound(now)
	opens := n.health.pause.opens()
	if !now.Before(opens) {
		return nil
	}
	f := *n.health.reason
	f.Until, f.Err = opens, &mailer.PauseError{Until: opens, Err: f.Err}
	return &f
}

// bound ends a pause that is longer than any: the clock was set back.
func (n *Named) bound(now time.Time) {
	if n.health.pause.until.Sub(now) > longestNamed+time.Second {
		n.health.pause.until = now
	}
}

// Begin notes that a message goes to the relay, which is open.
func (n *Named) Begin(j *Job, now time.Time) { n.health.begin(j, now) }

// End notes what became of it. What has changed is for the log; ofMessage says that a
// failure which reads as the relay's is the message's own.
func (n *Named) End(j *Job, a mailer.Attempt, now time.Time) (news *News, ofMessage bool) {
	f, _ := Trouble(a)
	if f != nil && !accepted(a) && (f.Scope() != mailer.ScopeRelay || NotAsked(f) || namedEnd(f, now).IsZero()) {
		n.health.end(j)
		return nil, false
	}
	v := n.health.report(j, a, now, 0.5)
	return n.health.news(j, v), v.ofMessage
}

// Paused returns the pause, where there is one.
func (n *Named) Paused() (p Pause, ok bool) { return n.health.shown(), n.health.pause.failures > 0 }

// Resume ends the pause of a relay that works, as [Dispatcher.Resume] does.
func (n *Named) Resume(now time.Time) *News {
	h := &n.health
	switch {
	case h.pause.failures == 0:
		return nil
	case h.refusesMail():
		h.pause.ask(h.unpausedAt(now))
		return nil
	}
	h.resume()
	return &News{Resumed: true, Pause: h.shown()}
}
