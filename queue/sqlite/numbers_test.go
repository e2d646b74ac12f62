package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// awaitCounted waits until the numbers are those of all messages.
func awaitCounted(t *testing.T, s *Store, now time.Time) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		stats, err := s.Stats(t.Context(), queue.AnyKey, now)
		if err != nil {
			t.Fatal(err)
		}
		if !stats.Counting {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatal("the numbers are not counted within a minute")
		}
	}
}

// smallSteps makes a count take many steps.
func smallSteps(t *testing.T) {
	t.Helper()
	before := recountStep
	t.Cleanup(func() { recountStep = before })
	recountStep = 3
}

// killedCopy is the store as a kill at this moment leaves it.
func killedCopy(t *testing.T, s *Store) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "killed.db")
	err := s.view(t.Context(), func(v *session) error {
		var n int
		if err := v.row(`SELECT count(*) FROM sqlite_schema`, nil, &n); err != nil { // holds the log
			return err
		}
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(s.opts.Path + suffix)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path+suffix, data, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNumbersAfterCrash: after a kill the numbers are counted anew, while others change
// what is counted.
func TestNumbersAfterCrash(t *testing.T) {
	smallSteps(t)
	for seed := range uint64(4) {
		s := openUnsynced(t, dbPath(t))
		now := storetest.Churn(t, s, seed, storetest.Start)
		s = openUnsynced(t, killedCopy(t, s))
		if stats, err := s.Stats(t.Context(), queue.AnyKey, now); err != nil || !stats.Counting {
			t.Errorf("Stats after a kill = %v, %v, want them to be counted", stats.Counting, err)
		}
		now = storetest.Churn(t, s, seed+100, now)
		awaitCounted(t, s, now)
		storetest.CheckStats(t, s, now)
		now = storetest.Churn(t, s, seed+200, now)
		storetest.CheckStats(t, s, now)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := Verify(t.Context(), s.opts.Path); err != nil || !r.Sound() {
			t.Errorf("Verify = %+v, %v", r, err)
		}
		s = openUnsynced(t, s.opts.Path)
		if stats, err := s.Stats(t.Context(), queue.AnyKey, now); err != nil || stats.Counting {
			t.Errorf("Stats after an orderly end = %v, %v, want them at once", stats.Counting, err)
		}
		storetest.CheckStats(t, s, now)
	}
}

// TestNumbersOfOlderSchema: a store that a version without numbers wrote has them all soon
// after the start.
func TestNumbersOfOlderSchema(t *testing.T) {
	smallSteps(t)
	all := migrations
	t.Cleanup(func() { migrations = all })
	migrations = all[:numbersSchema-1]
	s := openUnsynced(t, dbPath(t))
	later := func(change string) { // what the code reads, and the older schema lacks
		for _, column := range []string{"resent_of TEXT", "resent_as TEXT"} {
			if err := s.writer.exec(fmt.Sprintf(change, column)); err != nil {
				t.Fatal(err)
			}
		}
	}
	later("ALTER TABLE messages ADD COLUMN %s")
	now := storetest.Churn(t, s, 7, storetest.Start)
	later("ALTER TABLE messages DROP COLUMN %.9s")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	migrations = all
	s = openUnsynced(t, s.opts.Path)
	now = storetest.Churn(t, s, 8, now)
	awaitCounted(t, s, now)
	storetest.CheckStats(t, s, now)
}

// TestNumbersAfterDoubt: a commit that failed, and may have happened, is found out about.
func TestNumbersAfterDoubt(t *testing.T) {
	smallSteps(t)
	for _, after := range []bool{false, true} {
		s := openUnsynced(t, dbPath(t))
		now := storetest.Churn(t, s, 3, storetest.Start)
		s.fault = func(happened bool) error {
			if happened == after {
				return errors.New("fault")
			}
			return nil
		}
		e := randomEntry(1, now)
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err == nil {
			t.Fatal("Insert = nil, want the fault")
		}
		s.fault = nil
		awaitCounted(t, s, now)
		storetest.CheckStats(t, s, now)
		now = storetest.Churn(t, s, 4, now)
		storetest.CheckStats(t, s, now)
	}
}

// TestNumbersAreKept: once a second the tables get them, so that a crash makes only that
// much wrong at first.
func TestNumbersAreKept(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	now := storetest.Churn(t, s, 5, storetest.Start)
	s.writer.numbers.kept = time.Time{}
	storetest.Churn(t, s, 6, now) // some of it is kept
	kept := 0
	err := s.view(t.Context(), func(v *session) error {
		return v.row(`SELECT coalesce(sum(messages), 0) FROM stats_counts`, nil, &kept)
	})
	if err != nil || kept == 0 {
		t.Errorf("the tables have %d messages, %v, want some", kept, err)
	}
}

// TestWeekAfterCrash: what was put together by the hour is there after a kill, and what is counted anew
// comes to the same.
func TestWeekAfterCrash(t *testing.T) {
	smallSteps(t)
	s := openUnsynced(t, dbPath(t))
	all, now := storetest.FillWeek(t, s)
	s.writer.numbers.kept = time.Time{}
	e := randomEntry(1, now)
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil { // the tables get the numbers
		t.Fatal(err)
	}
	c := all[e.Message.Key][now.Truncate(time.Hour)]
	c.Add(queue.Counts{Messages: 1, Accepted: int64(len(e.Message.Envelope.ForwardPaths))})
	if all[e.Message.Key] == nil {
		all[e.Message.Key] = map[time.Time]queue.Counts{}
	}
	all[e.Message.Key][now.Truncate(time.Hour)] = c
	for range 2 {
		s = openUnsynced(t, killedCopy(t, s))
		awaitCounted(t, s, now)
		storetest.CheckWeek(t, s, all, now)
		if _, err := s.Sweep(t.Context(), now, 10); err != nil {
			t.Fatal(err)
		}
		storetest.CheckWeek(t, s, all, now)
	}
}

// TestHoursAreWrittenAtOnce: where the commit that puts counts together fails, the next one that writes numbers has it
// all, so that nothing is there twice.
func TestHoursAreWrittenAtOnce(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	all, now := storetest.FillWeek(t, s)
	now = now.Add(30 * time.Hour)
	s.fault = func(happened bool) error {
		if !happened {
			return errors.New("fault")
		}
		return nil
	}
	err := s.write(t.Context(), func(w *writer) error {
		_, err := w.sweepNumbers(now, 10)
		return err
	})
	if err == nil || s.writer.numbers.merged == 0 {
		t.Fatalf("sweepNumbers = %v, want the fault, and something that was put together", err)
	}
	s.fault = nil
	for range 3 { // orderly ends write what is in memory
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openUnsynced(t, s.opts.Path)
		awaitCounted(t, s, now)
		storetest.CheckWeek(t, s, all, now)
	}
}
