package smtp

import (
	"slices"
	"sort"
	"time"

	"mailsidecar/units"
)

// schedule says which delivery has the next turn within a rate, and when:
//
//   - No period of the rate's length, wherever it begins, has more messages than the
//     rate names: the limit.
//   - If the period is longer than a second, a quarter of the messages may start as a
//     burst. The rest is spread evenly over what is left of the period; otherwise
//     mail sent after a newsletter would wait for the next period.
//   - Mail of high priority is not spread. It takes any turn that the limit leaves,
//     before mail that only waits because it is spread.
//   - Otherwise the earliest due goes first, see [due].
//
// Over time the rate is used in full: spreading never delays a turn beyond the time
// at which the oldest start leaves the period, when the limit would allow it anyway.
type schedule struct{ units.Rate }

// free returns when the limit allows one more message, not before from. Outstanding ones
// start now, as far as the limit is concerned.
func (r schedule) free(d departures, now, from time.Time) time.Time {
	i := d.len() - r.Messages
	switch {
	case i < 0:
		return from
	case d.isOutstanding(i):
		return laterOf(from, now.Add(r.Per))
	default:
		return laterOf(from, d.at(i).Add(r.Per))
	}
}

// spread returns when one more message may start that is not of high priority, not
// before from.
func (r schedule) spread(d departures, now, from time.Time) time.Time {
	free := r.free(d, now, from)
	if d.len() == 0 || r.Per <= time.Second {
		return free
	}
	last := d.at(d.len() - 1)
	// Count in the period that ends with the last start, not now: so the time of a
	// turn does not move while a delivery waits for it.
	oldest := d.after(last.Add(-r.Per))
	used := d.len() - oldest
	if used < r.burst() {
		return free
	}
	rest := d.at(oldest).Add(r.Per).Sub(last)
	return laterOf(free, last.Add(rest/time.Duration(r.Messages-used+1)))
}

// burst returns how many messages may start at once.
func (r schedule) burst() int { return max(1, r.Messages/4) }

// next returns which delivery in line starts next, and when. The line must not be
// empty.
func (r schedule) next(d departures, l line, now, from time.Time) (*turn, time.Time) {
	free, spread := r.free(d, now, from), r.spread(d, now, from)
	switch {
	case len(l.urgent) == 0:
		return l.others[0], spread
	case len(l.others) == 0, spread.After(free), !l.others[0].due.Before(l.urgent[0].due):
		return l.urgent[0], free
	default:
		return l.others[0], spread
	}
}

// departures are the times at which messages started, the oldest first, after them
// those that have their turn and may start at any moment, and then those that are
// foreseen.
type departures struct {
	past        []time.Time
	outstanding []*turn
	foreseen    []time.Time
}

func (d departures) len() int { return len(d.past) + len(d.outstanding) + len(d.foreseen) }

func (d departures) isOutstanding(i int) bool {
	return i >= len(d.past) && i < len(d.past)+len(d.outstanding)
}

// at returns the i-th time. For an outstanding message that is the time of its turn,
// but not before the last start: so messages are spread as if each started with its
// turn, and one that hangs does not delay the turns of others.
func (d departures) at(i int) time.Time {
	switch {
	case i < len(d.past):
		return d.past[i]
	case !d.isOutstanding(i):
		return d.foreseen[i-len(d.past)-len(d.outstanding)]
	case len(d.past) == 0:
		return d.outstanding[i].at
	default:
		return laterOf(d.past[len(d.past)-1], d.outstanding[i-len(d.past)].at)
	}
}

// after returns the index of the first time after t, of which there is one.
func (d departures) after(t time.Time) int {
	i := sort.Search(len(d.past), func(i int) bool { return d.past[i].After(t) })
	for i >= len(d.past) && !d.at(i).After(t) {
		i++
	}
	return i
}

// line holds the deliveries that wait for a turn, the earliest due in front.
type line struct{ urgent, others []*turn }

func (l *line) len() int { return len(l.urgent) + len(l.others) }

// of returns the part of the line that t belongs to.
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

// pass takes out t, the first of its part. It does not change the memory that copies
// of the line share.
func (l *line) pass(t *turn) {
	part := l.of(t)
	*part = (*part)[1:]
}

// ahead returns how many of its part are before t.
func (l *line) ahead(t *turn) int { return max(0, slices.Index(*l.of(t), t)) }

// earlierOf returns the earlier of two times.
func earlierOf(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// laterOf returns the later of two times.
func laterOf(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
