package tally

import (
	"strings"
	"unicode/utf8"
)

// maxPattern is the length of a pattern, in octets.
const maxPattern = 160

// Pattern returns the text with a * for each part that differs from mail to mail: addresses,
// numbers, queue ids, links. Text that is too long ends in a *.
func Pattern(text string) string {
	cut := len(text) > 4*maxPattern
	if cut {
		text = text[:4*maxPattern]
	}
	var b strings.Builder
	for i, word := range strings.Split(strings.ToValidUTF8(text, "*"), " ") {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(wordPattern(word))
	}
	p := b.String()
	if len(p) < maxPattern && !cut {
		return p
	}
	p = p[:min(len(p), maxPattern-1)]
	for !utf8.ValidString(p) {
		p = p[:len(p)-1]
	}
	return strings.TrimRight(p, "*") + "*"
}

const (
	opening = "<([{\"'"
	closing = ">)]}\"'.,;:!?"
)

// wordPattern is that of one word; what stands around it stays.
func wordPattern(word string) string {
	core := strings.TrimLeft(word, opening)
	before := word[:len(word)-len(core)]
	core = strings.TrimRight(core, closing)
	after := word[len(before)+len(core):]
	if !differs(core) {
		return word
	}
	return before + "*" + after
}

// differs says that the word is probably about one mail.
func differs(word string) bool {
	if strings.ContainsRune(word, '@') || strings.Contains(word, "://") {
		return true
	}
	digits := 0
	for i := range len(word) {
		if '0' <= word[i] && word[i] <= '9' {
			digits++
		}
	}
	return digits == len(word) && digits > 3 || digits > 0 && len(word) > 5
}

// Matches reports whether the text is as the pattern says, in which * is anything. Case of
// ASCII letters does not count.
func Matches(pattern, text string) bool {
	parts := strings.Split(lower(pattern), "*")
	text = lower(text)
	if len(parts) == 1 {
		return text == parts[0]
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, found := strings.Cut(text, part)
		if !found {
			return false
		}
		text = rest
	}
	return true
}

func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
