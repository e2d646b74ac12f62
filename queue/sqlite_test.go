package queue_test

import (
	"path/filepath"
	"testing"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

func openSQLite(t *testing.T, path string) *queue.SQLite {
	t.Helper()
	s, err := queue.OpenSQLite(t.Context(), queue.SQLiteOptions{Path: path, Retention: storetest.Retention})
	if err != nil {
		t.Fatalf("OpenSQLite = %v", err)
	}
	return s
}

func TestSQLiteConformance(t *testing.T) {
	paths := map[queue.Store]string{}
	open := func(t *testing.T, path string) queue.Store {
		s := openSQLite(t, path)
		paths[s] = path
		return s
	}
	storetest.Run(t, func(t *testing.T) queue.Store {
		return open(t, filepath.Join(t.TempDir(), "queue.db"))
	}, func(t *testing.T, s queue.Store) queue.Store {
		if err := s.Close(); err != nil {
			t.Fatalf("Close = %v", err)
		}
		return open(t, paths[s])
	})
}
