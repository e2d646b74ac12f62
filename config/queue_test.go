package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestQueueURL: the URL of a database, which has a password, comes from the environment or from a file, and
// prints without user and password wherever it does.
func TestQueueURL(t *testing.T) {
	const value = "postgresql://shop:hunter2@h1:5432,h2:5432/mail?sslmode=verify-full&schema=my+mail&target_session_attrs=read-write"
	const url = "postgresql://shop:hunter2@h1:5432,h2:5432/mail?sslmode=verify-full&target_session_attrs=read-write"
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []env{{"MAILSIDECAR_QUEUE=" + value}, {"MAILSIDECAR_QUEUE_FILE=" + file}} {
		setenv(t, e)
		r := newReader(os.Getenv, os.Environ())
		s := r.service()
		if err := r.err(); err != nil {
			t.Fatal(err)
		}
		if !s.Queue.Shared() || s.Queue.Schema != "my mail" || s.Queue.URL.Reveal() != url {
			t.Errorf("queue = %q, schema %q", s.Queue.URL.Reveal(), s.Queue.Schema)
		}
		c := Config{Service: s, sources: r.sources}
		for _, printed := range []string{fmt.Sprint(s.Queue), fmt.Sprintf("%+v %#v", s.Queue, s.Queue), fmt.Sprintf("%+v", s), fmt.Sprint(c.Effective()), c.LogValue().String()} {
			if strings.Contains(printed, "hunter2") || strings.Contains(printed, "shop:") {
				t.Errorf("printed: %s", printed)
			}
		}
		want := Setting{"MAILSIDECAR_QUEUE", "postgres://h1:5432,h2:5432/mail", r.sources["MAILSIDECAR_QUEUE"]}
		if !slices.Contains(c.Effective(), want) {
			t.Errorf("Effective() = %v, want %v in it", c.Effective(), want)
		}
	}
}

// TestSharedWarnings: settings that mean nothing with a database are warned about where they are set.
func TestSharedWarnings(t *testing.T) {
	for free, want := range map[string]int{"": 0, "1GiB": 1} {
		setenv(t, env{"MAILSIDECAR_QUEUE=postgres://h/d", "MAILSIDECAR_MIN_FREE_DISK=" + free})
		r := newReader(os.Getenv, os.Environ())
		if r.service(); len(r.warnings) != want || r.err() != nil {
			t.Errorf("MIN_FREE_DISK=%s: %q, %v, want %d warnings", free, r.warnings, r.err(), want)
		}
	}
}
