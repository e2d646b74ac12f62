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
//     and have few deliveries in flight. One more serves mail of high priority alone.
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
	shares Shares    // of them
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
	why          string  // the first one was chosen
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
	if f.at.end(j) {
		d.lookAt(now) // it was to be a probe there, and is none
	}
	g.count(f, -1)
	f.at, f.probe = to, to.begin(j, now)
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
	if j.Alone {
		d.suspects.waiting = append(d.suspects.waiting, j)
		return
	}
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

// openFor says whether any relay takes a job.
func (g *group) openFor(j *Job, now time.Time) bool { return g.relayFor(j, now) != nil }

// blamed says whether a reverse-path rests at one of the relays.
func (g *group) blamed() bool {
	return slices.ContainsFunc(g.relays, func(r *health) bool { return r.blame.resting > 0 })
}

// postpone returns when a job that no relay takes just now is due again, where that
// is because its reverse-path rests; else zero.
func (g *group) postpone(j *Job, now time.Time) (until time.Time) {
	for _, r := range g.relays {
		if p := j.Lane.Priority; r.open(p, now) && !r.openFor(j, now) {
			until = earliest(until, r.blame.postpone(j.ReversePath, now))
		}
	}
	for _, r := range g.relays {
		if other := latest(r.opens(j.Lane.Priority), r.blame.opens(j)); !until.IsZero() && other.After(now) {
			until = earliest(until, other) // one that is paused may take it before
		}
	}
	return until
}

// resting says whether a relay rests because of what messages met, or refuses all mail:
// then it matters which one is the probe.
func (g *group) resting() bool {
	return slices.ContainsFunc(g.relays, func(r *health) bool { return r.resting() || r.refusesMail() })
}

// sound says whether some relay is neither in trouble nor paused by a person. Otherwise
// what is open is open for one probe.
func (g *group) sound() bool {
	return slices.ContainsFunc(g.relays, func(r *health) bool { return r.pause.failures == 0 && r.manual.Relay == "" })
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
	if !d.running || d.stuck || d.suspects.stopped() {
		return nil
	}
	for _, r := range g.relays {
		if r.pause.failures > 0 && !now.Before(r.pause.opens()) {
			if c := d.probe(g, r, now); c.job != nil {
				return d.send(g, c, now)
			}
		}
	}
	for _, at := range g.order() {
		for _, l := range g.turns[at] {
			if c := d.draw(g, l, now); c.job != nil {
				return d.send(g, c, now)
			}
		}
	}
	return nil
}

// choice is a job that may begin, and where.
type choice struct {
	job   *Job
	line  *line
	relay *health
	extra bool // by an extra worker
}

// send begins a delivery, and puts the job's line at the end of the turns.
func (d *Dispatcher) send(g *group, c choice, now time.Time) *Job {
	j, l := c.job, c.line
	if j.Fresh {
		l.fresh = slices.Delete(l.fresh, slices.Index(l.fresh, j), slices.Index(l.fresh, j)+1)
	} else {
		l.claimed = slices.Delete(l.claimed, slices.Index(l.claimed, j), slices.Index(l.claimed, j)+1)
		d.loaded += d.memoryCost(j.Size)
		if g.cramped == l {
			g.cramped = nil
		}
	}
	at := level(l.Priority)
	turns := slices.DeleteFunc(g.turns[at], func(other *line) bool { return other == l })
	if l.waiting() > 0 {
		turns = append(turns, l)
	}
	g.turns[at] = turns
	l.inFlight++
	f := flight{at: c.relay, extra: c.extra, why: g.why(c.relay, j, now)}
	if c.relay.pause.failures == 0 { // a probe is no part of its share
		g.deal(c.relay, j, now, func(r *health) bool { free, _ := d.worker(g, l, r); return free })
	}
	f.probe = c.relay.begin(j, now)
	d.inFlight[j] = f
	g.count(f, 1)
	g.served(at)
	return j
}

// probe chooses the job that suits best as the probe of a relay that was paused.
func (d *Dispatcher) probe(g *group, r *health, now time.Time) (best choice) {
	score := -1
	for _, at := range g.order() {
		for _, l := range g.turns[at] {
			for _, j := range slices.Concat(l.fresh, l.claimed) {
				if !g.suits(r, j, now) || !j.Fresh && !d.loads(g, l, j) {
					continue
				}
				if suits := r.blame.suits(j); suits > score {
					best, score = choice{j, l, r, false}, suits
				}
				if score == suitsBest {
					return best
				}
			}
		}
	}
	return best
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
	if l.Priority == mailer.PriorityHigh {
		extras++ // all others may have mail that waits for the rate, which does not hold this back
	}
	return l.Priority > mailer.PriorityBulk && l.inFlight < extras && busy.extra < extras, true
}

// hasWorker says whether one of the workers for a relay is free for the line. If not, the
// relay may make use of more soon.
func (d *Dispatcher) hasWorker(g *group, l *line, r *health, now time.Time) bool {
	free, _ := d.worker(g, l, r)
	if !free && r.useful < d.opts.Workers {
		d.tickAt(now.Add(growthInterval))
	}
	return free
}

// draw chooses from the fresh and the claimed jobs of a line in turn.
func (d *Dispatcher) draw(g *group, l *line, now time.Time) choice {
	fresh, claimed := d.first(g, l, l.fresh, now), d.first(g, l, l.claimed, now)
	if fresh.job == nil && claimed.job == nil {
		return choice{}
	}
	if claimed.job != nil && !d.loads(g, l, claimed.job) {
		claimed.job = nil
	}
	l.claimedNext = !l.claimedNext
	if claimed.job != nil && (l.claimedNext || fresh.job == nil) {
		return claimed
	}
	return fresh
}

// first chooses the first of a line's jobs for which a worker is free. When it is
// to be the probe of its reverse-path, the one that suits best goes in its place.
func (d *Dispatcher) first(g *group, l *line, jobs []*Job, now time.Time) choice {
	for i, j := range jobs {
		if i > 0 && !g.blamed() {
			break // the others go where this one goes
		}
		r := g.choose(j, now, func(r *health) bool { return d.hasWorker(g, l, r, now) })
		if r == nil {
			continue
		}
		_, extra := d.worker(g, l, r)
		if s := r.blame.sender(j.ReversePath); s != nil && s.pause.failures > 0 {
			for _, other := range jobs[i:] {
				if other.ReversePath == j.ReversePath && r.blame.suits(other) > r.blame.suits(j) {
					j = other
				}
			}
		}
		return choice{j, l, r, extra}
	}
	return choice{}
}

// loads says whether there is room in memory for the content of a claimed job of
// the line. Smaller ones do not starve a job that finds too little: only lines that
// have nothing in flight get ahead of it.
func (d *Dispatcher) loads(g *group, l *line, j *Job) bool {
	first := l.inFlight == 0
	switch {
	case g.cramped != nil && g.cramped != l && !first:
		return false
	case d.fits(d.loaded, d.memoryCost(j.Size), first):
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
