// Package resend answers as Resend does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package resend

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// API is the API of Resend.
var API = &compat.API{
	Name:  "resend",
	Title: "Resend",
	Routes: []compat.Route{
		{Path: "/emails", Serve: email},
		{Path: "/emails/batch", Serve: batch},
		{Method: http.MethodGet, Path: "/emails/{id}", Roles: compat.Read, Serve: get},
		{Method: http.MethodPatch, Path: "/emails/{id}", Roles: compat.Mend, Serve: update},
		{Path: "/emails/{id}/cancel", Roles: compat.Mend, Serve: cancel},
	},
	Owns:   compat.Under("/emails", "/audiences", "/contacts", "/broadcasts", "/api-keys", "/segments", "/topics"),
	Secret: compat.Bearer,
	Answer: func(p compat.Problem) (int, any) {
		f := faultFor(p)
		f.Message = text(p)
		return f.StatusCode, f
	},
	Requests: []compat.RequestDoc{
		{Path: "POST /emails", Fields: mail{}},
		{Path: "POST /emails/batch (a list of up to 100, each as in /emails)"},
		{Path: "PATCH /emails/{id}", Fields: change{}},
	},
}

const (
	maxBatch  = 100
	maxPeople = 50
	maxAhead  = 30 * 24 * time.Hour

	headerBatchValidation = "X-Batch-Validation"
)

type mail struct {
	From        string         `json:"from"`
	To          compat.Texts   `json:"to" note:"at most 50"`
	Cc          compat.Texts   `json:"cc"`
	Bcc         compat.Texts   `json:"bcc"`
	ReplyTo     compat.Texts   `json:"reply_to"`
	Subject     string         `json:"subject"`
	HTML        string         `json:"html"`
	Text        string         `json:"text" note:"none is made from the HTML"`
	Headers     compat.Pairs   `json:"headers"`
	Attachments []file         `json:"attachments"`
	Tags        []tag          `json:"tags" note:"kept as tags of the message"`
	ScheduledAt string         `json:"scheduled_at" note:"a time of RFC 3339, also with a blank for its T or a zone such as +0200, or such as in 10 minutes; at most 30 days ahead; needs a queue"`
	Template    compat.Refused `json:"template" note:"templates are kept by the provider: render them in the app"`
	TopicID     compat.Ignored `json:"topic_id"`
}

type file struct {
	Content         compat.FileContent `json:"content"`
	Path            compat.Refused     `json:"path" note:"attachments are not fetched from a URL: send their content"`
	Filename        string             `json:"filename"`
	ContentType     string             `json:"content_type"`
	ContentID       string             `json:"content_id" note:"inline where the HTML refers to it"`
	InlineContentID string             `json:"inline_content_id" note:"the older name of content_id"`
}

type tag struct {
	Name  string        `json:"name"`
	Value compat.Scalar `json:"value"`
}

type fault struct {
	StatusCode int    `json:"statusCode"`
	Name       string `json:"name"`
	Message    string `json:"message"`
}

type receipt struct {
	ID string `json:"id"`
}

func email(x *compat.Exchange) error {
	key, err := x.Idempotency(x.Request.Header)
	if err != nil {
		return err
	}
	data, err := x.ReadBytes(x.MaxBody)
	if err != nil {
		return err
	}
	var m mail
	if err := x.Decode(data, &m, ""); err != nil {
		return err
	}
	o, err := m.outgoing(x.Expansion())
	if err != nil {
		return err
	}
	o.IdempotencyKey, o.Fingerprint = key, compat.JSONFingerprint(key, "POST /emails", data)
	done, err := x.Send([]compat.Message{o})
	if err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, receipt{done[0].ID})
}

func (m *mail) outgoing(e *compat.Expansion) (compat.Message, error) {
	var f compat.Fields
	o := compat.Message{Message: mailer.Message{
		Subject: m.Subject, Text: m.Text, HTML: m.HTML, Header: m.Headers,
		To: f.Lists("to", m.To), Cc: f.Lists("cc", m.Cc), Bcc: f.Lists("bcc", m.Bcc), ReplyTo: f.Lists("reply_to", m.ReplyTo),
	}, Path: m.path, HeaderPath: func(n int) string { return "headers." + m.Headers[n].Name }, Limit: e}
	m.require(&f)
	if from := f.Lists("from", compat.Texts{m.From}); len(from) == 1 {
		o.From = from[0]
	} else {
		f.Add("from", "must be one address")
	}
	if len(o.To) > maxPeople {
		f.Add("to", fmt.Sprintf("may have %d addresses", maxPeople))
	}
	for i, a := range m.Attachments {
		if !a.Content.Given {
			f.Add(fmt.Sprintf("attachments[%d].content", i), compat.Required)
		}
		o.Attach(mailer.Attachment{
			Filename: a.Filename, ContentType: a.ContentType,
			ContentID: cmp.Or(a.ContentID, a.InlineContentID), Content: a.Content.Data,
		}, false)
	}
	for _, t := range m.Tags {
		o.Tag(t.Name, string(t.Value))
	}
	at, err := compat.ParseTime(m.ScheduledAt, time.Now())
	if err != nil {
		f.Add("scheduled_at", err.Error())
	}
	if err := f.Err(); err != nil {
		return o, err
	}
	if o.SendAt, err = compat.Later(at, maxAhead); err != nil {
		f.Add("scheduled_at", err.Error())
	}
	return o, f.Err()
}

func (m *mail) require(f *compat.Fields) {
	switch {
	case m.From == "":
		f.Add("from", compat.Required)
	case len(m.To) == 0:
		f.Add("to", compat.Required)
	case m.Subject == "":
		f.Add("subject", compat.Required)
	case m.HTML == "" && m.Text == "":
		f.Add("html", "html or text "+compat.Required)
	}
}

// path is where something is in the request; lists of addresses are one field each.
func (m *mail) path(at mailer.Position) string {
	if at.Field != "attachments" {
		return at.Field
	}
	if at.Member == "content_id" && m.Attachments[at.Item-1].ContentID == "" {
		at.Member = "inline_content_id"
	}
	return at.String()
}

type itemFault struct {
	Index   int    `json:"index"`
	Message string `json:"message"`
}

type batchReceipt struct {
	Data   []receipt   `json:"data"`
	Errors []itemFault `json:"errors,omitempty"`
}

// batch refuses all messages for one that is wrong, unless the client
// asks for those that are right to be sent.
func batch(x *compat.Exchange) error {
	h := x.Request.Header
	key, err := x.Idempotency(h)
	if err != nil {
		return err
	}
	data, items, err := x.ReadItems(intake.MaxBatchBody)
	if err != nil {
		return err
	}
	if len(items) == 0 || len(items) > maxBatch {
		return problem.New(api.CodeInvalidBatch, fmt.Sprintf("A batch has 1 to %d messages.", maxBatch))
	}
	permissive := strings.EqualFold(h.Get(headerBatchValidation), "permissive")
	fingerprint := compat.JSONFingerprint(key, "POST /emails/batch", data)
	answer := batchReceipt{Data: []receipt{}}
	refuse := func(i int, err error) {
		answer.Errors = append(answer.Errors, itemFault{i, text(compat.NewProblem(problem.For(err), nil))})
	}
	var subs []queue.Submission
	var places []int // in items
	for i, item := range items {
		sub, err := composeItem(x, item, key, fingerprint)
		switch {
		case err == nil:
			subs, places = append(subs, sub), append(places, i)
		case permissive && problem.For(err).Status() < http.StatusInternalServerError:
			refuse(i, err)
		default:
			return problem.Below(fmt.Sprintf("[%d]", i), err)
		}
	}
	if len(subs) > 0 {
		done, err := x.Submit(subs)
		if permissive && (errors.Is(err, queue.ErrNoRoute) || errors.Is(err, queue.ErrIdempotencyMismatch)) {
			// It is no repeat of a batch with all of these.
			var routed []queue.Submission
			for i, sub := range subs {
				if x.Takes(sub.Key, sub.Sender) {
					routed = append(routed, sub)
				} else {
					refuse(places[i], queue.ErrNoRoute)
				}
			}
			if len(routed) > 0 {
				done, err = x.SubmitCharged(routed)
			}
			slices.SortFunc(answer.Errors, func(a, b itemFault) int { return a.Index - b.Index })
		}
		if err != nil {
			return err
		}
		for _, d := range done {
			answer.Data = append(answer.Data, receipt{d.ID})
		}
	}
	return x.AnswerJSON(http.StatusOK, answer)
}

func composeItem(x *compat.Exchange, data []byte, key string, fingerprint [32]byte) (queue.Submission, error) {
	var m mail
	if err := x.Decode(data, &m, ""); err != nil {
		return queue.Submission{}, err
	}
	o, err := m.outgoing(x.Expansion())
	if err != nil {
		return queue.Submission{}, err
	}
	o.IdempotencyKey, o.Fingerprint = key, fingerprint
	return x.Compose(&o)
}

var faults = map[api.Code]fault{
	api.CodeInvalidParameter:  {StatusCode: http.StatusBadRequest, Name: "invalid_idempotency_key"},
	api.CodeIdempotencyReused: {StatusCode: http.StatusConflict, Name: "invalid_idempotent_request"},
	api.CodeIdempotencyInUse:  {StatusCode: http.StatusConflict, Name: "concurrent_idempotent_requests"},
	api.CodeSenderNotAllowed:  {StatusCode: http.StatusForbidden, Name: "invalid_from_address"},
	api.CodeRoleRequired:      {StatusCode: http.StatusUnauthorized, Name: "restricted_api_key"},
	api.CodeUncertain:         {StatusCode: http.StatusConflict, Name: "application_error"},
	api.CodeCrossOrigin:       {StatusCode: http.StatusForbidden, Name: "security_error"},
	api.CodeForeignHost:       {StatusCode: http.StatusForbidden, Name: "security_error"},
}

// unprocessable are answered with 422, as other mistakes with 400.
var unprocessable = []api.Code{
	api.CodeInvalidMessage, api.CodeInvalidBase64, api.CodeWrongType, api.CodeMalformedHeader, api.CodeRejected, api.CodeTooManyRecipients, api.CodeQueueRequired,
}

// faultFor finds status and name. The PHP client takes an answer with
// any name but the documented ones for a success.
func faultFor(p compat.Problem) fault {
	if f, ok := faults[p.Code]; ok {
		return f
	}
	switch {
	case p.Code == api.CodeUnauthorized && p.Detail == compat.DetailKeyMissing:
		return fault{StatusCode: http.StatusUnauthorized, Name: "missing_api_key"}
	case p.Code == api.CodeUnauthorized:
		return fault{StatusCode: http.StatusForbidden, Name: "invalid_api_key"}
	case slices.Contains(unprocessable, p.Code):
		return fault{StatusCode: http.StatusUnprocessableEntity, Name: faultName(p)}
	case p.Status >= http.StatusInternalServerError:
		return fault{StatusCode: http.StatusInternalServerError, Name: "internal_server_error"}
	}
	names := map[int]string{
		http.StatusNotFound: "not_found", http.StatusMethodNotAllowed: "method_not_allowed", http.StatusTooManyRequests: "rate_limit_exceeded",
	}
	return fault{StatusCode: p.Status, Name: cmp.Or(names[p.Status], "validation_error")}
}

func faultName(p compat.Problem) string {
	if len(p.Fields) == 0 {
		return "validation_error"
	}
	switch f := p.Fields[0]; {
	case strings.Contains(f.Field, "attachments["):
		return "invalid_attachment"
	case strings.HasSuffix(f.Message, compat.Required):
		return "missing_required_field"
	default:
		return "validation_error"
	}
}

func text(p compat.Problem) string {
	if len(p.Fields) == 0 || p.Detail != "" || p.Fields[0].Field == "" {
		return p.Text
	}
	f := p.Fields[0]
	if strings.HasSuffix(f.Message, compat.Required) {
		return fmt.Sprintf("Missing `%s` field.", f.Field)
	}
	return fmt.Sprintf("Invalid `%s` field: %s.", f.Field, f.Message)
}
