package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/service"
)

// startService runs a server until stop, which returns what Run returned.
func startService(t *testing.T, cfg config.Config) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := service.Start(ctx, service.Options{Config: cfg, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s.URL(), func() error {
		cancel()
		return <-done
	}
}

// The queue's commands do the same through a server and on the store itself.
func TestQueueCommands(t *testing.T) {
	clearEnv(t)
	t.Chdir(t.TempDir())
	cfg := config.Default()
	cfg.Relays[0].Host, cfg.Relays[0].Ports = "127.0.0.1", config.Ladder{{Port: refusedPort(t)}, {Port: refusedPort(t)}}
	cfg.Service.Addr = "127.0.0.1:0"
	cfg.Service.Queue = config.Queue{Store: "sqlite", Path: filepath.Join(t.TempDir(), "queue.db")}
	url, stop := startService(t, cfg)
	c, err := newClient(url, "", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.do(t.Context(), http.MethodPost, "/v1/messages", http.Header{"Content-Type": {"application/json"}, "Prefer": {"wait=10"}},
		[]byte(`{"from": "a@example.com", "to": "b@example.org", "text": "x"}`))
	if err != nil || a.status != http.StatusAccepted {
		t.Fatalf("post = %d %s, %v", a.status, a.body, err)
	}
	var m api.Message
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatal(err)
	}

	t.Setenv("MAILSIDECAR_URL", url)
	useQueue(t, m.ID, m.MessageID, "online.eml")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MAILSIDECAR_URL", "")
	t.Setenv("MAILSIDECAR_QUEUE", cfg.Service.Queue.String())
	useQueue(t, m.ID, m.MessageID, "offline.eml")
	if _, _, errOut := run(t.Context(), "queue", "list", "--json"); !strings.Contains(errOut, "No server uses "+cfg.Service.Queue.Path+":") {
		t.Errorf("queue list without a server says on stderr %q, want the path of the store", errOut)
	}

	online, err := os.ReadFile("online.eml")
	if err != nil {
		t.Fatal(err)
	}
	offline, err := os.ReadFile("offline.eml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(online, offline) || !bytes.Contains(online, []byte("To: b@example.org\r\n")) {
		t.Errorf("exported %q online and %q offline", online, offline)
	}
	if _, out, _ := run(t.Context(), "queue", "list", "--json"); strings.Contains(out, "0001-") || strings.Contains(out, `"attempts"`) {
		t.Errorf("queue list --json prints zero values:\n%s", out)
	}
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{"queue", "export", m.ID, "-o", "online.eml"}, 1, "export"},
		{[]string{"queue", "cancel", "--domain", "EXAMPLE.org", "--dry-run"}, 0, "1 message matches"},
		{[]string{"queue", "cancel", "--domain", "example.com", "--yes"}, 0, "messages canceled: 0"},
		{[]string{"queue", "cancel", "--domain", "example.org"}, 64, "--yes"},
		{[]string{"queue", "list", "--id", m.ID[:3]}, 64, "first 4 or more digits"},
		{[]string{"queue", "list", "--id", m.ID[:10], "--recipient-state", "deferred", "--domain", "example.org"}, 0, m.ID},
		{[]string{"queue", "cancel", m.ID}, 0, "canceled"},
		{[]string{"queue", "cancel", m.ID}, 65, "(nothing_to_cancel)"},
		{[]string{"queue", "list", "--status", "lost"}, 64, "status"},
		{[]string{"queue", "retry", "--status", "lost"}, 64, "status"},
		{[]string{"queue", "retry", m.ID}, 65, "nothing_to_retry"},
		{[]string{"queue", "export", m.ID}, 65, "content_gone"},
		{[]string{"queue", "list", "--status", "canceled"}, 0, m.ID},
		{[]string{"queue", "list", "--status", "deferred"}, 0, "no message"},
	} {
		if status, out, errOut := run(t.Context(), c.args...); status != c.status || !strings.Contains(out+errOut, c.say) {
			t.Errorf("Run(%q) = %d, want %d and %q; it says\n%s%s", c.args, status, c.status, c.say, out, errOut)
		}
	}
}

func useQueue(t *testing.T, id, messageID, file string) {
	t.Helper()
	for _, c := range []struct {
		args []string
		say  []string
	}{
		{[]string{"queue", "list"}, []string{id, "deferred", "a@example.com", "b@example.org"}},
		{[]string{"queue", "list", "--json", "--since", "1h"}, []string{`"id": "` + id + `"`}},
		{[]string{"queue", "list", "--message-id", messageID}, []string{id, "normal"}},
		{[]string{"queue", "list", "--message-id", strings.Trim(messageID, "<>")}, []string{id}},
		{[]string{"queue", "list", "--message-id", "<another@example.com>"}, []string{"no message"}},
		{[]string{"queue", "show", id}, []string{"message " + id + ": deferred", "Priority       normal", "Attempt 1,", "127.0.0.1", "b@example.org", "no port answered: ", "refused, "}},
		{[]string{"queue", "show", id, "--json"}, []string{`"attempts": [`}},
		{[]string{"queue", "retry", id}, []string{id}},
		{[]string{"queue", "export", id, "-o", file}, []string{file + ": "}},
	} {
		status, out, errOut := run(t.Context(), c.args...)
		for _, say := range c.say {
			if status != 0 || !strings.Contains(out, say) {
				t.Errorf("Run(%q) = %d, want 0 and %q; it says\n%s%s", c.args, status, say, out, errOut)
			}
		}
	}
}

// Looking at a queue creates none.
func TestQueueCreatesNothing(t *testing.T) {
	clearEnv(t)
	path := filepath.Join(t.TempDir(), "queue.db")
	t.Setenv("MAILSIDECAR_QUEUE", "sqlite:"+path)
	t.Setenv("MAILSIDECAR_ADDR", "127.0.0.1:1")
	if status, _, errOut := run(t.Context(), "queue", "list"); status != exitUnavailable || !strings.Contains(errOut, "no answer from the server at http://127.0.0.1:1") {
		t.Errorf("queue list = %d %q", status, errOut)
	}
	if _, err := os.Stat(path); err == nil {
		t.Errorf("%s was created", path)
	}
}

func TestPointInTime(t *testing.T) {
	now := time.Date(2030, 1, 31, 8, 0, 0, 0, time.FixedZone("", 3600))
	for _, c := range []struct {
		in, want string
		end      bool
	}{
		{"", "", false},
		{"2h", "2030-01-31T05:00:00Z", false},
		{"7d", "2030-01-24T07:00:00Z", false},
		{"2029-01-31T08:00:00+01:00", "2029-01-31T07:00:00Z", false},
		{"yesterday", "2030-01-29T23:00:00Z", false},
		{"yesterday", "2030-01-30T23:00:00Z", true},
		{"yesterday 14:00", "2030-01-30T13:00:00Z", true},
	} {
		if got, err := pointInTime("since", c.in, now, c.end); err != nil || got != c.want {
			t.Errorf("pointInTime(%q, %t) = %q, %v, want %q", c.in, c.end, got, err, c.want)
		}
	}
	for _, bad := range []string{"tomorrow", "03/04/2026", "-"} {
		if got, err := pointInTime("since", bad, now, false); err == nil || exitStatus(err) != exitUsage || !strings.HasPrefix(err.Error(), "--since is ") {
			t.Errorf("pointInTime(%q) = %q, %v, want a usage error", bad, got, err)
		}
	}
}

func TestStoryTellsWhy(t *testing.T) {
	for why, want := range map[string]string{"failover: smtp.a.example paused": "\n  why this relay: failover: smtp.a.example paused\n", "": ""} {
		var b strings.Builder
		printAttempt(&b, 1, api.Attempt{Relay: "smtp.b.example", Why: why})
		if got := strings.Contains(b.String(), "why this relay"); got != (want != "") || !strings.Contains(b.String(), want) {
			t.Errorf("an attempt with why %q is printed as %q", why, b.String())
		}
	}
}
