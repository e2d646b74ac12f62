package smtp

import "time"

const (
	// perConnection is how many deliveries keep a connection at work: one waits
	// for the relay's verdict, one has its envelope sent meanwhile, and one comes
	// next.
	perConnection = 3
	// turnsAhead is how far off a turn may be that a delivery waits for.
	turnsAhead = 4 * time.Second
	// leastUseful are waiting for their turn though it may be long to come, so
	// that none is missed.
	leastUseful = 2
)

// Useful is how many deliveries the relay can make use of at a time, as things
// are: three for each connection that it gets, but where its rate is what holds
// mail up, only those that have a connection and those whose turn comes within
// four seconds. More would stand in line here, and what is more urgent, or
// somebody else's, behind them.
func (r *Relay) Useful() int {
	p := &r.pool
	p.mu.Lock()
	most, busy := perConnection*p.window.limit, p.places-len(p.idle)
	p.mu.Unlock()
	if r.pace.rate.Messages == 0 {
		return most
	}
	return min(most, max(leastUseful, busy+r.pace.turns(time.Now().Add(turnsAhead), most)))
}

// turns counts the turns that come until then, up to most of them: those of mail
// that is not of high priority, for which the queue keeps workers.
func (p *pace) turns(until time.Time, most int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, at := departures{p.sent, make([]time.Time, 0, most)}, time.Now()
	for len(d.foreseen) < most {
		if at = p.rate.spread(d, at); at.After(until) {
			break
		}
		d.foreseen = append(d.foreseen, at)
	}
	return len(d.foreseen)
}
