package handler

import (
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/mailer"
)

var mailgun = &provider{
	name:  "mailgun",
	title: "Mailgun",
	routes: []providerRoute{
		{"/v3/:domain/messages", mailgunMessages},
		{"/v3/:domain/messages.mime", mailgunFinished},
	},
	owns: func(path string) bool {
		rest, found := strings.CutPrefix(path, "/v3/")
		domain, rest, _ := strings.Cut(rest, "/")
		return found && domain != "" && (rest == "messages" || rest == "messages.mime")
	},
	secret: func(h http.Header) string {
		_, secret, _ := (&http.Request{Header: h}).BasicAuth()
		return secret
	},
	challenge: `Basic realm="MG API"`,
	answer:    mailgunAnswer,
	requests: []providerRequest{
		{"POST /v3/{domain}/messages", mailgunFields},
		{"POST /v3/{domain}/messages.mime", mailgunMIMEFields},
	},
}

const (
	maxMailgunRecipients = 1000
	mailgunAhead         = 3 * 24 * time.Hour

	noteTemplate = "templates are kept by the provider: render them in the app"
	noteTracking = "nothing is tracked"
)

// mailgunOptions are the same on both routes.
var mailgunOptions = []formField{
	{"o:tag", honoured, "kept as tags of the message"},
	{"o:testmode", honoured, "the request is judged, and nothing is sent"},
	{"o:deliverytime", honoured, "a date of RFC 2822, at most 3 days ahead; needs a queue"},
	{"v:*", honoured, "kept as tags of the message"},
	{"o:deliverytime-optimize-period", isRefused, "give the time in o:deliverytime"},
	{"o:time-zone-localize", isRefused, "give the time in o:deliverytime"},
	{"t:*", isRefused, noteTemplate},
	{"template", isRefused, noteTemplate},
	{"o:tracking*", isIgnored, noteTracking},
	{"o:dkim", isIgnored, ""},
	{"o:secondary-dkim*", isIgnored, ""},
	{"o:sending-ip*", isIgnored, ""},
	{"o:archive-to", isIgnored, ""},
	{"o:require-tls", isIgnored, "the relay decides"},
	{"o:skip-verification", isIgnored, "the relay decides"},
	{"o:suppress-headers", isIgnored, ""},
	{"o:native-send", isIgnored, ""},
}

var mailgunFields = append([]formField{
	{"from", honoured, ""},
	{"to", honoured, "at most 1000 recipients in to, cc and bcc together"},
	{"cc", honoured, ""},
	{"bcc", honoured, ""},
	{"subject", honoured, ""},
	{"text", honoured, ""},
	{"html", honoured, ""},
	{"attachment", honoured, "a file"},
	{"inline", honoured, "a file; its Content-ID is its name"},
	{"h:*", honoured, "a header field"},
	{"recipient-variables", honoured, "one message for each address in to, {} too; %recipient.name% literally; several need a queue"},
	{"amp-html", isIgnored, "the other alternatives are sent"},
}, mailgunOptions...)

var mailgunMIMEFields = append([]formField{
	{"to", honoured, "the envelope: at most 1000 recipients"},
	{"message", honoured, "a finished message, also named message.mime or MimeMessage; Bcc and Return-Path are removed"},
	{"message.mime", honoured, ""},
	{"MimeMessage", honoured, ""},
	{"from", isIgnored, "stands in the message"},
	{"subject", isIgnored, "stands in the message"},
	{"cc", isRefused, "name the recipient in to"},
	{"bcc", isRefused, "name the recipient in to"},
	{"text", isRefused, "belongs into the message"},
	{"html", isRefused, "belongs into the message"},
	{"h:*", isRefused, "belongs into the message"},
	{"recipient-variables", isRefused, "need /messages: a finished message stays as it is"},
}, mailgunOptions...)

func mailgunMessages(x *exchange) error {
	form, err := x.readForm(mailgunFields)
	if err != nil {
		return err
	}
	messages, err := form.mailgun(x)
	if err != nil {
		return err
	}
	return x.answerMailgun(messages)
}

func mailgunFinished(x *exchange) error {
	form, err := x.readForm(mailgunMIMEFields)
	if err != nil {
		return err
	}
	var f findings
	o := outgoing{where: mailgunWhere}
	to := f.mailgunList(form, "to")
	checkMailgunCount(&f, len(to))
	paths := make([]string, len(to))
	for i, a := range to {
		paths[i] = a.Email
	}
	o.envelope.EnvelopeTo = strings.Join(paths, ", ")
	for _, name := range []string{"message", "message.mime", "MimeMessage"} {
		if content := form.content(name); len(content) > 0 {
			o.finished, o.ownReversePath = content, true
		}
	}
	if o.finished == nil {
		f.Add("message", "parameter is missing")
	}
	form.mailgunOptions(x, &o, &f)
	if err := f.Err(); err != nil {
		return err
	}
	return x.answerMailgun([]outgoing{o})
}

func (x *exchange) answerMailgun(messages []outgoing) error {
	done, err := x.send(messages)
	if err != nil {
		return err
	}
	return writeJSON(x.c, http.StatusOK, intake.TypeJSON, map[string]string{
		"id": done[0].messageID, "message": "Queued. Thank you.",
	})
}

// mailgun makes the messages of a form.
func (form *providerForm) mailgun(x *exchange) ([]outgoing, error) {
	var f findings
	o := outgoing{Message: mailer.Message{
		To: f.mailgunList(form, "to"), Cc: f.mailgunList(form, "cc"), Bcc: f.mailgunList(form, "bcc"),
		Subject: form.value("subject"), Text: form.value("text"), HTML: form.value("html"),
	}, where: mailgunWhere}
	switch from := f.mailgunList(form, "from"); {
	case len(from) == 1:
		o.From = from[0]
	case form.value("from") == "":
		f.Add("from", "parameter is missing")
	default:
		f.Add("from", mailgunBadAddress)
	}
	if len(o.To) == 0 {
		f.Add("to", "parameter is missing")
	}
	checkMailgunCount(&f, len(o.To)+len(o.Cc)+len(o.Bcc))
	if o.Text == "" && o.HTML == "" {
		f.Add("", "Need at least one of 'text' or 'html' parameters specified")
	}
	for _, v := range form.values {
		if name, found := strings.CutPrefix(v.Name, "h:"); found {
			o.Header = append(o.Header, mailer.Field{Name: name, Value: v.Value})
		}
	}
	form.mailgunFiles(&o, &f)
	form.mailgunOptions(x, &o, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	e := newExpansion()
	messages := form.mailgunVariables(o, e, &f)
	return messages, errors.Join(f.Err(), e.err())
}

const mailgunBadAddress = "parameter is not a valid address. please check documentation"

// mailgunList reads every field of that name, each a list of addresses.
func (f *findings) mailgunList(form *providerForm, name string) []mailer.Address {
	var all []mailer.Address
	for _, v := range form.values {
		if v.Name != name || strings.TrimSpace(v.Value) == "" {
			continue
		}
		list, err := parseAddresses(v.Value)
		if err != nil {
			f.Add(name, mailgunBadAddress)
		}
		all = append(all, list...)
	}
	return all
}

func checkMailgunCount(f *findings, n int) {
	if n > maxMailgunRecipients {
		f.Add("to", fmt.Sprintf("parameter has more than %d recipients", maxMailgunRecipients))
	}
}

func (form *providerForm) mailgunFiles(o *outgoing, f *findings) {
	for _, file := range form.files {
		if file.filename == "" {
			f.Add(file.name, "parameter must be a file with a name")
			continue
		}
		a := mailer.Attachment{Filename: file.filename, ContentType: file.contentType, Content: file.content}
		if file.name == "inline" {
			a.ContentID = file.filename
		}
		o.attach(a, file.name == "inline")
	}
}

func (form *providerForm) mailgunOptions(x *exchange, o *outgoing, f *findings) {
	for _, v := range form.values {
		switch name, isVariable := strings.CutPrefix(v.Name, "v:"); {
		case isVariable:
			o.tag(name, v.Value)
		case v.Name == "o:tag":
			o.label(v.Value)
		case v.Name == "o:testmode":
			x.test = !slices.Contains([]string{"", "no", "false"}, strings.ToLower(v.Value))
		case v.Name == "o:deliverytime" && v.Value != "":
			at, err := parseMailgunTime(v.Value)
			if err != nil {
				f.Add(v.Name, "parameter is not a valid RFC 2822 date")
			}
			if o.sendAt, err = later(at, mailgunAhead, v.Name); err != nil {
				f.Add(v.Name, "parameter is more than 3 days ahead")
			}
		}
	}
}

func parseMailgunTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	return mail.ParseDate(text)
}

// mailgunVariables makes a message for each recipient, if the form has
// recipient-variables: empty ones, too, keep the recipients from each other, and
// Anymail for Django relies on it.
func (form *providerForm) mailgunVariables(o outgoing, e *expansion, f *findings) []outgoing {
	var perRecipient map[string]variables
	text := form.value("recipient-variables")
	if text == "" {
		return []outgoing{o}
	}
	if err := decodeProvider([]byte(text), &perRecipient, ""); err != nil {
		f.Add("recipient-variables", "parameter is not valid JSON")
	}
	byAddress := map[string][]mailer.Field{}
	for address, v := range perRecipient {
		byAddress[strings.ToLower(address)] = v.values
	}
	all := make([]outgoing, len(o.To))
	for i, to := range o.To {
		values := []mailer.Field{
			{Name: "%recipient%", Value: to.Email}, {Name: "%recipient_email%", Value: to.Email}, {Name: "%recipient_name%", Value: to.Name},
		}
		for _, v := range byAddress[strings.ToLower(to.Email)] {
			values = append(values, mailer.Field{Name: "%recipient." + v.Name + "%", Value: v.Value})
		}
		all[i] = o
		all[i].To = []mailer.Address{to}
		all[i].substitute(e, literally(values))
	}
	return all
}

func mailgunWhere(field string) string {
	if header, found := strings.CutPrefix(field, "headers."); found {
		return "h:" + header
	}
	switch name, _, _, ok := indexed(field); {
	case ok && name == "attachments":
		return "attachment"
	case ok:
		return name
	}
	return orText(map[string]string{"reply_to": "h:Reply-To", "Envelope-To": "to"}[field], field)
}

// mailgunAnswer words a mistake as Mailgun does: to parameter is missing.
func mailgunAnswer(c complaint) (int, any) {
	text := c.text
	switch {
	case c.Code == api.CodeUnauthorized:
		text = "Forbidden"
	case len(c.Fields) > 0 && c.Detail == "":
		f := c.Fields[0]
		if text = strings.TrimSpace(f.Field + " " + f.Message); !strings.HasPrefix(f.Message, "parameter ") && f.Field != "" {
			text = f.Field + " parameter is not valid: " + f.Message
		}
	}
	return c.status, map[string]string{"message": text}
}
