package mailer

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	const secret = "a+secret/of some=length, and more"
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"a", "a"},
		{"nothing of it", "nothing of it"},
		{"it is " + secret + ".", "it is [redacted]."},
		{secret + secret + " " + secret, "[redacted] [redacted]"},
		{"a%2Bsecret%2Fof+some%3Dlength%2C+and+more", "[redacted]"},
		{"too long: " + secret[:20], "too long: [redacted]"},
		{"too long: " + secret[:15], "too long: " + secret[:15]},
		{"..." + secret[10:], "...[redacted]"},
		{secret[:16] + "\n" + secret[16:], "[redacted]\n[redacted]"},
		{"pass word pw", "[redacted] word pw"},
	} {
		if got := Redact(tt.in, []string{"", "pw", "pass", secret}); got != tt.want {
			t.Errorf("Redact(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	long := strings.Repeat("x", 1<<20)
	if got := Redact(long, []string{strings.Repeat("y", 16<<10)}); got != long {
		t.Error("Redact() changed a long text without a secret")
	}
}
