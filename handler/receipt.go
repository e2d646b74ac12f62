package handler

import (
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// newReceipt returns what a client reads of a message.
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
		b := api.Recipient{Email: r.ForwardPath, State: string(r.State), NextAttemptAt: inUTC(r.NextAttempt), MayHaveTaken: r.TakenBy}
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

// newOutcome returns what a client reads of one result of an attempt.
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
	if f.Class == mailer.ClassPermanent { // of what waits, waits tells what is so now
		b.Found, b.Do = f.MailAdvice()
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

func inUTC(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
