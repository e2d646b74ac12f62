package compose

import (
	"fmt"
	"strings"

	"mailsidecar/mailer"
)

// appendParam appends one parameter of a MIME field, on a line of its own. A value
// that is not short and plain is written twice: by RFC 2231 (percent-encoded UTF-8,
// in continuations), and then as an ASCII fallback for old readers. Readers that know
// RFC 2231 but take the first of two parameters, such as Python's, see the right one.
// go-mail would put an encoded-word into a quoted string, which RFC 2047 §5 forbids
// and some readers show as it is.
func appendParam(dst []byte, name, value string) []byte {
	if isPlainParam(value) {
		return fmt.Appendf(dst, ";\r\n %s=\"%s\"", name, value)
	}
	dst = appendExtendedParam(dst, name, value)
	return fmt.Appendf(dst, ";\r\n %s=\"%s\"", name, asciiFallback(value))
}

const maxPlainParam = 60

func isPlainParam(value string) bool {
	return len(value) <= maxPlainParam && isPrintable(value) && !strings.ContainsAny(value, `"\/%`) &&
		!strings.Contains(value, "=?")
}

// asciiFallback returns value with an underscore for each doubtful character, cut in
// the middle so that a file's extension stays.
func asciiFallback(value string) string {
	plain := []byte(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\/%?=`, r) {
			return '_'
		}
		return r
	}, value))
	if len(plain) > maxPlainParam {
		plain = append(plain[:maxPlainParam-10], plain[len(plain)-10:]...)
	}
	return string(plain)
}

// maxParamName is the longest name of a parameter that can be written by RFC 2231, in
// octets: each continuation repeats it, and needs room for a character.
const maxParamName = 40

// appendExtendedParam appends the parameter in the form of RFC 2231: whole, or in
// numbered continuations. The name has at most maxParamName octets.
func appendExtendedParam(dst []byte, name, value string) []byte {
	const room = foldedLine - len(" *000*=UTF-8'';")
	var pieces []string
	piece := ""
	for _, r := range value {
		char := percentEncode(string(r))
		if len(name)+len(piece)+len(char) > room {
			pieces = append(pieces, piece)
			piece = ""
		}
		piece += char
	}
	pieces = append(pieces, piece)
	if len(pieces) == 1 {
		return fmt.Appendf(dst, ";\r\n %s*=UTF-8''%s", name, piece)
	}
	dst = fmt.Appendf(dst, ";\r\n %s*0*=UTF-8''%s", name, pieces[0])
	for i, p := range pieces[1:] {
		dst = fmt.Appendf(dst, ";\r\n %s*%d*=%s", name, i+1, p)
	}
	return dst
}

func percentEncode(char string) string {
	var b strings.Builder
	for i := range len(char) {
		c := char[i]
		if isQSafe(c) && c != '*' && c != '/' || c == '.' || c == '_' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
	}
	return b.String()
}

// mimeParam is one parameter of a received MIME field.
type mimeParam struct {
	name  string // in lower case
	value string // unquoted
	raw   string // name=value as it was written, trimmed
}

// maxParams limits the parameters of one field.
const maxParams = 1000

// parseParams reads the value of Content-Type or Content-Disposition as leniently as
// mail readers do: an unquoted boundary may hold any character except semicolons and
// blanks, while mime.ParseMediaType refuses most of them. It returns false where there
// are more parameters than it reads.
func parseParams(value string) (mediaType string, params []mimeParam, complete bool) {
	piece, rest, more := cutParam(stripSpacedComments(value))
	mediaType = strings.ToLower(strings.Trim(piece, " \t"))
	for more {
		if len(params) == maxParams {
			return mediaType, params, false
		}
		piece, rest, more = cutParam(rest)
		piece = strings.Trim(piece, " \t")
		name, text, found := strings.Cut(piece, "=")
		if !found {
			continue
		}
		text = strings.TrimLeft(text, " \t")
		if content, _, ok := mailer.CutQuotedString(text); ok {
			text = content
		}
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		params = append(params, mimeParam{name: name, value: text, raw: piece})
	}
	return mediaType, params, true
}

// stripSpacedComments removes the comments of a value that stand at its beginning or behind a
// blank or a semicolon. Others are part of what is before them, whatever RFC 2045 says:
// filename=Rechnung(1).pdf.
func stripSpacedComments(value string) string {
	if strings.IndexByte(value, '(') < 0 {
		return value
	}
	var b strings.Builder
	quoted, done := false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '(' && !quoted && (i == 0 || strings.IndexByte(" \t;", value[i-1]) >= 0):
			b.WriteString(value[done:i])
			i += commentLen(value[i:]) - 1
			done = i + 1
		}
	}
	return b.String() + value[done:]
}

// cutParam cuts value at the first semicolon outside quoted strings. It returns false
// where there is none.
func cutParam(value string) (piece, rest string, found bool) {
	quoted := false
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && quoted:
			i++
		case value[i] == '"':
			quoted = !quoted
		case value[i] == ';' && !quoted:
			return value[:i], value[i+1:], true
		}
	}
	return value, "", false
}
