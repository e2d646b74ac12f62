package model

import (
	"slices"
	"time"

	"mailsidecar/sim/relay"
)

// What the product promises of logins that fail.
const (
	freeRefusals          = 2 // that may come at once
	refusalPause          = time.Minute
	manyRefusals          = 5
	longRefusalPause      = 15 * time.Minute
	undecidedPause        = 10 * time.Second // doubles
	longestUndecidedPause = 5 * time.Minute
)

// logins: a login that was refused is tried again rarely, and so is one that was not decided
// on. A new run knows nothing of the one before. Where replies answer no command it is not
// seen what was refused.
func (c *checker) logins() {
	for name, r := range c.Relays {
		if r.Strays {
			continue
		}
		for _, life := range c.Lives {
			c.loginsOf(name, r.Notes.Logins, life)
		}
	}
}

// loginsOf checks the logins of a run. Instances tell each other that a login was accepted, and
// that ends the pauses of all.
func (c *checker) loginsOf(name string, all []relay.Login, life Life) {
	list := slices.DeleteFunc(slices.Clone(all), func(l relay.Login) bool {
		return l.Instance != life.Instance && !l.Accepted || l.Instance == life.Instance && !life.spans(l.At)
	})
	for _, l := range list {
		if l.Instance != life.Instance {
			continue
		}
		b := breakerAt(list, l.At)
		if at := b.next.Add(-wire); l.At.Before(at) {
			c.fail("login", "relay %s saw a login at %v, %v before its time, after %d refused and %d undecided ones", name, l.At, b.next.Sub(l.At), b.refused, b.undecided)
		}
	}
}

func (l Life) spans(at time.Time) bool {
	return !at.Before(l.Begun) && (l.Ended.IsZero() || at.Before(l.Ended))
}

// breaker is what became of the logins of a run, as far as the relay knows that the client
// has learned of it.
type breaker struct {
	refused, undecided int       // in a row
	next               time.Time // when the next login may come
	failed             time.Time // when the last one failed
}

// breakerAt is the state when a login arrives: it was sent a little earlier, so what failed
// just before does not count. An accepted login ends what failed before it began.
func breakerAt(logins []relay.Login, now time.Time) (b breaker) {
	var ended []relay.Login
	var accepted time.Time // when the last one began that had been accepted by now
	for _, l := range logins {
		switch {
		case l.Over.IsZero():
		case l.Accepted && l.Over.Before(now) && l.At.After(accepted):
			accepted = l.At
		case !l.Accepted && l.Over.Add(wire).Before(now):
			ended = append(ended, l)
		}
	}
	slices.SortFunc(ended, func(a, b relay.Login) int { return a.Over.Compare(b.Over) })
	for _, l := range ended {
		if l.Over.After(accepted) {
			b.note(l)
		}
	}
	return b
}

// note adds a login that failed. When the client learned of two at about the same time, it
// may have learned of the refused one later.
func (b *breaker) note(l relay.Login) {
	undecided := b.undecided + 1
	switch {
	case l.Refused:
		b.refused++
		undecided, b.undecided = 0, 0
	case b.refused == 0 || l.Over.Sub(b.failed) > wire:
		b.undecided = undecided
	}
	b.failed = l.Over
	if next := l.Over.Add(pause(b.refused, undecided)); next.After(b.next) {
		b.next = next
	}
}

// pause is how long no login is tried.
func pause(refused, undecided int) (p time.Duration) {
	if undecided > 0 {
		p = min(undecidedPause<<min(undecided-1, 10), longestUndecidedPause)
	}
	switch {
	case refused >= manyRefusals:
		return max(p, longRefusalPause)
	case refused >= freeRefusals:
		return max(p, refusalPause)
	}
	return p
}
