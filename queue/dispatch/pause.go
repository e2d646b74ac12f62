package dispatch

import (
	"slices"
	"time"
)

// pause keeps mail away for a while after a failure, longer each time. When it is
// over, one delivery goes through as a probe, and all other mail waits for what
// becomes of it. A probe may hang: then another follows after a while.
type pause struct {
	failures int // in a row; zero: there is no pause
	until    time.Time
	probes   []probe // under way, in the order in which they began
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

// extend pauses once more, until then.
func (p *pause) extend(until time.Time) { p.failures, p.until = p.failures+1, until }

// lift ends the pause. What is under way is no probe any more.
func (p *pause) lift() { *p = pause{} }

// shift moves the times by that much, after the clock did.
func (p *pause) shift(by time.Duration) {
	if p.failures == 0 {
		return
	}
	p.until = p.until.Add(by)
	for i := range p.probes {
		p.probes[i].since = p.probes[i].since.Add(by)
	}
}
