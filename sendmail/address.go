package sendmail

import (
	"bytes"
	"cmp"
	"io"
	"mime"
	"net/mail"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// mendAddresses makes the address fields readable for all: names in quotes where they
// need them, a domain for local users. A field that is right already stays as it is.
func (s *sender) mendAddresses(msg *message) error {
	for _, name := range []string{"From", "Resent-From"} {
		if err := s.mendAuthors(msg, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"Sender", "Resent-Sender"} {
		s.mendSender(msg, name)
	}
	for i := range msg.fields {
		if f := &msg.fields[i]; hasName(*f, "To", "Cc", "Reply-To", "Resent-To", "Resent-Cc") {
			s.mendList(f)
		}
	}
	msg.fields = slices.DeleteFunc(msg.fields, func(f headerField) bool {
		return f.value() == "" && hasName(f, "To", "Cc", "Reply-To", "Resent-To", "Resent-Cc")
	})
	return nil
}

// mendAuthors mends a From field. An author without a domain, or with one that cannot
// be in the DNS, becomes MAILSIDECAR_FROM; any other address stays.
func (s *sender) mendAuthors(msg *message, name string) error {
	f := msg.field(name)
	if f == nil || f.value() == "" {
		return nil
	}
	list := parseMailboxes(f.value(), addressRules{authors: true, hasCR: f.hasCR})
	if text := strings.Join(list.unclear, ", "); len(list.boxes) == 0 && !mayHoldAddress(text) && (s.settings.from != "" || !isHalfAddress(text)) {
		f.set(s.author(mailbox{name: text}))
		return nil
	}
	if len(list.unclear) > 0 {
		return fail(exitRefused, `%s: no address can be made out in %q; write it as "Name" <name@example.com>`, name, shorten(list.unclear[0]))
	}
	for i, box := range list.boxes {
		_, domain, ok := cutAddress(box.address)
		switch {
		case ok && isDomain(domain):
		case ok && s.settings.from == "":
			return fail(exitRefused, "%s: no relay takes the domain of %q; set MAILSIDECAR_FROM to an address of yours", name, shorten(box.address))
		case ok:
			list.boxes[i] = mailbox{cmp.Or(box.name, box.address), s.settings.from}
		default:
			f.set(s.author(box))
			return nil
		}
	}
	f.setBoxes(list.boxes)
	return nil
}

// isHalfAddress says that text is an address that lacks one of its sides, such as "wordpress@".
func isHalfAddress(text string) bool {
	return len(text) > 1 && !strings.ContainsAny(text, " \t") && (strings.HasSuffix(text, "@") || strings.HasPrefix(text, "@"))
}

// mendSender mends a Sender field, which has one address, or removes it: where it names a local user, or a
// machine that no other knows, a relay would refuse the message for it.
func (s *sender) mendSender(msg *message, name string) {
	f := msg.field(name)
	if f == nil {
		return
	}
	list := parseMailboxes(f.value(), addressRules{authors: true, hasCR: f.hasCR})
	if len(list.boxes) == 0 || len(list.unclear) > 0 {
		msg.remove(name)
		return
	}
	if _, domain, ok := cutAddress(list.boxes[0].address); !ok || !isDomain(domain) {
		msg.remove(name)
		return
	}
	f.setBoxes(list.boxes[:1])
}

// mendList mends a field with any number of addresses. One in which not all is clear
// stays as it is, unless the server could not read the charset of its text.
func (s *sender) mendList(f *headerField) {
	list := parseMailboxes(f.value(), addressRules{hasCR: f.hasCR})
	if len(list.boxes) == 0 || len(list.unclear) > 0 && utf8.ValidString(f.raw) {
		return
	}
	for i, box := range list.boxes {
		list.boxes[i].address = s.settings.withDomain(box.address)
	}
	f.setBoxes(list.boxes)
}

func (f *headerField) set(value string) {
	f.raw, f.hasCR = f.name+": "+value, false
}

// setBoxes writes the field anew, unless every reader finds these addresses in it.
func (f *headerField) setBoxes(boxes []mailbox) {
	if readsAs(f.value(), boxes) {
		return
	}
	var list []string
	for _, box := range boxes {
		list = append(list, box.String())
	}
	f.set(strings.Join(list, ",\r\n "))
}

// readsAs says that the field's value, read by RFC 5322, is these addresses.
func readsAs(value string, boxes []mailbox) bool {
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{
		CharsetReader: func(_ string, text io.Reader) (io.Reader, error) { return text, nil },
	}}
	parsed, err := parser.ParseList(strings.ToValidUTF8(value, "?"))
	if err != nil || len(parsed) != len(boxes) {
		return false
	}
	for i, box := range boxes {
		local, domain, _ := cutAddress(box.address)
		if strings.HasPrefix(local, `"`) && quotedLen(local) == len(local) {
			local = unescape(local[1 : len(local)-1])
		}
		if parsed[i].Address != local+"@"+domain {
			return false
		}
	}
	return true
}

// String is the mailbox as it stands in a field.
func (b mailbox) String() string {
	if name := plainName(b.name); name != "" {
		return quotePhrase(name) + " <" + fieldAddress(b.address) + ">"
	}
	return "<" + fieldAddress(b.address) + ">"
}

// fieldAddress is an address as it must be written in a field: quoted where a dot of its
// local part is not between two atoms, as in those that Japanese carriers gave out (RFC
// 5322 §3.4.1). In the envelope it stays as it is.
func fieldAddress(address string) string {
	local, domain, _ := cutAddress(address)
	if local == "" || local[0] == '"' || !strings.Contains("."+local+".", "..") {
		return address
	}
	return `"` + local + `"@` + domain
}

// plainName makes control characters blanks, octet by octet: the name may be in any
// charset.
func plainName(name string) string {
	octets := []byte(name)
	for i, c := range octets {
		if c < ' ' || c == 0x7f {
			octets[i] = ' '
		}
	}
	return string(bytes.TrimSpace(octets))
}

// quotePhrase writes a display name. Encoded-words stay; raw text that is not UTF-8 is
// left for the server, which knows the charset of the message.
func quotePhrase(name string) string {
	name = mendEncodedWords(name)
	inUTF8 := !isASCII(name) && utf8.ValidString(name) && !strings.ContainsFunc(name, isPair)
	switch {
	case strings.Contains(name, "=?") && isPhraseOfWords(name):
		return name
	case inUTF8 && strings.ContainsAny(name, "\"#$%&'(),.:;<>@[]^`{|}~"):
		return mime.BEncoding.Encode("utf-8", name) // Q leaves some of these
	case inUTF8:
		return mime.QEncoding.Encode("utf-8", name)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// mendEncodedWords encodes in encoded-words of a phrase what must not be in them (RFC
// 2047 §5 (3)): some programs write raw blanks and commas there.
func mendEncodedWords(name string) string {
	var b strings.Builder
	for {
		start := strings.Index(name, "=?")
		if start < 0 {
			return b.String() + name
		}
		b.WriteString(name[:start])
		charset, rest, _ := strings.Cut(name[start+len("=?"):], "?")
		encoding, rest, _ := strings.Cut(rest, "?")
		end := strings.IndexByte(rest[:min(len(rest), maxToken)], '?')
		if end < 0 || !strings.HasPrefix(rest[end:], "?=") || !strings.EqualFold(encoding, "q") {
			b.WriteString("=?")
			name = name[start+len("=?"):]
			continue
		}
		b.WriteString("=?" + charset + "?" + encoding + "?" + mendQ(rest[:end]) + "?=")
		name = rest[end+len("?="):]
	}
}

func mendQ(text string) string {
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c == ' ':
			b.WriteByte('_')
		case c == '=' || c == '_' || isAlphanumeric(c) || strings.IndexByte("!*+-/", c) >= 0:
			b.WriteByte(c)
		default:
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'=', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// isPhraseOfWords says that name needs no quotes, in which encoded-words are not
// decoded: it consists of atoms (RFC 5322 §3.2.5).
func isPhraseOfWords(name string) bool {
	for word := range strings.SplitSeq(name, " ") {
		for i := range len(word) {
			if c := word[i]; !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 {
				return false
			}
		}
		if word == "" {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// author makes the value of a From field: from the local name and the comment that
// cron writes, from -f and -F, and from the local user.
func (s *sender) author(box mailbox) string {
	address := box.address
	if sender := s.envelopeSender(); address == "" {
		address = sender
	}
	if address == "" {
		address = s.settings.user
	}
	name := box.name
	for _, other := range []string{s.options.fullName, os.Getenv("NAME")} {
		if name == "" {
			name = other
		}
	}
	if address = s.settings.asSender(address); name == "" && box.address != "" {
		name = box.address // MAILSIDECAR_FROM hides it
	}
	return mailbox{name, address}.String()
}

// envelopeSender is the address of -f; empty without one, and for the null one.
func (s *sender) envelopeSender() string {
	if list := parseMailboxes(s.options.sender, addressRules{exact: true}); len(list.boxes) == 1 {
		return list.boxes[0].address
	}
	return ""
}

// asSender returns an address to send from for a name that has no domain, or one that
// no relay can know: MAILSIDECAR_FROM when it is set, because a relay takes no other.
func (s settings) asSender(address string) string {
	if _, domain, ok := cutAddress(address); ok && isDomain(domain) {
		return address
	}
	return cmp.Or(s.from, s.withDomain(address))
}

// withDomain adds this machine's domain to the name of a local user. What has an @ already,
// such as "ana@", is no such name, and stays as it is.
func (s settings) withDomain(address string) string {
	if address == "" || strings.Contains(address, "@") {
		return address
	}
	return address + "@" + s.domain
}

// cutAddress splits an addr-spec at its last @. ok says that there is a domain.
func cutAddress(address string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(address, '@')
	if i < 0 || i == len(address)-1 {
		return address, "", false
	}
	return address[:i], address[i+1:], true
}

// validAddress keeps out what could end a header value or an SMTP command, or
// change the list that it is put into; the server judges the rest.
func validAddress(address string) bool {
	local, domain, ok := cutAddress(address)
	if !ok || local == "" || !utf8.ValidString(address) || strings.ContainsFunc(address, isPair) || !isPlain(domain, `@"(),;:<>[]\`) && !isLiteral(domain) {
		return false
	}
	if local[0] == '"' {
		return quotedLen(local) == len(local) && isPlain(strings.ReplaceAll(local, " ", ""), "")
	}
	return isPlain(local, `@"(),;:<>[]\`)
}

// isPlain says that text has no blanks and control characters, and none of the others.
func isPlain(text, others string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(others, r)
	})
}

// isLiteral says that a domain is an address literal (RFC 5321 §4.1.3).
func isLiteral(domain string) bool {
	return len(domain) > 2 && domain[0] == '[' && domain[len(domain)-1] == ']' && isPlain(domain[1:len(domain)-1], `@"(),;<>[]\`)
}

// isDomain says that a relay could know the domain: it can be in the DNS, or is an
// address literal. The name of a container such as web_1 cannot.
func isDomain(domain string) bool {
	if isLiteral(domain) {
		return true
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 4*63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlphanumeric(c) && c != '-' && c < utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

// shorten keeps a quoted text of an error on one line, and short.
func shorten(text string) string {
	if text = oneLine(text); len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
