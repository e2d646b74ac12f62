package model

import (
	"slices"
	"strings"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// aside is how far apart attempts are of which none kept a relay or a worker busy for the
// other.
const aside = 100 * time.Millisecond

// deal is a message that was given to a relay; without a message it is a moment after which
// the turns are not known.
type deal struct {
	m           *queue.Message
	relay       string
	from, until time.Time
	begins      bool // of a run of the service
}

// deals are all attempts, and what else moves turns, in their order.
func (c *checker) deals() []deal {
	var list []deal
	for i := range c.Messages {
		m := &c.Messages[i]
		for _, a := range m.Attempts {
			if maybeTaken(a) {
				c.troubles = append(c.troubles, Span{a.Started, a.Started.Add(a.Duration)})
			}
			list = append(list, deal{m: m, relay: a.Relay, from: a.Started, until: a.Started.Add(a.Duration)})
		}
	}
	for _, cmd := range c.Commands {
		if cmd.Kind == "cancel" || cmd.Kind == "cancel all" { // it may take back what was dealt
			list = append(list, deal{from: cmd.Begun, until: cmd.Ended})
		}
	}
	for _, l := range c.Lives {
		list = append(list, deal{from: l.Begun, until: l.Begun, begins: true})
	}
	slices.SortStableFunc(list, func(a, b deal) int { return a.from.Compare(b.from) })
	return list
}

// inHandAtEnd are the times before the ends of runs in which a relay may have had a message in
// hand whose attempt that end cut short: it leaves no attempt in the story, and the relay's
// turn is used all the same.
func (c *checker) inHandAtEnd() (spans []Span) {
	for _, l := range c.Lives {
		from := l.Ended
		for i := range c.Messages {
			if since, open := openAt(&c.Messages[i], l.Ended); open && since.Before(from) {
				from = since
			}
		}
		if from.Before(l.Ended) {
			spans = append(spans, Span{from, l.Ended})
		}
	}
	return spans
}

// openAt says whether the message may have been in a relay's hands at that time, and since when.
func openAt(m *queue.Message, at time.Time) (since time.Time, open bool) {
	since = m.Created
	more := len(m.Attempts) == 0 || m.Status() == queue.StatusCanceled
	for _, a := range m.Attempts {
		switch end := a.Started.Add(a.Duration); {
		case lost(a) || end.After(at):
			more = true
		case end.After(since):
			since = end
		}
	}
	return since, more && !m.SendAt.After(at)
}

// maybeTaken says that an attempt did not only go well, or meet a recipient that was
// refused: then the relay may rest, or the message belongs to it from then on.
func maybeTaken(a mailer.Attempt) bool {
	return slices.ContainsFunc(a.Results, func(r mailer.Result) bool {
		return r.Failure != nil && (r.Failure.Stage != mailer.StageRcpt || r.Failure.Class == mailer.ClassUncertain)
	})
}

// hand is the mail of a route, as it was dealt out in a stretch of time.
type hand struct {
	relays []string
	got    []string // the relay of each message, in their order
}

// shares: while nothing goes wrong, and no relay is busy, each relay of a route gets its
// share of any number of messages in a row, give or take two: it may have had too little
// before, or too much. What has no weight beside one that has gets none; without weights the
// first relay gets all.
func (c *checker) shares() {
	if c.Instances > 1 {
		return // each deals out its own
	}
	if c.Steps || len(c.Relays) < 2 {
		return
	}
	deals, hands, proven := c.deals(), map[string]*hand{}, map[string]bool{}
	inHand := c.inHandAtEnd()
	end := func(route string) {
		c.judge(hands[route])
		delete(hands, route)
	}
	endAll := func() {
		for route := range hands {
			end(route)
		}
	}
	for i, d := range deals {
		calm := (i == 0 || d.from.Sub(deals[i-1].until) > aside) && (i+1 == len(deals) || deals[i+1].from.Sub(d.until) > aside) && c.quiet(d.from, d.until) &&
			!slices.ContainsFunc(inHand, func(t Span) bool { return d.until.After(t.From) && d.from.Before(t.To) })
		switch {
		case d.begins:
			endAll()
			for name := range c.Relays {
				proven[name] = true // nothing is known against it
			}
			continue
		case d.m == nil, !calm:
			endAll()
			if !calm {
				clear(proven)
			}
			continue
		}
		relays := c.takers(d.m.Key, domainOf(d.m.Envelope.ReversePath))
		route := strings.Join(relays, ",")
		known := !slices.ContainsFunc(relays, func(name string) bool {
			return c.Relays[name].Rate.Messages > 0 || c.owed(name, relays) && !proven[name]
		})
		proven[d.relay] = true
		switch {
		case !known:
			end(route)
		case !slices.ContainsFunc(d.m.Attempts, func(a mailer.Attempt) bool { return maybeTaken(a) && a.Started.Before(d.from) }):
			if hands[route] == nil {
				hands[route] = &hand{relays: relays}
			}
			hands[route].got = append(hands[route].got, d.relay)
		}
	}
	endAll()
}

// owed says that a relay gets mail of the route while it is well.
func (c *checker) owed(name string, relays []string) bool {
	weight, _ := c.weight(name, relays)
	return weight > 0
}

// weight is the share of a relay, and what all have.
func (c *checker) weight(name string, relays []string) (weight, of int) {
	for _, other := range relays {
		of += c.Relays[other].Weight
	}
	if of > 0 {
		return c.Relays[name].Weight, of
	}
	if name == relays[0] {
		return 1, 1
	}
	return 0, 1
}

// judge checks each stretch of messages for each relay.
func (c *checker) judge(h *hand) {
	if h == nil {
		return
	}
	c.measured.Dealt += len(h.got)
	for _, name := range h.relays {
		weight, of := c.weight(name, h.relays)
		for from := range h.got {
			n := 0
			for i, got := range h.got[from:] {
				if got == name {
					n++
				}
				off := n*of - (i+1)*weight // in messages times all
				if off >= 2*of || off <= -2*of || off != 0 && (weight == 0 || weight == of) {
					c.fail("share", "relay %s of %v got %d of %d messages in a row, with a weight of %d in %d", name, h.relays, n, i+1, weight, of)
					return
				}
			}
		}
	}
}
