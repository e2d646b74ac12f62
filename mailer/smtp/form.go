package smtp

import (
	"context"
	"errors"
	"strconv"

	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/processor"
)

// Signer signs messages with our own keys (DKIM, RFC 6376). It is safe for concurrent use.
type Signer interface {
	// Unsigned returns the content without our own signature, and as it is where it has
	// none. It does not copy: our signature is at the beginning. The error is that of the
	// context.
	Unsigned(ctx context.Context, c mailer.Content) (mailer.Content, error)
	// Sign returns the header fields that sign the content, to be put in front of it, each
	// with its CRLF; none where it is not to be signed. They depend on the content alone.
	Sign(ctx context.Context, c mailer.Content) ([]byte, error)
}

// kind is what of a message must be converted for a relay: it lacks SMTPUTF8 and the
// header section needs it, it lacks 8BITMIME and the body needs that.
type kind struct{ ascii, sevenBit bool }

// form is the content in a form that differs from the stored one.
type form struct {
	kind
	content mailer.Content
}

// forms are the forms of a message that one relay takes. Each is a function of the stored
// octets, of the relay's settings and of its extensions, so that each retry sends the same
// octets: [compose.Convert] says in which order it is made. The last one made is kept, and
// the one before it is let go first, so that a delivery never holds more than two copies.
type forms struct {
	relay  *Relay
	stored mailer.Content
	// forced says that the stored octets never go: the relay's own From takes the place
	// of the message's.
	forced     bool
	utf8Header bool // the message with its From holds raw UTF-8 in the header section
	last       *form
}

func newForms(r *Relay, stored mailer.Content) forms {
	return forms{relay: r, stored: stored, utf8Header: stored.UTF8Header}
}

// kind returns the kind of the form for a relay with those extensions.
func (s *forms) kind(ext extensions) kind {
	return kind{ascii: s.utf8Header && !ext.has("SMTPUTF8"), sevenBit: s.stored.EightBit && !ext.has("8BITMIME")}
}

// made returns the content in the form of that kind, unless that must be made first.
func (s *forms) made(k kind) (mailer.Content, bool) {
	switch {
	case k == kind{} && !s.forced:
		return s.stored, true
	case s.last != nil && s.last.kind == k:
		return s.last.content, true
	default:
		return mailer.Content{}, false
	}
}

// make makes the form of that kind; content that has it already is returned as it is
// stored. The error is that of [compose.Convert].
func (s *forms) make(ctx context.Context, k kind, reserve compose.Reserve) (mailer.Content, error) {
	s.last = nil
	o, content := &s.relay.opts, s.stored
	if len(content.Data) > processor.Small {
		if err := o.Processor.Enter(ctx, processor.Deliveries); err != nil {
			return s.stored, err
		}
		defer o.Processor.Leave()
	}
	f := compose.Form{From: o.ForceFrom, ASCIIHeader: k.ascii, SevenBit: k.sevenBit}
	if o.Signer != nil {
		var err error
		if content, err = o.Signer.Unsigned(ctx, content); err != nil {
			return s.stored, err
		}
		f.Sign = o.Signer.Sign
	}
	converted, err := compose.Convert(ctx, content, f, reserve)
	switch {
	case err != nil:
		return s.stored, err
	case same(converted.Data, content.Data):
		return s.stored, nil
	}
	s.last = &form{k, converted}
	return converted, nil
}

// same reports whether both are the same octets in memory.
func same(a, b []byte) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// forceFrom puts the relay's own From into the message, where it has one: before the
// message waits for a connection, so that its envelope can be sent behind the content of
// another one.
func (d *delivery) forceFrom(ctx context.Context) {
	if d.relay.opts.ForceFrom.Email == "" || len(d.open) == 0 {
		return
	}
	content, err := d.forms.make(ctx, kind{}, nil)
	if err != nil {
		failAll(d.open, d.notConverted(ctx, err))
		d.open = nil
		return
	}
	d.forms.forced, d.forms.utf8Header = d.forms.last != nil, content.UTF8Header
}

// adapted returns the content in the form that a relay with those extensions takes, or
// why there is none. Once ctx ended, there is no form.
func (d *delivery) adapted(ctx context.Context, ext extensions) (mailer.Content, *mailer.Failure) {
	if !ext.has("SMTPUTF8") && !mailer.IsASCII(d.env.ReversePath) {
		return d.forms.stored, d.cannotTake("5.6.7", "the reverse-path needs SMTPUTF8, which the relay does not offer", nil)
	}
	limit, k := ext.sizeLimit(), d.forms.kind(ext)
	content, ok := d.forms.made(k)
	if !ok {
		var err error
		if content, err = d.forms.make(ctx, k, within(limit)); err != nil {
			return d.forms.stored, d.notConverted(ctx, err)
		}
	}
	if size := len(content.Data); limit > 0 && int64(size) > limit {
		return content, d.tooLarge(size, limit)
	}
	return content, nil
}

// errOverSize says that the converted message would be larger than the relay takes.
type errOverSize struct {
	octets int
	limit  int64
}

func (e errOverSize) Error() string { return strconv.Itoa(e.octets) + " octets" }

// within refuses to make what would be larger than the relay takes, limit octets unless
// that is zero.
func within(limit int64) compose.Reserve {
	return func(octets int) error {
		if limit > 0 && int64(octets-len("\r\n")) > limit {
			return errOverSize{octets, limit}
		}
		return nil
	}
}

// notConverted returns the failure of a message that is not in the form that the relay
// takes, because of err.
func (d *delivery) notConverted(ctx context.Context, err error) *mailer.Failure {
	if ctx.Err() != nil {
		return &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Relay: d.relay.opts.Name, Text: "the attempt was stopped", Err: ctx.Err()}
	}
	if over, ok := errors.AsType[errOverSize](err); ok {
		return d.tooLarge(over.octets, over.limit)
	}
	if unsigned, ok := errors.AsType[*compose.SignError](err); ok {
		// It is about the message alone, before any command: no connection is to blame (RFC 3463 §3.8, X.7.5).
		return &mailer.Failure{
			Class: mailer.ClassTransient, Stage: mailer.StageCompose, Relay: d.relay.opts.Name, Reply: mailer.Reply{Enhanced: "4.7.5"},
			Text: "the message could not be signed", Err: unsigned,
		}
	}
	refusal, _ := errors.AsType[*mailer.Failure](err)
	switch {
	case refusal != nil && refusal.Reply.Enhanced == "5.6.2":
		return d.cannotTake("5.6.2", refusal.Text, err)
	case refusal != nil && refusal.Reply.Enhanced == "5.6.7":
		return d.cannotTake("5.6.7", "the message needs SMTPUTF8, which the relay does not offer, and cannot be converted", err)
	default:
		return d.cannotTake("5.6.3", "the message needs 8BITMIME, which the relay does not offer, and cannot be converted", err)
	}
}
