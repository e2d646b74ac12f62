package stored

import (
	"errors"
	"slices"
	"testing"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// TestLane: lanes sort as they are served, and are read as they were written.
func TestLane(t *testing.T) {
	var texts []string
	for _, p := range []mailer.Priority{mailer.PriorityHigh, mailer.PriorityNormal, mailer.PriorityBulk} {
		for _, key := range []string{"", "app", "zz"} {
			l := queue.Lane{Priority: p, Key: key}
			text := LaneText(l)
			if got, err := ParseLane(text); got != l || err != nil {
				t.Errorf("ParseLane(%q) = %+v, %v, want %+v", text, got, err, l)
			}
			texts = append(texts, text)
		}
	}
	if !slices.IsSorted(texts) {
		t.Errorf("lanes sort as %q", texts)
	}
	for _, text := range []string{"", "3app", "app", "/"} {
		if _, err := ParseLane(text); !errors.Is(err, queue.ErrCorrupt) {
			t.Errorf("ParseLane(%q) = %v, want ErrCorrupt", text, err)
		}
	}
}
