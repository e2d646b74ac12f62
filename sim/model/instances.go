package model

import (
	"slices"
	"time"

	"mailsidecar/sim/relay"
)

// fences: an instance that was taken for gone sends nothing of what was taken from it: no
// content begins, and none ends, until it has leased the message anew. It takes itself for
// gone earlier than the database does, so no octet is under way by then.
func (c *checker) fences() {
	for name, r := range c.Relays {
		for _, t := range r.Notes.Mails {
			if len(t.Paths) == 0 {
				continue
			}
			for _, m := range c.byToken[relay.Token(t.Paths[0])] {
				for what, at := range map[string]time.Time{"begun": t.Begun, "ended": t.Ended} {
					if taken, lost := c.takenFrom(t.Instance, m.ID, at); lost {
						c.fail("fence", "the content of %s was %s at relay %s by instance %d, %v after it was taken from it", m.Subject, what, name, t.Instance, at.Sub(taken))
					}
				}
			}
		}
	}
}

// takenFrom says whether the message was taken from the instance before that time, and not
// leased to it since.
func (c *checker) takenFrom(instance int, id string, at time.Time) (taken time.Time, lost bool) {
	for _, l := range c.Leases {
		if l.Instance == instance && l.ID == id && l.At.Before(at.Add(-wire)) {
			taken, lost = l.At, l.Taken
		}
	}
	return taken, lost
}

// houseBeats is how many sixths of a lease it takes to look for instances that are gone, at
// most, and takeOverTime is for the rest.
const (
	houseBeats   = 2
	takeOverTime = 5 * time.Second
)

// takeOvers: what an instance had that crashed is another's soon after its lease, where one was
// well all the time.
func (c *checker) takeOvers() {
	for _, l := range c.Leases {
		if !l.Taken {
			continue
		}
		for _, life := range c.Lives {
			if life.Instance != l.Instance || !life.Crashed || life.Ended.IsZero() || !life.Ended.Before(l.At) || !c.had(l, life) {
				continue
			}
			late := l.At.Sub(life.Ended) - c.Lease*(6+houseBeats)/6
			if late > takeOverTime && c.someWell(life.Ended, l.At) {
				c.fail("takeover", "a message of instance %d, which crashed at %v, was taken over %v after that, with a lease of %v", l.Instance, life.Ended, l.At.Sub(life.Ended), c.Lease)
			}
		}
	}
}

// had says that the owner of the lease was of that run.
func (c *checker) had(taken Lease, life Life) bool {
	return slices.ContainsFunc(c.Leases, func(l Lease) bool {
		return l.Owner == taken.Owner && !l.Taken && !l.At.Before(life.Begun) && l.At.Before(life.Ended)
	})
}

// disturbed says that something kept instances, of several, from what they had to do.
func (c *checker) disturbed(from, to time.Time) bool {
	overlaps := func(s Span) bool { return s.From.Before(to) && s.To.After(from) }
	return c.Instances > 1 && (slices.ContainsFunc(c.Troubles, overlaps) || slices.ContainsFunc(c.Absences, func(a Absence) bool { return overlaps(a.Span) }))
}

// someWell says that an instance ran all the time, and nothing kept it from its work.
func (c *checker) someWell(from, to time.Time) bool {
	overlaps := func(s Span) bool { return s.From.Before(to) && s.To.After(from) }
	if slices.ContainsFunc(c.Troubles, overlaps) {
		return false
	}
	return slices.ContainsFunc(c.Lives, func(l Life) bool {
		return l.Begun.Before(from) && (l.Ended.IsZero() || l.Ended.After(to)) && !slices.ContainsFunc(c.Absences, func(a Absence) bool {
			return overlaps(a.Span) && (a.Instance == l.Instance || a.Instance == AllInstances)
		})
	})
}
