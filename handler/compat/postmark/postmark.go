// Package postmark answers as Postmark does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package postmark

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// API is the API of Postmark.
var API = &compat.API{
	Name:  "postmark",
	Title: "Postmark",
	Routes: []compat.Route{
		{Path: "/email", Serve: email},
		{Path: "/email/batch", Serve: batch},
		{Path: "/email/withTemplate", Refuses: true, Serve: refuseTemplate},
		{Path: "/email/batchWithTemplates", Refuses: true, Serve: refuseTemplate},
		{Path: "/email/bulk", Refuses: true, Serve: refuseTemplate},
	},
	Owns:   compat.Under("/email", "/messages", "/bounces", "/server", "/servers", "/stats", "/message-streams", "/deliverystats"),
	Secret: func(h http.Header) string { return h.Get("X-Postmark-Server-Token") },

	TestSecret: testToken,
	Answer: func(p compat.Problem) (int, any) {
		return status(p), fault{ErrorCode: errorCode(p), Message: text(p)}
	},
	Requests: []compat.RequestDoc{
		{Path: "POST /email", Fields: mail{}},
		{Path: "POST /email/batch (a list of up to 500, each as in /email)"},
	},
}

const (
	// testToken is the token that Postmark gives everybody for tests: the
	// request is judged and nothing is sent.
	testToken = "POSTMARK_API_TEST"
	maxTest   = 64 << 10 // octets of a request without a key, unpacked
	maxBatch  = 500
	maxPeople = 50

	badToken    = 10
	unavailable = 100
	invalid     = 300
	badJSON     = 402
	wrongJSON   = 403
	needsJSON   = 409
	tooMany     = 410
	rateLimited = 429
)

// caseless: Postmark's own server does not mind the case of names, and
// its PHP client relies on it.
var caseless = json.MatchCaseInsensitiveNames(true)

type mail struct {
	From          string         `json:"From"`
	To            string         `json:"To"`
	Cc            string         `json:"Cc"`
	Bcc           string         `json:"Bcc" note:"at most 50 recipients in To, Cc and Bcc together"`
	Subject       string         `json:"Subject"`
	HTMLBody      string         `json:"HtmlBody"`
	TextBody      string         `json:"TextBody"`
	ReplyTo       string         `json:"ReplyTo"`
	Headers       []pair         `json:"Headers"`
	Attachments   []file         `json:"Attachments"`
	Tag           string         `json:"Tag" note:"kept as a tag of the message"`
	Metadata      compat.Pairs   `json:"Metadata" note:"kept as tags of the message"`
	TrackOpens    compat.Ignored `json:"TrackOpens" note:"nothing is tracked"`
	TrackLinks    compat.Ignored `json:"TrackLinks" note:"links stay as they are"`
	MessageStream compat.Scalar  `json:"MessageStream" note:"broadcast and broadcasts: priority bulk"`
	InlineCSS     compat.Ignored `json:"InlineCss"`
	TemplateID    compat.Refused `json:"TemplateId" note:"templates are kept by the provider: render them in the app"`
	TemplateAlias compat.Refused `json:"TemplateAlias" note:"templates are kept by the provider: render them in the app"`
	TemplateModel compat.Refused `json:"TemplateModel" note:"templates are kept by the provider: render them in the app"`
}

type pair struct {
	Name  string        `json:"Name"`
	Value compat.Scalar `json:"Value"`
}

type file struct {
	Name          string             `json:"Name"`
	Content       compat.FileContent `json:"Content"`
	ContentType   string             `json:"ContentType"`
	ContentID     string             `json:"ContentID" note:"inline where it begins with cid: or the HTML refers to it"`
	ContentLength compat.Ignored     `json:"ContentLength"`
}

type fault struct {
	ErrorCode int    `json:"ErrorCode"`
	Message   string `json:"Message"`
}

type receipt struct {
	To          string `json:"To"`
	Cc          string `json:"Cc"`
	Bcc         string `json:"Bcc"`
	SubmittedAt string `json:"SubmittedAt"`
	MessageID   string `json:"MessageID"`
	fault
}

func email(x *compat.Exchange) error {
	var m mail
	if err := x.ReadJSON(bodyLimit(x, x.MaxBody), &m, caseless); err != nil {
		return err
	}
	o, err := m.outgoing(x.Expansion())
	if err != nil {
		return err
	}
	done, err := x.Send([]compat.Message{o})
	if err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, m.receipt(done[0]))
}

// bodyLimit keeps a request without a key small.
func bodyLimit(x *compat.Exchange, limit int64) int64 {
	if x.Test {
		return maxTest
	}
	return limit
}

func (m *mail) receipt(s compat.Sent) receipt {
	return receipt{
		To: m.To, Cc: m.Cc, Bcc: m.Bcc, MessageID: s.ID,
		SubmittedAt: s.At.Format("2006-01-02T15:04:05.0000000Z07:00"),
		fault:       fault{Message: "OK"},
	}
}

func (m *mail) outgoing(e *compat.Expansion) (compat.Message, error) {
	var f compat.Fields
	o := compat.Message{Message: mailer.Message{
		Subject: m.Subject, Text: m.TextBody, HTML: m.HTMLBody,
		To: list("To", m.To, &f), Cc: list("Cc", m.Cc, &f), Bcc: list("Bcc", m.Bcc, &f),
		ReplyTo: list("ReplyTo", m.ReplyTo, &f),
	}, Path: path, HeaderPath: func(n int) string { return fmt.Sprintf("Headers[%d]", n) }, Limit: e}
	from := list("From", m.From, &f)
	switch people := len(o.To) + len(o.Cc) + len(o.Bcc); {
	case len(f.Fields) > 0:
	case len(from) != 1:
		f.Add("From", "one sender is required")
	case people == 0:
		f.Add("To", "a recipient is required")
	case people > maxPeople:
		f.Add("To", fmt.Sprintf("a message may have %d recipients", maxPeople))
	case m.TextBody == "" && m.HTMLBody == "":
		f.Add("TextBody", "HtmlBody or TextBody is required")
	}
	if len(from) == 1 {
		o.From = from[0]
	}
	for _, h := range m.Headers {
		o.Header = append(o.Header, mailer.Field{Name: h.Name, Value: string(h.Value)})
	}
	for i, a := range m.Attachments {
		if !a.Content.Given {
			f.Add(fmt.Sprintf("Attachments[%d].Content", i), compat.Required)
		}
		o.Attach(mailer.Attachment{
			Filename: a.Name, ContentType: a.ContentType, ContentID: a.ContentID, Content: a.Content.Data,
		}, false)
	}
	if m.Tag != "" {
		o.Label(m.Tag)
	}
	for _, p := range m.Metadata {
		o.Tag(p.Name, p.Value)
	}
	o.Bulk = m.MessageStream == "broadcast" || m.MessageStream == "broadcasts"
	return o, f.Err()
}

// list reads an address field, in which Postmark has a list of its own.
func list(field, text string, f *compat.Fields) []mailer.Address {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return f.List(field, text)
}

// fieldNames are the names of the mailer's fields.
var fieldNames = map[string]string{
	"from": "From", "to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "ReplyTo", "subject": "Subject",
	"text": "TextBody", "html": "HtmlBody", "headers": "Headers", "attachments": "Attachments",
	"filename": "Name", "content_type": "ContentType", "content_id": "ContentID",
}

// path is where something is in the request.
func path(at mailer.Position) string {
	if at.Field == "attachments" && at.Item > 0 {
		return fmt.Sprintf("Attachments[%d].%s", at.Item-1, fieldNames[at.Member])
	}
	return cmp.Or(fieldNames[at.Field], at.Field)
}

// batch answers 200 with a result for each message, and sends those
// that are right.
func batch(x *compat.Exchange) error {
	_, items, err := x.ReadItems(bodyLimit(x, intake.MaxBatchBody))
	if err != nil {
		return err
	}
	switch {
	case len(items) == 0:
		return problem.New(api.CodeInvalidBatch, "The list has no message.")
	case len(items) > maxBatch:
		return problem.New(api.CodeTooManyMessages, fmt.Sprintf("A batch may have %d messages.", maxBatch))
	}
	b := results{x: x, mails: make([]mail, len(items)), results: make([]any, len(items))}
	for i, item := range items {
		b.take(i, item)
	}
	if err := b.submit(); err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, b.results)
}

type results struct {
	x       *compat.Exchange
	mails   []mail
	results []any
	valid   []queue.Submission
	places  []int // in results
}

func (b *results) take(i int, data []byte) {
	m := &b.mails[i]
	err := b.x.Decode(data, m, "", caseless)
	var o compat.Message
	if err == nil {
		o, err = m.outgoing(b.x.Expansion())
	}
	var sub queue.Submission
	if err == nil {
		sub, err = b.x.Compose(&o)
	}
	if err == nil && !b.x.Test && !b.x.Takes(sub.Key, sub.Sender) {
		err = queue.ErrNoRoute // of this message, not of all of them
	}
	if err != nil {
		b.refuse(i, err)
		return
	}
	for j := range m.Attachments {
		m.Attachments[j].Content.Data = nil // composed by now
	}
	b.valid, b.places = append(b.valid, sub), append(b.places, i)
}

func (b *results) refuse(i int, err error) {
	_, b.results[i] = b.x.API.Answer(compat.NewProblem(problem.For(err), http.Header{}))
}

// submit stores the messages in one commit; without a queue it hands over one
// after the other, because each has its own result.
func (b *results) submit() error {
	if len(b.valid) == 0 {
		return nil
	}
	if b.x.Stores() || b.x.Test {
		done, err := b.x.Submit(b.valid)
		for n, s := range done {
			b.results[b.places[n]] = b.mails[b.places[n]].receipt(s)
		}
		return err
	}
	if err := b.x.Key.Charge(len(b.valid)); err != nil {
		return err
	}
	for n, sub := range b.valid {
		b.deliver(b.places[n], sub)
	}
	return nil
}

func (b *results) deliver(i int, sub queue.Submission) {
	done, err := b.x.SubmitCharged([]queue.Submission{sub})
	if err != nil {
		b.refuse(i, err)
		return
	}
	b.results[i] = b.mails[i].receipt(done[0])
}

// refuseTemplate refuses the routes for templates and campaigns.
func refuseTemplate(*compat.Exchange) error {
	return problem.New(api.CodeInvalidMessage, "Templates are kept by Postmark: render them in the app, and use /email or /email/batch.")
}

// status: Postmark's clients read 422 as a mistake in the request, and 401 as one in the
// token.
func status(p compat.Problem) int {
	if p.Code == api.CodeRoleRequired {
		return http.StatusUnauthorized
	}
	switch p.Status {
	case http.StatusBadRequest, http.StatusForbidden:
		return http.StatusUnprocessableEntity
	default:
		return p.Status
	}
}

var errorCodes = map[api.Code]int{
	api.CodeUnauthorized:    badToken,
	api.CodeRoleRequired:    badToken,
	api.CodeMalformedJSON:   badJSON,
	api.CodeIncompleteBody:  badJSON,
	api.CodeUnknownField:    wrongJSON,
	api.CodeDuplicateField:  wrongJSON,
	api.CodeWrongType:       wrongJSON,
	api.CodeInvalidBase64:   wrongJSON,
	api.CodeContentType:     needsJSON,
	api.CodeContentEncoding: needsJSON,
	api.CodeTooManyMessages: tooMany,
	api.CodeInvalidBatch:    tooMany,
	api.CodeRateLimited:     rateLimited,
}

// errorCode is never 0: in the results of a batch that means success.
func errorCode(p compat.Problem) int {
	if n, ok := errorCodes[p.Code]; ok {
		return n
	}
	if p.Code == api.CodeUncertain || p.Status >= http.StatusInternalServerError {
		return unavailable
	}
	return invalid
}

// text names the field as Postmark does: Invalid 'From' address.
func text(p compat.Problem) string {
	if len(p.Fields) == 0 || p.Detail != "" {
		return p.Text
	}
	f := p.Fields[0]
	switch f.Field {
	case "To", "Cc", "Bcc":
		// Where Postmark says Invalid 'To' address, Anymail for Django looks for the
		// address, and without one, or with others beside it, it raises nothing.
		return fmt.Sprintf("The '%s' address is not valid: %s.", f.Field, f.Message)
	case "From", "ReplyTo":
		return fmt.Sprintf("Invalid '%s' address: %s.", f.Field, f.Message)
	case "":
		return p.Text
	default:
		return fmt.Sprintf("Invalid '%s': %s.", f.Field, f.Message)
	}
}
