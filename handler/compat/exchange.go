package compat

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
)

// Desk is what the server does for every API, the native one too.
type Desk interface {
	// Stores reports whether accepted messages are stored: without that nothing can
	// be scheduled or repeated, and one request cannot have several messages.
	Stores() bool
	// Idempotency returns the request's Idempotency-Key; empty when it has none.
	Idempotency(h http.Header) (string, error)
	// Open opens the request's body of up to limit octets; it grows the share.
	Open(w http.ResponseWriter, r *http.Request, limit int64, share *intake.Share) (*intake.Body, error)
	// UntilStopped returns a request's context for what takes a while in composing its
	// messages: its Err tells, too, that the server gives it up because it stops.
	UntilStopped(ctx context.Context) context.Context
	// CheckSize refuses a message that would be too large, before it is made. It may have
	// two octets less than that.
	CheckSize(octets int) error
	// Accept puts a composed message into the submission, unless it is over a limit
	// or the key may not send from its author.
	Accept(sub queue.Submission, m compose.Composed, key *keys.Key) (queue.Submission, error)
	// Takes reports whether some relay takes mail of the key from the sender. Without a
	// store it is always true, and Submit tells.
	Takes(key, sender string) bool
	// Submit takes all of the messages or none. Without a store its error is also
	// that a relay accepted the message for no recipient.
	Submit(ctx context.Context, subs []queue.Submission) ([]queue.Message, error)
	Ledger
}

// Ledger are the messages that are stored. Those of another key are [queue.ErrNotFound].
// Where none is stored the error is [queue.ErrQueueRequired].
type Ledger interface {
	Get(ctx context.Context, key, id string) (queue.Message, error)
	// Reschedule makes a message that waits for its time wait until at, or be due now
	// where that is zero or past; [queue.ErrNotScheduled] if it does not wait any more.
	Reschedule(ctx context.Context, key, id string, at time.Time) (queue.Message, error)
	// Cancel ends every recipient that is not final; [queue.ErrNothingToCancel] if there
	// is none. One that is being tried keeps the outcome of that attempt.
	Cancel(ctx context.Context, key, id string) (queue.Message, error)
}

// Host has what requests share.
type Host struct {
	Desk
	Keys    *keys.Ring
	Budget  *intake.Budget // the memory for requests
	MaxBody int64          // octets of a request with one message
	// ForceFrom takes the place of every message's From, see [mailer.Message].
	ForceFrom mailer.Address
	// Rewrites says that relays may change any message, see [mailer.Rewrites].
	Rewrites bool
	Signer   compose.Signer // nil signs nothing
	Log      *slog.Logger
}

// Exchange is one request of a provider's client.
type Exchange struct {
	Host
	API     *API
	Writer  http.ResponseWriter
	Request *http.Request
	// requestID is as in the server's log.
	requestID string
	Key       *keys.Key // nil before it is known, and with TestSecret
	roles     keys.Role // that the route needs
	// LoggedID is the id for the access log: that of the first message of the last
	// commit, or of the stored message that the request is about.
	LoggedID string
	share    *intake.Share
	// Test says that the request is judged, and nothing is sent.
	Test bool
	// composed counts the octets of the request's messages.
	composed int64
}

// Begin makes the exchange of one request. Close it when it is answered.
func (h Host) Begin(a *API, w http.ResponseWriter, r *http.Request, requestID string) *Exchange {
	return &Exchange{Host: h, API: a, Writer: w, Request: r, requestID: requestID, share: h.Budget.Share()}
}

// Close gives the request's memory back.
func (x *Exchange) Close() { x.share.Close() }

// Prove says whose key the request has. Its memory and its connection are those of
// strangers before. The error says that the key has too many requests under way, or may
// not use the route.
func (x *Exchange) Prove(k *keys.Key) error {
	x.Key = k
	x.share.Prove(k.Name())
	if err := k.Enter(x.Request.Context()); err != nil {
		return err
	}
	return k.Require(x.roles)
}

// Scope says whose messages a key may see, as look-ups take it: its own, or those of all
// keys.
func Scope(k *keys.Key) string {
	if k.Has(keys.Admin) {
		return queue.AnyKey
	}
	return k.Name()
}

// Serve authenticates the request and serves the route.
func (x *Exchange) Serve(route Route) error {
	x.roles = route.roles()
	if err := x.authenticate(); err != nil {
		return err
	}
	return route.Serve(x)
}

func (x *Exchange) authenticate() error {
	if x.Keys.Empty() {
		k, err := x.Keys.Keyless(x.Request)
		if err != nil {
			return err
		}
		return x.Prove(k)
	}
	if x.API.Secret == nil {
		return nil
	}
	secret := x.API.Secret(x.Request.Header)
	if secret == "" {
		return problem.New(api.CodeUnauthorized, DetailKeyMissing)
	}
	if secret == x.API.TestSecret {
		x.Test = true
		return nil
	}
	k, err := x.Keys.Find(secret)
	if err != nil {
		return err
	}
	return x.Prove(k)
}

// ProveSigned makes the request one of the key of that name, if the request's signature
// matches its secret. Otherwise the error has the detail. It does the same for a name that
// no key has: a stranger must not learn the names.
func (x *Exchange) ProveSigned(name, detail string, matches func(secret string) bool) error {
	key, secret := x.Keys.Signer(name)
	if !matches(secret) || key == nil {
		return problem.New(api.CodeUnauthorized, detail)
	}
	return x.Prove(key)
}

// DetailKeyMissing is the detail of a 401 for a request without a key.
const DetailKeyMissing = "The API key is missing."

const (
	// answerRow is about what a recipient, an attempt or a result takes in memory, in octets:
	// as it was found, as a part of the answer and as JSON. A message itself takes two of them.
	answerRow = 1536
	// answerID is what one of the ids of other messages takes.
	answerID = 256
	// smallAnswer is what an answer takes, in octets, that needs no share of the budget.
	smallAnswer = 64 << 10
)

// AnswerShare is the share of the budget that an answer with stored messages needs, until
// the client has read it.
func AnswerShare(messages ...queue.Message) int64 {
	rows, ids := 0, 0
	for _, m := range messages {
		ids += len(m.ResentAs)
		rows += 2 + len(m.Recipients) + len(m.Attempts)
		for _, a := range m.Attempts {
			rows += len(a.Results)
		}
	}
	if size := int64(rows)*answerRow + int64(ids)*answerID; size > smallAnswer {
		return size
	}
	return 0
}

// Stored returns the request's stored message, whose id is the part {id} of the path.
func (x *Exchange) Stored() (queue.Message, error) {
	m, err := x.Get(x.Request.Context(), Scope(x.Key), x.StoredID())
	if err == nil && !x.share.Grow(AnswerShare(m)) {
		err = problem.New(api.CodeBusy, "")
	}
	return m, err
}

// maxID is the length, in octets, up to which an id of a client's goes into the log.
const maxID = 64

// StoredID is the id in the request's path. It is noted for the log.
func (x *Exchange) StoredID() string {
	id := x.Request.PathValue("id")
	if len(id) <= maxID {
		x.LoggedID = id
	}
	return id
}

// AnswerJSON answers with v.
func (x *Exchange) AnswerJSON(status int, v any) error {
	return problem.WriteJSON(x.Writer, status, intake.TypeJSON, v)
}

// AnswerEmpty answers without a body.
func (x *Exchange) AnswerEmpty(status int) error {
	x.Writer.WriteHeader(status)
	return nil
}

// Sent is what became of an outgoing message.
type Sent struct {
	ID        string // of the queue
	MessageID string // with angle brackets
	At        time.Time
}

// Send composes and submits all of the messages, or none of them.
func (x *Exchange) Send(messages []Message) ([]Sent, error) {
	if err := checkTogether(messages); err != nil {
		return nil, err
	}
	subs := make([]queue.Submission, len(messages))
	for i := range messages {
		sub, err := x.Compose(&messages[i])
		if err != nil {
			return nil, err
		}
		subs[i] = sub
	}
	return x.Submit(subs)
}

// Limits of what a request with few octets and many recipients makes.
const (
	maxComposed = 128 << 20 // octets
	maxFiles    = 20_000
	maxFields   = 100_000 // header fields of the caller
)

// checkTogether refuses, before they are composed, several messages that would be too
// much together. What it counts is part of them for sure.
func checkTogether(messages []Message) error {
	if len(messages) < 2 {
		return nil
	}
	octets, files, fields := 0, 0, 0
	for i := range messages {
		m := &messages[i].Message
		octets += len(m.Text) + len(m.HTML) + len(m.Calendar.Content)
		files, fields = files+len(m.Attachments), fields+len(m.Header)
		switch {
		case files > maxFiles:
			return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("The messages of one request may have %d files together: send them in several requests.", maxFiles))
		case fields > maxFields:
			return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("The messages of one request may have %d header fields together: send them in several requests.", maxFields))
		}
		for _, a := range m.Attachments {
			octets += len(a.Content) / 3 * 4
		}
		if octets > maxComposed {
			return errComposed()
		}
	}
	return nil
}

func errComposed() error {
	return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("The messages of one request may have %d octets together: send them in several requests.", maxComposed))
}

// Compose makes a submission of one message.
func (x *Exchange) Compose(o *Message) (queue.Submission, error) {
	sub := queue.Submission{
		Key: x.Key.Name(), Tags: o.Tags, SendAt: o.SendAt,
		IdempotencyKey: o.IdempotencyKey, Fingerprint: o.Fingerprint,
		Origin: queue.Origin{Door: x.API.Name, RequestID: x.requestID},
	}
	if !x.Stores() {
		switch {
		case !o.SendAt.IsZero():
			return sub, problem.New(api.CodeQueueRequired, "A message cannot be sent later without a queue (MAILSIDECAR_QUEUE=none).")
		case o.IdempotencyKey != "":
			return sub, problem.New(api.CodeQueueRequired, "An idempotency key cannot be kept without a queue (MAILSIDECAR_QUEUE=none).")
		}
	}
	ctx := x.UntilStopped(x.Request.Context())
	if err := ctx.Err(); err != nil {
		return sub, err // the client is gone
	}
	o.ForceFrom, o.Envelope.ForceFrom = x.ForceFrom, x.ForceFrom
	options := compose.Options{Reserve: x.hold, Signer: x.Signer}
	if x.Test {
		options.Signer = nil // it is sent nowhere, and asked for without a key
	}
	composed, err := o.make(ctx, options)
	if err != nil {
		return sub, err
	}
	if o.Bulk {
		composed.Envelope.Priority = mailer.PriorityBulk
	}
	if sub, err = x.Accept(sub, composed, x.Key); err != nil {
		return sub, o.locate(err)
	}
	return sub, nil
}

// hold counts the octets of a message that is about to be made.
func (x *Exchange) hold(octets int) error {
	if err := x.CheckSize(octets); err != nil {
		return err
	}
	first := x.composed == 0
	x.composed += int64(octets)
	if !first && x.composed > maxComposed {
		return errComposed()
	}
	return x.share.Hold(x.composed)
}

// Submit charges the key and hands the submissions to the queue in one commit. Without
// a queue only one is taken: the providers' answers have no place for several outcomes.
func (x *Exchange) Submit(subs []queue.Submission) ([]Sent, error) {
	if len(subs) > 1 && !x.Stores() {
		return nil, problem.New(api.CodeQueueRequired, "A request for several messages needs a queue (MAILSIDECAR_QUEUE=none).")
	}
	if err := x.Key.Charge(len(subs)); err != nil {
		return nil, err
	}
	if x.Test {
		return pretend(subs)
	}
	return x.SubmitCharged(subs)
}

// SubmitCharged hands the submissions to the queue. The key is charged already.
func (x *Exchange) SubmitCharged(subs []queue.Submission) ([]Sent, error) {
	x.share.End()
	if err := x.keepForDelivery(subs); err != nil {
		return nil, err
	}
	messages, err := x.Desk.Submit(x.Request.Context(), subs)
	if len(messages) > 0 {
		x.LoggedID = cmp.Or(messages[0].ID, x.LoggedID)
	}
	if err != nil {
		return nil, err
	}
	all := make([]Sent, len(messages))
	for i, m := range messages {
		all[i] = newSent(m)
	}
	if !x.Stores() && messages[0].Status() != queue.StatusDelivered {
		// The providers' answers have no place for it: their clients learn of it later.
		x.Log.Warn("some recipients were not accepted", "request_id", x.requestID, "id", messages[0].ID, "provider", x.API.Name)
	}
	return all, nil
}

// keepForDelivery gives back the memory of the body, which is no longer needed. Where no
// queue takes a message, the request delivers it, and the relay may need it in another
// form.
func (x *Exchange) keepForDelivery(subs []queue.Submission) error {
	need := x.composed
	if !x.Stores() {
		for _, s := range subs {
			need += s.Content.DeliveryMemory(x.Rewrites) - int64(len(s.Content.Data))
		}
		if !x.share.Grow(need) {
			return problem.New(api.CodeBusy, "")
		}
	}
	x.share.Shrink(need)
	return nil
}

func newSent(m queue.Message) Sent {
	at := m.Created
	if at.IsZero() {
		at = time.Now()
	}
	return Sent{m.ID, m.MessageID, at.UTC()}
}

// pretend answers for messages that are not sent.
func pretend(subs []queue.Submission) ([]Sent, error) {
	all := make([]Sent, len(subs))
	for i, sub := range subs {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		all[i] = Sent{id.String(), sub.Content.MessageID, time.Now().UTC()}
	}
	return all, nil
}

// LogIgnored logs the names of fields that are given and not honoured.
func (x *Exchange) LogIgnored(notHonoured []string) {
	if len(notHonoured) > 0 {
		x.Log.Debug("fields ignored", "request_id", x.requestID, "provider", x.API.Name, "fields", notHonoured)
	}
}
