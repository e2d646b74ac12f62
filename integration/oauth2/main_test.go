// Package oauth2_test runs the binary against OAuth2 servers made with two libraries,
// and a relay that asks them whose token it is shown. It is a module of its own, so that
// the product does not depend on those libraries.
package oauth2_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"mailsidecar/mailer/relaytest"
)

// binary is the product, built for these tests.
var binary string

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // zitadel/oidc logs there
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "mailsidecar-oauth2-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "mailsidecar")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Dir, build.Stderr = "../..", os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build:", err)
			return 1
		}
		return m.Run()
	}())
}

// limit is how long anything that a test waits for may take. It says nothing about the
// product.
const limit = time.Minute

// await waits until done returns true.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %v", what, limit)
		}
	}
}

// sidecar is the product with the settings of one machine.
type sidecar struct {
	settings map[string]string
	dir      string // MAILSIDECAR_DATA_DIR
	relay    *relaytest.Relay
}

// newSidecar configures a relay that accepts the issuer's tokens, with script.
func newSidecar(t *testing.T, i *issuer, script relaytest.Script) *sidecar {
	t.Helper()
	relay := relaytest.New(t, relaytest.Options{Token: i.accepts}, script)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, relaytest.AuthorityPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &sidecar{dir: filepath.Join(dir, "data"), relay: relay}
	s.settings = map[string]string{
		"SMTP_HOST": "127.0.0.1", "SMTP_PORTS": strconv.Itoa(relay.Listen(t)), "SMTP_TLS_CA_FILE": ca,
		"SMTP_OAUTH2_PROVIDER": "microsoft", "SMTP_OAUTH2_CLIENT_ID": clientID,
		"SMTP_OAUTH2_AUTHORIZE_URL": i.authorizeURL, "SMTP_OAUTH2_TOKEN_URL": i.tokenURL, "SMTP_OAUTH2_DEVICE_URL": i.deviceURL,
		"MAILSIDECAR_DATA_DIR": s.dir, "MAILSIDECAR_ADDR": "127.0.0.1:0",
	}
	return s
}

// command returns the product's command in this machine's environment.
func (s *sidecar) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	for name, value := range s.settings {
		if value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// run runs a command to its end and returns its exit status and all that it printed.
func (s *sidecar) run(t *testing.T, args ...string) (status int, printed string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := s.command(ctx, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
