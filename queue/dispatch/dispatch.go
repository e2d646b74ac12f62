// Package dispatch decides which message goes to a relay next. It knows what
// waits in memory, how the relays fare, and when the store must be looked at.
//
// A [Dispatcher] is a value without lock, clock or goroutine. Its methods are
// the events: each takes the time at which it happened and returns what the
// caller must do. Two dispatchers that saw the same events are alike, which the
// search in this package's tests builds on.
package dispatch

import (
	"math"
	"slices"
	"time"

	"mailsidecar/mailer"
)

// Options says what a [Dispatcher] works with.
type Options struct {
	// Relays are the names of the relays. An event names a relay by its index.
	Relays []string
	// Weights are those of the relays, in their order: those of a route that have a weight
	// share its mail in that proportion, and those whose weight is zero get mail only when
	// none of these takes it. None means that no relay has a weight.
	Weights []int
	// Workers is how many deliveries of each route go on at a time at each of its
	// relays. An extra eighth, at least one, serves lanes that are not bulk and
	// have few deliveries in flight, and one more those of high priority.
	Workers int
	// MaxMemory limits the octets of messages in memory: of those that came with
	// their content, and of those whose content is loaded from the store. The
	// first message of a lane may take a quarter more. One message of any size
	// always fits.
	MaxMemory int64
}

// Job is the leased recipients of one message in memory. It does not change
// while a dispatcher has it.
type Job struct {
	ID    string // of the message
	Route string // where it goes; see Dispatcher.Route
	Lane  Lane
	// Size is how many octets its delivery needs in memory.
	Size int64
	// ReversePath and Recipients are those of its envelope.
	ReversePath string
	Recipients  []string
	// Expires is when the message does.
	Expires time.Time
	// Fresh says that the job came with its content. That of others is in the
	// store, and takes up memory during the delivery only.
	Fresh bool
	// Alone says that nothing may begin beside the job, see [Dispatcher.Harmless].
	Alone bool
	Value any // the caller's
}

// Orders is what an event makes the caller do.
type Orders struct {
	// Begin are the jobs whose delivery begins. Each ends with Done.
	Begin []*Job
	// Release are the jobs whose leases must be given back to the store. They
	// are not in memory any more.
	Release []*Job
	// Postpone are the jobs whose leases must be given back, and which are due then.
	// They are not in memory any more.
	Postpone []Postponed
	// Expired are the jobs that expired while they waited in memory. They are not
	// there any more.
	Expired []*Job
	// Shut names the mail that no relay takes any more just now.
	Shut []Shut
	// News is what changed for a relay; nil when nothing did.
	News *News
	// OfMessage says that the failure that was reported is the message's own, though it
	// reads as the relay's: the message is tried again on its own schedule.
	OfMessage bool
}

// Postponed is a job whose reverse-path rests at all relays that are open.
type Postponed struct {
	Job   *Job
	Until time.Time
}

// Shut is the mail of one priority on one route.
type Shut struct {
	Route    string
	Priority mailer.Priority
}

// Dispatcher holds what waits in memory and decides what goes next. The zero
// value is not usable.
type Dispatcher struct {
	opts     Options
	running  bool // deliveries may begin
	stuck    bool // outcomes cannot be recorded: no delivery begins until they can
	relays   []*health
	groups   []*group        // as their routes became known
	inFlight map[*Job]flight // the jobs whose delivery goes on
	suspects suspects
	fresh    int64     // octets of jobs that came with their content
	loaded   int64     // octets of contents loaded from the store
	wake     time.Time // when the store must be looked at; zero: never
	tick     time.Time // when Tick must be called for what waits in memory; zero: never
	expiry   time.Time // when a message of the store expires; zero: none is known to
}

// New returns a dispatcher that begins no delivery until Start.
func New(o Options) *Dispatcher {
	d := &Dispatcher{opts: o, inFlight: map[*Job]flight{}}
	for _, name := range o.Relays {
		d.relays = append(d.relays, &health{name: name, useful: math.MaxInt})
	}
	return d
}

// Route makes a route known: the relays that its mail may go to, in order of
// preference.
func (d *Dispatcher) Route(name string, relays []int) {
	if d.group(name) != nil {
		return
	}
	g := &group{route: name}
	weights := make([]int, len(relays))
	for i, r := range relays {
		g.relays = append(g.relays, d.relays[r])
		if len(d.opts.Weights) > 0 {
			weights[i] = d.opts.Weights[r]
		}
	}
	g.shares = NewShares(weights)
	g.loads = make([]load, len(relays))
	d.groups = append(d.groups, g)
}

// group returns the relays that a route stands for; nil when it is not known.
func (d *Dispatcher) group(route string) *group {
	for _, g := range d.groups {
		if g.route == route {
			return g
		}
	}
	return nil
}

// Start lets deliveries begin.
func (d *Dispatcher) Start(now time.Time) Orders {
	d.running = true
	d.expiry = now
	d.lookAt(now)
	return d.dispatchAll(now)
}

// Stop lets no delivery begin any more.
func (d *Dispatcher) Stop() { d.running = false }

// Empty takes everything that waits out of memory.
func (d *Dispatcher) Empty() Orders {
	var o Orders
	for _, g := range d.groups {
		d.empty(g, func(mailer.Priority) bool { return true }, &o)
	}
	return o
}

// Useful says how many deliveries a relay can make use of at a time. Until then
// there is no limit but the workers.
func (d *Dispatcher) Useful(relay, n int) { d.relays[relay].useful = n }

// Stuck says whether outcomes cannot be recorded. Deliveries begin again when
// they can.
func (d *Dispatcher) Stuck(stuck bool, now time.Time) Orders {
	was := d.stuck
	d.stuck = stuck
	if !was || stuck {
		return Orders{}
	}
	d.lookAt(now)
	return d.dispatchAll(now)
}

// Done says that the delivery of a job is over.
func (d *Dispatcher) Done(j *Job, now time.Time) Orders {
	g, f := d.group(j.Route), d.inFlight[j]
	if f.at.end(j) {
		d.lookAt(now) // a probe that said nothing
	}
	g.count(f, -1)
	g.line(j.Lane).inFlight--
	delete(d.inFlight, j)
	d.endAlone(j, now)
	var o Orders
	if j.Fresh {
		d.fresh -= d.memoryCost(j.Size)
		d.dispatch(g, now, &o)
		return o
	}
	d.loaded -= d.memoryCost(j.Size)
	d.dispatch(g, now, &o)
	// Other groups may have waited for this memory.
	for _, other := range d.groups {
		d.dispatch(other, now, &o)
	}
	return o
}

// Withdraw takes a message's jobs out of memory and returns them. Those that are
// in flight stay.
func (d *Dispatcher) Withdraw(ids ...string) []*Job {
	meant := setOf(ids)
	var taken []*Job
	for _, g := range d.groups {
		taken = append(taken, d.withdraw(g, func(j *Job) bool { return meant[j.ID] })...)
	}
	return taken
}

// Trying returns the messages' jobs that are in flight.
func (d *Dispatcher) Trying(ids ...string) []*Job {
	meant := setOf(ids)
	var jobs []*Job
	for j := range d.inFlight {
		if meant[j.ID] {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

func setOf(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// Each calls f with every job that is in memory or in flight.
func (d *Dispatcher) Each(f func(*Job)) {
	for _, g := range d.groups {
		for _, l := range g.lines {
			for _, j := range slices.Concat(l.fresh, l.claimed) {
				f(j)
			}
		}
	}
	for _, j := range d.suspects.waiting {
		f(j)
	}
	for j := range d.inFlight {
		f(j)
	}
}

// withdraw takes the jobs that are meant out of a group's memory.
func (d *Dispatcher) withdraw(g *group, meant func(*Job) bool) []*Job {
	var taken []*Job
	take := func(j *Job) bool {
		if !meant(j) {
			return false
		}
		if j.Fresh {
			d.fresh -= d.memoryCost(j.Size)
		}
		taken = append(taken, j)
		return true
	}
	for _, l := range g.lines {
		l.fresh = slices.DeleteFunc(l.fresh, take)
		l.claimed = slices.DeleteFunc(l.claimed, take)
	}
	d.suspects.waiting = slices.DeleteFunc(d.suspects.waiting, func(j *Job) bool { return j.Route == g.route && take(j) })
	g.tidy()
	return taken
}

// Tick expires what waits in memory, and begins what may begin by now. look says
// that the store must be looked at, too.
func (d *Dispatcher) Tick(now time.Time) (look bool, o Orders) {
	d.endPauses(now)
	if !d.tick.IsZero() && !now.Before(d.tick) {
		d.tick = time.Time{}
		d.expire(now, &o)
	}
	begun := d.dispatchAll(now)
	begun.Expired = o.Expired
	o = begun
	return !d.wake.IsZero() && !now.Before(d.wake), o
}

func (d *Dispatcher) tickAt(t time.Time) { d.tick = earliest(d.tick, t) }

// expire takes the jobs that have expired out of memory.
func (d *Dispatcher) expire(now time.Time, o *Orders) {
	for _, g := range d.groups {
		o.Expired = append(o.Expired, d.withdraw(g, func(j *Job) bool {
			if j.Expires.IsZero() || now.Before(j.Expires) {
				d.tickAt(j.Expires)
				return false
			}
			return true
		})...)
	}
}

// dispatchAll begins what may begin, for all groups.
func (d *Dispatcher) dispatchAll(now time.Time) Orders {
	var o Orders
	for _, g := range d.groups {
		d.dispatch(g, now, &o)
	}
	return o
}

// dispatch begins what may begin for a group.
func (d *Dispatcher) dispatch(g *group, now time.Time, o *Orders) {
	d.dispatchAlone(now, o)
	for j := d.pick(g, now); j != nil; j = d.pick(g, now) {
		o.Begin = append(o.Begin, j)
		if l := g.line(j.Lane); l.backlog && l.low() {
			l.backlog = false
			d.lookAt(now)
		}
		if d.inFlight[j].at.probedBy(j) {
			for _, g := range d.groups {
				d.evict(g, now, o)
			}
		}
	}
	d.await(g, now)
}

// await sees to it that Tick is called when another relay may take what waits for a
// group in memory.
func (d *Dispatcher) await(g *group, now time.Time) {
	for at, lines := range g.turns {
		if len(lines) == 0 {
			continue
		}
		for _, r := range g.relays {
			if opens := r.opens(priorityAt(at)); opens.After(now) {
				d.tickAt(opens)
			}
			for _, s := range r.blame.senders {
				if opens := s.pause.opens(); opens.After(now) {
					d.tickAt(opens)
				}
			}
		}
	}
}

// evict takes what no relay takes just now out of a group's memory.
func (d *Dispatcher) evict(g *group, now time.Time, o *Orders) {
	d.empty(g, func(p mailer.Priority) bool { return !g.open(p, now) }, o)
	if !g.blamed() {
		return
	}
	for _, j := range d.withdraw(g, func(j *Job) bool { return !g.openFor(j, now) }) {
		d.turnAway(g, j, now, o)
	}
}

// turnAway gives back the lease of a job that no relay takes just now.
func (d *Dispatcher) turnAway(g *group, j *Job, now time.Time, o *Orders) {
	if until := g.postpone(j, now); until.After(now) {
		o.Postpone = append(o.Postpone, Postponed{j, until})
		return
	}
	o.Release = append(o.Release, j)
}

// shut adds the group's mail that no relay takes just now.
func (o *Orders) shut(g *group, now time.Time) {
	for at := range levels {
		if p := priorityAt(at); !g.open(p, now) {
			o.Shut = append(o.Shut, Shut{g.route, p})
		}
	}
}

// empty takes what has one of the priorities that are shut out of a group's
// memory.
func (d *Dispatcher) empty(g *group, shut func(mailer.Priority) bool, o *Orders) {
	for _, l := range g.lines {
		if !shut(l.Priority) {
			continue
		}
		for _, j := range l.fresh {
			d.fresh -= d.memoryCost(j.Size)
		}
		o.Release = slices.Concat(o.Release, l.fresh, l.claimed)
		l.fresh, l.claimed = nil, nil
	}
	d.suspects.waiting = slices.DeleteFunc(d.suspects.waiting, func(j *Job) bool {
		evicted := j.Route == g.route && shut(j.Lane.Priority)
		if evicted {
			o.Release = append(o.Release, j)
		}
		return evicted
	})
	g.tidy()
}

// Load is what a dispatcher has in memory.
type Load struct {
	Fresh, Loaded int64 // octets of jobs that came with their content, and of contents loaded from the store
	Waiting       int   // jobs in line
	InFlight      int   // deliveries that go on
	Storing       int   // jobs that have a place in memory and are being stored
}

// Load counts what is in memory.
func (d *Dispatcher) Load() Load {
	l := Load{Fresh: d.fresh, Loaded: d.loaded, InFlight: len(d.inFlight), Waiting: len(d.suspects.waiting)}
	for _, g := range d.groups {
		l.Waiting += g.waiting()
		for _, line := range g.lines {
			l.Storing += line.storing
		}
	}
	return l
}
