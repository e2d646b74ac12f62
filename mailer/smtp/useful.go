package smtp

import "time"

const (
	// perConnection is the number of deliveries that keep a connection busy: one
	// waits for the verdict, one has its envelope sent already, and one is next.
	perConnection = 3
	// turnsAhead limits how far away a turn may be for a delivery to be of use.
	turnsAhead = 4 * time.Second
	// leastUseful is the number of deliveries that wait for a turn even if it is far
	// away, so that it is not missed.
	leastUseful = 2
)

// Useful returns how many concurrent deliveries the relay can use now: three for each
// connection within its limit. Where the rate limits it more, only those that have a
// connection and those whose turn comes within four seconds. More would wait in line
// here, and delay mail that is more urgent or belongs to another client.
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

// turns counts the turns that come before until, up to most of them: those of mail
// that is not of high priority, because the queue reserves workers for that.
func (p *pace) turns(until time.Time, most int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.shared != nil {
		return p.turnsShared(now, until, most)
	}
	d, at := p.departures(make([]time.Time, 0, most)), now
	for len(d.foreseen) < most {
		if at = p.rate.spread(d, now, at); at.After(until) {
			break
		}
		d.foreseen = append(d.foreseen, at)
	}
	return len(d.foreseen)
}
