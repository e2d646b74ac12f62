package alerts

import (
	"cmp"
	"slices"
	"time"
)

const (
	// Hourly and Daily are how often people are reminded of what lasts.
	Hourly = time.Hour
	Daily  = 24 * time.Hour
	// calm is how long a condition must be gone to be over. What comes back earlier has
	// lasted. Each time that it comes back later, the next end must be twice as long,
	// up to longestCalm: what comes and goes for days is told about twice an hour.
	calm        = 2 * time.Minute
	longestCalm = time.Hour
	// memory is how long an end is remembered for that.
	memory = 6 * time.Hour
	// maxHourly limits the messages within any hour.
	maxHourly = 30
	// maxConditions is far over what a configuration can bring about.
	maxConditions = 500
)

// Book knows what one [Target] was told, and decides what it is to be told now. The zero
// value has told nothing. It is not safe for concurrent use.
type Book struct {
	entries map[string]*entry
	sent    []time.Time // of the last hour
	leftOut int         // conditions that came and went untold
}

// entry is what is known of one condition.
type entry struct {
	Condition
	since    time.Time
	gone     time.Time     // since when it is gone; zero: it is there
	present  time.Duration // how long it was there, from one look to the next
	seen     time.Time     // the last look; zero: it was gone or unknown then
	told     time.Time     // when it was told last; zero: never
	resolved time.Time     // when its end was told; zero: it was not
	calm     time.Duration
	unknown  bool // at the last look
	missed   bool // the limit has kept it from being told
}

// Look takes what is wrong at this moment: all of it.
func (b *Book) Look(now time.Time, present []Condition) {
	if b.entries == nil {
		b.entries = map[string]*entry{}
	}
	seen := map[*entry]bool{}
	for _, c := range present {
		if e := b.see(now, c); e != nil {
			seen[e] = true
		}
	}
	for id, e := range b.entries {
		if !seen[e] && b.miss(now, e) {
			delete(b.entries, id)
		}
	}
}

// see notes a condition that is there, and returns its entry; nil where it is not known
// whether it is there, and never was, and where there are too many.
func (b *Book) see(now time.Time, c Condition) *entry {
	e := b.entries[c.id()]
	if c.Unknown {
		if e != nil {
			e.unknown, e.seen = true, time.Time{}
		}
		return e
	}
	switch {
	case e == nil && len(b.entries) >= maxConditions:
		return nil
	case e == nil:
		e = &entry{since: now, calm: calm}
		b.entries[c.id()] = e
	case !e.resolved.IsZero():
		*e = entry{since: now, calm: min(2*e.calm, longestCalm)}
	}
	if !e.seen.IsZero() {
		e.present += now.Sub(e.seen)
	}
	e.Condition, e.gone, e.unknown, e.seen = c, time.Time{}, false, now
	return e
}

// miss notes that a condition is not there, and reports whether to forget it.
func (b *Book) miss(now time.Time, e *entry) bool {
	e.unknown, e.seen = false, time.Time{}
	if e.gone.IsZero() {
		e.gone = now
	}
	switch {
	case !e.resolved.IsZero():
		return now.Sub(e.resolved) >= memory
	case !e.told.IsZero():
		return false // its end is to be told
	case now.Sub(e.gone) < e.calm:
		return false
	}
	if e.missed {
		b.leftOut++
	}
	return true
}

// due is what is to be told of the condition now; empty for nothing.
func (e *entry) due(now time.Time) State {
	switch {
	case e.unknown, !e.resolved.IsZero():
		return ""
	case !e.gone.IsZero():
		if !e.told.IsZero() && now.Sub(e.gone) >= e.calm {
			return Resolved
		}
		return ""
	case e.told.IsZero():
		if e.present >= e.After {
			return Firing
		}
		return ""
	case now.Sub(e.told) >= cmp.Or(e.Again, Hourly):
		return Lasting
	default:
		return ""
	}
}

// Next returns the message to send now: what is new first, what is over next, and reminders
// last. It returns the same one until [Book.Told] is called or something changes.
func (b *Book) Next(now time.Time) (Message, bool) {
	b.sent = slices.DeleteFunc(b.sent, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	if len(b.sent) >= maxHourly {
		for _, e := range b.entries {
			e.missed = e.missed || e.due(now) == Firing
		}
		return Message{}, false
	}
	if b.leftOut > 0 {
		return Message{State: LeftOut, LeftOut: b.leftOut, Condition: Condition{Severity: Warning}}, true
	}
	var due []Message
	for _, e := range b.entries {
		if state := e.due(now); state != "" {
			due = append(due, Message{State: state, Condition: e.Condition, Since: e.since, Ended: e.gone})
		}
	}
	if len(due) == 0 {
		return Message{}, false
	}
	return slices.MinFunc(due, func(m, n Message) int {
		return cmp.Or(cmp.Compare(rank(m), rank(n)), m.Since.Compare(n.Since), cmp.Compare(m.id(), n.id()))
	}), true
}

// rank is lower for what matters more.
func rank(m Message) int {
	switch {
	case m.State == Firing && m.Severity == Critical:
		return 0
	case m.State == Firing:
		return 1
	case m.State == Resolved:
		return 2
	default:
		return 3
	}
}

// Told notes that the message has been sent.
func (b *Book) Told(m Message, now time.Time) {
	b.sent = append(b.sent, now)
	if m.State == LeftOut {
		b.leftOut -= m.LeftOut
		return
	}
	e := b.entries[m.id()]
	if e == nil || !e.since.Equal(m.Since) {
		return
	}
	if m.State != Resolved {
		e.told, e.missed = now, false
		return
	}
	// It may be back by now: then it is new at the next look.
	e.resolved = now
}
