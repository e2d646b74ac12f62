// Package mailer holds the words that composing, queue and relays share: a message
// and its addresses, the envelope and the content that go to the relay, and what
// became of an attempt.
//
// It promises that an address which it has read is safe in an SMTP command and in
// a header field alike, and that a failure is a value: what happened, at which
// stage, and what it means for the mail. Package compose makes the bytes of a
// message, and package smtp hands them to a relay.
package mailer

import (
	"context"
	"fmt"
	"time"
)

// Envelope is the reverse-path and the forward-paths of one transaction
// (RFC 5321 §2.3.1). Addresses are bare addr-specs, without angle brackets;
// domains are A-labels, local parts may be UTF-8 (RFC 6531).
type Envelope struct {
	// ReversePath is the MAIL FROM address; empty is the null reverse-path <>.
	ReversePath string
	// ForwardPaths are the RCPT TO addresses, each once, never empty.
	ForwardPaths []string
	// Priority orders what waits for the same relay. The relay is not told.
	// Package compose sets it by the message's own Precedence field.
	Priority Priority
	// Expires is when it is too late to begin: no MAIL is sent from then on. Zero
	// means never.
	Expires time.Time
	// MaySend is asked before each transaction, before its content and again before the
	// final dot. Once it says no, nothing more is sent: content without its end is thrown away by the
	// relay (RFC 5321 §4.1.1.4). Nil means always.
	MaySend func() bool
}

// Sendable reports whether the message may still be sent, see MaySend.
func (e *Envelope) Sendable() bool { return e.MaySend == nil || e.MaySend() }

// Content is a finished message: header section and body (RFC 5322), as it
// goes to every relay on every attempt.
type Content struct {
	// Data has CRLF line ends and ends with one; no bare CR, bare LF or NUL;
	// no line over 998 octets. It is not dot-stuffed and must not be modified.
	Data []byte
	// MessageID is the Message-ID field's value with its angle brackets.
	MessageID string
	// EightBit says that the body holds an octet over 127, so that the
	// relay must offer 8BITMIME (RFC 6152), or else get the content that
	// compose.SevenBit makes of it.
	EightBit bool
	// UTF8Header says that the header section holds raw UTF-8 (RFC 6532), so that the
	// relay must offer SMTPUTF8 (RFC 6531), or else get the content that
	// compose.ASCIIHeader makes of it.
	UTF8Header bool
}

// DeliveryMemory returns how many octets a delivery needs at most for the content and a
// form of it for a relay without 8BITMIME or SMTPUTF8: quoted-printable has three times
// as many octets. Where relays [Rewrites] any message, there is always a form.
func (c Content) DeliveryMemory(rewritten bool) int64 {
	return DeliveryMemory(int64(len(c.Data)), c.EightBit, c.UTF8Header || rewritten)
}

// DeliveryMemory is [Content.DeliveryMemory] of content that is elsewhere, and has another
// form where its header section does not go as it is stored.
func DeliveryMemory(size int64, eightBit, otherHeader bool) int64 {
	switch {
	case eightBit:
		return 4 * size
	case otherHeader:
		return 2 * size
	default:
		return size
	}
}

// Rewrites reports whether the relay may change any message, such as its From: then a
// delivery needs a copy of the message.
func Rewrites(relay Deliverer) bool {
	r, ok := relay.(interface{ Rewrites() bool })
	return ok && r.Rewrites()
}

// Deliverer hands a finished message to one relay. The Relay of package smtp is the
// real one.
type Deliverer interface {
	// Name identifies the relay in logs, answers and stored attempts.
	Name() string
	// Deliver makes one attempt. It never returns an error: what went wrong is
	// in the attempt's results, one for each forward-path, in envelope order.
	// Ending ctx stops the attempt at once before the final dot; after it, the
	// results still open become [ClassUncertain] and the relay's late verdict
	// is only logged. Recipients for which no transaction has begun when the envelope
	// expires fail with [ErrExpired] then, whatever the delivery waits for. Those that the
	// envelope's MaySend stopped fail with [ErrMayNotSend].
	Deliver(ctx context.Context, env Envelope, c Content) Attempt
}

// Attempt is one try at handing a message to one relay, from connection to
// outcome.
type Attempt struct {
	// Relay is the name of the relay tried.
	Relay string
	// Why says why it was that one, as docs/http-api.md has it; empty where there was no
	// choice. The queue sets it.
	Why string
	// Rung is the port and TLS mode that served; zero when none answered.
	Rung Rung
	// ReversePath is what the relay was given in place of the envelope's; empty where it
	// was that one.
	ReversePath string
	// TLS names the protocol version, such as "TLS 1.3"; empty when clear.
	TLS string
	// Auth is the SASL mechanism used; empty when none.
	Auth string
	// Ladder has a report for each rung that was raced for this attempt, in the
	// ladder's order; empty when a known rung or a kept connection served.
	Ladder   []RungReport
	Started  time.Time
	Duration time.Duration
	// Turns are the times at which messages set out for the relay within its rate: one
	// for each MAIL, in order, but for those that the relay has had noted during the
	// attempt. There are none where the relay has no rate.
	Turns []time.Time
	// Results has one entry for each forward-path of the envelope, in order.
	Results []Result
}

// Result is the outcome of one attempt for one recipient.
type Result struct {
	ForwardPath string
	// Reply is the relay's last reply about this recipient: to the final dot when the
	// message was accepted, else the refusal. Zero when there was none.
	Reply Reply
	// Failure is nil when the relay accepted the message for this recipient.
	Failure *Failure
}

// Rung is one port of a relay's ladder, with its TLS mode.
type Rung struct {
	Port     int
	Implicit bool // TLS from the first octet (RFC 8314 §3.3), else STARTTLS
	Clear    bool // no TLS at all: SMTP_TLS=none only
}

// RungReport is the outcome of one rung in a race.
type RungReport struct {
	Rung     Rung
	Failure  *Failure // nil for the winner, and for a rung that was cut short
	Won      bool
	Duration time.Duration
}

// Mode returns how the rung uses TLS: "starttls", "tls" (implicit) or "none".
func (r Rung) Mode() string {
	switch {
	case r.Clear:
		return "none"
	case r.Implicit:
		return "tls"
	default:
		return "starttls"
	}
}

// String returns the port and the mode, such as "587/starttls".
func (r Rung) String() string { return fmt.Sprintf("%d/%s", r.Port, r.Mode()) }
