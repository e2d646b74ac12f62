package queue

import (
	"context"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// day is how often the store is looked at at least.
const day = 24 * time.Hour

// schedule wakes the dispatcher, and looks at the store, whenever that says so,
// until ctx ends.
func (dr *driver) schedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(dr.arm())
		select {
		case <-ctx.Done():
			return
		case <-dr.nudge:
		case <-dr.compare:
			dr.compareLeases(ctx)
		case <-timer.C:
			for dr.round(ctx) {
			}
		}
	}
}

// arm notes when the scheduler acts by itself, and returns how long that is from
// now.
func (dr *driver) arm() time.Duration {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	dr.armed = dr.dispatcher.Wake()
	longest := dr.owner.longest()
	if dr.armed.IsZero() {
		return longest
	}
	return min(max(dr.armed.Sub(dr.now()), 0), longest)
}

// round wakes the dispatcher. When that says so it looks at the store once, and
// claims messages that are due, as far as there is room. It says whether there were
// any.
func (dr *driver) round(ctx context.Context) (claimed bool) {
	if ctx.Err() != nil {
		return false
	}
	var look, compare bool
	dr.event(func(d *dispatch.Dispatcher, now time.Time) (o dispatch.Orders) {
		look, o = d.Tick(now)
		compare = look && dr.leasesDoubtful
		return o
	})
	if compare {
		dr.compareLeases(ctx)
	}
	now := dr.now()
	if since := now.Sub(dr.lookedAt).Abs(); !look && (since < dr.owner.longest() || dr.failed && since < day) {
		return false
	}
	dr.lookedAt, dr.failed = now, false
	if !dr.owner.trusted() { // it may lease nothing, or would have to give it back
		dr.ask(func(d *dispatch.Dispatcher, _ time.Time) { d.Look(now) })
		dr.lookFailed(now)
		return false
	}
	dr.peers.learnLately(ctx)
	waiting, err := dr.readStore(ctx, now)
	if err != nil {
		if ctx.Err() == nil {
			dr.log.Error("read queue store", "error", err)
		}
		dr.lookFailed(now)
		return false
	}
	var wants []Want
	dr.event(func(d *dispatch.Dispatcher, _ time.Time) (o dispatch.Orders) {
		wants, o = d.Looked(waiting, now)
		return o
	})
	if len(wants) == 0 {
		return false
	}
	dr.ask(func(*dispatch.Dispatcher, time.Time) { dr.cancels.claim() })
	owner := dr.owner.now()
	works, err := dr.store.Claim(ctx, owner, now, wants)
	if err != nil {
		dr.log.Error("claim from queue store", "error", err)
		dr.ask(func(*dispatch.Dispatcher, time.Time) { dr.cancels.landed() })
		dr.lookFailed(now)
		dr.doubtLeases()
		return false
	}
	dr.enqueue(owner, works)
	return len(works) > 0
}

// lookFailed has the store looked at again after a while.
func (dr *driver) lookFailed(now time.Time) {
	dr.failed = true
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) { d.LookFailed(now) })
}

// expireStep is how many messages are expired before others have a turn to be claimed.
const expireStep = 500

// readStore expires messages, some at a time, and returns what waits.
func (dr *driver) readStore(ctx context.Context, now time.Time) (Waiting, error) {
	var expire, more bool
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) { expire = d.Look(now) })
	if expire {
		ended, err := dr.expire(ctx, now)
		if err != nil {
			return Waiting{}, err
		}
		more = ended == expireStep
	}
	waiting, err := dr.store.Waiting(ctx, now)
	if more {
		waiting.Expiry = now
	}
	return waiting, err
}

// expire expires some messages, and returns how many.
func (dr *driver) expire(ctx context.Context, now time.Time) (int, error) {
	dr.account.begin()
	ended, err := dr.store.Expire(ctx, now, expireStep)
	var settled Settled
	for _, e := range ended {
		dr.logExpired(e)
		for range e.ForwardPaths {
			dr.opts.Meter.Ended(Expired, mailer.PriorityNormal, 0)
		}
		dr.waiters.wake(e.ID)
		if e.Final {
			settled = settled.plus(Usage{Messages: 1, Bytes: e.Size})
		}
	}
	dr.account.end(Usage{}.minus(settled), err == nil)
	return len(ended), err
}

// enqueue puts work in line that owner has claimed. What has another route by now than the one it is filed
// under goes back to the store first, which must know where it goes.
func (dr *driver) enqueue(owner string, works []Work) {
	var jobs, release []*dispatch.Job
	var orphans []Work
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		for _, w := range works {
			name, relays := dr.router.now(&w)
			if len(relays) == 0 {
				orphans = append(orphans, w)
				continue
			}
			j := dr.newJob(d, w, owner, name, relays, nil)
			if !dr.cancels.arrive(j, dr.cancels.claimed[j.ID], &release) {
				continue
			}
			if name != w.Route {
				release = append(release, j)
				continue
			}
			jobs = append(jobs, j)
		}
		dr.cancels.landed()
		d.LookAt(now) // there may be more
		o := d.Claimed(jobs, now)
		o.Release = append(o.Release, release...)
		return o
	})
	for _, w := range orphans {
		work := &job{Work: w, owner: owner}
		if relay := TakenBy(w.Route); relay != "" {
			dr.recorder.record(dr.stranded(work, relay), work)
			continue
		}
		dr.recorder.record(dr.unrouted(work), work)
	}
}
