// Package brevo answers as Brevo does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package brevo

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// API is the API of Brevo.
var API = &compat.API{
	Name:     "brevo",
	Title:    "Brevo",
	Routes:   []compat.Route{{Path: "/v3/smtp/email", Serve: email}},
	Owns:     compat.Under("/v3/smtp"),
	Secret:   func(h http.Header) string { return h.Get("Api-Key") },
	Answer:   answer,
	Requests: []compat.RequestDoc{{Path: "POST /v3/smtp/email", Fields: mail{}}},
}

const (
	maxVersions   = 1000
	maxRecipients = 2000
	maxAhead      = 72 * time.Hour
	headerSandbox = "X-Sib-Sandbox"
)

type mail struct {
	Sender          sender           `json:"sender"`
	To              []compat.Person  `json:"to" note:"not with messageVersions"`
	Cc              []compat.Person  `json:"cc" note:"not with messageVersions"`
	Bcc             []compat.Person  `json:"bcc" note:"not with messageVersions"`
	ReplyTo         compat.Person    `json:"replyTo"`
	Subject         string           `json:"subject"`
	HTMLContent     string           `json:"htmlContent"`
	TextContent     string           `json:"textContent"`
	Headers         compat.Pairs     `json:"headers" note:"idempotencyKey is honoured and not sent; X-Sib-Sandbox: drop judges the request and sends nothing"`
	Attachment      []file           `json:"attachment"`
	Params          compat.Variables `json:"params" note:"{{ params.name }}, literally"`
	Tags            compat.Texts     `json:"tags" note:"kept as tags of the message"`
	ScheduledAt     string           `json:"scheduledAt" note:"a time of RFC 3339, at most 72 hours ahead; needs a queue"`
	MessageVersions []version        `json:"messageVersions" note:"each is a message of its own; several need a queue"`
	BatchID         compat.Ignored   `json:"batchId"`
	TemplateID      compat.Refused   `json:"templateId" note:"templates are kept by the provider: render them in the app"`
	HTMLURL         compat.Refused   `json:"htmlUrl" note:"nothing is fetched from a URL"`
}

type sender struct {
	Email string         `json:"email"`
	Name  string         `json:"name"`
	ID    compat.Refused `json:"id" note:"senders are kept by the provider: name the address"`
}

type file struct {
	Name    string             `json:"name"`
	Content compat.FileContent `json:"content"`
	URL     compat.Refused     `json:"url" note:"attachments are not fetched from a URL: send their content"`
}

type version struct {
	To          []compat.Person  `json:"to"`
	Cc          []compat.Person  `json:"cc"`
	Bcc         []compat.Person  `json:"bcc"`
	ReplyTo     compat.Person    `json:"replyTo"`
	Subject     string           `json:"subject"`
	HTMLContent string           `json:"htmlContent"`
	TextContent string           `json:"textContent"`
	Params      compat.Variables `json:"params"`
	Headers     compat.Pairs     `json:"headers" note:"each replaces the request's of that name"`
}

func email(x *compat.Exchange) error {
	data, err := x.ReadBytes(x.MaxBody)
	if err != nil {
		return err
	}
	var m mail
	if err := x.Decode(data, &m, ""); err != nil {
		return err
	}
	key, err := m.takeOptions(x)
	if err != nil {
		return err
	}
	messages, err := m.outgoing(x.Expansion())
	if err != nil {
		return err
	}
	if key != "" {
		fingerprint := compat.JSONFingerprint(key, "POST /v3/smtp/email", data)
		for i := range messages {
			messages[i].IdempotencyKey, messages[i].Fingerprint = key, fingerprint
		}
	}
	done, err := x.Send(messages)
	if err != nil {
		return err
	}
	if len(m.MessageVersions) == 0 {
		return x.AnswerJSON(http.StatusCreated, map[string]string{"messageId": done[0].MessageID})
	}
	ids := make([]string, len(done))
	for i, d := range done {
		ids[i] = d.MessageID
	}
	return x.AnswerJSON(http.StatusCreated, map[string][]string{"messageIds": ids})
}

// takeOptions takes the options out of the headers.
func (m *mail) takeOptions(x *compat.Exchange) (idempotencyKey string, err error) {
	var kept compat.Pairs
	for _, h := range m.Headers {
		switch {
		case isIdempotency(h.Name):
			if idempotencyKey, err = x.Idempotency(http.Header{intake.HeaderIdempotencyKey: {h.Value}}); err != nil {
				return "", locatedAt("headers."+h.Name, err)
			}
		case strings.EqualFold(h.Name, headerSandbox):
			if h.Value != "drop" {
				return "", problem.New(api.CodeInvalidMessage, "", problem.At("headers."+h.Name, "must be drop"))
			}
			x.Test = true
		default:
			kept = append(kept, h)
		}
	}
	m.Headers = kept
	return idempotencyKey, nil
}

// locatedAt makes the fields of an error that one.
func locatedAt(path string, err error) error {
	p := problem.For(err)
	if len(p.Fields) == 0 {
		return err
	}
	return problem.New(p.Code, p.Detail, problem.At(path, p.Fields[0].Message))
}

func isIdempotency(name string) bool {
	return strings.EqualFold(name, "idempotencyKey") || strings.EqualFold(name, intake.HeaderIdempotencyKey)
}

// isOption reports whether a member of headers is an option and no header field.
func isOption(name string) bool {
	return isIdempotency(name) || strings.EqualFold(name, headerSandbox)
}

func (m *mail) outgoing(e *compat.Expansion) ([]compat.Message, error) {
	var f compat.Fields
	versions := m.versions(&f)
	if len(versions) > maxVersions {
		return nil, f.Err()
	}
	recipients := 0
	base := m.base(e, &f)
	common := values(m.Params)
	if m.Params.Given && !e.Afford(copies(versions), &base, params(nil, common)) {
		return nil, e.Err()
	}
	all := make([]compat.Message, len(versions))
	for i := range versions {
		v := &versions[i]
		if !e.ChargePairs(len(m.Headers)+len(v.Headers)) || !e.ChargePairs(len(v.Params.Values)) {
			return nil, e.Err()
		}
		path := ""
		if len(m.MessageVersions) > 0 {
			path = fmt.Sprintf("messageVersions[%d].", i)
		}
		all[i] = m.version(base, v, path, &f)
		if m.Params.Given || v.Params.Given {
			all[i].Substitute(e, params(values(v.Params), common))
		}
		recipients += len(all[i].To) + len(all[i].Cc) + len(all[i].Bcc)
	}
	if recipients > maxRecipients {
		field := "to"
		if len(m.MessageVersions) > 0 {
			field = "messageVersions"
		}
		f.Add(field, fmt.Sprintf("a request may have %d recipients", maxRecipients))
	}
	return all, errors.Join(f.Err(), e.Err())
}

// copies counts the versions that have the texts of all versions.
func copies(versions []version) int {
	n := 0
	for _, v := range versions {
		if v.HTMLContent == "" && v.TextContent == "" && v.Subject == "" {
			n++
		}
	}
	return n
}

// versions are the request's, or the one that its own fields make.
func (m *mail) versions(f *compat.Fields) []version {
	if len(m.MessageVersions) == 0 {
		return []version{{To: m.To, Cc: m.Cc, Bcc: m.Bcc}}
	}
	if len(m.MessageVersions) > maxVersions {
		f.Add("messageVersions", fmt.Sprintf("may have %d items", maxVersions))
	}
	for _, list := range []struct {
		field string
		items int
	}{{"to", len(m.To)}, {"cc", len(m.Cc)}, {"bcc", len(m.Bcc)}} {
		if list.items > 0 {
			f.Add(list.field, "recipients stand in messageVersions, or outside of it, not both")
		}
	}
	return m.MessageVersions
}

// base is what all of the messages have in common, with the files of those that have no
// HTML of their own.
func (m *mail) base(e *compat.Expansion, f *compat.Fields) compat.Message {
	o := compat.Message{Message: mailer.Message{
		From: mailer.Address{Name: m.Sender.Name, Email: m.Sender.Email}, Subject: m.Subject, Text: m.TextContent, HTML: m.HTMLContent,
	}, Limit: e}
	if !m.ReplyTo.Absent() {
		o.ReplyTo = []mailer.Address{m.ReplyTo.Address()}
	}
	for i, a := range m.Attachment {
		if !a.Content.Given {
			f.Add(fmt.Sprintf("attachment[%d].content", i), compat.Required)
		}
	}
	m.attach(&o)
	for _, t := range m.Tags {
		o.Label(t)
	}
	o.SendAt = scheduled(m.ScheduledAt, f)
	return o
}

// attach adds the files. Brevo has no content ids: an image is inline by its file name.
func (m *mail) attach(o *compat.Message) {
	for _, a := range m.Attachment {
		o.Attach(mailer.Attachment{Filename: a.Name, ContentID: a.Name, Content: a.Content.Data}, false)
	}
}

// version makes a message of one version, at path in the request.
func (m *mail) version(o compat.Message, v *version, path string, f *compat.Fields) compat.Message {
	o.To, o.Cc, o.Bcc = compat.People(v.To), compat.People(v.Cc), compat.People(v.Bcc)
	o.Subject, o.Text = cmp.Or(v.Subject, o.Subject), cmp.Or(v.TextContent, o.Text)
	header, own := compat.Overridden(m.Headers, v.Headers)
	o.Header, o.HeaderPath = header, func(n int) string {
		if own[n] {
			return path + "headers." + header[n].Name
		}
		return "headers." + header[n].Name
	}
	o.Path = func(at mailer.Position) string { return fieldPath(path, v, at) }
	if v.HTMLContent != "" {
		o.HTML, o.Attachments = v.HTMLContent, nil
		m.attach(&o)
	}
	o.Tags = maps.Clone(o.Tags)
	m.require(&o, path, f)
	for _, h := range v.Headers {
		if isOption(h.Name) {
			f.Add(path+"headers."+h.Name, "is for the whole request: put it into headers")
		}
	}
	if replyTo := v.ReplyTo; !replyTo.Absent() {
		o.ReplyTo = []mailer.Address{replyTo.Address()}
	}
	return o
}

func (m *mail) require(o *compat.Message, path string, f *compat.Fields) {
	switch {
	case o.From.Email == "":
		f.Add("sender", compat.Required)
	case len(o.To) == 0:
		f.Add(path+"to", compat.Required)
	case o.Subject == "":
		f.Add(path+"subject", compat.Required)
	case o.HTML == "" && o.Text == "":
		f.Add(path+"htmlContent", "htmlContent or textContent "+compat.Required)
	}
}

func scheduled(text string, f *compat.Fields) time.Time {
	at, err := compat.ParseRFC3339(text)
	if err == nil {
		at, err = compat.Later(at, maxAhead)
	}
	if err != nil {
		f.Add("scheduledAt", err.Error())
	}
	return at
}

// placeholder is compiled when it is needed: with its classes of letters that takes
// a part of a millisecond, which every start of the sendmail command would pay.
var placeholder = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{\{\s*params\.([\p{L}\p{N}_.-]+)\s*\}\}`)
})

// values are the variables by name.
func values(vars compat.Variables) map[string]string {
	all := make(map[string]string, len(vars.Values))
	for _, v := range vars.Values {
		all[v.Name] = v.Value
	}
	return all
}

// params puts in a version's own values, or else those of all versions.
func params(own, common map[string]string) compat.Substitution {
	return compat.ByPattern(placeholder(), func(found string) (string, bool) {
		name := strings.TrimPrefix(strings.Trim(found, "{} \t\n\f\r"), "params.")
		value, known := own[name]
		if !known {
			value, known = common[name]
		}
		return value, known
	})
}

// fieldPath is where something is in the request, whose version v is at path.
func fieldPath(path string, v *version, at mailer.Position) string {
	// what a version has of its own stands there.
	own := func(is bool, name string) string {
		if is {
			return path + name
		}
		return name
	}
	switch at.Field {
	case "from":
		return compat.PersonPath("sender", at)
	case "to", "cc", "bcc":
		if at.Item > 0 {
			return compat.PersonPath(fmt.Sprintf("%s%s[%d]", path, at.Field, at.Item-1), at)
		}
	case "reply_to":
		return compat.PersonPath(own(!v.ReplyTo.Absent(), "replyTo"), at)
	case "subject":
		return own(v.Subject != "", "subject")
	case "text":
		return own(v.TextContent != "", "textContent")
	case "html":
		return own(v.HTMLContent != "", "htmlContent")
	case "attachments":
		at.Field, at.Member = "attachment", strings.NewReplacer("filename", "name", "content_id", "name").Replace(at.Member)
	}
	return at.String()
}

func answer(p compat.Problem) (int, any) {
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	f := fault{Code: "invalid_parameter", Message: p.Text}
	if len(p.Fields) > 0 && p.Detail == "" && p.Fields[0].Field != "" {
		field := p.Fields[0]
		f.Message = fmt.Sprintf("%s: %s", compat.Dotted(field.Field), field.Message)
		if strings.HasSuffix(field.Message, compat.Required) {
			f.Code = "missing_parameter"
		}
	}
	switch p.Status {
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
	if p.Status >= http.StatusInternalServerError {
		f.Code = "internal_server_error"
	}
	if p.Code == api.CodeUncertain {
		// Brevo's SDKs repeat a request that is answered with 409, too.
		p.Status, f.Code = http.StatusUnprocessableEntity, "internal_server_error"
	}
	if p.Code == api.CodeIdempotencyReused || p.Code == api.CodeIdempotencyInUse {
		f.Code = "duplicate_request"
	}
	return p.Status, f
}
