package queue

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
)

// Direct stores nothing: it answers a submission with the relay's verdict
// (MAILSIDECAR_QUEUE=none).
type Direct struct {
	routes Routes
	log    *slog.Logger
}

// NewDirect returns a Direct that delivers through routes and writes the mail log; a
// nil log discards it.
func NewDirect(routes Routes, log *slog.Logger) *Direct {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Direct{routes: routes, log: log}
}

// Submit makes one attempt, over every relay that may take the sender's mail,
// and returns when it is over or ctx ends. A recipient that was not accepted is
// [Bounced] when the failure is permanent, else [Deferred], though the queue will
// not try again: that is up to the caller.
func (d *Direct) Submit(ctx context.Context, s Submission) (Receipt, error) {
	if s.IdempotencyKey != "" || !s.SendAt.IsZero() || s.ExpiresIn != 0 {
		return Receipt{}, ErrQueueRequired
	}
	relays := d.routes.For(s.Sender)
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
	m.Recipients = verdicts(s.Envelope.ForwardPaths, m.Attempts)
	d.logVerdicts(m)
	return Receipt{Message: m}, nil
}

// verdicts gives each recipient the state that the last attempt on it left.
func verdicts(forwardPaths []string, attempts []mailer.Attempt) []Recipient {
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
