package handler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// Limits of the times that a message may ask for.
const (
	maxSendAhead = 366 * 24 * time.Hour
	maxExpiresIn = 30 * 24 * time.Hour
)

const maxTagName = 64

// isTagName reports whether a tag may have that name.
func isTagName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxTagName
}

// fieldErrors collects what is wrong with the fields of a native request.
type fieldErrors struct{ problem.FieldErrors }

// compose validates the request as a whole and makes a submission of it. It asks
// reserve before it makes the octets.
func (s *Server) compose(ctx context.Context, m *messageRequest, key *keys.Key, reserve compose.Reserve) (queue.Submission, error) {
	if !m.From.given {
		m.From = s.from
	}
	if n := len(m.To.list) + len(m.Cc.list) + len(m.Bcc.list); n > s.maxRecipients {
		return queue.Submission{}, s.tooManyRecipients(n)
	}
	var f fieldErrors
	f.lengths(m)
	if err := f.Err(); err != nil {
		return queue.Submission{}, err
	}
	sub := queue.Submission{
		Key: key.Name(), Tags: f.tags(m.Tags), SendAt: f.sendAt(m.SendAt), ExpiresIn: f.expiresIn(m.ExpiresIn),
	}
	priority := f.priority("priority", m.Priority)
	message := f.message(m)
	message.Date = sub.SendAt
	message.ForceFrom = s.forceFrom
	composed, err := compose.Compose(ctx, message, compose.Options{Reserve: reserve, Signer: s.signer})
	if invalid, ok := errors.AsType[*mailer.InvalidError](err); ok {
		f.Malformed = f.Malformed || invalid.Malformed
		for _, field := range problem.Located(invalid.Fields, m.path) {
			f.Add(field.Field, field.Message)
		}
	} else if err != nil {
		return queue.Submission{}, err
	}
	if err := f.Err(); err != nil {
		return queue.Submission{}, err
	}
	if m.Priority != "" {
		composed.Envelope.Priority = priority
	}
	return s.accept(sub, composed, key)
}

// maxItems is how many files and addresses in reply_to a message may have.
const maxItems = 1000

// lengths refuses lists that are too long, before anything is made of them.
func (f *fieldErrors) lengths(m *messageRequest) {
	for _, list := range []struct {
		field string
		items int
	}{{"reply_to", len(m.ReplyTo.list)}, {"attachments", len(m.Attachments)}} {
		if list.items > maxItems {
			f.Add(list.field, fmt.Sprintf("may have %d items", maxItems))
		}
	}
}

// accept puts a composed message into the submission, unless it is over a limit or the
// key may not send from its author.
func (s *Server) accept(sub queue.Submission, m compose.Composed, key *keys.Key) (queue.Submission, error) {
	if n := int64(len(m.Content.Data)); n > s.maxMessageSize {
		return sub, s.messageTooLarge(n)
	}
	if n := len(m.Envelope.ForwardPaths); n > s.maxRecipients {
		return sub, s.tooManyRecipients(n)
	}
	if err := checkFrom(m, key); err != nil {
		return sub, err
	}
	sub.Envelope, sub.Content, sub.Sender, sub.Subject = m.Envelope, m.Content, m.Sender, m.Subject
	return sub, nil
}

// checkFrom refuses a message that is from others than the key may send from, or that
// some programs show as if it were.
func checkFrom(m compose.Composed, key *keys.Key) error {
	if !key.Bound() {
		return nil
	}
	from, err := mailer.ReadFrom(m.From)
	if err != nil {
		return ambiguousFrom(key, err.Error())
	}
	for _, author := range slices.Concat(m.Authors, from.Authors) {
		if !key.MaySend(author) {
			return problem.New(api.CodeSenderNotAllowed, fmt.Sprintf("The key %s may not send from %s (MAILSIDECAR_KEY_SENDERS).", key.Name(), problem.Cut(author)),
				problem.At("from", "is not allowed for this key"))
		}
	}
	for _, text := range from.Named {
		if a, err := mailer.ParseAddress(text); err != nil || !key.MaySend(a.Email) {
			return ambiguousFrom(key, "a name or comment has an address in it from which the key may not send")
		}
	}
	return nil
}

func ambiguousFrom(key *keys.Key, reason string) error {
	return problem.New(api.CodeInvalidMessage, fmt.Sprintf("The key %s may send from some addresses only (MAILSIDECAR_KEY_SENDERS), and so From must be what every program reads alike: %s.", key.Name(), reason),
		problem.At("from", reason))
}

func (s *Server) messageTooLarge(n int64) error {
	return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("The composed message has %d octets; %d are allowed (MAILSIDECAR_MAX_MESSAGE_SIZE).", n, s.maxMessageSize))
}

// checkSize refuses a message that would be too large, before it is made. Its composer
// may have asked for two octets too many.
func (s *Server) checkSize(octets int) error {
	if int64(octets-len("\r\n")) > s.maxMessageSize {
		return s.messageTooLarge(int64(octets))
	}
	return nil
}

// reserve is asked before a message is made: whether it may be so large, and whether the
// request's share has room for it.
func (s *Server) reserve(share *intake.Share) compose.Reserve {
	return func(octets int) error {
		if err := s.checkSize(octets); err != nil {
			return err
		}
		return share.Hold(int64(octets))
	}
}

func (s *Server) tooManyRecipients(n int) error {
	return problem.New(api.CodeTooManyRecipients, fmt.Sprintf("The message has %d recipients; %d are allowed (MAILSIDECAR_MAX_RECIPIENTS).", n, s.maxRecipients))
}

// message makes the mailer's message of the request.
func (f *fieldErrors) message(m *messageRequest) mailer.Message {
	message := mailer.Message{
		From: f.address("from", m.From), To: f.addresses("to", m.To), Cc: f.addresses("cc", m.Cc),
		Bcc: f.addresses("bcc", m.Bcc), ReplyTo: f.addresses("reply_to", m.ReplyTo),
		Subject: m.Subject, Text: m.Text, HTML: m.HTML, Header: m.Headers, ReturnPath: m.ReturnPath,
		Calendar: mailer.Calendar(m.Calendar),
	}
	for i, a := range m.Attachments {
		if a.Content == nil {
			f.Add(fmt.Sprintf("attachments[%d].content", i), "is required")
		}
		message.Attachments = append(message.Attachments, mailer.Attachment{
			Filename: a.Filename, ContentType: a.ContentType, ContentID: a.ContentID, Content: a.Content,
		})
	}
	return message
}

func (f *fieldErrors) addresses(field string, m mailboxes) []mailer.Address {
	var list []mailer.Address
	for i, box := range m.list {
		list = append(list, f.address(m.path(field, i), box))
	}
	return list
}

func (f *fieldErrors) address(field string, m mailbox) mailer.Address {
	if !m.given {
		return mailer.Address{}
	}
	if m.apart {
		if m.email == "" {
			f.Add(field+".email", "is required")
		}
		return mailer.Address{Name: m.name, Email: m.email}
	}
	address, err := mailer.ParseAddress(m.text)
	if err == nil {
		return address
	}
	f.AddAddress(field, err)
	// Compose needs it in its place, and finds it wrong again: the first finding counts.
	return mailer.Address{Email: m.text}
}

// path is the path of the i-th mailbox in the request.
func (m mailboxes) path(field string, i int) string {
	if m.single {
		return field
	}
	return fmt.Sprintf("%s[%d]", field, i)
}

// path is the path of a position in the request: to, to[0] or to[0].email.
func (m *messageRequest) path(at mailer.Position) string {
	if at.Field == "from" {
		return at.Field + m.From.part()
	}
	list, known := map[string]mailboxes{"to": m.To, "cc": m.Cc, "bcc": m.Bcc, "reply_to": m.ReplyTo}[at.Field]
	if !known || at.Item == 0 {
		return at.String()
	}
	return list.path(at.Field, at.Item-1) + list.list[at.Item-1].part()
}

// part names the member of a mailbox taken apart that is to blame.
func (m mailbox) part() string {
	switch {
	case !m.apart:
		return ""
	case strings.ContainsAny(m.name, "\r\n\x00"):
		return ".name"
	default:
		return ".email"
	}
}

func (f *fieldErrors) tags(list members) map[string]string {
	if len(list) == 0 {
		return nil
	}
	if len(list) > api.MaxTags {
		f.Add("tags", fmt.Sprintf("at most %d tags are allowed", api.MaxTags))
		return nil
	}
	tags := make(map[string]string, len(list))
	for _, t := range list {
		path := problem.Cut("tags." + t.Name)
		switch {
		case !isTagName(t.Name):
			f.Add(path, "a tag's name has 1 to 64 letters, digits, dots, dashes and underscores")
		case len(t.Value) > api.MaxTagValue:
			f.Add(path, fmt.Sprintf("a tag's value has at most %d octets", api.MaxTagValue))
		case strings.ContainsFunc(t.Value, unicode.IsControl):
			f.Add(path, "control characters are not allowed")
		}
		tags[t.Name] = t.Value
	}
	return tags
}

func (f *fieldErrors) sendAt(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := parseTime(text)
	switch {
	case err != nil:
		f.Add("send_at", err.Error())
	case at.Unix() < 0:
		f.Add("send_at", "is before 1970")
	case time.Until(at) > maxSendAhead:
		f.Add("send_at", "is more than 366 days ahead")
	}
	return at
}

func (f *fieldErrors) expiresIn(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := units.ParseDuration(text)
	if err != nil || d <= 0 || d > maxExpiresIn {
		f.Add("expires_in", "must be a duration over 0 and up to 30d, such as 90m, 2h or 5d")
	}
	return d
}

// priority reads the name of a priority; empty is normal.
func (f *fieldErrors) priority(field, name string) mailer.Priority {
	p, ok := mailer.ParsePriority(name)
	if !ok && name != "" {
		f.Add(field, "must be high, normal or bulk")
	}
	return p
}
