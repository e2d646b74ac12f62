package model

import (
	"fmt"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/sim/relay"
)

// each calls f with each recipient of each stored message.
func (c *checker) each(f func(m *queue.Message, path string, s story, takes []taken)) {
	for i := range c.Messages {
		m := &c.Messages[i]
		for _, path := range m.Envelope.ForwardPaths {
			f(m, path, storyOf(m, path), c.takes[path])
		}
	}
}

// finals: each recipient ends in one final state, or waits for a person.
func (c *checker) finals() {
	c.each(func(m *queue.Message, path string, s story, _ []taken) {
		if !s.state.Final() && (s.state != queue.Held || !c.Hold) {
			c.fail("final", "%s of %s is %s in the end", path, m.Subject, s.state)
		}
	})
}

// deliveries: what is delivered a relay took and said so, and what a relay took is
// delivered, or its story has an attempt of which the outcome is unknown.
func (c *checker) deliveries() {
	c.each(func(m *queue.Message, path string, s story, takes []taken) {
		told := slices.ContainsFunc(takes, func(t taken) bool { return t.Told })
		switch {
		case s.state == queue.Delivered && !told:
			c.fail("delivered", "%s of %s is delivered, and no relay said so", path, m.Subject)
		case s.state != queue.Delivered && len(proven(takes)) > 0 && s.uncertain == 0:
			c.fail("delivered", "%s of %s is %s, a relay took it, and no attempt in its story is uncertain", path, m.Subject, s.state)
		}
	})
}

// refusals: what bounced a relay refused for good.
func (c *checker) refusals() {
	c.each(func(m *queue.Message, path string, s story, _ []taken) {
		refused := slices.ContainsFunc(s.quoted, func(r mailer.Result) bool {
			return r.Failure != nil && r.Failure.Class == mailer.ClassPermanent && r.Reply.Code/100 == 5 && r.Failure.Stage >= mailer.StageMail
		})
		if slices.ContainsFunc(s.quoted, c.bouncesForQuota) {
			c.fail("bounced", "%s of %s bounced for a quota of the relay", path, m.Subject)
		}
		if s.state == queue.Bounced && !refused && !s.unfit {
			c.fail("bounced", "%s of %s bounced, and no relay refused it", path, m.Subject)
		}
	})
}

// bouncesForQuota reports whether a result makes permanent what the relay says while its
// quota is used up.
func (c *checker) bouncesForQuota(r mailer.Result) bool {
	name, n, ok := relay.Serial(r.Reply.Text)
	notes := c.Relays[name].Notes
	return ok && r.Failure != nil && r.Failure.Class == mailer.ClassPermanent && n < len(notes.Said) && notes.Said[n].Quota
}

// copies: no recipient gets a message twice, unless the attempt before was uncertain;
// with hold a person must have had it tried again.
func (c *checker) copies() {
	c.each(func(m *queue.Message, path string, s story, takes []taken) {
		again := c.retried[m.ID].count
		switch n := len(proven(takes)); {
		case n > 1+s.uncertain:
			c.fail("copies", "%s of %s was taken %d times, with %d uncertain attempts", path, m.Subject, n, s.uncertain)
		case c.Hold && n > 1+again:
			c.fail("hold", "%s of %s was taken %d times, though uncertain mail is held, and tried again by hand %d times", path, m.Subject, n, again)
		}
	})
}

// cancelSlack is for an attempt that was about to begin when the cancel found it.
const cancelSlack = 5 * time.Millisecond

// cancels: what was canceled is not sent after the answer, and stays canceled. Of what
// was being tried no further attempt begins.
func (c *checker) cancels() {
	for _, cmd := range c.Commands {
		m := c.byID[cmd.ID]
		if cmd.Kind != "cancel" || cmd.Answer != Accepted || m == nil {
			continue
		}
		again := c.retried[m.ID]
		for path, state := range cmd.States {
			if is := storyOf(m, path).state; state == string(queue.Canceled) && is != queue.Canceled {
				c.fail("cancel", "%s of %s was canceled, and is %s", path, m.Subject, is)
			}
			for name, r := range c.Relays {
				for _, t := range r.Notes.Mails {
					late := t.At.After(cmd.Ended.Add(cancelSlack)) && slices.Contains(t.Paths, path) && (!t.Ahead || c.tookIn(name, t, path))
					if late && (state == string(queue.Canceled) || c.begunLate(m, path, cmd.Ended, t.At)) && (again.count == 0 || t.At.Before(again.first)) {
						c.fail("cancel", "%s of %s, %s at the cancel, was sent to %s %v after the answer", path, m.Subject, state, name, t.At.Sub(cmd.Ended))
					}
				}
			}
		}
	}
}

// allCanceled: of what a key had when it had all of it canceled, no attempt begins after the answer.
func (c *checker) allCanceled() {
	for _, cmd := range c.Commands {
		if cmd.Kind != "cancel all" || cmd.Answer != Accepted {
			continue
		}
		for _, r := range c.Requests {
			if r.Key != cmd.Key || r.Answer != Accepted || !r.Ended.Before(cmd.Begun) {
				continue
			}
			for _, s := range r.Submissions {
				for _, m := range c.byToken[s.Token] {
					if cmd.Sender == "" || cmd.Sender == m.Sender {
						c.notSentAfter(m, cmd.Ended)
					}
				}
			}
		}
	}
}

// notSentAfter: no attempt on the message begins after that time, before it is tried again by hand.
func (c *checker) notSentAfter(m *queue.Message, at time.Time) {
	again := c.retried[m.ID]
	for name, r := range c.Relays {
		for _, t := range r.Notes.Mails {
			for _, path := range t.Paths {
				if t.At.After(at.Add(cancelSlack)) && slices.Contains(m.Envelope.ForwardPaths, path) && (again.count == 0 || t.At.Before(again.first)) && c.begunLate(m, path, at, t.At) {
					c.fail("cancel", "%s of %s was sent to %s %v after all was canceled", path, tokenOf(m), name, t.At.Sub(at))
				}
			}
		}
	}
}

// tookIn says that the relay took the message for the recipient in the transaction. The
// envelope alone may lie on the way since before the cancel: behind the content of a
// message that the relay was busy with.
func (c *checker) tookIn(name string, t relay.Transaction, path string) bool {
	return slices.ContainsFunc(c.takes[path], func(k taken) bool { return k.relay == name && k.conn == t.Conn && k.begun.Equal(t.At) })
}

// begunLate says that an attempt on the recipient began after the time, and not after
// the MAIL.
func (c *checker) begunLate(m *queue.Message, path string, at, mail time.Time) bool {
	return !c.Steps && slices.ContainsFunc(m.Attempts, func(a mailer.Attempt) bool {
		return !c.disturbed(at.Add(-c.Slack), a.Started) && a.Started.After(at.Add(cancelSlack)) && !a.Started.After(mail) && !lost(a) && slices.ContainsFunc(a.Results, func(r mailer.Result) bool { return r.ForwardPath == path })
	})
}

// lost says that the attempt is one that a crash interrupted: it has the time of the
// restart.
func lost(a mailer.Attempt) bool {
	return a.Relay == "" || len(a.Results) > 0 && a.Results[0].Failure != nil && a.Results[0].Failure.Text == queue.LostAttempt("").Text
}

// elsewhere: what one relay may have taken goes to no other by itself: neither after an
// uncertain attempt, nor after a crash that left no trace of the attempt.
func (c *checker) elsewhere() {
	c.each(func(m *queue.Message, path string, _ story, takes []taken) {
		if c.retried[m.ID].count > 0 {
			return
		}
		by := ""
		for _, a := range c.inOrder(m.Attempts) {
			for _, r := range a.Results {
				if r.ForwardPath != path {
					continue
				}
				if by != "" && a.Relay != by {
					c.fail("elsewhere", "%s of %s went to %s, though %s may have taken it", path, m.Subject, a.Relay, by)
				}
				if r.Failure != nil && r.Failure.Class == mailer.ClassUncertain {
					by = a.Relay
				}
			}
		}
		for _, t := range proven(takes) {
			for _, u := range proven(takes) {
				if t.relay != u.relay && t.At.Before(u.At) && !c.Relays[t.relay].Strays {
					c.fail("elsewhere", "%s of %s was taken by %s, and then by %s", path, m.Subject, t.relay, u.relay)
				}
			}
		}
	})
}

// inOrder are attempts as they were begun: instances may store theirs in another order.
func (c *checker) inOrder(attempts []mailer.Attempt) []mailer.Attempt {
	if c.Instances < 2 {
		return attempts
	}
	attempts = slices.Clone(attempts)
	slices.SortStableFunc(attempts, func(a, b mailer.Attempt) int { return a.Started.Compare(b.Started) })
	return attempts
}

// lastTry is how long before its end a message is not tried any more.
const lastTry = 10 * time.Second

// expiries: nothing expires before its time, and no MAIL is sent after it.
func (c *checker) expiries() {
	if c.Steps {
		return
	}
	for _, cmd := range c.Commands {
		if m := c.byID[cmd.ID]; m == nil || cmd.Answer != Accepted || c.retried[m.ID].count > 0 {
			continue
		}
		for path, state := range cmd.States {
			if state == string(queue.Expired) && !cmd.Expire.IsZero() && cmd.Ended.Before(cmd.Expire.Add(-lastTry)) {
				c.fail("expired", "%s is expired %v before its time", path, cmd.Expire.Sub(cmd.Ended))
			}
		}
	}
	for _, e := range c.Expired {
		if m := c.byID[e.ID]; m != nil && c.retried[m.ID].count == 0 && e.At.Before(m.Expires.Add(-lastTry)) {
			c.fail("expired", "%s of %s is expired %v before its time", e.Path, m.Subject, m.Expires.Sub(e.At))
		}
	}
	sent := map[string]time.Time{}
	for _, r := range c.Relays {
		for _, t := range r.Notes.Mails {
			for _, path := range t.Paths {
				if !t.Ahead && t.At.After(sent[path]) {
					sent[path] = t.At
				}
			}
		}
	}
	c.each(func(m *queue.Message, path string, _ story, _ []taken) {
		if late := sent[path].Sub(m.Expires); c.retried[m.ID].count == 0 && late > time.Second {
			c.fail("expired", "%s of %s was sent %v after its end", path, m.Subject, late)
		}
	})
}

// schedules: what waits for its time is not sent before it, and waits for the time that
// it was given last.
func (c *checker) schedules() {
	if c.Steps {
		return
	}
	for _, r := range c.Relays {
		for _, t := range r.Notes.Mails {
			for _, path := range t.Paths {
				for _, m := range c.byToken[relay.Token(path)] {
					if early := m.SendAt.Sub(t.At); early > 0 {
						c.fail("schedule", "%s of %s was sent %v before its time", path, m.Subject, early)
					}
				}
			}
		}
	}
	last := map[string]Command{}
	for _, cmd := range c.Commands {
		if cmd.Kind == "move" && cmd.Answer != Refused {
			if before, ok := last[cmd.ID]; ok && cmd.Begun.Before(before.Ended) {
				cmd.Answer = Unknown // which of the two was last is not known
			}
			last[cmd.ID] = cmd
		}
	}
	for id, cmd := range last {
		if m := c.byID[id]; cmd.Answer == Accepted && cmd.To.After(cmd.Ended) && m != nil && !m.SendAt.Equal(cmd.To) {
			c.fail("schedule", "%s was moved to %v, and waits until %v", m.Subject, cmd.To, m.SendAt)
		}
	}
}

// stories: each reply in a story was said by that relay about that recipient, and each
// take has an attempt of its own.
func (c *checker) stories() {
	c.each(func(m *queue.Message, path string, s story, takes []taken) {
		said := map[int]int{}
		for i, r := range s.quoted {
			if why := c.quotes(r, s.attempts[i], path); why != "" {
				c.fail("story", "%s of %s: the story quotes %d %q of relay %s, %s", path, m.Subject, r.Reply.Code, r.Reply.Text, s.attempts[i].Relay, why)
			}
			if _, n, ok := relay.Serial(r.Reply.Text); ok && r.Failure == nil {
				said[n]++
				if said[n] > 1 {
					c.fail("story", "%s of %s: the story has the delivery by %q twice", path, m.Subject, r.Reply.Text)
				}
			}
		}
		if n := len(proven(takes)); n > s.delivered+s.uncertain {
			c.fail("story", "%s of %s was taken %d times; its story has %d deliveries and %d uncertain attempts", path, m.Subject, n, s.delivered, s.uncertain)
		}
	})
}

// quotes says why a result does not quote what that relay said of the recipient.
func (c *checker) quotes(result mailer.Result, in mailer.Attempt, path string) string {
	name, n, ok := relay.Serial(result.Reply.Text)
	if !ok {
		return ""
	}
	notes := c.Relays[name].Notes
	f := result.Failure
	doubtful := f != nil && f.Class != mailer.ClassPermanent && (c.Relays[name].Strays || aboutAll(result.Reply.Code))
	if doubtful {
		return ""
	}
	if name != in.Relay || n >= len(notes.Said) {
		return "which never said that"
	}
	s := notes.Said[n]
	switch {
	case s.Stage >= relay.Mail && !c.Steps && !within(s.At, in):
		return fmt.Sprintf("which said that at %v, and the attempt was at %v and took %v", s.At, in.Started, in.Duration)
	case s.Code != result.Reply.Code:
		return fmt.Sprintf("which said %d", s.Code)
	case s.Path != "" && s.Path != path && c.Relays[name].Strays && (refusedToo(notes, s.Transaction, path) || forged(notes, s.Transaction)):
		// A reply too many before it moved all of them by one; each was a refusal, or a 354 to
		// RCPT stood in the place of that to DATA.
	case s.Path != "" && s.Path != path:
		return "which said that of " + s.Path
	case s.Stage == relay.Dot && !slices.Contains(s.Paths, path):
		return fmt.Sprintf("which said that of %v", s.Paths)
	case s.Transaction >= 0 && s.Stage >= relay.Mail && len(notes.Mails[s.Transaction].Paths) > 0 && !slices.Contains(notes.Mails[s.Transaction].Paths, path):
		return fmt.Sprintf("which said that of the transaction for %v", notes.Mails[s.Transaction].Paths)
	case result.Failure == nil && (s.Stage != relay.Dot || s.Code/100 != 2):
		return "which did not say yes by that"
	}
	return ""
}

// refusedToo says that the relay refused the recipient for good in the transaction.
func refusedToo(notes relay.Notes, transaction int, path string) bool {
	return slices.ContainsFunc(notes.Said, func(s relay.Said) bool {
		return s.Transaction == transaction && s.Path == path && s.Code/100 == 5
	})
}

// forged says that the relay said 354 to RCPT in the transaction.
func forged(notes relay.Notes, transaction int) bool {
	return slices.ContainsFunc(notes.Said, func(s relay.Said) bool {
		return s.Transaction == transaction && s.Stage == relay.Rcpt && s.Code == 354
	})
}

// within says that the time is that of the attempt.
func within(at time.Time, in mailer.Attempt) bool {
	return at.After(in.Started.Add(-wire)) && at.Before(in.Started.Add(in.Duration+wire))
}

// aboutAll says that a reply is about all of the transaction: 421, and 452 for the recipients
// that were too many.
func aboutAll(code int) bool { return code == 421 || code == 452 }

// contents: what a relay took is the whole of that message, and has no Bcc recipient.
func (c *checker) contents() {
	for name, r := range c.Relays {
		for _, wrong := range r.Notes.Foreign {
			c.fail("content", "relay %s: %s", name, wrong)
		}
	}
}
