package compose

import (
	"strings"

	"mailsidecar/mailer"
)

// mixedWords encodes unstructured text (RFC 5322 §2.2.1) that is not ASCII. Encoded-words
// that stand in it are kept, and so is ASCII text apart from them.
func mixedWords(charset, text string, room int) []string {
	return mix(charset, text, room, true)
}

// mixedPhrase does so for a display name or comment, in which only encoded-words may
// stand beside others: atoms could end it.
func mixedPhrase(charset, text string, room int) []string {
	return mix(charset, text, room, false)
}

func mix(charset, text string, room int, plain bool) []string {
	if !strings.Contains(text, "=?") {
		return encodedWords(charset, text, room)
	}
	m := wordMixer{charset: charset, room: room, plain: plain}
	start, pos := 0, 0
	for pos < len(text) {
		i := strings.Index(text[pos:], "=?")
		if i < 0 {
			break
		}
		pos += i
		word, n := standingWord(text[pos:])
		if n == 0 {
			pos += len("=?")
			continue
		}
		m.text(text[start:pos], start > 0, true)
		m.add(" " + word)
		pos += n
		start = pos
	}
	m.text(text[start:], start > 0, false)
	return m.words
}

// wordMixer writes encoded-words beside those that stand.
type wordMixer struct {
	charset string
	room    int
	plain   bool // ASCII may stay as it is
	words   []string
}

// text writes what stands before, between or after encoded-words: after and before say
// on which side one is. Readers show blanks beside other text, and none between two
// encoded-words.
func (m *wordMixer) text(s string, after, before bool) {
	if strings.Trim(s, " \t") == "" {
		return
	}
	apart := (!after || isBlank(s[0])) && (!before || isBlank(s[len(s)-1]))
	if m.plain && apart && isPrintable(s) {
		m.add(headerWords(strings.Trim(s, " "))...)
		return
	}
	if !after {
		s = strings.TrimLeft(s, " \t")
	}
	if !before {
		s = strings.TrimRight(s, " \t")
	}
	m.add(encodedWords(m.charset, s, m.room)...)
}

func (m *wordMixer) add(words ...string) {
	m.words = append(m.words, words...)
	m.room = maxEncodedWord
}

// standingWord returns the encoded-word that s begins with, and its length in s; zero
// without one. What RFC 2047 does not allow in it is written as it does: blanks, and in Q
// characters that would end a phrase.
func standingWord(s string) (word string, n int) {
	charset, rest, found := cutShort(strings.TrimPrefix(s, "=?"))
	if !found || charset == "" || !isAtoms(charset) || strings.ContainsAny(charset, " =") {
		return "", 0
	}
	encoding, rest, found := cutShort(rest)
	if !found || len(encoding) != 1 || !strings.Contains("bBqQ", encoding) {
		return "", 0
	}
	encoded, rest, found := cutShort(rest)
	if !found || !strings.HasPrefix(rest, "=") || !isPrintable(encoded) {
		return "", 0
	}
	if strings.ToLower(encoding) == "b" {
		encoded = strings.ReplaceAll(encoded, " ", "")
		if strings.ContainsFunc(encoded, func(r rune) bool { return !isBase64(byte(r)) }) {
			return "", 0
		}
	} else {
		encoded = safeQ(encoded)
	}
	return "=?" + charset + "?" + encoding + "?" + encoded + "?=", len(s) - len(rest) + len("=")
}

// safeQ returns text in Q so that it may stand in a phrase, too (RFC 2047 §5 (3)).
func safeQ(encoded string) string {
	var b []byte
	for i := range len(encoded) {
		if c := encoded[i]; c == '=' || c == '_' {
			b = append(b, c)
		} else {
			b = appendQ(b, []byte{c})
		}
	}
	return string(b)
}

// maxStandingWord limits an encoded-word that is kept, in octets, far over the 75 of RFC
// 2047 §2: many programs write a whole subject as one.
const maxStandingWord = 900

// cutShort cuts s at the next question mark, unless that is further than a word may be
// long.
func cutShort(s string) (before, after string, found bool) {
	before, _, found = strings.Cut(s[:min(len(s), maxStandingWord)], "?")
	if !found || !mailer.IsASCII(before) {
		return "", "", false
	}
	return before, s[len(before)+1:], true
}
