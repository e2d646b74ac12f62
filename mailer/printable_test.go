package mailer

import "testing"

func TestPrintable(t *testing.T) {
	tests := []struct {
		in, want string
		limit    int
	}{
		{"abcdef", "abc", 3},
		{"abü", "ab", 3},
		{"ab\x01", "ab", 5},
		{"ab\x01", `ab\x01`, 6},
		{"a\x1b[31m\tb\xffc\u202ed", `a\x1b[31m\x09b\xffc\u{202e}d`, 100},
		{"grüße", "grüße", 100},
	}
	for _, tt := range tests {
		if got := Printable(tt.in, tt.limit); got != tt.want {
			t.Errorf("Printable(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}
