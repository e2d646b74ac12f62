package handler

import (
	"errors"
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

// readFinished reads a message that is RFC 5322 already. Its envelope stands in
// the request's header, else in its own fields, and so does its priority.
func (s *Server) readFinished(h http.Header, b *intake.Body, key *keys.Key, f intake.Fingerprint) (queue.Submission, error) {
	envelope, priority, err := s.finishedEnvelope(h)
	if err != nil {
		return queue.Submission{}, err
	}
	raw, err := b.All()
	if err != nil {
		return queue.Submission{}, err
	}
	f.Text(intake.TypeRFC822, envelope.EnvelopeFrom, envelope.EnvelopeTo)
	f.Option(headerEnvelopePriority, h.Get(headerEnvelopePriority))
	f.Bytes(raw)
	composed, err := compose.Finish(raw, envelope)
	if invalid, ok := errors.AsType[*mailer.InvalidError](err); ok && invalid.Malformed {
		return queue.Submission{}, problem.New(api.CodeMalformedMessage, "", invalid.Fields...)
	}
	if err != nil {
		return queue.Submission{}, err
	}
	if h.Get(headerEnvelopePriority) != "" {
		composed.Envelope.Priority = priority
	}
	return s.Accept(queue.Submission{Key: key.Name()}, composed, key)
}

// finishedEnvelope reads Envelope-From, Envelope-To and Envelope-Priority, so
// that what is wrong there is known before the body is read. What is absent is
// left to the message.
func (s *Server) finishedEnvelope(h http.Header) (compose.FinishOptions, mailer.Priority, error) {
	var f fieldErrors
	o := compose.FinishOptions{
		EnvelopeFrom: strings.TrimSpace(strings.Join(h.Values(headerEnvelopeFrom), ",")),
		EnvelopeTo:   strings.TrimSpace(strings.Join(h.Values(headerEnvelopeTo), ",")),
	}
	if _, given := h[headerEnvelopeFrom]; given && o.EnvelopeFrom != "<>" {
		if _, err := mailer.ParseAddress(o.EnvelopeFrom); err != nil {
			f.AddAddress(headerEnvelopeFrom, err)
		}
	}
	if _, given := h[headerEnvelopeTo]; given {
		list, err := mailer.ParseAddressList(o.EnvelopeTo)
		if err != nil {
			f.AddAddress(headerEnvelopeTo, err)
		}
		if len(list) > s.maxRecipients {
			return o, 0, s.tooManyRecipients(len(list))
		}
	}
	priority := f.priority(headerEnvelopePriority, strings.Join(h.Values(headerEnvelopePriority), ","))
	return o, priority, f.Err()
}
