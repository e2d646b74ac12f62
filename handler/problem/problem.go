// Package problem has the answers that are errors. Each is an
// application/problem+json (RFC 9457), an [api.Problem] with a stable code.
//
// [For] is the one place that finds the problem of an error of queue or mailer;
// codes.go has status and title of each code.
package problem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// sentinels are the errors of other packages that mean one code each.
var sentinels = []struct {
	err    error
	code   api.Code
	detail string
}{
	{queue.ErrQueueRequired, api.CodeQueueRequired, "MAILSIDECAR_QUEUE is none: nothing can be stored, scheduled, listed or repeated."},
	{queue.ErrNoRoute, api.CodeSenderNotAllowed, "No relay takes mail of this sender: of those that the key may use (MAILSIDECAR_KEY_RELAYS), each has SMTP_SENDERS, and none names it."},
	{queue.ErrNotFound, api.CodeMessageNotFound, ""},
	{queue.ErrFull, api.CodeQueueFull, ""},
	{queue.ErrDiskFull, api.CodeDiskFull, ""},
	{queue.ErrShuttingDown, api.CodeShuttingDown, ""},
	{queue.ErrDraining, api.CodeDraining, "An operator lets the queue run empty: send it to another instance, or again later."},
	{queue.ErrPaused, api.CodeRelayPaused, "An operator has paused every relay that may take the message, and MAILSIDECAR_QUEUE is none: it has nowhere to wait."},
	{queue.ErrClosed, api.CodeShuttingDown, ""},
	{queue.ErrNothingDone, api.CodeQueueUnavailable, "The database of the queue does not answer. " + api.NothingDone},
	{queue.ErrMaybeStored, api.CodeQueueUnavailable, "The database of the queue does not answer. The message may be stored: repeat it with the same Idempotency-Key."},
	{queue.ErrUnavailable, api.CodeQueueUnavailable, "The database of the queue does not answer. What the request was to change may be changed all the same: look, or repeat it."},
	{queue.ErrMoved, api.CodeQueueUnavailable, "The log has the cause, under this request_id."},
	{queue.ErrIdempotencyInProgress, api.CodeIdempotencyInUse, ""},
	{queue.ErrIdempotencyMismatch, api.CodeIdempotencyReused, ""},
	{queue.ErrInvalidCursor, api.CodeInvalidParameter, "The cursor was not given by this server."},
	{queue.ErrTooManyLists, api.CodeTooManySearches, "Lists and searches take turns, and this one had none within 2 s."},
	{queue.ErrSearchTooSlow, api.CodeTimeout, "The store is slow: no part of the list could be read within 2 s. Narrow it with since and until."},
	{queue.ErrNothingToRetry, api.CodeNothingToRetry, "Every recipient is delivered, canceled or being tried just now, or the message waits for its send_at, or the content was removed."},
	{queue.ErrNothingToCancel, api.CodeNothingToCancel, ""},
	{queue.ErrContentGone, api.CodeContentGone, "Content is removed when a message is delivered or canceled, or with its record; MAILSIDECAR_KEEP_BODIES keeps it longer from then on."},
	{context.DeadlineExceeded, api.CodeTimeout, ""},
	{context.Canceled, api.CodeTimeout, "The client went away first."},
}

// Error is a problem on its way to the client.
type Error struct {
	Code   api.Code
	Detail string           // one or more sentences; empty leaves the title to speak
	Fields []api.FieldError // what is wrong where; may be empty
	// RetryAfter in seconds overrides the code's, unless it is zero.
	RetryAfter int
	// Receipt is what became of the message, where one was made.
	Receipt *api.Receipt
	// Failure is why the relay did not take it.
	Failure *mailer.Failure
	// Results are those of a batch of which nothing was stored.
	Results []api.BatchResult
}

func (p *Error) Error() string {
	if p.Detail != "" {
		return string(p.Code) + ": " + p.Detail
	}
	return string(p.Code)
}

// Status is that of HTTP.
func (p *Error) Status() int { return codes[p.Code].status }

// RetryAfterSeconds is when to come again; zero says nothing of it.
func (p *Error) RetryAfterSeconds() int { return max(p.RetryAfter, codes[p.Code].retryAfter) }

// New returns a problem with the code. An empty detail leaves the title, or the
// first field, to speak. Only the first fields are kept, see [MaxFields].
func New(c api.Code, detail string, fields ...api.FieldError) *Error {
	return &Error{Code: c, Detail: detail, Fields: AtMost(fields, MaxFields)}
}

// For finds the problem that an error means. It never returns nil. An error that it
// does not know is internal: the client reads nothing of it, the log all of it.
func For(err error) *Error {
	if p, ok := errors.AsType[*Error](err); ok {
		return p
	}
	if invalid, ok := errors.AsType[*mailer.InvalidError](err); ok {
		return Invalid(invalid.Malformed, Located(invalid.Fields, mailer.Position.String))
	}
	if unsendable, ok := errors.AsType[*mailer.Failure](err); ok {
		p := New(api.CodeInvalidMessage, Describe(unsendable))
		p.Failure = unsendable
		return p
	}
	if unknown, ok := errors.AsType[*queue.UnknownRelayError](err); ok {
		return New(api.CodeRelayNotFound, fmt.Sprintf("No relay is named %s. There are: %s.", Cut(unknown.Name), strings.Join(unknown.Known, ", ")))
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return New(s.code, s.detail)
		}
	}
	if _, ok := errors.AsType[*queue.StoreError](err); ok {
		return New(api.CodeQueueUnavailable, "The log has the cause, under this request_id.")
	}
	return New(api.CodeInternal, "The log has the cause, under this request_id.")
}

// Body is the answer to the request of that id; an empty id is left out.
func (p *Error) Body(requestID string) api.Problem {
	m := codes[p.Code]
	b := api.Problem{
		// A URN, because a problem's type is an identity and need not be fetched
		// (RFC 9457 §3.1.1).
		Type: "urn:mailsidecar:problem:" + string(p.Code), Title: m.title, Status: m.status,
		Detail: p.Detail, Code: p.Code, Retryable: m.retryable, RequestID: requestID, Errors: p.Fields, Results: p.Results,
	}
	if b.Detail == "" {
		b.Detail = m.title + "."
		if len(p.Fields) > 0 {
			b.Detail = sentence(p.Fields[0])
		}
	}
	if f := p.Failure; f != nil {
		b.ReplyCode, b.EnhancedCode = f.Reply.Code, f.EnhancedCode()
		b.Stage, b.Relay, b.Port = f.Stage.String(), f.Relay, f.Port
	}
	if r := p.Receipt; r != nil {
		b.ID, b.MessageID, b.Recipients = r.ID, r.MessageID, r.Recipients
	}
	return b
}

func sentence(f api.FieldError) string {
	if f.Field == "" {
		return "The body " + f.Message + "."
	}
	return f.Field + ": " + f.Message
}

// DescribeUnstored is as [Describe], for a message that no queue holds: where others wait for
// the relay, its client has to send it again.
func DescribeUnstored(f *mailer.Failure) string {
	if f == nil || !strings.Contains(f.Remedy, waits) {
		return Describe(f)
	}
	var kept []string
	for s := range strings.SplitSeq(strings.TrimSuffix(f.Remedy, "."), ". ") {
		if !strings.HasPrefix(s, waits) {
			kept = append(kept, s)
		}
	}
	told := *f
	told.Remedy = strings.Join(append([]string{"The message was not stored: send it again after the time in Retry-After"}, kept...), ". ") + "."
	return Describe(&told)
}

// waits is how a sentence of a remedy begins that is true of stored mail only.
const waits = "Mail waits"

// Describe is the failure in one sentence for the client.
func Describe(f *mailer.Failure) string {
	if f == nil {
		return "No recipient was accepted."
	}
	if f.Stage == mailer.StageCompose && f.Relay == "" && f.Reply.Code == 0 {
		return f.Text // about the message itself
	}
	where := "before a relay was asked"
	if f.Relay != "" {
		where = "relay " + f.Relay
	}
	if f.Port != 0 {
		where += fmt.Sprintf(", port %d", f.Port)
	}
	text := fmt.Sprintf("%s: %s", where, f.Error())
	cause, remedy := f.MailAdvice()
	for _, more := range []string{cause, remedy} {
		if more != "" {
			text = strings.TrimSuffix(text, ".") + ". " + more
		}
	}
	return text
}

// Seconds rounds up, for [Error.RetryAfter] (RFC 9110 §10.2.3).
func Seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
