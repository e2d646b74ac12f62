package model

import "time"

// otherSees is how long it takes at most until one instance sees what another one has stored.
const otherSees = 3 * time.Second

// pauses: no attempt begins at a relay that an operator has paused, over restarts and crashes,
// too. What was on its way when the pause began ends: it may still wait for the store.
func (c *checker) pauses() {
	if c.Steps {
		return // the end of a pause is a time of the clock
	}
	slack := c.Slack
	if c.Instances > 1 {
		slack += otherSees
	}
	for _, p := range c.Pauses {
		for i := range c.Messages {
			m := &c.Messages[i]
			for _, a := range m.Attempts {
				if a.Relay == p.Relay && !lost(a) && a.Started.After(p.From.Add(slack)) && a.Started.Before(p.To) && !c.disturbed(p.From, a.Started) {
					c.fail("pause", "an attempt on %s began at %s %v after an operator had paused it, and %v before that ended", m.Subject, p.Relay, a.Started.Sub(p.From), p.To.Sub(a.Started))
				}
			}
		}
	}
}

// drains: nothing new is accepted while the service drains.
func (c *checker) drains() {
	for _, r := range c.Requests {
		if r.Answer != Accepted {
			continue
		}
		for _, d := range c.Drains {
			for _, s := range r.Submissions {
				m := c.byToken[s.Token]
				if r.Instance == d.Instance && r.Begun.After(d.From) && r.Ended.Before(d.To) && len(m) == 1 && c.firstOf(s.Token, &r) {
					c.fail("drain", "%s was accepted %v after the drain began, and %v before it ended", s.Token, r.Begun.Sub(d.From), d.To.Sub(r.Begun))
				}
			}
		}
	}
}

// firstOf says that no earlier request may have stored the message. At another instance a later
// one may have, too, while this one waited.
func (c *checker) firstOf(token string, of *Request) bool {
	for _, r := range c.Requests {
		earlier := r.Begun.Before(of.Begun) || c.Instances > 1 && r.Begun.After(of.Begun) && r.Begun.Before(of.Ended)
		if !earlier || r.Answer == Refused {
			continue
		}
		for _, s := range r.Submissions {
			if s.Token == token {
				return false
			}
		}
	}
	return true
}
