package cli

import (
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
)

// TestLongestWait: MAILSIDECAR_WAIT may be as long as the server waits, and no longer.
func TestLongestWait(t *testing.T) {
	clearEnv(t)
	for wait, want := range map[time.Duration]bool{api.MaxWait: true, api.MaxWait + time.Second: false} {
		t.Setenv("MAILSIDECAR_WAIT", wait.String())
		if _, err := config.LoadClient(); (err == nil) != want {
			t.Errorf("MAILSIDECAR_WAIT=%s: %v, want it taken: %v", wait, err, want)
		}
	}
}
