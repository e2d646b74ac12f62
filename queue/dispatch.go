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
	spare   bool            // in the hands of a spare worker
}

// lease is what the job holds in the store. It is given back to the route.
func (j *job) lease(route string) Lease { return Lease{j.ID, route, j.Envelope.ForwardPaths} }

// claimRoom is how many messages of a group are claimed ahead of the workers.
func (d *Durable) claimRoom() int { return 4 * d.opts.Workers }

// dispatch starts workers for what waits in memory and may be tried. The caller
// holds mu.
func (d *Durable) dispatch(g *group) {
	for j := d.begin(g); j != nil; j = d.begin(g) {
		d.deliveries.Go(func() { d.work(g, j) })
	}
}

// work delivers j, and what waits for the group until nothing more can be.
func (d *Durable) work(g *group, j *job) {
	for ; j != nil; j = d.next(g, j) {
		d.try(g, j)
	}
}

// next takes the job that follows on the one done; on nil the worker ends.
func (d *Durable) next(g *group, done *job) *job {
	d.mu.Lock()
	defer d.mu.Unlock()
	g.done(done)
	j := d.begin(g)
	d.dispatch(g) // the relay may have use for more than before
	return j
}

// begin takes the next job to be tried. The caller holds mu.
func (d *Durable) begin(g *group) *job {
	j := d.pick(g)
	if j == nil {
		return nil
	}
	if l := g.lane(j.Lane()); l.backlog && l.low() {
		l.backlog = false
		d.poke()
	}
	for _, w := range d.watches[j.ID] {
		w.inHand = true
	}
	return j
}

// forgo gives back the memory of a job that is done with.
func (d *Durable) forgo(j *job, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if fresh {
		d.fresh -= d.memoryCost(j.Size)
		return
	}
	d.loaded -= d.memoryCost(j.Size)
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
		// Every relay was paused meanwhile, or its rate is used up.
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
		if !d.take(r, env.Priority) {
			continue
		}
		a := d.deliverOnce(r, env, *j.content)
		d.report(r, env.Priority, a)
		env.ForwardPaths = untouched(a)
		if a.Results = asked(a.Results); len(a.Results) > 0 {
			attempts = append(attempts, a)
		}
		if len(env.ForwardPaths) == 0 || d.deliverCtx.Err() != nil {
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

func (d *Durable) take(r *relay, p mailer.Priority) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return r.take(d.now(), p)
}

// report notes how the relay fared with a message of priority p. What waits in
// memory for a relay that is paused goes back to the store, and those who wait
// for an answer get it.
func (d *Durable) report(r *relay, p mailer.Priority, a mailer.Attempt) {
	if d.deliverCtx.Err() != nil {
		return // our doing, not the relay's
	}
	d.mu.Lock()
	now := d.now()
	rests, news := r.rest(a, p, now)
	news = news && d.phase == running
	paused, resumed, probed := r.report(a, now, d.opts.Random())
	var leases []Lease
	for _, g := range d.groups {
		if !g.has(r) {
			continue
		}
		if paused || rests {
			leases = append(leases, d.evict(g, func(p mailer.Priority) bool { return !g.open(now, p) })...)
		}
		if resumed {
			g.probes = 0
		}
		d.dispatch(g)
	}
	switch {
	case paused:
		d.pokeAt(r.until)
	case resumed, probed:
		d.poke()
	case rests:
		d.pokeAt(r.rests[level(p)])
	}
	pause, until := Pause{r.Name(), r.failures, r.until, r.reason}, r.rests[level(p)]
	d.mu.Unlock()
	d.ledger.release(leases)
	if news {
		d.log.Info("rate used up", "relay", pause.Relay, "setting", "SMTP_RATE", "priority", p.String(), "until", until)
	}
	d.logRelay(pause, paused, resumed)
}

func everyPriority(mailer.Priority) bool { return true }

// evict takes what is of a priority that is shut out of the group's memory, and
// ends the waiting for it, there or in the store. The caller holds mu and
// releases the leases.
func (d *Durable) evict(g *group, shut func(mailer.Priority) bool) []Lease {
	var leases []Lease
	for _, l := range g.lanes {
		if !shut(l.Priority) {
			continue
		}
		for _, j := range l.fresh {
			d.fresh -= d.memoryCost(j.Size)
			leases = append(leases, j.lease(g.route))
		}
		for _, j := range l.claimed {
			leases = append(leases, j.lease(g.route))
		}
		l.fresh, l.claimed = nil, nil
	}
	g.tidy()
	for id, watches := range d.watches {
		if w := watches[0]; w.group == g && !w.inHand && shut(w.priority) {
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
		now: o.At, hold: d.opts.HoldUncertain, interrupted: d.deliverCtx.Err() != nil, random: d.opts.Random,
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
		wants, next := d.wants(waiting.Lanes, now)
		next = earliest(next, waiting.Expiry)
		claimed, err := d.claim(ctx, wants, now)
		if err != nil {
			d.log.Error("claim from queue store", "error", err)
			next = earliest(next, now.Add(storeTrouble))
		}
		if !claimed {
			d.setWake(next)
			return next
		}
	}
	return time.Time{}
}

// expireStep is how many messages one commit expires.
const expireStep = 500

// look expires what waited too long and returns what waits.
func (d *Durable) look(ctx context.Context, now time.Time) (Waiting, error) {
	for !now.Before(d.nextExpiry) {
		ended, err := d.store.Expire(ctx, now, expireStep)
		if err != nil {
			return Waiting{}, err
		}
		for _, e := range ended {
			d.logExpired(e)
			d.settled(e.ID, e.Final, e.Size)
		}
		if len(ended) < expireStep {
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

// claim claims what is wanted, and says whether that was anything.
func (d *Durable) claim(ctx context.Context, wants []Want, now time.Time) (bool, error) {
	if len(wants) == 0 {
		return false, nil
	}
	works, err := d.store.Claim(ctx, d.owner, now, wants)
	if err != nil {
		return false, err
	}
	d.enqueue(works)
	return len(works) > 0, nil
}

// wants says what may be claimed of the lanes, and when to look at them again,
// zero when something else will tell.
func (d *Durable) wants(lanes []LaneDue, now time.Time) (wants []Want, next time.Time) {
	due := map[string]int{} // lanes, by route
	for _, l := range lanes {
		if !l.At.After(now) {
			due[l.Route]++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range d.groups {
		d.dispatch(g)
	}
	probes := map[*group][]Want{}
	for _, l := range lanes {
		limit, at := d.room(l, due[l.Route], now)
		next = earliest(next, at)
		want := Want{l.Route, l.Lane, limit}
		switch g := d.groups[l.Route]; {
		case limit == 0:
		case g == nil || g.sound():
			wants = append(wants, want)
		default:
			probes[g] = append(probes[g], want)
		}
	}
	for g, candidates := range probes {
		// The lanes take turns, for it may be a message that makes the trouble.
		wants = append(wants, candidates[g.probes%len(candidates)])
		g.probes++
	}
	return wants, next
}

const (
	// strayLimit is how many messages are claimed at a time from a lane of a
	// route that is no longer configured, to be filed under the one that is.
	strayLimit = 500
	// leastRoom is how many messages of a lane are claimed however many lanes
	// there are.
	leastRoom = 4
)

// room returns how many messages may be claimed of a lane, one of so many that
// have something due on its route, or when to look at it again.
func (d *Durable) room(due LaneDue, lanes int, now time.Time) (limit int, at time.Time) {
	g := d.groups[due.Route]
	switch {
	case d.stuck:
		return 0, now.Add(storeTrouble)
	case g != nil && !g.open(now, due.Lane.Priority):
		at = g.reopens(due.Lane.Priority)
		if !at.After(now) {
			return 0, time.Time{} // a probe is under way and will tell
		}
		if due.At.After(at) {
			at = due.At
		}
		return 0, at
	case due.At.After(now):
		return 0, due.At
	case g == nil:
		return strayLimit, time.Time{}
	}
	l := g.lane(due.Lane)
	switch {
	case g.sound():
		l.room = max(d.claimRoom()/lanes, leastRoom)
		if limit = l.room - len(l.claimed); limit < l.room/2 { // not worth a commit
			limit = 0
		}
	case g.active+g.waiting() == 0:
		limit = 1 // the probe
	}
	l.backlog = limit == 0
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
		case g.route != w.Route && (!g.sound() || len(g.lane(j.Lane()).claimed) >= d.claimRoom()):
			leases = append(leases, j.lease(g.route))
			g.lane(j.Lane()).backlog = true
		case d.phase == stopping || !g.open(now, j.Envelope.Priority):
			leases = append(leases, j.lease(g.route))
		default:
			g.add(j)
		}
	}
	// Not before all lanes have theirs.
	for _, g := range d.groups {
		d.dispatch(g)
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

// noteWaiting sees to it that a message of a lane in the store is looked at in
// time. The caller holds mu.
func (d *Durable) noteWaiting(g *group, of Lane, due, expires time.Time) {
	now := d.now()
	at := due
	switch l := g.lane(of); {
	case !g.open(now, of.Priority):
		if reopens := g.reopens(of.Priority); reopens.After(at) {
			at = reopens
		}
	case !due.After(now):
		l.backlog = true
		if l.low() {
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
