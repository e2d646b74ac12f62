package resend

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
)

// stored is what GET /emails/{id} answers. What the queue does not keep is null: the
// texts, and which of the recipients were in cc or bcc.
type stored struct {
	Object      string   `json:"object"`
	ID          string   `json:"id"`
	MessageID   string   `json:"message_id"`
	From        string   `json:"from"`
	To          []string `json:"to"`
	Cc          *string  `json:"cc"`
	Bcc         *string  `json:"bcc"`
	ReplyTo     *string  `json:"reply_to"`
	Subject     string   `json:"subject"`
	HTML        *string  `json:"html"`
	Text        *string  `json:"text"`
	CreatedAt   string   `json:"created_at"`
	ScheduledAt *string  `json:"scheduled_at"`
	LastEvent   string   `json:"last_event"`
	Tags        []tag    `json:"tags"`
}

type object struct {
	Object string `json:"object"`
	ID     string `json:"id"`
}

// get tells what became of a message.
func get(x *compat.Exchange) error {
	m, err := x.Stored()
	if err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, newStored(m, time.Now()))
}

func newStored(m queue.Message, now time.Time) stored {
	s := stored{
		Object: "email", ID: m.ID, MessageID: m.MessageID, From: m.Sender, To: m.Envelope.ForwardPaths, Subject: m.Subject,
		CreatedAt: timeText(m.Created), LastEvent: lastEvent(m, now), Tags: []tag{},
	}
	if m.SendAt.After(m.Created) {
		at := timeText(m.SendAt)
		s.ScheduledAt = &at
	}
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		s.Tags = append(s.Tags, tag{Name: name, Value: compat.Scalar(m.Tags[name])})
	}
	return s
}

// timeText is a time in Resend's form.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000-07:00") }

// lastEvent is Resend's word for the message's status. Delivered means accepted by the
// relay.
func lastEvent(m queue.Message, now time.Time) string {
	has := map[queue.State]bool{}
	for _, r := range m.Recipients {
		has[r.State] = true
	}
	switch m.Status() {
	case queue.StatusQueued:
		if m.SendAt.After(now) {
			return "scheduled"
		}
		return "queued"
	case queue.StatusDeferred, queue.StatusHeld:
		return "delivery_delayed"
	case queue.StatusCanceled:
		return "canceled"
	case queue.StatusDelivered, queue.StatusPartial, queue.StatusFailed:
		// one of the recipients' states below
	}
	switch {
	case has[queue.Bounced]:
		return "bounced"
	case has[queue.Expired]:
		return "failed"
	default:
		return "delivered" // to all that were not canceled
	}
}

// change is the body of PATCH /emails/{id}.
type change struct {
	ScheduledAt string `json:"scheduled_at" note:"a time of RFC 3339 or such as in 10 minutes, at most 30 days ahead; a past one sends at once"`
}

// maxChange is in octets.
const maxChange = 64 << 10

// update gives a scheduled message another time.
func update(x *compat.Exchange) error {
	var c change
	if err := x.ReadJSON(maxChange, &c); err != nil {
		return err
	}
	var f compat.Fields
	at, err := compat.ParseTime(c.ScheduledAt, time.Now())
	if c.ScheduledAt == "" {
		f.Add("scheduled_at", compat.Required)
	} else if err == nil {
		at, err = compat.Later(at, maxAhead)
	}
	if err != nil {
		f.Add("scheduled_at", err.Error())
	}
	if err := f.Err(); err != nil {
		return err
	}
	m, err := x.Reschedule(x.Request.Context(), compat.Scope(x.Key), x.StoredID(), at)
	if errors.Is(err, queue.ErrNotScheduled) {
		return problem.New(api.CodeInvalidMessage, "The email cannot be updated: it does not wait for its time any more.")
	}
	if err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, object{"email", m.ID})
}

// cancel ends a message that no relay has. Where it was sent in part, or is being sent,
// the answer says so; what is left of it is not sent.
func cancel(x *compat.Exchange) error {
	ctx, key, id := x.Request.Context(), compat.Scope(x.Key), x.StoredID()
	m, err := x.Cancel(ctx, key, id)
	ended := errors.Is(err, queue.ErrNothingToCancel)
	if ended {
		m, err = x.Get(ctx, key, id) // it may be canceled already
	}
	switch {
	case err != nil:
		return err
	case m.Status() == queue.StatusCanceled:
		return x.AnswerJSON(http.StatusOK, object{"email", m.ID})
	case ended:
		return problem.New(api.CodeInvalidMessage, "The email cannot be canceled: no recipient waits for it any more.")
	}
	return problem.New(api.CodeInvalidMessage, "What still waits of the email is canceled. For some recipients it cannot be: they have it, were refused, or it is being sent to them.")
}
