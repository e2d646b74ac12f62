package api

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits of the interface.
const (
	// MaxWait is the longest that the server waits for a relay (Prefer: wait).
	MaxWait = time.Minute
	// DefaultPage and MaxPage are how many messages one answer lists.
	DefaultPage = 50
	MaxPage     = 500
	// MaxBatch is how many messages one batch may have.
	MaxBatch = 500
	// MaxTags is how many tags a message may have. MaxTagName and MaxTagValue are in
	// octets.
	MaxTags     = 20
	MaxTagName  = 64
	MaxTagValue = 256
)

// Request is the body of POST /v1/messages, and an item of a batch. Addresses are
// as in a header field, "Ana <ana@example.org>"; the server also takes objects
// with email and name in their place.
type Request struct {
	From        string            `json:"from,omitempty"` // empty: the server's default
	To          []string          `json:"to,omitempty"`
	Cc          []string          `json:"cc,omitempty"`
	Bcc         []string          `json:"bcc,omitempty"`
	ReplyTo     []string          `json:"reply_to,omitempty"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Calendar    *Calendar         `json:"calendar,omitempty"`
	Attachments []Attachment      `json:"attachments,omitempty"`
	// ReturnPath is the reverse-path: empty means the address of From, "<>" the
	// null reverse-path.
	ReturnPath string            `json:"return_path,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	SendAt     string            `json:"send_at,omitempty"`    // RFC 3339; empty: now
	ExpiresIn  string            `json:"expires_in,omitempty"` // such as "1d12h"; empty: the queue's default
	Priority   string            `json:"priority,omitempty"`   // high, normal or bulk; empty: by the message's Precedence
}

// Calendar is an invitation of a request.
type Calendar struct {
	Content string `json:"content"`          // an iCalendar object (RFC 5545)
	Method  string `json:"method,omitempty"` // such as REQUEST; empty: as the content says
}

// Attachment is a file of a request.
type Attachment struct {
	Filename    string `json:"filename"`
	Content     []byte `json:"content"`                // base64 in JSON
	ContentType string `json:"content_type,omitempty"` // empty: guessed from Filename
	ContentID   string `json:"content_id,omitempty"`   // with one the file is inline
}

// Receipt answers a submission, a retry and a cancellation of one message.
type Receipt struct {
	ID     string `json:"id"`
	Status string `json:"status"` // one of the Status constants
	// MessageID is the Message-ID field with its angle brackets.
	MessageID  string      `json:"message_id"`
	Recipients []Recipient `json:"recipients"`
	// Waits, in the answer to a retry, is why it waits all the same: for a paused relay, for a
	// login.
	Waits []Wait `json:"waits,omitempty"`
}

// The states of a recipient.
const (
	StateQueued    = "queued" // before the first attempt
	StateDeferred  = "deferred"
	StateHeld      = "held"
	StateDelivered = "delivered"
	StateBounced   = "bounced"
	StateExpired   = "expired"
	StateCanceled  = "canceled"
)

// The statuses of a message.
const (
	StatusQueued    = "queued"    // before the first attempt
	StatusDeferred  = "deferred"  // some recipient waits for the next attempt
	StatusHeld      = "held"      // some recipient waits for a person
	StatusDelivered = "delivered" // all
	StatusPartial   = "partial"   // all final, some delivered
	StatusFailed    = "failed"    // all final, none delivered
	StatusCanceled  = "canceled"
)

// StatusWaiting selects, as the Status of a [Filter], messages that are queued or deferred.
const StatusWaiting = "waiting"

// StatusOf is the status of a message with these recipients.
func StatusOf(recipients []Recipient) string {
	n := map[string]int{}
	for _, r := range recipients {
		n[r.State]++
	}
	only := func(state string) bool { return n[state] > 0 && len(n) == 1 }
	switch {
	case only(StateQueued):
		return StatusQueued
	case n[StateQueued]+n[StateDeferred] > 0:
		return StatusDeferred
	case n[StateHeld] > 0:
		return StatusHeld
	case only(StateDelivered):
		return StatusDelivered
	case n[StateDelivered] > 0:
		return StatusPartial
	case only(StateCanceled):
		return StatusCanceled
	default:
		return StatusFailed
	}
}

// Recipient is one recipient's state, and the outcome of the last attempt.
type Recipient struct {
	Email string `json:"email"`
	State string `json:"state"` // queued, deferred, held, delivered, bounced, expired or canceled
	Outcome
	Relay         string    `json:"relay,omitempty"` // of the last attempt; empty before it
	Port          int       `json:"port,omitzero"`
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"` // zero when none is scheduled
	// MayHaveTaken is the relay that may have taken it: no other one gets it by itself.
	MayHaveTaken string `json:"may_have_taken,omitempty"`
}

// The kinds of an outcome.
const (
	OutcomeDelivered = "delivered" // accepted by the relay
	OutcomeDeferred  = "deferred"
	OutcomeBounced   = "bounced"
	OutcomeUncertain = "uncertain" // the relay's answer was lost
)

// Outcome is what one attempt came to for one recipient; zero before the first.
type Outcome struct {
	Kind  string `json:"outcome,omitempty"` // one of the Outcome constants
	Class string `json:"class,omitempty"`   // of a failure: permanent, transient, relay or uncertain
	Stage string `json:"stage,omitempty"`   // of a failure: where in the dialogue with the relay
	// ReplyCode and EnhancedCode are the relay's (RFC 5321 §4.2, RFC 3463); zero
	// and empty where it gave none.
	ReplyCode    int    `json:"reply_code,omitzero"`
	EnhancedCode string `json:"enhanced_code,omitempty"`
	// Text is the relay's words without the codes, or why there are none.
	Text string `json:"text,omitempty"`
	// Found and Do say for people what a permanent refusal means, and what to do about
	// it; empty where nothing is known.
	Found string `json:"found,omitempty"`
	Do    string `json:"do,omitempty"`
}

// String is the relay's own words, with their codes where it gave any.
func (o Outcome) String() string {
	if o.ReplyCode == 0 {
		return o.Text
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", o.ReplyCode, o.EnhancedCode, o.Text)), " ")
}

// Message is all that is known of one message. A list leaves out the attempts.
type Message struct {
	ID         string            `json:"id"`
	Status     string            `json:"status"`
	MessageID  string            `json:"message_id"`
	Sender     string            `json:"sender"`        // address of the From field
	Key        string            `json:"key,omitempty"` // name of the API key that submitted it
	Subject    string            `json:"subject"`
	Size       int64             `json:"size"` // octets of the composed message
	Priority   string            `json:"priority"`
	Tags       map[string]string `json:"tags,omitempty"`
	Envelope   Envelope          `json:"envelope"`
	CreatedAt  time.Time         `json:"created_at,omitzero"`
	SendAt     time.Time         `json:"send_at,omitzero"`    // zero: at once
	ExpiresAt  time.Time         `json:"expires_at,omitzero"` // zero: never
	Recipients []Recipient       `json:"recipients"`
	// ResentOf is the id of the message that this one sends again to another address, and
	// ResentAs are the last hundred of those that send this one again.
	ResentOf string   `json:"resent_of,omitempty"`
	ResentAs []string `json:"resent_as,omitempty"`
	// Waits says why recipients are not final yet, and what to do; none where all are.
	Waits    []Wait    `json:"waits,omitempty"`
	Attempts []Attempt `json:"attempts,omitempty"`
	// EarlierAttempts is how many attempts before these are left out: an answer has 10,000
	// results at most.
	EarlierAttempts int `json:"earlier_attempts,omitzero"`
	// Content says how long the content is kept; nil in lists.
	Content *Kept `json:"content,omitempty"`
}

// Kept says how long the content of a message is kept: it can be read, retried and sent to another
// address meanwhile.
type Kept struct {
	Kept bool `json:"kept"` // else it was removed
	// Until is when it is removed, or soon after; zero where it was, and while some recipient is not
	// final.
	Until time.Time `json:"until,omitzero"`
	// Setting is the name of the setting that keeps it until then, or that would have kept it
	// longer; empty while some recipient is not final.
	Setting string `json:"setting,omitempty"`
}

// The settings that say how long content is kept.
const (
	KeepsDelivered = "MAILSIDECAR_KEEP_BODIES" // of what was delivered or canceled
	KeepsFailed    = "MAILSIDECAR_RETENTION"   // where a recipient bounced or expired
)

// The reasons of a wait.
const (
	WaitSchedule    = "schedule"     // for the message's send_at
	WaitHeld        = "held"         // for a person
	WaitRelayPaused = "relay_paused" // every relay that may take it is left alone for a while
	WaitRate        = "rate"         // for a turn within SMTP_RATE
	WaitRetry       = "retry"        // for the next try after a refusal that may pass
	WaitInLine      = "in_line"      // it is due: behind other mail, or being tried
)

// Wait is a reason for which recipients of a message wait.
type Wait struct {
	Reason     string    `json:"reason"`          // one of the Wait constants
	Recipients int       `json:"recipients"`      // how many wait for it
	Until      time.Time `json:"until,omitzero"`  // zero: not known, or now
	Relay      string    `json:"relay,omitempty"` // whose pause, rate or refusal it is
	Found      string    `json:"found"`           // in words for people
	Do         string    `json:"do,omitempty"`    // empty: nothing has to be done
}

// Envelope is the envelope of a message (RFC 5321 §2.3.1), without angle brackets.
type Envelope struct {
	ReversePath  string   `json:"reverse_path"` // empty: the null reverse-path
	ForwardPaths []string `json:"forward_paths"`
}

// Attempt is one attempt to hand a message to a relay.
type Attempt struct {
	Relay string `json:"relay"`
	// Why says why it was that relay, where several are configured: what narrowed the
	// choice (key, sender), and then first, weight, failover with those that were passed
	// over, only or may_have_taken.
	Why        string    `json:"why,omitempty"`
	Port       int       `json:"port,omitzero"` // zero: no rung served
	TLS        string    `json:"tls,omitempty"` // such as "TLS 1.3"
	Auth       string    `json:"auth,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	DurationMS int64     `json:"duration_ms"`
	// Ladder has the ports that were tried for a new connection; none where one
	// was there already.
	Ladder  []Rung   `json:"ladder,omitempty"`
	Results []Result `json:"results"`
}

// Rung is one port that was tried for a connection.
type Rung struct {
	Port       int    `json:"port"`
	Mode       string `json:"mode"` // starttls, tls (implicit) or none
	Won        bool   `json:"won"`
	DurationMS int64  `json:"duration_ms"`
	Stage      string `json:"stage,omitempty"` // where it failed; empty when it did not
	Text       string `json:"text,omitempty"`
}

// Result is what an attempt came to for one recipient.
type Result struct {
	Email string `json:"email"`
	Outcome
}

// Page answers GET /v1/messages, the newest message first.
type Page struct {
	Messages []Message `json:"messages"`
	Next     string    `json:"next,omitempty"` // cursor of the following page; empty on the last
	// SearchedBackTo is set where the search took as long as it may: Messages, which may
	// be empty, are those found among what was accepted since then. Next goes on.
	SearchedBackTo time.Time `json:"searched_back_to,omitzero"`
}

// Filter selects messages: in the body of POST /v1/messages/retry and POST
// /v1/messages/cancel, and as the parameters of GET /v1/messages. Empty members select nothing out.
type Filter struct {
	// Status is one of the Status constants; or StatusWaiting; or StateBounced or StateExpired, which
	// select messages with such a recipient, whatever became of the others.
	Status    string `json:"status,omitempty"`
	ID        string `json:"id,omitempty"` // how the id begins, at least four digits
	Sender    string `json:"sender,omitempty"`
	MessageID string `json:"message_id,omitempty"` // with its angle brackets
	// Subject has words, each of which is in the message's subject, in any case, also within a word.
	Subject string `json:"subject,omitempty"`
	// Recipient, Domain, RecipientState (one of the State constants) and what follows up to
	// Text select messages with a recipient for which all of it is so.
	Recipient      string `json:"recipient,omitempty"`
	Domain         string `json:"domain,omitempty"` // exactly that one, in Unicode or A-labels
	RecipientState string `json:"recipient_state,omitempty"`
	// Relay, ReplyCode, EnhancedCode and Text select by why a recipient was not delivered;
	// Text is a part of its text, and behind a "=" the whole text: a "=" alone means that there is none.
	// A * in it stands for anything, and ASCII case does not count.
	Relay        string `json:"relay,omitempty"`
	ReplyCode    int    `json:"reply_code,omitzero"`
	EnhancedCode string `json:"enhanced_code,omitempty"`
	Text         string `json:"text,omitempty"`
	Tag          string `json:"tag,omitempty"`   // "name" or "name:value"
	Since        string `json:"since,omitempty"` // RFC 3339, inclusive
	Until        string `json:"until,omitempty"` // RFC 3339, exclusive
	Key          string `json:"key,omitempty"`   // name of an API key; others than the own one need the role admin
}

// Query are the filter's parameters of GET /v1/messages.
func (f Filter) Query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{
		"status": f.Status, "recipient": f.Recipient, "sender": f.Sender, "message_id": f.MessageID, "tag": f.Tag, "subject": f.Subject,
		"id": f.ID, "domain": f.Domain, "recipient_state": f.RecipientState,
		"since": f.Since, "until": f.Until, "key": f.Key, "relay": f.Relay, "enhanced_code": f.EnhancedCode, "text": f.Text,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if f.ReplyCode != 0 {
		query.Set("reply_code", strconv.Itoa(f.ReplyCode))
	}
	return query
}

// Resend is the body of POST /v1/messages/{id}/resend, which answers with a [Receipt] of the
// new message.
type Resend struct {
	To string `json:"to"` // address that the message is sent to
	// InsteadOf is a recipient of the message that bounced, expired or was canceled, and that no
	// relay may have taken it for; empty says nothing about the recipients.
	InsteadOf string `json:"instead_of,omitempty"`
	// Again sends it also where it went to that address before and is delivered there, or may be;
	// without it the answer is CodeAlreadyResent.
	Again bool `json:"again,omitzero"`
}

// Bulk is the body of POST /v1/messages/retry and POST /v1/messages/cancel.
type Bulk struct {
	Filter
	Cursor string `json:"cursor,omitempty"` // Next of an earlier answer to the same filter
	Limit  int    `json:"limit,omitzero"`   // most messages to change, up to MaxBulk; zero: all that match
	DryRun bool   `json:"dry_run,omitzero"` // only count them
}

// MaxBulk is the largest Limit of [Bulk].
const MaxBulk = 10_000

// Matching answers a [Bulk] with DryRun, and GET /v1/messages/count.
type Matching struct {
	Matching int `json:"matching"` // messages that the filter selects, and that a command concerns
	// Next is set where the count took 2 s and goes on: the cursor of a further request,
	// whose Matching is to be added.
	Next string `json:"next,omitempty"`
}

// Retried answers POST /v1/messages/retry.
type Retried struct {
	Retried int `json:"retried"` // messages of which some recipient is due now
	Matched int `json:"matched"` // messages that the filter selected
	// Paused are the relays that are not asked all the same: an operator has paused them, a login was
	// refused, or the first try after the retry has failed already. Mail waits for them that no other relay takes.
	Paused []PausedRelay `json:"paused_relays,omitempty"`
	// Next is set where more messages may match than were retried, up to Limit or within
	// 20 s: the cursor of a further request.
	Next string `json:"next,omitempty"`
}

// PausedRelay is a relay that is not asked now, whoever wants it.
type PausedRelay struct {
	Relay string    `json:"relay"`
	Until time.Time `json:"until,omitzero"` // zero: not known
	Found string    `json:"found"`          // in words for people
	Do    string    `json:"do,omitempty"`   // empty: nothing has to be done
}

// CanceledMessages answers POST /v1/messages/cancel.
type CanceledMessages struct {
	// Canceled are messages of which recipients were canceled, or will be unless the attempt
	// under way delivers or bounces them.
	Canceled int    `json:"canceled"`
	Matched  int    `json:"matched"`        // messages that the filter selected and that were not final
	Next     string `json:"next,omitempty"` // as in [Retried]
}

// Batch answers POST /v1/messages/batch.
type Batch struct {
	Stored  int           `json:"stored"`
	Refused int           `json:"refused"`
	Results []BatchResult `json:"results"` // one for each message of the request
}

// BatchResult is a stored message or a problem.
type BatchResult struct {
	*Receipt
	Problem *Problem `json:"problem,omitempty"`
}
