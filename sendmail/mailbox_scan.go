package sendmail

import "strings"

// listToken is one token of an address list.
type listToken struct {
	kind byte // one of the kinds below, or the separator itself
	// text is what the token says: of quotes, comments and angle brackets what is in
	// them. raw is what was written.
	text, raw string
	// spaced says that a blank stands before it.
	spaced bool
}

// The kinds of tokens besides the comma, the semicolon and the colon.
const (
	wordToken    = 'w'
	quotedToken  = '"'
	commentToken = '('
	angleToken   = '<'
)

// maxToken limits quotes, comments and angle brackets, in octets: a longer one is not
// meant as such. It keeps the time to read a list linear.
const maxToken = 998

// scanList splits a list into its tokens. A quote, parenthesis or angle bracket that
// is not closed is an ordinary character of a word.
func scanList(list string) []listToken {
	var tokens []listToken
	spaced := false
	for list != "" {
		if isBlank(list[0]) {
			spaced = true
			list = list[1:]
			continue
		}
		t, size := scanToken(list)
		t.raw, t.spaced = list[:size], spaced
		tokens = append(tokens, t)
		spaced = false
		list = list[size:]
	}
	return tokens
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// scanToken reads the token that s begins with, and its size.
func scanToken(s string) (listToken, int) {
	switch s[0] {
	case ',', ';', ':':
		return listToken{kind: s[0], text: s[:1]}, 1
	case '"':
		if n := quotedLen(s); n > 0 {
			return listToken{kind: quotedToken, text: unescape(s[1 : n-1])}, n
		}
	case '(':
		if n := commentLen(s); n > 0 {
			return listToken{kind: commentToken, text: unescape(s[1 : n-1])}, n
		}
	case '<':
		if content, n := angleContent(s); n > 0 {
			return listToken{kind: angleToken, text: content}, n
		}
	}
	n := wordLen(s)
	return listToken{kind: wordToken, text: s[:n]}, n
}

// wordLen returns the length of the word that s begins with, whatever its first
// character is.
func wordLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case isBlank(c) || c == '<' || c == ',' || c == ';' || c == ':':
			return i
		case c == '(' && commentLen(s[i:]) > 0:
			return i
		case c == '[' && s[i-1] == '@':
			i += max(strings.IndexByte(s[i:min(len(s), i+maxToken)], ']'), 0)
		}
	}
	return len(s)
}

// quotedLen returns the length of the quoted string that s begins with; zero when it
// is none: it is not closed, goes on behind the closing quote, or holds a whole address
// with a comma behind it, so that its quotes belong to two names.
func quotedLen(s string) int {
	for i := 1; i < min(len(s), maxToken); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			after := s[i+1:]
			if after != "" && !strings.ContainsRune(" \t\r\n<@,;:(.\"", rune(after[0])) || holdsListedAddress(s[1:i]) {
				return 0
			}
			return i + 1
		}
	}
	return 0
}

// holdsListedAddress says that text has an address in angle brackets with a separator
// behind it.
func holdsListedAddress(text string) bool {
	for {
		_, after, found := strings.Cut(text, "<")
		if !found {
			return false
		}
		inside, rest, closed := strings.Cut(after, ">")
		rest = strings.TrimLeft(rest, " \t")
		if closed && strings.Contains(inside, "@") && rest != "" && (rest[0] == ',' || rest[0] == ';') {
			return true
		}
		text = after
	}
}

// commentLen returns the length of the comment that s begins with, which may hold
// others; zero when it is not closed.
func commentLen(s string) int {
	depth := 0
	for i := 0; i < min(len(s), maxToken); i++ {
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
	return 0
}

// angleContent returns what is in the angle brackets that s begins with, and their
// length. A bracket that is not closed ends before the next one, or before a separator
// that does not belong to a route (RFC 5322 §4.4); it counts only with an address right
// behind it, otherwise the length is zero.
func angleContent(s string) (string, int) {
	isRoute := strings.HasPrefix(s[1:], "@")
	end := min(len(s), maxToken)
	for i := 1; i < end; i++ {
		switch c := s[i]; {
		case c == '"':
			i += max(quotedLen(s[i:])-1, 0)
		case c == '>':
			return s[1:i], i + 1
		case c == '<' || c == ';' || c == ',' && !isRoute:
			end = i
		}
	}
	first, _, _ := strings.Cut(strings.TrimLeft(s[1:end], " \t"), " ")
	if !strings.Contains(first, "@") {
		return "", 0
	}
	return first, end
}

func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// phrase joins tokens to the text that they were, without quotes, with one blank where
// there were several, and without stray angle brackets.
func phrase(tokens []listToken) string {
	var b strings.Builder
	for _, t := range tokens {
		if t.isStray() {
			continue
		}
		if t.spaced && b.Len() > 0 {
			b.WriteByte(' ')
		}
		switch t.kind {
		case commentToken:
			b.WriteString("(" + t.text + ")")
		case angleToken:
			b.WriteString(t.raw)
		default:
			b.WriteString(t.text)
		}
	}
	return b.String()
}

func (t listToken) isStray() bool {
	return t.kind == angleToken && strings.TrimSpace(t.text) == "" || t.kind == wordToken && strings.Trim(t.text, "<>") == ""
}

func (t listToken) mayHoldAddress() bool {
	return (t.kind == wordToken || t.kind == angleToken) && strings.Contains(t.text, "@")
}

func (t listToken) isAngleAddress() bool {
	_, ok := t.angleAddress()
	return ok
}

// angleAddress returns the address in angle brackets, without what people and programs
// put around it there: blanks, quotes, "mailto:" and a route.
func (t listToken) angleAddress() (string, bool) {
	if t.kind != angleToken {
		return "", false
	}
	text := strings.TrimSpace(t.text)
	if strings.HasPrefix(text, "@") {
		_, text, _ = strings.Cut(text, ":")
	}
	if len(text) > len("mailto:") && strings.EqualFold(text[:len("mailto:")], "mailto:") {
		text = text[len("mailto:"):]
	}
	if strings.HasPrefix(text, `"`) && quotedLen(text) == len(text) {
		text = unescape(text[1 : len(text)-1])
	}
	if !strings.HasPrefix(text, `"`) {
		before, after, _ := strings.Cut(text, "@")
		text, _, _ = strings.Cut(strings.TrimRight(before, " \t")+"@"+strings.TrimLeft(after, " \t"), " ")
	}
	if trimmed, ok := trimAddress(text); ok {
		text = trimmed
	}
	local, _, ok := cutAddress(text)
	return text, ok && local != ""
}

// isDomainOf says that the token is the @domain of a quoted local part.
func (t listToken) isDomainOf(quoted listToken) bool {
	return t.kind == wordToken && !t.spaced && len(t.text) > 1 && t.text[0] == '@' && quoted.kind == quotedToken
}

// bareAddress returns the address that a word is.
func (t listToken) bareAddress() (string, bool) {
	if t.kind != wordToken {
		return "", false
	}
	return trimAddress(t.text)
}

// trimAddress returns the address in a word: without the dot and the brackets that
// stand behind it, and without quotes or brackets around it. ok is false when the word
// is no address, or holds something else besides.
func trimAddress(word string) (address string, ok bool) {
	at := strings.LastIndexByte(word, '@')
	if at <= 0 {
		return "", false
	}
	if strings.HasPrefix(word[at+1:], "[") && strings.HasSuffix(word, "]") {
		return word, true // an address literal
	}
	end := at + 1
	for end < len(word) && isDomainOctet(word[end]) {
		end++
	}
	domain, rest := strings.TrimRight(word[at+1:end], "."), word[end:]
	local := word[:at]
	if i := strings.IndexByte(`'[{(`, local[0]); i >= 0 && len(local) > 1 && strings.IndexByte(rest, `']})`[i]) >= 0 {
		local = local[1:]
	}
	if domain == "" || strings.Trim(rest, `>'"]}).!?`) != "" {
		return "", false
	}
	return local + "@" + domain, true
}

func isDomainOctet(c byte) bool {
	return c >= 0x80 || c == '-' || c == '.' || c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
