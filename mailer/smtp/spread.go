package smtp

import (
	"slices"
	"sort"
	"time"

	"mailsidecar/mailer"
)

// Whose turn it is within a rate, and when:
//
//   - In no period of the rate's length do more messages set out than it names,
//     wherever the period begins.
//   - Where that is longer than a second, a quarter of them may set out in one
//     go. Then the turns that are left are spread evenly over what is left of the
//     period: else who comes after a newsletter would wait for the next one.
//   - Mail of high priority is not spread. It takes any turn that is left, before
//     all that waits for nothing but the spreading.
//   - Else who is due first is first, see [due].
//
// In the long run the rate is used in full: no turn that is spread comes later
// than the oldest departure leaves the period, and that is when the exact bound
// would let it go.

// spreading is a rate with the rules above.
type spreading struct{ mailer.Rate }

// free is when one more message may set out by the exact bound, from now on.
func (r spreading) free(d departures, now time.Time) time.Time {
	if i := d.len() - r.Messages; i >= 0 {
		return later(now, d.at(i).Add(r.Per))
	}
	return now
}

// spread is when one more message may that is not of high priority.
func (r spreading) spread(d departures, now time.Time) time.Time {
	free := r.free(d, now)
	if d.len() == 0 || r.Per <= time.Second {
		return free
	}
	last := d.at(d.len() - 1)
	// Counted in the period that ends with the last departure: what leaves it later
	// only makes it later that something may come.
	oldest := sort.Search(d.len(), func(i int) bool { return d.at(i).Add(r.Per).After(last) })
	used := d.len() - oldest
	if used < r.burst() {
		return free
	}
	rest := d.at(oldest).Add(r.Per).Sub(last)
	return later(free, last.Add(rest/time.Duration(r.Messages-used+1)))
}

// burst is how many messages may set out in one go.
func (r spreading) burst() int { return max(1, r.Messages/4) }

// next is who of those in line sets out next, and when. Somebody must be there.
func (r spreading) next(d departures, l line, now time.Time) (*turn, time.Time) {
	free, spread := r.free(d, now), r.spread(d, now)
	switch {
	case len(l.urgent) == 0:
		return l.others[0], spread
	case len(l.others) == 0, spread.After(free), !l.others[0].due.Before(l.urgent[0].due):
		return l.urgent[0], free
	default:
		return l.others[0], spread
	}
}

// departures are when messages set out, the oldest first: those that have, and
// behind them those that are foreseen.
type departures struct{ past, foreseen []time.Time }

func (d departures) len() int { return len(d.past) + len(d.foreseen) }

func (d departures) at(i int) time.Time {
	if i < len(d.past) {
		return d.past[i]
	}
	return d.foreseen[i-len(d.past)]
}

// line are those who wait for a turn, who is due first in front.
type line struct{ urgent, others []*turn }

func (l *line) len() int { return len(l.urgent) + len(l.others) }

// of is the part of the line that t stands in.
func (l *line) of(t *turn) *[]*turn {
	if t.urgent {
		return &l.urgent
	}
	return &l.others
}

// add puts t behind those that are due no later.
func (l *line) add(t *turn) {
	part := l.of(t)
	at := len(*part)
	for at > 0 && t.due.Before((*part)[at-1].due) {
		at--
	}
	*part = slices.Insert(*part, at, t)
}

func (l *line) remove(t *turn) {
	part := l.of(t)
	if i := slices.Index(*part, t); i >= 0 {
		*part = slices.Delete(*part, i, i+1)
	}
}

// pass takes out t, which is the first of its part, and leaves the memory alone
// that other copies of the line share.
func (l *line) pass(t *turn) {
	part := l.of(t)
	*part = (*part)[1:]
}

// ahead is how many stand before t, as near as need be.
func (l *line) ahead(t *turn) int { return max(0, slices.Index(*l.of(t), t)) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
