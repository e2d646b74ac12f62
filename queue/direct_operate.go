package queue

import (
	"context"
	"slices"
	"time"

	"mailsidecar/queue/dispatch"
)

// PauseRelay lets no attempt begin at the relay any more until then, or until
// [Direct.ResumeRelay], in this run; a zero time means no end. Mail that no other relay may
// take is refused with [ErrPaused].
func (d *Direct) PauseRelay(_ context.Context, name string, until time.Time, reason string) (ManualPause, error) {
	if err := d.known(name); err != nil {
		return ManualPause{}, err
	}
	p := ManualPause{Relay: name, Since: time.Now().UTC().Truncate(time.Microsecond), Reason: reason}
	if !until.IsZero() {
		p.Until = until.UTC().Truncate(time.Microsecond)
	}
	d.mu.Lock()
	d.pauses[name], d.told[name] = p, p.Since
	d.mu.Unlock()
	logManual(d.log, p)
	return p, nil
}

// ResumeRelay ends what PauseRelay began; it does nothing where the relay is not paused.
func (d *Direct) ResumeRelay(_ context.Context, name string) error {
	if err := d.known(name); err != nil {
		return err
	}
	d.mu.Lock()
	_, paused := d.pauses[name]
	delete(d.pauses, name)
	d.mu.Unlock()
	if paused {
		logManualEnd(d.log, name, true)
	}
	return nil
}

// ManualPauses lists the relays that a person has paused.
func (d *Direct) ManualPauses() (pauses []ManualPause) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.routes {
		if p := d.pauses[r.Relay.Name()]; !p.Over(time.Now()) && !slices.Contains(pauses, p) {
			pauses = append(pauses, p)
		}
	}
	return pauses
}

// Drain refuses new mail with [ErrDraining] until [Direct.EndDrain].
func (d *Direct) Drain() { d.drain.begin() }

// EndDrain lets new mail in again.
func (d *Direct) EndDrain() { d.drain.end() }

// Drained says how many messages are being handed over.
func (d *Direct) Drained(context.Context) (Drain, error) {
	return d.drain.state(Backlog{Due: d.underWay.Load()}), nil
}

// Ready returns why messages cannot be accepted just now; nil when they can.
func (d *Direct) Ready(context.Context) error { return d.drain.refuses() }

func (d *Direct) known(name string) error {
	var names []string
	for _, r := range d.routes {
		names = append(names, r.Relay.Name())
	}
	return knownRelay(name, names)
}

// unpaused are the routes to relays that no person has paused. why gets the others. The log
// has each pause again where mail meets it an hour later: nothing runs here between messages.
func (d *Direct) unpaused(routes []Route, why *chosen) (open []Route) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, r := range routes {
		name := r.Relay.Name()
		p, paused := d.pauses[name]
		if !paused || p.Over(now) {
			if paused {
				delete(d.pauses, name)
				logManualEnd(d.log, name, false)
			}
			open = append(open, r)
			continue
		}
		if now.Sub(d.told[name]).Abs() >= manualInterval {
			d.told[name] = now
			logManual(d.log, p)
		}
		why.pass(name, dispatch.PausedByOperator)
	}
	return open
}
