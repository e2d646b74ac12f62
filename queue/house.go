package queue

import (
	"context"
	"time"

	"mailsidecar/queue/dispatch"
)

const (
	houseInterval   = time.Minute
	sweepInterval   = 10 * time.Minute
	summaryInterval = time.Hour
	// summaryTime bounds how long the house waits for the numbers of the summary.
	summaryTime = 10 * time.Second
	// sweepLimit and stepRest keep work of many steps from delaying writes.
	sweepLimit = 100
	stepRest   = 20 * time.Millisecond
	// failInterval is how often the log says that leases cannot be taken over.
	failInterval = time.Minute
	// startRecipients is how many recipients a start takes over before it is ready; the
	// others' turn comes after that.
	startRecipients = 1000
	// clockRepairs is how often the schedule is looked at again after the clock was
	// set back: what was being stored just then has times of the old clock.
	clockRepairs = 5
	// furthest is when a recipient is due at the latest, unless a send_at holds it.
	furthest = time.Hour + time.Hour/8
)

// house does the work that can wait: it says that this instance lives, takes over from
// those that do not, sweeps, and watches the clock.
type house struct {
	shared
	driver *driver
	manual *manual
	drain  *drain
	failed time.Time // when the log last said that leases cannot be taken over
}

// keep works until ctx ends. It begins with what the start has left to be done, which may
// take long where much waits. unfinished says that the leases of the last run are part of
// that.
func (h *house) keep(ctx context.Context, unfinished bool) {
	if unfinished {
		r := h.takeOver(ctx)
		h.log.Info("took over what else was in memory when the last run ended",
			"uncertain", r.Uncertain, "held", r.Held, "released", r.Released, "suspects", r.Suspects, "taking_over", r.More)
	}
	h.rewind(ctx, furthest)
	tick := time.NewTicker(h.owner.interval())
	defer tick.Stop()
	nextSweep, nextSummary, repairs := time.Now(), time.Now().Add(summaryInterval), 0
	for {
		if now := time.Now(); !now.Before(nextSweep) {
			nextSweep = now.Add(sweepInterval)
			if !h.sweep(ctx) {
				nextSweep = now // goes on after the next tick
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.driver.doubted:
		case <-h.owner.lost():
		}
		if h.account.inDoubt() || h.owner.store != nil { // others change what is stored
			h.account.tryRecount(ctx)
		}
		if r := h.takeOver(ctx); r.Any() {
			h.log.Warn("took over from an instance that is gone", "uncertain", r.Uncertain, "held", r.Held, "released", r.Released)
		}
		h.driver.wantLeases()
		h.manual.look(ctx)
		h.drain.look()
		if now := time.Now(); !now.Before(nextSummary) {
			nextSummary = now.Add(summaryInterval)
			h.summarize(ctx)
		}
		if repairs > 0 && h.rewind(ctx, furthest) {
			repairs--
		}
		switch back, forward := h.clock.set(); {
		case back > 0:
			h.clockSetBack(ctx, back)
			repairs = clockRepairs
		case forward:
			h.driver.look() // the scheduler's timer does not know
		}
	}
}

// summarize logs what is in the queue, and what became of mail in the last hour: a log that
// says nothing of mail does not tell whether there was none.
func (h *house) summarize(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, summaryTime)
	defer cancel()
	now := h.now()
	s, err := h.store.Stats(ctx, AnyKey, now)
	if err != nil {
		return // the store's own errors are logged where mail meets them
	}
	logSummary(h.log, s, now)
}

// clockSetBack repairs the schedule: what was due in a minute by the old clock
// must not wait for a day. The lifetime of messages is not repaired: they live
// that much longer.
func (h *house) clockSetBack(ctx context.Context, by time.Duration) {
	h.log.Warn("the clock was set back", "by", by)
	h.driver.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		d.Shift(-by)
		d.LookAt(now)
		return dispatch.Orders{}
	})
	h.rewind(ctx, houseInterval)
}

// rewind makes due after that long what is due later, and says whether it could.
func (h *house) rewind(ctx context.Context, after time.Duration) bool {
	latest := h.now().Add(after)
	for from := ""; ; {
		next, err := h.store.Rewind(ctx, latest, from)
		if err != nil && ctx.Err() == nil {
			h.log.Error("repair the schedule", "error", err)
		}
		h.driver.look()
		if err != nil || next == "" {
			return err == nil
		}
		if from = next; !sleep(ctx, stepRest) {
			return false
		}
	}
}

// takeOver takes the leases of instances that are gone, and returns what it found. More
// says that it had to stop before the end.
func (h *house) takeOver(ctx context.Context) (total Recovered) {
	for {
		step, err := h.recover(ctx)
		if now := time.Now(); err != nil && ctx.Err() == nil && (h.failed.IsZero() || now.Sub(h.failed).Abs() >= failInterval) {
			h.failed = now
			h.log.Error("take over leases", "error", err)
		}
		if err != nil || step.Any() {
			h.driver.look() // an error may be of a commit that happened after all
		}
		total.Add(step)
		if err == nil {
			total.More = step.More
		}
		if err != nil || !step.More || !sleep(ctx, stepRest) {
			return total
		}
	}
}

// begin takes the first leases of instances that are gone: all, unless they are many.
func (h *house) begin(ctx context.Context) (total Recovered, err error) {
	for {
		step, err := h.recover(ctx)
		if err != nil {
			return total, err
		}
		total.Add(step)
		total.Crashes, total.More = step.Crashes, step.More
		if !step.More || total.Uncertain+total.Released >= startRecipients {
			return total, nil
		}
	}
}

// recover takes leases of instances that are gone, in one step.
func (h *house) recover(ctx context.Context) (Recovered, error) {
	if err := h.heartbeat(ctx); err != nil {
		return Recovered{}, err
	}
	h.account.begin()
	recovered, err := h.store.Recover(ctx, h.owner.now(), h.now(), h.opts.HoldUncertain)
	h.account.end(Usage{}, err == nil && !recovered.Any())
	for _, b := range recovered.Blamed {
		h.log.Error("message held because the service crashed with it", "id", b.ID, "reverse_path", b.ReversePath,
			"forward_paths", b.ForwardPaths)
		h.trouble.blame(b.ID)
	}
	return recovered, err
}

// sweepSteps is how many steps a sweep has before the house looks after the rest.
const sweepSteps = 1000

// sweep removes, in small steps, what retention no longer covers. It says whether that was
// all.
func (h *house) sweep(ctx context.Context) (all bool) {
	removed, n := 0, 1
	for step := 0; n > 0 && step < sweepSteps; step++ {
		var err error
		if n, err = h.store.Sweep(ctx, h.now(), sweepLimit); err != nil {
			if ctx.Err() == nil {
				h.log.Error("sweep queue store", "error", err)
			}
			return true // until the next sweep
		}
		removed += n
		if n > 0 && !sleep(ctx, stepRest) {
			return true
		}
	}
	if removed > 0 {
		h.log.Debug("swept queue store", "removed", removed)
	}
	return n == 0
}
