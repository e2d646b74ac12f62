//go:build linux

package postgres

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
	"mailsidecar/queue/storetest"
	"mailsidecar/queue/transfer"
)

func copyPlace(t *testing.T) storetest.Place {
	return placeOf(t, options(t, start(t).url()))
}

func placeOf(t *testing.T, o Options) storetest.Place {
	return storetest.Place{
		Open: func() (queue.Store, error) { return Open(t.Context(), o) },
		Side: func() (transfer.Side, error) { return OpenSide(t.Context(), o) },
	}
}

func filePlace(t *testing.T) storetest.Place {
	o := sqlite.Options{Path: filepath.Join(t.TempDir(), "queue.db"), Retention: storetest.Retention}
	return storetest.Place{
		Open: func() (queue.Store, error) { return sqlite.Open(t.Context(), o) },
		Side: func() (transfer.Side, error) { return sqlite.OpenSide(t.Context(), o) },
	}
}

// TestCopy: a queue moves from a file to a database, back, and from one schema to another.
func TestCopy(t *testing.T) {
	start(t)
	pooled := func(t *testing.T) storetest.Place { return placeOf(t, options(t, start(t).pooledURL())) }
	t.Run("FromFile", func(t *testing.T) { t.Parallel(); storetest.RunCopy(t, filePlace, copyPlace) })
	t.Run("ToFile", func(t *testing.T) { t.Parallel(); storetest.RunCopy(t, copyPlace, filePlace) })
	t.Run("Pooled", func(t *testing.T) { t.Parallel(); storetest.RunCopy(t, copyPlace, pooled) })
}

// TestCopyLocks: while an instance lives its queue is not copied; from the copy's begin on none
// begins, and one that was suspended stores nothing.
func TestCopyLocks(t *testing.T) {
	o := options(t, start(t).url())
	o.Lease = 10 * time.Second
	s := open(t, o)
	if err := s.Heartbeat(t.Context(), "lives", time.Now()); err != nil {
		t.Fatal(err)
	}
	from, to := placeOf(t, o), filePlace(t)
	a, err := from.Side()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close() //nolint:errcheck // the end of the test
	b, err := to.Side()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // the end of the test
	copyAll := func() error {
		_, err := transfer.Copy(t.Context(), a, b, false, func(transfer.Progress) {})
		return err
	}
	if err := copyAll(); !errors.Is(err, transfer.ErrInUse) || !strings.Contains(err.Error(), "instances that work with it: 1; stop them first") {
		t.Errorf("copy while an instance lives = %v, want %v", err, transfer.ErrInUse)
	}
	// It is suspended, and its lease ends. A copy was killed while it took over.
	start(t).exec(t, s.sql(`UPDATE {s}.instances SET until = clock_timestamp() - interval '1 s'`))
	start(t).exec(t, s.sql(`INSERT INTO {s}.instances VALUES ('copy-1', clock_timestamp() + interval '10 s')`))
	start(t).exec(t, s.sql(`INSERT INTO {s}.runs VALUES ('copy-1')`))
	if err := copyAll(); err != nil {
		t.Fatalf("copy = %v", err)
	}
	var refused *queue.StoreError
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{storetest.Entry(0, "a@example.org")}}); !errors.As(err, &refused) {
		t.Errorf("Insert after the copy = %v, want a StoreError", err)
	}
	if err := s.Heartbeat(t.Context(), "another", time.Now()); !errors.As(err, &refused) {
		t.Errorf("Heartbeat of a new owner after the copy = %v, want a StoreError", err)
	}
}
