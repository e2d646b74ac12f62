package compat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
)

// Message is one message of a request.
type Message struct {
	mailer.Message
	// Finished is a message that needs no composing, and Envelope the request's own
	// envelope for it; nil: Message is composed.
	Finished []byte
	Envelope compose.FinishOptions
	// OwnReversePath makes the From address of a finished message its
	// reverse-path, whatever its Sender field says.
	OwnReversePath bool
	Bulk           bool // what the provider keeps apart from transactional mail
	Tags           map[string]string
	SendAt         time.Time
	// IdempotencyKey and Fingerprint are as in [queue.Submission].
	IdempotencyKey string
	Fingerprint    [32]byte
	// Limit is the request's limit on the work for its messages, see [Exchange.Expansion].
	Limit *Expansion
	// Path says where in the provider's request something is: of a finished message all
	// is at the position message. Nil: where it is in the native one.
	Path func(mailer.Position) string
	// HeaderPath says where in the provider's request the n-th field of Header is, from 0.
	HeaderPath func(n int) string

	references references
	// kept has the places that the fields of Header had before tidy.
	kept []int
	// senderPath and replyToPath are where the header fields are that became the sender or
	// the addresses for replies; empty: they are not from header fields.
	senderPath, replyToPath string
}

// make composes the message, or finishes it. Its error has the provider's paths.
func (o *Message) make(ctx context.Context, options compose.Options) (compose.Composed, error) {
	if o.Finished != nil {
		o.Envelope.Options, o.Envelope.Date = options, o.SendAt
		c, err := compose.Finish(ctx, o.Finished, o.Envelope)
		if o.OwnReversePath {
			c.Envelope.ReversePath = c.Sender
		}
		return c, o.locate(err)
	}
	if o.Limit != nil && o.Limit.Err() != nil {
		return compose.Composed{}, o.Limit.Err()
	}
	if err := o.tidy(); err != nil {
		return compose.Composed{}, err
	}
	o.Date = o.SendAt
	c, err := compose.Compose(ctx, o.Message, options)
	return c, o.locate(err)
}

// path says where in the provider's request something is.
func (o *Message) path(at mailer.Position) string {
	switch {
	case o.Path == nil:
		return at.String()
	case o.Finished != nil:
		return o.Path(mailer.Position{Field: "message"})
	case at.Field == mailer.FieldHeaders && at.Item > 0 && at.Item <= len(o.kept):
		return o.headerPath(o.kept[at.Item-1])
	case at.Field == "sender" && o.senderPath != "":
		return o.senderPath
	case at.Field == "reply_to" && o.replyToPath != "":
		return o.replyToPath
	default:
		return o.Path(at)
	}
}

// headerPath is where the n-th header field is that was made, from 0.
func (o *Message) headerPath(n int) string {
	if o.HeaderPath == nil {
		return mailer.FieldHeaders
	}
	return problem.Cut(o.HeaderPath(n))
}

// Within says that the message's request is at a path in another one.
func (o *Message) Within(place string) {
	path, headerPath := o.Path, o.HeaderPath
	o.Path = func(at mailer.Position) string { return place + "." + path(at) }
	o.HeaderPath = func(n int) string { return place + "." + headerPath(n) }
}

// locate gives an error the provider's paths: that of the composer, and that of
// [Desk.Accept], whose fields are the native API's.
func (o *Message) locate(err error) error {
	if invalid, ok := errors.AsType[*mailer.InvalidError](err); ok {
		return problem.Invalid(invalid.Malformed, o.located(invalid.Fields))
	}
	p, ok := errors.AsType[*problem.Error](err)
	if !ok {
		return err
	}
	located := *p
	located.Fields = slices.Clone(p.Fields)
	for i, f := range located.Fields {
		located.Fields[i].Field = o.path(mailer.Position{Field: f.Field})
	}
	return &located
}

// located writes where in the provider's request each field is, and which header field
// that is where its path does not tell.
func (o *Message) located(fields []mailer.FieldError) []api.FieldError {
	all := problem.Located(fields, o.path)
	for i, f := range fields {
		switch {
		case o.Finished != nil && f.Field != mailer.FieldHeaders && f.Field != "message":
			all[i].Message = headerMessage(textproto.CanonicalMIMEHeaderKey(f.Field), f.Message)
		case f.Field == mailer.FieldHeaders && f.Item > 0 && (o.Finished != nil || strings.HasSuffix(all[i].Field, "]")):
			all[i].Message = headerMessage(f.Member, f.Message)
		}
	}
	return all
}

func headerMessage(name, text string) string {
	return fmt.Sprintf("the header field %s: %s", name, text)
}

// tidy prepares a message for [compose.Compose]. It is called after the
// substitutions, because those carry values of strangers.
func (o *Message) tidy() error {
	m := &o.Message
	if err := o.checkLengths(); err != nil {
		return err
	}
	m.Subject = unfold(m.Subject)
	tidyAddress(&m.From)
	for _, list := range [][]mailer.Address{m.To, m.Cc, m.Bcc, m.ReplyTo} {
		for i := range list {
			tidyAddress(&list[i])
		}
	}
	for i := range m.Attachments {
		tidyAttachment(&m.Attachments[i])
	}
	return o.tidyHeader()
}

// checkLengths refuses lists that are too long, before anything is made of them.
func (o *Message) checkLengths() error {
	var f Fields
	check := func(field string, items, atMost int, what string) {
		if items > atMost {
			f.Add(o.path(mailer.Position{Field: field}), fmt.Sprintf("a message may have %d %s", atMost, what))
		}
	}
	check("attachments", len(o.Attachments), maxAttachments, "files")
	check("reply_to", len(o.ReplyTo), maxReplyTo, "addresses for replies")
	return f.Err()
}

func tidyAddress(a *mailer.Address) {
	a.Name, a.Email = unfold(a.Name), strings.TrimSpace(a.Email)
}

func tidyAttachment(a *mailer.Attachment) {
	a.Filename, a.ContentType, a.ContentID = unfold(a.Filename), unfold(a.ContentType), unfold(a.ContentID)
	// Several SDKs call everything so; the file name knows better.
	if strings.EqualFold(a.ContentType, "application/octet-stream") {
		a.ContentType = ""
	}
}

var fold = regexp.MustCompile(`\r\n[ \t]+`)

// unfold joins folded lines (RFC 5322 §2.2.3): Symfony hands over values as in a header
// section. A line break that is no fold stays, and is
// refused later.
func unfold(s string) string { return strings.Trim(fold.ReplaceAllString(s, " "), " \t") }

// tidyHeader removes the fields that have a place elsewhere in a message from the
// caller's own. Frameworks repeat some of them there.
func (o *Message) tidyHeader() error {
	m := &o.Message
	o.kept = nil
	var f Fields
	var kept []mailer.Field
	for i, field := range m.Header {
		field.Name, field.Value = strings.TrimSpace(field.Name), unfold(field.Value)
		switch key := strings.ToLower(field.Name); {
		case field.Value == "":
		case key == "reply-to":
			if len(m.ReplyTo) == 0 {
				o.replyToPath = o.headerPath(i)
				m.ReplyTo = f.List(o.replyToPath, field.Value)
			}
		case key == "sender":
			o.senderPath = o.headerPath(i)
			if list := f.List(o.senderPath, field.Value); len(list) > 0 {
				m.Sender = list[0]
			}
		case slices.Contains([]string{"from", "to", "cc", "bcc", "subject"}, key):
			f.Add(o.headerPath(i), field.Name+" is reserved: use the field of the request")
		case slices.Contains([]string{"mime-version", "received", "dkim-signature", "return-path"}, key),
			strings.HasPrefix(key, "content-"), strings.HasPrefix(key, "resent-"):
		default:
			kept, o.kept = append(kept, field), append(o.kept, i)
		}
	}
	m.Header = kept
	return f.Err()
}

// Attach adds an attachment. Its content id makes it inline where the client
// says so or the HTML refers to it: some SDKs give every attachment one.
func (o *Message) Attach(a mailer.Attachment, inline bool) {
	if len(o.Attachments) > maxAttachments {
		return // which is refused in the end
	}
	if !o.Limit.Charge(fileWork) {
		return
	}
	id := strings.Trim(unfold(a.ContentID), "<>")
	if rest, found := strings.CutPrefix(id, "cid:"); found {
		id, inline = rest, true
	}
	a.ContentID = ""
	if id != "" && len(o.Attachments) < maxAttachments {
		if inline || o.refersTo(id) {
			a.ContentID = o.contentID(id)
		}
	}
	o.Attachments = append(o.Attachments, a)
}

var plainContentID = regexp.MustCompile(`^[A-Za-z0-9!#$&'*+/=?^_{|}~.@-]+$`)

// contentID returns the id, or where it is a file name with blanks or umlauts
// another one, which the HTML then refers to.
func (o *Message) contentID(id string) string {
	if len(id) <= 200 && plainContentID.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	plain := hex.EncodeToString(sum[:12]) + "@inline"
	o.referTo(id, plain)
	return plain
}

// Label keeps one of a provider's tags, as a tag named by it.
func (o *Message) Label(value string) { o.Tag(value, value) }

// Tag keeps a value beside the message. Names and values that a tag cannot have
// are made fit; over twenty, the rest is left out: tags are for finding
// messages and change nothing in them.
func (o *Message) Tag(name, value string) {
	if len(o.Tags) >= api.MaxTags {
		return
	}
	name = cutOctets(strings.Map(tagRune, cutOctets(name, utf8.UTFMax*api.MaxTagName)), api.MaxTagName)
	if name == "" {
		return
	}
	if o.Tags == nil {
		o.Tags = map[string]string{}
	}
	value = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, cutOctets(value, 2*api.MaxTagValue)) // a control character has two octets at most
	o.Tags[name] = cutOctets(value, api.MaxTagValue)
}

func tagRune(r rune) rune {
	if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.-", r)) {
		return r
	}
	return '_'
}

// cutOctets cuts s to at most n octets, between two characters.
func cutOctets(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
