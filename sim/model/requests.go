package model

import (
	"time"

	"mailsidecar/queue"
)

// counts: an accepted message is stored once, and a refused one never, nor sent.
func (c *checker) counts() {
	accepted, unknown, known := map[string]int{}, map[string]int{}, map[string]Submission{}
	names := map[string]bool{}
	for _, r := range c.Requests {
		for _, s := range r.Submissions {
			known[s.Token] = s
			names[s.Token] = names[s.Token] || r.Name != ""
			switch {
			case !s.Valid:
			case r.Answer == Accepted:
				accepted[s.Token]++
			case r.Answer == Unknown:
				unknown[s.Token]++
			}
		}
	}
	for token, s := range known {
		least, most := accepted[token], accepted[token]+unknown[token]
		if names[token] { // all requests with one key are one
			least, most = min(least, 1), min(most, 1)
		}
		if n := len(c.byToken[token]); n < least || n > most {
			c.fail("count", "%s is stored %d times; %d requests with it were accepted, of %d the answer is unknown", token, n, accepted[token], unknown[token])
		}
		if most > 0 {
			continue
		}
		for _, path := range s.Paths {
			if len(c.takes[path]) > 0 {
				c.fail("count", "%s was refused, and a relay took it for %s", token, path)
			}
		}
	}
	for token := range c.byToken {
		if _, ok := known[token]; !ok {
			c.fail("count", "%s is stored, and was never submitted", token)
		}
	}
}

// idempotency: requests with one key are one: one id, one mail, and no other body is
// accepted.
func (c *checker) idempotency() {
	type name struct{ key, name string }
	ids, tokens := map[name]map[string]string{}, map[name]string{}
	for _, r := range c.Requests {
		if r.Name == "" || r.Answer != Accepted {
			continue
		}
		n := name{r.Key, r.Name}
		first := r.Submissions[0].Token
		if before, ok := tokens[n]; ok && before != first {
			c.fail("idempotency", "the key %s was accepted with %s and with %s", r.Name, before, first)
		}
		tokens[n] = first
		if ids[n] == nil {
			ids[n] = map[string]string{}
		}
		for token, id := range r.IDs {
			if before, ok := ids[n][token]; ok && before != id {
				c.fail("idempotency", "%s has the ids %s and %s", token, before, id)
			}
			ids[n][token] = id
		}
	}
}

// waits: each answer comes in time.
func (c *checker) waits() {
	for _, r := range c.Requests {
		if took := r.Ended.Sub(r.Begun); took > r.Wait+c.Slack {
			c.fail("wait", "the answer for %s, which was to wait %v, took %v", r.Submissions[0].Token, r.Wait, took)
		}
	}
	for _, r := range c.Requests {
		if late := c.waitedOn(r); late > time.Second && c.Calm {
			c.fail("wait", "the answer for %s came %v after its outcome", r.Submissions[0].Token, late)
		}
	}
	for _, cmd := range c.Commands {
		if took := cmd.Ended.Sub(cmd.Begun); took > c.Slack {
			c.fail("wait", "the answer to a %s took %v", cmd.Kind, took)
		}
	}
}

// waitedOn is for how long a request waited on when a relay had taken its message for
// all recipients.
func (c *checker) waitedOn(r Request) time.Duration {
	if r.Wait == 0 || len(r.States) == 0 {
		return 0
	}
	last := r.Begun
	for path := range r.States {
		if len(c.takes[path]) == 0 || c.takes[path][0].At.Before(r.Begun) {
			return 0
		}
		if at := c.takes[path][0].At; at.After(last) {
			last = at
		}
	}
	return r.Ended.Sub(last)
}

// answers: what an answer says of the relay is true at that time.
func (c *checker) answers() {
	for _, r := range c.Requests {
		for path, state := range r.States {
			c.seen("the answer to the request", path, state, r.Ended)
		}
		for token, id := range r.IDs {
			if m := c.byID[id]; id != "" && m != nil && tokenOf(m) != token {
				c.fail("answer", "the id given for %s is that of %s", token, tokenOf(m))
			} else if id != "" && m == nil {
				c.fail("answer", "the id %s given for %s is not stored", id, token)
			}
		}
	}
	for _, cmd := range c.Commands {
		for path, state := range cmd.States {
			c.seen("the answer to a "+cmd.Kind, path, state, cmd.Ended)
		}
	}
}

// seen: delivered is not said before a relay did.
func (c *checker) seen(where, path, state string, at time.Time) {
	if queue.State(state) != queue.Delivered {
		return
	}
	for _, t := range c.takes[path] {
		if t.Told && !t.At.After(at) {
			return
		}
	}
	c.fail("answer", "%s says that %s is delivered, and no relay had said so", where, path)
}

// looks: what is final stays as it is, unless a person has it tried again.
func (c *checker) looks() {
	for _, cmd := range c.Commands {
		m := c.byID[cmd.ID]
		if m == nil || cmd.Answer != Accepted {
			continue
		}
		for path, state := range cmd.States {
			is := storyOf(m, path).state
			if !queue.State(state).Final() || string(is) == state {
				continue
			}
			again := (state == string(queue.Bounced) || state == string(queue.Expired)) && c.retried[m.ID].count > 0
			// An attempt that was lost in a crash, or cut off, may be delivered after all.
			if late := is == queue.Delivered; !again && !late {
				c.fail("final", "%s of %s was %s, and is %s", path, m.Subject, state, is)
			}
		}
	}
}
