package dispatch

import (
	"slices"
	"time"

	"mailsidecar/mailer"
)

// What waits for a group of relays waits in lines, one for each API key and
// priority. These rules say which goes next:
//
//   - A higher priority goes first, but at least every ninth turn goes to a lower
//     one that waits.
//   - Within a priority the keys take turns, message by message.
//   - When every worker is busy, a few extra ones serve lanes that are not bulk
//     and have few deliveries in flight.
//   - No more workers are busy than the relay can make use of. Messages that it has
//     been given wait once more, inside the relay and in its own order: see due in
//     mailer/smtp.
//   - Each lane is claimed from the store by itself, and has room in memory of
//     its own, so that no backlog stands before another lane's mail.

// maxPassedOver is how many messages of higher priority go before one that
// waits.
const maxPassedOver = 8

// group is the relays that a set of senders shares, in order of preference, and
// what waits for them in memory.
type group struct {
	route  string
	relays []*health
	lines  []*line // as their lanes became known
	// turns are the lines of each level in which something waits. The one whose
	// turn is next is in front.
	turns [levels][]*line
	// passed is how many messages of higher priority went before a level that
	// waits.
	passed [levels]int
	active int // deliveries in flight
	extra  int // of those, deliveries by extra workers
	probes int // claims since the group was sound
	// cramped is the line whose next job waits for more memory than is free; nil
	// when none does.
	cramped *line
}

func (g *group) line(of Lane) *line {
	for _, l := range g.lines {
		if l.Lane == of {
			return l
		}
	}
	l := &line{Lane: of}
	g.lines = append(g.lines, l)
	return l
}

// add puts a job at the end of its line.
func (g *group) add(j *Job) {
	l := g.line(j.Lane)
	if turns := &g.turns[level(l.Priority)]; l.waiting() == 0 {
		*turns = append(*turns, l)
	}
	if j.Fresh {
		l.fresh = append(l.fresh, j)
	} else {
		l.claimed = append(l.claimed, j)
	}
}

// tidy takes the lines in which nothing waits any more out of the turns.
func (g *group) tidy() {
	for i := range g.turns {
		g.turns[i] = slices.DeleteFunc(g.turns[i], func(l *line) bool { return l.waiting() == 0 })
	}
	if g.cramped != nil && len(g.cramped.claimed) == 0 {
		g.cramped = nil
	}
}

func (g *group) waiting() int {
	n := 0
	for _, l := range g.lines {
		n += l.waiting()
	}
	return n
}

// open says whether any relay takes a delivery of priority p.
func (g *group) open(p mailer.Priority, now time.Time) bool { return g.firstOpen(p, now) != nil }

// firstOpen is the first relay that takes a delivery of priority p; nil when
// none does.
func (g *group) firstOpen(p mailer.Priority, now time.Time) *health {
	for _, r := range g.relays {
		if r.open(p, now) {
			return r
		}
	}
	return nil
}

// sound says whether some relay is not in trouble. Otherwise what is open is
// open for one probe.
func (g *group) sound() bool {
	return slices.ContainsFunc(g.relays, func(r *health) bool { return r.failures == 0 })
}

// reopens is when the first relay takes deliveries of priority p again, as far
// as pauses and rates go.
func (g *group) reopens(p mailer.Priority) time.Time {
	var t time.Time
	for _, r := range g.relays {
		t = earliest(t, latest(r.pausedUntil, r.restsUntil[level(p)]))
	}
	return t
}

// pick takes the job that begins next; nil when none may begin just now.
func (d *Dispatcher) pick(g *group, now time.Time) *Job {
	if !d.running || d.stuck || g.active > 0 && !g.sound() {
		return nil
	}
	for _, at := range g.order() {
		if len(g.turns[at]) == 0 {
			continue
		}
		r := g.firstOpen(priorityAt(at), now)
		if r == nil {
			continue
		}
		if j := d.pickAt(g, at, min(d.opts.Workers, r.useful)); j != nil {
			g.served(at)
			return j
		}
	}
	return nil
}

// order is the order in which the levels are asked: the highest first, unless
// one was passed over too often.
func (g *group) order() [levels]int {
	var order [levels]int
	for i := range order {
		order[i] = i
	}
	for at := levels - 1; at > 0; at-- {
		if g.passed[at] >= maxPassedOver {
			copy(order[1:at+1], order[:at])
			order[0] = at
			break
		}
	}
	return order
}

// served counts that a job of a level goes before the lower ones that wait.
func (g *group) served(at int) {
	g.passed[at] = 0
	for lower := at + 1; lower < levels; lower++ {
		if len(g.turns[lower]) > 0 {
			g.passed[lower]++
		}
	}
}

// pickAt takes a job of the first line that gets one of the workers, and puts
// the line at the end.
func (d *Dispatcher) pickAt(g *group, at, workers int) *Job {
	for i, l := range g.turns[at] {
		free, extra := d.worker(g, l, workers)
		if !free {
			continue
		}
		j := d.draw(g, l)
		if j == nil {
			continue
		}
		g.turns[at] = slices.Delete(g.turns[at], i, i+1)
		if l.waiting() > 0 {
			g.turns[at] = append(g.turns[at], l)
		}
		g.active++
		l.inFlight++
		if extra {
			g.extra++
		}
		d.inFlight[j] = extra
		return j
	}
	return nil
}

// worker says whether one of the workers is free for the line, and whether it is
// an extra one.
func (d *Dispatcher) worker(g *group, l *line, workers int) (free, extra bool) {
	if g.active-g.extra < workers {
		return true, false
	}
	extras := max(1, d.opts.Workers/8)
	return l.Priority > mailer.PriorityBulk && l.inFlight < extras && g.extra < extras, true
}

// draw takes from the fresh and the claimed jobs of a line in turn.
func (d *Dispatcher) draw(g *group, l *line) *Job {
	claimed := len(l.claimed) > 0 && d.loads(g, l)
	l.claimedNext = !l.claimedNext
	var j *Job
	switch {
	case claimed && (l.claimedNext || len(l.fresh) == 0):
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

// loads says whether there is room in memory for the content of the line's next
// claimed job. Smaller ones do not starve a job that finds too little: only
// lines that have nothing in flight get ahead of it.
func (d *Dispatcher) loads(g *group, l *line) bool {
	first := l.inFlight == 0
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
// than the budget takes all of it and no more, so that it can end.
func (d *Dispatcher) memoryCost(size int64) int64 { return min(size+1024, d.opts.MaxMemory) }

// fits says whether cost may be added to what is used of the budget. The first
// message of a lane has a quarter more.
func (d *Dispatcher) fits(used, cost int64, first bool) bool {
	most := d.opts.MaxMemory
	if first {
		most += most / 4
	}
	return used == 0 || used+cost <= most
}
