//go:build unix

package integration

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailsidecar/integration/machine"
)

// TestPipeAsFile: no setting that names a file makes the start wait for a named pipe into
// which no program writes.
func TestPipeAsFile(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	base := environment{"SMTP_HOST": "localhost", "SMTP_USERNAME": "shop", "SMTP_PASSWORD": "secret", "MAILSIDECAR_ADDR": freeAddr(t), "MAILSIDECAR_DATA_DIR": t.TempDir()}
	oauth := environment{"SMTP_PASSWORD": "", "SMTP_OAUTH2_PROVIDER": "google", "SMTP_OAUTH2_CLIENT_ID": "x"}
	for name, more := range map[string]environment{
		"SMTP_PASSWORD_FILE": {"SMTP_PASSWORD": ""}, "SMTP_TLS_CA_FILE": {}, "SMTP_TLS_CERT_FILE": {"SMTP_TLS_KEY_FILE": pipe}, "MAILSIDECAR_API_KEYS_FILE": {},
		"SMTP_OAUTH2_REFRESH_TOKEN_FILE": oauth, "SMTP_OAUTH2_CLIENT_SECRET_FILE": oauth, "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE": oauth,
		"SMTP_OAUTH2_ASSERTION_FILE": oauth, "SMTP_OAUTH2_CERT_FILE": oauth, "MAILSIDECAR_TLS_CERT_FILE": {"MAILSIDECAR_TLS_KEY_FILE": pipe, "MAILSIDECAR_TLS_ADDR": "127.0.0.1:0"},
		"MAILSIDECAR_DATA_DIR": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := base.with(more).with(environment{name: pipe})
			code, output := exitCode(t, command(t, env, "serve"))
			if code != 78 && code != 1 || !strings.Contains(output, strings.TrimSuffix(name, "_FILE")) {
				t.Errorf("exit status %d, want 78 and %s in:\n%s", code, name, output)
			}
		})
	}
	t.Run("SIGTERM", func(t *testing.T) {
		t.Parallel()
		cmd := command(t, base.with(environment{"SMTP_PASSWORD": "", "SMTP_PASSWORD_FILE": pipe}), "serve")
		var log machine.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		machine.Await(t, "end after the first SIGTERM", func() bool { return len(ended) > 0 })
		<-ended
		if strings.Contains(log.String(), "SMTP_PASSWORD") {
			t.Errorf("the server went on after SIGTERM:\n%s", log.String())
		}
	})
}
