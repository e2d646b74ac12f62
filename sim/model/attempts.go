package model

import (
	"slices"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/sim/relay"
)

// attempts: every MAIL that a relay saw belongs to an attempt in the story, and every
// attempt that the relay answered is one that it saw; none stands there twice.
func (c *checker) attempts() {
	if c.Steps {
		return // an attempt has its time by a clock that was set
	}
	for name, r := range c.Relays {
		for i := range r.Notes.Mails {
			c.mailTold(name, &r, &r.Notes.Mails[i])
		}
	}
	for i := range c.Messages {
		m := &c.Messages[i]
		for n, a := range m.Attempts {
			c.twice(m, m.Attempts[:n], a)
			for _, result := range a.Results {
				if !lost(a) && answered(result) && !c.Relays[a.Relay].Strays && !c.sawMail(m, a, result) {
					c.fail("attempt", "%s of %s has an attempt at relay %s at %v with %v, and it saw no MAIL then", result.ForwardPath, m.Subject, a.Relay, a.Started, result.Failure)
				}
			}
		}
	}
}

// mailTold: the story has an attempt for each recipient of a transaction. It need not where
// the run stopped with it; where the other recipients wait for a turn within the rate: then
// the attempt goes on with that turn; where replies answer no command: then there may be
// no verdict; and where the envelope went behind the content of another message, and
// nothing else on that connection: the client left it with that message.
func (c *checker) mailTold(name string, r *Relay, t *relay.Transaction) {
	if r.Rate.Messages > 0 || r.Strays || c.Instances > 1 && !c.Calm || t.Ahead && leftAt(r, t) {
		return
	}
	for _, path := range t.Paths {
		for _, m := range c.byToken[relay.Token(path)] {
			if !slices.ContainsFunc(m.Attempts, func(a mailer.Attempt) bool { return has(a, path) && explains(a, name, t) }) && !c.cutOff(t, m, path) {
				c.fail("attempt", "relay %s saw a MAIL for %s of %s at %v, and its story has no attempt then", name, path, m.Subject, t.At)
			}
		}
	}
}

// leftAt says that the relay got neither content for the transaction nor another one on
// that connection.
func leftAt(r *Relay, t *relay.Transaction) bool {
	return !t.Content && !slices.ContainsFunc(r.Notes.Mails, func(other relay.Transaction) bool {
		return other.Conn == t.Conn && other.At.After(t.At)
	})
}

// explains says that the attempt is the one that the transaction belongs to: or that a run
// later took it for one that may have been made.
func explains(a mailer.Attempt, name string, t *relay.Transaction) bool {
	switch {
	case lost(a):
		return a.Started.After(t.At.Add(-wire))
	case a.Relay != name || a.Started.After(t.At.Add(wire)):
		return false
	}
	return t.Ahead || t.At.Before(a.Started.Add(a.Duration+wire))
}

// cutOff says that the run was stopped in order while the attempt of the transaction may
// have gone on: no other one on the recipient began in that run. An attempt without a
// verdict is not one then.
func (c *checker) cutOff(t *relay.Transaction, m *queue.Message, path string) bool {
	n := c.lifeOf(t)
	if n < 0 {
		return true // it began before the service was seen to serve
	}
	stop := c.Lives[n].Stopping
	return !stop.IsZero() && !slices.ContainsFunc(m.Attempts, func(a mailer.Attempt) bool {
		return has(a, path) && a.Started.After(t.At) && a.Started.Before(stop)
	})
}

func has(a mailer.Attempt, path string) bool {
	return slices.ContainsFunc(a.Results, func(r mailer.Result) bool { return r.ForwardPath == path })
}

// answered says that a result tells of a reply to a command for the message, or of a content
// that was sent.
func answered(r mailer.Result) bool {
	switch f := r.Failure; {
	case f == nil, f.Class == mailer.ClassUncertain:
		return true
	default:
		return f.Stage >= mailer.StageMail && r.Reply.Code != 0 && r.Reply.Code != 421
	}
}

// sawMail says that the relay saw a MAIL in the attempt, and RCPT where the result tells of
// that.
func (c *checker) sawMail(m *queue.Message, a mailer.Attempt, result mailer.Result) bool {
	f := result.Failure
	return slices.ContainsFunc(c.Relays[a.Relay].Notes.Mails, func(t relay.Transaction) bool {
		about := slices.Contains(t.Paths, result.ForwardPath) || f != nil && f.Stage == mailer.StageMail && t.ReversePath == m.Envelope.ReversePath
		return about && within(t.At, a)
	})
}

// twice: no attempt on a recipient stands in the story twice.
func (c *checker) twice(m *queue.Message, before []mailer.Attempt, a mailer.Attempt) {
	for _, b := range before {
		if b.Relay != a.Relay || !b.Started.Equal(a.Started) {
			continue
		}
		for _, r := range a.Results {
			if has(b, r.ForwardPath) {
				c.fail("attempt", "%s of %s has the attempt of %v at relay %q twice", r.ForwardPath, m.Subject, a.Started, a.Relay)
			}
		}
	}
}
