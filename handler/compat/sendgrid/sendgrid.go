// Package sendgrid answers as SendGrid does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package sendgrid

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// API is the API of SendGrid.
var API = &compat.API{
	Name:     "sendgrid",
	Title:    "SendGrid",
	Routes:   []compat.Route{{Path: "/v3/mail/send", Serve: send}},
	Owns:     compat.Under("/v3/mail"),
	Secret:   compat.Bearer,
	Answer:   func(p compat.Problem) (int, any) { return p.Status, fault{fieldFaults(p)} },
	Requests: []compat.RequestDoc{{Path: "POST /v3/mail/send", Fields: mail{}}},
}

const (
	maxPersonalizations = 1000
	maxRecipients       = 1000
	maxAhead            = 72 * time.Hour
)

type mail struct {
	Personalizations []personalization `json:"personalizations" note:"each is a message of its own; several need a queue"`
	From             compat.Person     `json:"from"`
	ReplyTo          compat.Person     `json:"reply_to"`
	ReplyToList      []compat.Person   `json:"reply_to_list"`
	Subject          string            `json:"subject"`
	Content          []content         `json:"content"`
	Attachments      []file            `json:"attachments"`
	Headers          compat.Pairs      `json:"headers"`
	Sections         compat.Pairs      `json:"sections" note:"put into the values of substitutions"`
	Categories       compat.Texts      `json:"categories" note:"kept as tags of the message"`
	CustomArgs       compat.Pairs      `json:"custom_args" note:"kept as tags of the message"`
	SendAt           compat.Moment     `json:"send_at" note:"at most 72 hours ahead; needs a queue"`
	MailSettings     settings          `json:"mail_settings"`
	TemplateID       compat.Refused    `json:"template_id" note:"templates are kept by the provider: render them in the app"`
	BatchID          compat.Ignored    `json:"batch_id"`
	ASM              compat.Ignored    `json:"asm" note:"no unsubscribe link is added"`
	IPPoolName       compat.Ignored    `json:"ip_pool_name"`
	TrackingSettings compat.Ignored    `json:"tracking_settings" note:"nothing is tracked, links stay as they are"`
}

type personalization struct {
	To                  []compat.Person `json:"to" note:"at most 1000 recipients in a request, each once in a message"`
	Cc                  []compat.Person `json:"cc"`
	Bcc                 []compat.Person `json:"bcc"`
	From                compat.Person   `json:"from"`
	Subject             string          `json:"subject"`
	Headers             compat.Pairs    `json:"headers"`
	Substitutions       compat.Pairs    `json:"substitutions" note:"literally, in one pass"`
	DynamicTemplateData compat.Ignored  `json:"dynamic_template_data" note:"without template_id it has no meaning"`
	CustomArgs          compat.Pairs    `json:"custom_args" note:"kept as tags of the message"`
	SendAt              compat.Moment   `json:"send_at"`
}

type content struct {
	Type  string `json:"type" note:"text/plain, text/html or text/calendar; others are refused"`
	Value string `json:"value"`
}

type file struct {
	Content        compat.FileContent `json:"content"`
	Filename       string             `json:"filename"`
	Type           string             `json:"type"`
	Disposition    string             `json:"disposition"`
	ContentID      string             `json:"content_id"`
	ContentIDCamel string             `json:"contentId" note:"content_id, as the Node client writes it"`
	Name           compat.Ignored     `json:"name"`
}

type settings struct {
	SandboxMode                 toggle         `json:"sandbox_mode" note:"the request is judged, and nothing is sent"`
	BypassListManagement        compat.Ignored `json:"bypass_list_management"`
	BypassSpamManagement        compat.Ignored `json:"bypass_spam_management"`
	BypassBounceManagement      compat.Ignored `json:"bypass_bounce_management"`
	BypassUnsubscribeManagement compat.Ignored `json:"bypass_unsubscribe_management"`
	SpamCheck                   compat.Ignored `json:"spam_check"`
	Footer                      compat.Ignored `json:"footer" note:"no footer is added"`
	BCC                         bccSetting     `json:"bcc"`
}

type bccSetting struct {
	Enable compat.Refused `json:"enable" note:"name the recipient in bcc of a personalization"`
	Email  compat.Ignored `json:"email"`
}

type toggle struct {
	Enable bool `json:"enable"`
}

type fault struct {
	Errors []fieldFault `json:"errors"`
}

type fieldFault struct {
	Message string  `json:"message"`
	Field   *string `json:"field"`
	Help    *string `json:"help"`
}

func send(x *compat.Exchange) error {
	var m mail
	if err := x.ReadJSON(x.MaxBody, &m); err != nil {
		return err
	}
	x.Test = m.MailSettings.SandboxMode.Enable
	messages, err := m.outgoing(x.Expansion())
	if err != nil {
		return err
	}
	done, err := x.Send(messages)
	if err != nil {
		return err
	}
	x.Writer.Header().Set(compat.HeaderMessageID, done[0].ID)
	if x.Test {
		return x.AnswerEmpty(http.StatusOK)
	}
	return x.AnswerEmpty(http.StatusAccepted)
}

// outgoing makes a message of each personalization.
func (m *mail) outgoing(e *compat.Expansion) ([]compat.Message, error) {
	var f compat.Fields
	m.checkCounts(&f)
	base := m.base(e, &f)
	if len(f.Fields) > 0 {
		return nil, f.Err()
	}
	sections := compat.Literally(m.Sections)
	messages := make([]compat.Message, len(m.Personalizations))
	for i := range m.Personalizations {
		if p := &m.Personalizations[i]; !e.ChargePairs(len(m.Headers) + len(p.Headers) + len(m.CustomArgs) + len(p.CustomArgs) + len(p.Substitutions)) {
			return nil, e.Err()
		}
		messages[i] = m.personalize(base, i, &f)
		replace(&messages[i], e, m.Personalizations[i].values(e, sections))
	}
	return messages, errors.Join(f.Err(), e.Err())
}

func (m *mail) checkCounts(f *compat.Fields) {
	total := 0
	for _, p := range m.Personalizations {
		total += len(p.To) + len(p.Cc) + len(p.Bcc)
	}
	switch {
	case len(m.Personalizations) == 0:
		f.Add("personalizations", "You must have at least one personalization.")
	case len(m.Personalizations) > maxPersonalizations:
		f.Add("personalizations", fmt.Sprintf("The personalization block is limited to %d personalizations per API request.", maxPersonalizations))
	case total > maxRecipients:
		f.Add("personalizations", fmt.Sprintf("There is a limit of %d total recipients (to + cc + bcc) per request.", maxRecipients))
	default:
		m.checkRecipients(f)
	}
}

func (m *mail) checkRecipients(f *compat.Fields) {
	for i, p := range m.Personalizations {
		path := fmt.Sprintf("personalizations[%d]", i)
		if len(p.To) == 0 {
			f.Add(path+".to", "The to array is required for all personalization objects, and must have at least one email object with a valid email address.")
		}
		seen := map[string]bool{}
		for _, a := range slices.Concat(p.To, p.Cc, p.Bcc) {
			email := strings.ToLower(strings.TrimSpace(a.Email))
			if seen[email] {
				f.Add(path, "Each email address in the personalization block should be unique between to, cc, and bcc.")
			}
			seen[email] = true
		}
	}
}

// base is what all of the messages have in common.
func (m *mail) base(e *compat.Expansion, f *compat.Fields) compat.Message {
	o := compat.Message{Message: mailer.Message{From: m.From.Address(), Subject: m.Subject}, Limit: e}
	m.bodies(&o, f)
	if !m.ReplyTo.Absent() {
		o.ReplyTo = []mailer.Address{m.ReplyTo.Address()}
		if len(m.ReplyToList) > 0 {
			f.Add("reply_to_list", "cannot be used together with reply_to")
		}
	}
	for _, p := range m.ReplyToList {
		o.ReplyTo = append(o.ReplyTo, p.Address())
	}
	for i, a := range m.Attachments {
		if !a.Content.Given || len(a.Content.Data) == 0 {
			f.Add(fmt.Sprintf("attachments[%d].content", i), "The attachment content must be a base64 encoded string of at least one octet.")
		}
		o.Attach(mailer.Attachment{
			Filename: a.Filename, ContentType: a.Type,
			ContentID: cmp.Or(a.ContentID, a.ContentIDCamel), Content: a.Content.Data,
		}, strings.EqualFold(a.Disposition, "inline"))
	}
	for _, category := range m.Categories {
		o.Label(category)
	}
	return o
}

func (m *mail) bodies(o *compat.Message, f *compat.Fields) {
	for i, c := range m.Content {
		path := fmt.Sprintf("content[%d]", i)
		kind, params, err := mime.ParseMediaType(c.Type)
		to := map[string]*string{"text/plain": &o.Text, "text/html": &o.HTML, "text/calendar": &o.Calendar.Content}[kind]
		switch {
		case err != nil || to == nil:
			f.Add(path+".type", "must be text/plain, text/html or text/calendar: send anything else as an attachment")
		case c.Value == "":
			f.Add(path+".value", "The content value must be a string at least one character in length.")
		case *to != "":
			f.Add(path+".type", "is given twice")
		default:
			*to = c.Value
			if kind == "text/calendar" {
				o.Calendar.Method = params["method"]
			}
		}
	}
	if len(m.Content) == 0 {
		f.Add("content", "Unless a valid template_id is provided, the content parameter is required. There must be at least one defined content block.")
	}
}

// personalize makes the i-th message.
func (m *mail) personalize(o compat.Message, i int, f *compat.Fields) compat.Message {
	p := &m.Personalizations[i]
	o.To, o.Cc, o.Bcc = compat.People(p.To), compat.People(p.Cc), compat.People(p.Bcc)
	if !p.From.Absent() {
		o.From = p.From.Address()
	}
	o.Subject = cmp.Or(p.Subject, o.Subject)
	if o.Subject == "" {
		f.Add("subject", "The subject is required. You can get around this requirement if you use a template with a subject defined or if every personalization has a subject defined.")
	}
	header, own := compat.Overridden(m.Headers, p.Headers)
	o.Header, o.HeaderPath = header, func(n int) string {
		if own[n] {
			return fmt.Sprintf("personalizations[%d].headers.%s", i, header[n].Name)
		}
		return "headers." + header[n].Name
	}
	o.Tags = maps.Clone(o.Tags)
	args, _ := compat.Overridden(m.CustomArgs, p.CustomArgs)
	for _, arg := range args {
		o.Tag(arg.Name, arg.Value)
	}
	at, path := p.SendAt.Time, fmt.Sprintf("personalizations[%d].send_at", i)
	if at.IsZero() {
		at, path = m.SendAt.Time, "send_at"
	}
	var err error
	if o.SendAt, err = compat.Later(at, maxAhead); err != nil {
		f.Add(path, err.Error())
	}
	o.Path = func(at mailer.Position) string { return m.path(i, at) }
	return o
}

// values are the substitutions, with sections put in.
func (p *personalization) values(e *compat.Expansion, sections compat.Substitution) []mailer.Field {
	values := slices.Clone([]mailer.Field(p.Substitutions))
	for i := range values {
		values[i].Value = e.Expand(sections, values[i].Value)
	}
	return values
}

// replace substitutes where SendGrid does.
func replace(o *compat.Message, e *compat.Expansion, values []mailer.Field) {
	if len(values) == 0 {
		return
	}
	s := compat.Literally(values)
	o.Subject, o.Text, o.HTML = e.Expand(s, o.Subject), e.Expand(s, o.Text), e.Expand(s, o.HTML)
	o.ReplyTo = slices.Clone(o.ReplyTo)
	for i := range o.ReplyTo {
		a := &o.ReplyTo[i]
		a.Name, a.Email = e.Expand(s, a.Name), e.Expand(s, a.Email)
	}
}

// path is where something of the i-th message is in the request.
func (m *mail) path(i int, at mailer.Position) string {
	p, within := &m.Personalizations[i], fmt.Sprintf("personalizations[%d].", i)
	switch at.Field {
	case "from":
		if p.From.Absent() {
			within = ""
		}
		return compat.PersonPath(within+"from", at)
	case "subject":
		if p.Subject == "" {
			within = ""
		}
		return within + "subject"
	case "to", "cc", "bcc":
		if at.Item > 0 {
			return compat.PersonPath(fmt.Sprintf("%s%s[%d]", within, at.Field, at.Item-1), at)
		}
	case "reply_to":
		switch {
		case !m.ReplyTo.Absent():
			return compat.PersonPath("reply_to", at)
		case at.Item > 0:
			return compat.PersonPath(fmt.Sprintf("reply_to_list[%d]", at.Item-1), at)
		default:
			return "reply_to_list"
		}
	case "attachments":
		if at.Member == "content_id" && m.Attachments[at.Item-1].ContentID == "" {
			at.Member = "contentId"
		}
		at.Member = strings.Replace(at.Member, "content_type", "type", 1)
	case "calendar":
		for n, c := range m.Content {
			if kind, _, _ := mime.ParseMediaType(c.Type); kind == "text/calendar" {
				return fmt.Sprintf("content[%d].%s", n, map[string]string{"content": "value", "method": "type"}[at.Member])
			}
		}
	case "text", "html":
		return "content"
	}
	return at.String()
}

func fieldFaults(p compat.Problem) []fieldFault {
	if p.Code == api.CodeUnauthorized {
		return []fieldFault{{Message: "The provided authorization grant is invalid, expired, or revoked"}}
	}
	if len(p.Fields) == 0 {
		return []fieldFault{{Message: p.Text}}
	}
	all := make([]fieldFault, len(p.Fields))
	for i, f := range p.Fields {
		field := compat.Dotted(f.Field)
		all[i] = fieldFault{Message: f.Message, Field: &field}
		if strings.HasSuffix(field, ".email") {
			all[i].Message = "Does not contain a valid address: " + f.Message + "."
		}
		switch {
		case f == problem.More:
			all[i].Field = nil
		case field == "":
			all[i] = fieldFault{Message: p.Text}
		}
	}
	return all
}
