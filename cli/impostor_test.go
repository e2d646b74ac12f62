package cli

import (
	"net/http/httptest"
	"strings"
	"testing"

	"mailsidecar/api/apitest"
)

// TestImpostors: no command takes the answer of another server for a success.
func TestImpostors(t *testing.T) {
	clearEnv(t)
	for name, handler := range apitest.Impostors() {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			t.Setenv("MAILSIDECAR_URL", server.URL)
			send := []string{"send", "--to", "a@example.org", "--text", "x"}
			for _, args := range [][]string{send, append(send, "--json"), {"healthcheck"}, {"queue", "list"}, {"queue", "show", "x"}} {
				status, out, errOut := run(t.Context(), args...)
				ready := args[0] == "healthcheck" && strings.HasPrefix(name, "200 with ok")
				if (status == 0) != ready {
					t.Errorf("Run(%q) = %d, want another status than 0; it says\n%s%s", args, status, out, errOut)
				}
			}
		})
	}
}
