package sqlite

import (
	"path/filepath"
	"testing"
)

func dbPath(t *testing.T) string { return filepath.Join(t.TempDir(), "data", "queue.db") }

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// openUnsynced opens a store that spares a test with thousands of commits their
// fsyncs, which only a power cut would tell from none.
func openUnsynced(t *testing.T, path string) *Store {
	t.Helper()
	s := openStore(t, path)
	if err := s.writer.exec("PRAGMA synchronous = off"); err != nil {
		t.Fatal(err)
	}
	return s
}
