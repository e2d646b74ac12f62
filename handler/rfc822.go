package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
)

// readFinished reads a message that is RFC 5322 already. Envelope and priority come
// from the request's header, or else from the message's own fields.
func (s *Server) readFinished(ctx context.Context, h http.Header, b *intake.Body, key *keys.Key, f intake.Fingerprint) (queue.Submission, error) {
	envelope, priority, err := s.finishedEnvelope(h)
	if err != nil {
		return queue.Submission{}, err
	}
	raw, err := b.All()
	if err != nil {
		return queue.Submission{}, err
	}
	if err := b.Begin(); err != nil {
		return queue.Submission{}, err
	}
	envelope.Options = compose.Options{Reserve: s.reserve(b.Share()), Signer: s.signer}
	envelope.ForceFrom = s.forceFrom
	f.Text(intake.TypeRFC822, headerList(h, headerEnvelopeFrom), headerList(h, headerEnvelopeTo))
	f.Option(headerEnvelopePriority, h.Get(headerEnvelopePriority))
	f.Bytes(raw)
	composed, err := compose.Finish(ctx, raw, envelope)
	if invalid, ok := errors.AsType[*mailer.InvalidError](err); ok && invalid.Malformed {
		return queue.Submission{}, problem.New(api.CodeMalformedMessage, "", problem.Located(invalid.Fields, mailer.Position.String)...)
	}
	if err != nil {
		return queue.Submission{}, err
	}
	if h.Get(headerEnvelopePriority) != "" {
		composed.Envelope.Priority = priority
	}
	return s.accept(queue.Submission{Key: key.Name()}, composed, key)
}

// finishedEnvelope reads Envelope-From, Envelope-To and Envelope-Priority. It is called
// before the body is read. The zero values leave the choice to the message.
func (s *Server) finishedEnvelope(h http.Header) (o compose.FinishOptions, p mailer.Priority, err error) {
	var f fieldErrors
	if _, given := h[headerEnvelopeFrom]; given {
		from := headerList(h, headerEnvelopeFrom)
		if o.NullFrom = from == "<>"; !o.NullFrom {
			if o.From, err = mailer.ParseAddress(from); err != nil {
				f.AddAddress(headerEnvelopeFrom, err)
			}
		}
	}
	if _, given := h[headerEnvelopeTo]; given {
		o.To = f.envelopeTo(headerList(h, headerEnvelopeTo))
		if len(o.To) > s.maxRecipients {
			return o, 0, s.tooManyRecipients(len(o.To))
		}
	}
	priority := f.priority(headerEnvelopePriority, strings.Join(h.Values(headerEnvelopePriority), ","))
	return o, priority, f.Err()
}

// envelopeTo reads the recipients. Where there are several, it names each that is wrong by
// its number, from 0, so that a client can send to the others.
func (f *fieldErrors) envelopeTo(value string) []mailer.Address {
	list, wrong, err := mailer.ParseAddressMembers(value)
	if err != nil {
		f.AddAddress(headerEnvelopeTo, err)
	}
	for i, err := range wrong {
		switch {
		case err == nil:
		case len(list) == 1:
			f.AddAddress(headerEnvelopeTo, err)
		default:
			f.AddAddress(fmt.Sprintf("%s[%d]", headerEnvelopeTo, i), err)
		}
	}
	return list
}

// headerList joins the values of a field that has a list (RFC 9110 §5.3).
func headerList(h http.Header, name string) string {
	return strings.TrimSpace(strings.Join(h.Values(name), ","))
}
