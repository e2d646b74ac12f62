package queue

import (
	"slices"
	"time"

	"mailsidecar/mailer"
)

// What waits for a group of relays stands in lanes, one for each API key and
// priority, and is served by these rules:
//
//   - A higher priority goes first, but every ninth turn at the latest goes to a
//     lower one that waits.
//   - Within a priority the keys take turns, message by message.
//   - When every worker is busy, a few more are there for mail that is not bulk
//     and whose lane has not as many in hand. No more are busy than the relay can
//     make use of: what is in its hands has its place in line already.
//   - Each lane is claimed from the store by itself, and has room in memory of
//     its own, so that no backlog stands before another lane's mail.

// patience is how many messages of higher priority go before one that waits.
const patience = 8

// levels counts the priorities, the highest being level 0.
const levels = int(mailer.PriorityHigh-mailer.PriorityBulk) + 1

func level(p mailer.Priority) int { return int(mailer.PriorityHigh - p) }

func priorityAt(level int) mailer.Priority { return mailer.PriorityHigh - mailer.Priority(level) }

// lane is what waits in memory in one lane of a group. Durable.mu guards it.
type lane struct {
	Lane
	// fresh came from Submit and has its content, claimed came from the store
	// and has not. Workers take from both in turn, so that neither a backlog nor
	// a stream of new mail starves the other.
	fresh, claimed []*job
	turn           bool
	storing        int // of those that will be fresh
	inHand         int
	// backlog says that more is due in the store than there was room for, and
	// room how much that was.
	backlog bool
	room    int
}

func (l *lane) waiting() int { return len(l.fresh) + len(l.claimed) }

// low says that it is time to claim more.
func (l *lane) low() bool { return len(l.claimed) <= l.room/2 }

// group is the relays that a set of senders shares, in order of preference, and
// what waits for them in memory. Durable.mu guards it.
type group struct {
	route  string
	relays []*relay
	lanes  map[Lane]*lane
	// lines are the lanes of each level in which something waits, those that
	// were served last at the end.
	lines [levels][]*lane
	// passed is how many messages of higher priority went before a level.
	passed [levels]int
	active int // deliveries in hand
	spare  int // of those, by workers that are kept for others than bulk
	probes int // claimed since the group was sound
	// cramped is the lane whose next message waits for more memory than is free;
	// nil when there is none.
	cramped *lane
}

func newGroup(route string, relays []*relay) *group {
	return &group{route: route, relays: relays, lanes: map[Lane]*lane{}}
}

func (g *group) lane(of Lane) *lane {
	l := g.lanes[of]
	if l == nil {
		l = &lane{Lane: of}
		g.lanes[of] = l
	}
	return l
}

// add puts a job at the end of its lane.
func (g *group) add(j *job) {
	l := g.lane(j.Lane())
	if line := &g.lines[level(l.Priority)]; l.waiting() == 0 {
		*line = append(*line, l)
	}
	if j.content != nil {
		l.fresh = append(l.fresh, j)
	} else {
		l.claimed = append(l.claimed, j)
	}
}

// tidy takes lanes out of the lines in which nothing waits any more.
func (g *group) tidy() {
	for i := range g.lines {
		g.lines[i] = slices.DeleteFunc(g.lines[i], func(l *lane) bool { return l.waiting() == 0 })
	}
	if g.cramped != nil && len(g.cramped.claimed) == 0 {
		g.cramped = nil
	}
}

func (g *group) waiting() int {
	n := 0
	for _, line := range g.lines {
		for _, l := range line {
			n += l.waiting()
		}
	}
	return n
}

func (g *group) has(r *relay) bool { return slices.Contains(g.relays, r) }

// open says whether any relay takes a delivery of priority p at now.
func (g *group) open(now time.Time, p mailer.Priority) bool { return g.opened(now, p) != nil }

// opened is the first relay that takes a delivery of priority p at now, or nil.
func (g *group) opened(now time.Time, p mailer.Priority) *relay {
	for _, r := range g.relays {
		if r.open(now, p) {
			return r
		}
	}
	return nil
}

// sound says whether some relay is not in trouble at all; else what is open is
// open for one probe.
func (g *group) sound() bool {
	for _, r := range g.relays {
		if r.failures == 0 {
			return true
		}
	}
	return false
}

// reopens is when the first pause or rest ends for priority p.
func (g *group) reopens(p mailer.Priority) time.Time {
	var t time.Time
	for _, r := range g.relays {
		at := r.until
		if rests := r.rests[level(p)]; rests.After(at) {
			at = rests
		}
		t = earliest(t, at)
	}
	return t
}

// pick takes the job that is to be tried next, nil when none may be just now.
// The caller holds mu.
func (d *Durable) pick(g *group) *job {
	if d.phase != running || d.stuck || g.active > 0 && !g.sound() {
		return nil
	}
	now := d.now()
	for _, at := range g.order() {
		if len(g.lines[at]) == 0 {
			continue
		}
		r := g.opened(now, priorityAt(at))
		if r == nil {
			continue
		}
		if j := d.pickAt(g, at, d.workers(r)); j != nil {
			g.served(at)
			return j
		}
	}
	return nil
}

// order is the order in which the levels are asked: the highest first, unless
// one has waited for too long.
func (g *group) order() [levels]int {
	for at := levels - 1; at > 0; at-- {
		if g.passed[at] < patience {
			continue
		}
		order := [levels]int{at}
		for i := 1; i <= at; i++ {
			order[i] = i - 1
		}
		for i := at + 1; i < levels; i++ {
			order[i] = i
		}
		return order
	}
	return [levels]int{0, 1, 2}
}

// served notes that a job of a level goes before those of lower ones.
func (g *group) served(at int) {
	g.passed[at] = 0
	for lower := at + 1; lower < levels; lower++ {
		if len(g.lines[lower]) > 0 {
			g.passed[lower]++
		}
	}
}

// pickAt takes a job of the first lane in line that gets one of the workers, and
// puts the lane at the end.
func (d *Durable) pickAt(g *group, at, workers int) *job {
	line := g.lines[at]
	for i, l := range line {
		free, spare := d.worker(g, l, workers)
		if !free {
			continue
		}
		j := d.draw(g, l)
		if j == nil {
			continue
		}
		line = slices.Delete(line, i, i+1)
		if l.waiting() > 0 {
			line = append(line, l)
		}
		g.lines[at] = line
		g.active++
		l.inHand++
		if j.spare = spare; spare {
			g.spare++
		}
		return j
	}
	return nil
}

// busyRelay is a relay that says how many deliveries it can make use of at a
// time, as [mailer.Relay] does.
type busyRelay interface{ Useful() int }

// waitingRelay is a relay in which deliveries wait for their turn before they
// begin, as they do in [mailer.Relay].
type waitingRelay interface{ StopWaiting() }

// stopWaiting lets all of them end that have not begun at their relay.
func (d *Durable) stopWaiting() {
	for _, route := range d.opts.Routes {
		if r, ok := route.Relay.(waitingRelay); ok {
			r.StopWaiting()
		}
	}
}

// workers is how many deliveries may go on to the relay at a time.
func (d *Durable) workers(r *relay) int {
	if busy, ok := r.Deliverer.(busyRelay); ok {
		return min(d.opts.Workers, busy.Useful())
	}
	return d.opts.Workers
}

// worker says whether one of the workers is free for the lane, and whether that
// is a spare one.
func (d *Durable) worker(g *group, l *lane, workers int) (free, spare bool) {
	if g.active-g.spare < workers {
		return true, false
	}
	spares := max(1, d.opts.Workers/8)
	return l.Priority > mailer.PriorityBulk && l.inHand < spares && g.spare < spares, true
}

// done takes a job out of the account of what is in hand. The caller holds mu.
func (g *group) done(j *job) {
	g.active--
	g.lane(j.Lane()).inHand--
	if j.spare {
		g.spare--
	}
}

// draw takes from the new and the claimed jobs of a lane in turn.
func (d *Durable) draw(g *group, l *lane) *job {
	claimed := len(l.claimed) > 0 && d.loads(g, l)
	l.turn = !l.turn
	var j *job
	switch {
	case claimed && (l.turn || len(l.fresh) == 0):
		j, l.claimed = l.claimed[0], l.claimed[1:]
		d.loaded += d.memoryCost(j.Size)
		if g.cramped == l {
			g.cramped = nil
		}
	case len(l.fresh) > 0:
		j, l.fresh = l.fresh[0], l.fresh[1:]
	}
	return j
}

// loads says whether there is room in memory for the content of the lane's next
// claimed job. One that finds too little is not starved by smaller ones: no lane
// but those that have nothing in hand gets ahead of it.
func (d *Durable) loads(g *group, l *lane) bool {
	first := l.inHand == 0
	switch {
	case g.cramped != nil && g.cramped != l && !first:
		return false
	case d.fits(d.loaded, d.memoryCost(l.claimed[0].Size), first):
		return true
	case g.cramped == nil:
		g.cramped = l
	}
	return false
}

// memoryCost is what a message of size octets is counted as. One that is larger
// than the budget takes all of it and no more, so that there is an end to it.
func (d *Durable) memoryCost(size int64) int64 { return min(size+1024, d.opts.MaxMemory) }

// fits says whether cost may be added to what is used of the budget. The first
// message of a lane has a quarter more.
func (d *Durable) fits(used, cost int64, first bool) bool {
	most := d.opts.MaxMemory
	if first {
		most += most / 4
	}
	return used == 0 || used+cost <= most
}
