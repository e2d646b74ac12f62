// Package queue stands between the handler, which accepts submissions, and the
// mailer, which hands them to a relay.
//
// [Durable] answers once the message is on disk, and keeps it until it is final.
// [Direct] stores nothing and answers with the relay's verdict
// (MAILSIDECAR_QUEUE=none).
package queue

import (
	"errors"
	"slices"
	"time"

	"mailsidecar/mailer"
)

// Submission is a finished message with what its sender asked for.
type Submission struct {
	// Key is the name of the API key that submitted it. A key sees its own
	// messages only.
	Key      string
	Envelope mailer.Envelope
	Content  mailer.Content
	// Sender is the addr-spec of the From field; routes go by it.
	Sender  string
	Subject string
	Tags    map[string]string
	// SendAt holds the message until then; zero means now.
	SendAt time.Time
	// ExpiresIn is how long to keep trying; zero means the queue's default.
	ExpiresIn time.Duration
	// ResentOf is the id of the message of the same key that this one sends again; as a rule
	// empty.
	ResentOf string
	// Wait is how long the answer may wait for the first attempt (Prefer:
	// wait=N, RFC 7240 §4.3); zero means not at all. [Direct] ignores it.
	Wait time.Duration
	// Stored, if not nil, is called when the message is stored and its answer is about to
	// wait: the caller need not keep the content any longer. [Direct] never calls it.
	Stored func()
	// Caller is the API key whose IdempotencyKey it is; empty: Key.
	Caller string
	// IdempotencyKey is the caller's key, unquoted; empty when none was given.
	IdempotencyKey string
	// Fingerprint is a digest of the request that IdempotencyKey stands for.
	Fingerprint [32]byte
	// Origin is for the log alone.
	Origin Origin
}

// Origin says how a submission came in.
type Origin struct {
	Door      string // the form of the request: "json", "batch", a provider's name and so on
	RequestID string // of the request's own line in the log
}

// Receipt answers a submission.
type Receipt struct {
	Message Message
	// Replayed says that an earlier request with the same idempotency key is
	// answered again.
	Replayed bool
}

// Message is what the queue knows of one message.
type Message struct {
	ID         string
	Key        string
	MessageID  string
	Sender     string
	Subject    string
	Size       int64 // octets of the composed message (RFC 1870)
	Tags       map[string]string
	Envelope   mailer.Envelope
	Created    time.Time
	SendAt     time.Time // zero: at once
	Expires    time.Time // zero: never ([Direct])
	Recipients []Recipient
	Attempts   []mailer.Attempt
	// ResentOf is the id of the message that this one sends again to another address, and
	// ResentAs are those that send this one again, the last [MaxResent] of them.
	ResentOf string
	ResentAs []string
	// EarlierAttempts is how many attempts, the oldest ones, a look-up has left out:
	// see MaxResults.
	EarlierAttempts int
	// Kept says how long the content is kept. Only a look-up of one message has it.
	Kept Kept
}

// Kept says how long the content of a message is kept. The zero value is that of a message that
// is not final: as long as it waits.
type Kept struct {
	// Until is when the content of a final message is removed, or soon after that.
	Until time.Time
	// Gone says that it was removed.
	Gone bool
}

// MaxResent is how many of the messages that send it again a message knows.
const MaxResent = 100

// MaxResults is how many results a look-up of a message returns in attempts: an attempt has
// one for each recipient that was tried. Attempts that would go beyond it are left out, but for
// the last one.
const MaxResults = 10_000

// LatestAttempts returns the last attempts, with up to [MaxResults] results, and how
// many come before them.
func LatestAttempts(all []mailer.Attempt) (latest []mailer.Attempt, earlier int) {
	results := 0
	for n, a := range slices.Backward(all) {
		if results += len(a.Results); results > MaxResults && n < len(all)-1 {
			return all[n+1:], n + 1
		}
	}
	return all, 0
}

// Lane is the line that the message waits in.
func (m *Message) Lane() Lane { return Lane{Priority: m.Envelope.Priority, Key: m.Key} }

// Recipient is one forward-path of a message with its state.
type Recipient struct {
	ForwardPath string
	State       State
	// Result is what the last attempt came to; zero before the first.
	Result      mailer.Result
	NextAttempt time.Time // zero when final or not scheduled
	// TakenBy is the relay that may have taken it: no other one gets it by itself. It is
	// empty where none may have, and once it is delivered.
	TakenBy string
}

// State is the state of one recipient. Delivered means accepted by the relay.
type State string

const (
	Queued    State = "queued"
	Deferred  State = "deferred"
	Held      State = "held"
	Delivered State = "delivered"
	Bounced   State = "bounced"
	Expired   State = "expired"
	Canceled  State = "canceled"
)

// States are all of them.
var States = []State{Queued, Deferred, Held, Delivered, Bounced, Expired, Canceled}

// Final says that the state never changes by itself again.
func (s State) Final() bool {
	return s == Delivered || s == Bounced || s == Expired || s == Canceled
}

// Status is the state of a message, derived from its recipients'.
type Status string

const (
	StatusQueued    Status = "queued"    // nothing tried yet
	StatusDeferred  Status = "deferred"  // some recipient waits
	StatusHeld      Status = "held"      // some recipient waits for a person
	StatusDelivered Status = "delivered" // all delivered
	StatusPartial   Status = "partial"   // all final, some delivered
	StatusFailed    Status = "failed"    // all final, none delivered
	StatusCanceled  Status = "canceled"
)

// Statuses are all of them.
var Statuses = []Status{
	StatusQueued, StatusDeferred, StatusHeld, StatusDelivered, StatusPartial, StatusFailed, StatusCanceled,
}

// Status derives the message's status from its recipients' states.
func (m Message) Status() Status {
	n := map[State]int{}
	for _, r := range m.Recipients {
		n[r.State]++
	}
	return StatusOf(n)
}

// StatusOf derives a message's status from the number of its recipients in each
// state. A state that no recipient is in has no entry.
func StatusOf(n map[State]int) Status {
	only := func(s State) bool { return n[s] > 0 && len(n) == 1 }
	switch {
	case only(Queued):
		return StatusQueued
	case n[Queued]+n[Deferred] > 0:
		return StatusDeferred
	case n[Held] > 0:
		return StatusHeld
	case only(Delivered):
		return StatusDelivered
	case n[Delivered] > 0:
		return StatusPartial
	case only(Canceled):
		return StatusCanceled
	default:
		return StatusFailed
	}
}

// Has says that a message with the status may have a recipient in the state.
func (s Status) Has(state State) bool {
	switch s {
	case StatusQueued, StatusDelivered, StatusCanceled:
		return State(s) == state
	case StatusDeferred:
		return true
	case StatusHeld:
		return state != Queued && state != Deferred
	case StatusPartial:
		return state.Final()
	case StatusFailed:
		return state.Final() && state != Delivered
	}
	return false
}

// Errors that a queue answers a submission or a request with. The handler maps
// each to an HTTP status.
var (
	// ErrQueueRequired: the request needs a stored queue and there is none.
	ErrQueueRequired = errors.New("queue required")
	// ErrNoRoute: every relay that the key may use has SMTP_SENDERS and none names the sender.
	ErrNoRoute  = errors.New("no relay for this sender")
	ErrNotFound = errors.New("no such message")
	// ErrFull: MAILSIDECAR_QUEUE_MAX_MESSAGES or _MAX_SIZE is reached.
	ErrFull = errors.New("queue full")
	// ErrDiskFull: less than MAILSIDECAR_MIN_FREE_DISK is free.
	ErrDiskFull = errors.New("disk full")
	// ErrShuttingDown: nothing was accepted; ask again after the restart.
	ErrShuttingDown = errors.New("shutting down")
	// ErrIdempotencyInProgress: the first request with this key is still being
	// answered.
	ErrIdempotencyInProgress = errors.New("idempotency key in use")
	// ErrIdempotencyMismatch: the key was used with another request.
	ErrIdempotencyMismatch = errors.New("idempotency key reused with another request")
)
