//go:build unix

package certs

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPlanted: what is no file in the place of one is neither waited for nor written to.
func TestPlanted(t *testing.T) {
	for name, plant := range map[string]func(path, outside string) error{
		"named pipe": func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"directory":  func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"link to a pipe": func(path, outside string) error {
			return os.Symlink(filepath.Join(outside, "pipe"), path)
		},
		"link to nothing": func(path, outside string) error { return os.Symlink(filepath.Join(outside, "nothing"), path) },
	} {
		dir, outside := t.TempDir(), t.TempDir()
		path := filepath.Join(dir, authorityFile)
		if err := syscall.Mkfifo(filepath.Join(outside, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := plant(path, outside); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: OpenAuthority() = %v, want what to do", name, err)
		}
		if _, err := OpenFiles(path, path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: OpenFiles() = %v, want the file", name, err)
		}
		for in, want := range map[string]int{dir: 1, outside: 1} {
			if entries, err := os.ReadDir(in); err != nil || len(entries) != want {
				t.Errorf("%s: %d files, %v, want %d", name, len(entries), err, want)
			}
		}
	}
}
