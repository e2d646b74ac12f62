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
func (k *desk) work(j *dispatch.Job) {
	for ; j != nil; j = k.next(j) {
		k.try(j)
	}
}

// next takes the job that follows on the one done; on nil the worker ends.
func (k *desk) next(done *dispatch.Job) *dispatch.Job {
	k.mu.Lock()
	now := k.now()
	o := k.prepared().Done(done, now)
	var j *dispatch.Job
	if len(o.Begin) > 0 {
		j = o.Begin[0]
		k.begin(o.Begin[1:])
	}
	k.inform(o, now)
	k.mu.Unlock()
	k.follow(o)
	return j
}

// try makes the attempts on one job and hands the outcome over to be recorded.
func (k *desk) try(j *dispatch.Job) {
	work := j.Value.(*job)
	attempts, err := k.attempt(j, work)
	work.content = nil
	switch {
	case err != nil:
		k.log.Error("message could not be tried", "id", j.ID, "error", err)
		k.recorder.record(k.postponed(j, work, err), work)
	case len(attempts) == 0 && k.now().Before(work.Expires):
		// Every relay is paused by now, or was not asked.
		k.recorder.release([]*dispatch.Job{j})
	default:
		k.recorder.record(k.outcome(j, work, attempts), work)
	}
}

// attempt hands the message to the relays in turn until one of them judges it.
func (k *desk) attempt(j *dispatch.Job, work *job) ([]mailer.Attempt, error) {
	if !k.now().Before(work.Expires) {
		return nil, nil
	}
	if work.content == nil {
		c, err := k.store.Content(k.ctx, AnyKey, j.ID)
		if err != nil {
			return nil, err
		}
		work.content = &c
	}
	if k.opts.HoldUncertain {
		if err := k.store.Mark(k.ctx, k.owner, j.ID); err != nil {
			return nil, err
		}
	}
	var attempts []mailer.Attempt
	env := work.Envelope
	env.Expires = work.Expires
	for _, r := range work.relays {
		if !k.take(r, j) {
			continue
		}
		a := k.deliverOnce(k.router.relays[r], env, *work.content)
		k.report(r, j, a)
		env.ForwardPaths = untouched(a)
		if a.Results = attempted(a.Results); len(a.Results) > 0 {
			attempts = append(attempts, a)
		}
		if len(env.ForwardPaths) == 0 || k.ctx.Err() != nil {
			break
		}
	}
	waitForOthers(attempts, len(work.relays))
	return attempts, nil
}

// attempted drops the results of recipients that the relay was not asked about.
func attempted(results []mailer.Result) []mailer.Result {
	return slices.DeleteFunc(results, func(r mailer.Result) bool { return dispatch.NotAsked(r.Failure) })
}

// deliverOnce turns a panic into an attempt of unknown outcome: one message must
// not take the service with it, again at every start.
func (k *desk) deliverOnce(r mailer.Deliverer, env mailer.Envelope, c mailer.Content) (a mailer.Attempt) {
	started := k.now()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		k.log.Error("delivery panicked", "relay", r.Name(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		a = mailer.Attempt{Relay: r.Name(), Started: started, Duration: k.now().Sub(started)}
		for _, path := range env.ForwardPaths {
			a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: &mailer.Failure{
				Class: mailer.ClassUncertain, Stage: mailer.StageContent, Relay: r.Name(), Text: "internal error",
			}})
		}
	}()
	return r.Deliver(k.ctx, env, c)
}

// take says whether an attempt at the relay may begin. It ends with report.
func (k *desk) take(relay int, j *dispatch.Job) (taken bool) {
	k.event(func(d *dispatch.Dispatcher, now time.Time) (o dispatch.Orders) {
		taken, o = d.Take(relay, j, now)
		return o
	})
	return taken
}

// report tells the dispatcher how the relay fared.
func (k *desk) report(relay int, j *dispatch.Job, a mailer.Attempt) {
	if k.ctx.Err() != nil {
		return // our doing, not the relay's
	}
	k.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		return d.Report(relay, j, a, now, k.opts.Random())
	})
}

// outcome decides on each recipient.
func (k *desk) outcome(j *dispatch.Job, work *job, attempts []mailer.Attempt) Outcome {
	o := k.newOutcome(j.ID, j.Route)
	if len(attempts) == 0 { // it has expired
		for _, l := range work.Recipients {
			o.Changes = append(o.Changes, Change{ForwardPath: l.ForwardPath, State: Expired, Tries: l.Tries})
		}
		return o
	}
	o.Changes, o.Attempts = decision{
		now: o.At, hold: k.opts.HoldUncertain, interrupted: k.ctx.Err() != nil, random: k.opts.Random,
	}.decide(work.Work, attempts)
	return o
}

func (k *desk) newOutcome(id, route string) Outcome {
	return Outcome{ID: id, Owner: k.owner, Route: route, At: k.now()}
}

// postponed is the outcome when the store did not give the message: without its
// bytes it will never be sent, otherwise another minute may help.
func (k *desk) postponed(j *dispatch.Job, work *job, cause error) Outcome {
	o := k.newOutcome(j.ID, j.Route)
	gone := errors.Is(cause, ErrContentGone)
	for _, l := range work.Recipients {
		c := Change{ForwardPath: l.ForwardPath, State: l.State, Next: o.At.Add(retry.First), Tries: l.Tries}
		if gone {
			c.State = Bounced
		}
		o.Changes = append(o.Changes, c)
	}
	if gone {
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

// unrouted is the outcome when no relay takes the sender's mail any more: it
// waits for the configuration to change, and expires like any other.
func (k *desk) unrouted(w Work) Outcome {
	o := k.newOutcome(w.ID, w.Route)
	for _, l := range w.Recipients {
		c := Change{ForwardPath: l.ForwardPath, State: l.State, Tries: l.Tries}
		var ok bool
		if c.Next, ok = nextTry(o.At, w.Expires, retry.Longest); !ok {
			c.State = Expired
		}
		o.Changes = append(o.Changes, c)
	}
	k.log.Warn("no relay takes mail from this sender", "id", w.ID, "sender", w.Sender)
	return o
}
