package queue_test

import (
	"testing"
	"time"

	"mailsidecar/queue"
)

func TestTimeOf(t *testing.T) {
	at := time.Date(2030, 1, 31, 8, 0, 0, 123_456_789, time.UTC)
	for id, want := range map[string]time.Time{
		queue.NewID(at): at.Truncate(time.Millisecond), queue.FirstID(at): at.Truncate(time.Millisecond), "": {}, "id-1": {},
	} {
		if got := queue.TimeOf(id); got != want {
			t.Errorf("TimeOf(%q) = %v, want %v", id, got, want)
		}
	}
}

// TestParseIDPrefix: with hyphens or without, in either case, and nothing else.
func TestParseIDPrefix(t *testing.T) {
	for text, want := range map[string]string{
		"01a2": "01a2", "01A2F3": "01a2f3", "01a2f3c4-": "01a2f3c4", "01a2f3c4-d": "01a2f3c4d", "01a2f3c4d": "01a2f3c4d",
		"0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55": "0196a3c27d1e7c409f0e3b1d6a1f2c55", "0196a3c27d1e7c409f0e3b1d6a1f2c55": "0196a3c27d1e7c409f0e3b1d6a1f2c55",
	} {
		if got, err := queue.ParseIDPrefix(text); got != want || err != nil {
			t.Errorf("ParseIDPrefix(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "01a", "01-a2", "01a2-f3c4", "01ag", "01a2f3c4--d", " 01a2", "0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c550", "-----", "%%%%", "01a2*"} {
		if got, err := queue.ParseIDPrefix(text); err == nil {
			t.Errorf("ParseIDPrefix(%q) = %q, want an error", text, got)
		}
	}
}
