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
