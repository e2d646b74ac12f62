// Package mailgun answers as Mailgun does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package mailgun

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
	"mailsidecar/handler/compat"
	"mailsidecar/mailer"
)

// API is the API of Mailgun.
var API = &compat.API{
	Name:  "mailgun",
	Title: "Mailgun",
	Routes: []compat.Route{
		{Path: "/v3/{domain}/messages", Serve: messages},
		{Path: "/v3/{domain}/messages.mime", Serve: finished},
	},
	Owns: func(path string) bool {
		rest, found := strings.CutPrefix(path, "/v3/")
		domain, rest, _ := strings.Cut(rest, "/")
		messages := found && domain != "" && (rest == "messages" || rest == "messages.mime")
		return messages || strings.HasPrefix(path, "/v4/") || strings.HasPrefix(path, "/v5/")
	},
	Secret: func(h http.Header) string {
		_, secret, _ := (&http.Request{Header: h}).BasicAuth()
		return secret
	},
	Challenge: `Basic realm="MG API"`,
	Answer:    answer,
	Requests: []compat.RequestDoc{
		{Path: "POST /v3/{domain}/messages", Fields: fields},
		{Path: "POST /v3/{domain}/messages.mime", Fields: mimeFields},
	},
}

const (
	maxRecipients = 1000
	maxAhead      = 3 * 24 * time.Hour

	noteTemplate = "templates are kept by the provider: render them in the app"
	noteTracking = "nothing is tracked"
)

func honoured(name, note string) compat.FormField {
	return compat.FormField{Name: name, Treatment: compat.Honoured, Note: note}
}

func ignored(name, note string) compat.FormField {
	return compat.FormField{Name: name, Treatment: compat.IsIgnored, Note: note}
}

func refused(name, note string) compat.FormField {
	return compat.FormField{Name: name, Treatment: compat.IsRefused, Note: note}
}

// options are the same on both routes.
var options = []compat.FormField{
	honoured("o:tag", "kept as tags of the message"),
	honoured("o:testmode", "the request is judged, and nothing is sent"),
	honoured("o:deliverytime", "a date of RFC 2822, or seconds since 1970, at most 3 days ahead; needs a queue"),
	honoured("v:*", "kept as tags of the message"),
	refused("o:deliverytime-optimize-period", "give the time in o:deliverytime"),
	refused("o:time-zone-localize", "give the time in o:deliverytime"),
	refused("t:*", noteTemplate),
	refused("template", noteTemplate),
	ignored("o:tracking*", noteTracking),
	ignored("o:dkim", ""),
	ignored("o:secondary-dkim*", ""),
	ignored("o:sending-ip*", ""),
	ignored("o:archive-to", ""),
	ignored("o:require-tls", "the relay decides"),
	ignored("o:skip-verification", "the relay decides"),
	ignored("o:suppress-headers", ""),
	ignored("o:native-send", ""),
}

var fields = append([]compat.FormField{
	honoured("from", ""),
	honoured("to", "at most 1000 recipients in to, cc and bcc together"),
	honoured("cc", ""),
	honoured("bcc", ""),
	honoured("subject", ""),
	honoured("text", ""),
	honoured("html", ""),
	honoured("attachment", "a file"),
	honoured("inline", "a file; its Content-ID is its name"),
	honoured("h:*", "a header field"),
	honoured("recipient-variables", "one message for each address in to, {} too; %recipient.name% literally; several need a queue"),
	ignored("amp-html", "the other alternatives are sent"),
}, options...)

var mimeFields = append([]compat.FormField{
	honoured("to", "the envelope: at most 1000 recipients"),
	honoured("message", "a finished message, also named message.mime or MimeMessage; Bcc and Return-Path are removed"),
	honoured("message.mime", ""),
	honoured("MimeMessage", ""),
	ignored("from", "stands in the message"),
	ignored("subject", "stands in the message"),
	refused("cc", "name the recipient in to"),
	refused("bcc", "name the recipient in to"),
	refused("text", "belongs into the message"),
	refused("html", "belongs into the message"),
	refused("h:*", "belongs into the message"),
	refused("recipient-variables", "need /messages: a finished message stays as it is"),
}, options...)

func messages(x *compat.Exchange) error {
	form, err := readForm(x, fields)
	if err != nil {
		return err
	}
	messages, err := read(x, form)
	if err != nil {
		return err
	}
	return sendAll(x, messages)
}

func finished(x *compat.Exchange) error {
	form, err := readForm(x, mimeFields)
	if err != nil {
		return err
	}
	var f compat.Fields
	container := "message"
	o := compat.Message{Path: func(mailer.Position) string { return container }, Limit: x.Expansion()}
	to := list(form, "to", &f)
	checkCount(&f, len(to))
	o.Envelope.To = to
	for _, name := range []string{"message", "message.mime", "MimeMessage"} {
		if content := form.content(name); len(content) > 0 {
			o.Finished, o.OwnReversePath, container = content, true, name
		}
	}
	if o.Finished == nil {
		f.Add("message", "parameter is missing")
	}
	readOptions(x, form, &o, &f)
	if err := f.Err(); err != nil {
		return err
	}
	return sendAll(x, []compat.Message{o})
}

func sendAll(x *compat.Exchange, messages []compat.Message) error {
	done, err := x.Send(messages)
	if err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, map[string]string{
		"id": done[0].MessageID, "message": "Queued. Thank you.",
	})
}

// read makes the messages of a form.
func read(x *compat.Exchange, form *formData) ([]compat.Message, error) {
	var f compat.Fields
	e := x.Expansion()
	o := compat.Message{Message: mailer.Message{
		To: list(form, "to", &f), Cc: list(form, "cc", &f), Bcc: list(form, "bcc", &f),
		Subject: form.value("subject"), Text: form.value("text"), HTML: form.value("html"),
	}, Path: form.path, Limit: e}
	switch from := list(form, "from", &f); {
	case len(from) == 1:
		o.From = from[0]
	case form.value("from") == "":
		f.Add("from", "parameter is missing")
	default:
		f.Add("from", badAddress)
	}
	if len(o.To) == 0 {
		f.Add("to", "parameter is missing")
	}
	checkCount(&f, len(o.To)+len(o.Cc)+len(o.Bcc))
	if o.Text == "" && o.HTML == "" {
		f.Add("", "Need at least one of 'text' or 'html' parameters specified")
	}
	for _, v := range form.values {
		if name, found := strings.CutPrefix(v.Name, "h:"); found {
			o.Header = append(o.Header, mailer.Field{Name: name, Value: v.Value})
		}
	}
	header := o.Header
	o.HeaderPath = func(n int) string { return "h:" + header[n].Name }
	attach(form, &o, &f)
	readOptions(x, form, &o, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	messages := personalize(form, o, e, &f)
	return messages, errors.Join(f.Err(), e.Err())
}

const badAddress = "parameter is not a valid address. please check documentation"

// list reads every field of that name, each a list of addresses.
func list(form *formData, name string, f *compat.Fields) []mailer.Address {
	var all []mailer.Address
	for _, v := range form.values {
		if v.Name != name || strings.TrimSpace(v.Value) == "" {
			continue
		}
		list, err := f.ParseList(v.Value)
		if err != nil {
			f.Add(name, badAddressFor(err))
		}
		all = append(all, list...)
	}
	return all
}

// badAddressFor adds to Mailgun's words what their reader cannot see in the address.
func badAddressFor(err error) string {
	if bad, ok := errors.AsType[*mailer.AddressError](err); ok && bad.Character != 0 {
		return badAddress + ": " + bad.Reason
	}
	return badAddress
}

func checkCount(f *compat.Fields, n int) {
	if n > maxRecipients {
		f.Add("to", fmt.Sprintf("parameter has more than %d recipients", maxRecipients))
	}
}

func attach(form *formData, o *compat.Message, f *compat.Fields) {
	for _, file := range form.files {
		if file.filename == "" {
			f.Add(file.name, "parameter must be a file with a name")
			continue
		}
		a := mailer.Attachment{Filename: file.filename, ContentType: file.contentType, Content: file.content}
		if file.name == "inline" {
			a.ContentID = file.filename
		}
		o.Attach(a, file.name == "inline")
	}
}

func readOptions(x *compat.Exchange, form *formData, o *compat.Message, f *compat.Fields) {
	for _, v := range form.values {
		switch name, isVariable := strings.CutPrefix(v.Name, "v:"); {
		case isVariable:
			o.Tag(name, v.Value)
		case v.Name == "o:tag":
			o.Label(v.Value)
		case v.Name == "o:testmode":
			x.Test = !slices.Contains([]string{"", "no", "false"}, strings.ToLower(v.Value))
		case v.Name == "o:deliverytime" && v.Value != "":
			at, err := parseTime(v.Value)
			if err != nil {
				f.Add(v.Name, "parameter is not a valid RFC 2822 date, nor a time in seconds since 1970")
			}
			if o.SendAt, err = compat.Later(at, maxAhead); err != nil {
				f.Add(v.Name, "parameter is more than 3 days ahead")
			}
		}
	}
}

func parseTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	return mail.ParseDate(text)
}

// personalize makes a message for each recipient, if the form has recipient-variables.
// Empty ones, too, hide the recipients from each other: Anymail for Django relies on it.
func personalize(form *formData, o compat.Message, e *compat.Expansion, f *compat.Fields) []compat.Message {
	var perRecipient map[string]compat.Variables
	text := form.value("recipient-variables")
	if text == "" {
		return []compat.Message{o}
	}
	if err := compat.Decode([]byte(text), &perRecipient, ""); err != nil {
		f.Add("recipient-variables", "parameter is not valid JSON")
	}
	byAddress := map[string][]mailer.Field{}
	for address, v := range perRecipient {
		byAddress[strings.ToLower(address)] = v.Values
	}
	variables := 0
	for _, to := range o.To {
		variables += len(byAddress[strings.ToLower(to.Email)])
	}
	if !e.Afford(len(o.To), &o, compat.Literally(nil)) || !e.ChargePairs(variables) {
		return nil
	}
	all := make([]compat.Message, len(o.To))
	for i, to := range o.To {
		values := []mailer.Field{
			{Name: "%recipient%", Value: to.Email}, {Name: "%recipient_email%", Value: to.Email}, {Name: "%recipient_name%", Value: to.Name},
		}
		for _, v := range byAddress[strings.ToLower(to.Email)] {
			values = append(values, mailer.Field{Name: "%recipient." + v.Name + "%", Value: v.Value})
		}
		all[i] = o
		all[i].To = []mailer.Address{to}
		all[i].Substitute(e, compat.Literally(values))
	}
	return all
}

// path is the parameter that holds the position.
func (form *formData) path(at mailer.Position) string {
	if at.Field == "attachments" && at.Item > 0 {
		return form.files[at.Item-1].name
	}
	return at.Field
}

// answer words a mistake as Mailgun does: to parameter is missing.
func answer(p compat.Problem) (int, any) {
	text := p.Text
	switch {
	case p.Code == api.CodeUnauthorized:
		text = "Forbidden"
	case len(p.Fields) > 0 && p.Detail == "":
		f := p.Fields[0]
		if text = strings.TrimSpace(f.Field + " " + f.Message); !strings.HasPrefix(f.Message, "parameter ") && f.Field != "" {
			text = f.Field + " parameter is not valid: " + f.Message
		}
	}
	return p.Status, map[string]string{"message": text}
}
