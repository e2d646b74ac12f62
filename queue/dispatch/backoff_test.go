package dispatch

import (
	"testing"
	"time"
)

func TestPauseDelay(t *testing.T) {
	tests := []struct {
		failures int
		login    bool
		want     time.Duration
	}{
		{1, false, time.Second},
		{2, false, 2 * time.Second},
		{99, false, 5 * time.Minute},
		{1, true, time.Minute},
		{5, true, 15 * time.Minute},
		{99, true, 15 * time.Minute},
	}
	for _, c := range tests {
		if got := pauseDelay(c.failures, c.login, 0.5); got != c.want {
			t.Errorf("pauseDelay(%d, %v) = %v, want %v", c.failures, c.login, got, c.want)
		}
	}
}
