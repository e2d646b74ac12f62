package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/config"
)

// crashedQueue is the store of a server that was killed: the newest messages are in its log.
func crashedQueue(t *testing.T) (path string) {
	t.Helper()
	cfg := config.Default()
	cfg.Relays[0].Host, cfg.Relays[0].Ports = "127.0.0.1", config.Ladder{{Port: refusedPort(t)}}
	cfg.Service.Addr = "127.0.0.1:0"
	cfg.Service.Queue = config.Queue{Store: "sqlite", Path: filepath.Join(t.TempDir(), "queue.db")}
	url, stop := startService(t, cfg)
	defer stop() //nolint:errcheck // its files were copied
	c, err := newClient(url, "", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		a, err := c.do(t.Context(), http.MethodPost, "/v1/messages", http.Header{"Content-Type": {"application/json"}},
			fmt.Appendf(nil, `{"from": "a@example.com", "to": "b@example.org", "text": "%d"}`, n))
		if err != nil || a.status != http.StatusAccepted {
			t.Fatalf("post = %d %s, %v", a.status, a.body, err)
		}
	}
	path = filepath.Join(t.TempDir(), "queue.db")
	for _, suffix := range []string{"", "-wal"} {
		copyFile(t, cfg.Service.Queue.Path+suffix, path+suffix, func(data []byte) {})
	}
	return path
}

func copyFile(t *testing.T, from, to string, change func(data []byte)) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	change(data)
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedLogIsTold: no command on the store of a stopped server uses a damaged log without
// a word, and a check leaves it for the next start to find.
func TestDamagedLogIsTold(t *testing.T) {
	clearEnv(t)
	path := crashedQueue(t)
	damaged := func() string {
		t.Helper()
		copied := filepath.Join(t.TempDir(), "queue.db")
		copyFile(t, path, copied, func([]byte) {})
		copyFile(t, path+"-wal", copied+"-wal", func(data []byte) { data[32+24+100] ^= 1 }) // of the first frame
		t.Setenv("MAILSIDECAR_QUEUE", "sqlite:"+copied)
		return copied
	}
	t.Setenv("MAILSIDECAR_QUEUE", "sqlite:"+path)
	if status, out, errOut := run(t.Context(), "queue", "check"); status != 0 {
		t.Errorf("check of a sound store = %d %s %s", status, out, errOut)
	}
	sound := filepath.Join(t.TempDir(), "sound.db")
	if status, out, errOut := run(t.Context(), "queue", "backup", sound); status != 0 || errOut != "" {
		t.Fatalf("backup of a sound store = %d %s %s", status, out, errOut)
	}

	crashed := damaged()
	if status, out, errOut := run(t.Context(), "queue", "check"); status != exitRefused || !strings.Contains(out, "damaged: the log queue.db-wal") {
		t.Errorf("check = %d %s %s, want %d and that the log is damaged", status, out, errOut, exitRefused)
	}
	if status, out, errOut := run(t.Context(), "queue", "list"); !strings.Contains(errOut, "queue log damaged") {
		t.Errorf("the start after a check = %d %s %s, want it told that the log is damaged", status, out, errOut)
	}
	if _, err := os.Stat(crashed + "-wal.damaged"); err != nil {
		t.Errorf("the start after a check keeps no copy of the log: %v", err)
	}

	damaged()
	if status, out, errOut := run(t.Context(), "queue", "backup", filepath.Join(t.TempDir(), "copy.db")); status != 0 || !strings.Contains(errOut, "queue log damaged") {
		t.Errorf("backup = %d %s %s, want it told that the log is damaged", status, out, errOut)
	}

	crashed = damaged()
	status, out, errOut := run(t.Context(), "queue", "restore", "--yes", sound)
	kept, _ := filepath.Glob(crashed + ".before-restore-*")
	if status != 0 || !strings.Contains(errOut, "damaged") || len(kept) != 2 || !strings.Contains(out, kept[0]) || !strings.Contains(out, kept[1]) {
		t.Errorf("restore = %d %s %s, want it told that the old log is damaged, and both its files kept: %q", status, out, errOut, kept)
	}

	from := damaged()
	t.Setenv("MAILSIDECAR_QUEUE", "sqlite:"+path)
	if status, out, errOut := run(t.Context(), "queue", "restore", "--yes", from); status != 1 || !strings.Contains(errOut, "the log queue.db-wal") {
		t.Errorf("restore of files with a damaged log = %d %s %s, want it refused", status, out, errOut)
	}
}

// TestNotRestored: an error of a restore says one thing about the queue that is there.
func TestNotRestored(t *testing.T) {
	for _, tc := range []struct {
		err   string
		begun bool
		want  string
	}{
		{"no space left", false, "no space left; nothing was changed"},
		{"no space left", true, `no space left. q.db may be the queue that was there, or the restored one; each is whole: look with "mailsidecar queue check" and "queue list" before the start`},
		{"another process reads it; nothing was changed", true, "another process reads it; nothing was changed"},
		{"another process reads it; nothing was changed", false, "another process reads it; nothing was changed"},
	} {
		if got := notRestored(errors.New(tc.err), tc.begun, "q.db").Error(); got != tc.want {
			t.Errorf("notRestored(%q, %v) = %q, want %q", tc.err, tc.begun, got, tc.want)
		}
	}
}
