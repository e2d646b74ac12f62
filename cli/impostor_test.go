package cli

import (
	"net/http"
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

// TestUntrusted: a command that meets a server whose certificate is not trusted says which
// setting to change.
func TestUntrusted(t *testing.T) {
	clearEnv(t)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	t.Setenv("MAILSIDECAR_URL", server.URL)
	for _, args := range [][]string{{"send", "--to", "a@example.org", "--text", "x"}, {"healthcheck"}, {"queue", "list"}} {
		status, out, errOut := run(t.Context(), args...)
		if status == 0 || !strings.Contains(errOut, "MAILSIDECAR_TLS_CA_FILE must name a file") {
			t.Errorf("Run(%q) = %d, %s%s, want MAILSIDECAR_TLS_CA_FILE in it", args, status, out, errOut)
		}
	}
}
