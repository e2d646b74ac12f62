package sqlite

import (
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
)

// patientStep hands over an outcome and returns how long that took to be
// stored; insertAfter is when a new message comes, zero for never.
func patientStep(t *testing.T, s *Store, awaited bool, insertAfter time.Duration) time.Duration {
	t.Helper()
	if insertAfter > 0 {
		time.AfterFunc(insertAfter, func() {
			if _, err := s.Insert(t.Context(), queue.Batch{}); err != nil {
				t.Errorf("Insert = %v", err)
			}
		})
	}
	began := time.Now()
	if _, err := s.Record(t.Context(), []queue.Outcome{{ID: queue.NewID(began), At: began, Awaited: awaited}}); err != nil {
		t.Errorf("Record = %v", err)
	}
	took := time.Since(began)
	synctest.Wait()
	return took
}

func TestOutcomesShareTheCommitOfANewMessage(t *testing.T) {
	for _, c := range []struct {
		name    string
		awaited bool
		insert  time.Duration
		took    time.Duration
		commits int64
	}{
		{"alone", false, 0, shareWait, 1},
		{"with a new message", false, 2 * time.Millisecond, 2 * time.Millisecond, 1},
		{"awaited", true, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s, err := Open(t.Context(), Options{Path: path + "/queue.db"})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close() //nolint:errcheck // nothing is left to be written
				took := patientStep(t, s, c.awaited, c.insert)
				if got := s.writer.commits.Load(); took != c.took || got != c.commits {
					t.Errorf("Record took %v with %d commits, want %v with %d", took, got, c.took, c.commits)
				}
			})
		})
	}
}
