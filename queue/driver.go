package queue

import (
	"context"
	"slices"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// driver drives the dispatcher: it reports the events to it, and carries out its
// orders. It has a worker for each delivery that goes on, wakes the dispatcher, and
// looks at the store when that says so.
type driver struct {
	shared
	recorder *recorder
	peers    *peers // nil unless other instances share the store

	// ctx ends when deliveries in flight must end.
	ctx        context.Context //nolint:containedctx // it spans the deliveries, not a call
	cut        context.CancelFunc
	deliveries sync.WaitGroup
	nudge      chan struct{} // capacity 1: the scheduler must ask again when to look
	compare    chan struct{} // capacity 1: the scheduler must compare leases
	doubted    chan struct{} // capacity 1: the house must look whether the owner's lease is lost

	mu         sync.Mutex
	dispatcher *dispatch.Dispatcher
	armed      time.Time // when the scheduler acts by itself; zero: in a day
	cancels    cancels
	// leasesDoubtful says that leases must be compared when the store is looked at next.
	leasesDoubtful bool

	lookedAt time.Time // when the scheduler looked at the store last; it alone uses this
	failed   bool      // and that failed: the dispatcher says when to look again
}

func newDriver(s shared) *driver {
	var names []string
	for _, r := range s.router.relays {
		names = append(names, r.Name())
	}
	return &driver{shared: s, nudge: make(chan struct{}, 1), compare: make(chan struct{}, 1), doubted: make(chan struct{}, 1), cancels: newCancels(), dispatcher: dispatch.New(dispatch.Options{
		Relays: names, Weights: s.router.weights, Workers: s.opts.Workers, MaxMemory: s.opts.MaxMemory,
	})}
}

// job is leased work in memory.
type job struct {
	Work
	owner   string          // of its lease
	relays  []int           // that may take it, best first
	content *mailer.Content // nil: in the store
	turns   []Turn          // that the attempts used
	noted   int             // of turns, how many the store has already
	// canceled says that no further attempt begins. The driver's mutex guards it.
	canceled bool
}

// lease is what a job holds in the store. It is given back to the job's route.
func lease(j *dispatch.Job) Lease {
	work := j.Value.(*job)
	return Lease{ID: j.ID, Route: j.Route, ForwardPaths: work.Envelope.ForwardPaths, Number: work.Lease}
}

// newJob returns the job of work leased to owner on a route, which it makes known.
func (dr *driver) newJob(d *dispatch.Dispatcher, w Work, owner, route string, relays []int, content *mailer.Content) *dispatch.Job {
	d.Route(route, relays)
	rewritten := slices.ContainsFunc(relays, func(i int) bool { return mailer.Rewrites(dr.router.relays[i]) })
	return &dispatch.Job{
		ID: w.ID, Route: route, Lane: w.Lane(), Size: mailer.DeliveryMemory(w.Size, w.EightBit, w.UTF8Header || rewritten), Expires: w.Expires, Fresh: content != nil,
		ReversePath: w.Envelope.ReversePath, Recipients: w.Envelope.ForwardPaths,
		Alone: w.Suspect,
		Value: &job{Work: w, owner: owner, relays: relays, content: content},
	}
}

// busyRelay is a relay that says how many deliveries it can make use of at a
// time, as smtp.Relay does.
type busyRelay interface{ Useful() int }

// waitingRelay is a relay in which deliveries wait for their turn before they
// begin, as they do in smtp.Relay.
type waitingRelay interface{ StopWaiting() }

// event reports an event to the dispatcher and carries out its orders.
func (dr *driver) event(f func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders) {
	dr.mu.Lock()
	now := dr.now()
	o := f(dr.prepared(), now)
	dr.begin(o.Begin)
	dr.inform(o, now)
	dr.mu.Unlock()
	dr.follow(o)
}

// prepared returns the dispatcher with the facts that it cannot ask for. The
// caller holds mu.
func (dr *driver) prepared() *dispatch.Dispatcher {
	for i, r := range dr.router.relays {
		if busy, ok := r.(busyRelay); ok {
			dr.dispatcher.Useful(i, busy.Useful())
		}
	}
	return dr.dispatcher
}

// begin starts a worker for each job. The caller holds mu.
func (dr *driver) begin(jobs []*dispatch.Job) {
	for _, j := range jobs {
		dr.deliveries.Go(func() { dr.work(j) })
	}
}

// inform tells the waiters and the scheduler what the orders mean for them. The
// caller holds mu, so that they learn it in the order of the events.
func (dr *driver) inform(o dispatch.Orders, now time.Time) {
	for _, j := range o.Begin {
		dr.waiters.begin(j.ID)
	}
	for _, shut := range o.Shut {
		dr.waiters.giveUp(shut)
	}
	wake := dr.dispatcher.Wake()
	overdue := !wake.After(now) // the clock may have been set forward since the scheduler's timer was set
	if !wake.IsZero() && (overdue || dr.armed.IsZero() || wake.Before(dr.armed)) {
		dr.armed = wake
		select {
		case dr.nudge <- struct{}{}:
		default:
		}
	}
}

// wantLeases makes the scheduler compare leases.
func (dr *driver) wantLeases() {
	select {
	case dr.compare <- struct{}{}:
	default:
	}
}

// follow carries out the orders that need no lock.
func (dr *driver) follow(o dispatch.Orders) {
	for _, p := range o.Postpone {
		work := p.Job.Value.(*job)
		work.content = nil
		dr.recorder.record(dr.waits(p.Job, work, p.Until), work)
	}
	for _, j := range o.Expired {
		work := j.Value.(*job)
		work.content = nil
		dr.recorder.record(dr.outcome(j, work, nil), work)
	}
	dr.recorder.release(o.Release)
	logNews(dr.log, o.News)
	dr.peers.news(o.News)
}

// learned is event for what other instances have told: it is not told back to them.
func (dr *driver) learned(f func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders) {
	var news *dispatch.News
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		o := f(d, now)
		news, o.News = o.News, nil
		return o
	})
	logNews(dr.log, news)
}

// look makes the scheduler look at the store.
func (dr *driver) look() {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		d.LookAt(now)
		return dispatch.Orders{}
	})
}

// ask is for questions to the dispatcher, and for events that lead to no orders.
func (dr *driver) ask(f func(d *dispatch.Dispatcher, now time.Time)) {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	f(dr.dispatcher, dr.now())
}

// reserve decides for each entry whether its job goes to a worker from memory,
// leased from the start, or waits in the store: then the job is nil. With wait
// it adds a waiter for the first one, where a relay for it is open.
func (dr *driver) reserve(entries []Entry, wait bool) (jobs []*dispatch.Job, w *waiter) {
	dr.ask(func(d *dispatch.Dispatcher, now time.Time) {
		for i := range entries {
			j := dr.reserveOne(d, &entries[i], now)
			if jobs = append(jobs, j); j != nil {
				dr.cancels.insert(j.ID)
			}
		}
		first := &entries[0].Message
		if route := entries[0].Route; wait && d.Open(route, first.Envelope.Priority, first.Envelope.ReversePath, now) {
			w = dr.waiters.add(first.ID, route, first.Envelope.Priority, jobs[0] == nil)
		}
	})
	return jobs, w
}

func (dr *driver) reserveOne(d *dispatch.Dispatcher, e *Entry, now time.Time) *dispatch.Job {
	m := &e.Message
	_, relays := dr.router.route(m.Key, m.Sender)
	if e.Due.After(now) {
		d.Route(e.Route, relays)
		return nil
	}
	work := Work{
		ID: m.ID, MessageID: m.MessageID, Sender: m.Sender, Route: e.Route, Key: m.Key, Size: m.Size, Expires: m.Expires, Envelope: m.Envelope,
		EightBit: e.Content.EightBit, UTF8Header: e.Content.UTF8Header,
		Lease: FirstLease, Since: e.Due,
	}
	j := dr.newJob(d, work, dr.owner.now(), e.Route, relays, &e.Content)
	if !dr.owner.trusted() || !d.Reserve(j, now) {
		return nil
	}
	leased := j.Value.(*job)
	e.Owner = leased.owner
	for _, path := range m.Envelope.ForwardPaths {
		leased.Recipients = append(leased.Recipients, Leased{ForwardPath: path, State: Queued})
	}
	return j
}

// stored hands stored messages over for delivery.
func (dr *driver) stored(entries []Entry, jobs []*dispatch.Job) {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		for i, e := range entries {
			if jobs[i] == nil {
				d.Waits(e.Route, e.Message.Lane(), e.Due, e.Message.Expires, now)
			}
		}
		var inLine, release []*dispatch.Job
		for _, j := range inMemory(jobs) {
			if dr.cancels.arrive(j, dr.cancels.inserted(j.ID), &release) {
				inLine = append(inLine, j)
			} else {
				d.NotStored([]*dispatch.Job{j})
			}
		}
		o := d.Stored(inLine, now)
		o.Release = append(o.Release, release...)
		return o
	})
}

// notStored takes back what was reserved.
func (dr *driver) notStored(jobs []*dispatch.Job) {
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) {
		for _, j := range inMemory(jobs) {
			dr.cancels.inserted(j.ID)
		}
		d.NotStored(inMemory(jobs))
	})
}

func inMemory(jobs []*dispatch.Job) []*dispatch.Job {
	var found []*dispatch.Job
	for _, j := range jobs {
		if j != nil {
			found = append(found, j)
		}
	}
	return found
}

// watch adds a waiter for a stored message, where a relay for it is open.
func (dr *driver) watch(id, key, sender string, env mailer.Envelope) (w *waiter) {
	name, relays := dr.router.route(key, sender)
	if len(relays) == 0 {
		return nil
	}
	dr.ask(func(d *dispatch.Dispatcher, now time.Time) {
		if d.Open(name, env.Priority, env.ReversePath, now) {
			w = dr.waiters.add(id, name, env.Priority, true)
		}
	})
	return w
}

// showPauses makes NextAttempt what it will be while all relays that may take the
// message are paused. The message's own recipients change.
func (dr *driver) showPauses(messages ...*Message) {
	dr.ask(func(d *dispatch.Dispatcher, now time.Time) {
		for _, m := range messages {
			route := dr.routeOf(d, m)
			for i := range m.Recipients {
				if r := &m.Recipients[i]; !r.NextAttempt.IsZero() {
					r.NextAttempt = attemptAt(r.NextAttempt, d.Reopens(route(r), m.Envelope.Priority, now))
				}
			}
		}
	})
}

// attemptAt is when a recipient that is due then is tried, where its relays open again at
// that time; zero where it is not known, because a person has paused them.
func attemptAt(due, reopens time.Time) time.Time {
	if reopens.Equal(dispatch.Never) {
		return time.Time{}
	}
	return latest(due, reopens)
}

// paused returns an outcome's changes with the times that [driver.showPauses] shows: while
// all relays for a recipient are paused, it is not tried before that ends.
func (dr *driver) paused(o pendingOutcome) []Change {
	waits := func(c Change) bool { return !c.Next.IsZero() && !c.State.Final() }
	if !slices.ContainsFunc(o.Changes, waits) {
		return o.Changes
	}
	changes := slices.Clone(o.Changes)
	dr.ask(func(d *dispatch.Dispatcher, now time.Time) {
		for i := range changes {
			if c := &changes[i]; waits(*c) {
				c.Next = attemptAt(c.Next, d.Reopens(o.RouteOf(*c), o.job.Envelope.Priority, now))
			}
		}
	})
	return changes
}

// showRefusedLogin gives the recipients that wait because a relay refused our login
// that failure as their result. The message's own recipients change.
func (dr *driver) showRefusedLogin(m *Message) {
	dr.ask(func(d *dispatch.Dispatcher, now time.Time) {
		route := dr.routeOf(d, m)
		for i := range m.Recipients {
			r := &m.Recipients[i]
			if f := d.RefusedLogin(route(r), m.Envelope.Priority, now); f != nil && !r.NextAttempt.IsZero() {
				r.Result = mailer.Result{ForwardPath: r.ForwardPath, Reply: f.Reply, Failure: f}
			}
		}
	})
}

// start lets deliveries begin. They are cut short when ctx ends, or by stop.
func (dr *driver) start(ctx context.Context) {
	dr.ctx, dr.cut = context.WithCancel(ctx)
	dr.event((*dispatch.Dispatcher).Start)
}

// halt lets no delivery begin any more.
func (dr *driver) halt() { dr.ask(func(d *dispatch.Dispatcher, _ time.Time) { d.Stop() }) }

// stop gives back what waits in memory and waits for the deliveries in flight.
func (dr *driver) stop() {
	dr.event(func(d *dispatch.Dispatcher, _ time.Time) dispatch.Orders { return d.Empty() })
	for _, relay := range dr.router.relays {
		if r, ok := relay.(waitingRelay); ok {
			r.StopWaiting()
		}
	}
	cut := time.AfterFunc(dr.opts.StopTimeout, dr.cut)
	dr.deliveries.Wait()
	cut.Stop()
	dr.cut()
}

// stuck says whether outcomes cannot be recorded, which stops deliveries.
func (dr *driver) stuck(is bool) {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.Stuck(is, now) })
}

// recorded tells the dispatcher of recipients whose outcome is stored, and which
// wait there.
func (dr *driver) recorded(outcomes []pendingOutcome) {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		for _, o := range outcomes {
			for _, c := range o.Changes {
				if !c.State.Final() && c.State != Held {
					d.Waits(o.RouteOf(c), o.job.Lane(), c.Next, o.job.Expires, now)
				}
			}
		}
		return dispatch.Orders{}
	})
}

// released tells the dispatcher of jobs whose leases were given back.
func (dr *driver) released(jobs []*dispatch.Job) {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		d.Released(jobs, now)
		return dispatch.Orders{}
	})
}

// beginCancel takes the messages' jobs out of memory. There are several of a message where
// its recipients were due at different times. Others may be in flight: then the attempt
// that goes on is their last one. It ends with endCancel.
func (dr *driver) beginCancel(ids []string) (jobs []*dispatch.Job) {
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) {
		for _, id := range ids {
			dr.cancels.begin(id)
		}
		for _, j := range d.Trying(ids...) {
			j.Value.(*job).canceled = true
		}
		jobs = d.Withdraw(ids...)
	})
	return jobs
}

// endCancel says that the store has answered. It returns jobs whose leases must be
// given back.
func (dr *driver) endCancel(ids []string) (late []*dispatch.Job) {
	dr.ask(func(*dispatch.Dispatcher, time.Time) {
		for _, id := range ids {
			late = append(late, dr.cancels.end(id)...)
		}
		for _, j := range late {
			j.Value.(*job).canceled = true
		}
	})
	return late
}

// canceled returns those of the jobs whose message was to be canceled while they were in
// memory.
func (dr *driver) canceled(jobs []*job) map[*job]bool {
	var canceled map[*job]bool // as a rule there are none
	dr.ask(func(*dispatch.Dispatcher, time.Time) {
		for _, j := range jobs {
			if j.canceled {
				if canceled == nil {
					canceled = map[*job]bool{}
				}
				canceled[j] = true
			}
		}
	})
	return canceled
}

// unpause ends the pauses of the relays that take the messages' mail. A look at
// the store must follow.
func (dr *driver) unpause(messages ...Message) {
	dr.ask(func(d *dispatch.Dispatcher, now time.Time) {
		for _, m := range messages {
			route := dr.routeOf(d, &m)
			for i := range m.Recipients {
				d.Unpause(route(&m.Recipients[i]), now)
			}
		}
	})
}

// routeOf returns what tells the route of each of a message's recipients, and makes it
// known.
func (dr *driver) routeOf(d *dispatch.Dispatcher, m *Message) func(*Recipient) string {
	all, relays := dr.router.route(m.Key, m.Sender)
	if len(relays) > 0 {
		d.Route(all, relays)
	}
	return func(r *Recipient) string {
		if r.TakenBy == "" {
			return all
		}
		if only := dr.router.named(r.TakenBy); len(only) > 0 {
			d.Route(TakenRoute(r.TakenBy), only)
		}
		return TakenRoute(r.TakenBy)
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// resume ends the pause of the relays with that name for good.
func (dr *driver) resume(name string) {
	for i, r := range dr.router.relays {
		if r.Name() == name {
			dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.Resume(i, now) })
		}
	}
}
