package handler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
)

// postBatch serves POST /v1/messages/batch: what is valid is stored in one
// commit, what is not is reported in its place.
func (s *Server) postBatch(c echo.Context) error {
	h := c.Request().Header
	if _, _, err := contentType(h, typeJSON); err != nil {
		return err
	}
	if !s.queue.Durable() {
		return queue.ErrQueueRequired
	}
	idempotency, err := s.idempotency(h)
	if err != nil {
		return err
	}
	share := &reservation{budget: s.budget}
	defer share.shrink(0)
	b, err := s.openBody(c.Response().Writer, c.Request(), maxBatchBody, share)
	if err != nil {
		return err
	}
	data, err := b.all()
	if err != nil {
		return err
	}
	batch := batchReader{server: s, share: share, held: int64(len(data)), key: s.key(request(c).key), fingerprint: newFingerprint(idempotency, "POST /v1/messages/batch")}
	if err := batch.read(data); err != nil {
		return err
	}
	return s.submitBatch(c, &batch, idempotency)
}

// batchReader makes submissions of a batch's messages, one after the other, so
// that only one is held in decoded form.
type batchReader struct {
	server      *Server
	share       *reservation
	held        int64 // octets of the request and of what is composed so far
	key         apiKey
	fingerprint fingerprint
	results     []api.BatchResult
	valid       []queue.Submission
	places      []int // index in results of each valid one
}

func (b *batchReader) read(data []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(data)) // reads data in place
	if d.PeekKind() != '{' {
		return jsonOr(d, data, problem.New(api.CodeWrongType, "", problem.At("", "must be an object")))
	}
	if _, err := d.ReadToken(); err != nil {
		return jsonProblem(err, data, "")
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return jsonProblem(err, data, "")
		}
		if name.String() != "messages" {
			return problem.New(api.CodeUnknownField, "", problem.At(problem.Cut(name.String()), "is not a field of this request"))
		}
		if err := b.messages(d, data); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return jsonProblem(err, data, "")
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return problem.New(api.CodeMalformedJSON, "There is something after the object.")
	}
	if len(b.results) == 0 {
		return problem.New(api.CodeInvalidBatch, "", problem.At("messages", "must have at least one message"))
	}
	return nil
}

// jsonOr returns the syntax error that comes next in the input, else p.
func jsonOr(d *jsontext.Decoder, data []byte, p *problem.Error) error {
	if d.PeekKind() == 0 {
		if _, err := d.ReadToken(); err != nil {
			return jsonProblem(eofIsUnexpected(err), data, "")
		}
	}
	return p
}

func eofIsUnexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return &jsontext.SyntacticError{Err: io.ErrUnexpectedEOF}
	}
	return err
}

func (b *batchReader) messages(d *jsontext.Decoder, data []byte) error {
	if d.PeekKind() != '[' {
		return jsonOr(d, data, problem.New(api.CodeWrongType, "", problem.At("messages", "must be a list")))
	}
	if _, err := d.ReadToken(); err != nil {
		return jsonProblem(err, data, "")
	}
	for d.PeekKind() != ']' {
		if len(b.results) == api.MaxBatch {
			return problem.New(api.CodeTooManyMessages, fmt.Sprintf("A batch may have %d messages.", api.MaxBatch))
		}
		item, err := d.ReadValue()
		if err != nil {
			return jsonProblem(err, data, "")
		}
		if err := b.item(item); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	if err != nil {
		return jsonProblem(err, data, "")
	}
	return nil
}

// item makes a submission of one message, or notes what is wrong with it. The
// error is that there is no memory left for it.
func (b *batchReader) item(data []byte) error {
	i := len(b.results)
	b.results = append(b.results, api.BatchResult{})
	path := fmt.Sprintf("messages[%d]", i)
	var m messageRequest
	err := decodeJSON(data, &m, path)
	var sub queue.Submission
	if err == nil {
		b.fingerprint.message(&m)
		sub, err = b.server.compose(&m, b.key)
		err = problem.Below(path, err)
	} else {
		b.fingerprint.bytes(data)
	}
	if err != nil {
		body := problem.For(err).Body("")
		b.results[i].Problem = &body
		return nil
	}
	if b.held += int64(len(sub.Content.Data)); !b.share.grow(b.held) {
		return problem.New(api.CodeBusy, "")
	}
	b.valid = append(b.valid, sub)
	b.places = append(b.places, i)
	return nil
}

// submitBatch stores what is valid. The idempotency key and the fingerprint are
// the whole batch's.
func (s *Server) submitBatch(c echo.Context, b *batchReader, idempotency string) error {
	if len(b.valid) == 0 {
		return &problem.Error{Code: api.CodeInvalidBatch, Detail: "Every message was refused: see results.", Results: b.results}
	}
	if err := s.charge(c, len(b.valid)); err != nil {
		return err
	}
	sum := b.fingerprint.sum()
	for i := range b.valid {
		b.valid[i].IdempotencyKey, b.valid[i].Fingerprint = idempotency, sum
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.requestTimeout)
	defer cancel()
	receipts, err := s.queue.SubmitBatch(ctx, b.valid)
	if err != nil {
		return err
	}
	if len(receipts) != len(b.valid) {
		// A repeat of which another part is valid now, since our limits changed.
		return queue.ErrIdempotencyMismatch
	}
	for i, r := range receipts {
		body := newReceipt(r.Message)
		b.results[b.places[i]].Receipt = &body
		if r.Replayed {
			c.Response().Header().Set(headerIdempotencyReplay, "true")
		}
	}
	return writeJSON(c, http.StatusAccepted, typeJSON, api.Batch{
		Stored: len(b.valid), Refused: len(b.results) - len(b.valid), Results: b.results,
	})
}
