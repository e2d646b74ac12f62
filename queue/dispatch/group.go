package dispatch

import (
	"slices"
	"time"

	"mailsidecar/mailer"
)

// What waits for a group of relays waits in lines, one for each API key and
// priority. These rules say which goes next:
//
//   - A higher priority goes first, but at most eight of its messages go before a
//     lower one that waits.
//   - Within a priority the keys take turns, message by message.
//   - Each relay has workers of its own: those that hang at one take no mail from
//     another.
//   - When every worker is busy, a few extra ones serve lanes that are not bulk
//     and have few deliveries in flight.
//   - No more workers are busy than the relay can make use of. Messages that it has
//     been given wait once more, inside the relay and in its own order: see due in
//     mailer/smtp.
//   - A relay that was paused gets one probe.
//   - Each lane is claimed from the store by itself, and has memory of its own, so
//     that no backlog is in front of another lane's mail.

// maxPassedOver is how many messages of higher priority may go before a lower one that
// waits.
const maxPassedOver = 8

// group is what a [Dispatcher] has of one route: its relays, and the messages in memory
// that wait for them.
type group struct {
	route  string    // its name
	relays []*health // in order of preference
	lines  []*line   // as their lanes became known
	// turns are the lines of each level in which something waits. The one whose
	// turn is next is in front.
	turns [levels][]*line
	// passed is how many messages of higher priority went before a level that
	// waits.
	passed [levels]int
	loads  []load // of the relays
	probes int    // claims since the group was sound
	// cramped is the line whose next job waits for more memory than is free; nil
	// when none does.
	cramped *line
}

// load is how many of the group's deliveries a relay has in hand. Probes do not
// count: they need no worker, for every worker may have a delivery that hangs.
type load struct {
	active int
	extra  int // of those, deliveries by extra workers
}

// flight is where a delivery is that goes on.
type flight struct {
	at           *health // between two relays the first of them
	extra, probe bool    // it has one of the extra workers; it needs none
}

// load returns what counts the deliveries at a relay.
func (g *group) load(at *health) *load { return &g.loads[slices.Index(g.relays, at)] }

// count adds n deliveries like f.
func (g *group) count(f flight, n int) {
	l := g.load(f.at)
	switch {
	case f.probe:
	case f.extra:
		l.extra += n
		fallthrough
	default:
		l.active += n
	}
}

// move notes that a delivery is at another relay now.
func (d *Dispatcher) move(j *Job, to *health, now time.Time) (o Orders) {
	f, g := d.inFlight[j], d.group(j.Route)
	if f.at == to {
		return o
	}
	if f.at.pause.end(j) {
		d.lookAt(now) // it was to be a probe there, and is none
	}
	g.count(f, -1)
	f.at, f.probe = to, to.pause.begin(j, now)
	g.count(f, 1)
	d.inFlight[j] = f
	d.dispatch(g, now, &o)
	return o
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
func (d *Dispatcher) add(g *group, j *Job) {
	d.tickAt(j.Expires)
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
	return slices.ContainsFunc(g.relays, func(r *health) bool { return r.pause.failures == 0 })
}

// reopens is when the first relay takes deliveries of priority p again, as far
// as pauses and rates go.
func (g *group) reopens(p mailer.Priority) time.Time {
	t := g.relays[0].opens(p)
	for _, r := range g.relays[1:] {
		if other := r.opens(p); other.Before(t) {
			t = other
		}
	}
	return t
}

// pick takes the job that begins next; nil when none may begin just now.
func (d *Dispatcher) pick(g *group, now time.Time) *Job {
	if !d.running || d.stuck {
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
		if j := d.pickAt(g, at, r, now); j != nil {
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

// pickAt takes a job of the first line that gets one of the workers for a relay,
// and puts the line at the end.
func (d *Dispatcher) pickAt(g *group, at int, r *health, now time.Time) *Job {
	for i, l := range g.turns[at] {
		free, extra := d.worker(g, l, r)
		if !free {
			if r.useful < d.opts.Workers {
				d.tickAt(now.Add(growthInterval))
			}
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
		l.inFlight++
		f := flight{r, extra, r.pause.begin(j, now)}
		d.inFlight[j] = f
		g.count(f, 1)
		return j
	}
	return nil
}

// growthInterval is how often a relay is asked whether it can make use of more
// deliveries, while mail waits for that: all that it has may hang.
const growthInterval = time.Second

// worker says whether one of the workers for a relay is free for the line, and
// whether it is an extra one.
func (d *Dispatcher) worker(g *group, l *line, r *health) (free, extra bool) {
	busy := g.load(r)
	if r.pause.failures > 0 || busy.active-busy.extra < min(d.opts.Workers, r.useful) {
		return true, false
	}
	extras := max(1, d.opts.Workers/8)
	return l.Priority > mailer.PriorityBulk && l.inFlight < extras && busy.extra < extras, true
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
