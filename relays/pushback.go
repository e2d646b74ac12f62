package relays

import (
	"slices"
	"strings"

	"mailsidecar/mailer"
)

// Pushback is what a reply says of the load that we put on the relay.
type Pushback int

const (
	NoPushback         Pushback = iota
	TooManyConnections          // for this relay, or for this account or address of ours
	TooFast                     // too many messages in too short a time
)

// PushbackOf reads the pushback out of a reply. Codes alone do not tell: 450 and
// 451 with 4.7.1 also mean greylisting, and 452 at RCPT too many recipients. A
// 421 without such words is [NoPushback] here: when it comes has to tell.
func PushbackOf(stage mailer.Stage, r mailer.Reply) Pushback {
	subject := strings.TrimPrefix(r.Enhanced, "4")
	aboutMailbox := stage == mailer.StageRcpt && (strings.HasPrefix(subject, ".1.") || strings.HasPrefix(subject, ".2.")) &&
		!contains(r, "relay limit")
	switch {
	case r.Code/100 != 4, aboutMailbox, EndsConnection(r):
		return NoPushback
	case r.Code == 432, containsAny(r, connectionWords):
		return TooManyConnections
	case containsAny(r, paceWords):
		return TooFast
	case subject == ".4.5", subject == ".3.2": // congestion; not accepting messages
		return TooFast
	case subject == ".3.1", r.Code == 452: // no room, as Exchange says under pressure
		if stage != mailer.StageRcpt {
			return TooFast
		}
	}
	return NoPushback
}

// EndsConnection reports whether the relay ends the connection for a reason that
// lies in this connection, such as its number of messages or its idle time.
func EndsConnection(r mailer.Reply) bool {
	return r.Enhanced == "4.4.2" || containsAny(r, endWords)
}

// TooManyRecipients reports whether the relay refuses a recipient because of the number
// of those before it, whatever the code: 452 (RFC 5321 §4.5.3.1.10), 552 of old, or 550
// 5.5.3.
func TooManyRecipients(r mailer.Reply) bool {
	return strings.HasSuffix(r.Enhanced, ".5.3") || contains(r, "too many recipients")
}

// What relays say in so many words.
var (
	endWords = []string{
		"too many errors", "too many nonmail", "too many unrecognized", "too many syntax", "too many messages in", "per connection",
		"this connection", "per session", "this session", "timeout", "timed out", "idle",
	}
	connectionWords = []string{
		"too many connections", "too many concurrent", "concurrent connection", "connections from", "connection limit",
		"maximum number of connections", "concurrent smtp", "thread limit", "simultaneous",
	}
	paceWords = []string{
		"rate limit", "ratelimit", "sending rate", "message rate", "unusual rate", "rate exceeded", "rate of", "relay limit",
		"throttl", "slow down", "too fast", "too quickly", "too much mail", "server busy", "server is busy", "too busy", "congest",
	}
)

func containsAny(r mailer.Reply, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return contains(r, w) })
}
