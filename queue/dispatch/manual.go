package dispatch

import (
	"slices"
	"time"
)

// ManualPause says that a person keeps mail from a relay, whether it fares well or not. No
// attempt begins there; those under way end. What may go to another relay does.
type ManualPause struct {
	Relay  string // its name; empty: there is no such pause
	Since  time.Time
	Until  time.Time // zero: until [Dispatcher.EndPause]
	Reason string    // in the person's words; may be empty
}

// Never is when a relay opens that a person has paused without an end.
var Never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Opens is when the pause is over: [Never] where it has no end, zero when there is none.
func (p *ManualPause) Opens() time.Time {
	switch {
	case p.Relay == "":
		return time.Time{}
	case p.Until.IsZero():
		return Never
	default:
		return p.Until
	}
}

// Over says that the pause has ended by itself.
func (p *ManualPause) Over(now time.Time) bool { return !now.Before(p.Opens()) }

// Pause keeps mail from a relay because a person wants it. What waits in memory for it
// goes to another relay, or back to the store.
func (d *Dispatcher) Pause(relay int, p ManualPause, now time.Time) (o Orders) {
	h := d.relays[relay]
	h.manual = p
	for _, g := range d.groups {
		if slices.Contains(g.relays, h) {
			d.evict(g, now, &o)
			o.shut(g, now)
			d.dispatch(g, now, &o)
		}
	}
	d.lookAt(p.Opens())
	return o
}

// EndPause ends what Pause began. A pause of the relay for its own trouble goes on.
func (d *Dispatcher) EndPause(relay int, now time.Time) Orders {
	d.relays[relay].manual = ManualPause{}
	d.lookAt(now)
	return d.dispatchAll(now)
}

// endPauses ends those whose time is over.
func (d *Dispatcher) endPauses(now time.Time) {
	for _, h := range d.relays {
		if h.manual.Relay != "" && h.manual.Over(now) {
			h.manual = ManualPause{}
		}
	}
}

// ManualPauses lists the relays that a person has paused.
func (d *Dispatcher) ManualPauses(now time.Time) []ManualPause {
	var pauses []ManualPause
	for _, h := range d.relays {
		if !h.manual.Over(now) {
			pauses = append(pauses, h.manual)
		}
	}
	return pauses
}
