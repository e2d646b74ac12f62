package relays

import "strings"

// phrase is one of the alternatives of a condition. A reply has few words, and the rules
// have thousands of phrases: so a phrase is only looked for where a word of the reply
// begins as it does, see beginnings.
type phrase struct {
	text string
	how  howFound
	at   uint16 // of its first three octets in beginnings
}

// howFound is where a phrase is looked for.
type howFound uint8

const (
	atWord   howFound = iota // where a word begins
	anywhere                 // in the words: Chinese and Japanese set no blanks
	asItIs                   // in the text with its signs, such as "="
)

// condition has phrases of which one must occur.
type condition []phrase

// newCondition reads phrases that | separates.
func newCondition(phrases string) condition {
	list := make(condition, 0, 1+strings.Count(phrases, "|"))
	for text := range strings.SplitSeq(phrases, "|") {
		p := phrase{text: text}
		switch {
		case strings.ContainsAny(text, "=/#"):
			p.how = asItIs
		case len(text) < 3, text[0] >= 0xe3:
			p.how = anywhere
		default:
			p.at = placeOf(text)
		}
		list = append(list, p)
	}
	return list
}

// conditionsOf reads conditions that must all hold.
func conditionsOf(list []string) []condition {
	conditions := make([]condition, len(list))
	for i, phrases := range list {
		conditions[i] = newCondition(phrases)
	}
	return conditions
}

// beginnings is a set of the first three octets of words. It may say that it has one that
// it has not.
type beginnings [16]uint64

// placeOf returns the place of the first three octets of text.
func placeOf(text string) uint16 {
	h := uint32(text[0])<<16 | uint32(text[1])<<8 | uint32(text[2])
	return uint16(h * 0x9e3779b1 >> 22)
}

func (b *beginnings) has(at uint16) bool { return b[at>>6]&(1<<(at&63)) != 0 }

// beginningsOf returns the set for a text with a blank before each word.
func beginningsOf(text string) (b beginnings) {
	for i := 1; i+3 <= len(text); i++ {
		if text[i-1] == ' ' {
			at := placeOf(text[i:])
			b[at>>6] |= 1 << (at & 63)
		}
	}
	return b
}

// hasAny reports whether any of the phrases occurs.
func (w *words) hasAny(c condition) bool {
	for i := range c {
		if p := &c[i]; (p.how != atWord || w.begin.has(p.at)) && w.has(p) {
			return true
		}
	}
	return false
}

// has reports whether the phrase occurs.
func (w *words) has(p *phrase) bool {
	if p.how == asItIs {
		return strings.Contains(w.raw, p.text)
	}
	inWord := p.how == anywhere && p.text != "" && p.text[0] >= 0xe3
	for rest := w.text; ; {
		i := strings.Index(rest, p.text)
		switch {
		case i < 0:
			return false
		case inWord, i > 0 && rest[i-1] == ' ':
			return true
		}
		rest = rest[i+1:]
	}
}
