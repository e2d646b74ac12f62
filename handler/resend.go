package handler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
)

// postResend serves POST /v1/messages/{id}/resend.
func (s *Server) postResend(c echo.Context) error {
	var r api.Resend
	if err := s.readSmall(c, &r); err != nil {
		return err
	}
	idempotency, err := s.idempotency(c.Request().Header)
	if err != nil {
		return err
	}
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	to, insteadOf, err := readResend(r)
	if err != nil {
		return err
	}
	key := request(c).key
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.requestTimeout)
	defer cancel()
	share := s.share(c)
	defer share.Close()
	f := intake.NewFingerprint(idempotency, "POST /v1/messages/{id}/resend")
	f.Text(id, to, insteadOf)
	if r.Again {
		f.Text("again")
	}
	receipt, err := s.ledger.Resend(ctx, scope(c), queue.Resend{
		ID: id, To: to, InsteadOf: insteadOf, Again: r.Again, Caller: key.Name(), IdempotencyKey: idempotency, Fingerprint: f.Sum(),
		Origin: queue.Origin{Door: "resend", RequestID: request(c).id},
		Reserve: func(octets int64) error {
			if !share.Grow(2 * octets) { // as it is stored, and with the new fields
				return problem.New(api.CodeBusy, "")
			}
			return nil
		},
		Judge: func(m queue.Message, content mailer.Content) error {
			if err := s.checkStoredFrom(m, content, key); err != nil {
				return err
			}
			return key.Charge(1)
		},
	})
	if err != nil {
		return resendProblem(err)
	}
	request(c).message = receipt.Message.ID
	if receipt.Replayed {
		c.Response().Header().Set(headerIdempotencyReplay, "true")
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/messages/"+receipt.Message.ID)
	return writeJSON(c, http.StatusAccepted, intake.TypeJSON, newReceipt(receipt.Message))
}

func readResend(r api.Resend) (to, insteadOf string, err error) {
	var f fieldErrors
	if r.To == "" {
		f.Add("to", "is required: the address to send it to")
	}
	to, insteadOf = f.addrSpec("to", r.To), f.addrSpec("instead_of", r.InsteadOf)
	if len(f.Fields) > 0 {
		return "", "", problem.New(api.CodeInvalidParameter, "", f.Fields...)
	}
	return to, insteadOf, nil
}

// checkStoredFrom is checkFrom for a message that is stored. An author that
// MAILSIDECAR_FORCE_FROM has put there is not the key's choice.
func (s *Server) checkStoredFrom(m queue.Message, content mailer.Content, key *keys.Key) error {
	if !key.Bound() {
		return nil
	}
	from := fromFields(content.Data)
	if read, err := mailer.ReadFrom(from); err == nil && s.forceFrom.Email != "" && len(read.Named) == 0 &&
		len(read.Authors) == 1 && strings.EqualFold(read.Authors[0], s.forceFrom.Email) {
		return nil
	}
	composed := compose.Composed{From: from}
	if m.Sender != "" {
		composed.Authors = []string{m.Sender}
	}
	return checkFrom(composed, key)
}

// fromFields returns the From field of a message, as it is written there. Several of them are no
// field that [mailer.ReadFrom] takes.
func fromFields(message []byte) string {
	var fields strings.Builder
	in := false
	for line := range bytes.Lines(message) {
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			in = strings.EqualFold(string(bytes.TrimRight(name, " \t")), "From")
		}
		if in {
			fields.Write(line)
		}
	}
	return fields.String()
}

// resendProblem says why nothing may be sent in place of a recipient.
func resendProblem(err error) error {
	if errors.Is(err, queue.ErrNotRecipient) {
		return problem.New(api.CodeInvalidParameter, "", problem.At("instead_of", "is no recipient of the message"))
	}
	if e, ok := errors.AsType[*queue.ResentError](err); ok {
		found := "It was sent to that address before, as " + e.ID
		if e.Own {
			found = "That address is a recipient of the message itself"
		}
		return problem.New(api.CodeAlreadyResent, fmt.Sprintf("%s, where it is %s.", found, e.State), problem.At("again", "sends it there once more"))
	}
	e, ok := errors.AsType[*queue.InsteadError](err)
	switch {
	case !ok:
		return err
	case e.State == queue.Delivered:
		return problem.New(api.CodeNothingToRetry, "That recipient is delivered: leave out instead_of to send a copy to another address.")
	case !e.State.Final():
		return problem.New(api.CodeNothingToRetry, fmt.Sprintf("That recipient is %s, and may still get it: leave out instead_of to send a copy to another address, and cancel the message afterwards.", e.State))
	default:
		return problem.New(api.CodeNothingToRetry, fmt.Sprintf("That recipient is %s, but the relay %s may have taken the message for it, as its reply never came: leave out instead_of to send a copy to another address.", e.State, e.TakenBy))
	}
}
