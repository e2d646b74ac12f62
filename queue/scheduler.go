package queue

import (
	"context"
	"time"

	"mailsidecar/queue/dispatch"
)

// day is how often the store is looked at at least.
const day = 24 * time.Hour

// schedule wakes the dispatcher, and looks at the store, whenever that says so,
// until ctx ends.
func (k *desk) schedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(k.arm())
		select {
		case <-ctx.Done():
			return
		case <-k.nudge:
		case <-timer.C:
			for k.round(ctx) {
			}
		}
	}
}

// arm notes when the scheduler acts by itself, and returns how long that is from
// now.
func (k *desk) arm() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed = k.dispatcher.Wake()
	if k.armed.IsZero() {
		return day
	}
	return min(max(k.armed.Sub(k.now()), 0), day)
}

// round wakes the dispatcher. When that says so it looks at the store once, and
// claims messages that are due, as far as there is room. It says whether there were
// any.
func (k *desk) round(ctx context.Context) (claimed bool) {
	if ctx.Err() != nil {
		return false
	}
	var look bool
	k.event(func(d *dispatch.Dispatcher, now time.Time) (o dispatch.Orders) {
		look, o = d.Tick(now)
		return o
	})
	now := k.now()
	if !look && now.Sub(k.lookedAt).Abs() < day {
		return false
	}
	k.lookedAt = now
	waiting, err := k.readStore(ctx, now)
	if err != nil {
		if ctx.Err() == nil {
			k.log.Error("read queue store", "error", err)
		}
		k.lookFailed(now)
		return false
	}
	var wants []Want
	k.event(func(d *dispatch.Dispatcher, _ time.Time) (o dispatch.Orders) {
		wants, o = d.Looked(waiting, now)
		return o
	})
	if len(wants) == 0 {
		return false
	}
	works, err := k.store.Claim(ctx, k.owner, now, wants)
	if err != nil {
		k.log.Error("claim from queue store", "error", err)
		k.lookFailed(now)
		return false
	}
	k.enqueue(works)
	return len(works) > 0
}

func (k *desk) lookFailed(now time.Time) {
	k.ask(func(d *dispatch.Dispatcher, _ time.Time) { d.LookFailed(now) })
}

// readStore expires messages and returns what waits.
func (k *desk) readStore(ctx context.Context, now time.Time) (Waiting, error) {
	var expire bool
	k.ask(func(d *dispatch.Dispatcher, _ time.Time) { expire = d.Look(now) })
	// One commit expires so many messages.
	const step = 500
	for expire {
		ended, err := k.store.Expire(ctx, now, step)
		if err != nil {
			return Waiting{}, err
		}
		for _, e := range ended {
			k.logExpired(e)
			k.waiters.wake(e.ID)
			if e.Final {
				k.account.settle(Usage{Messages: 1, Bytes: e.Size})
			}
		}
		expire = len(ended) == step
	}
	return k.store.Waiting(ctx, now)
}

// enqueue puts claimed work in line, on the route that its sender has by now.
func (k *desk) enqueue(works []Work) {
	var jobs []*dispatch.Job
	var orphans []Work
	k.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		for _, w := range works {
			name, relays := k.router.route(w.Sender)
			if len(relays) == 0 {
				orphans = append(orphans, w)
				continue
			}
			jobs = append(jobs, newJob(d, w, name, relays, nil))
		}
		d.LookAt(now) // there may be more
		return d.Claimed(jobs, now)
	})
	for _, w := range orphans {
		k.recorder.record(k.unrouted(w), &job{Work: w})
	}
}
