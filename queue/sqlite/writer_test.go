package sqlite

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
	"mailsidecar/queue/storetest"
)

func TestConformanceFaults(t *testing.T) {
	storetest.RunFaults(t, func(t *testing.T, f *storetest.Faults) queue.Store {
		s := openStore(t, dbPath(t))
		s.fault = f.Commit
		return s
	})
}

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

// TestReadyAgain: after a failed write, and a disk that is well again, the queue is
// ready within seconds though nobody sends mail. Until then it is not, and the disk
// is tried once in a while.
func TestReadyAgain(t *testing.T) {
	for name, bad := range map[string]time.Duration{"one hiccup": 0, "an hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, path)
				q := queuetest.Start(t, s, nil, queuetest.NewRelay(queuetest.Accept))
				time.Sleep(30 * time.Second)
				if bad == 0 {
					_ = s.write(t.Context(), func(*writer) error { return errors.New("hiccup") })
				} else {
					failWrites(t, s, bad)
				}
				if q.Ready(t.Context()) == nil {
					t.Error("ready just after a failed write")
				}
				time.Sleep(probeInterval + time.Millisecond)
				if err := q.Ready(t.Context()); err != nil {
					t.Errorf("not ready %v after the disk was well again: %v", probeInterval, err)
				}
			})
		})
	}
}

// failWrites lets no write succeed for so long.
func failWrites(t *testing.T, s *Store, d time.Duration) {
	t.Helper()
	for _, readOnly := range []bool{true, false} {
		synctest.Wait() // the writer waits for work
		if _, err := s.writer.conn.ExecContext(t.Context(), fmt.Sprintf("PRAGMA query_only = %v", readOnly)); err != nil {
			t.Fatal(err)
		}
		if readOnly {
			if _, err := s.Insert(t.Context(), queue.Batch{}); err == nil {
				t.Fatal("Insert into a store that takes no writes = nil")
			}
			time.Sleep(d)
		}
	}
}
