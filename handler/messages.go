package handler

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// postMessage serves POST /v1/messages. It judges the header before it reads the body.
func (s *Server) postMessage(c echo.Context) error {
	h := c.Request().Header
	mediaType, params, err := intake.PlainMediaType(h, intake.TypeJSON, intake.TypeForm, intake.TypeRFC822)
	if err != nil {
		return err
	}
	idempotency, err := s.idempotency(h)
	if err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	b, err := intake.Open(c.Response().Writer, c.Request(), s.maxBody(), share, s.bodyTimeout)
	if err != nil {
		return err
	}
	header := headerSize(c.Request())
	if header > maxSmallHeader {
		if err := b.Charge(int64(header)); err != nil {
			return err
		}
	}
	sub, err := s.read(c, b, mediaType, params["boundary"], idempotency)
	if err != nil {
		return err
	}
	if header > maxSmallHeader {
		clear(h) // it is read, and not counted any more
	}
	if err := request(c).key.Charge(1); err != nil {
		return err
	}
	share.End()
	if err := s.keepForDelivery(share, sub.Content); err != nil {
		return err
	}
	return s.submit(c, share, sub)
}

// bodyDoors are the names that the log has for the forms of POST /v1/messages.
var bodyDoors = map[string]string{intake.TypeJSON: "json", intake.TypeForm: "form", intake.TypeRFC822: "rfc822"}

// share returns the share of a request that has proven its key. Without keys all
// requests, which come from this host, are as one key's.
func (s *Server) share(c echo.Context) *intake.Share {
	share := s.budget.Share()
	share.Prove(request(c).key.Name())
	return share
}

// keepForDelivery gives back the memory of the body, which is no longer needed. Where
// no queue takes the message, the request delivers it, and the relay may need it in
// another form.
func (s *Server) keepForDelivery(share *intake.Share, content mailer.Content) error {
	need := int64(len(content.Data))
	if s.ledger == nil {
		if need = content.DeliveryMemory(s.rewrites); !share.Grow(need) {
			return problem.New(api.CodeBusy, "")
		}
	}
	share.Shrink(need)
	return nil
}

// maxBody is one and a half times the largest message: base64 in JSON takes a
// third more than the octets it stands for.
func (s *Server) maxBody() int64 { return s.maxMessageSize + s.maxMessageSize/2 }

// idempotency returns the request's idempotency key, empty if it has none. Without a
// queue a key is an error: it could not be remembered.
func (s *Server) idempotency(h http.Header) (string, error) {
	key, err := intake.IdempotencyKey(h)
	if err == nil && key != "" && s.ledger == nil {
		return "", queue.ErrQueueRequired
	}
	return key, err
}

// read makes a submission of the body.
func (s *Server) read(c echo.Context, b *intake.Body, mediaType, boundary, idempotency string) (queue.Submission, error) {
	var sub queue.Submission
	var err error
	f := intake.NewFingerprint(idempotency, "POST /v1/messages")
	key := request(c).key
	if mediaType == intake.TypeRFC822 {
		sub, err = s.readFinished(s.untilStopped(c.Request().Context()), c.Request().Header, b, key, f)
	} else {
		sub, err = s.readMessage(s.untilStopped(c.Request().Context()), b, mediaType, boundary, key, f)
	}
	if err != nil {
		return sub, err
	}
	sub.IdempotencyKey, sub.Fingerprint = idempotency, f.Sum()
	sub.Origin = queue.Origin{Door: bodyDoors[mediaType], RequestID: request(c).id}
	if s.ledger != nil {
		sub.Wait = preferredWait(c.Request().Header)
	} else if !sub.SendAt.IsZero() || sub.ExpiresIn != 0 {
		return sub, queue.ErrQueueRequired
	}
	return sub, nil
}

// readMessage reads the fields of a message, in JSON or as a form.
func (s *Server) readMessage(ctx context.Context, b *intake.Body, mediaType, boundary string, key *keys.Key, f intake.Fingerprint) (queue.Submission, error) {
	var m messageRequest
	var err error
	if mediaType == intake.TypeForm {
		if m, err = s.decodeForm(b, boundary); err == nil {
			err = b.Begin()
		}
	} else {
		m, err = readJSON(b)
	}
	if err != nil {
		return queue.Submission{}, err
	}
	m.digest(f)
	return s.compose(ctx, &m, key, s.reserve(b.Share()))
}

// readJSON reads a message in JSON. It keeps nothing of the body.
func readJSON(b *intake.Body) (m messageRequest, err error) {
	defer b.Release()
	data, err := b.JSON()
	if err != nil {
		return m, err
	}
	return m, intake.Decode(data, &m, "")
}

// submit hands the message over and answers. The share is not needed while the answer
// waits for a relay.
func (s *Server) submit(c echo.Context, share *intake.Share, sub queue.Submission) error {
	wait := sub.Wait
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.requestTimeout+wait)
	defer cancel()
	if wait > 0 {
		sub.Stored = share.Close
	}
	receipt, err := s.submitter.Submit(ctx, sub)
	if err != nil {
		return err
	}
	request(c).message = receipt.Message.ID
	if receipt.Replayed {
		c.Response().Header().Set(headerIdempotencyReplay, "true")
	}
	if s.ledger == nil {
		return answerVerdict(c, receipt.Message)
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/messages/"+receipt.Message.ID)
	if wait == 0 {
		return writeJSON(c, http.StatusAccepted, intake.TypeJSON, newReceipt(receipt.Message))
	}
	c.Response().Header().Set(headerPreferenceApplied, "wait="+strconv.Itoa(int(wait/time.Second)))
	return answerWaited(c, receipt.Message)
}
