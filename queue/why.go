package queue

import (
	"strings"

	"mailsidecar/queue/dispatch"
)

// Words for why a relay is asked, beside those of package dispatch. They come before these.
const (
	whyKey    = "key"            // MAILSIDECAR_KEY_RELAYS names it
	whySender = "sender"         // SMTP_SENDERS does
	whyTaken  = "may_have_taken" // it may have taken the message already
)

// chosen says why relays are asked, one after the other. Its zero value says nothing.
type chosen struct {
	by     []string // the key, the sender: what narrows the choice
	first  string   // why the first one was chosen
	passed []string // relays that were asked without success, or not asked, with the reason
	silent bool     // there is one relay only, and no choice
}

// chosenFor begins to say why relays are asked that take mail of a key from a sender.
func (rs Routes) chosenFor(key, sender string) chosen {
	c := chosen{silent: len(rs) < 2}
	all := ofKey(rs, func(r Route) int { return r.Keys[key] })
	if len(all) > 0 && all[0].Keys[key] > 0 {
		c.by = append(c.by, whyKey)
	}
	if len(rs.of(key, sender)) < len(all) {
		c.by = append(c.by, whySender)
	}
	return c
}

// next says why a relay is asked, and notes the reason why the one after it is, if any.
func (c *chosen) next(relay, after string) string {
	words := c.first
	if len(c.passed) > 0 {
		words = dispatch.Failover(c.passed)
	}
	c.passed = append(c.passed, relay+" "+after)
	switch {
	case c.silent:
		return ""
	case words == dispatch.WhyOnly && len(c.by) > 0:
		return strings.Join(c.by, ", ")
	case words == whyTaken:
		return words
	default:
		return strings.Join(append(c.by[:len(c.by):len(c.by)], words), ", ")
	}
}

// pass notes that a relay was not asked.
func (c *chosen) pass(relay, reason string) { c.passed = append(c.passed, relay+" "+reason) }
