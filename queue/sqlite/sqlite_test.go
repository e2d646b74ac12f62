package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
	"mailsidecar/queue/storetest"
)

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Retention: storetest.Retention})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	return s
}

func TestConformance(t *testing.T) {
	paths := map[queue.Store]string{}
	noted := func(t *testing.T, path string) queue.Store {
		s := open(t, path)
		paths[s] = path
		return s
	}
	storetest.Run(t, func(t *testing.T) queue.Store {
		return noted(t, filepath.Join(t.TempDir(), "queue.db"))
	}, func(t *testing.T, s queue.Store) queue.Store {
		if err := s.Close(); err != nil {
			t.Fatalf("Close = %v", err)
		}
		if r, err := sqlite.Verify(t.Context(), paths[s]); err != nil || !r.Sound() {
			t.Errorf("Verify = %+v, %v", r, err)
		}
		return noted(t, paths[s])
	})
}

// TestCreate: what lies where a new store shall be, or its unfinished file.
func TestCreate(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"nothing":           func(string) error { return nil },
		"an unfinished one": func(path string) error { return os.WriteFile(path+".new", []byte("SQLite format 3"), 0o600) },
		"an empty file":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "queue.db")
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s := open(t, path)
				if err := s.Check(t.Context()); err != nil {
					t.Errorf("Check = %v", err)
				}
				if err := s.Close(); err != nil {
					t.Errorf("Close = %v", err)
				}
			}
			if _, err := os.Lstat(path + ".new"); err == nil {
				t.Error("an unfinished file remains")
			}
		})
	}
}
