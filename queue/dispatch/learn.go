package dispatch

import (
	"slices"
	"time"
)

// What one instance has found out of a relay, and others learn. See [Dispatcher.Learn].

// Probing says whether a delivery that was taken is a probe of the relay, and whether a person has
// asked for it.
func (d *Dispatcher) Probing(relay int, j *Job) (probes, asked bool) {
	p := &d.relays[relay].pause
	return p.probedBy(j), !p.cut.IsZero()
}

// PauseOf is the pause of a relay; without failures where there is none.
func (d *Dispatcher) PauseOf(relay int) Pause { return d.relays[relay].shown() }

// Learn takes over a pause that another instance knows of; one without failures says that there
// is none. Where a delivery was taken as a probe, and another instance probes or the relay is not to be
// asked yet, yields is its job, and it is no probe any more.
func (d *Dispatcher) Learn(relay int, k Pause, yields *Job, now time.Time) (o Orders) {
	h := d.relays[relay]
	if yields != nil {
		h.end(yields)
	}
	was := h.pause.failures
	switch {
	case k.Failures == 0 && was == 0:
		return o
	case k.Failures == 0:
		h.resume()
		d.lookAt(now)
		o = d.dispatchAll(now)
		o.News = &News{Resumed: true, Pause: h.shown()}
		return o
	}
	if k.Reason == nil {
		k.Reason = h.reason
	}
	longer := k.Until.Sub(h.pause.until)
	h.pause.failures, h.pause.since, h.pause.until, h.pause.cut = k.Failures, k.Since, k.Until, time.Time{}
	h.reason = k.Reason
	for _, g := range d.groups {
		if slices.Contains(g.relays, h) {
			d.evict(g, now, &o)
			if was == 0 {
				o.shut(g, now)
			}
			d.dispatch(g, now, &o)
		}
	}
	d.lookAt(h.pause.opens())
	if was == 0 || longer > newsAfter {
		o.News = &News{Paused: true, Pause: h.shown()}
	}
	return o
}
