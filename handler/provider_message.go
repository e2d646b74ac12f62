package handler

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// tidy prepares what a provider's client sent for [mailer.Compose], after the
// substitutions, for those carry values of strangers.
func (o *outgoing) tidy() error {
	m := &o.Message
	if len(m.Attachments) > maxAttachments {
		return problem.New(api.CodeInvalidMessage, "", problem.At("attachments", fmt.Sprintf("a message may have %d files", maxAttachments)))
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

// unfold joins what is folded (RFC 5322 §2.2.3): Symfony hands over values as
// they stand in a header section. A line break that is no fold stays, and is
// refused later.
func unfold(s string) string { return strings.Trim(fold.ReplaceAllString(s, " "), " \t") }

// tidyHeader takes the fields that stand elsewhere in a message out of the
// caller's own. Frameworks repeat some of them there.
func (o *outgoing) tidyHeader() error {
	m := &o.Message
	var f findings
	var kept []mailer.Field
	for _, field := range m.Header {
		field.Name, field.Value = strings.TrimSpace(field.Name), unfold(field.Value)
		path := "headers." + problem.Cut(field.Name)
		switch key := strings.ToLower(field.Name); {
		case field.Value == "":
		case key == "reply-to":
			if len(m.ReplyTo) == 0 {
				m.ReplyTo = f.list(path, field.Value)
			}
		case key == "sender":
			if list := f.list(path, field.Value); len(list) > 0 {
				m.Sender = list[0]
			}
		case slices.Contains([]string{"from", "to", "cc", "bcc", "subject"}, key):
			f.Add(path, "is reserved: use the field of the request")
		case slices.Contains([]string{"mime-version", "received", "dkim-signature", "return-path"}, key),
			strings.HasPrefix(key, "content-"), strings.HasPrefix(key, "resent-"):
		default:
			kept = append(kept, field)
		}
	}
	m.Header = kept
	return f.Err()
}

// findings collects what is wrong with the fields of a provider's request.
type findings struct{ problem.FieldErrors }

// list reads a comma-separated list of addresses.
func (f *findings) list(path, text string) []mailer.Address {
	list, err := parseAddresses(text)
	if err != nil {
		f.AddAddress(path, err)
	}
	return list
}

// parseAddresses reads a list of addresses, or a single one whose name has a
// comma and no quotes, as Symfony sends it.
func parseAddresses(text string) ([]mailer.Address, error) {
	text = unfold(text)
	list, err := mailer.ParseAddressList(text)
	if err == nil {
		return list, nil
	}
	name, email, found := cutLast(strings.TrimSuffix(text, ">"), "<")
	if !found || !strings.HasSuffix(text, ">") || strings.ContainsAny(name, `<>@"`) {
		return nil, err
	}
	a, soleErr := mailer.ParseAddress(email)
	if soleErr != nil {
		return nil, err
	}
	return []mailer.Address{{Name: strings.TrimSpace(name), Email: a.Email}}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// attach adds an attachment. Its content id makes it inline where the client
// says so or the HTML refers to it: some SDKs give every attachment one.
func (o *outgoing) attach(a mailer.Attachment, inline bool) {
	id := strings.Trim(unfold(a.ContentID), "<>")
	if rest, found := strings.CutPrefix(id, "cid:"); found {
		id, inline = rest, true
	}
	a.ContentID = ""
	if id != "" && len(o.Attachments) < maxAttachments {
		references := []string{"cid:" + id, "cid:" + url.PathEscape(id)}
		inline = inline || slices.ContainsFunc(references, func(r string) bool { return strings.Contains(o.HTML, r) })
		if inline {
			a.ContentID = o.contentID(id, references)
		}
	}
	o.Attachments = append(o.Attachments, a)
}

var plainContentID = regexp.MustCompile(`^[A-Za-z0-9!#$&'*+/=?^_{|}~.@-]+$`)

// contentID returns the id, or where it is a file name with blanks or umlauts
// another one, which the HTML then refers to.
func (o *outgoing) contentID(id string, references []string) string {
	if len(id) <= 200 && plainContentID.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	plain := hex.EncodeToString(sum[:12]) + "@inline"
	for _, r := range references {
		o.HTML = strings.ReplaceAll(o.HTML, r, "cid:"+plain)
	}
	return plain
}

// label keeps one of a provider's tags, as a tag named by it.
func (o *outgoing) label(value string) { o.tag(value, value) }

// tag keeps a value beside the message. Names and values that a tag cannot have
// are made fit; over twenty, the rest is left out: tags are for finding
// messages and change nothing in them.
func (o *outgoing) tag(name, value string) {
	name = cutOctets(strings.Map(tagRune, name), maxTagName)
	if name == "" || len(o.tags) >= maxTags {
		return
	}
	if o.tags == nil {
		o.tags = map[string]string{}
	}
	value = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, value)
	o.tags[name] = cutOctets(value, maxTagValue)
}

const maxTagName = 64

func tagRune(r rune) rune {
	if r < utf8.RuneSelf && tagName.MatchString(string(r)) {
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

// later checks a schedule: what is past is sent now, what is too far ahead
// refused, for it would be there too.
func later(at time.Time, atMost time.Duration, field string) (time.Time, error) {
	switch ahead := time.Until(at); {
	case at.IsZero() || ahead <= 0:
		return time.Time{}, nil
	case ahead > atMost:
		return time.Time{}, problem.New(api.CodeInvalidMessage, "", problem.At(field, fmt.Sprintf("is more than %d hours ahead", int(atMost.Hours()))))
	default:
		return at, nil
	}
}

// dotted writes a path of ours, to[1].email, as most providers do: to.1.email.
func dotted(path string) string {
	return strings.TrimPrefix(strings.NewReplacer("[", ".", "]", "").Replace(path), ".")
}

// indexed takes the name and the index of to[1]; false where there is none.
func indexed(field string) (name string, index int, rest string, ok bool) {
	name, after, found := strings.Cut(field, "[")
	number, rest, closed := strings.Cut(after, "]")
	index, err := strconv.Atoi(number)
	return name, index, rest, found && closed && err == nil
}
