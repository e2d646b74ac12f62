package mailer

import "testing"

func TestCutQuotedString(t *testing.T) {
	tests := []struct {
		in, content, rest string
		ok                bool
	}{
		{`"a b" <x>`, "a b", " <x>", true},
		{`"a \"b\" \\"@c`, `a "b" \`, "@c", true},
		{`""`, "", "", true},
		{`a "b"`, "", "", false},
		{`"a`, "", "", false},
		{`"a\"`, "", "", false},
		{"", "", "", false},
	}
	for _, tt := range tests {
		content, rest, ok := CutQuotedString(tt.in)
		if content != tt.content || rest != tt.rest || ok != tt.ok {
			t.Errorf("CutQuotedString(%s) = %q, %q, %v, want %q, %q, %v", tt.in, content, rest, ok, tt.content, tt.rest, tt.ok)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "a b", `a "b" \`, "ü"} {
		if got := Unquote(Quote(s)); got != s {
			t.Errorf("Unquote(%s) = %q, want %q", Quote(s), got, s)
		}
	}
	for _, s := range []string{"a", `a "b"`, `"a" b`, `"a`} {
		if got := Unquote(s); got != s {
			t.Errorf("Unquote(%s) = %q, want it as it is", s, got)
		}
	}
}

func TestStripComments(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a (b (c) d) e", "a  e"},
		{`"a (b)" (c\)) d`, `"a (b)"  d`},
		{`"a\" (b)"`, `"a\" (b)"`},
		{"a (b", "a "},
		{"a) b", "a) b"},
	}
	for _, tt := range tests {
		if got := StripComments(tt.in); got != tt.want {
			t.Errorf("StripComments(%s) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
