package model

import (
	"cmp"
	"slices"
	"time"

	"mailsidecar/queue"
	"mailsidecar/sim/relay"
)

// passage is how a message came through a calm world.
type passage struct {
	token      string
	lane       queue.Lane
	begun, had time.Time // when its request began, and when it was answered
	sent       time.Time // its first MAIL
	relay      string    // that got it
}

// passages returns the messages that nothing held up but others, in the order in which
// they were sent.
func (c *checker) passages() []passage {
	sent, by := map[string]time.Time{}, map[string]string{}
	for name, r := range c.Relays {
		for _, t := range r.Notes.Mails {
			for _, path := range t.Paths {
				if token := relay.Token(path); sent[token].IsZero() || t.At.Before(sent[token]) {
					sent[token], by[token] = t.At, name
				}
			}
		}
	}
	var list []passage
	for _, r := range c.Requests {
		for _, s := range r.Submissions {
			m := c.byToken[s.Token]
			if r.Answer != Accepted || len(m) != 1 || !s.SendAt.IsZero() || sent[s.Token].IsZero() || c.cramped(m[0]) || c.revived(m[0], s, sent[s.Token]) || m[0].Created.Before(r.Begun.Truncate(time.Microsecond)) {
				continue
			}
			list = append(list, passage{s.Token, m[0].Lane(), r.Begun, r.Ended, sent[s.Token], by[s.Token]})
		}
	}
	slices.SortFunc(list, func(a, b passage) int { return a.sent.Compare(b.sent) })
	return list
}

// cramped says that the message takes much of the memory. It may have to wait for room, which
// each lane has for one message.
func (c *checker) cramped(m *queue.Message) bool {
	return c.Memory > 0 && 4*(m.Size+1024) > c.Memory
}

// revived says that the message had expired before it was sent: a retry by hand let it live
// again.
func (c *checker) revived(m *queue.Message, s Submission, sent time.Time) bool {
	lifetime := cmp.Or(s.Lifetime, c.Lifetime)
	return c.retried[m.ID].count > 0 && lifetime > 0 && sent.After(m.Created.Add(lifetime-lastTry))
}

// What a message that nothing holds up may be overtaken by, as the relay sees MAIL.
const (
	// Later ones of its own lane, beyond one for each that was in line before it: a lane
	// takes from its backlog in the store and from new mail in turn.
	overtakers = 12
	lowerFirst = 12 // later ones of lower priority, where it is high
)

// order: where nothing misbehaves, a message is overtaken by few that came later: of its
// own lane, or of lower priority. With a second relay some go there, while others wait up
// to a minute for the rate of the first.
func (c *checker) order() {
	if !c.Calm || c.Steps || len(c.Lives) != 1 || len(c.Relays) != 1 {
		return
	}
	list := c.passages()
	for i, p := range list {
		own, before, lower := 0, 0, 0
		for _, earlier := range list[:i] {
			switch {
			case earlier.relay != p.relay:
			case !earlier.begun.After(p.had):
				if earlier.lane == p.lane && earlier.sent.After(p.had) {
					before++
				}
			case earlier.lane == p.lane:
				own++
			case earlier.lane.Priority < p.lane.Priority && p.lane.Priority > 0:
				lower++
			}
		}
		if own > overtakers+before || lower > lowerFirst {
			c.fail("order", "%s of lane %v was overtaken by %d of its lane and %d of lower priority that came later", p.token, p.lane, own, lower)
		}
	}
}
