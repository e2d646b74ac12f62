package dispatch

import (
	"slices"
	"time"
)

// A job that may make the service crash goes out alone, so that a crash can be blamed on
// it: nothing begins beside it. For the first of those that wait the others are stopped,
// and it begins when they are over, or have shown for [AloneTime] that they do no harm.
// After it has ended, or shown the same, the others have a turn: for as long as they were
// stopped.
type suspects struct {
	waiting []*Job
	alone   *Job      // in flight, and nothing begins beside it
	since   time.Time // when the others were stopped; zero: they are not
	until   time.Time // the others' turn
}

const (
	// AloneTime is how long a delivery goes on before it is taken for harmless.
	AloneTime = 10 * time.Second
	// shortestTurn and longestTurn limit the others' turn. The longest one counts when
	// the clock was set forward meanwhile.
	shortestTurn = 20 * time.Millisecond
	longestTurn  = 2 * AloneTime
)

// stopped says that no other delivery may begin.
func (s *suspects) stopped() bool { return s.alone != nil || !s.since.IsZero() }

// harmless is when what was in flight when the others were stopped has shown that it does
// no harm.
func (s *suspects) harmless() time.Time {
	if s.since.IsZero() {
		return s.since
	}
	return s.since.Add(AloneTime)
}

// shift moves the times by that much, after the clock did.
func (s *suspects) shift(by time.Duration) {
	if !s.since.IsZero() {
		s.since = s.since.Add(by)
	}
	s.until = s.until.Add(by)
}

// dispatchAlone begins the first suspect whose relays take it, when its time has come.
func (d *Dispatcher) dispatchAlone(now time.Time, o *Orders) {
	s := &d.suspects
	if !d.running || d.stuck || s.alone != nil {
		return
	}
	i := slices.IndexFunc(s.waiting, func(j *Job) bool { return d.group(j.Route).openFor(j, now) })
	switch {
	case i < 0:
		if s.stopped() {
			s.since = time.Time{}
			d.tickAt(now) // the others may begin
		}
		d.awaitAlone(now)
	case now.Before(s.until):
		d.tickAt(s.until)
	case s.since.IsZero() && len(d.inFlight) > 0:
		s.since = now
		d.tickAt(s.harmless())
	case len(d.inFlight) > 0 && now.Before(s.harmless()):
		d.tickAt(s.harmless())
	default:
		if s.since.IsZero() {
			s.since = now
		}
		s.alone = s.waiting[i]
		s.waiting = slices.Delete(s.waiting, i, i+1)
		o.Begin = append(o.Begin, s.alone)
		d.beginAlone(s.alone, now)
		if d.inFlight[s.alone].at.probedBy(s.alone) {
			for _, g := range d.groups {
				d.evict(g, now, o)
			}
		}
	}
}

// awaitAlone sees to it that Tick is called when a relay may take one of the suspects.
func (d *Dispatcher) awaitAlone(now time.Time) {
	for _, j := range d.suspects.waiting {
		for _, r := range d.group(j.Route).relays {
			if opens := latest(r.opens(j.Lane.Priority), r.blame.opens(j)); opens.After(now) {
				d.tickAt(opens)
			}
		}
	}
}

// beginAlone puts a suspect in flight.
func (d *Dispatcher) beginAlone(j *Job, now time.Time) {
	g := d.group(j.Route)
	r := g.relayFor(j, now)
	f := flight{at: r, why: g.why(r, j, now)}
	if r.pause.failures == 0 {
		g.deal(r, j, now, func(*health) bool { return true })
	}
	f.probe = r.begin(j, now)
	d.inFlight[j] = f
	g.count(f, 1)
	g.line(j.Lane).inFlight++
	d.loaded += d.memoryCost(j.Size)
}

// Harmless says that a suspect has been in flight for [AloneTime]. The others go on.
func (d *Dispatcher) Harmless(j *Job, now time.Time) Orders {
	d.endAlone(j, now)
	return d.dispatchAll(now)
}

// endAlone lets the others go on when j is the suspect that is in flight alone.
func (d *Dispatcher) endAlone(j *Job, now time.Time) {
	if s := &d.suspects; s.alone == j {
		s.until = now.Add(min(max(now.Sub(s.since), shortestTurn), longestTurn))
		s.alone, s.since = nil, time.Time{}
	}
}
