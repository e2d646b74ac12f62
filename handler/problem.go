package handler

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// This file, and no other, maps errors to HTTP. Every answer that is an error
// is an application/problem+json (RFC 9457), an [api.Problem].

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

var meanings = map[api.Code]meaning{
	api.CodeMalformedJSON:     {http.StatusBadRequest, "The body is not valid JSON", false, 0},
	api.CodeUnknownField:      {http.StatusBadRequest, "The request has a field that is not known", false, 0},
	api.CodeDuplicateField:    {http.StatusBadRequest, "The request has a field twice", false, 0},
	api.CodeWrongType:         {http.StatusBadRequest, "A field has the wrong type", false, 0},
	api.CodeInvalidBase64:     {http.StatusBadRequest, "A field is not valid base64", false, 0},
	api.CodeMalformedForm:     {http.StatusBadRequest, "The body is not a valid form", false, 0},
	api.CodeMalformedHeader:   {http.StatusBadRequest, "A header field would be malformed", false, 0},
	api.CodeMalformedMessage:  {http.StatusBadRequest, "The body is not a message", false, 0},
	api.CodeInvalidParameter:  {http.StatusBadRequest, "A parameter is not valid", false, 0},
	api.CodeIncompleteBody:    {http.StatusBadRequest, "The body ended early", true, 0},
	api.CodeUnauthorized:      {http.StatusUnauthorized, "An API key is required", false, 0},
	api.CodeCrossOrigin:       {http.StatusForbidden, "Requests from foreign web pages are refused", false, 0},
	api.CodeForeignHost:       {http.StatusForbidden, "The Host header does not name this machine", false, 0},
	api.CodeSenderNotAllowed:  {http.StatusForbidden, "The sender is not allowed", false, 0},
	api.CodeNotFound:          {http.StatusNotFound, "There is no such resource", false, 0},
	api.CodeMessageNotFound:   {http.StatusNotFound, "There is no such message", false, 0},
	api.CodeMethodNotAllowed:  {http.StatusMethodNotAllowed, "The method is not allowed", false, 0},
	api.CodeBodyTimeout:       {http.StatusRequestTimeout, "The body arrived too slowly", true, 0},
	api.CodeIdempotencyInUse:  {http.StatusConflict, "The first request with this Idempotency-Key is still being answered", true, 1},
	api.CodeNothingToRetry:    {http.StatusConflict, "No recipient can be tried again", false, 0},
	api.CodeNothingToCancel:   {http.StatusConflict, "Every recipient is in a final state", false, 0},
	api.CodeContentGone:       {http.StatusGone, "The content of the message was removed", false, 0},
	api.CodeBodyTooLarge:      {http.StatusRequestEntityTooLarge, "The body is too large", false, 0},
	api.CodeMessageTooLarge:   {http.StatusRequestEntityTooLarge, "The message is too large", false, 0},
	api.CodeContentType:       {http.StatusUnsupportedMediaType, "The content type is not supported", false, 0},
	api.CodeContentEncoding:   {http.StatusUnsupportedMediaType, "The content encoding is not supported", false, 0},
	api.CodeInvalidMessage:    {http.StatusUnprocessableEntity, "The message cannot be sent as it is", false, 0},
	api.CodeTooManyRecipients: {http.StatusUnprocessableEntity, "The message has too many recipients", false, 0},
	api.CodeTooManyMessages:   {http.StatusUnprocessableEntity, "The batch has too many messages", false, 0},
	api.CodeInvalidBatch:      {http.StatusUnprocessableEntity, "No message of the batch was stored", false, 0},
	api.CodeIdempotencyReused: {http.StatusUnprocessableEntity, "The Idempotency-Key was used with another request", false, 0},
	api.CodeQueueRequired:     {http.StatusUnprocessableEntity, "This needs a queue, and none is configured", false, 0},
	api.CodeRejected:          {http.StatusUnprocessableEntity, "The relay refused the message", false, 0},
	api.CodeCanceled:          {http.StatusUnprocessableEntity, "The message was canceled", false, 0},
	api.CodeRateLimited:       {http.StatusTooManyRequests, "The key's rate is used up", true, 1},
	api.CodeInternal:          {http.StatusInternalServerError, "Something is wrong with the server", false, 0},
	api.CodeExpired:           {http.StatusBadGateway, "The message expired before a relay took it", true, 60},
	api.CodeRelayDeferred:     {http.StatusBadGateway, "The relay did not take the message now", true, 60},
	api.CodeRelayUnreachable:  {http.StatusServiceUnavailable, "The relay cannot be used now", true, 30},
	api.CodeBusy:              {http.StatusServiceUnavailable, "Too many bytes are in flight", true, 1},
	api.CodeQueueFull:         {http.StatusServiceUnavailable, "The queue is full", true, 60},
	api.CodeDiskFull:          {http.StatusServiceUnavailable, "The disk is almost full", true, 60},
	api.CodeQueueUnavailable:  {http.StatusServiceUnavailable, "The queue's store does not work", true, 60},
	api.CodeShuttingDown:      {http.StatusServiceUnavailable, "The server is shutting down", true, 5},
	api.CodeTimeout:           {http.StatusServiceUnavailable, "The request took too long", true, 5},
	api.CodeUncertain:         {http.StatusGatewayTimeout, "The relay may or may not have taken the message", false, 0},
}

// sentinels are the errors of other packages that mean one code each.
var sentinels = []struct {
	err    error
	code   api.Code
	detail string
}{
	{queue.ErrQueueRequired, api.CodeQueueRequired, "MAILSIDECAR_QUEUE is none: nothing can be stored, scheduled, listed or repeated."},
	{queue.ErrNoRoute, api.CodeSenderNotAllowed, "Every relay has SMTP_SENDERS, and none names this sender."},
	{queue.ErrNotFound, api.CodeMessageNotFound, ""},
	{queue.ErrFull, api.CodeQueueFull, ""},
	{queue.ErrDiskFull, api.CodeDiskFull, ""},
	{queue.ErrShuttingDown, api.CodeShuttingDown, ""},
	{queue.ErrClosed, api.CodeShuttingDown, ""},
	{queue.ErrMoved, api.CodeQueueUnavailable, "The log has the cause, under this request_id."},
	{queue.ErrIdempotencyInProgress, api.CodeIdempotencyInUse, ""},
	{queue.ErrIdempotencyMismatch, api.CodeIdempotencyReused, ""},
	{queue.ErrInvalidCursor, api.CodeInvalidParameter, "The cursor was not given by this server."},
	{queue.ErrNothingToRetry, api.CodeNothingToRetry, "Every recipient is delivered, canceled or being tried just now, or the content was removed."},
	{queue.ErrNothingToCancel, api.CodeNothingToCancel, ""},
	{queue.ErrContentGone, api.CodeContentGone, ""},
	{echo.ErrNotFound, api.CodeNotFound, ""},
	{echo.ErrMethodNotAllowed, api.CodeMethodNotAllowed, "The Allow field lists the methods that are."},
	{context.DeadlineExceeded, api.CodeTimeout, ""},
	{context.Canceled, api.CodeTimeout, "The client went away first."},
}

// problem is an error on its way to the client.
type problem struct {
	code   api.Code
	detail string // one or more sentences; empty leaves the title to speak
	fields []mailer.FieldError
	// retryAfter in seconds overrides the meaning's, unless it is zero.
	retryAfter int
	// message is what became of the message, where one was made.
	message *api.Receipt
	// failure is why the relay did not take it.
	failure *mailer.Failure
	// results are those of a batch of which nothing was stored.
	results []api.BatchResult
}

func (p *problem) Error() string {
	if p.detail != "" {
		return string(p.code) + ": " + p.detail
	}
	return string(p.code)
}

func fail(c api.Code, detail string, fields ...mailer.FieldError) *problem {
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
		p := fail(api.CodeInvalidMessage, describe(unsendable))
		p.failure = unsendable
		return p
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return fail(s.code, s.detail)
		}
	}
	if _, ok := errors.AsType[*queue.StoreError](err); ok {
		return fail(api.CodeQueueUnavailable, "The log has the cause, under this request_id.")
	}
	return fail(api.CodeInternal, "The log has the cause, under this request_id.")
}

func problemForInvalid(e *mailer.InvalidError) *problem {
	switch {
	case e.Malformed && len(e.Fields) > 1:
		// The first finding need not be the one that the code is about.
		return fail(api.CodeMalformedHeader, "A header field would be malformed; errors lists all findings.", e.Fields...)
	case e.Malformed:
		return fail(api.CodeMalformedHeader, "", e.Fields...)
	}
	return fail(api.CodeInvalidMessage, "", e.Fields...)
}

func (p *problem) body(requestID string) api.Problem {
	m := meanings[p.code]
	b := api.Problem{
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
		b.Errors = append(b.Errors, api.FieldError{Field: f.Field, Message: f.Message})
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
	if p.code == api.CodeInternal || p.code == api.CodeQueueUnavailable {
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
	case api.CodeUnauthorized:
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="mailsidecar"`)
	case api.CodeContentType:
		c.Response().Header().Set("Accept", acceptedTypes)
	case api.CodeContentEncoding:
		c.Response().Header().Set("Accept-Encoding", "identity")
	case api.CodeBodyTimeout, api.CodeBodyTooLarge, api.CodeIncompleteBody:
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
