package queue

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
)

// Direct stores nothing: it answers a submission with the relay's verdict
// (MAILSIDECAR_QUEUE=none).
type Direct struct {
	routes Routes
	log    *slog.Logger
	// life ends with Stop, and the attempts with it.
	life context.Context //nolint:containedctx // it spans the attempts, not a call
	end  context.CancelFunc
}

// NewDirect returns a Direct that delivers through routes and writes the mail log; a
// nil log discards it.
func NewDirect(routes Routes, log *slog.Logger) *Direct {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Direct{routes: routes, log: log}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Stop cuts the attempts short, so that those who wait for a verdict are answered: a
// message that may be with a relay is uncertain, and one that certainly is not gets
// [ErrShuttingDown], as all later ones do.
func (d *Direct) Stop() { d.end() }

// Submit makes one attempt, over every relay that may take the sender's mail,
// and returns when it is over or ctx ends. A recipient that was not accepted is
// [Bounced] when the failure is permanent, else [Deferred], though the queue will
// not try again: that is up to the caller.
func (d *Direct) Submit(ctx context.Context, s Submission) (Receipt, error) {
	if s.IdempotencyKey != "" || !s.SendAt.IsZero() || s.ExpiresIn != 0 {
		return Receipt{}, ErrQueueRequired
	}
	if d.life.Err() != nil {
		return Receipt{}, ErrShuttingDown
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
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
	if d.life.Err() != nil && !slices.ContainsFunc(m.Recipients, judged) {
		return Receipt{}, ErrShuttingDown
	}
	return Receipt{Message: m}, nil
}

// judged reports whether a relay said something of the recipient, or may have its
// mail.
func judged(r Recipient) bool {
	f := r.Result.Failure
	return f == nil || f.Reply.Code != 0 || f.Class == mailer.ClassUncertain || f.Class == mailer.ClassPermanent
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
