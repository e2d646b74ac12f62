package queue

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestSubjectWords(t *testing.T) {
	for text, want := range map[string]string{
		"": "[]", " \t\u00a0": "[]", "b  a\tb B": "[A B]", "Straße": "[STRAßE]", "ς Σ": "[Σ]",
	} {
		if got := fmt.Sprint(SubjectWords(text)); got != want {
			t.Errorf("SubjectWords(%q) = %s, want %s", text, got, want)
		}
	}
}

// FuzzHasSubject: a subject has its own words and parts of them, in whatever case.
func FuzzHasSubject(f *testing.F) {
	f.Add("Your order 1042: Größe", 3, 9)
	f.Add("ΣΊΓΜΑΣ \u212a ſ", 0, 4)
	f.Add("\xff\xfe a\x00b", 1, 2)
	f.Fuzz(func(t *testing.T, subject string, from, to int) {
		if utf8.RuneCountInString(subject) > SubjectSearched {
			return
		}
		if !(Filter{Subject: subject}).HasSubject(subject) {
			t.Fatalf("%q has not its own words %q", subject, SubjectWords(subject))
		}
		if from < 0 || to > len(subject) || from > to || !utf8.ValidString(subject) || !utf8.ValidString(subject[from:to]) {
			return
		}
		part := subject[from:to]
		for _, word := range []string{part, strings.Map(unicode.SimpleFold, part)} {
			if !(Filter{Subject: word}).HasSubject(subject) {
				t.Fatalf("%q has not %q", subject, word)
			}
		}
	})
}
