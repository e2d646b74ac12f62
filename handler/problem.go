package handler

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// This file, and no other, maps errors to HTTP. Every answer that is an error
// is an application/problem+json (RFC 9457) with one of the codes below, which
// never change their meaning; docs/http-api.md lists them.

// code tells a client what happened, in a word that it can switch on.
type code string

const (
	codeMalformedJSON     code = "malformed_json"
	codeUnknownField      code = "unknown_field"
	codeDuplicateField    code = "duplicate_field"
	codeWrongType         code = "wrong_type"
	codeInvalidBase64     code = "invalid_base64"
	codeMalformedForm     code = "malformed_form"
	codeMalformedHeader   code = "malformed_header"
	codeMalformedMessage  code = "malformed_message"
	codeInvalidParameter  code = "invalid_parameter"
	codeIncompleteBody    code = "incomplete_body"
	codeUnauthorized      code = "unauthorized"
	codeCrossOrigin       code = "cross_origin"
	codeForeignHost       code = "foreign_host"
	codeSenderNotAllowed  code = "sender_not_allowed"
	codeNotFound          code = "not_found"
	codeMessageNotFound   code = "message_not_found"
	codeMethodNotAllowed  code = "method_not_allowed"
	codeBodyTimeout       code = "body_timeout"
	codeIdempotencyInUse  code = "idempotency_key_in_use"
	codeNothingToRetry    code = "nothing_to_retry"
	codeNothingToCancel   code = "nothing_to_cancel"
	codeContentGone       code = "content_gone"
	codeBodyTooLarge      code = "body_too_large"
	codeMessageTooLarge   code = "message_too_large"
	codeContentType       code = "unsupported_content_type"
	codeContentEncoding   code = "unsupported_content_encoding"
	codeInvalidMessage    code = "invalid_message"
	codeTooManyRecipients code = "too_many_recipients"
	codeTooManyMessages   code = "too_many_messages"
	codeInvalidBatch      code = "invalid_batch"
	codeIdempotencyReused code = "idempotency_key_reused"
	codeQueueRequired     code = "queue_required"
	codeRejected          code = "rejected"
	codeCanceled          code = "canceled"
	codeRateLimited       code = "rate_limited"
	codeInternal          code = "internal"
	codeExpired           code = "expired"
	codeRelayDeferred     code = "relay_deferred"
	codeRelayUnreachable  code = "relay_unreachable"
	codeBusy              code = "busy"
	codeQueueFull         code = "queue_full"
	codeDiskFull          code = "disk_full"
	codeQueueUnavailable  code = "queue_unavailable"
	codeShuttingDown      code = "shutting_down"
	codeTimeout           code = "timeout"
	codeUncertain         code = "uncertain"
)

// meaning is what is said of a code in every answer that bears it.
type meaning struct {
	status int
	title  string
	// retryable: the same request may succeed later, and nothing was sent or
	// stored for this one.
	retryable bool
	// retryAfter is in seconds; zero leaves the field out.
	retryAfter int
}

var meanings = map[code]meaning{
	codeMalformedJSON:     {http.StatusBadRequest, "The body is not valid JSON", false, 0},
	codeUnknownField:      {http.StatusBadRequest, "The request has a field that is not known", false, 0},
	codeDuplicateField:    {http.StatusBadRequest, "The request has a field twice", false, 0},
	codeWrongType:         {http.StatusBadRequest, "A field has the wrong type", false, 0},
	codeInvalidBase64:     {http.StatusBadRequest, "A field is not valid base64", false, 0},
	codeMalformedForm:     {http.StatusBadRequest, "The body is not a valid form", false, 0},
	codeMalformedHeader:   {http.StatusBadRequest, "A header field would be malformed", false, 0},
	codeMalformedMessage:  {http.StatusBadRequest, "The body is not a message", false, 0},
	codeInvalidParameter:  {http.StatusBadRequest, "A parameter is not valid", false, 0},
	codeIncompleteBody:    {http.StatusBadRequest, "The body ended early", true, 0},
	codeUnauthorized:      {http.StatusUnauthorized, "An API key is required", false, 0},
	codeCrossOrigin:       {http.StatusForbidden, "Requests from foreign web pages are refused", false, 0},
	codeForeignHost:       {http.StatusForbidden, "The Host header does not name this machine", false, 0},
	codeSenderNotAllowed:  {http.StatusForbidden, "The sender is not allowed", false, 0},
	codeNotFound:          {http.StatusNotFound, "There is no such resource", false, 0},
	codeMessageNotFound:   {http.StatusNotFound, "There is no such message", false, 0},
	codeMethodNotAllowed:  {http.StatusMethodNotAllowed, "The method is not allowed", false, 0},
	codeBodyTimeout:       {http.StatusRequestTimeout, "The body arrived too slowly", true, 0},
	codeIdempotencyInUse:  {http.StatusConflict, "The first request with this Idempotency-Key is still being answered", true, 1},
	codeNothingToRetry:    {http.StatusConflict, "No recipient can be tried again", false, 0},
	codeNothingToCancel:   {http.StatusConflict, "Every recipient is in a final state", false, 0},
	codeContentGone:       {http.StatusGone, "The content of the message was removed", false, 0},
	codeBodyTooLarge:      {http.StatusRequestEntityTooLarge, "The body is too large", false, 0},
	codeMessageTooLarge:   {http.StatusRequestEntityTooLarge, "The message is too large", false, 0},
	codeContentType:       {http.StatusUnsupportedMediaType, "The content type is not supported", false, 0},
	codeContentEncoding:   {http.StatusUnsupportedMediaType, "The content encoding is not supported", false, 0},
	codeInvalidMessage:    {http.StatusUnprocessableEntity, "The message cannot be sent as it is", false, 0},
	codeTooManyRecipients: {http.StatusUnprocessableEntity, "The message has too many recipients", false, 0},
	codeTooManyMessages:   {http.StatusUnprocessableEntity, "The batch has too many messages", false, 0},
	codeInvalidBatch:      {http.StatusUnprocessableEntity, "No message of the batch was stored", false, 0},
	codeIdempotencyReused: {http.StatusUnprocessableEntity, "The Idempotency-Key was used with another request", false, 0},
	codeQueueRequired:     {http.StatusUnprocessableEntity, "This needs a queue, and none is configured", false, 0},
	codeRejected:          {http.StatusUnprocessableEntity, "The relay refused the message", false, 0},
	codeCanceled:          {http.StatusUnprocessableEntity, "The message was canceled", false, 0},
	codeRateLimited:       {http.StatusTooManyRequests, "The key's rate is used up", true, 1},
	codeInternal:          {http.StatusInternalServerError, "Something is wrong with the server", false, 0},
	codeExpired:           {http.StatusBadGateway, "The message expired before a relay took it", true, 60},
	codeRelayDeferred:     {http.StatusBadGateway, "The relay did not take the message now", true, 60},
	codeRelayUnreachable:  {http.StatusServiceUnavailable, "The relay cannot be used now", true, 30},
	codeBusy:              {http.StatusServiceUnavailable, "Too many bytes are in flight", true, 1},
	codeQueueFull:         {http.StatusServiceUnavailable, "The queue is full", true, 60},
	codeDiskFull:          {http.StatusServiceUnavailable, "The disk is almost full", true, 60},
	codeQueueUnavailable:  {http.StatusServiceUnavailable, "The queue's store does not work", true, 60},
	codeShuttingDown:      {http.StatusServiceUnavailable, "The server is shutting down", true, 5},
	codeTimeout:           {http.StatusServiceUnavailable, "The request took too long", true, 5},
	codeUncertain:         {http.StatusGatewayTimeout, "The relay may or may not have taken the message", false, 0},
}

// sentinels are the errors of other packages that mean one code each.
var sentinels = []struct {
	err    error
	code   code
	detail string
}{
	{queue.ErrQueueRequired, codeQueueRequired, "MAILSIDECAR_QUEUE is none: nothing can be stored, scheduled, listed or repeated."},
	{queue.ErrNoRoute, codeSenderNotAllowed, "Every relay has SMTP_SENDERS, and none names this sender."},
	{queue.ErrNotFound, codeMessageNotFound, ""},
	{queue.ErrFull, codeQueueFull, ""},
	{queue.ErrDiskFull, codeDiskFull, ""},
	{queue.ErrShuttingDown, codeShuttingDown, ""},
	{queue.ErrClosed, codeShuttingDown, ""},
	{queue.ErrMoved, codeQueueUnavailable, "The log has the cause, under this request_id."},
	{queue.ErrIdempotencyInProgress, codeIdempotencyInUse, ""},
	{queue.ErrIdempotencyMismatch, codeIdempotencyReused, ""},
	{queue.ErrInvalidCursor, codeInvalidParameter, "The cursor was not given by this server."},
	{queue.ErrNothingToRetry, codeNothingToRetry, "Every recipient is delivered, canceled or being tried just now, or the content was removed."},
	{queue.ErrNothingToCancel, codeNothingToCancel, ""},
	{queue.ErrContentGone, codeContentGone, ""},
	{echo.ErrNotFound, codeNotFound, ""},
	{echo.ErrMethodNotAllowed, codeMethodNotAllowed, "The Allow field lists the methods that are."},
	{context.DeadlineExceeded, codeTimeout, ""},
	{context.Canceled, codeTimeout, "The client went away first."},
}

// problem is an error on its way to the client.
type problem struct {
	code   code
	detail string // one or more sentences; empty leaves the title to speak
	fields []mailer.FieldError
	// retryAfter in seconds overrides the meaning's, unless it is zero.
	retryAfter int
	// message is what became of the message, where one was made.
	message *messageBody
	// failure is why the relay did not take it.
	failure *mailer.Failure
	// results are those of a batch of which nothing was stored.
	results []batchResult
}

func (p *problem) Error() string {
	if p.detail != "" {
		return string(p.code) + ": " + p.detail
	}
	return string(p.code)
}

func fail(c code, detail string, fields ...mailer.FieldError) *problem {
	return &problem{code: c, detail: detail, fields: fields}
}

// problemFor never returns nil. What it does not know is internal: the client
// reads nothing of it, the log the whole.
func problemFor(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if invalid, ok := errors.AsType[*mailer.InvalidError](err); ok {
		return problemForInvalid(invalid)
	}
	if unsendable, ok := errors.AsType[*mailer.Failure](err); ok {
		p := fail(codeInvalidMessage, describe(unsendable))
		p.failure = unsendable
		return p
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return fail(s.code, s.detail)
		}
	}
	if _, ok := errors.AsType[*queue.StoreError](err); ok {
		return fail(codeQueueUnavailable, "The log has the cause, under this request_id.")
	}
	return fail(codeInternal, "The log has the cause, under this request_id.")
}

func problemForInvalid(e *mailer.InvalidError) *problem {
	switch {
	case e.Malformed && len(e.Fields) > 1:
		// The first finding need not be the one that the code is about.
		return fail(codeMalformedHeader, "A header field would be malformed; errors lists all findings.", e.Fields...)
	case e.Malformed:
		return fail(codeMalformedHeader, "", e.Fields...)
	}
	return fail(codeInvalidMessage, "", e.Fields...)
}

// problemBody is the answer's form.
type problemBody struct {
	Type         string           `json:"type"`
	Title        string           `json:"title"`
	Status       int              `json:"status"`
	Detail       string           `json:"detail"`
	Code         code             `json:"code"`
	Errors       []fieldErrorBody `json:"errors,omitempty"`
	Retryable    bool             `json:"retryable"`
	RequestID    string           `json:"request_id,omitempty"`
	ReplyCode    int              `json:"reply_code,omitzero"`
	EnhancedCode string           `json:"enhanced_code,omitempty"`
	Stage        string           `json:"stage,omitempty"`
	Relay        string           `json:"relay,omitempty"`
	Port         int              `json:"port,omitzero"`
	ID           string           `json:"id,omitempty"`
	MessageID    string           `json:"message_id,omitempty"`
	Recipients   []recipientBody  `json:"recipients,omitempty"`
	Results      []batchResult    `json:"results,omitempty"`
}

type fieldErrorBody struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (p *problem) body(requestID string) problemBody {
	m := meanings[p.code]
	b := problemBody{
		// A URN, because a problem's type is an identity and need not be fetched
		// (RFC 9457 §3.1.1).
		Type: "urn:mailsidecar:problem:" + string(p.code), Title: m.title, Status: m.status,
		Detail: p.detail, Code: p.code, Retryable: m.retryable, RequestID: requestID, Results: p.results,
	}
	if b.Detail == "" {
		b.Detail = m.title + "."
		if len(p.fields) > 0 {
			b.Detail = sentence(p.fields[0])
		}
	}
	for _, f := range p.fields {
		b.Errors = append(b.Errors, fieldErrorBody(f))
	}
	if f := p.failure; f != nil {
		b.ReplyCode, b.EnhancedCode = f.Reply.Code, f.EnhancedCode()
		b.Stage, b.Relay, b.Port = f.Stage.String(), f.Relay, f.Port
	}
	if m := p.message; m != nil {
		b.ID, b.MessageID, b.Recipients = m.ID, m.MessageID, m.Recipients
	}
	return b
}

func sentence(f mailer.FieldError) string {
	if f.Field == "" {
		return "The body " + f.Message + "."
	}
	return f.Field + ": " + f.Message
}

// writeProblem is echo's error handler.
func (s *Server) writeProblem(err error, c echo.Context) {
	r := request(c)
	p := problemFor(err)
	r.code = p.code
	if p.code == codeInternal || p.code == codeQueueUnavailable {
		s.log.Error("request failed", "request_id", r.id, "route", c.Path(), "error", err)
	}
	if c.Response().Committed {
		return
	}
	m := meanings[p.code]
	if after := max(p.retryAfter, m.retryAfter); after > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(after))
	}
	switch p.code {
	case codeUnauthorized:
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="mailsidecar"`)
	case codeContentType:
		c.Response().Header().Set("Accept", acceptedTypes)
	case codeContentEncoding:
		c.Response().Header().Set("Accept-Encoding", "identity")
	case codeBodyTimeout, codeBodyTooLarge, codeIncompleteBody:
		// What is left of the body is not worth reading.
		c.Response().Header().Set("Connection", "close")
	default:
	}
	if provider := s.providerOf(c.Request().URL.Path); provider != nil {
		err = provider.writeProblem(c, p)
	} else {
		err = writeJSON(c, m.status, "application/problem+json", p.body(r.id))
	}
	if err != nil {
		s.log.Debug("answer not written", "request_id", r.id, "error", err)
	}
}

// writeJSON answers with v. Relay text may hold octets that are no UTF-8; they
// become U+FFFD.
func writeJSON(c echo.Context, status int, contentType string, v any) error {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	if err != nil {
		return err
	}
	return c.Blob(status, contentType, append(b, '\n'))
}
