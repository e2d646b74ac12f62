package dispatch

import (
	"slices"
	"time"
)

// Waiting is what waits in the store.
type Waiting struct {
	// Lanes come by route, on a route those of higher priority first.
	Lanes  []LaneDue
	Expiry time.Time // when the next message expires; zero: none does
}

// LaneDue is when the first recipient that waits in a lane is due.
type LaneDue struct {
	Route string
	Lane  Lane
	At    time.Time
}

// Want is how many messages of a lane are to be claimed.
type Want struct {
	Route string
	Lane  Lane
	Limit int
}

const (
	// storeTrouble is when to look again after the store failed.
	storeTrouble = 5 * time.Second
	// strayLimit is how many messages are claimed at a time from a lane of a
	// route that is no longer configured, to be filed under the one that is.
	strayLimit = 500
	// leastShare is how many messages of a lane are claimed however many lanes
	// there are.
	leastShare = 4
)

// probeRoom is how many messages are claimed to choose the probe among.
func probeRoom(choose bool) int {
	if choose {
		return restBatch
	}
	return 1
}

// claimAhead is how many messages of a group are claimed ahead of the workers.
func (d *Dispatcher) claimAhead() int { return 4 * d.opts.Workers }

// Wake is when Tick must be called; zero when another event comes first.
func (d *Dispatcher) Wake() time.Time { return earliest(d.wake, d.tick) }

// LookAt makes the caller look at the store at t or before.
func (d *Dispatcher) LookAt(t time.Time) { d.lookAt(t) }

func (d *Dispatcher) lookAt(t time.Time) { d.wake = earliest(d.wake, t) }

// Look begins a look at the store, and ends with Looked or LookFailed. expire
// says that messages must be expired first.
func (d *Dispatcher) Look(now time.Time) (expire bool) {
	expire = !d.expiry.IsZero() && !now.Before(d.expiry)
	if expire {
		d.expiry = time.Time{}
	}
	d.wake = time.Time{}
	return expire
}

// LookFailed says that the store could not be read.
func (d *Dispatcher) LookFailed(now time.Time) {
	d.expiry = earliest(d.expiry, now)
	d.lookAt(now.Add(storeTrouble))
}

// Looked takes what waits in the store and returns what must be claimed. What
// was claimed comes with Claimed.
func (d *Dispatcher) Looked(w Waiting, now time.Time) ([]Want, Orders) {
	d.expiry = earliest(d.expiry, w.Expiry)
	d.wake = earliest(d.wake, d.expiry)
	due := map[string]int{} // lanes, by route
	for _, l := range w.Lanes {
		if !l.At.After(now) {
			due[l.Route]++
		}
	}
	o := d.dispatchAll(now)
	var wants []Want
	probes := make([][]Want, len(d.groups))
	for _, l := range w.Lanes {
		want := Want{l.Route, l.Lane, d.claimable(l, due[l.Route], now)}
		switch g := d.group(l.Route); {
		case want.Limit == 0:
		case g == nil || g.sound():
			wants = append(wants, want)
		default:
			i := slices.Index(d.groups, g)
			probes[i] = append(probes[i], want)
		}
	}
	for i, candidates := range probes {
		if len(candidates) == 0 {
			continue
		}
		// The lanes take turns, for it may be a message that makes the trouble.
		g := d.groups[i]
		for n := range min(len(candidates), probeRoom(g.resting())) {
			want := candidates[(g.probes+n)%len(candidates)]
			want.Limit = max(want.Limit/len(candidates), 1)
			wants = append(wants, want)
		}
		g.probes++
	}
	return wants, o
}

// claimable returns how many messages may be claimed of a lane, which is one of so
// many lanes that have something due on its route. If it returns zero, it has set the
// time of a further look, unless an event leads to one.
func (d *Dispatcher) claimable(due LaneDue, lanes int, now time.Time) int {
	g, p := d.group(due.Route), due.Lane.Priority
	switch {
	case d.stuck:
		d.lookAt(now.Add(storeTrouble))
		return 0
	case g != nil && !g.open(p, now):
		d.lookAt(latest(g.reopens(p), due.At))
		return 0
	case due.At.After(now):
		d.lookAt(due.At)
		return 0
	case g == nil:
		return strayLimit
	}
	l, limit := g.line(due.Lane), 0
	switch {
	case g.sound():
		l.share = max(d.claimAhead()/lanes, leastShare)
		if limit = l.share - len(l.claimed); limit < l.share/2 { // not worth a commit
			limit = 0
		}
	case l.waiting() == 0:
		limit = probeRoom(g.resting())
	}
	l.backlog = limit == 0
	return limit
}

// Claimed takes the jobs that were claimed, whose routes are known.
func (d *Dispatcher) Claimed(jobs []*Job, now time.Time) Orders {
	var o Orders
	for _, j := range jobs {
		g := d.group(j.Route)
		switch {
		case !d.running:
			o.Release = append(o.Release, j)
		case !g.openFor(j, now):
			d.turnAway(g, j, now, &o)
		default:
			d.add(g, j)
		}
	}
	// Not before all lanes have theirs.
	for _, g := range d.groups {
		d.dispatch(g, now, &o)
	}
	return o
}

// Waits says that a message of a lane waits in the store, and is due and expires
// at those times.
func (d *Dispatcher) Waits(route string, lane Lane, due, expires, now time.Time) {
	d.expiry = earliest(d.expiry, expires)
	d.lookAt(expires)
	g := d.group(route)
	switch {
	case g != nil && !g.open(lane.Priority, now):
		due = latest(due, g.reopens(lane.Priority))
	case !due.After(now):
		if g == nil {
			d.lookAt(now)
			return
		}
		l := g.line(lane)
		l.backlog = true
		if l.low() {
			d.lookAt(now)
		}
		return
	}
	d.lookAt(due)
}

// Released says that the leases of jobs were given back: they wait in the store
// again.
func (d *Dispatcher) Released(jobs []*Job, now time.Time) {
	for _, j := range jobs {
		d.expiry = earliest(d.expiry, j.Expires)
	}
	d.lookAt(now)
}

// Reserve says whether a new message that is due now keeps its content in memory
// for a worker. When it does, its octets count until Stored or NotStored.
func (d *Dispatcher) Reserve(j *Job, now time.Time) bool {
	g := d.group(j.Route)
	for _, r := range g.relays {
		r.sees(j.Lane.Key, now)
	}
	l, cost := g.line(j.Lane), d.memoryCost(j.Size)
	if !d.running || !g.openFor(j, now) || !d.fits(d.fresh, cost, l.waiting()+l.storing == 0) {
		return false
	}
	d.fresh += cost
	l.storing++
	return true
}

// Stored puts jobs that were reserved, and are stored with their leases, in
// line.
func (d *Dispatcher) Stored(jobs []*Job, now time.Time) Orders {
	for _, j := range jobs {
		d.group(j.Route).line(j.Lane).storing--
	}
	var o Orders
	for _, j := range jobs {
		g := d.group(j.Route)
		if !g.openFor(j, now) { // paused since
			d.fresh -= d.memoryCost(j.Size)
			d.turnAway(g, j, now, &o)
			continue
		}
		d.add(g, j)
	}
	for _, g := range d.groups {
		d.dispatch(g, now, &o)
	}
	return o
}

// NotStored gives back what was reserved for jobs.
func (d *Dispatcher) NotStored(jobs []*Job) {
	for _, j := range jobs {
		d.fresh -= d.memoryCost(j.Size)
		d.group(j.Route).line(j.Lane).storing--
	}
}
