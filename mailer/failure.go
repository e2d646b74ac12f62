package mailer

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Class is what a failure means for the recipient and for the relay. Which reply has
// which class at which stage is said in mailer/smtp/classify.go; [Failure.Scope] is
// the other half of that policy.
type Class int

const (
	// ClassTransient: try again later (a 4yz reply, no clear reply, or a 5yz to MAIL
	// that need not be about the mail). [Failure.Scope] tells more.
	ClassTransient Class = iota
	// ClassPermanent: the relay refused this message or recipient with a 5yz
	// reply, or the message is provably unsendable.
	ClassPermanent
	// ClassRelay: the relay was not reached, or refused us rather than the
	// mail. The mail waits and the relay is marked.
	ClassRelay
	// ClassUncertain: the final dot was sent and no valid reply was read. The
	// message may or may not have been accepted (RFC 1047).
	ClassUncertain
)

var classNames = [...]string{"transient", "permanent", "relay", "uncertain"}

func (c Class) String() string { return classNames[c] }

// Stage is the part of the dialogue in which a failure happened.
type Stage int

const (
	StageCompose  Stage = iota // before any connection: the message itself
	StageConnect               // name look-up and TCP
	StageGreeting              // the 220 banner
	StageEHLO
	StageStartTLS
	StageTLS // handshake and certificate
	StageAuth
	StageMail
	StageRcpt
	StageData    // the DATA command
	StageContent // the message, the final dot and the reply to it
)

var stageNames = [...]string{
	"compose", "connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "content",
}

func (s Stage) String() string { return stageNames[s] }

// ErrPushedBack is the cause of a [Failure] by a reply that asks for fewer
// connections or a lower rate, from a relay that accepts other messages at the same
// time. It is not about this message, and the relay is not in trouble.
var ErrPushedBack = errors.New("the relay asked for less at a time")

// ErrCannotTake is the cause of a permanent [Failure] that is about this relay and
// this message together: the message is over the relay's SIZE (5.3.4), or needs
// 8BITMIME (5.6.3) or SMTPUTF8 (5.6.7), which the relay does not offer. Another relay
// may take it. It is final only when no relay of the route can.
var ErrCannotTake = errors.New("the relay cannot take the message")

// ErrSenderRefused is the cause of a permanent [Failure] that is about this relay and
// this sender together: the relay does not take mail of this reverse-path or From field,
// because the account does not own it, or it is not verified there. Another relay may
// take it. It is final only when no relay of the route does. With a transient failure it
// says that a reply which may pass is about this sender.
var ErrSenderRefused = errors.New("the relay does not take mail of this sender")

// ErrRefusesMany is the cause of a transient [Failure] by a 5yz reply which the relay has
// given to several unrelated messages in a row, and taken no mail meanwhile: it may
// refuse all mail, or all of this sender.
var ErrRefusesMany = errors.New("the relay refuses unrelated messages with the same words")

// ErrExpired is the cause of a [Failure] of class [ClassTransient] at [StageConnect]
// where the envelope expired before its transaction began. It says nothing about the
// relay, which has not seen the mail.
var ErrExpired = errors.New("the message expired")

// ErrMayNotSend is the cause of a [Failure] of class [ClassTransient] at [StageConnect]
// where the envelope's MaySend said no. The relay has not taken the mail for this recipient,
// whatever it has seen of it, and the failure says nothing about the relay.
var ErrMayNotSend = errors.New("the message may not be sent any more")

// Reply is an SMTP reply (RFC 5321 §4.2).
type Reply struct {
	// Code is the three-digit reply code; zero means that there was no reply.
	Code int
	// Enhanced is the enhanced status code (RFC 3463), such as "5.1.1"; empty
	// when the relay gave none.
	Enhanced string
	// Text is the relay's words without the codes: lines joined by a blank,
	// control characters escaped, cut to 500 octets.
	Text string
}

// Positive reports whether the relay accepted the command: a 2yz reply.
func (r Reply) Positive() bool { return r.Code/100 == 2 }

func (r Reply) String() string {
	if r.Code == 0 {
		return ""
	}
	return strings.TrimSpace(strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text)), " "))
}

// Failure is why a recipient was not accepted. It is a value that can be stored and
// shown.
type Failure struct {
	Class Class
	Stage Stage
	// Reply is the relay's. If its code is zero there was none, and Enhanced may hold
	// a code of our own, such as 5.3.4.
	Reply Reply
	Relay string // name of the relay; empty when none was asked
	Port  int    // zero when none was reached
	// Text is one sentence for the caller when there is no reply: what happened,
	// without our own addresses or secrets.
	Text string
	// Until is when the relay may be asked again, as its reply says or as is known of
	// this relay. Zero means that it is not known. The time may have passed.
	Until time.Time
	// Passes says that what the reply complains about ends by itself, such as a quota of a
	// day: nobody has to do anything. False where that is not known.
	Passes bool
	// Cause and Remedy are one sentence each, for people: what the reply means, and what
	// to do about it. Empty where that is not known. Stores may leave them
	// and Passes out.
	Cause, Remedy string
	// Err is the cause, for the log; may be nil.
	Err error
}

func (f *Failure) Error() string {
	text := f.Stage.String() + ": " + f.Text
	if f.Reply.Code != 0 {
		text = f.Stage.String() + ": " + f.Reply.String()
	}
	if login, ok := errors.AsType[*LoginError](f.Err); ok && !login.Next.IsZero() {
		text += "; " + login.Error()
	} else if paused, ok := errors.AsType[*PauseError](f.Err); ok {
		text += "; " + paused.Error()
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }

// Scope is the mail that may meet the same failure, as far as one failure tells.
// What it really is, other messages show.
type Scope int

const (
	// ScopeMessage: no more than this message, or this recipient. Also a failure
	// that says nothing about mail: there was no turn or no connection, or the relay
	// asked for less at a time.
	ScopeMessage Scope = iota
	// ScopeSender: MAIL was refused with 500–504, 530 or 555, or unrelated messages with
	// the same words ([ErrRefusesMany]). The relay may refuse this reverse-path alone, or
	// our commands, parameters or login for any. With [ErrSenderRefused] it is this sender
	// alone.
	ScopeSender
	// ScopeConnection: the connection broke in the transaction, or the relay ended it
	// with 421. A recipient or the content may be the reason, or the relay is in
	// trouble.
	ScopeConnection
	// ScopeRelay: all mail. The relay was not reached, or refused us before MAIL or
	// because of a quota.
	ScopeRelay
)

var scopeNames = [...]string{"message", "sender", "connection", "relay"}

func (s Scope) String() string { return scopeNames[s] }

// Scope returns which mail may meet the same failure. It depends on class, stage,
// reply code and cause alone. The class comes from the policy in
// mailer/smtp/classify.go.
func (f *Failure) Scope() Scope {
	inTransaction := f.Stage >= StageMail
	switch {
	case errors.Is(f.Err, ErrPushedBack), errors.As(f.Err, new(*RateError)):
		return ScopeMessage
	case f.Class == ClassRelay, f.Reply.Code == 421 && !inTransaction:
		return ScopeRelay
	case f.Class == ClassPermanent, !inTransaction:
		return ScopeMessage
	case f.OfSender(), errors.Is(f.Err, ErrRefusesMany):
		return ScopeSender
	case f.Reply.Code == 0, f.Reply.Code == 421:
		return ScopeConnection
	case f.Class == ClassTransient && f.Stage == StageMail && f.Reply.Code/100 == 5:
		return ScopeSender
	default:
		return ScopeMessage
	}
}

// MailAdvice returns Cause and Remedy of a reply to mail. Both are empty for a failure
// before MAIL, of which the relay's settings tell more: see package diagnosis.
func (f *Failure) MailAdvice() (cause, remedy string) {
	if f.Stage < StageMail {
		return "", ""
	}
	return f.Cause, f.Remedy
}

// OfSender reports whether the failure may pass and is about this sender alone, whatever
// the relay says to others.
func (f *Failure) OfSender() bool {
	return f.Class == ClassTransient && f.Stage >= StageMail && errors.Is(f.Err, ErrSenderRefused)
}

// TriesNext reports whether the next relay of the route may have the message at once:
// this one has not judged the mail, or not for other relays, and certainly has not
// accepted it.
func (f *Failure) TriesNext() bool {
	switch f.Class {
	case ClassRelay:
		return true
	case ClassTransient:
		return f.Scope() != ScopeMessage
	default:
		return f.OnlyHere()
	}
}

// OnlyHere reports whether the failure is permanent at this relay only, so that another
// relay may take the message: [ErrCannotTake] or [ErrSenderRefused].
func (f *Failure) OnlyHere() bool {
	return f.Class == ClassPermanent && (errors.Is(f.Err, ErrCannotTake) || errors.Is(f.Err, ErrSenderRefused))
}

// EnhancedCode returns the enhanced status code (RFC 3463) to show for the failure:
// the relay's own if it gave one, else one of ours.
func (f *Failure) EnhancedCode() string {
	if f.Reply.Enhanced != "" {
		return f.Reply.Enhanced
	}
	switch {
	case f.Stage == StageCompose:
		return "5.6.0"
	case f.Class == ClassPermanent:
		return "5.0.0"
	case f.Stage == StageConnect:
		return "4.4.1"
	default:
		return "4.4.2"
	}
}
