package model

import (
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// start is the first attempt on a message: the order of these is the order in which the
// queue took the messages out of their lines.
type start struct {
	m         *queue.Message
	lane      queue.Lane
	begun     time.Time // when its request began
	had       time.Time // when it was answered: then the message was in line
	at        time.Time // of the attempt
	relay     string
	revived   bool
	scheduled bool // it was to wait for a time, and came into line then
}

// What a message may be overtaken by in line, while nothing goes wrong.
const (
	// ownFirst is for later ones of its own lane, beyond one for each that was in line
	// before it: a lane takes from its backlog in the store and from new mail in turn.
	// What is claimed, and waits for its content, is passed by what has it already.
	ownFirst = 3
	// lowerStart is for later ones of a lower priority.
	lowerStart = 4
)

// line: no message is overtaken by many that came later, of its own lane or of a lower
// priority. That is judged where nothing went wrong while it waited; where a relay or a
// reverse-path rests, the probes are chosen, and what failed waits for another time.
func (c *checker) line() {
	if c.Steps || c.Instances > 1 || len(c.Relays) > 1 && c.rated() {
		return // with two relays some wait for the rate of the first one
	}
	list := c.starts()
	for i, p := range list {
		if p.scheduled || p.revived || c.cramped(p.m) || !c.quiet(p.had, p.at) {
			continue
		}
		own, before, lower := 0, 0, 0
		since := c.inLineSince(p)
		for _, e := range list[:i] {
			switch later := e.begun.After(p.had); {
			case e.relay != p.relay || !e.at.After(since) || e.at.After(p.at.Add(-wire)):
				// Workers that take messages in order at the same moment begin as each has its content.
			case !later && e.lane == p.lane:
				before++
			case !later:
			case e.lane == p.lane:
				own++
			case e.lane.Priority < p.lane.Priority:
				lower++
			}
		}
		c.measured.Own = max(c.measured.Own, own-before)
		c.measured.Lower = max(c.measured.Lower, lower)
		c.measured.Judged++
		if own > ownFirst+before {
			c.fail("line", "%s of lane %v was overtaken by %d of its lane that came later, with %d before it", p.m.Subject, p.lane, own, before)
		}
		if lower > lowerStart && p.lane.Priority == mailer.PriorityHigh {
			c.fail("line", "%s of lane %v was overtaken by %d of lower priority that came later", p.m.Subject, p.lane, lower)
		}
	}
}

// inLineSince is when the message came into line, or came back: a stop brings back what a
// relay had in hand, and leaves no attempt in the story. What passed it until then did not
// overtake it in line.
func (c *checker) inLineSince(p start) time.Time {
	since := p.had
	for _, l := range c.Lives {
		if l.Begun.After(since) && l.Begun.Before(p.at) {
			since = l.Begun
		}
	}
	return since
}

func (c *checker) rated() bool {
	for _, r := range c.Relays {
		if r.Rate.Messages > 0 {
			return true
		}
	}
	return false
}

// starts are the first attempts on the messages whose requests were accepted, in their
// order.
func (c *checker) starts() []start {
	var list []start
	for _, r := range c.Requests {
		for _, s := range r.Submissions {
			m := c.byToken[s.Token]
			if r.Answer != Accepted || len(m) != 1 || len(m[0].Attempts) == 0 || lost(m[0].Attempts[0]) || m[0].Created.Before(r.Begun.Truncate(time.Microsecond)) {
				continue
			}
			first := m[0].Attempts[0]
			list = append(list, start{m[0], m[0].Lane(), r.Begun, r.Ended, first.Started, first.Relay, c.revived(m[0], s, first.Started), !s.SendAt.IsZero()})
		}
	}
	slices.SortFunc(list, func(a, b start) int { return a.at.Compare(b.at) })
	return list
}

// calmBefore is how long before nothing may have gone wrong: relays and reverse-paths rest
// for 5 minutes at most.
const calmBefore = 5*time.Minute + 40*time.Second

// quiet says that nothing went wrong in the time that holds up messages, or some of them.
func (c *checker) quiet(from, to time.Time) bool {
	from = from.Add(-calmBefore)
	return !c.crashed(from, to) && !slices.ContainsFunc(c.troubles, func(t Span) bool { return t.To.After(from) && t.From.Before(to) })
}

// findTroubles collects the failures of the store, and the attempts that failed for another
// reason than the recipient.
func (c *checker) findTroubles() {
	c.troubles = slices.Concat(c.Troubles, c.HeldUp)
	for i := range c.Messages {
		for _, a := range c.Messages[i].Attempts {
			bad := slices.ContainsFunc(a.Results, func(r mailer.Result) bool { return r.Failure != nil && r.Failure.Class != mailer.ClassPermanent })
			if bad || lost(a) {
				c.troubles = append(c.troubles, Span{a.Started, a.Started.Add(a.Duration)})
			}
		}
	}
}
