// Package mailersend answers as MailerSend does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package mailersend

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// API is the API of MailerSend.
var API = &compat.API{
	Name:   "mailersend",
	Title:  "MailerSend",
	Routes: []compat.Route{{Path: "/v1/email", Serve: email}, {Path: "/v1/bulk-email", Serve: bulk}},
	Owns: compat.Under("/v1/email", "/v1/bulk-email", "/v1/activity", "/v1/activities", "/v1/analytics", "/v1/domains", "/v1/identities",
		"/v1/inbound", "/v1/message-schedules", "/v1/recipients", "/v1/sms", "/v1/suppressions", "/v1/templates", "/v1/token", "/v1/webhooks"),
	Secret: compat.Bearer,
	Answer: answer,
	Requests: []compat.RequestDoc{
		{Path: "POST /v1/email", Fields: mail{}},
		{Path: "POST /v1/bulk-email (a list of up to 500, each as in /v1/email)"},
	},
}

const (
	maxTo    = 50
	maxCc    = 10
	maxBulk  = 500
	maxAhead = 72 * time.Hour
	bulkTag  = "bulk_email_id"
)

type mail struct {
	From            compat.Person   `json:"from"`
	To              []compat.Person `json:"to" note:"1 to 50"`
	Cc              []compat.Person `json:"cc" note:"at most 10"`
	Bcc             []compat.Person `json:"bcc" note:"at most 10"`
	RcptTo          compat.Refused  `json:"rcpt_to" note:"name the recipients in to, cc or bcc"`
	RcptToCamel     compat.Refused  `json:"rcptTo" note:"name the recipients in to, cc or bcc"`
	ReplyTo         compat.Person   `json:"reply_to"`
	Subject         string          `json:"subject"`
	Text            string          `json:"text"`
	HTML            string          `json:"html"`
	Attachments     []file          `json:"attachments"`
	Headers         []header        `json:"headers"`
	InReplyTo       string          `json:"in_reply_to"`
	References      compat.Texts    `json:"references"`
	ListUnsubscribe string          `json:"list_unsubscribe"`
	PrecedenceBulk  bool            `json:"precedence_bulk"`
	Personalization []personData    `json:"personalization" note:"{{ name }} and {{ object.name }}, literally: one message per recipient, several need a queue"`
	Variables       []variables     `json:"variables" note:"{$name}, the older form"`
	SendAt          compat.Moment   `json:"send_at" note:"at most 72 hours ahead; needs a queue"`
	Tags            compat.Texts    `json:"tags" note:"kept as tags of the message"`
	TemplateID      compat.Refused  `json:"template_id" note:"templates are kept by the provider: render them in the app"`
	Language        compat.Refused  `json:"language" note:"goes with a template"`
	Settings        compat.Ignored  `json:"settings" note:"nothing is tracked"`
}

type file struct {
	Content     compat.FileContent `json:"content"`
	Filename    string             `json:"filename"`
	Disposition string             `json:"disposition"`
	ID          string             `json:"id" note:"inline with disposition inline, or where the HTML refers to it"`
	Type        string             `json:"type" note:"guessed from the file name when absent"`
}

type header struct {
	Name  string        `json:"name"`
	Value compat.Scalar `json:"value"`
}

type personData struct {
	Email string           `json:"email"`
	Data  compat.Variables `json:"data"`
}

type variables struct {
	Email         string     `json:"email"`
	Substitutions []variable `json:"substitutions"`
}

type variable struct {
	Var   string        `json:"var"`
	Value compat.Scalar `json:"value"`
}

func email(x *compat.Exchange) error {
	var m mail
	if err := x.ReadJSON(x.MaxBody, &m); err != nil {
		return err
	}
	messages, err := m.outgoing(x.Expansion())
	if err != nil {
		return err
	}
	done, err := x.Send(messages)
	if err != nil {
		return err
	}
	h := x.Writer.Header()
	h.Set(compat.HeaderMessageID, done[0].ID)
	// Anymail for Django fails on an answer without it, after the mail was taken.
	h.Set("Content-Type", "text/html; charset=UTF-8")
	return x.AnswerEmpty(http.StatusAccepted)
}

// bulk refuses all messages for one that is wrong: MailerSend would
// answer first and judge later, in a report that does not exist here.
func bulk(x *compat.Exchange) error {
	_, items, err := x.ReadItems(intake.MaxBatchBody)
	if err != nil {
		return err
	}
	if len(items) == 0 || len(items) > maxBulk {
		return problem.New(api.CodeInvalidBatch, fmt.Sprintf("A bulk has 1 to %d messages.", maxBulk))
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	var all []compat.Message
	e := x.Expansion()
	for i, item := range items {
		messages, err := readItem(x, item, i, e)
		if err != nil {
			return err
		}
		all = append(all, messages...)
	}
	for i := range all {
		all[i].Tag(bulkTag, id.String())
	}
	if _, err := x.Send(all); err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusAccepted, map[string]string{
		"message": "The bulk email is being processed.", bulkTag: id.String(),
	})
}

func readItem(x *compat.Exchange, data []byte, i int, e *compat.Expansion) ([]compat.Message, error) {
	place := fmt.Sprintf("[%d]", i)
	var m mail
	if err := x.Decode(data, &m, place); err != nil {
		return nil, err
	}
	messages, err := m.outgoing(e)
	for j := range messages {
		messages[j].Within(place)
	}
	return messages, problem.Below(place, err)
}

// outgoing makes one message, or with personalization one for each recipient.
func (m *mail) outgoing(e *compat.Expansion) ([]compat.Message, error) {
	var f compat.Fields
	m.check(&f)
	o := compat.Message{Message: mailer.Message{
		From: m.From.Address(), To: compat.People(m.To), Cc: compat.People(m.Cc), Bcc: compat.People(m.Bcc),
		Subject: m.Subject, Text: m.Text, HTML: m.HTML,
	}, Limit: e}
	o.Header, o.HeaderPath = m.header()
	if !m.ReplyTo.Absent() {
		o.ReplyTo = []mailer.Address{m.ReplyTo.Address()}
	}
	for i, a := range m.Attachments {
		if !a.Content.Given {
			f.Add(fmt.Sprintf("attachments[%d].content", i), compat.Required)
		}
		o.Attach(mailer.Attachment{
			Filename: a.Filename, ContentType: a.Type, ContentID: a.ID, Content: a.Content.Data,
		}, strings.EqualFold(a.Disposition, "inline"))
	}
	for _, t := range m.Tags {
		o.Label(t)
	}
	at, err := compat.Later(m.SendAt.Time, maxAhead)
	if err != nil {
		f.Add("send_at", err.Error())
	}
	o.SendAt, o.Path = at, func(at mailer.Position) string { return path(0, at) }
	if err := f.Err(); err != nil {
		return nil, err
	}
	return m.personalize(o, e), e.Err()
}

func (m *mail) check(f *compat.Fields) {
	if m.From.Email == "" {
		f.Add("from.email", compat.Required)
	}
	switch n := len(m.To); {
	case n == 0:
		f.Add("to", compat.Required)
	case n > maxTo:
		f.Add("to", fmt.Sprintf("may not have more than %d items", maxTo))
	}
	if len(m.Cc) > maxCc {
		f.Add("cc", fmt.Sprintf("may not have more than %d items", maxCc))
	}
	if len(m.Bcc) > maxCc {
		f.Add("bcc", fmt.Sprintf("may not have more than %d items", maxCc))
	}
	if m.Subject == "" {
		f.Add("subject", compat.Required)
	}
	if m.Text == "" && m.HTML == "" {
		f.Add("text", compat.Required+" when html is absent")
	}
	if len(m.Headers) > compat.MaxPairs {
		f.Add("headers", fmt.Sprintf("may not have more than %d items", compat.MaxPairs))
	}
	if len(m.References) > compat.MaxPairs {
		f.Add("references", fmt.Sprintf("may not have more than %d items", compat.MaxPairs))
	}
	m.checkPersonal(f)
}

// checkPersonal refuses what could be read in two ways.
func (m *mail) checkPersonal(f *compat.Fields) {
	if !m.personal() {
		return
	}
	if len(m.To) > 1 && len(m.Cc)+len(m.Bcc) > 0 {
		field := "personalization"
		if len(m.Personalization) == 0 {
			field = "variables"
		}
		f.Add(field, "makes a message of each recipient: send cc and bcc apart, or name one recipient in to")
	}
	for _, text := range []mailer.Field{{Name: "subject", Value: m.Subject}, {Name: "text", Value: m.Text}, {Name: "html", Value: m.HTML}} {
		if strings.Contains(text.Value, "{%") {
			f.Add(text.Name, "has conditions or loops, which personalization does not know here")
		}
	}
}

func (m *mail) personal() bool { return len(m.Personalization)+len(m.Variables) > 0 }

// ownNames are the fields of the request that become header fields.
var ownNames = map[string]string{
	"In-Reply-To": "in_reply_to", "References": "references", "List-Unsubscribe": "list_unsubscribe", "Precedence": "precedence_bulk",
}

// header returns the header fields, and where each of them is in the request.
func (m *mail) header() (fields []mailer.Field, path func(n int) string) {
	var all []mailer.Field
	for _, h := range m.Headers {
		all = append(all, mailer.Field{Name: h.Name, Value: string(h.Value)})
	}
	more := []mailer.Field{
		{Name: "In-Reply-To", Value: messageIDs(m.InReplyTo)},
		{Name: "References", Value: messageIDs(m.References...)},
		{Name: "List-Unsubscribe", Value: m.ListUnsubscribe},
	}
	if m.PrecedenceBulk {
		more = append(more, mailer.Field{Name: "Precedence", Value: "bulk"})
	}
	more = slices.DeleteFunc(more, func(h mailer.Field) bool { return h.Value == "" })
	fields, own := compat.Overridden(all, more)
	return fields, func(n int) string {
		if own[n] {
			return ownNames[fields[n].Name]
		}
		return fmt.Sprintf("headers[%d]", n)
	}
}

// messageIDs returns the ids of messages with the angle brackets of RFC 5322 §3.6.4, which
// programs need to find a thread. A text with words that are no ids stays as it is.
func messageIDs(texts ...string) string {
	ids := strings.Fields(strings.Join(texts, " "))
	for i, id := range ids {
		switch {
		case strings.HasPrefix(id, "<") && strings.HasSuffix(id, ">"):
		case strings.ContainsAny(id, "<>,") || !strings.Contains(id, "@"):
			return strings.Join(texts, " ")
		default:
			ids[i] = "<" + id + ">"
		}
	}
	return strings.Join(ids, " ")
}

func (m *mail) personalize(o compat.Message, e *compat.Expansion) []compat.Message {
	if !m.personal() {
		return []compat.Message{o}
	}
	if !e.Afford(len(m.To), &o, substitution(nil)) {
		return nil
	}
	values := m.values()
	all := make([]compat.Message, len(m.To))
	for i, to := range m.To {
		one := o
		one.To = []mailer.Address{to.Address()}
		one.Path = func(at mailer.Position) string { return path(i, at) }
		one.Substitute(e, substitution(values[strings.ToLower(to.Email)]))
		all[i] = one
	}
	return all
}

// placeholder is compiled when it is needed: the classes of letters in it take a part
// of a millisecond, which every start of the sendmail command would pay.
var placeholder = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{\{\s*([\p{L}\p{N}_.-]+)\s*\}\}|\{\$([\p{L}\p{N}_-]+)\}`)
})

// values returns the values of each address, in lower case, by the beginning of the
// placeholder.
func (m *mail) values() map[string]map[string]string {
	all := map[string]map[string]string{}
	of := func(email string) map[string]string {
		key := strings.ToLower(email)
		if all[key] == nil {
			all[key] = map[string]string{}
		}
		return all[key]
	}
	for _, p := range m.Personalization {
		values := of(p.Email)
		for _, v := range p.Data.Values {
			values["{{"+v.Name] = v.Value
		}
	}
	for _, v := range m.Variables {
		values := of(v.Email)
		for _, s := range v.Substitutions {
			values["{$"+s.Var] = string(s.Value)
		}
	}
	return all
}

// substitution puts a recipient's values into a text. A name without a value stays as
// it is.
func substitution(values map[string]string) compat.Substitution {
	return compat.ByPattern(placeholder(), func(found string) (string, bool) {
		name := strings.TrimSpace(strings.TrimRight(found[2:], "}"))
		value, known := values[found[:2]+name]
		return value, known
	})
}

// path is where something is in the request; first is the place in to of the message's
// first recipient.
func path(first int, at mailer.Position) string {
	switch at.Field {
	case "from", "reply_to":
		return compat.PersonPath(at.Field, at)
	case "to":
		if at.Item > 0 {
			return compat.PersonPath(fmt.Sprintf("to[%d]", first+at.Item-1), at)
		}
	case "cc", "bcc":
		if at.Item > 0 {
			return compat.PersonPath(fmt.Sprintf("%s[%d]", at.Field, at.Item-1), at)
		}
	case "attachments":
		at.Member = strings.NewReplacer("content_type", "type", "content_id", "id").Replace(at.Member)
	}
	return at.String()
}

func answer(p compat.Problem) (int, any) {
	type fault struct {
		Message string              `json:"message"`
		Errors  map[string][]string `json:"errors,omitempty"`
	}
	f := fault{Message: p.Text}
	switch {
	case p.Code == api.CodeUnauthorized:
		f.Message = "Unauthenticated."
	case p.Status == http.StatusTooManyRequests:
		f.Message = "Too Many Attempts."
	case p.Status == http.StatusBadRequest:
		p.Status = http.StatusUnprocessableEntity
	}
	if p.Status != http.StatusUnprocessableEntity {
		return p.Status, f
	}
	f.Errors = map[string][]string{}
	for i, field := range p.Fields {
		if field == problem.More {
			f.Errors["message"] = []string{field.Message}
			continue
		}
		path := compat.Dotted(field.Field)
		text := fmt.Sprintf("The %s: %s.", path, field.Message)
		f.Errors[path] = append(f.Errors[path], text)
		if i == 0 && p.Detail == "" {
			f.Message = text
		}
	}
	if len(f.Errors) == 0 {
		f.Errors["message"] = []string{p.Text}
	}
	return p.Status, f
}
