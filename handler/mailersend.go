package handler

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

var mailersend = &provider{
	name:   "mailersend",
	title:  "MailerSend",
	routes: []providerRoute{{"/v1/email", mailersendEmail}, {"/v1/bulk-email", mailersendBulk}},
	owns:   under("/v1/email", "/v1/bulk-email"),
	secret: bearer,
	answer: mailersendAnswer,
	requests: []providerRequest{
		{"POST /v1/email", mailersendMail{}},
		{"POST /v1/bulk-email (a list of up to 500, each as in /v1/email)", nil},
	},
}

const (
	maxMailersendTo   = 50
	maxMailersendCc   = 10
	maxMailersendBulk = 500
	mailersendAhead   = 72 * time.Hour
	bulkTag           = "bulk_email_id"
)

type mailersendMail struct {
	From            person                `json:"from"`
	To              []person              `json:"to" note:"1 to 50"`
	Cc              []person              `json:"cc" note:"at most 10"`
	Bcc             []person              `json:"bcc" note:"at most 10"`
	RcptTo          refused               `json:"rcpt_to" note:"name the recipients in to, cc or bcc"`
	RcptTo2         refused               `json:"rcptTo" note:"name the recipients in to, cc or bcc"`
	ReplyTo         person                `json:"reply_to"`
	Subject         string                `json:"subject"`
	Text            string                `json:"text"`
	HTML            string                `json:"html"`
	Attachments     []mailersendFile      `json:"attachments"`
	Headers         []mailersendHeader    `json:"headers"`
	InReplyTo       string                `json:"in_reply_to"`
	References      texts                 `json:"references"`
	ListUnsubscribe string                `json:"list_unsubscribe"`
	PrecedenceBulk  bool                  `json:"precedence_bulk"`
	Personalization []mailersendPerson    `json:"personalization" note:"{{ name }} and {{ object.name }}, literally: one message per recipient, several need a queue"`
	Variables       []mailersendVariables `json:"variables" note:"{$name}, the older form"`
	SendAt          moment                `json:"send_at" note:"at most 72 hours ahead; needs a queue"`
	Tags            texts                 `json:"tags" note:"kept as tags of the message"`
	TemplateID      refused               `json:"template_id" note:"templates are kept by the provider: render them in the app"`
	Language        refused               `json:"language" note:"goes with a template"`
	Settings        ignored               `json:"settings" note:"nothing is tracked"`
}

type mailersendFile struct {
	Content     fileContent `json:"content"`
	Filename    string      `json:"filename"`
	Disposition string      `json:"disposition"`
	ID          string      `json:"id" note:"inline with disposition inline, or where the HTML refers to it"`
	Type        string      `json:"type" note:"guessed from the file name when absent"`
}

type mailersendHeader struct {
	Name  string `json:"name"`
	Value scalar `json:"value"`
}

type mailersendPerson struct {
	Email string    `json:"email"`
	Data  variables `json:"data"`
}

type mailersendVariables struct {
	Email         string               `json:"email"`
	Substitutions []mailersendVariable `json:"substitutions"`
}

type mailersendVariable struct {
	Var   string `json:"var"`
	Value scalar `json:"value"`
}

func mailersendEmail(x *exchange) error {
	var m mailersendMail
	if err := x.readJSON(x.maxBody(), &m); err != nil {
		return err
	}
	messages, err := m.outgoing()
	if err != nil {
		return err
	}
	done, err := x.send(messages)
	if err != nil {
		return err
	}
	h := x.c.Response().Header()
	h.Set(headerMessageID, done[0].id)
	// Anymail for Django fails on an answer without it, after the mail was taken.
	h.Set(echo.HeaderContentType, "text/html; charset=UTF-8")
	return x.c.NoContent(http.StatusAccepted)
}

// mailersendBulk refuses all messages for one that is wrong: MailerSend would
// answer first and judge later, and nobody would read the judgement here.
func mailersendBulk(x *exchange) error {
	data, err := x.readBytes(maxBatchBody)
	if err != nil {
		return err
	}
	var items []jsontext.Value
	if err := decodeProvider(data, &items, ""); err != nil {
		return err
	}
	if len(items) == 0 || len(items) > maxMailersendBulk {
		return problem.New(api.CodeInvalidBatch, fmt.Sprintf("A bulk has 1 to %d messages.", maxMailersendBulk))
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	var all []outgoing
	for i, item := range items {
		messages, err := x.mailersendItem(item, i)
		if err != nil {
			return err
		}
		all = append(all, messages...)
	}
	for i := range all {
		all[i].tag(bulkTag, id.String())
	}
	if _, err := x.send(all); err != nil {
		return err
	}
	return writeJSON(x.c, http.StatusAccepted, intake.TypeJSON, map[string]string{
		"message": "The bulk email is being processed.", bulkTag: id.String(),
	})
}

func (x *exchange) mailersendItem(data []byte, i int) ([]outgoing, error) {
	path := fmt.Sprintf("[%d]", i)
	var m mailersendMail
	if err := x.decode(data, &m, path); err != nil {
		return nil, err
	}
	messages, err := m.outgoing()
	for j := range messages {
		where := messages[j].where
		messages[j].where = func(field string) string { return path + "." + where(field) }
	}
	return messages, problem.Below(path, err)
}

// outgoing makes one message, or with personalization one for each recipient.
func (m *mailersendMail) outgoing() ([]outgoing, error) {
	var f findings
	m.check(&f)
	o := outgoing{Message: mailer.Message{
		From: m.From.address(), To: people(m.To), Cc: people(m.Cc), Bcc: people(m.Bcc),
		Subject: m.Subject, Text: m.Text, HTML: m.HTML, Header: m.header(),
	}}
	if !m.ReplyTo.absent() {
		o.ReplyTo = []mailer.Address{m.ReplyTo.address()}
	}
	for i, a := range m.Attachments {
		if !a.Content.given {
			f.Add(fmt.Sprintf("attachments[%d].content", i), textRequired)
		}
		o.attach(mailer.Attachment{
			Filename: a.Filename, ContentType: a.Type, ContentID: a.ID, Content: a.Content.data,
		}, strings.EqualFold(a.Disposition, "inline"))
	}
	for _, t := range m.Tags {
		o.label(t)
	}
	at, err := later(m.SendAt.Time, mailersendAhead, "send_at")
	if err != nil {
		f.Add("send_at", problem.For(err).Fields[0].Message)
	}
	o.sendAt, o.where = at, func(field string) string { return mailersendField(0, field) }
	if err := f.Err(); err != nil {
		return nil, err
	}
	e := newExpansion()
	return m.personalize(o, e), e.err()
}

func (m *mailersendMail) check(f *findings) {
	if m.From.Email == "" {
		f.Add("from.email", textRequired)
	}
	switch n := len(m.To); {
	case n == 0:
		f.Add("to", textRequired)
	case n > maxMailersendTo:
		f.Add("to", fmt.Sprintf("may not have more than %d items", maxMailersendTo))
	}
	if len(m.Cc) > maxMailersendCc {
		f.Add("cc", fmt.Sprintf("may not have more than %d items", maxMailersendCc))
	}
	if len(m.Bcc) > maxMailersendCc {
		f.Add("bcc", fmt.Sprintf("may not have more than %d items", maxMailersendCc))
	}
	if m.Subject == "" {
		f.Add("subject", textRequired)
	}
	if m.Text == "" && m.HTML == "" {
		f.Add("text", textRequired+" when html is absent")
	}
	if len(m.Headers) > maxPairs {
		f.Add("headers", fmt.Sprintf("may not have more than %d items", maxPairs))
	}
	m.checkPersonal(f)
}

// checkPersonal refuses what could be read in two ways.
func (m *mailersendMail) checkPersonal(f *findings) {
	if !m.personal() {
		return
	}
	if len(m.To) > 1 && len(m.Cc)+len(m.Bcc) > 0 {
		f.Add("personalization", "makes a message of each recipient: send cc and bcc apart, or name one recipient in to")
	}
	for field, text := range map[string]string{"subject": m.Subject, "text": m.Text, "html": m.HTML} {
		if strings.Contains(text, "{%") {
			f.Add(field, "has conditions or loops, which personalization does not know here")
		}
	}
}

func (m *mailersendMail) personal() bool { return len(m.Personalization)+len(m.Variables) > 0 }

func (m *mailersendMail) header() []mailer.Field {
	var all []mailer.Field
	for _, h := range m.Headers {
		all = append(all, mailer.Field{Name: h.Name, Value: string(h.Value)})
	}
	more := []mailer.Field{
		{Name: "In-Reply-To", Value: m.InReplyTo},
		{Name: "References", Value: strings.Join(m.References, " ")},
		{Name: "List-Unsubscribe", Value: m.ListUnsubscribe},
	}
	if m.PrecedenceBulk {
		more = append(more, mailer.Field{Name: "Precedence", Value: "bulk"})
	}
	more = slices.DeleteFunc(more, func(h mailer.Field) bool { return h.Value == "" })
	return overridden(all, more)
}

func (m *mailersendMail) personalize(o outgoing, e *expansion) []outgoing {
	if !m.personal() {
		return []outgoing{o}
	}
	all := make([]outgoing, len(m.To))
	for i, to := range m.To {
		one := o
		one.To = []mailer.Address{to.address()}
		one.where = func(field string) string { return mailersendField(i, field) }
		one.substitute(e, m.values(to.Email))
		all[i] = one
	}
	return all
}

// mailersendName is compiled when it is needed, as brevoParam is.
var mailersendName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{\{\s*([\p{L}\p{N}_.-]+)\s*\}\}|\{\$([\p{L}\p{N}_-]+)\}`)
})

// values puts a recipient's values into a text. A name without a value stays as
// it is.
func (m *mailersendMail) values(email string) substitution {
	values := map[string]string{}
	for _, p := range m.Personalization {
		if strings.EqualFold(p.Email, email) {
			for _, v := range p.Data.values {
				values["{{"+v.Name] = v.Value
			}
		}
	}
	for _, v := range m.Variables {
		if strings.EqualFold(v.Email, email) {
			for _, s := range v.Substitutions {
				values["{$"+s.Var] = string(s.Value)
			}
		}
	}
	return byPattern(mailersendName(), func(found string) (string, bool) {
		name := strings.TrimSpace(strings.TrimRight(found[2:], "}"))
		value, known := values[found[:2]+name]
		return value, known
	})
}

// mailersendField names a field; first is the place in to of the message's first
// recipient.
func mailersendField(first int, field string) string {
	name, n, rest, ok := indexed(field)
	switch {
	case ok && name == "to":
		return fmt.Sprintf("to[%d].email", first+n)
	case ok && (name == "cc" || name == "bcc"):
		return fmt.Sprintf("%s[%d].email", name, n)
	case ok && name == "reply_to":
		return "reply_to.email"
	case ok && name == "attachments":
		rest = strings.NewReplacer("content_type", "type", "content_id", "id").Replace(rest)
		return fmt.Sprintf("attachments[%d]%s", n, rest)
	case field == "from":
		return "from.email"
	default:
		return field
	}
}

func mailersendAnswer(c complaint) (int, any) {
	type fault struct {
		Message string              `json:"message"`
		Errors  map[string][]string `json:"errors,omitempty"`
	}
	f := fault{Message: c.text}
	switch {
	case c.Code == api.CodeUnauthorized:
		f.Message = "Unauthenticated."
	case c.status == http.StatusTooManyRequests:
		f.Message = "Too Many Attempts."
	case c.status == http.StatusBadRequest:
		c.status = http.StatusUnprocessableEntity
	}
	if c.status != http.StatusUnprocessableEntity {
		return c.status, f
	}
	f.Errors = map[string][]string{}
	for i, field := range c.Fields {
		path := dotted(field.Field)
		text := fmt.Sprintf("The %s: %s.", path, field.Message)
		f.Errors[path] = append(f.Errors[path], text)
		if i == 0 && c.Detail == "" {
			f.Message = text
		}
	}
	if len(f.Errors) == 0 {
		f.Errors["message"] = []string{c.text}
	}
	return c.status, f
}
