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
	// Workers is how many deliveries go on at a time for each route. An extra
	// eighth, at least one, serves lanes that are not bulk and have few
	// deliveries in flight.
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
	Size  int64 // octets
	// Expires is when the message does.
	Expires time.Time
	// Fresh says that the job came with its content. That of others is in the
	// store, and takes up memory during the delivery only.
	Fresh bool
	// Moved says that the store has the job under another route.
	Moved bool
	Value any // the caller's
}

// Orders is what an event makes the caller do.
type Orders struct {
	// Begin are the jobs whose delivery begins. Each ends with Done.
	Begin []*Job
	// Release are the jobs whose leases must be given back to the store. They
	// are not in memory any more.
	Release []*Job
	// Shut names the mail that no relay takes any more just now.
	Shut []Shut
	// News is what changed for a relay; nil when nothing did.
	News *News
}

// Shut is the mail of one priority on one route.
type Shut struct {
	Route    string
	Priority mailer.Priority
}

// Dispatcher holds what waits in memory and decides what goes next. The zero
// value is not usable.
type Dispatcher struct {
	opts    Options
	running bool // deliveries may begin
	stuck   bool // outcomes cannot be recorded: no delivery begins until they can
	relays  []*health
	groups  []*group // as their routes became known
	// inFlight are the jobs whose delivery goes on. The value says whether it
	// took one of the extra workers.
	inFlight map[*Job]bool
	fresh    int64 // octets of jobs that came with their content
	loaded   int64 // octets of contents loaded from the store
	wake     time.Time
	expiry   time.Time // when a message of the store expires; zero: none is known to
}

// New returns a dispatcher that begins no delivery until Start.
func New(o Options) *Dispatcher {
	d := &Dispatcher{opts: o, inFlight: map[*Job]bool{}}
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
	for _, r := range relays {
		g.relays = append(g.relays, d.relays[r])
	}
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
		d.evict(g, func(mailer.Priority) bool { return true }, &o)
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
	g := d.group(j.Route)
	g.active--
	g.line(j.Lane).inFlight--
	if d.inFlight[j] {
		g.extra--
	}
	delete(d.inFlight, j)
	if g.active+g.waiting() == 0 && !g.sound() {
		d.lookAt(now) // the probe may have waited for this
	}
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
func (d *Dispatcher) Withdraw(id string) []*Job {
	var taken []*Job
	for _, g := range d.groups {
		for _, l := range g.lines {
			l.fresh = slices.DeleteFunc(l.fresh, func(j *Job) bool {
				if j.ID != id {
					return false
				}
				d.fresh -= d.memoryCost(j.Size)
				taken = append(taken, j)
				return true
			})
			l.claimed = slices.DeleteFunc(l.claimed, func(j *Job) bool {
				if j.ID == id {
					taken = append(taken, j)
				}
				return j.ID == id
			})
		}
		g.tidy()
	}
	return taken
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
	for j := d.pick(g, now); j != nil; j = d.pick(g, now) {
		o.Begin = append(o.Begin, j)
		if l := g.line(j.Lane); l.backlog && l.low() {
			l.backlog = false
			d.lookAt(now)
		}
	}
}

// evict takes what has one of the priorities that are shut out of a group's
// memory.
func (d *Dispatcher) evict(g *group, shut func(mailer.Priority) bool, o *Orders) {
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
	g.tidy()
	for at := range levels {
		if p := priorityAt(at); shut(p) {
			o.Shut = append(o.Shut, Shut{g.route, p})
		}
	}
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
	l := Load{Fresh: d.fresh, Loaded: d.loaded, InFlight: len(d.inFlight)}
	for _, g := range d.groups {
		l.Waiting += g.waiting()
		for _, line := range g.lines {
			l.Storing += line.storing
		}
	}
	return l
}
