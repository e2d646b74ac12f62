// Package message is the JSON that the Go peers take, the fields of it that the
// benchmark uses, and how go-mail composes it.
package message

import (
	"encoding/base64"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/wneessen/go-mail"
)

// Message is the body of POST /v1/messages.
type Message struct {
	From        string            `json:"from"`
	To          []string          `json:"to"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text"`
	HTML        string            `json:"html"`
	Headers     map[string]string `json:"headers"`
	Attachments []Attachment      `json:"attachments"`
}

// Attachment has its content in base64.
type Attachment struct {
	Filename    string `json:"filename"`
	Content     string `json:"content"`
	ContentType string `json:"content_type"`
}

// Decode is strict: unknown and repeated fields and invalid UTF-8 are refused.
func Decode(r io.Reader) (*Message, error) {
	var m Message
	if err := json.UnmarshalRead(r, &m, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	return &m, nil
}

// Mail composes the message.
func (m *Message) Mail() (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(m.From); err != nil {
		return nil, err
	}
	if err := msg.To(m.To...); err != nil {
		return nil, err
	}
	msg.Subject(m.Subject)
	msg.SetDate()
	msg.SetMessageID()
	for name, value := range m.Headers {
		msg.SetGenHeader(mail.Header(name), value)
	}
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	}
	for _, a := range m.Attachments {
		content := base64.NewDecoder(base64.StdEncoding, strings.NewReader(a.Content))
		if err := msg.AttachReader(a.Filename, content, mail.WithFileContentType(mail.ContentType(a.ContentType))); err != nil {
			return nil, err
		}
	}
	return msg, nil
}
