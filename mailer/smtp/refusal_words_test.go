package smtp

import (
	"strings"
	"testing"
	"unicode"
)

func TestRefusalWords(t *testing.T) {
	for _, tt := range []struct{ one, other, want string }{
		{
			"Sorry, <a@example.org>: too many mails today (id 4f2a-77) [192.0.2.1]", "sorry, <b@example.net>: Too many mails today (id 99ab-01) [198.51.100.7]",
			"sorry too many mails today id",
		},
		{
			"Limit reached until Sun, 05 Oct 2025 19:22:44 +0000 - gsmtp", "Limit reached until Mon, 06 Oct 2025 07:01:00 +0000 - gsmtp",
			"limit reached until - gsmtp",
		},
		{
			"Rejected. See https://example.net/e?ip=192.0.2.1&c=hi AQHxyzKJdkf [mx1.example.net]", "rejected. see https://example.net/e?ip=192.0.2.9&c=ho BQabcKLm [mx2.example.net]",
			"rejected see",
		},
		{"session=deadbeef closed", "session=feedface closed", "session closed"},
		{"", "", ""},
		{"грузовой Лимит", "ГРУЗОВОЙ лимит", "грузовой лимит"},
	} {
		if one, other := refusalWords(tt.one), refusalWords(tt.other); one != other || one != tt.want {
			t.Errorf("refusalWords() = %q and %q, want %q for both", one, other, tt.want)
		}
	}
	if one, other := refusalWords("daily limit"), refusalWords("content rejected"); one == other {
		t.Errorf("refusalWords() = %q for other words, too", one)
	}
}

func FuzzRefusalWords(f *testing.F) {
	for _, seed := range []string{"550 5.7.1 <a@example.org>: no (AS1234) [x.example.net]", "limit until Sun, 05 Oct 2025", "id=aBc==", "\x00\xff", strings.Repeat("a.", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := refusalWords(text)
		if strings.ContainsFunc(got, unicode.IsDigit) || strings.Contains(got, "@") {
			t.Errorf("refusalWords(%q) = %q, with numbers or addresses", text, got)
		}
		if again := refusalWords(got); again != got {
			t.Errorf("refusalWords(%q) = %q, and of that %q", text, got, again)
		}
	})
}
