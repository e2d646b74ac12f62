package queue

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// work delivers j, and further jobs until none begins any more.
func (dr *driver) work(j *dispatch.Job) {
	for ; j != nil; j = dr.next(j) {
		dr.try(j)
	}
}

// next takes the job that follows on the one done; on nil the worker ends.
func (dr *driver) next(done *dispatch.Job) *dispatch.Job {
	dr.mu.Lock()
	now := dr.now()
	o := dr.prepared().Done(done, now)
	var j *dispatch.Job
	if len(o.Begin) > 0 {
		j = o.Begin[0]
		dr.begin(o.Begin[1:])
	}
	dr.inform(o, now)
	dr.mu.Unlock()
	dr.follow(o)
	return j
}

// try makes the attempts on one job and hands the outcome over to be recorded.
func (dr *driver) try(j *dispatch.Job) {
	work := j.Value.(*job)
	attempts, err := dr.attemptAlone(j, work)
	work.content = nil
	switch {
	case errors.Is(err, ErrLeaseLost):
		dr.recorder.release([]*dispatch.Job{j}) // which does nothing where another owner has it
	case errors.Is(err, ErrUnavailable):
		// Nothing was sent, and its turn is when the database is back. Until then nothing begins,
		// for the lease cannot be given back either.
		dr.recorder.release([]*dispatch.Job{j})
	case errors.Is(err, ErrContentGone) && dr.isFinal(work):
		dr.recorder.release([]*dispatch.Job{j})
	case err != nil:
		dr.log.Error("message could not be tried", "id", j.ID, "error", err)
		dr.recorder.record(dr.postponed(j, work, err), work)
	case len(attempts)+len(work.turns) == 0 && dr.now().Before(work.Expires):
		// Every relay is paused by now, or was not asked, or it was canceled.
		dr.recorder.release([]*dispatch.Job{j})
	default:
		o := dr.outcome(j, work, attempts)
		if len(o.Attempts)+len(work.turns) == 0 && dr.now().Before(work.Expires) {
			// The stop cut it short before any verdict. It keeps its place in line, which an
			// outcome would give it anew.
			dr.recorder.release([]*dispatch.Job{j})
			return
		}
		dr.recorder.record(o, work)
	}
}

// isFinal says that the store has a verdict on all recipients of the job by now: an instance
// that was suspended has said late what became of them, after this one had taken over.
func (dr *driver) isFinal(work *job) bool {
	m, err := dr.store.Get(dr.ctx, AnyKey, work.ID)
	if errors.Is(err, ErrNotFound) {
		return true
	}
	return err == nil && !slices.ContainsFunc(work.Recipients, func(l Leased) bool {
		return !slices.ContainsFunc(m.Recipients, func(r Recipient) bool { return r.ForwardPath == l.ForwardPath && r.State.Final() })
	})
}

// attempt hands the message to the relays in turn until one of them judges it.
func (dr *driver) attempt(j *dispatch.Job, work *job) ([]mailer.Attempt, error) {
	if !dr.now().Before(work.Expires) {
		return nil, nil
	}
	if !dr.mayKeep(work) {
		return nil, ErrLeaseLost
	}
	if work.content == nil {
		c, err := dr.store.Content(dr.ctx, AnyKey, j.ID)
		if err != nil {
			return nil, err
		}
		work.content = &c
	}
	var attempts []mailer.Attempt
	env := work.Envelope
	env.Expires, env.MaySend = work.Expires, dr.maySend(work)
	relays, why := dr.chosen(j, work)
	for _, r := range relays {
		if shut := dr.take(r, j); shut != "" {
			why.pass(dr.router.relays[r].Name(), shut)
			continue
		}
		may, probes := dr.peers.mayProbe(dr.ctx, r, j)
		if !may {
			why.pass(dr.router.relays[r].Name(), "paused")
			continue
		}
		if probes {
			defer dr.peers.probed(r)
		}
		if err := dr.mark(j, dr.router.relays[r].Name(), env.ForwardPaths); err != nil {
			if len(attempts) == 0 && !errors.Is(err, ErrCanceled) {
				return nil, err
			}
			dr.log.Debug("message is not tried at a further relay", "id", j.ID, "error", err)
			break
		}
		a := dr.deliverOnce(dr.router.relays[r], env, *work.content)
		a.Relay = dr.router.relays[r].Name() // by which it is filed, see [TakenRoute]
		a.Why = why.next(a.Relay, "failed")
		ofMessage := dr.report(r, j, a)
		work.turns = append(work.turns, turnsOf(dr.router.relays[r], a)...)
		env.ForwardPaths = untouched(a)
		if ofMessage {
			onOwnSchedule(a.Results)
		}
		if a.Results = attempted(a.Results); len(a.Results) > 0 {
			attempts = append(attempts, a)
		}
		if len(env.ForwardPaths) == 0 || dr.ctx.Err() != nil {
			break
		}
	}
	waitForOthers(attempts, len(work.relays))
	return attempts, nil
}

// mark notes in the store, where it cannot tell otherwise, that content is about to be sent
// to a relay. The error is [ErrCanceled] when the message was canceled meanwhile, and [ErrLeaseLost]
// when another owner has it, or may have it soon.
func (dr *driver) mark(j *dispatch.Job, relay string, forwardPaths []string) error {
	work := j.Value.(*job)
	if !marks(work.owner, j.Route) {
		return nil
	}
	l := lease(j)
	l.Route, l.ForwardPaths = TakenRoute(relay), forwardPaths
	if err := dr.store.Mark(dr.ctx, work.owner, l, work.turns[work.noted:]); err != nil {
		switch {
		case errors.Is(err, ErrLeaseLost):
			dr.owner.doubt()
			dr.doubtOwner()
		case errors.Is(err, ErrCanceled): // at another instance
			dr.ask(func(*dispatch.Dispatcher, time.Time) { work.canceled = true })
		}
		return err
	}
	work.noted = len(work.turns)
	if dr.canceled([]*job{work})[work] {
		return ErrCanceled
	}
	return nil
}

// attempted drops the results of recipients that the relay was not asked about.
func attempted(results []mailer.Result) []mailer.Result {
	return slices.DeleteFunc(results, func(r mailer.Result) bool { return dispatch.NotAsked(r.Failure) })
}

// deliverOnce turns a panic into an attempt of unknown outcome: one message must
// not take the service with it, again at every start.
func (dr *driver) deliverOnce(r mailer.Deliverer, env mailer.Envelope, c mailer.Content) (a mailer.Attempt) {
	started := dr.now()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		dr.opts.Meter.Panicked()
		dr.log.Error("delivery panicked", "relay", r.Name(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		a = mailer.Attempt{Relay: r.Name(), Started: started, Duration: dr.now().Sub(started)}
		for _, path := range env.ForwardPaths {
			a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: &mailer.Failure{
				Class: mailer.ClassUncertain, Stage: mailer.StageContent, Relay: r.Name(), Text: "internal error",
			}})
		}
	}()
	return r.Deliver(dr.ctx, env, c)
}

// chosen returns the relays to ask, in order, and why it is these.
func (dr *driver) chosen(j *dispatch.Job, work *job) (relays []int, why chosen) {
	why = dr.router.routes.chosenFor(work.Key, work.Sender)
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) { relays, why.first = d.Chosen(j) })
	if TakenBy(j.Route) != "" {
		why.first = whyTaken
	}
	return relays, why
}

// take begins an attempt at the relay, which ends with report. Otherwise it returns why
// none may begin: none does once the message was canceled.
func (dr *driver) take(relay int, j *dispatch.Job) (shut string) {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) (o dispatch.Orders) {
		if shut = "canceled"; !j.Value.(*job).canceled {
			var taken bool
			if taken, o = d.Take(relay, j, now); taken {
				shut = ""
			} else {
				shut = d.Shut(relay, j, now)
			}
		}
		return o
	})
	return shut
}

// report tells the dispatcher how the relay fared. It returns whether a failure that reads
// as the relay's is the message's own.
func (dr *driver) report(relay int, j *dispatch.Job, a mailer.Attempt) (ofMessage bool) {
	if dr.ctx.Err() != nil {
		return false // our doing, not the relay's
	}
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		o := d.Report(relay, j, a, now, dr.opts.Random())
		ofMessage = o.OfMessage
		return o
	})
	return ofMessage
}

// onOwnSchedule makes failures transient that read as the relay's.
func onOwnSchedule(results []mailer.Result) {
	for i, r := range results {
		if r.Failure != nil && r.Failure.Class == mailer.ClassRelay {
			f := *r.Failure
			f.Class = mailer.ClassTransient
			results[i].Failure = &f
		}
	}
}

// outcome decides on each recipient.
func (dr *driver) outcome(j *dispatch.Job, work *job, attempts []mailer.Attempt) Outcome {
	o := dr.newOutcome(work, j.Route)
	if len(attempts)+len(work.turns) == 0 { // it has expired
		for _, l := range work.Recipients {
			o.Changes = append(o.Changes, Change{ForwardPath: l.ForwardPath, State: Expired, Tries: l.Tries})
		}
		return o
	}
	o.Changes, o.Attempts = decision{
		now: o.At, hold: dr.opts.HoldUncertain, interrupted: dr.ctx.Err() != nil, random: dr.opts.Random,
	}.decide(work.Work, attempts)
	return o
}

func (dr *driver) newOutcome(work *job, route string) Outcome {
	return Outcome{ID: work.ID, Owner: work.owner, Route: route, At: dr.now(), Turns: work.turns[work.noted:], Lease: work.Lease}
}

// waits is the outcome of a job that was not tried, and is due again then.
func (dr *driver) waits(j *dispatch.Job, work *job, next time.Time) Outcome {
	o := dr.newOutcome(work, j.Route)
	for _, l := range work.Recipients {
		o.Changes = append(o.Changes, Change{ForwardPath: l.ForwardPath, State: l.State, Next: next, Tries: l.Tries})
	}
	return o
}

// postponed is the outcome when the store did not give the message: without its
// bytes it will never be sent, otherwise another minute may help.
func (dr *driver) postponed(j *dispatch.Job, work *job, cause error) Outcome {
	o := dr.waits(j, work, dr.now().Add(retry.First))
	if errors.Is(cause, ErrContentGone) {
		for i := range o.Changes {
			o.Changes[i].State = Bounced
		}
		a := mailer.Attempt{Started: o.At}
		for _, l := range work.Recipients {
			a.Results = append(a.Results, mailer.Result{ForwardPath: l.ForwardPath, Failure: &mailer.Failure{
				Class: mailer.ClassPermanent, Stage: mailer.StageCompose, Text: "the stored message is gone",
			}})
		}
		o.Attempts = []mailer.Attempt{a}
	}
	return o
}

// stranded is the outcome when the relay that may have taken a message is not configured
// any more, or may not have it: no other one gets it until a person says so.
func (dr *driver) stranded(w *job, relay string) Outcome {
	o := dr.newOutcome(w, w.Route)
	a, why := mailer.Attempt{Started: o.At}, "is not configured any more"
	if len(dr.router.named(relay)) > 0 {
		why = "takes no mail of this key and sender any more"
	}
	for _, l := range w.Recipients {
		o.Changes = append(o.Changes, Change{ForwardPath: l.ForwardPath, State: Held, Tries: l.Tries})
		a.Results = append(a.Results, mailer.Result{ForwardPath: l.ForwardPath, Failure: &mailer.Failure{
			Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: relay,
			Text: "this relay may have accepted the message, and " + why + "; a retry sends it through another one",
		}})
	}
	o.Attempts = []mailer.Attempt{a}
	dr.log.Warn("the relay that may have accepted a message cannot have it any more", "id", w.ID, "relay", relay, "cause", why)
	return o
}

// unrouted is the outcome when no relay takes the sender's mail any more: it
// waits for the configuration to change, and expires like any other.
func (dr *driver) unrouted(w *job) Outcome {
	o := dr.newOutcome(w, w.Route)
	for _, l := range w.Recipients {
		c := Change{ForwardPath: l.ForwardPath, State: l.State, Tries: l.Tries}
		var ok bool
		if c.Next, ok = nextTry(o.At, w.Expires, retry.Longest); !ok {
			c.State = Expired
		}
		o.Changes = append(o.Changes, c)
	}
	dr.log.Warn("no relay takes mail from this sender", "id", w.ID, "sender", w.Sender)
	return o
}
