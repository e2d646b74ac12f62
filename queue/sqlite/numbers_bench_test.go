package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"mailsidecar/queue"
)

// BenchmarkStats asks for the numbers of an empty store, of one with few messages of the same
// keys, relays and hours as the large one, and of one with a million finished messages and
// 100,000 that wait. What is told grows with keys, relays and hours, so the large one may
// take three times as long as that with few. It logs how long the count after a crash takes.
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
	for _, size := range []struct {
		name              string
		finished, waiting int
	}{{"few", 5000, 500}, {"large", manyFinished, 100_000}} {
		path := filepath.Join(b.TempDir(), size.name+".db")
		fillStore(b, path, size.finished, size.waiting)
		s := openLarge(b, path)
		b.Cleanup(func() { _ = s.Close() })
		began := time.Now()
		for stats := (queue.Stats{Counting: true}); stats.Counting; time.Sleep(10 * time.Millisecond) {
			var err error
			if stats, err = s.Stats(b.Context(), queue.AnyKey, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
		b.Logf("%s: counted anew in %v", size.name, time.Since(began).Round(time.Second/10))
		b.Run(size.name, func(b *testing.B) { ask(b, s) })
	}
}
