package compose

import (
	"strings"

	"mailsidecar/mailer"
)

// isTextField reports whether people read the field. Programs may read any other, and
// many of them know no encoded-words: in ASCII it is never encoded.
func isTextField(key string) bool {
	switch key {
	case "subject", "comments", "keywords", "thread-topic", "organization", "content-description":
		return true
	}
	return false
}

// isLine reports whether s is printable ASCII, blanks and tabs.
func isLine(s string) bool {
	for i := range len(s) {
		if (s[i] < ' ' || s[i] > '~') && s[i] != '\t' {
			return false
		}
	}
	return true
}

// fits reports whether no word is longer than a line.
func fits(words []string) bool { return longestWord(words) <= maxLine }

// asciiWords splits a value in ASCII that must not be encoded into words, and reports
// whether they fit in lines of 998 octets. JSON stays in one line where it can; else it
// is folded behind commas, where a blank more changes nothing.
func asciiWords(name, value string) ([]string, bool) {
	value = strings.Trim(value, " \t")
	words := splitWords(value, true)
	if strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[") {
		if len(name)+len(": ")+len(value) <= maxLine {
			return []string{" " + value}, true
		}
		words = jsonWords(value)
	}
	if !fits(words) {
		words = headerWords(value)
	}
	return words, fits(words)
}

// maxJSONLine is the length of a line of folded JSON in octets: longer values alone
// make a longer one.
const maxJSONLine = 900

// jsonWords splits JSON behind commas outside strings, in pieces that make a line each.
func jsonWords(value string) []string {
	var words []string
	start, comma, quoted := 0, 0, false
	cut := func(end int) {
		if piece := strings.Trim(value[start:end], " \t"); piece != "" {
			words = append(words, " "+piece)
		}
		start = end
	}
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			if i+1-start > maxJSONLine && comma > start {
				cut(comma)
			}
			comma = i + 1
		}
	}
	if len(value)-start > maxJSONLine && comma > start {
		cut(comma)
	}
	cut(len(value))
	return words
}

// textWords encodes text for people. Encoded-words beside 8-bit text are kept.
func textWords(charset, name, value string) []string {
	if mailer.IsASCII(value) {
		return encodedWords(charset, value, wordRoom(name))
	}
	return mixedWords(charset, value, wordRoom(name))
}
