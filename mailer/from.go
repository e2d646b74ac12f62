package mailer

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// FromField is what a From field says, to any program that reads it.
type FromField struct {
	// Authors are its addresses, canonical.
	Authors []string
	// Named are the addresses, or what looks like one, in its display names and
	// comments: people take them for the author, and so do programs that decode a field
	// before they read it.
	Named []string
}

// ReadFrom reads a From field strictly: by its octets as they are sent, from its name to
// the last CRLF. It takes what all programs read alike: a mailbox-list (RFC 5322 §3.4)
// without what §4 calls obsolete, but for dots in display names, and without these:
//
//   - a group (RFC 6854): many programs take it for a name, or find no address
//   - a comment inside of a comment or an address, or with a backslash: programs see
//     different ends
//   - a comment or quotes without a blank beside them: programs join what they hold
//   - a quoted local part, unless its dots alone need the quotes: programs find another
//     address in it
//   - an encoded-word in an address: RFC 2047 §5 forbids it, and programs decode it
//   - an encoded-word that cannot be decoded, or in a charset that can hide ASCII
//   - a domain that is not ASCII: IDNA2003 and IDNA2008 may make two names of it
//   - control characters and bidirectional overrides, encoded ones too
//
// The error is an [*AddressError].
func ReadFrom(field string) (FromField, error) {
	name, value, found := strings.Cut(strings.TrimSuffix(field, "\r\n"), ":")
	if !found || !strings.EqualFold(name, "From") {
		return FromField{}, addressError("a blank stands before the colon")
	}
	value, err := unfoldStrictly(value)
	if err != nil {
		return FromField{}, err
	}
	r := fromReader{value: value, rest: value}
	for {
		if err := r.mailbox(); err != nil {
			return FromField{}, err
		}
		if r.rest == "" {
			return r.found, nil
		}
		r.rest = r.rest[len(","):]
	}
}

// unfoldStrictly removes the CRLFs of a value. At a line that has nothing but blanks,
// some programs end the header section.
func unfoldStrictly(value string) (string, error) {
	lines := strings.Split(value, "\r\n")
	for i, line := range lines {
		if i > 0 && strings.Trim(line, " \t") == "" {
			return "", addressError("one of its lines is empty")
		}
	}
	value = strings.Join(lines, "")
	return value, checkAddressText(strings.ReplaceAll(value, "\t", " "))
}

// fromReader reads a value, mailbox by mailbox.
type fromReader struct {
	value string
	rest  string // of it
	found FromField
}

// mailbox reads one mailbox, up to a comma or the end.
func (r *fromReader) mailbox() error {
	var m fromMailbox
	for {
		rest := strings.TrimLeft(r.rest, " \t")
		if len(rest) < len(r.rest) {
			m.text = append(m.text, ' ')
		}
		if r.rest = rest; rest == "" || rest[0] == ',' {
			return r.add(m)
		}
		if err := r.token(&m); err != nil {
			return err
		}
	}
}

// fromMailbox is a mailbox that is being read.
type fromMailbox struct {
	text     []byte // its name and comments, without quotes and parentheses
	named    bool   // it has a name
	addrSpec string
}

// token reads the next token of a mailbox, which is no blank.
func (r *fromReader) token(m *fromMailbox) error {
	switch {
	case r.rest[0] == '(':
		return r.comment(m)
	case m.addrSpec != "":
		return addressError("text stands behind an address without a comma between them")
	case r.rest[0] == '<':
		return r.angleAddress(m)
	}
	quoted, text, err := r.word()
	if err != nil {
		return err
	}
	switch {
	case !strings.Contains(text, "@") && !strings.HasPrefix(r.rest, "@"), quoted && !strings.HasPrefix(r.rest, "@"):
		m.text, m.named = append(m.text, text...), true
		return nil
	case quoted:
		_, domain, _ := r.word()
		text = Quote(text) + domain
	}
	if m.named {
		return addressError("an address stands beside a name without angle brackets; a name with an @ needs quotes")
	}
	m.addrSpec = text
	return nil
}

// word reads an atom with dots and @, or a quoted-string, whose content it returns.
func (r *fromReader) word() (quoted bool, text string, err error) {
	if r.rest[0] == '"' {
		content, rest, ok := CutQuotedString(r.rest)
		if !ok {
			return true, "", addressError("a quote is not closed")
		}
		if err := r.apart(len(r.rest) - len(rest)); err != nil {
			return true, "", err
		}
		r.rest = rest
		return true, content, nil
	}
	n := 0
	for n < len(r.rest) && (IsAtext(r.rest[n]) || r.rest[n] == '.' || r.rest[n] == '@' || r.rest[n] >= utf8.RuneSelf) {
		n++
	}
	if n > 0 && r.rest[n-1] == '@' && n < len(r.rest) && r.rest[n] == '[' {
		n += strings.IndexByte(r.rest[n:], ']') + 1
	}
	if n == 0 {
		return false, "", addressError("the character " + Printable(r.rest[:1], len(`\x00`)) + " is out of place")
	}
	text, r.rest = r.rest[:n], r.rest[n:]
	return false, text, nil
}

// apart checks that the quotes or parentheses that the rest begins with, of n octets,
// stand apart: a program that takes out just these must not make another address of what
// was in them and what is beside them.
func (r *fromReader) apart(n int) error {
	start := len(r.value) - len(r.rest)
	end := start + n
	if start > 0 && strings.IndexByte(" \t,<>", r.value[start-1]) < 0 || end < len(r.value) && strings.IndexByte(" \t,<>@", r.value[end]) < 0 {
		return addressError("a quoted text or a comment has no blank beside it")
	}
	return nil
}

// comment reads a comment.
func (r *fromReader) comment(m *fromMailbox) error {
	n := strings.IndexAny(r.rest[1:], `()\`) + 1
	if n == 0 || r.rest[n] != ')' {
		return addressError("a comment is not closed, or has another one or a backslash in it")
	}
	m.text = append(m.text, r.rest[1:n]...)
	if err := r.apart(n + 1); err != nil {
		return err
	}
	r.rest = r.rest[n+1:]
	return nil
}

// angleAddress reads an address in angle brackets.
func (r *fromReader) angleAddress(m *fromMailbox) error {
	r.rest = strings.TrimLeft(r.rest[1:], " \t")
	if r.rest == "" {
		return addressError("angle brackets do not match")
	}
	quoted, text, err := r.word()
	if quoted && strings.HasPrefix(r.rest, "@") {
		_, domain, _ := r.word()
		text = Quote(text) + domain
	}
	r.rest = strings.TrimLeft(r.rest, " \t")
	if err != nil || !strings.HasPrefix(r.rest, ">") {
		return addressError("the angle brackets hold more or less than an address")
	}
	m.addrSpec, r.rest = text, r.rest[1:]
	return nil
}

// add judges a mailbox that was read, and keeps what it says.
func (r *fromReader) add(m fromMailbox) error {
	if m.addrSpec == "" {
		return addressError("an address is missing")
	}
	email, err := canonicalAddrSpec(m.addrSpec)
	switch {
	case err != nil:
		return err
	case email[0] == '"':
		return addressError("the part before the @ needs quotes")
	case wideAt.Replace(email) != email:
		return addressError("an address has another form of @ in it")
	case strings.Contains(email, "=?"):
		return addressError("an address has an encoded-word in it")
	case !IsASCII(m.addrSpec[strings.LastIndexByte(m.addrSpec, '@'):]):
		return addressError("the domain is not written in ASCII (xn--…)")
	case len(r.found.Authors) == maxMailboxes:
		return addressError("more than 10000 addresses")
	}
	text, err := displayText(string(m.text))
	if err != nil {
		return err
	}
	r.found.Authors = append(r.found.Authors, email)
	r.found.Named = append(r.found.Named, addressesRead(text)...)
	return nil
}

// addressesRead returns what looks like an address in a text, to people and to programs:
// some read what they decoded once more as a field, without its quotes and comments.
func addressesRead(text string) []string {
	bare := withoutQuotes.Replace(text)
	readings := []string{text}
	for _, other := range []string{bare, StripComments(text), StripComments(bare)} {
		if !slices.Contains(readings, other) {
			readings = append(readings, other)
		}
	}
	var found []string
	for _, reading := range readings {
		found = append(found, addressesIn(reading)...)
	}
	return found
}

// displayText returns a name with its comments as programs show it, encoded-words
// decoded in quotes and comments, too.
func displayText(text string) (string, error) {
	decoder := asciiDecoder()
	decoded, err := decoder.DecodeHeader(text)
	switch {
	case err != nil || strings.Contains(decoded, "=?"):
		return "", addressError("an encoded-word in a name cannot be decoded, or its charset is not known to be one like ASCII")
	case strings.ContainsFunc(decoded, func(r rune) bool { return r < ' ' && r != '\t' || 0x7f <= r && r < 0xa0 }):
		return "", addressError("a name has control characters in it")
	case strings.ContainsAny(decoded, "\u202d\u202e"):
		return "", addressError("a name has bidirectional overrides in it, by which it reads backwards")
	}
	return decoded, nil
}

// addressesIn returns what looks like an address in a text: what stands on both sides of
// an @. With blanks beside the @ the domain needs a dot: a shop may be called Yoga @ Home.
func addressesIn(text string) []string {
	text = wideAt.Replace(text)
	var found []string
	for at := strings.IndexByte(text, '@'); at >= 0; {
		next := strings.IndexByte(text[at+1:], '@')
		left := strings.TrimRight(text[:at], " \t")
		right := strings.TrimLeft(text[at+1:], " \t")
		apart := len(left) < at || len(right) < len(text)-at-1
		left = left[strings.LastIndexAny(left, addressEnds)+1:]
		right = domainIn(right)
		if left != "" && right != "" && (!apart || strings.Contains(right, ".")) {
			found = append(found, strings.TrimLeft(left, "'")+"@"+right)
		}
		text = text[at+1:]
		at = next
	}
	return found
}

// domainIn returns the domain, or the address literal, that a text begins with.
func domainIn(text string) string {
	if strings.HasPrefix(text, "[") {
		literal, _, _ := strings.Cut(text[:min(len(text), maxAddrSpec)], "]")
		return literal + "]"
	}
	if n := strings.IndexAny(text, addressEnds); n >= 0 {
		text = text[:n]
	}
	return strings.TrimRight(text, ".!?'")
}

// withoutQuotes removes the quotes and backslashes of a text, as programs do.
var withoutQuotes = strings.NewReplacer(`"`, "", `\`, "")

// addressEnds end an address in a text.
const addressEnds = " \t\"<>()[]{},;:@"

// wideAt makes the forms of @ one.
var wideAt = strings.NewReplacer("\uff20", "@", "\ufe6b", "@")
