package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCopyStoppedAtOnce: Ctrl-C before anything is marked does not say that a queue is locked.
func TestCopyStoppedAtOnce(t *testing.T) {
	clearEnv(t)
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("SMTP_HOST", "127.0.0.1")
	t.Setenv("SMTP_AUTH", "none")
	t.Setenv("MAILSIDECAR_QUEUE", "sqlite:"+filepath.Join(dir, "old.db"))
	for name, content := range map[string]string{"old.db": "", "to.url": "sqlite:" + filepath.Join(dir, "new.db")} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	status, _, errOut := run(ctx, "queue", "copy", "--to-file", "to.url")
	if status != exitTransient || !strings.Contains(errOut, "stopped: nothing was changed") {
		t.Errorf("queue copy that is stopped at once = %d, says\n%s", status, errOut)
	}
}
