package compose

import (
	"context"
	"errors"
	"mime"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// validMessage is the result of validation: canonical addresses, and the fields that
// may occur once in the header section.
type validMessage struct {
	problemList
	from        mailer.Address
	sender      mailer.Address
	to, cc, bcc []mailer.Address
	replyTo     []mailer.Address
	returnPath  string // empty for "<>" too
	date        string
	messageID   string
	priority    mailer.Priority
	method      string // of the calendar
	headerText  int    // octets of the texts so far, see maxHeaderText
}

// problemList collects what is wrong with a message.
type problemList struct{ mailer.InvalidError }

// maxProblems limits the findings: more help no one, and a message of a few megabytes
// can have millions. It is one over what an answer names, which so can say that there
// are more.
const maxProblems = 51

func (p *problemList) invalid(at mailer.Position, message string) {
	if len(p.Fields) == maxProblems {
		return
	}
	p.Fields = append(p.Fields, mailer.FieldError{Position: at, Message: message})
}

func (p *problemList) malformed(at mailer.Position, message string) {
	p.Malformed = true
	p.invalid(at, message)
}

// problem reports what is wrong with an address.
func (p *problemList) problem(at mailer.Position, err error) {
	var bad *mailer.AddressError
	p.Malformed = p.Malformed || errors.As(err, &bad) && bad.Malformed
	p.invalid(at, err.Error())
}

// whole is the position of a field as a whole.
func whole(field string) mailer.Position { return mailer.Position{Field: field} }

// headerField is the position of the i-th header field, from 0.
func headerField(i int, name string) mailer.Position {
	return mailer.Position{Field: mailer.FieldHeaders, Item: i + 1, Member: name}
}

func (p *problemList) err() error {
	if len(p.Fields) == 0 {
		return nil
	}
	return &p.InvalidError
}

// validateMessage checks a message. Once ctx ended, it leaves out what is left.
func validateMessage(ctx context.Context, m mailer.Message) *validMessage {
	v := &validMessage{}
	for _, check := range []func(){
		func() { v.addresses(m) },
		func() { v.text(whole("subject"), m.Subject) },
		func() { v.bodies(m) },
		func() { v.calendar(m.Calendar) },
		func() { v.callerFields(m.Header) },
		func() { v.attachments(m.Attachments) },
	} {
		if ctx.Err() == nil {
			check()
		}
	}
	return v
}

func (v *validMessage) addresses(m mailer.Message) {
	if m.From == (mailer.Address{}) {
		v.invalid(whole("from"), "a sender is required")
	} else {
		v.from = v.address(whole("from"), m.From)
	}
	if m.Sender != (mailer.Address{}) {
		v.sender = v.address(whole("sender"), m.Sender)
	}
	v.to = v.addressList("to", m.To)
	v.cc = v.addressList("cc", m.Cc)
	v.bcc = v.addressList("bcc", m.Bcc)
	v.replyTo = v.addressList("reply_to", m.ReplyTo)
	if len(m.To)+len(m.Cc)+len(m.Bcc) == 0 {
		v.invalid(whole("to"), "at least one recipient is required, as To, Cc or Bcc")
	}
	if m.ReturnPath != "" && m.ReturnPath != "<>" {
		v.returnPath = v.address(whole("return_path"), mailer.Address{Email: m.ReturnPath}).Email
	}
}

func (v *validMessage) addressList(field string, list []mailer.Address) []mailer.Address {
	if len(list) > maxMailboxes {
		v.invalid(whole(field), "more than 100000 addresses")
		return nil
	}
	valid := make([]mailer.Address, len(list))
	for i, a := range list {
		valid[i] = v.address(mailer.Position{Field: field, Item: i + 1}, a)
	}
	return valid
}

func (v *validMessage) address(at mailer.Position, a mailer.Address) mailer.Address {
	name := at
	name.Member = "name"
	if !v.text(name, a.Name) {
		return a
	}
	canonical, err := a.Canonical()
	if err != nil {
		v.problem(at, err)
	}
	return canonical
}

// maxHeaderText limits the texts of the header section that are written by callers, all
// together, in octets: encoding them takes fifty times as long as writing a body. It has
// room for ten thousand recipients. One of them may have maxRewritten.
const maxHeaderText = 4 << 20

// text refuses a value that could end its header field and begin another one, and one
// that is too long.
func (v *validMessage) text(at mailer.Position, value string) bool {
	before := v.headerText
	v.headerText += len(value)
	switch {
	case len(value) > maxRewritten:
		v.invalid(at, "longer than 1 MiB")
	case v.headerText > maxHeaderText:
		if before <= maxHeaderText { // said once
			v.invalid(at, "the header fields of a message may have 4 MiB together")
		}
	case !utf8.ValidString(value):
		v.malformed(at, "not valid UTF-8")
	case strings.ContainsAny(value, "\r\n\x00"):
		v.malformed(at, "CR, LF and NUL are not allowed")
	default:
		return true
	}
	return false
}

func (v *validMessage) bodies(m mailer.Message) {
	if m.Text == "" && m.HTML == "" && len(m.Attachments) == 0 && m.Calendar == (mailer.Calendar{}) {
		v.invalid(whole("text"), "a text, HTML, a calendar or an attachment is required")
	}
	if !utf8.ValidString(m.Text) {
		v.malformed(whole("text"), "not valid UTF-8")
	}
	if !utf8.ValidString(m.HTML) {
		v.malformed(whole("html"), "not valid UTF-8")
	}
}

// reservedFields are the fields that Compose writes, or that only relays write.
var reservedFields = map[string]bool{
	"from": true, "to": true, "cc": true, "bcc": true, "subject": true, "reply-to": true, "sender": true,
	"return-path": true, "received": true, "dkim-signature": true, "mime-version": true,
}

func isReserved(key string) bool {
	return reservedFields[key] || strings.HasPrefix(key, "content-") || strings.HasPrefix(key, "resent-")
}

// isStructured reports whether a field of the caller holds tokens, addresses,
// msg-ids or URIs rather than text. Such a field is folded at blanks, and never
// encoded as a whole.
func isStructured(key string) bool {
	switch key {
	case "message-id", "date", "in-reply-to", "references", "auto-submitted", "precedence",
		"disposition-notification-to", "return-receipt-to", "errors-to":
		return true
	}
	return strings.HasPrefix(key, "list-")
}

// isSingle reports whether a field may occur only once (RFC 5322 §3.6, RFC 2369 §4).
func isSingle(key string) bool {
	switch key {
	case "message-id", "date", "in-reply-to", "references":
		return true
	}
	return strings.HasPrefix(key, "list-")
}

// maxCallerFields limits the caller's own header fields of one message.
const maxCallerFields = 10_000

func (v *validMessage) callerFields(fields []mailer.Field) {
	if len(fields) > maxCallerFields {
		v.invalid(whole(mailer.FieldHeaders), "a message has at most 10000 fields of its own")
		return
	}
	seen := map[string]bool{}
	for i, f := range fields {
		key := strings.ToLower(f.Name)
		at := headerField(i, printableName(f.Name))
		switch {
		case !isFieldName(f.Name):
			v.malformed(at, "a field name is printable ASCII without blanks and colons")
		case len(f.Name) > maxFieldName:
			v.malformed(at, "a field name has at most 76 octets")
		case isReserved(key):
			v.invalid(at, "this field is reserved")
		case seen[key] && isSingle(key):
			v.invalid(at, "this field is allowed once")
		case v.text(at, f.Value):
			v.callerField(at, key, f.Value)
		}
		seen[key] = true
	}
}

// printableName returns a field name for an error message, escaped and cut.
func printableName(name string) string {
	quoted := strconv.QuoteToASCII(name[:min(len(name), maxFieldName)])
	name = quoted[1 : len(quoted)-1]
	return name[:min(len(name), maxFieldName)]
}

var msgID = regexp.MustCompile(`^<[!-;=?A-~]+@[!-;=?A-~]+>$`)

func (v *validMessage) callerField(at mailer.Position, key, value string) {
	if isStructured(key) && !v.structuredField(at, value) {
		return
	}
	if !isStructured(key) && !isTextField(key) && isLine(value) {
		if _, ok := asciiWords("", value); !ok {
			v.invalid(at, "more than 997 octets without a blank cannot be folded; JSON can be, behind commas")
		}
		return
	}
	value = strings.TrimSpace(value)
	switch key {
	case "date":
		if v.date = value; !isDate(value) {
			v.invalid(at, "not a date of RFC 5322, such as Mon, 02 Jan 2006 15:04:05 +0100")
		}
	case "message-id":
		if v.messageID = value; len(value) > maxHeaderWord || !msgID.MatchString(value) {
			v.invalid(at, "not a message id, such as <id@example.com>")
		}
	case "in-reply-to", "references", "auto-submitted", "precedence":
		if !mailer.IsASCII(value) {
			v.invalid(at, "only ASCII is allowed")
		}
		if key == "precedence" {
			v.priority = min(v.priority, precedencePriority(value))
		}
	}
}

func (v *validMessage) structuredField(at mailer.Position, value string) bool {
	for _, w := range blankFields(value) {
		switch {
		case len(w) > maxHeaderWord:
			v.invalid(at, "a word of more than 997 octets cannot be folded")
		case !mailer.IsASCII(w) && strings.ContainsAny(w, addressMarks):
			v.invalid(at, "only ASCII is allowed in addresses and identifiers")
		case strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }):
			v.invalid(at, "control characters are not allowed")
		default:
			continue
		}
		return false
	}
	return true
}

// maxFilename is the length of a file name in octets, four times the limit of file
// systems.
const maxFilename = 1024

// maxAttachments limits the files of one message.
const maxAttachments = 1000

func (v *validMessage) attachments(list []mailer.Attachment) {
	if len(list) > maxAttachments {
		v.invalid(whole("attachments"), "a message has at most 1000 files")
		return
	}
	contentIDs := map[string]bool{}
	for i, a := range list {
		member := func(name string) mailer.Position {
			return mailer.Position{Field: "attachments", Item: i + 1, Member: name}
		}
		v.text(member("filename"), a.Filename)
		switch {
		case a.Filename == "" && a.ContentID == "":
			v.invalid(member("filename"), "a file name is required")
		case len(a.Filename) > maxFilename:
			v.invalid(member("filename"), "a file name has at most 1024 octets")
		}
		v.contentType(member("content_type"), a.ContentType)
		v.contentID(member("content_id"), a.ContentID)
		if a.ContentID != "" && contentIDs[a.ContentID] {
			v.invalid(member("content_id"), "another attachment has the same content id")
		}
		contentIDs[a.ContentID] = true
	}
}

// maxContentType limits a media type with its parameters, in octets.
const maxContentType = 512

func (v *validMessage) contentType(at mailer.Position, value string) {
	if value == "" || !v.text(at, value) {
		return
	}
	if len(value) <= maxContentType && isPrintable(value) {
		mediaType, _, err := mime.ParseMediaType(value)
		if err == nil && strings.Contains(mediaType, "/") {
			return
		}
	}
	v.invalid(at, "not a media type, such as application/pdf")
}

var contentID = regexp.MustCompile(`^[!-;=?-~]+$`)

func (v *validMessage) contentID(at mailer.Position, value string) {
	if value == "" || !v.text(at, value) {
		return
	}
	if len(value) > 200 || !contentID.MatchString(value) {
		v.invalid(at, "a content id is printable ASCII without blanks and angle brackets, at most 200 octets")
	}
}
