// Package compose makes the bytes of a message (RFC 5322) and its envelope:
// [Compose] of a message in parts, [Finish] of one that arrives finished.
// [SevenBit] converts the bytes for a relay without 8BITMIME, and [ASCIIHeader] for
// one without SMTPUTF8.
//
// It promises that what it returns fits SMTP, as [mailer.Content] says: no value
// can end its header field and begin another, and no line is too long. What cannot
// be made to fit is an error that names each field at fault. Signed messages are
// never changed where their signature covers them.
package compose

import (
	"context"
	"fmt"
	"net/mail"
	"strings"
	"time"

	"mailsidecar/mailer"

	"github.com/google/uuid"
)

// Composed is a message that is ready to be sent: the result of [Compose] and
// [Finish].
type Composed struct {
	Envelope mailer.Envelope
	Content  mailer.Content
	// Sender is the addr-spec of the From field; routes go by it.
	Sender string
	// Authors are the addr-specs of the From field that the caller gave, Sender first
	// unless that was forced. Only a finished message may have more than one.
	Authors []string
	// From is the From field as it is sent, unless that is forced, for [mailer.ReadFrom].
	From string
	// Subject is the decoded subject, for people.
	Subject string
}

// Compose returns the envelope of a message and the bytes that go to the relay, the
// same ones on every attempt, and signed where o has a signer for the author. The error is
// an [*mailer.InvalidError] that names every invalid field, that of o.Reserve, or that of
// the context once it ended.
func Compose(ctx context.Context, m mailer.Message, o Options) (Composed, error) {
	v := validateMessage(ctx, m)
	if err := ctx.Err(); err != nil {
		return Composed{}, err
	}
	if err := v.err(); err != nil {
		return Composed{}, err
	}
	author, from := v.from.Email, string(v.fromField())
	v.force(m.ForceFrom, m.ReturnPath)
	body, err := composeBody(ctx, m, v.method)
	if err != nil {
		return Composed{}, fmt.Errorf("compose: %w", err)
	}
	header, messageID, err := v.header(ctx, m)
	if err != nil {
		return Composed{}, fmt.Errorf("compose: %w", err)
	}
	room := o.room(v.from.Email)
	data, err := body.render(ctx, header, o.Reserve, room)
	if err != nil {
		return Composed{}, err
	}
	content, err := o.sign(ctx, mailer.Content{
		Data:       data[room:],
		MessageID:  messageID,
		UTF8Header: !mailer.IsASCII(string(header)),
	}, data, room)
	if err != nil {
		return Composed{}, err
	}
	return Composed{
		Envelope: v.envelope(m),
		Content:  content,
		Sender:   v.from.Email,
		Authors:  []string{author},
		From:     from,
		Subject:  m.Subject,
	}, nil
}

// header writes the header section without the MIME fields. go-mail's own writer
// leaves long words unfolded, and lets a name end its field.
func (v *validMessage) header(ctx context.Context, m mailer.Message) (header []byte, messageID string, err error) {
	date, messageID := v.date, v.messageID
	if date == "" {
		date = dateField(m.Date)
	}
	if messageID == "" {
		if messageID, err = newMessageID(v.from.Email); err != nil {
			return nil, "", err
		}
	}
	header = appendHeaderField(nil, "Date", headerWords(date))
	header = append(header, v.fromField()...)
	if v.sender != (mailer.Address{}) {
		header = appendMailboxes(header, "Sender", []mailer.Address{v.sender})
	}
	if len(v.to)+len(v.cc) == 0 {
		header = append(header, "To: undisclosed-recipients:;\r\n"...)
	}
	header = appendMailboxes(header, "To", v.to)
	header = appendMailboxes(header, "Cc", v.cc)
	header = appendMailboxes(header, "Reply-To", v.replyTo)
	if m.Subject != "" {
		header = appendHeaderField(header, "Subject", unstructuredWords("Subject", m.Subject))
	}
	header = appendHeaderField(header, "Message-ID", headerWords(messageID))
	for _, f := range m.Header {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		switch key := strings.ToLower(f.Name); {
		case key == "date" || key == "message-id":
		case isStructured(key):
			words, err := structuredWords(f.Name, headerText{text: f.Value, charset: utf8Charset})
			if err != nil {
				return nil, "", err
			}
			header = appendHeaderField(header, f.Name, words)
		default:
			header = appendHeaderField(header, f.Name, unstructuredWords(f.Name, f.Value))
		}
	}
	return header, messageID, nil
}

func (v *validMessage) fromField() []byte {
	return appendMailboxes(nil, "From", []mailer.Address{v.from})
}

func appendMailboxes(dst []byte, name string, list []mailer.Address) []byte {
	if len(list) == 0 {
		return dst
	}
	return appendHeaderField(dst, name, mailboxWords(name, list))
}

// newMessageID makes a Message-ID under the sender's domain. It does not reveal the
// name of this host.
func newMessageID(sender string) (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("new Message-ID: %w", err)
	}
	return "<" + id.String() + sender[strings.LastIndexByte(sender, '@'):] + ">", nil
}

// dateField returns the value of the Date field of a message that is sent at that time; a
// past one means now.
func dateField(at time.Time) string {
	if now := time.Now(); at.Before(now) {
		at = now
	}
	return mailer.FormatDate(at)
}

// maxDate limits a date with its comments, in octets.
const maxDate = 200

// isDate reports whether value is a date-time of RFC 5322 §3.3.
func isDate(value string) bool {
	if len(value) > maxDate {
		return false
	}
	_, err := mail.ParseDate(value)
	return err == nil && isPrintable(value)
}
