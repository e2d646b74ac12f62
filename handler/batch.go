package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
)

// postBatch serves POST /v1/messages/batch: it stores the valid messages in one commit
// and reports the others in their places.
func (s *Server) postBatch(c echo.Context) error {
	h := c.Request().Header
	if _, _, err := intake.PlainMediaType(h, intake.TypeJSON); err != nil {
		return err
	}
	if s.ledger == nil {
		return queue.ErrQueueRequired
	}
	idempotency, err := s.idempotency(h)
	if err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	b, err := intake.Open(c.Response().Writer, c.Request(), intake.MaxBatchBody, share, s.bodyTimeout)
	if err != nil {
		return err
	}
	data, err := b.JSON()
	if err != nil {
		return err
	}
	batch := batchReader{server: s, ctx: s.untilStopped(c.Request().Context()), share: share, held: int64(len(data)), key: request(c).key, fingerprint: intake.NewFingerprint(idempotency, "POST /v1/messages/batch")}
	if err := intake.Items(data, "messages", api.MaxBatch, batch.item); err != nil {
		return err
	}
	share.End()
	return s.submitBatch(c, &batch, idempotency)
}

// batchReader makes submissions of a batch's messages, one after the other, so
// that only one is held in decoded form.
type batchReader struct {
	server      *Server
	ctx         context.Context //nolint:containedctx // the request's
	share       *intake.Share
	held        int64 // octets of the request, and of the messages composed so far
	key         *keys.Key
	fingerprint intake.Fingerprint
	results     []api.BatchResult
	valid       []queue.Submission
	places      []int // index in results of each valid one
	findings    int   // in results
	noRoom      bool  // the memory for requests is used up
}

// item makes a submission of one message, or records what is wrong with it. Its error
// says that the memory for requests is used up.
func (b *batchReader) item(data []byte) error {
	i := len(b.results)
	b.results = append(b.results, api.BatchResult{})
	path := fmt.Sprintf("messages[%d]", i)
	var m messageRequest
	err := intake.Decode(data, &m, path)
	var sub queue.Submission
	if err == nil {
		m.digest(b.fingerprint)
		sub, err = b.server.compose(b.ctx, &m, b.key, b.reserve)
		if b.noRoom || b.ctx.Err() != nil {
			return err
		}
		err = problem.Below(path, err)
	} else {
		b.fingerprint.Bytes(data)
	}
	if err != nil {
		body := problem.For(err).Body("")
		body.Errors = problem.AtMost(body.Errors, max(1, problem.MaxFields-b.findings))
		b.findings += len(body.Errors)
		b.results[i].Problem = &body
		return nil
	}
	b.held += int64(len(sub.Content.Data))
	b.valid = append(b.valid, sub)
	b.places = append(b.places, i)
	return nil
}

// reserve is [Server.reserve] for one message of the batch.
func (b *batchReader) reserve(octets int) error {
	if err := b.server.checkSize(octets); err != nil {
		return err
	}
	err := b.share.Hold(b.held + int64(octets))
	b.noRoom = err != nil
	return err
}

// withoutRelay refuses the messages that no relay takes. Where that is all of them they
// stay, because the batch may repeat one that was stored, and routed is false.
func (b *batchReader) withoutRelay(takes func(key, sender string) bool) (routed bool) {
	var valid []queue.Submission
	var places []int
	for i, sub := range b.valid {
		if takes(sub.Key, sub.Sender) {
			valid, places = append(valid, sub), append(places, b.places[i])
			continue
		}
		body := problem.For(queue.ErrNoRoute).Body("")
		b.results[b.places[i]].Problem = &body
	}
	if len(valid) == 0 {
		return false
	}
	b.valid, b.places = valid, places
	return true
}

// submitBatch stores the valid messages. The idempotency key and the fingerprint are
// the whole batch's.
func (s *Server) submitBatch(c echo.Context, b *batchReader, idempotency string) error {
	if len(b.valid) == 0 {
		return &problem.Error{Code: api.CodeInvalidBatch, Detail: "Every message was refused: see results.", Results: b.results}
	}
	if err := b.key.Charge(len(b.valid)); err != nil {
		return err
	}
	sum := b.fingerprint.Sum()
	for i := range b.valid {
		b.valid[i].IdempotencyKey, b.valid[i].Fingerprint = idempotency, sum
		b.valid[i].Origin = queue.Origin{Door: "batch", RequestID: request(c).id}
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.requestTimeout)
	defer cancel()
	receipts, err := s.ledger.SubmitBatch(ctx, b.valid)
	// A repeat of a batch that was stored is answered as before. Else those are left out that
	// no relay takes, as they were if it is a repeat of a batch without them.
	if errors.Is(err, queue.ErrNoRoute) || errors.Is(err, queue.ErrIdempotencyMismatch) || err == nil && len(receipts) != len(b.valid) {
		if b.withoutRelay(s.ledger.Takes) {
			receipts, err = s.ledger.SubmitBatch(ctx, b.valid)
		}
	}
	switch {
	case errors.Is(err, queue.ErrNoRoute):
		return &problem.Error{Code: api.CodeInvalidBatch, Detail: "Every message was refused: see results.", Results: b.results}
	case err != nil:
		return err
	}
	if len(receipts) != len(b.valid) {
		// A repeat of which another part is valid now, since our limits changed.
		return queue.ErrIdempotencyMismatch
	}
	for i, r := range receipts {
		body := newReceipt(r.Message)
		b.results[b.places[i]] = api.BatchResult{Receipt: &body}
		if r.Replayed {
			c.Response().Header().Set(headerIdempotencyReplay, "true")
		}
	}
	return writeJSON(c, http.StatusAccepted, intake.TypeJSON, api.Batch{
		Stored: len(b.valid), Refused: len(b.results) - len(b.valid), Results: b.results,
	})
}
