package service

import (
	"slices"
	"strings"
	"testing"

	"mailsidecar/config"
	"mailsidecar/handler/compat/all"
)

// TestCompatNames: MAILSIDECAR_COMPAT takes the names of all APIs, and no other.
func TestCompatNames(t *testing.T) {
	names := all.Names()
	t.Setenv("MAILSIDECAR_COMPAT", strings.Join(names, ","))
	t.Setenv("MAILSIDECAR_DATA_DIR", t.TempDir())
	s, _, err := config.LoadService()
	if err != nil || !slices.Equal(s.CompatAPIs(), names) {
		t.Errorf("MAILSIDECAR_COMPAT=%s = %v, %v", strings.Join(names, ","), s.CompatAPIs(), err)
	}
	for value, want := range map[string]bool{"all": true, "none": false} {
		t.Setenv("MAILSIDECAR_COMPAT", value)
		if s, _, err = config.LoadService(); err != nil || (s.CompatAPIs() == nil) != want {
			t.Errorf("MAILSIDECAR_COMPAT=%s = %v, %v, want nil: %v", value, s.CompatAPIs(), err, want)
		}
	}
}
