package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestSecretInPlaceOfFile: a secret that was set in place of the name of its file shows
// up nowhere: not in problems, warnings or the configuration that is logged.
func TestSecretInPlaceOfFile(t *testing.T) {
	for prefix, spec := range map[string]any{"SMTP": new(Relay), "MAILSIDECAR": new(Service), "MAILSIDECAR_CLIENT": new(Client)} {
		client := prefix == "MAILSIDECAR_CLIENT"
		for v := range variables(strings.TrimSuffix(prefix, "_CLIENT"), spec) {
			for _, name := range v.names() {
				if !strings.HasSuffix(name, "_FILE") {
					continue
				}
				for _, secret := range []string{"EwBwA8l6BAAU0wDj", "eyJhbGciOiJ.IUzI1.NiIsInR5", ".starts-with-a-dot"} {
					hidden(t, client, name, secret)
				}
			}
		}
	}
}

func hidden(t *testing.T, client bool, name, secret string) {
	t.Helper()
	t.Chdir(t.TempDir())
	setenv(t, good.with(name+"="+secret, "SMTP_OAUTH2_CLIENT_ID=id"))
	if client {
		c, err := LoadClient()
		if strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("%s: LoadClient() = %v, %v", name, c, err)
		}
		return
	}
	c, warnings, err := Load()
	for what, text := range map[string]string{"error": fmt.Sprint(err), "warnings": fmt.Sprint(warnings), "configuration": fmt.Sprint(c.LogValue())} {
		if strings.Contains(text, secret) {
			t.Errorf("%s: the %s show the value: %s", name, what, text)
		}
	}
}
