package dispatch

import (
	"slices"
	"time"
)

// pause keeps mail away for a while after a failure, longer each time. When it is
// over, one delivery goes through as a probe, and all other mail waits for what
// becomes of it. A probe may hang: then another follows after a while.
type pause struct {
	failures int       // in a row; zero: there is no pause
	since    time.Time // when the first failure was, also of another kind; zero: there is no pause
	until    time.Time
	probes   []probe // under way, in the order in which they began
	// cut is when the pause would have ended, had no person asked for a probe before; zero: nobody has.
	cut time.Time
}

// probe is a delivery that decides whether a pause goes on. A delivery that began
// before the pause is none.
type probe struct {
	job   *Job
	since time.Time
}

// probePatience is how long probes may be under way before another begins.
var probePatience = Backoff{First: 30 * time.Second, Longest: 5 * time.Minute}

// opens is when the next delivery may go through; zero when there is no pause.
func (p *pause) opens() time.Time {
	if p.failures == 0 {
		return time.Time{}
	}
	if n := len(p.probes); n > 0 {
		return latest(p.until, p.probes[n-1].since.Add(probePatience.Delay(n, 0.5)))
	}
	return p.until
}

// begin notes that a delivery goes through, and says whether it is a probe.
func (p *pause) begin(j *Job, now time.Time) bool {
	if p.failures == 0 {
		return false
	}
	if !p.probedBy(j) {
		p.probes = append(p.probes, probe{j, now})
	}
	return true
}

func (p *pause) probedBy(j *Job) bool {
	return slices.ContainsFunc(p.probes, func(p probe) bool { return p.job == j })
}

// end notes that a delivery is over, and says whether it was a probe.
func (p *pause) end(j *Job) bool {
	n := len(p.probes)
	p.probes = slices.DeleteFunc(p.probes, func(p probe) bool { return p.job == j })
	return len(p.probes) < n
}

// ask ends the pause early, with a probe that a person wants.
func (p *pause) ask(at time.Time) {
	if p.failures > 0 && at.Before(p.until) {
		p.cut, p.until = latest(p.cut, p.until), at
	}
}

// fail pauses once more: until the end that is named, and where none is, for the delay after so many failures.
// A probe that a person asked for does not make it longer: what comes by itself stays as it would have been.
func (p *pause) fail(named, now time.Time, delay func(failures int) time.Duration) {
	cut := p.cut
	p.cut = time.Time{}
	if p.since.IsZero() {
		p.since = now
	}
	if p.failures == 0 { // it begins, or begins anew with other trouble
		cut = time.Time{}
	}
	if cut.IsZero() {
		p.failures++
	}
	switch {
	case !named.IsZero():
		p.until = named
	case cut.After(now):
		p.until = cut
	default:
		p.until = now.Add(delay(p.failures))
	}
}

// lift ends the pause. What is under way is no probe any more.
func (p *pause) lift() { *p = pause{} }

// shift moves the times by that much, after the clock did.
func (p *pause) shift(by time.Duration) {
	if p.failures == 0 {
		return
	}
	p.since, p.until = p.since.Add(by), p.until.Add(by)
	if !p.cut.IsZero() {
		p.cut = p.cut.Add(by)
	}
	for i := range p.probes {
		p.probes[i].since = p.probes[i].since.Add(by)
	}
}
