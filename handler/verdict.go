package handler

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// This file decides how a message that a relay refused is answered over HTTP: here
// the code, in problem/codes.go its status.

// answerVerdict answers with the relay's verdict, where nothing is stored. If one
// recipient was accepted, the answer is 200: the client must not repeat the whole.
func answerVerdict(c echo.Context, m queue.Message) error {
	if err := relayProblem(m); err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, newReceipt(m))
}

// relayProblem returns nil if a relay accepted the message for some recipient, else
// the problem that says why not.
func relayProblem(m queue.Message) error {
	if anyDelivered(m) {
		return nil
	}
	b := newReceipt(m)
	class, failure := worst(m.Recipients)
	p := &problem.Error{Code: verdictCodes[class], Detail: problem.DescribeUnstored(failure), Receipt: &b, Failure: failure}
	if next := nextTry(failure); !next.IsZero() {
		p.RetryAfter = problem.Seconds(time.Until(next))
	}
	return p
}

// nextTry is when the relay may be asked again; zero where the failure does not say.
func nextTry(f *mailer.Failure) time.Time {
	var rate *mailer.RateError
	var login *mailer.LoginError
	switch {
	case f == nil:
		return time.Time{}
	case errors.As(f.Err, &rate):
		return rate.At
	case errors.As(f.Err, &login):
		return login.Next
	case f.Class == mailer.ClassRelay:
		return f.Until
	default:
		return time.Time{}
	}
}

// verdictCodes are the codes of an answer without a queue.
var verdictCodes = map[mailer.Class]api.Code{
	mailer.ClassPermanent: api.CodeRejected,
	mailer.ClassTransient: api.CodeRelayDeferred,
	mailer.ClassRelay:     api.CodeRelayUnreachable,
	mailer.ClassUncertain: api.CodeUncertain,
}

// worst picks the failure that decides the client's action when no recipient was
// accepted: a possible duplicate first, then what is worth another try. A relay that
// could not be used decides only if it judged no recipient.
func worst(recipients []queue.Recipient) (mailer.Class, *mailer.Failure) {
	byClass := map[mailer.Class]*mailer.Failure{}
	for _, r := range recipients {
		if f := r.Result.Failure; f != nil && byClass[f.Class] == nil {
			byClass[f.Class] = f
		}
	}
	if relay := byClass[mailer.ClassRelay]; relay != nil && byClass[mailer.ClassPermanent] != nil && byClass[mailer.ClassTransient] == nil {
		byClass[mailer.ClassTransient] = relay
	}
	for _, class := range []mailer.Class{mailer.ClassUncertain, mailer.ClassTransient, mailer.ClassRelay, mailer.ClassPermanent} {
		if f := byClass[class]; f != nil {
			return class, f
		}
	}
	return mailer.ClassTransient, nil
}

// answerWaited answers after the first attempt on a stored message.
func answerWaited(c echo.Context, m queue.Message) error {
	b := newReceipt(m)
	switch m.Status() {
	case queue.StatusDelivered, queue.StatusPartial:
		return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
	case queue.StatusFailed:
		return notDelivered(m, &b)
	case queue.StatusCanceled:
		return &problem.Error{Code: api.CodeCanceled, Receipt: &b}
	default:
		return writeJSON(c, http.StatusAccepted, intake.TypeJSON, b)
	}
}

// notDelivered answers for a message that reached no recipient. An expired message was
// not refused for good; but if a relay may have it after the last attempt, the client
// must not repeat it.
func notDelivered(m queue.Message, b *api.Receipt) *problem.Error {
	class, failure := worst(m.Recipients)
	p := &problem.Error{Code: api.CodeRejected, Detail: problem.Describe(failure), Receipt: b, Failure: failure}
	switch {
	case !anyExpired(m):
	case class == mailer.ClassUncertain:
		p.Code = api.CodeUncertain
	default:
		p.Code, p.Detail = api.CodeExpired, "The message expired. At last: "+problem.Describe(failure)
	}
	return p
}

func anyExpired(m queue.Message) bool {
	for _, r := range m.Recipients {
		if r.State == queue.Expired {
			return true
		}
	}
	return false
}

func anyDelivered(m queue.Message) bool {
	for _, r := range m.Recipients {
		if r.State == queue.Delivered {
			return true
		}
	}
	return false
}
