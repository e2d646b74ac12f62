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

func newReceipt(m queue.Message) api.Receipt {
	return api.Receipt{ID: m.ID, Status: string(m.Status()), MessageID: m.MessageID, Recipients: newRecipients(m)}
}

func newRecipients(m queue.Message) []api.Recipient {
	where := map[string]mailer.Attempt{}
	for _, a := range m.Attempts {
		for _, r := range a.Results {
			where[r.ForwardPath] = a
		}
	}
	list := make([]api.Recipient, len(m.Recipients))
	for i, r := range m.Recipients {
		b := api.Recipient{Email: r.ForwardPath, State: string(r.State), NextAttemptAt: inUTC(r.NextAttempt)}
		if r.State == queue.Delivered || r.Result.Failure != nil {
			b.Outcome = newOutcome(r.Result)
		}
		if f := r.Result.Failure; f != nil {
			b.Relay, b.Port = f.Relay, f.Port
		} else if a, ok := where[r.ForwardPath]; ok {
			b.Relay, b.Port = a.Relay, a.Rung.Port
		}
		list[i] = b
	}
	return list
}

func newOutcome(r mailer.Result) api.Outcome {
	f := r.Failure
	if f == nil {
		return api.Outcome{
			Kind: api.OutcomeDelivered, ReplyCode: r.Reply.Code, EnhancedCode: r.Reply.Enhanced, Text: r.Reply.Text,
		}
	}
	b := api.Outcome{
		Kind: outcomeOf(f), Class: f.Class.String(), Stage: f.Stage.String(),
		ReplyCode: f.Reply.Code, EnhancedCode: f.EnhancedCode(), Text: f.Reply.Text,
	}
	if b.ReplyCode == 0 {
		b.Text = f.Text
	}
	return b
}

func outcomeOf(f *mailer.Failure) string {
	switch f.Class {
	case mailer.ClassPermanent:
		return api.OutcomeBounced
	case mailer.ClassUncertain:
		return api.OutcomeUncertain
	default:
		return api.OutcomeDeferred
	}
}

// answerVerdict answers with what the relay said, where nothing is stored. As
// soon as one recipient was accepted the answer is 200: the client must not
// repeat the whole.
func answerVerdict(c echo.Context, m queue.Message) error {
	if err := verdict(m); err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, newReceipt(m))
}

// verdict is nil if a relay accepted the message for some recipient, else the problem
// that says why not.
func verdict(m queue.Message) error {
	if anyDelivered(m) {
		return nil
	}
	b := newReceipt(m)
	class, failure := worst(m.Recipients)
	p := &problem.Error{Code: verdictCodes[class], Detail: problem.Describe(failure), Receipt: &b, Failure: failure}
	if next := nextTry(failure); !next.IsZero() {
		p.RetryAfter = problem.Seconds(time.Until(next))
	}
	return p
}

// nextTry is when the relay may be asked again, as far as the failure says; else
// zero.
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
	default:
		return time.Time{}
	}
}

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

func inUTC(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
