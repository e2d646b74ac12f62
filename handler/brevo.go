package handler

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

var brevo = &provider{
	name:     "brevo",
	title:    "Brevo",
	routes:   []providerRoute{{"/v3/smtp/email", brevoEmail}},
	owns:     under("/v3/smtp"),
	secret:   func(h http.Header) string { return h.Get("Api-Key") },
	answer:   brevoAnswer,
	requests: []providerRequest{{"POST /v3/smtp/email", brevoMail{}}},
}

const (
	maxBrevoVersions   = 1000
	maxBrevoRecipients = 2000
	brevoAhead         = 72 * time.Hour
	brevoSandbox       = "X-Sib-Sandbox"
)

type brevoMail struct {
	Sender          brevoSender    `json:"sender"`
	To              []person       `json:"to" note:"not with messageVersions"`
	Cc              []person       `json:"cc" note:"not with messageVersions"`
	Bcc             []person       `json:"bcc" note:"not with messageVersions"`
	ReplyTo         person         `json:"replyTo"`
	Subject         string         `json:"subject"`
	HTMLContent     string         `json:"htmlContent"`
	TextContent     string         `json:"textContent"`
	Headers         pairs          `json:"headers" note:"idempotencyKey is honoured and not sent; X-Sib-Sandbox: drop judges the request and sends nothing"`
	Attachment      []brevoFile    `json:"attachment"`
	Params          variables      `json:"params" note:"{{ params.name }}, literally"`
	Tags            texts          `json:"tags" note:"kept as tags of the message"`
	ScheduledAt     string         `json:"scheduledAt" note:"a time of RFC 3339, at most 72 hours ahead; needs a queue"`
	MessageVersions []brevoVersion `json:"messageVersions" note:"each is a message of its own; several need a queue"`
	BatchID         ignored        `json:"batchId"`
	TemplateID      refused        `json:"templateId" note:"templates are kept by the provider: render them in the app"`
	HTMLURL         refused        `json:"htmlUrl" note:"nothing is fetched from a URL"`
}

type brevoSender struct {
	Email string  `json:"email"`
	Name  string  `json:"name"`
	ID    refused `json:"id" note:"senders are kept by the provider: name the address"`
}

type brevoFile struct {
	Name    string      `json:"name"`
	Content fileContent `json:"content"`
	URL     refused     `json:"url" note:"attachments are not fetched from a URL: send their content"`
}

type brevoVersion struct {
	To          []person  `json:"to"`
	Cc          []person  `json:"cc"`
	Bcc         []person  `json:"bcc"`
	ReplyTo     person    `json:"replyTo"`
	Subject     string    `json:"subject"`
	HTMLContent string    `json:"htmlContent"`
	TextContent string    `json:"textContent"`
	Params      variables `json:"params"`
	Headers     pairs     `json:"headers" note:"each replaces the request's of that name"`
}

func brevoEmail(x *exchange) error {
	data, err := x.readBytes(x.maxBody())
	if err != nil {
		return err
	}
	var m brevoMail
	if err := x.decode(data, &m, ""); err != nil {
		return err
	}
	key, err := m.takeOptions(x)
	if err != nil {
		return err
	}
	messages, err := m.outgoing()
	if err != nil {
		return err
	}
	if key != "" {
		fingerprint := jsonFingerprint(key, "POST /v3/smtp/email", data)
		for i := range messages {
			messages[i].idempotencyKey, messages[i].fingerprint = key, fingerprint
		}
	}
	done, err := x.send(messages)
	if err != nil {
		return err
	}
	if len(m.MessageVersions) == 0 {
		return writeJSON(x.c, http.StatusCreated, intake.TypeJSON, map[string]string{"messageId": done[0].messageID})
	}
	ids := make([]string, len(done))
	for i, d := range done {
		ids[i] = d.messageID
	}
	return writeJSON(x.c, http.StatusCreated, intake.TypeJSON, map[string][]string{"messageIds": ids})
}

// takeOptions takes what is no field of the message out of its headers.
func (m *brevoMail) takeOptions(x *exchange) (idempotencyKey string, err error) {
	var kept pairs
	for _, h := range m.Headers {
		switch {
		case isBrevoIdempotency(h.Name):
			if idempotencyKey, err = x.idempotency(http.Header{intake.HeaderIdempotencyKey: {h.Value}}); err != nil {
				return "", err
			}
		case strings.EqualFold(h.Name, brevoSandbox):
			if h.Value != "drop" {
				return "", problem.New(api.CodeInvalidMessage, "", problem.At("headers."+h.Name, "must be drop"))
			}
			x.test = true
		default:
			kept = append(kept, h)
		}
	}
	m.Headers = kept
	return idempotencyKey, nil
}

func isBrevoIdempotency(name string) bool {
	return strings.EqualFold(name, "idempotencyKey") || strings.EqualFold(name, intake.HeaderIdempotencyKey)
}

// isBrevoOption tells the names that are no header fields.
func isBrevoOption(name string) bool {
	return isBrevoIdempotency(name) || strings.EqualFold(name, brevoSandbox)
}

func (m *brevoMail) outgoing() ([]outgoing, error) {
	var f findings
	versions := m.versions(&f)
	recipients, e := 0, newExpansion()
	all := make([]outgoing, len(versions))
	for i := range versions {
		path := ""
		if len(m.MessageVersions) > 0 {
			path = fmt.Sprintf("messageVersions[%d].", i)
		}
		all[i] = m.version(&versions[i], path, e, &f)
		recipients += len(all[i].To) + len(all[i].Cc) + len(all[i].Bcc)
	}
	if recipients > maxBrevoRecipients {
		f.Add("to", fmt.Sprintf("a request may have %d recipients", maxBrevoRecipients))
	}
	return all, errors.Join(f.Err(), e.err())
}

// versions are the request's, or the one that its own fields make.
func (m *brevoMail) versions(f *findings) []brevoVersion {
	if len(m.MessageVersions) == 0 {
		return []brevoVersion{{To: m.To, Cc: m.Cc, Bcc: m.Bcc}}
	}
	if len(m.MessageVersions) > maxBrevoVersions {
		f.Add("messageVersions", fmt.Sprintf("may have %d items", maxBrevoVersions))
	}
	if len(m.To)+len(m.Cc)+len(m.Bcc) > 0 {
		f.Add("to", "recipients stand in messageVersions, or outside of it, not both")
	}
	return m.MessageVersions
}

// version makes a message of one version, at path in the request.
func (m *brevoMail) version(v *brevoVersion, path string, e *expansion, f *findings) outgoing {
	o := outgoing{Message: mailer.Message{
		From: mailer.Address{Name: m.Sender.Name, Email: m.Sender.Email},
		To:   people(v.To), Cc: people(v.Cc), Bcc: people(v.Bcc),
		Subject: orText(v.Subject, m.Subject), HTML: orText(v.HTMLContent, m.HTMLContent),
		Text: orText(v.TextContent, m.TextContent), Header: overridden(m.Headers, v.Headers),
	}, where: func(field string) string { return brevoField(path, field) }}
	m.require(&o, path, f)
	for _, h := range v.Headers {
		if isBrevoOption(h.Name) {
			f.Add(path+"headers."+h.Name, "is for the whole request: put it into headers")
		}
	}
	if replyTo := v.ReplyTo; !replyTo.absent() {
		o.ReplyTo = []mailer.Address{replyTo.address()}
	} else if !m.ReplyTo.absent() {
		o.ReplyTo = []mailer.Address{m.ReplyTo.address()}
	}
	for i, a := range m.Attachment {
		if !a.Content.given {
			f.Add(fmt.Sprintf("attachment[%d].content", i), textRequired)
		}
		// Brevo has no content ids: an image is inline by its file name.
		o.attach(mailer.Attachment{Filename: a.Name, ContentID: a.Name, Content: a.Content.data}, false)
	}
	for _, t := range m.Tags {
		o.label(t)
	}
	if m.Params.given || v.Params.given {
		o.substitute(e, brevoParams(m.Params, v.Params))
	}
	o.sendAt = f.brevoTime(m.ScheduledAt)
	return o
}

func (m *brevoMail) require(o *outgoing, path string, f *findings) {
	switch {
	case o.From.Email == "":
		f.Add("sender", textRequired)
	case len(o.To) == 0:
		f.Add(path+"to", textRequired)
	case o.Subject == "":
		f.Add(path+"subject", textRequired)
	case o.HTML == "" && o.Text == "":
		f.Add(path+"htmlContent", "htmlContent or textContent "+textRequired)
	}
}

func (f *findings) brevoTime(text string) time.Time {
	at, err := parseResendTime(text, time.Now())
	if err != nil {
		f.Add("scheduledAt", "must be a time of RFC 3339, such as 2030-01-31T08:00:00Z")
	}
	if at, err = later(at, brevoAhead, "scheduledAt"); err != nil {
		f.Add("scheduledAt", problem.For(err).Fields[0].Message)
	}
	return at
}

// brevoParam is compiled when it is needed: with its classes of letters that takes
// a part of a millisecond, which every start of the sendmail command would pay.
var brevoParam = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{\{\s*params\.([\p{L}\p{N}_.-]+)\s*\}\}`)
})

func brevoParams(all ...variables) substitution {
	values := map[string]string{}
	for _, vars := range all {
		for _, v := range vars.values {
			values[v.Name] = v.Value
		}
	}
	return byPattern(brevoParam(), func(found string) (string, bool) {
		value, known := values[brevoParam().FindStringSubmatch(found)[1]]
		return value, known
	})
}

func brevoField(path, field string) string {
	name, n, rest, ok := indexed(field)
	switch {
	case ok && (name == "to" || name == "cc" || name == "bcc"):
		return fmt.Sprintf("%s%s[%d].email", path, name, n)
	case ok && name == "reply_to":
		return "replyTo.email"
	case ok && name == "attachments":
		return fmt.Sprintf("attachment[%d]%s", n, strings.Replace(rest, "filename", "name", 1))
	}
	return orText(map[string]string{"from": "sender.email", "text": "textContent", "html": "htmlContent"}[field], field)
}

func brevoAnswer(c complaint) (int, any) {
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	f := fault{Code: "invalid_parameter", Message: c.text}
	if len(c.Fields) > 0 && c.Detail == "" && c.Fields[0].Field != "" {
		field := c.Fields[0]
		f.Message = fmt.Sprintf("%s: %s", dotted(field.Field), field.Message)
		if strings.HasSuffix(field.Message, textRequired) {
			f.Code = "missing_parameter"
		}
	}
	switch c.status {
	case http.StatusUnauthorized:
		f = fault{"unauthorized", "Key not found"}
	case http.StatusForbidden:
		f.Code = "permission_denied"
	case http.StatusNotFound:
		f.Code = "document_not_found"
	case http.StatusMethodNotAllowed:
		f.Code = "method_not_allowed"
	case http.StatusTooManyRequests:
		f.Code = "too_many_requests"
	}
	if c.status >= http.StatusInternalServerError {
		f.Code = "internal_server_error"
	}
	if c.Code == api.CodeUncertain {
		// Brevo's SDKs repeat a request that is answered with 409, too.
		c.status, f.Code = http.StatusUnprocessableEntity, "internal_server_error"
	}
	if c.Code == api.CodeIdempotencyReused || c.Code == api.CodeIdempotencyInUse {
		f.Code = "duplicate_request"
	}
	return c.status, f
}
