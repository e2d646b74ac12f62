package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStoreKey: the key that seals logins has 32 octets, as they are or in hexadecimal digits; another length is told, and not
// the key.
func TestStoreKey(t *testing.T) {
	dir := t.TempDir()
	raw := bytes.Repeat([]byte{0xfe}, 32)
	for content, wrong := range map[string]string{
		string(raw):                     "",
		strings.Repeat("fe", 32):        "",
		strings.Repeat("fe", 32) + "\n": "",
		string(raw) + "\n":              "which has 33 octets",
		"hunter2hunter2hunter2hunter2":  "which has 28 octets",
		strings.Repeat("fe", 31):        "which has 62 octets",
		"":                              "which has 0 octets",
	} {
		path := filepath.Join(dir, "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		setenv(t, good.with("MAILSIDECAR_QUEUE=postgres://u:p@db/q", "MAILSIDECAR_STORE_KEY_FILE="+path))
		s, _, err := LoadService()
		switch {
		case wrong == "":
			if err != nil || s.StoreKey.Reveal() != string(raw) {
				t.Errorf("%d octets: %v, key of %d octets", len(content), err, len(s.StoreKey.Reveal()))
			}
		case err == nil || !strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), "openssl rand -hex 32") || strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%d octets: %v, want %q, and not what is in it", len(content), err, wrong)
		}
	}
	setenv(t, good.with("MAILSIDECAR_QUEUE=postgres://u:p@db/q", "MAILSIDECAR_STORE_KEY_FILE="+filepath.Join(dir, "none")))
	if _, _, err := LoadService(); err == nil || !strings.Contains(err.Error(), "MAILSIDECAR_STORE_KEY_FILE names") || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a file that is not there: %v", err)
	}
	setenv(t, good.with("MAILSIDECAR_STORE_KEY_FILE="+filepath.Join(dir, "key")))
	if _, warnings, err := LoadService(); err != nil || !strings.Contains(strings.Join(warnings, "\n"), "means nothing without PostgreSQL") {
		t.Errorf("without PostgreSQL: %q, %v, want a warning", warnings, err)
	}
}
