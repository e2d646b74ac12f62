package handler

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

var sendgrid = &provider{
	name:     "sendgrid",
	title:    "SendGrid",
	routes:   []providerRoute{{"/v3/mail/send", sendgridSend}},
	owns:     under("/v3/mail"),
	secret:   bearer,
	answer:   func(c complaint) (int, any) { return c.status, sendgridFault{sendgridErrors(c)} },
	requests: []providerRequest{{"POST /v3/mail/send", sendgridMail{}}},
}

const (
	maxPersonalizations   = 1000
	maxSendgridRecipients = 1000
	sendgridAhead         = 72 * time.Hour
	headerMessageID       = "X-Message-Id"
)

type sendgridMail struct {
	Personalizations []personalization `json:"personalizations" note:"each is a message of its own; several need a queue"`
	From             person            `json:"from"`
	ReplyTo          person            `json:"reply_to"`
	ReplyToList      []person          `json:"reply_to_list"`
	Subject          string            `json:"subject"`
	Content          []sendgridContent `json:"content"`
	Attachments      []sendgridFile    `json:"attachments"`
	Headers          pairs             `json:"headers"`
	Sections         pairs             `json:"sections" note:"put into the values of substitutions"`
	Categories       texts             `json:"categories" note:"kept as tags of the message"`
	CustomArgs       pairs             `json:"custom_args" note:"kept as tags of the message"`
	SendAt           moment            `json:"send_at" note:"at most 72 hours ahead; needs a queue"`
	MailSettings     sendgridSettings  `json:"mail_settings"`
	TemplateID       refused           `json:"template_id" note:"templates are kept by the provider: render them in the app"`
	BatchID          ignored           `json:"batch_id"`
	ASM              ignored           `json:"asm" note:"no unsubscribe link is added"`
	IPPoolName       ignored           `json:"ip_pool_name"`
	TrackingSettings ignored           `json:"tracking_settings" note:"nothing is tracked, links stay as they are"`
}

type personalization struct {
	To                  []person `json:"to" note:"at most 1000 recipients in a request, each once in a message"`
	Cc                  []person `json:"cc"`
	Bcc                 []person `json:"bcc"`
	From                person   `json:"from"`
	Subject             string   `json:"subject"`
	Headers             pairs    `json:"headers"`
	Substitutions       pairs    `json:"substitutions" note:"literally, in one pass"`
	DynamicTemplateData ignored  `json:"dynamic_template_data" note:"without template_id it has no meaning"`
	CustomArgs          pairs    `json:"custom_args" note:"kept as tags of the message"`
	SendAt              moment   `json:"send_at"`
}

type sendgridContent struct {
	Type  string `json:"type" note:"text/plain or text/html; others are refused"`
	Value string `json:"value"`
}

type sendgridFile struct {
	Content     fileContent `json:"content"`
	Filename    string      `json:"filename"`
	Type        string      `json:"type"`
	Disposition string      `json:"disposition"`
	ContentID   string      `json:"content_id"`
	ContentId2  string      `json:"contentId" note:"content_id, as the Node client writes it"`
	Name        ignored     `json:"name"`
}

type sendgridSettings struct {
	SandboxMode                 sendgridSwitch `json:"sandbox_mode" note:"the request is judged, and nothing is sent"`
	BypassListManagement        ignored        `json:"bypass_list_management"`
	BypassSpamManagement        ignored        `json:"bypass_spam_management"`
	BypassBounceManagement      ignored        `json:"bypass_bounce_management"`
	BypassUnsubscribeManagement ignored        `json:"bypass_unsubscribe_management"`
	SpamCheck                   ignored        `json:"spam_check"`
	Footer                      ignored        `json:"footer" note:"no footer is added"`
	BCC                         sendgridBCC    `json:"bcc"`
}

type sendgridBCC struct {
	Enable refused `json:"enable" note:"name the recipient in bcc of a personalization"`
	Email  ignored `json:"email"`
}

type sendgridSwitch struct {
	Enable bool `json:"enable"`
}

type sendgridFault struct {
	Errors []sendgridError `json:"errors"`
}

type sendgridError struct {
	Message string  `json:"message"`
	Field   *string `json:"field"`
	Help    *string `json:"help"`
}

func sendgridSend(x *exchange) error {
	var m sendgridMail
	if err := x.readJSON(x.maxBody(), &m); err != nil {
		return err
	}
	x.test = m.MailSettings.SandboxMode.Enable
	messages, err := m.outgoing()
	if err != nil {
		return err
	}
	done, err := x.send(messages)
	if err != nil {
		return err
	}
	x.c.Response().Header().Set(headerMessageID, done[0].id)
	if x.test {
		return x.c.NoContent(http.StatusOK)
	}
	return x.c.NoContent(http.StatusAccepted)
}

// outgoing makes a message of each personalization.
func (m *sendgridMail) outgoing() ([]outgoing, error) {
	var f findings
	m.checkCounts(&f)
	base := m.base(&f)
	if len(f.Fields) > 0 {
		return nil, f.Err()
	}
	e, sections := newExpansion(), literally(m.Sections)
	messages := make([]outgoing, len(m.Personalizations))
	for i := range m.Personalizations {
		messages[i] = m.personalize(base, i, &f)
		messages[i].replace(e, m.Personalizations[i].values(e, sections))
	}
	return messages, errors.Join(f.Err(), e.err())
}

func (m *sendgridMail) checkCounts(f *findings) {
	total := 0
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
			total++
		}
	}
	switch {
	case len(m.Personalizations) == 0:
		f.Add("personalizations", "You must have at least one personalization.")
	case len(m.Personalizations) > maxPersonalizations:
		f.Add("personalizations", fmt.Sprintf("The personalization block is limited to %d personalizations per API request.", maxPersonalizations))
	case total > maxSendgridRecipients:
		f.Add("personalizations", fmt.Sprintf("There is a limit of %d total recipients (to + cc + bcc) per request.", maxSendgridRecipients))
	}
}

// base is what all of the messages have in common.
func (m *sendgridMail) base(f *findings) outgoing {
	o := outgoing{Message: mailer.Message{From: m.From.address(), Subject: m.Subject}}
	m.bodies(&o, f)
	if !m.ReplyTo.absent() {
		o.ReplyTo = []mailer.Address{m.ReplyTo.address()}
		if len(m.ReplyToList) > 0 {
			f.Add("reply_to_list", "cannot be used together with reply_to")
		}
	}
	for _, p := range m.ReplyToList {
		o.ReplyTo = append(o.ReplyTo, p.address())
	}
	for i, a := range m.Attachments {
		if !a.Content.given || len(a.Content.data) == 0 {
			f.Add(fmt.Sprintf("attachments[%d].content", i), "The attachment content must be a base64 encoded string of at least one octet.")
		}
		o.attach(mailer.Attachment{
			Filename: a.Filename, ContentType: a.Type,
			ContentID: orText(a.ContentID, a.ContentId2), Content: a.Content.data,
		}, strings.EqualFold(a.Disposition, "inline"))
	}
	for _, category := range m.Categories {
		o.label(category)
	}
	return o
}

func (m *sendgridMail) bodies(o *outgoing, f *findings) {
	for i, c := range m.Content {
		path := fmt.Sprintf("content[%d]", i)
		kind, _, err := mime.ParseMediaType(c.Type)
		to := map[string]*string{"text/plain": &o.Text, "text/html": &o.HTML}[kind]
		switch {
		case err != nil || to == nil:
			f.Add(path+".type", "must be text/plain or text/html: send anything else as an attachment")
		case c.Value == "":
			f.Add(path+".value", "The content value must be a string at least one character in length.")
		case *to != "":
			f.Add(path+".type", "is given twice")
		default:
			*to = c.Value
		}
	}
	if len(m.Content) == 0 {
		f.Add("content", "Unless a valid template_id is provided, the content parameter is required. There must be at least one defined content block.")
	}
}

// personalize makes the i-th message.
func (m *sendgridMail) personalize(o outgoing, i int, f *findings) outgoing {
	p := &m.Personalizations[i]
	o.To, o.Cc, o.Bcc = people(p.To), people(p.Cc), people(p.Bcc)
	fromPath := "from.email"
	if !p.From.absent() {
		o.From, fromPath = p.From.address(), fmt.Sprintf("personalizations[%d].from.email", i)
	}
	o.Subject = orText(p.Subject, o.Subject)
	if o.Subject == "" {
		f.Add("subject", "The subject is required. You can get around this requirement if you use a template with a subject defined or if every personalization has a subject defined.")
	}
	o.Header = overridden(m.Headers, p.Headers)
	o.tags = maps.Clone(o.tags)
	for _, arg := range overridden(m.CustomArgs, p.CustomArgs) {
		o.tag(arg.Name, arg.Value)
	}
	at, path := p.SendAt.Time, fmt.Sprintf("personalizations[%d].send_at", i)
	if at.IsZero() {
		at, path = m.SendAt.Time, "send_at"
	}
	var err error
	if o.sendAt, err = later(at, sendgridAhead, path); err != nil {
		f.Add(path, problem.For(err).Fields[0].Message)
	}
	o.where = func(field string) string { return sendgridField(i, fromPath, field) }
	return o
}

func people(list []person) []mailer.Address {
	var all []mailer.Address
	for _, p := range list {
		all = append(all, p.address())
	}
	return all
}

// overridden merges two lists; a later value replaces the one of that name.
func overridden(base, more pairs) []mailer.Field {
	merged := slices.Clone([]mailer.Field(base))
	for _, m := range more {
		i := slices.IndexFunc(merged, func(b mailer.Field) bool { return strings.EqualFold(b.Name, m.Name) })
		if i < 0 {
			merged = append(merged, m)
		} else {
			merged[i] = m
		}
	}
	return merged
}

// values are the substitutions, with sections put in.
func (p *personalization) values(e *expansion, sections substitution) []mailer.Field {
	values := slices.Clone([]mailer.Field(p.Substitutions))
	for i := range values {
		values[i].Value = e.expand(sections, values[i].Value)
	}
	return values
}

// replace substitutes where SendGrid does.
func (o *outgoing) replace(e *expansion, values []mailer.Field) {
	if len(values) == 0 {
		return
	}
	s := literally(values)
	o.Subject, o.Text, o.HTML = e.expand(s, o.Subject), e.expand(s, o.Text), e.expand(s, o.HTML)
	o.ReplyTo = slices.Clone(o.ReplyTo)
	for i := range o.ReplyTo {
		a := &o.ReplyTo[i]
		a.Name, a.Email = e.expand(s, a.Name), e.expand(s, a.Email)
	}
}

// sendgridField names a field of the i-th message.
func sendgridField(i int, fromPath, field string) string {
	name, n, rest, ok := indexed(field)
	switch {
	case ok && (name == "to" || name == "cc" || name == "bcc"):
		return fmt.Sprintf("personalizations[%d].%s[%d].email", i, name, n)
	case ok && name == "reply_to":
		return "reply_to.email"
	case ok && name == "attachments":
		return fmt.Sprintf("attachments[%d]%s", n, strings.Replace(rest, "content_type", "type", 1))
	}
	switch field {
	case "from":
		return fromPath
	case "text", "html":
		return "content"
	default:
		return field
	}
}

func sendgridErrors(c complaint) []sendgridError {
	if c.Code == api.CodeUnauthorized {
		return []sendgridError{{Message: "The provided authorization grant is invalid, expired, or revoked"}}
	}
	if len(c.Fields) == 0 {
		return []sendgridError{{Message: c.text}}
	}
	all := make([]sendgridError, len(c.Fields))
	for i, f := range c.Fields {
		field := dotted(f.Field)
		all[i] = sendgridError{Message: f.Message, Field: &field}
		if strings.HasSuffix(field, ".email") {
			all[i].Message = "Does not contain a valid address: " + f.Message + "."
		}
		if field == "" {
			all[i] = sendgridError{Message: c.text}
		}
	}
	return all
}
