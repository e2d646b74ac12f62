package dispatch

import (
	"slices"
	"strings"
	"time"
)

// Which relay of its group a job goes to: one of those that have a weight and take it, by
// their shares. Where none of these takes it, the first other one that does.

// choose is the relay that a job goes to next, if that one may have it; nil when none
// does.
func (g *group) choose(j *Job, now time.Time, may func(*health) bool) *health {
	weighted := false
	i := g.shares.Next(func(i int) bool {
		open := g.relays[i].openFor(j, now)
		weighted = weighted || open
		return open && may(g.relays[i])
	})
	if i >= 0 {
		return g.relays[i]
	}
	for i, r := range g.relays {
		if !weighted && !g.shares.Weighted(i) && r.openFor(j, now) {
			if may(r) {
				return r
			}
			break // the others are there for when it takes none
		}
	}
	return nil
}

// relayFor is the relay that a job goes to next, though it may be busy; nil when none
// takes it.
func (g *group) relayFor(j *Job, now time.Time) *health {
	return g.choose(j, now, func(*health) bool { return true })
}

// suits says whether a job may go to a relay in its turn.
func (g *group) suits(r *health, j *Job, now time.Time) bool {
	return r.openFor(j, now) && (g.shares.Weighted(slices.Index(g.relays, r)) || g.relayFor(j, now) == r)
}

// deal notes that a job goes to a relay, where others may have had it too.
func (g *group) deal(at *health, j *Job, now time.Time, may func(*health) bool) {
	if i := slices.Index(g.relays, at); g.shares.Weighted(i) {
		g.shares.Deal(i, func(i int) bool { return g.relays[i] == at || g.relays[i].openFor(j, now) && may(g.relays[i]) })
	}
}

// Words for why a relay was chosen; see [Dispatcher.Chosen].
const (
	WhyOnly     = "only"     // no other one may take the mail
	WhyFirst    = "first"    // it is preferred
	WhyWeight   = "weight"   // it was its turn
	WhyFailover = "failover" // those that are preferred took no mail
)

// PausedByOperator is why a relay takes no mail that a person has paused.
const PausedByOperator = "paused by an operator"

// why says why a job goes to a relay.
func (g *group) why(at *health, j *Job, now time.Time) string {
	i := slices.Index(g.relays, at)
	switch {
	case len(g.relays) == 1:
		return WhyOnly
	case g.shares.Weighted(i) && g.shares.Count() > 1:
		return WhyWeight
	}
	var passed []string
	for _, other := range g.shares.Order(i)[1:] {
		r := g.relays[other]
		if before := g.shares.Weighted(other) && !g.shares.Weighted(i) || other < i && g.shares.Weighted(other) == g.shares.Weighted(i); before {
			passed = append(passed, r.name+" "+r.shut(j, now))
		}
	}
	return Failover(passed)
}

// Failover says why a relay was chosen after those that were passed over, which are given
// with the reason.
func Failover(passed []string) string {
	if len(passed) == 0 {
		return WhyFirst
	}
	return WhyFailover + ": " + strings.Join(passed, ", ")
}

// shut says why a relay does not take a job.
func (h *health) shut(j *Job, now time.Time) string {
	switch {
	case !h.manual.Over(now):
		return PausedByOperator
	case h.pause.failures > 0:
		return "paused"
	case now.Before(h.restsUntil[level(j.Lane.Priority)]):
		return "at its rate"
	default:
		return "rests for this reverse-path"
	}
}

// Chosen returns the relays that a job in flight is to be given to, in order, the chosen
// one first, and why that is.
func (d *Dispatcher) Chosen(j *Job) (relays []int, why string) {
	g, f := d.group(j.Route), d.inFlight[j]
	for _, i := range g.shares.Order(slices.Index(g.relays, f.at)) {
		relays = append(relays, slices.Index(d.relays, g.relays[i]))
	}
	return relays, f.why
}

// Shut says why a relay does not take a job.
func (d *Dispatcher) Shut(relay int, j *Job, now time.Time) string {
	return d.relays[relay].shut(j, now)
}
