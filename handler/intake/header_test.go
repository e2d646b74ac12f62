package intake

import (
	"strings"
	"testing"
)

func TestIdempotencyKey(t *testing.T) {
	for in, want := range map[string]string{
		"x": "x", `"x"`: "x", " x ": "x", `"a\"b\\c"`: `a"b\c`, `"`: `"`, "a b": "a b", strings.Repeat("k", 256): strings.Repeat("k", 256),
	} {
		got, err := IdempotencyKey(map[string][]string{"Idempotency-Key": {in}})
		if got != want || err != nil {
			t.Errorf("IdempotencyKey(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", `""`, "ä", "a\x1fb", strings.Repeat("k", 257)} {
		if got, err := IdempotencyKey(map[string][]string{"Idempotency-Key": {in}}); err == nil {
			t.Errorf("IdempotencyKey(%q) = %q, want an error", in, got)
		}
	}
}
