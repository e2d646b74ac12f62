package queue_test

import (
	"testing"

	"mailsidecar/queue"
)

// TestCommandsNarrow: a command by a filter concerns no message that the filter leaves out.
func TestCommandsNarrow(t *testing.T) {
	set := queue.SetOf
	waiting := queue.Filter{Among: set(queue.StatusQueued, queue.StatusDeferred)}
	for _, tc := range []struct {
		what      string
		got, want queue.StatusSet
	}{
		{"Retryable of all", queue.Filter{}.Retryable().Among, set(queue.StatusDeferred, queue.StatusHeld, queue.StatusPartial, queue.StatusFailed)},
		{"Retryable of what waits", waiting.Retryable().Among, waiting.Among},
		{"Cancelable of all", queue.Filter{}.Cancelable().Among, set(queue.StatusQueued, queue.StatusDeferred, queue.StatusHeld)},
		{"Cancelable of what waits", waiting.Cancelable().Among, waiting.Among},
	} {
		if tc.got != tc.want {
			t.Errorf("%s = %b, want %b", tc.what, tc.got, tc.want)
		}
	}
}
