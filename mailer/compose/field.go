package compose

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// isAddressField reports whether a field holds addresses (RFC 5322 §3.6.2, §3.6.3,
// §3.6.6, RFC 8098 §2.1).
func isAddressField(key string) bool {
	switch strings.TrimPrefix(key, "resent-") {
	case "from", "sender", "reply-to", "to", "cc", "bcc",
		"disposition-notification-to", "return-receipt-to", "errors-to":
		return true
	}
	return false
}

// isParamField reports whether a field holds parameters (RFC 2045 §5, RFC 2183).
func isParamField(key string) bool { return key == "content-type" || key == "content-disposition" }

// isTraceField reports whether a field holds no text for people, but identifiers,
// dates or what machines wrote.
func isTraceField(key string) bool {
	return isStructured(key) || strings.HasPrefix(key, "arc-") || strings.HasSuffix(key, "message-id") ||
		strings.HasSuffix(key, "date") || key == "received" || key == "dkim-signature" ||
		key == "authentication-results" || key == "content-id" || key == "content-transfer-encoding"
}

// needsASCII reports whether the field holds raw 8-bit text.
func (f *rawField) needsASCII() bool { return hasEightBit(f.raw) }

// tidyName removes blanks before the colon, with which some readers take the field for the
// beginning of the body.
func (f *rawField) tidyName() {
	if rest := f.raw[len(f.name):]; rest[0] != ':' {
		f.raw, f.spaced = append([]byte(f.name), bytes.TrimLeft(rest, " \t")...), true
	}
}

func hasEightBit(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return true
		}
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return true
		}
	}
	return false
}

// hasLongLine reports whether a line of raw is over 998 octets.
func hasLongLine(raw []byte) bool {
	for len(raw) > maxLine {
		line, _, rest := cutLine(raw)
		if len(line) > maxLine {
			return true
		}
		raw = rest
	}
	return false
}

// rewrite encodes the field's raw 8-bit text and folds the field anew. It reads text
// that is not UTF-8 as charset. Domains of addresses become A-labels, unless the
// field is signed; other addresses and identifiers in UTF-8 stay as they are (RFC 6532
// §3.2), and so does a field where they are not UTF-8. The error is errParams.
func (f *rawField) rewrite(charset string) error {
	value := readText(charset, f.value())
	words, err := f.words(value)
	switch {
	case errors.Is(err, errForeign):
		return nil
	case err != nil || strings.Join(words, "") == " "+value.text && !value.foreign && !hasLongLine(f.raw):
		return err // or only addresses hold raw UTF-8
	}
	f.text = appendHeaderField(nil, f.name, words)
	return nil
}

// errForeign says that an address or identifier is not UTF-8. Its charset is not guessed.
var errForeign = errors.New("an address or identifier is not valid UTF-8")

func (f *rawField) words(value headerText) ([]string, error) {
	switch {
	case mailer.IsASCII(value.text):
		return f.foldedWords(value.text), nil
	case isAddressField(f.key):
		return f.addressWords(value)
	case isParamField(f.key):
		return paramFieldWords(value.text)
	case isTraceField(f.key):
		return structuredWords(f.name, value)
	default:
		return mixedWords(value.charset, value.text, wordRoom(f.name)), nil
	}
}

// foldedWords returns the words of a value in ASCII with a line over 998 octets.
func (f *rawField) foldedWords(value string) []string {
	if words := headerWords(value); fits(words) && !strings.HasPrefix(value, "{") && !strings.HasPrefix(value, "[") {
		return words
	}
	if isTextField(f.key) {
		return textWords(utf8Charset, f.name, value)
	}
	words, _ := asciiWords(f.name, value)
	return words
}

// paramFieldWords encodes the parameters that are not ASCII by RFC 2231, because
// encoded-words are not allowed in parameters. The error is errParams.
func paramFieldWords(value string) ([]string, error) {
	mediaType, params, complete := parseParams(value)
	if !complete {
		return nil, errParams
	}
	text := []byte(mediaType)
	for _, p := range params {
		if mailer.IsASCII(p.raw) || p.name == "boundary" || !isFieldName(p.name) {
			text = append(append(text, ";\r\n "...), p.raw...)
			continue
		}
		name, _, _ := strings.Cut(p.name, "*")
		if len(name) > maxParamName {
			return nil, errParams
		}
		text = appendParam(text, name, decodeText(utf8Charset, p.value))
	}
	return []string{" " + string(text)}, nil
}

// addressWords encodes the phrases and comments of an address field, and writes the
// domains of its addresses in A-labels, unless the field is signed. The error is
// errForeign.
func (f *rawField) addressWords(value headerText) ([]string, error) {
	w := addressFieldWriter{charset: value.charset, name: f.name, keep: f.signed || value.foreign}
	w.field(value.text)
	if value.foreign && w.raw {
		return nil, errForeign
	}
	return w.words, nil
}

// checkAddresses returns errForeign where the field has an address that is not UTF-8, and
// errLongField where it is too long to encode.
func (v headerText) checkAddresses(f *rawField) error {
	switch {
	case !v.foreign:
		return nil
	case len(f.raw) > maxRewritten:
		return errLongField
	}
	w := addressFieldWriter{dry: true, keep: true}
	if w.field(v.text); w.raw {
		return errForeign
	}
	return nil
}

// addressFieldWriter collects text until the next token shows what it is: before an
// angle bracket or a colon it is the name of a mailbox or a group, otherwise an
// address.
type addressFieldWriter struct {
	charset, name string
	phrase        []string // as written
	words         []string

	dry     bool // only look at the addresses
	raw     bool // addresses hold characters beyond ASCII
	keep    bool // addresses stay as they are
	ascii   bool // addresses must be ASCII, too, see ASCIIHeader
	inGroup bool
	groups  int // addresses that became groups
	// openQuote says that a quote of the field is not closed: then none after it is.
	openQuote bool
	// unclear says that the field cannot be written address by address: a group must
	// not hold another, and blanks in an address hide where it ends.
	unclear bool
}

func (w *addressFieldWriter) field(value string) {
	for i := 0; i < len(value); {
		i += w.piece(value[i:])
	}
	w.endPhrase(false)
}

// piece reads one token of the field and returns its length.
func (w *addressFieldWriter) piece(s string) int {
	switch s[0] {
	case ' ', '\t':
		return 1
	case '"':
		if n := w.quotedLen(s); n > 0 {
			n += addressTail(s[n:])
			w.phrase = append(w.phrase, s[:n])
			return n
		}
	case '(':
		n := commentLen(s)
		w.phrase = append(w.phrase, s[:n])
		return n
	case '<':
		w.endPhrase(true)
		n := w.angleLen(s)
		w.address(s[:n])
		return n
	case ':':
		w.endPhrase(true)
		w.inGroup = true
		w.word(s[:1])
		return 1
	case ',', ';':
		w.endPhrase(false)
		n := len(s) - len(strings.TrimLeft(s, ",; \t"))
		w.inGroup = w.inGroup && !strings.Contains(s[:n], ";")
		w.attach(blanks.Replace(s[:n]))
		return n
	}
	n := strings.IndexAny(s[1:], " \t\"(<:,;") + 1
	if n == 0 {
		n = len(s)
	}
	w.phrase = append(w.phrase, s[:n])
	return n
}

// quotedLen returns the length of the quoted-string that s begins with; zero where it
// is not closed.
func (w *addressFieldWriter) quotedLen(s string) int {
	if w.openQuote {
		return 0
	}
	_, rest, ok := mailer.CutQuotedString(s)
	w.openQuote = !ok
	if !ok {
		return 0
	}
	return len(s) - len(rest)
}

// blanks removes blanks.
var blanks = strings.NewReplacer(" ", "", "\t", "")

// addressTail returns the length of the @domain after a quoted string, which is a
// local part then; zero without one.
func addressTail(rest string) int {
	if !strings.HasPrefix(rest, "@") {
		return 0
	}
	if n := strings.IndexAny(rest, " \t(<:,;"); n >= 0 {
		return n
	}
	return len(rest)
}

// angleLen returns the length of the angle-addr that s begins with.
func (w *addressFieldWriter) angleLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			i += max(w.quotedLen(s[i:])-1, 0)
		case '>':
			return i + 1
		}
	}
	return len(s)
}

// commentLen returns the length of the comment that s begins with.
func commentLen(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// address writes an address, in its angle brackets where it has them.
func (w *addressFieldWriter) address(s string) {
	if !w.keep && !mailer.IsASCII(s) {
		s = asciiAddress(s)
	}
	isASCII := mailer.IsASCII(s)
	w.raw = w.raw || !isASCII
	if w.ascii && !isASCII {
		w.internationalAddress(s)
		return
	}
	w.word(s)
}

// asciiAddress returns an address, in its angle brackets where it has them, as the
// envelope has it: without blanks of Unicode around it, its domain in A-labels.
func asciiAddress(s string) string {
	bare, open := strings.CutPrefix(s, "<")
	if !open {
		return asciiDomains(mailer.TrimBlanks(s))
	}
	bare, closed := strings.CutSuffix(bare, ">")
	s = "<" + asciiDomains(mailer.TrimBlanks(bare))
	if closed {
		s += ">"
	}
	return s
}

// asciiDomains returns s with each domain in A-labels: what stands behind an @, outside
// of quotes and comments. A domain that has none stays as it is.
func asciiDomains(s string) string {
	var b strings.Builder
	quoted, depth, done := false, 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth = max(depth-1, 0)
		case c == '@' && depth == 0:
			end := len(s)
			if n := strings.IndexAny(s[i+1:], " \t\"(<>,;:@"); n >= 0 {
				end = i + 1 + n
			}
			if domain := s[i+1 : end]; !mailer.IsASCII(domain) {
				if ascii, err := mailer.CanonicalDomain(domain); err == nil {
					b.WriteString(s[done:i+1] + ascii)
					done = end
				}
			}
			i = end - 1
		}
	}
	return b.String() + s[done:]
}

func (w *addressFieldWriter) word(s string) {
	if !w.dry {
		w.words = append(w.words, " "+s)
	}
}

// attach appends a separator to the last word.
func (w *addressFieldWriter) attach(s string) {
	if len(w.words) == 0 {
		w.word(s)
		return
	}
	w.words[len(w.words)-1] += s
}

// endPhrase writes the collected text, encoded where it is a name.
func (w *addressFieldWriter) endPhrase(isName bool) {
	raw := strings.Join(w.phrase, " ")
	switch {
	case isName && w.dry:
	case isName && !mailer.IsASCII(raw):
		text := make([]string, len(w.phrase))
		for i, p := range w.phrase {
			text[i] = mailer.Unquote(p)
		}
		w.words = append(w.words, mixedPhrase(w.charset, strings.Join(text, " "), wordRoom(w.name))...)
	default:
		parts := 0
		for _, p := range w.phrase {
			if p[0] == '(' && !mailer.IsASCII(p) {
				w.comment(p)
				continue
			}
			if w.address(p); p[0] != '(' {
				parts++
			}
		}
		w.unclear = w.unclear || w.ascii && parts > 1 && !mailer.IsASCII(raw)
	}
	w.phrase = nil
}

// comment encodes the text of a comment that is not ASCII.
func (w *addressFieldWriter) comment(s string) {
	if w.dry {
		return
	}
	words := mixedPhrase(w.charset, strings.TrimSuffix(s[1:], ")"), wordRoom(w.name)-len("()"))
	words[0] = " (" + words[0][1:]
	words[len(words)-1] += ")"
	w.words = append(w.words, words...)
}

// written returns the field as it will be written.
func (f *rawField) written() []byte {
	if f.text != nil {
		return f.text
	}
	return f.raw
}

// foldable reports whether the field fits in lines of 998 octets.
func (f *rawField) foldable() bool { return !hasLongLine(f.written()) }

// hasLoneCR reports whether b holds a CR that is not part of a CRLF.
func hasLoneCR(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\r')
		if i < 0 {
			return false
		}
		if b = b[i+1:]; !bytes.HasPrefix(b, []byte("\n")) {
			return true
		}
	}
}
