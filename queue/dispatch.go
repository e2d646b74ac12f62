package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"mailsidecar/mailer"
)

// job is leased work in memory.
type job struct {
	Work
	content *mailer.Content // nil: in the store
}

// lease is what the job holds in the store. It is given back to the route.
func (j *job) lease(route string) Lease { return Lease{j.ID, route, j.Envelope.ForwardPaths} }

// memoryCost is what a message of size octets is counted as.
func memoryCost(size int64) int64 { return size + 1024 }

// claimRoom is how many messages of a group are claimed ahead of the workers.
func (d *Durable) claimRoom() int { return 4 * d.opts.Workers }

// dispatch starts workers for what waits in memory. The caller holds mu.
func (d *Durable) dispatch(g *group) {
	if d.phase != running || d.stuck || !g.open(d.now()) {
		return
	}
	want := min(g.waiting(), d.opts.Workers)
	if !g.sound() {
		want = min(want, 1)
	}
	for ; g.active < want; g.active++ {
		d.deliveries.Go(func() { d.work(g) })
	}
}

// work delivers what waits for the group until nothing more can be.
func (d *Durable) work(g *group) {
	for j := d.next(g); j != nil; j = d.next(g) {
		d.try(g, j)
	}
}

// next takes the next job; on nil the worker ends.
func (d *Durable) next(g *group) *job {
	d.mu.Lock()
	defer d.mu.Unlock()
	var j *job
	if d.phase == running && !d.stuck && g.open(d.now()) {
		j = d.pick(g)
	}
	if g.backlog && len(g.claimed) < d.opts.Workers {
		g.backlog = false
		d.poke()
	}
	if j == nil {
		g.active--
		return nil
	}
	for _, w := range d.watches[j.ID] {
		w.inHand = true
	}
	return j
}

// pick takes from the new and the claimed jobs in turn. A claimed one needs room
// in memory for its content; the first always has it, whatever its size.
func (d *Durable) pick(g *group) *job {
	claimed := len(g.claimed) > 0 && (d.loaded == 0 || d.loaded+memoryCost(g.claimed[0].Size) <= d.opts.MaxMemory)
	g.turn = !g.turn
	var j *job
	switch {
	case claimed && (g.turn || len(g.fresh) == 0):
		j, g.claimed = g.claimed[0], g.claimed[1:]
		d.loaded += memoryCost(j.Size)
	case len(g.fresh) > 0:
		j, g.fresh = g.fresh[0], g.fresh[1:]
	}
	return j
}

// forgo gives back the memory of a job that is done with.
func (d *Durable) forgo(j *job, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if fresh {
		d.fresh -= memoryCost(j.Size)
		return
	}
	d.loaded -= memoryCost(j.Size)
	// A worker of another group may have ended for want of this memory.
	for _, g := range d.groups {
		d.dispatch(g)
	}
}

// try makes the attempts on one job and hands the outcome over to be recorded.
func (d *Durable) try(g *group, j *job) {
	fresh := j.content != nil
	attempts, err := d.attempt(g, j)
	j.content = nil
	d.forgo(j, fresh)
	switch {
	case err != nil:
		d.log.Error("message could not be tried", "id", j.ID, "error", err)
		d.ledger.record(d.postponed(g, j, err), j)
	case len(attempts) == 0 && d.now().Before(j.Expires):
		// Every relay was paused meanwhile.
		d.ledger.release([]Lease{j.lease(g.route)})
	default:
		d.ledger.record(d.outcome(g, j, attempts), j)
	}
}

// attempt hands the message to the relays in turn until one of them judges it.
func (d *Durable) attempt(g *group, j *job) ([]mailer.Attempt, error) {
	if !d.now().Before(j.Expires) {
		return nil, nil
	}
	if j.content == nil {
		c, err := d.store.Content(d.deliverCtx, AnyKey, j.ID)
		if err != nil {
			return nil, err
		}
		j.content = &c
	}
	if d.opts.HoldUncertain {
		if err := d.store.Mark(d.deliverCtx, d.owner, j.ID); err != nil {
			return nil, err
		}
	}
	var attempts []mailer.Attempt
	env := j.Envelope
	for _, r := range g.relays {
		if !d.take(r) {
			continue
		}
		a := d.deliverOnce(r, env, *j.content)
		d.report(r, a)
		attempts = append(attempts, a)
		if env.ForwardPaths = untouched(a); len(env.ForwardPaths) == 0 || d.deliverCtx.Err() != nil {
			break
		}
	}
	return attempts, nil
}

// deliverOnce turns a panic into an attempt of unknown outcome: one message must
// not take the service with it, again at every start.
func (d *Durable) deliverOnce(r *relay, env mailer.Envelope, c mailer.Content) (a mailer.Attempt) {
	started := d.now()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		d.log.Error("delivery panicked", "relay", r.Name(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		a = mailer.Attempt{Relay: r.Name(), Started: started, Duration: d.now().Sub(started)}
		for _, path := range env.ForwardPaths {
			a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: &mailer.Failure{
				Class: mailer.ClassUncertain, Stage: mailer.StageContent, Relay: r.Name(), Text: "internal error",
			}})
		}
	}()
	return r.Deliver(d.deliverCtx, env, c)
}

func (d *Durable) take(r *relay) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return r.take(d.now())
}

// report notes how the relay fares. What waits in memory for a relay that is
// paused goes back to the store, and those who wait for an answer get it.
func (d *Durable) report(r *relay, a mailer.Attempt) {
	if d.deliverCtx.Err() != nil {
		return // our doing, not the relay's
	}
	d.mu.Lock()
	now := d.now()
	rests := r.rest(a, now)
	paused, resumed, probed := r.report(a, now, spread())
	var leases []Lease
	for _, g := range d.groups {
		if !g.has(r) {
			continue
		}
		if (paused || rests) && !g.open(now) {
			leases = append(leases, d.evict(g)...)
		}
		d.dispatch(g)
	}
	switch {
	case paused:
		d.pokeAt(r.until)
	case resumed, probed:
		d.poke()
	case rests:
		d.pokeAt(r.rests)
	}
	p, until := Pause{r.Name(), r.failures, r.until, r.reason}, r.rests
	d.mu.Unlock()
	d.ledger.release(leases)
	if rests {
		d.log.Info("rate used up", "relay", p.Relay, "until", until)
	}
	d.logRelay(p, paused, resumed)
}

func (g *group) has(r *relay) bool {
	for _, member := range g.relays {
		if member == r {
			return true
		}
	}
	return false
}

// evict empties the group's memory, and ends the waiting for what was in it or
// in the store. The caller holds mu and releases the leases.
func (d *Durable) evict(g *group) []Lease {
	var leases []Lease
	for _, j := range g.fresh {
		d.fresh -= memoryCost(j.Size)
		leases = append(leases, j.lease(g.route))
	}
	for _, j := range g.claimed {
		leases = append(leases, j.lease(g.route))
	}
	g.fresh, g.claimed = nil, nil
	for id, watches := range d.watches {
		if w := watches[0]; w.group == g && !w.inHand {
			d.tell(id)
		}
	}
	return leases
}

// outcome decides on each recipient.
func (d *Durable) outcome(g *group, j *job, attempts []mailer.Attempt) Outcome {
	o := d.newOutcome(g, j)
	if len(attempts) == 0 { // it has expired
		for _, l := range j.Recipients {
			o.Changes = append(o.Changes, Change{ForwardPath: l.ForwardPath, State: Expired, Tries: l.Tries})
		}
		return o
	}
	o.Changes, o.Attempts = decision{
		now: o.At, hold: d.opts.HoldUncertain, interrupted: d.deliverCtx.Err() != nil, spread: spread,
	}.decide(j.Work, attempts)
	return o
}

func (d *Durable) newOutcome(g *group, j *job) Outcome {
	return Outcome{ID: j.ID, Owner: d.owner, Route: g.route, At: d.now()}
}

// postponed is the outcome when the store did not give the message: without its
// bytes it never will be sent, else another minute may help.
func (d *Durable) postponed(g *group, j *job, cause error) Outcome {
	o := d.newOutcome(g, j)
	gone := errors.Is(cause, ErrContentGone)
	for _, l := range j.Recipients {
		c := Change{ForwardPath: l.ForwardPath, State: l.State, Next: o.At.Add(firstRetry), Tries: l.Tries}
		if gone {
			c.State = Bounced
		}
		o.Changes = append(o.Changes, c)
	}
	if gone {
		a := mailer.Attempt{Started: o.At}
		for _, l := range j.Recipients {
			a.Results = append(a.Results, mailer.Result{ForwardPath: l.ForwardPath, Failure: &mailer.Failure{
				Class: mailer.ClassPermanent, Stage: mailer.StageCompose, Text: "the stored message is gone",
			}})
		}
		o.Attempts = []mailer.Attempt{a}
	}
	return o
}

// schedule looks at the store whenever something there may be due.
func (d *Durable) schedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := d.round(ctx)
		wait := 24 * time.Hour
		if !next.IsZero() {
			wait = min(wait, next.Sub(d.now()))
		}
		timer.Reset(max(wait, 0))
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// storeTrouble is when to look again after the store failed.
const storeTrouble = 5 * time.Second

// round claims what is due, as far as there is room, and returns when to look
// again; zero means when poked.
func (d *Durable) round(ctx context.Context) time.Time {
	d.setWake(time.Time{})
	for ctx.Err() == nil {
		now := d.now()
		waiting, err := d.look(ctx, now)
		if err != nil {
			if ctx.Err() == nil {
				d.log.Error("read queue store", "error", err)
			}
			return now.Add(storeTrouble)
		}
		next, again := waiting.Expiry, false
		for _, r := range waiting.Routes {
			at, claimed, err := d.serve(ctx, r, now)
			if err != nil {
				d.log.Error("claim from queue store", "error", err)
				at = now.Add(storeTrouble)
			}
			next, again = earliest(next, at), again || claimed
		}
		if !again {
			d.setWake(next)
			return next
		}
	}
	return time.Time{}
}

// look expires what waited too long and returns what waits.
func (d *Durable) look(ctx context.Context, now time.Time) (Waiting, error) {
	for !now.Before(d.nextExpiry) {
		ended, err := d.store.Expire(ctx, now, stepMessages)
		if err != nil {
			return Waiting{}, err
		}
		for _, e := range ended {
			d.logExpired(e)
			d.settled(e.ID, e.Final, e.Size)
		}
		if len(ended) < stepMessages {
			break
		}
	}
	waiting, err := d.store.Waiting(ctx, now)
	if err == nil {
		d.nextExpiry = waiting.Expiry
	}
	return waiting, err
}

// settled counts a message that became final outside an attempt.
func (d *Durable) settled(id string, final bool, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(id)
	if final {
		d.credit(Usage{Messages: 1, Bytes: size})
	}
}

// credit takes what became final off the account. The caller holds mu.
func (d *Durable) credit(u Usage) {
	d.moves++
	d.stored.Messages = max(0, d.stored.Messages-u.Messages)
	d.stored.Bytes = max(0, d.stored.Bytes-u.Bytes)
}

// serve claims what is due on a route. at is when to look at it again, zero when
// something else will tell.
func (d *Durable) serve(ctx context.Context, r RouteDue, now time.Time) (at time.Time, claimed bool, err error) {
	limit, at := d.room(r, now)
	if limit == 0 {
		return at, false, nil
	}
	works, err := d.store.Claim(ctx, d.owner, r.Route, now, limit)
	if err != nil {
		return time.Time{}, false, err
	}
	d.enqueue(works)
	return time.Time{}, len(works) > 0, nil
}

// strayLimit is how many messages are claimed at a time from a route that is no
// longer configured, to be filed under the one that is.
const strayLimit = 500

// room returns how many messages may be claimed on a route, or when to look at
// it again.
func (d *Durable) room(r RouteDue, now time.Time) (limit int, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.groups[r.Route]
	switch {
	case d.stuck:
		return 0, now.Add(storeTrouble)
	case g != nil && !g.open(now):
		at = g.reopens()
		if !at.After(now) {
			return 0, time.Time{} // a probe is under way and will tell
		}
		if r.At.After(at) {
			at = r.At
		}
		return 0, at
	case r.At.After(now):
		return 0, r.At
	case g == nil:
		return strayLimit, time.Time{}
	case g.sound():
		d.dispatch(g)
		limit = d.claimRoom() - len(g.claimed)
	case g.active+g.waiting() == 0:
		limit = 1 // the probe
	}
	if limit <= 0 {
		limit, g.backlog = 0, true
	}
	return limit, time.Time{}
}

// enqueue puts claimed work in its group's line. What belongs to another route
// by now, and cannot go there just now, is filed there.
func (d *Durable) enqueue(works []Work) {
	var leases []Lease
	var orphans []*job
	d.mu.Lock()
	now := d.now()
	for _, w := range works {
		g, j := d.groupOf(w.Sender), &job{Work: w}
		switch {
		case g == nil:
			orphans = append(orphans, j)
		case g.route != w.Route && (!g.sound() || len(g.claimed) >= d.claimRoom()):
			leases = append(leases, j.lease(g.route))
			g.backlog = true
		case d.phase == stopping || !g.open(now):
			leases = append(leases, j.lease(g.route))
		default:
			g.claimed = append(g.claimed, j)
			d.dispatch(g)
		}
	}
	d.mu.Unlock()
	d.ledger.release(leases)
	for _, j := range orphans {
		d.ledger.record(d.unrouted(j), j)
	}
}

// unrouted is the outcome when no relay takes the sender's mail any more: it
// waits for the configuration to change, and expires like any other.
func (d *Durable) unrouted(j *job) Outcome {
	o := Outcome{ID: j.ID, Owner: d.owner, Route: j.Route, At: d.now()}
	for _, l := range j.Recipients {
		c := Change{ForwardPath: l.ForwardPath, State: l.State, Tries: l.Tries}
		var ok bool
		if c.Next, ok = nextTry(o.At, j.Expires, longestRetry); !ok {
			c.State = Expired
		}
		o.Changes = append(o.Changes, c)
	}
	d.log.Warn("no relay takes mail from this sender", "id", j.ID, "sender", j.Sender)
	return o
}

// noteWaiting sees to it that a message in the store is looked at in time. The
// caller holds mu.
func (d *Durable) noteWaiting(g *group, due, expires time.Time) {
	now := d.now()
	at := due
	switch {
	case !g.open(now):
		if reopens := g.reopens(); reopens.After(at) {
			at = reopens
		}
	case !due.After(now):
		g.backlog = true
		if len(g.claimed) < d.opts.Workers {
			d.poke()
		}
		return
	}
	d.pokeAt(earliest(at, expires))
}

// poke makes the scheduler look at the store.
func (d *Durable) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pokeAt makes the scheduler look at the store at t or before. The caller holds
// mu.
func (d *Durable) pokeAt(t time.Time) {
	if d.nextWake.IsZero() || t.Before(d.nextWake) {
		d.poke()
	}
}

func (d *Durable) setWake(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nextWake = t
}
