package queue

import (
	"context"
	"time"
)

const (
	houseInterval = time.Minute
	sweepInterval = 10 * time.Minute
	// sweepLimit and sweepRest keep a sweep from being felt by those who write.
	sweepLimit = 100
	sweepRest  = 20 * time.Millisecond
	// clockSlack is by how much the clock may be off before it counts as set
	// back.
	clockSlack = 30 * time.Second
)

// keepHouse does, until ctx ends, what has time: it says that this instance
// lives, takes over from those that do not, sweeps, and watches the clock.
func (d *Durable) keepHouse(ctx context.Context) {
	tick := time.NewTicker(houseInterval)
	defer tick.Stop()
	began, clock := time.Now(), d.now()
	nextSweep := began
	for {
		if now := time.Now(); !now.Before(nextSweep) {
			nextSweep = now.Add(sweepInterval)
			d.sweep(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if d.countsDoubtful() {
			d.recount(ctx)
		}
		d.takeOver(ctx)
		off := d.now().Sub(clock) - time.Since(began)
		switch {
		case off < -clockSlack:
			d.clockSetBack(ctx, -off)
		case off > clockSlack:
			d.poke() // the scheduler's timer does not know
		}
		clock = clock.Add(off)
	}
}

// countsDoubtful says that the count of what is not final may be off.
func (d *Durable) countsDoubtful() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.recountSoon
}

// clockSetBack repairs the schedule: what was due in a minute by the old clock
// must not wait for a day. The lifetime of messages is not repaired: they live
// that much longer.
func (d *Durable) clockSetBack(ctx context.Context, by time.Duration) {
	d.log.Warn("the clock was set back", "by", by)
	if err := d.store.Rewind(ctx, d.now().Add(houseInterval)); err != nil {
		d.log.Error("repair the schedule", "error", err)
	}
	d.mu.Lock()
	for _, r := range d.relays {
		if !r.until.IsZero() {
			r.until = r.until.Add(-by)
		}
		for i, rests := range r.rests {
			if !rests.IsZero() {
				r.rests[i] = rests.Add(-by)
			}
		}
	}
	d.mu.Unlock()
	d.poke()
}

func (d *Durable) takeOver(ctx context.Context) {
	recovered, err := d.recover(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		d.log.Error("take over leases", "error", err)
	case recovered != Recovered{}:
		d.log.Warn("took over from an instance that is gone",
			"uncertain", recovered.Uncertain, "held", recovered.Held, "released", recovered.Released)
		d.poke()
	}
}

// sweep removes, in small steps, what retention no longer covers.
func (d *Durable) sweep(ctx context.Context) {
	removed := 0
	for {
		n, err := d.store.Sweep(ctx, d.now(), sweepLimit)
		if err != nil {
			if ctx.Err() == nil {
				d.log.Error("sweep queue store", "error", err)
			}
			return
		}
		if removed += n; n == 0 {
			break
		}
		if !sleep(ctx, sweepRest) {
			return
		}
	}
	if removed > 0 {
		d.log.Debug("swept queue store", "removed", removed)
	}
}
