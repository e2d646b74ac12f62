package smtp

import (
	"strings"
	"unicode"
)

// refusalWords returns what is the same in a relay's reply to different messages: its
// words in lower case, without addresses, names of hosts, URLs, numbers, times and ids.
func refusalWords(text string) string {
	var kept []string
	for _, token := range strings.FieldsFunc(text, separatesWords) {
		if key, _, ok := strings.Cut(token, "="); ok {
			token = key
		}
		if word := strings.ToLower(strings.Trim(token, ".:?!")); word != "" && !isVarying(token) && !isDatePart(word) {
			kept = append(kept, word)
		}
	}
	return strings.Join(kept, " ")
}

func separatesWords(c rune) bool {
	return unicode.IsSpace(c) || strings.ContainsRune("<>()[]{}\"'`,;|*#", c)
}

// isVarying reports whether a token is likely to differ from one reply to the next: it
// has a digit, an @, a full stop, colon or the like inside as hosts and URLs have, or
// capitals after small letters, as ids have.
func isVarying(token string) bool {
	inner := strings.Trim(token, ".:?!")
	if strings.ContainsAny(inner, "@.:?!/\\_") || strings.ContainsFunc(token, unicode.IsDigit) {
		return true
	}
	small := false
	for _, c := range token {
		if unicode.IsUpper(c) && small {
			return true
		}
		small = small || unicode.IsLower(c)
	}
	return false
}

// isDatePart reports whether a word is part of a date.
func isDatePart(word string) bool {
	switch word {
	case "mon", "tue", "wed", "thu", "fri", "sat", "sun", "utc", "gmt",
		"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec":
		return true
	default:
		return false
	}
}
