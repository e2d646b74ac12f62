package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"mailsidecar/queue"
)

// BenchmarkStats asks for the numbers of an empty store, and of one with a million finished
// messages and 100,000 that wait: at most three times as long. It logs how long the count
// after a crash takes.
//
//	go test ./queue/sqlite -run - -bench Stats
func BenchmarkStats(b *testing.B) {
	ask := func(b *testing.B, s *Store) {
		for b.Loop() {
			if stats, err := s.Stats(b.Context(), queue.AnyKey, time.Now()); err != nil || stats.Counting {
				b.Fatalf("Stats = %v, %v", stats.Counting, err)
			}
		}
	}
	b.Run("empty", func(b *testing.B) { ask(b, benchStore(b)) })
	path := filepath.Join(b.TempDir(), "queue.db")
	fillLarge(b, path, 100_000)
	s := openLarge(b, path)
	b.Cleanup(func() { _ = s.Close() })
	began := time.Now()
	for stats := (queue.Stats{Counting: true}); stats.Counting; time.Sleep(10 * time.Millisecond) {
		var err error
		if stats, err = s.Stats(b.Context(), queue.AnyKey, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("counted anew in %v", time.Since(began).Round(time.Second/10))
	b.Run("large", func(b *testing.B) { ask(b, s) })
}
