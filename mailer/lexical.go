package mailer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The tokens that addresses and other structured header fields are made of
// (RFC 5322 §3.2).

// CutQuotedString cuts the quoted-string (§3.2.4) that s begins with off its rest.
// Its content has neither the quotes nor the backslashes. ok is false where s
// begins with no quote, or with one that is not closed.
func CutQuotedString(s string) (content, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// Quote returns content as a quoted-string.
func Quote(content string) string {
	return `"` + quotedPairs.Replace(content) + `"`
}

// quotedPairs puts a backslash before what needs one in a quoted-string.
var quotedPairs = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Unquote returns the content of s where s is one quoted-string, and else s.
// Quotes inside other text are part of it.
func Unquote(s string) string {
	if content, rest, ok := CutQuotedString(s); ok && rest == "" {
		return content
	}
	return s
}

// StripComments removes comments (§3.2.2) outside quoted-strings.
func StripComments(s string) string {
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && (quoted || depth > 0):
			if depth == 0 {
				b.WriteString(s[i : i+2])
			}
			i++
			continue
		case quoted:
			quoted = c != '"'
		case c == '(':
			depth++
			continue
		case c == ')' && depth > 0:
			depth--
			continue
		case c == '"' && depth == 0:
			quoted = true
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// IsAtext reports whether c may stand in an atom (§3.2.3).
func IsAtext(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// IsASCII reports whether s has no octet over 127.
func IsASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Lower returns s in lower case, in which addresses are compared. A letter beyond ASCII
// never becomes one of ASCII, as the Kelvin sign would become a k: two addresses would be
// one.
func Lower(s string) string {
	return strings.Map(func(r rune) rune {
		if lower := unicode.ToLower(r); lower >= utf8.RuneSelf || r < utf8.RuneSelf {
			return lower
		}
		return r
	}, s)
}
