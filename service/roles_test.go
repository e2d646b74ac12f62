package service

import (
	"testing"

	"mailsidecar/config"
	"mailsidecar/handler/keys"
)

// TestRoleNames: MAILSIDECAR_KEY_ROLES takes the roles that the server knows, and no other.
func TestRoleNames(t *testing.T) {
	t.Setenv("MAILSIDECAR_API_KEYS", "shop:0123456789abcdef")
	t.Setenv("MAILSIDECAR_DATA_DIR", t.TempDir())
	for _, role := range []string{"send", "read", "admin", "none", ""} {
		t.Setenv("MAILSIDECAR_KEY_ROLES", "shop:"+role)
		s, _, err := config.LoadService()
		if _, known := keys.ParseRoles([]string{role}); (known == nil) != (err == nil) {
			t.Errorf("MAILSIDECAR_KEY_ROLES=shop:%s: config says %v, keys %v", role, err, known)
		}
		if err == nil && (len(s.Keys) != 1 || s.Keys[0].Roles[0] != role) {
			t.Errorf("keys = %v", s.Keys)
		}
	}
}
