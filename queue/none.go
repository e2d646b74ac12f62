package queue

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
)

// None is the queue that is none: nothing is stored, and a submission is
// answered with the relay's verdict (MAILSIDECAR_QUEUE=none).
type None struct {
	routes Routes
	log    *slog.Logger
}

// NewNone returns a None that delivers through routes and writes the mail log; a
// nil log discards it.
func NewNone(routes Routes, log *slog.Logger) *None {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &None{routes: routes, log: log}
}

// Durable is false: what the relay did not accept is gone.
func (*None) Durable() bool { return false }

// Submit makes one attempt, over every relay that may take the sender's mail,
// and returns when it is over or ctx ends. A recipient that was not accepted is
// [Bounced] when the failure is permanent, else [Deferred], though nobody will
// try again: that is up to the caller.
func (n *None) Submit(ctx context.Context, s Submission) (Receipt, error) {
	if s.IdempotencyKey != "" || !s.SendAt.IsZero() || s.ExpiresIn != 0 {
		return Receipt{}, ErrQueueRequired
	}
	relays := n.routes.For(s.Sender)
	if len(relays) == 0 {
		return Receipt{}, ErrNoRoute
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Receipt{}, err
	}
	m := Message{
		ID: id.String(), Key: s.Key, MessageID: s.Content.MessageID, Sender: s.Sender, Subject: s.Subject,
		Size: int64(len(s.Content.Data)), Tags: s.Tags, Envelope: s.Envelope, Created: time.Now(),
	}
	m.Attempts = deliver(ctx, relays, s.Envelope, s.Content)
	m.Recipients = settle(s.Envelope.ForwardPaths, m.Attempts)
	n.logVerdicts(m)
	return Receipt{Message: m}, nil
}

// SubmitBatch always fails: one commit for all needs something to commit to.
func (*None) SubmitBatch(context.Context, []Submission) ([]Receipt, error) {
	return nil, ErrQueueRequired
}

// settle gives each recipient the state that the last attempt on it left.
func settle(forwardPaths []string, attempts []mailer.Attempt) []Recipient {
	last := map[string]mailer.Result{}
	for _, a := range attempts {
		for _, r := range a.Results {
			last[r.ForwardPath] = r
		}
	}
	recipients := make([]Recipient, len(forwardPaths))
	for i, path := range forwardPaths {
		result, tried := last[path]
		recipients[i] = Recipient{ForwardPath: path, State: Deferred, Result: result}
		if tried {
			recipients[i].State = stateAfter(result)
		}
	}
	return recipients
}

func stateAfter(r mailer.Result) State {
	switch {
	case r.Failure == nil:
		return Delivered
	case r.Failure.Class == mailer.ClassPermanent:
		return Bounced
	default:
		return Deferred
	}
}

// Get always fails: None remembers nothing.
func (*None) Get(context.Context, string, string) (Message, error) {
	return Message{}, ErrQueueRequired
}

// List always fails: None remembers nothing.
func (*None) List(context.Context, Filter, int, string) (Page, error) {
	return Page{}, ErrQueueRequired
}

// Retry always fails: None remembers nothing.
func (*None) Retry(context.Context, string, string) (Message, error) {
	return Message{}, ErrQueueRequired
}

// RetryMatching always fails: None remembers nothing.
func (*None) RetryMatching(context.Context, Filter) (int, error) {
	return 0, ErrQueueRequired
}

// Cancel always fails: None remembers nothing.
func (*None) Cancel(context.Context, string, string) (Message, error) {
	return Message{}, ErrQueueRequired
}

// Content always fails: None remembers nothing.
func (*None) Content(context.Context, string, string) ([]byte, error) {
	return nil, ErrQueueRequired
}
