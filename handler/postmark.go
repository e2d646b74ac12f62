package handler

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

var postmark = &provider{
	name:  "postmark",
	title: "Postmark",
	routes: []providerRoute{
		{"/email", postmarkEmail},
		{"/email/batch", postmarkBatch},
		{"/email/withTemplate", postmarkTemplate},
		{"/email/batchWithTemplates", postmarkTemplate},
		{"/email/bulk", postmarkTemplate},
	},
	owns:   under("/email"),
	secret: func(h http.Header) string { return h.Get("X-Postmark-Server-Token") },

	testSecret: postmarkTest,
	answer: func(c complaint) (int, any) {
		return postmarkStatus(c), postmarkFault{ErrorCode: postmarkCode(c), Message: postmarkText(c)}
	},
	requests: []providerRequest{
		{"POST /email", postmarkMail{}},
		{"POST /email/batch (a list of up to 500, each as in /email)", nil},
	},
}

const (
	// postmarkTest is the token that Postmark gives everybody for tests: the
	// request is judged and nothing is sent.
	postmarkTest      = "POSTMARK_API_TEST"
	maxPostmarkTest   = 1 << 20 // octets of a request without a key
	maxPostmarkBatch  = 500
	maxPostmarkPeople = 50

	postmarkBadToken    = 10
	postmarkUnavailable = 100
	postmarkInvalid     = 300
	postmarkBadJSON     = 402
	postmarkWrongJSON   = 403
	postmarkNeedsJSON   = 409
	postmarkTooMany     = 410
	postmarkRate        = 429
)

// postmarkCaseless: Postmark's own server does not mind the case of names, and
// its PHP client relies on it.
var postmarkCaseless = json.MatchCaseInsensitiveNames(true)

type postmarkMail struct {
	From          string         `json:"From"`
	To            string         `json:"To"`
	Cc            string         `json:"Cc"`
	Bcc           string         `json:"Bcc" note:"at most 50 recipients in To, Cc and Bcc together"`
	Subject       string         `json:"Subject"`
	HTMLBody      string         `json:"HtmlBody"`
	TextBody      string         `json:"TextBody"`
	ReplyTo       string         `json:"ReplyTo"`
	Headers       []postmarkPair `json:"Headers"`
	Attachments   []postmarkFile `json:"Attachments"`
	Tag           string         `json:"Tag" note:"kept as a tag of the message"`
	Metadata      pairs          `json:"Metadata" note:"kept as tags of the message"`
	TrackOpens    ignored        `json:"TrackOpens" note:"nothing is tracked"`
	TrackLinks    ignored        `json:"TrackLinks" note:"links stay as they are"`
	MessageStream scalar         `json:"MessageStream" note:"broadcast and broadcasts: priority bulk"`
	InlineCSS     ignored        `json:"InlineCss"`
	TemplateID    refused        `json:"TemplateId" note:"templates are kept by the provider: render them in the app"`
	TemplateAlias refused        `json:"TemplateAlias" note:"templates are kept by the provider: render them in the app"`
	TemplateModel refused        `json:"TemplateModel" note:"templates are kept by the provider: render them in the app"`
}

type postmarkPair struct {
	Name  string `json:"Name"`
	Value scalar `json:"Value"`
}

type postmarkFile struct {
	Name          string      `json:"Name"`
	Content       fileContent `json:"Content"`
	ContentType   string      `json:"ContentType"`
	ContentID     string      `json:"ContentID" note:"inline where it begins with cid: or the HTML refers to it"`
	ContentLength ignored     `json:"ContentLength"`
}

type postmarkFault struct {
	ErrorCode int    `json:"ErrorCode"`
	Message   string `json:"Message"`
}

type postmarkDone struct {
	To          string `json:"To"`
	Cc          string `json:"Cc"`
	Bcc         string `json:"Bcc"`
	SubmittedAt string `json:"SubmittedAt"`
	MessageID   string `json:"MessageID"`
	postmarkFault
}

func postmarkEmail(x *exchange) error {
	var m postmarkMail
	if err := x.readJSON(x.postmarkLimit(x.maxBody()), &m, postmarkCaseless); err != nil {
		return err
	}
	o, err := m.outgoing()
	if err != nil {
		return err
	}
	done, err := x.send([]outgoing{o})
	if err != nil {
		return err
	}
	return writeJSON(x.c, http.StatusOK, intake.TypeJSON, m.done(done[0]))
}

// postmarkLimit keeps a request without a key small.
func (x *exchange) postmarkLimit(limit int64) int64 {
	if x.test {
		return maxPostmarkTest
	}
	return limit
}

func (m *postmarkMail) done(s sent) postmarkDone {
	return postmarkDone{
		To: m.To, Cc: m.Cc, Bcc: m.Bcc, MessageID: s.id,
		SubmittedAt:   s.at.Format("2006-01-02T15:04:05.0000000Z07:00"),
		postmarkFault: postmarkFault{Message: "OK"},
	}
}

func (m *postmarkMail) outgoing() (outgoing, error) {
	var f findings
	o := outgoing{Message: mailer.Message{
		Subject: m.Subject, Text: m.TextBody, HTML: m.HTMLBody,
		To: f.postmarkList("To", m.To), Cc: f.postmarkList("Cc", m.Cc), Bcc: f.postmarkList("Bcc", m.Bcc),
		ReplyTo: f.postmarkList("ReplyTo", m.ReplyTo),
	}, where: postmarkField}
	from := f.postmarkList("From", m.From)
	switch people := len(o.To) + len(o.Cc) + len(o.Bcc); {
	case len(f.Fields) > 0:
	case len(from) != 1:
		f.Add("From", "one sender is required")
	case people == 0:
		f.Add("To", "a recipient is required")
	case people > maxPostmarkPeople:
		f.Add("To", fmt.Sprintf("a message may have %d recipients", maxPostmarkPeople))
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
		if !a.Content.given {
			f.Add(fmt.Sprintf("Attachments[%d].Content", i), "is required")
		}
		o.attach(mailer.Attachment{
			Filename: a.Name, ContentType: a.ContentType, ContentID: a.ContentID, Content: a.Content.data,
		}, false)
	}
	if m.Tag != "" {
		o.label(m.Tag)
	}
	for _, p := range m.Metadata {
		o.tag(p.Name, p.Value)
	}
	o.bulk = m.MessageStream == "broadcast" || m.MessageStream == "broadcasts"
	return o, f.Err()
}

// postmarkList reads an address field, in which Postmark has a list of its own.
func (f *findings) postmarkList(field, text string) []mailer.Address {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return f.list(field, text)
}

// postmarkFields are the names of the mailer's fields.
var postmarkFields = map[string]string{
	"from": "From", "to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "ReplyTo", "subject": "Subject",
	"text": "TextBody", "html": "HtmlBody",
	".filename": ".Name", ".content_type": ".ContentType", ".content_id": ".ContentID",
}

func postmarkField(field string) string {
	if rest, found := strings.CutPrefix(field, "headers."); found {
		return "Headers." + rest
	}
	name, i, rest, ok := indexed(field)
	switch {
	case ok && name == "attachments":
		return fmt.Sprintf("Attachments[%d]%s", i, postmarkFields[rest])
	case ok:
		field = name
	}
	return orText(postmarkFields[field], field)
}

// postmarkBatch answers 200 with a result for each message, and sends those
// that are right.
func postmarkBatch(x *exchange) error {
	data, err := x.readBytes(x.postmarkLimit(maxBatchBody))
	if err != nil {
		return err
	}
	var items []jsontext.Value
	if err := decodeProvider(data, &items, ""); err != nil {
		return err
	}
	switch {
	case len(items) == 0:
		return problem.New(api.CodeInvalidBatch, "The list has no message.")
	case len(items) > maxPostmarkBatch:
		return problem.New(api.CodeTooManyMessages, fmt.Sprintf("A batch may have %d messages.", maxPostmarkBatch))
	}
	b := postmarkResults{x: x, mails: make([]postmarkMail, len(items)), results: make([]any, len(items))}
	for i, item := range items {
		b.take(i, item)
	}
	if err := b.submit(); err != nil {
		return err
	}
	return writeJSON(x.c, http.StatusOK, intake.TypeJSON, b.results)
}

type postmarkResults struct {
	x       *exchange
	mails   []postmarkMail
	results []any
	valid   []queue.Submission
	places  []int // in results
}

func (b *postmarkResults) take(i int, data []byte) {
	m := &b.mails[i]
	err := b.x.decode(data, m, "", postmarkCaseless)
	var o outgoing
	if err == nil {
		o, err = m.outgoing()
	}
	var sub queue.Submission
	if err == nil {
		sub, err = b.x.compose(&o)
	}
	if err != nil {
		b.refuse(i, err)
		return
	}
	for j := range m.Attachments {
		m.Attachments[j].Content.data = nil // composed by now
	}
	b.valid, b.places = append(b.valid, sub), append(b.places, i)
}

func (b *postmarkResults) refuse(i int, err error) {
	_, b.results[i] = b.x.provider.answer(newComplaint(problem.For(err), http.Header{}))
}

// submit stores the messages in one commit; without a queue it hands over one
// after the other, for each has its own result.
func (b *postmarkResults) submit() error {
	if len(b.valid) == 0 {
		return nil
	}
	if b.x.queue.Durable() || b.x.test {
		done, err := b.x.submit(b.valid)
		for n, s := range done {
			b.results[b.places[n]] = b.mails[b.places[n]].done(s)
		}
		return err
	}
	if err := b.x.key.Charge(len(b.valid)); err != nil {
		return err
	}
	for n, sub := range b.valid {
		b.deliver(b.places[n], sub)
	}
	return nil
}

func (b *postmarkResults) deliver(i int, sub queue.Submission) {
	ctx, cancel := context.WithTimeout(b.x.c.Request().Context(), b.x.requestTimeout)
	defer cancel()
	done, err := b.x.submitOne(ctx, sub)
	if err != nil {
		b.refuse(i, err)
		return
	}
	b.results[i] = b.mails[i].done(done)
}

// postmarkTemplate refuses the routes for templates and campaigns.
func postmarkTemplate(*exchange) error {
	return problem.New(api.CodeInvalidMessage, "Templates are kept by Postmark: render them in the app, and use /email or /email/batch.")
}

// postmarkStatus: Postmark's clients read 422 as a mistake in the request.
func postmarkStatus(c complaint) int {
	switch c.status {
	case http.StatusBadRequest, http.StatusForbidden:
		return http.StatusUnprocessableEntity
	default:
		return c.status
	}
}

var postmarkCodes = map[api.Code]int{
	api.CodeUnauthorized:    postmarkBadToken,
	api.CodeMalformedJSON:   postmarkBadJSON,
	api.CodeIncompleteBody:  postmarkBadJSON,
	api.CodeUnknownField:    postmarkWrongJSON,
	api.CodeDuplicateField:  postmarkWrongJSON,
	api.CodeWrongType:       postmarkWrongJSON,
	api.CodeInvalidBase64:   postmarkWrongJSON,
	api.CodeContentType:     postmarkNeedsJSON,
	api.CodeContentEncoding: postmarkNeedsJSON,
	api.CodeTooManyMessages: postmarkTooMany,
	api.CodeInvalidBatch:    postmarkTooMany,
	api.CodeRateLimited:     postmarkRate,
}

// postmarkCode is never 0: in the results of a batch that means success.
func postmarkCode(c complaint) int {
	if n, ok := postmarkCodes[c.Code]; ok {
		return n
	}
	if c.Code == api.CodeUncertain || c.status >= http.StatusInternalServerError {
		return postmarkUnavailable
	}
	return postmarkInvalid
}

// postmarkText names the field as Postmark does: Invalid 'From' address.
func postmarkText(c complaint) string {
	if len(c.Fields) == 0 || c.Detail != "" {
		return c.text
	}
	f := c.Fields[0]
	switch f.Field {
	case "To", "Cc", "Bcc":
		// Where Postmark says Invalid 'To' address, Anymail for Django looks for the
		// address, and without one, or with others beside it, it raises nothing.
		return fmt.Sprintf("The '%s' address is not valid: %s.", f.Field, f.Message)
	case "From", "ReplyTo":
		return fmt.Sprintf("Invalid '%s' address: %s.", f.Field, f.Message)
	case "":
		return c.text
	default:
		return fmt.Sprintf("Invalid '%s': %s.", f.Field, f.Message)
	}
}
