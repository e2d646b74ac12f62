package dispatch

import (
	"errors"
	"slices"
	"time"

	"mailsidecar/mailer"
)

// health is how a relay fares. In trouble it is paused.
type health struct {
	name   string
	useful int // deliveries at a time that it can make use of
	pause  pause
	manual ManualPause     // beside it
	reason *mailer.Failure // of the last trouble
	blame  blame
	// restsUntil is until when the rate is used up for mail of each level,
	// whether the relay fares well or not.
	restsUntil [levels]time.Time
	// key is the first API key that had mail for the relay, and severalKeys says that
	// another had since.
	key         *string
	severalKeys bool
	taken       int // attempts in which it took mail
}

// Pause says that a relay is in trouble.
type Pause struct {
	Relay    string
	Failures int             // in a row
	Since    time.Time       // when the first of them was, whatever each is about
	Until    time.Time       // may have passed: then a probe is due or under way
	Reason   *mailer.Failure // of the last one
}

// News is what changed for a relay, for the log.
type News struct {
	Paused  bool // Pause says for how long
	Resumed bool
	Pause   Pause
	// SenderRests says that ReversePath rests at the relay until SenderUntil because
	// of Reason, and SenderResumed that it does not any more.
	SenderRests, SenderResumed bool
	ReversePath                string
	SenderUntil                time.Time
	Reason                     *mailer.Failure
	// RateUsedUp says that the rate is used up for mail of Priority until
	// RestsUntil, after it had not been for a while.
	RateUsedUp bool
	Priority   mailer.Priority
	RestsUntil time.Time
}

func (h *health) shown() Pause {
	return Pause{h.name, h.pause.failures, h.pause.since, h.pause.until, h.reason}
}

// opens is when a delivery of priority p may be given to the relay, as far as is
// known now.
func (h *health) opens(p mailer.Priority) time.Time {
	return latest(latest(h.restsUntil[level(p)], h.pause.opens()), h.manual.Opens())
}

// open says whether a delivery of priority p may be given to the relay.
func (h *health) open(p mailer.Priority, now time.Time) bool { return !now.Before(h.opens(p)) }

// openFor says whether the delivery of a job may be given to the relay.
func (h *health) openFor(j *Job, now time.Time) bool {
	return h.open(j.Lane.Priority, now) && !now.Before(h.blame.opens(j))
}

// sees notes that an API key has mail for the relay. Where the relay rests because of how
// mail of one key was refused, which was all mail that there was, the first message of
// another key is a probe at once.
func (h *health) sees(key string, now time.Time) {
	if h.key == nil {
		h.key = &key
	}
	if h.severalKeys || *h.key == key {
		return
	}
	h.severalKeys = true
	if h.pause.failures > 0 && isAlike(h.reason) {
		h.pause.until = earliest(h.pause.until, now)
	}
}

// begin notes that a delivery goes through, and says whether it is a probe of the
// relay.
func (h *health) begin(j *Job, now time.Time) bool {
	h.sees(j.Lane.Key, now)
	h.blame.begin(j, now)
	return h.pause.begin(j, now)
}

// end notes that a delivery is over, and says whether it was a probe of the relay or
// of its reverse-path.
func (h *health) end(j *Job) bool {
	relay, sender := h.pause.end(j), h.blame.end(j)
	return relay || sender
}

// probedBy says whether a delivery is a probe of the relay or of its reverse-path.
func (h *health) probedBy(j *Job) bool {
	s := h.blame.sender(j.ReversePath)
	return h.pause.probedBy(j) || s != nil && s.pause.probedBy(j)
}

// verdict is what a report changed.
type verdict struct {
	paused, resumed            bool // the relay
	senderRests, senderResumed bool // the job's reverse-path
	probed                     bool // it was a probe, for which other mail waits
	ofMessage                  bool // the failure reads as the relay's, and is the message's own
}

// report notes what an attempt at a job says of the relay.
func (h *health) report(j *Job, a mailer.Attempt, now time.Time, random float64) (v verdict) {
	probe, senderProbe := h.pause.end(j), h.blame.end(j)
	f, judged := Trouble(a)
	switch {
	case f == nil && judged, accepted(a):
		if accepted(a) {
			h.took(j)
		}
		if v.resumed = h.pause.failures > 0 && h.proves(a, probe); v.resumed || h.pause.failures == 0 {
			h.resume()
		}
		v.senderResumed = h.blame.forgive(j)
	case f == nil:
	case f.Scope() == mailer.ScopeRelay && f.Stage >= mailer.StageMail && !NotAsked(f) && h.refusedBefore(j):
		v.ofMessage = true
	case f.Scope() == mailer.ScopeRelay:
		v.paused = h.failed(f, probe, now, random)
	default:
		v = h.blamed(j, f, probe, senderProbe, now, random)
	}
	v.probed = probe || senderProbe
	return v
}

// refusedBefore notes that a message met a refusal of all mail, such as for a quota. It
// reports whether one of its recipients, its reverse-path or itself had met one before,
// and the relay has since taken mail, but none of the same: then that is what it refuses,
// whatever the words say. Else what is misread would pause the relay again and again.
func (h *health) refusedBefore(j *Job) bool {
	since := func(nth int) bool { return nth > 0 && nth <= h.taken }
	again := slices.ContainsFunc(h.blame.met, func(m meeting) bool {
		return m.id == j.ID && since(m.all.message) || m.reversePath == j.ReversePath && since(m.all.from) || since(m.all.to) && m.sharesRecipient(j)
	})
	h.blame.meet(j, false, false)
	h.blame.meeting(j.ID).all = allRefused{h.taken + 1, h.taken + 1, h.taken + 1}
	return again
}

// took notes that the relay took a job's mail.
func (h *health) took(j *Job) {
	h.taken++
	for i := range h.blame.met {
		m := &h.blame.met[i]
		if m.reversePath == j.ReversePath {
			m.all.from = 0
		}
		if m.all.to > 0 && m.sharesRecipient(j) {
			m.all.to = 0
		}
	}
}

// proves reports whether an attempt at which the relay gave its verdict on mail shows
// that the pause is over.
func (h *health) proves(a mailer.Attempt, probe bool) bool {
	switch {
	case !h.refusesMail():
		return true
	case accepted(a) && isAlike(h.reason):
		return true // its words mean no more than what they are said of
	case !probe:
		return false // it began before the pause
	default:
		return accepted(a) || slices.ContainsFunc(a.Results, func(r mailer.Result) bool { return r.Failure.Stage > h.reason.Stage })
	}
}

// refusesMail says that the relay is paused because it refuses all mail, such as for a
// quota: a connection and a login prove nothing then.
func (h *health) refusesMail() bool {
	return h.pause.failures > 0 && h.reason.Stage >= mailer.StageMail && (h.reason.Scope() == mailer.ScopeRelay || isAlike(h.reason))
}

// failed notes a failure of the relay, and says whether the relay is paused for it.
func (h *health) failed(f *mailer.Failure, probe bool, now time.Time, random float64) bool {
	told := namedEnd(f, now)
	named := latest(nextLogin(f), told)
	if h.pause.failures > 0 && !probe {
		// It began before the pause: the same trouble, not once more.
		if told.After(h.pause.until) {
			h.reason = f
		}
		longer := named.Sub(h.pause.until)
		h.pause.until = latest(h.pause.until, named)
		return longer > newsAfter
	}
	if h.pause.failures > 0 && isOther(h.reason, f) {
		h.pause.failures = 0
	}
	h.reason = f
	if f.Stage == mailer.StageAuth {
		h.pause.cut = time.Time{} // a login that a person asks for counts: providers lock accounts
	}
	h.pause.fail(named, now, func(failures int) time.Duration {
		return pauseDelay(failures, f.Stage == mailer.StageAuth && loginError(f) == nil, random)
	})
	return true
}

// isOther reports whether two failures in a row are about something else, so that the
// pauses begin anew with the second: mail is refused, or the relay is not reached.
func isOther(before, after *mailer.Failure) bool {
	return before.Scope() != mailer.ScopeRelay || (before.Stage >= mailer.StageMail) != (after.Stage >= mailer.StageMail)
}

func (h *health) resume() {
	h.pause.lift()
	h.reason, h.blame.row = nil, nil
}

// newsAfter is how long a relay must have been open since its rate was used up
// for the next time to be news: under a backlog one follows on the other.
const newsAfter = time.Minute

// holdForRate records that the relay's rate is used up until then for mail of
// priority p, and for all that is less urgent. wasOpen says that the rate was not
// used up before, and worthLogging that it had not been for a while.
func (h *health) holdForRate(until time.Time, p mailer.Priority, now time.Time) (wasOpen, worthLogging bool) {
	own := level(p)
	wasOpen, worthLogging = !now.Before(h.restsUntil[own]), now.Sub(h.restsUntil[own]) > newsAfter
	h.restsUntil[own] = until
	for lower := own + 1; lower < levels; lower++ {
		h.restsUntil[lower] = latest(h.restsUntil[lower], until)
	}
	return wasOpen, worthLogging
}

// Trouble returns the failure in a that is about the relay; nil when there is
// none. judged says that the relay gave its verdict on some recipient.
func Trouble(a mailer.Attempt) (f *mailer.Failure, judged bool) {
	for _, r := range a.Results {
		if aboutRelay(r.Failure) {
			return r.Failure, false
		}
		judged = judged || r.Failure == nil || r.Failure.Reply.Code != 0
	}
	return nil, judged
}

// accepted says that the relay took the message for some recipient, in one of its
// transactions.
func accepted(a mailer.Attempt) bool {
	return slices.ContainsFunc(a.Results, func(r mailer.Result) bool { return r.Failure == nil })
}

// aboutRelay says that the next message may fare no better: the relay was not
// reached or refused us, or the dialogue broke.
func aboutRelay(f *mailer.Failure) bool { return f != nil && f.Scope() != mailer.ScopeMessage }

// UsedUp returns what a failure says of the relay's rate; nil when it says
// nothing.
func UsedUp(f *mailer.Failure) *mailer.RateError {
	var rate *mailer.RateError
	if f != nil && errors.As(f.Err, &rate) {
		return rate
	}
	return nil
}

// earliest ignores a zero time.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Take says whether the delivery of a job may be given to a relay. When it may, an
// attempt begins, which ends with Report.
func (d *Dispatcher) Take(relay int, j *Job, now time.Time) (taken bool, o Orders) {
	h := d.relays[relay]
	if h.manual.Over(now) && h.promised(j) || h.openFor(j, now) {
		return true, d.move(j, h, now)
	}
	return false, o
}

// promised says that the relay may have the job, which was picked as a probe.
func (h *health) promised(j *Job) bool {
	s := h.blame.sender(j.ReversePath)
	return h.pause.probedBy(j) || h.pause.failures == 0 && s != nil && s.pause.probedBy(j)
}

// Report says how a relay fared with a job. What waits in memory for a relay that
// is paused goes back to the store. random, in [0, 1), keeps pauses apart.
func (d *Dispatcher) Report(relay int, j *Job, a mailer.Attempt, now time.Time, random float64) Orders {
	h, p := d.relays[relay], j.Lane.Priority
	var wasOpen, worthLogging bool
	if at := usedUp(a); at != nil {
		wasOpen, worthLogging = h.holdForRate(at.At.UTC().Truncate(time.Microsecond), p, now)
	}
	v := h.report(j, a, now, random)
	var o Orders
	for _, g := range d.groups {
		if !slices.Contains(g.relays, h) {
			continue
		}
		if v.paused || v.senderRests || wasOpen {
			d.evict(g, now, &o)
		}
		if v.paused || wasOpen {
			o.shut(g, now)
		}
		if v.resumed {
			g.probes = 0
		}
		d.dispatch(g, now, &o)
	}
	switch {
	case v.paused:
		d.lookAt(h.pause.until)
	case v.resumed, v.probed:
		d.lookAt(now)
	case wasOpen:
		d.lookAt(h.restsUntil[level(p)])
	}
	o.OfMessage = v.ofMessage
	o.News = h.news(j, v)
	if worthLogging && d.running {
		if o.News == nil {
			o.News = &News{Pause: h.shown()}
		}
		o.News.RateUsedUp, o.News.Priority, o.News.RestsUntil = true, p, h.restsUntil[level(p)]
	}
	return o
}

// news returns what a verdict changed; nil when it changed nothing.
func (h *health) news(j *Job, v verdict) *News {
	if !v.paused && !v.resumed && !v.senderRests && !v.senderResumed {
		return nil
	}
	n := &News{Paused: v.paused, Resumed: v.resumed, Pause: h.shown(), SenderResumed: v.senderResumed, ReversePath: j.ReversePath}
	if s := h.blame.sender(j.ReversePath); v.senderRests {
		n.SenderRests, n.SenderUntil, n.Reason = true, s.pause.until, s.reason
	}
	return n
}

// usedUp returns what the attempt says of the relay's rate.
func usedUp(a mailer.Attempt) *mailer.RateError {
	for _, r := range a.Results {
		if rate := UsedUp(r.Failure); rate != nil {
			return rate
		}
	}
	return nil
}

// Open says whether a relay of the route takes mail of priority p from a
// reverse-path. An unknown route is open.
func (d *Dispatcher) Open(route string, p mailer.Priority, reversePath string, now time.Time) bool {
	g := d.group(route)
	return g == nil || g.openFor(&Job{Lane: Lane{Priority: p}, ReversePath: reversePath}, now)
}

// Reopens is when the route's mail of priority p can go out again, as far as
// pauses and rates go; zero when it is not held up by them. The time has passed
// where a probe is under way.
func (d *Dispatcher) Reopens(route string, p mailer.Priority, now time.Time) (t time.Time) {
	g := d.group(route)
	if g == nil || g.open(p, now) {
		return time.Time{}
	}
	for _, r := range g.relays {
		t = earliest(t, latest(latest(r.pause.until, r.restsUntil[level(p)]), r.manual.Opens()))
	}
	return t
}

// Pauses lists the relays that are in trouble.
func (d *Dispatcher) Pauses() []Pause {
	var pauses []Pause
	for _, h := range d.relays {
		if h.pause.failures > 0 {
			pauses = append(pauses, h.shown())
		}
	}
	return pauses
}

// Unpause ends the pauses of the route's relays, except for refused logins: one
// delivery goes through as a probe, and what it meets decides how it goes on. A probe that
// fails makes no pause longer than it would have been without.
func (d *Dispatcher) Unpause(route string, now time.Time) {
	if g := d.group(route); g != nil {
		for _, h := range g.relays {
			h.pause.ask(h.unpausedAt(now))
			for _, s := range h.blame.senders {
				s.pause.ask(now)
			}
		}
	}
}

// Resume ends the pause of a relay that works: a check of it went well. A pause because
// the relay refuses mail ends with one delivery as a probe, as after Unpause: a check
// sends none.
func (d *Dispatcher) Resume(relay int, now time.Time) Orders {
	h := d.relays[relay]
	if h.pause.failures == 0 {
		return Orders{}
	}
	if h.refusesMail() {
		h.pause.ask(h.unpausedAt(now))
		d.lookAt(h.pause.until)
		return d.dispatchAll(now)
	}
	h.resume()
	d.lookAt(now)
	o := d.dispatchAll(now)
	o.News = &News{Resumed: true, Pause: h.shown()}
	return o
}

// Shift moves the ends of pauses and rests by that much, after the clock did.
func (d *Dispatcher) Shift(by time.Duration) {
	d.suspects.shift(by)
	for _, h := range d.relays {
		h.pause.shift(by)
		for _, s := range h.blame.senders {
			s.pause.shift(by)
			s.slot = s.slot.Add(by)
		}
		for i, rests := range h.restsUntil {
			if !rests.IsZero() {
				h.restsUntil[i] = rests.Add(by)
			}
		}
	}
}
