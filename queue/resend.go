package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
)

// Resend is how a stored message is to be sent once more.
type Resend struct {
	ID string // of the stored message
	To string // forward-path, as [mailer.ParseAddress] returns it
	// InsteadOf is the recipient that To is meant for; empty names none. It must have ended without
	// the message.
	InsteadOf string
	// Again lets it go to an address that has the message already, may have it, or may get it.
	Again bool
	// Caller is the API key that asks for it; IdempotencyKey is one of its own. An admin's may
	// be another key than the message's.
	Caller string
	// Reserve, unless nil, is asked before so many octets of content are read, and Judge before
	// they are sent. Their errors refuse it.
	Reserve func(octets int64) error
	Judge   func(m Message, c mailer.Content) error
	// Origin, IdempotencyKey and Fingerprint are as in a [Submission].
	Origin         Origin
	IdempotencyKey string
	Fingerprint    [32]byte
}

// ErrNotRecipient: the message has no such recipient.
var ErrNotRecipient = errors.New("not a recipient of the message")

// ResentError says that To has the message already, may have it, or may get it.
type ResentError struct {
	ID    string // of the message that was sent there: that itself, or one that sent it again
	State State  // of the recipient there
	// Own says that To is a recipient of the message itself.
	Own bool
}

func (e *ResentError) Error() string {
	return "it went to that address as " + e.ID + ", where it is " + string(e.State)
}

// InsteadError says that nothing can be sent in place of a recipient: it has the message, or may
// have or get it.
type InsteadError struct {
	State State
	// TakenBy is the relay that may have taken it.
	TakenBy string
}

func (e *InsteadError) Error() string {
	if e.TakenBy != "" {
		return "the relay " + e.TakenBy + " may have taken it for this recipient"
	}
	return "the recipient is " + string(e.State)
}

// Resend sends the content of a message to another address: as a new message of the same
// key, which is accepted as a submission is, with Resent-* fields in front (RFC 5322 §3.6.6). The
// error is [ErrContentGone] where the content was removed, and a [*ResentError] where it went to that address before. The repetition of a request that was stored is
// answered as that, whatever has become of the first message, or of what its key may do, since.
func (d *Durable) Resend(ctx context.Context, key string, r Resend) (Receipt, error) {
	s, why := d.resend(ctx, key, r)
	if why == nil {
		return d.Submit(ctx, s)
	}
	if r.IdempotencyKey == "" || ctx.Err() != nil {
		return Receipt{}, why
	}
	i := idempotency(s, d.now())
	replayed, err := d.store.Replay(ctx, i)
	switch {
	case replayed != nil:
		receipts, _, err := d.intake.replay(ctx, Submission{Key: key}, replayed, false)
		if err != nil {
			return Receipt{}, err
		}
		return receipts[0], nil
	case errors.Is(err, ErrIdempotencyMismatch):
		why = err
	case err != nil && ctx.Err() == nil:
		d.log.Warn("look up idempotency key", "error", err)
	}
	return Receipt{}, why
}

// resend makes a submission of the message. Where it may not be sent, too, it has what an idempotency key is
// looked up by.
func (d *Durable) resend(ctx context.Context, key string, r Resend) (Submission, error) {
	s := Submission{Key: r.Caller, Origin: r.Origin, Caller: r.Caller, IdempotencyKey: r.IdempotencyKey, Fingerprint: r.Fingerprint}
	m, err := d.store.Get(ctx, key, r.ID)
	if err != nil {
		return s, err
	}
	s.Key, s.Sender, s.Subject, s.Tags, s.ResentOf = m.Key, m.Sender, m.Subject, m.Tags, m.ID
	s.Envelope = mailer.Envelope{ReversePath: m.Envelope.ReversePath, ForwardPaths: []string{r.To}, Priority: m.Envelope.Priority}
	if err := m.insteadOf(r.InsteadOf); err != nil {
		return s, err
	}
	if r.Reserve != nil {
		if err := r.Reserve(m.Size); err != nil {
			return s, err
		}
	}
	content, err := d.store.Content(ctx, m.Key, m.ID)
	if err != nil {
		return s, err
	}
	if err := d.notSentTo(ctx, m, r); err != nil {
		return s, err
	}
	if r.Judge != nil {
		if err := r.Judge(m, content); err != nil {
			return s, err
		}
	}
	s.Content = resent(content, m.Sender, r.To, d.now())
	return s, nil
}

// notSentTo refuses an address to which the message went before, unless nothing came of that.
func (d *Durable) notSentTo(ctx context.Context, m Message, r Resend) error {
	if r.Again {
		return nil
	}
	if state, sent := m.hasOrMayGet(r.To); sent {
		return &ResentError{m.ID, state, true}
	}
	for _, id := range slices.Backward(m.ResentAs) { // MaxResent at most
		copied, err := d.store.Get(ctx, m.Key, id)
		switch {
		case errors.Is(err, ErrNotFound): // it was delivered long ago, or not: nobody knows any more
			continue
		case err != nil:
			return err
		}
		if state, sent := copied.hasOrMayGet(r.To); sent {
			return &ResentError{id, state, false}
		}
	}
	return nil
}

// hasOrMayGet says whether a recipient with the address has the message, may have it, or may still get it, and what
// its state is.
func (m *Message) hasOrMayGet(path string) (State, bool) {
	for _, r := range m.Recipients {
		if strings.EqualFold(r.ForwardPath, path) && (r.State == Delivered || !r.State.Final() || r.TakenBy != "") {
			return r.State, true
		}
	}
	return "", false
}

// insteadOf says whether the message may go to another address in place of the recipient, if one is
// named.
func (m *Message) insteadOf(path string) error {
	if path == "" {
		return nil
	}
	n := slices.IndexFunc(m.Recipients, func(r Recipient) bool { return strings.EqualFold(r.ForwardPath, path) })
	if n < 0 {
		return ErrNotRecipient
	}
	if r := m.Recipients[n]; r.State == Delivered || !r.State.Final() || r.TakenBy != "" {
		return &InsteadError{r.State, r.TakenBy}
	}
	return nil
}

// resent puts a block of Resent-* fields in front of the message. The rest stays as it is, which
// leaves its signatures good: those of DKIM cover fields that stood there when they
// were made.
func resent(c mailer.Content, from, to string, at time.Time) mailer.Content {
	if from == "" { // then there is nobody whose act it could be
		return c
	}
	domain := from[strings.LastIndexByte(from, '@')+1:]
	block := "Resent-Date: " + mailer.FormatDate(at) + "\r\n" +
		"Resent-From: " + mailer.HeaderAddrSpec(from) + "\r\n" +
		"Resent-To: " + mailer.HeaderAddrSpec(to) + "\r\n" +
		"Resent-Message-ID: <" + uuid.NewString() + "@" + domain + ">\r\n"
	c.UTF8Header = c.UTF8Header || !mailer.IsASCII(block)
	data := make([]byte, 0, len(block)+len(c.Data))
	c.Data = append(append(data, block...), c.Data...)
	return c
}
