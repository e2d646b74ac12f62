package compose

import (
	"encoding/base64"
	"regexp"
	"strings"

	"mailsidecar/mailer"
)

// Limits of RFC 5322 §2.1.1 and RFC 2047 §2, in octets without the CRLF.
const (
	maxLine        = 998
	foldedLine     = 78
	maxEncodedWord = 75
	maxEncodedLine = 76
	// maxHeaderWord is the longest word that a header field may hold, in octets: with
	// a blank before it, it fits in a line.
	maxHeaderWord = maxLine - 1
	maxFieldName  = 76
)

// appendHeaderField appends one header field, folded before words so that lines stay
// within 78 octets where the words allow it. Each word includes the blanks before it,
// so that unfolding restores the value exactly.
func appendHeaderField(dst []byte, name string, words []string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	col := len(name) + 1
	for i, w := range words {
		// The first word is folded only where it must be: some readers take a field whose
		// first line is empty for an empty field.
		if col+len(w) > foldedLine && i > 0 || col+len(w) > maxLine {
			dst = append(dst, '\r', '\n')
			col = 0
		}
		dst = append(dst, w...)
		col += len(w)
	}
	return append(dst, '\r', '\n')
}

// headerWords splits a value for [appendHeaderField]: each word is a run of blanks
// with the text after it.
func headerWords(value string) []string { return splitWords(value, false) }

// splitWords is headerWords; with single, a line is not folded where several blanks stand:
// some readers shorten a run of blanks at a fold to one.
func splitWords(value string, single bool) []string {
	if value == "" {
		return nil
	}
	value = " " + value
	var words []string
	start := 0
	for i := 1; i < len(value); i++ {
		if !isBlank(value[i]) || isBlank(value[i-1]) || single && i+1 < len(value) && isBlank(value[i+1]) {
			continue
		}
		words = append(words, value[start:i])
		start = i
	}
	return append(words, value[start:])
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// unstructuredWords splits the value of an unstructured field (RFC 5322 §2.2.1) into
// words. Printable ASCII stays as it is; that includes encoded-words, because some
// clients encode values themselves. Other text becomes encoded-words, and so does,
// where people alone read it, text that cannot be folded.
func unstructuredWords(name, value string) []string {
	if !isTextField(strings.ToLower(name)) && isLine(value) {
		words, _ := asciiWords(name, value)
		return words
	}
	words := headerWords(value)
	if isPrintable(value) && value == strings.Trim(value, " ") && fits(words) && !losesBlanks(name, value) {
		return words
	}
	return textWords(utf8Charset, name, value)
}

// losesBlanks reports whether folding may lose blanks of the value: some readers
// shorten a run of blanks at a fold to one.
func losesBlanks(name, value string) bool {
	return strings.Contains(value, "  ") && len(name)+len(": ")+len(value) > foldedLine
}

// wordRoom returns the room for the first encoded-word beside the field's name, in
// octets.
func wordRoom(name string) int { return maxEncodedLine - len(name) - len(": ") }

// structuredWords splits a field of tokens, msg-ids or URIs into words. It encodes
// words that are not ASCII, except in addresses and identifiers, where encoded-words
// are not allowed (RFC 2047 §5). The error is errForeign.
func structuredWords(name string, value headerText) ([]string, error) {
	var out, run []string
	flush := func() {
		if len(run) > 0 {
			out = append(out, encodedWords(value.charset, strings.Join(run, " "), wordRoom(name))...)
			run = nil
		}
	}
	for _, w := range blankFields(value.text) {
		isASCII := mailer.IsASCII(w)
		isAddress := strings.ContainsAny(w, addressMarks)
		if !isASCII && isAddress && value.foreign {
			return nil, errForeign
		}
		if !isASCII && !isAddress {
			run = append(run, w)
			continue
		}
		flush()
		out = append(out, " "+w)
	}
	flush()
	return out, nil
}

// addressMarks are the characters that only words of an address or an identifier
// hold.
const addressMarks = `<>@"`

// blankFields splits value at blanks and tabs; other white space is text.
func blankFields(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' })
}

// mailboxWords returns the words of an address field, with commas between mailboxes.
func mailboxWords(name string, list []mailer.Address) []string {
	var words []string
	for i, a := range list {
		words = append(words, phraseWords(name, a.Name)...)
		if email := mailer.HeaderAddrSpec(a.Email); a.Name == "" {
			words = append(words, " "+email)
		} else {
			words = append(words, " <"+email+">")
		}
		if i < len(list)-1 {
			words[len(words)-1] += ","
		}
	}
	return words
}

var encodedWordsOnly = regexp.MustCompile(`^(=\?[!-<>@-~]+\?[bBqQ]\?[!->@-~]*\?=( +|$))+$`)

// phraseWords returns the words of a display name: as it is where it consists of
// atoms or encoded-words, else as a quoted string or encoded.
func phraseWords(field, name string) []string {
	words := headerWords(name)
	trimmed := name == strings.Trim(name, " ") && !strings.Contains(name, "  ")
	switch {
	case name == "":
		return nil
	case encodedWordsOnly.MatchString(name) && trimmed && longestWord(words) <= maxEncodedLine:
		return words
	case !isPrintable(name):
	case isAtoms(name) && trimmed && !strings.Contains(name, "=?") && longestWord(words) <= maxEncodedLine:
		return words
	case len(name) < foldedLine-len(field)-4 && !strings.Contains(name, "=?"):
		return []string{" " + mailer.Quote(name)}
	}
	if !mailer.IsASCII(name) {
		return mixedPhrase(utf8Charset, name, wordRoom(field))
	}
	return encodedWords(utf8Charset, name, wordRoom(field))
}

func isAtoms(name string) bool {
	for i := range len(name) {
		if name[i] != ' ' && !mailer.IsAtext(name[i]) {
			return false
		}
	}
	return true
}

// isPrintable reports whether s is printable ASCII and blanks, without tabs.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func longestWord(words []string) int {
	longest := 0
	for _, w := range words {
		longest = max(longest, len(w))
	}
	return longest
}

// encodedWords returns text as encoded-words (RFC 2047): in Q, which is readable,
// unless most of the text is not ASCII. No character is split over two of them, as §5
// demands. room is the room for the first one beside the field's name, in octets. They
// are in UTF-8 where the charset does not have all characters of the text.
//
// The standard library's encoder is not used, because it ignores the length of the
// field's name and does not fold.
func encodedWords(charset, text string, room int) []string {
	encoder, charset, octets := newCharsetEncoder(charset, text)
	e := wordEncoder{charset: charset, room: max(min(room, maxEncodedWord), minEncodedWord)}
	e.base64 = 2*qLen(octets) > 5*len(octets)
	for _, r := range text {
		n := min(encoder.size(r), len(octets))
		e.add(octets[:n])
		octets = octets[n:]
	}
	e.flush()
	return e.words
}

// minEncodedWord is room for one character in either encoding and any charset, in
// octets.
const minEncodedWord = 40

type wordEncoder struct {
	charset string
	base64  bool
	room    int
	chunk   []byte
	size    int // of the chunk in Q
	words   []string
}

func (e *wordEncoder) add(char string) {
	size := e.size + qLen(char)
	if e.base64 {
		size = base64.StdEncoding.EncodedLen(len(e.chunk) + len(char))
	}
	if len(e.chunk) > 0 && len(e.charset)+len("=??q??=")+size > e.room {
		e.flush()
	}
	e.chunk = append(e.chunk, char...)
	e.size += qLen(char)
}

func (e *wordEncoder) flush() {
	if len(e.chunk) == 0 {
		return
	}
	word := " =?" + e.charset + "?q?" + string(appendQ(nil, e.chunk)) + "?="
	if e.base64 {
		word = " =?" + e.charset + "?b?" + base64.StdEncoding.EncodeToString(e.chunk) + "?="
	}
	e.words = append(e.words, word)
	e.chunk, e.size, e.room = e.chunk[:0], 0, maxEncodedWord
}

// isQSafe reports whether Q leaves c as it is, in phrases too (RFC 2047 §5 (3)).
func isQSafe(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!*+-/", c) >= 0
}

// qLen returns the length of s in Q, in octets.
func qLen(s string) int {
	n := len(s)
	for i := range len(s) {
		if !isQSafe(s[i]) && s[i] != ' ' {
			n += 2
		}
	}
	return n
}

const upperHex = "0123456789ABCDEF"

func appendQ(dst, text []byte) []byte {
	for _, c := range text {
		switch {
		case c == ' ':
			dst = append(dst, '_')
		case isQSafe(c):
			dst = append(dst, c)
		default:
			dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// isFieldName reports whether name is an ftext of RFC 5322 §3.6.8.
func isFieldName(name string) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' || name[i] == ':' {
			return false
		}
	}
	return name != ""
}
