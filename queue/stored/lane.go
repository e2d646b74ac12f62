package stored

import (
	"fmt"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// LaneText is how a lane is stored, so that lanes sort as they are served: the
// priority as a digit, 0 for high, and the key.
func LaneText(l queue.Lane) string { return string(rune('1'-l.Priority)) + l.Key }

// ParseLane is the inverse of LaneText. Its error is [queue.ErrCorrupt].
func ParseLane(text string) (queue.Lane, error) {
	if text == "" || text[0] < '0' || text[0] > '2' {
		return queue.Lane{}, fmt.Errorf("%w: lane %q", queue.ErrCorrupt, text)
	}
	return queue.Lane{Priority: mailer.Priority('1' - int(text[0])), Key: text[1:]}, nil
}
