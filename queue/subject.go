package queue

import (
	"slices"
	"strings"
	"unicode"
)

// SubjectSearched is how many characters of a subject a search looks at: a subject may be long, and what is
// done for each message has a bound.
const SubjectSearched = 4000

// SubjectWords are the words of [Filter.Subject], which is divided at white space, each once. Letters are in the
// case that [LetterCases] has first.
func SubjectWords(text string) []string {
	words := strings.Fields(FoldCase(text))
	slices.Sort(words)
	return slices.Compact(words)
}

// FoldCase returns the text in one case, by Unicode's simple case folding: texts that differ in case
// alone are then the same.
func FoldCase(text string) string {
	return strings.Map(func(r rune) rune { return LetterCases(r)[0] }, text)
}

// LetterCases are the characters that differ from r in case alone, r among them, in the order of
// their code points.
func LetterCases(r rune) []rune {
	cases := []rune{r}
	for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
		cases = append(cases, c)
	}
	slices.Sort(cases)
	return cases
}

// HasSubject says that the subject has every word of [Filter.Subject], also within its words.
func (f Filter) HasSubject(subject string) bool {
	if f.Subject == "" {
		return true
	}
	n := 0
	for i := range subject {
		if n == SubjectSearched {
			subject = subject[:i]
			break
		}
		n++
	}
	subject = FoldCase(subject)
	for _, word := range SubjectWords(f.Subject) {
		if !strings.Contains(subject, word) {
			return false
		}
	}
	return true
}
