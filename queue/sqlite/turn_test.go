package sqlite

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// TestSmallBesideLarge: a small message waits for the large ones of one group at most, and
// each write is made once, however many of each come and in which order.
func TestSmallBesideLarge(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		s := openUnsynced(t, dbPath(t))
		begun, hold := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		hand := func(op *write) {
			all.Go(func() {
				if err := s.writer.do(t.Context(), op); err != nil {
					t.Errorf("write = %v", err)
				}
			})
		}
		hand(&write{run: func(*writer) error { close(begun); <-hold; return nil }})
		<-begun
		var order []int64 // sizes, as they are written
		var large, small int
		for range 1 + rng.IntN(120) {
			size := int64(rng.IntN(1000))
			if rng.IntN(2) > 0 {
				size = largeSize + 1 + rng.Int64N(25<<20)
				large++
			} else {
				small++
			}
			hand(&write{size: size, run: func(*writer) error { order = append(order, size); return nil }})
		}
		for len(s.writer.writes) < large+small {
			// until all are handed over
		}
		close(hold)
		all.Wait()
		if len(order) != large+small {
			t.Fatalf("%d writes of %d", len(order), large+small)
		}
		last := len(order) - 1
		for last >= 0 && order[last] > largeSize {
			last--
		}
		octets := int64(0)
		for _, size := range order[:last+1] {
			if size > largeSize {
				octets += size
			}
		}
		if most := max(maxGroupSize, slices.Max(order)); octets > most {
			t.Errorf("the last small message waited for %d octets of large ones, want %d at most", octets, most)
		}
	}
}

// TestGroupSize: what shares a commit has two times maxGroupSize at most, half of it small
// messages and half large ones, but for a single larger write.
func TestGroupSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, most := range []int64{largeSize, 2 * largeSize, 3 * maxGroupSize} {
		s := openUnsynced(t, dbPath(t))
		begun, hold := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		groups := map[int64][]int64{} // sizes, by the commits before
		hand := func(op *write) {
			all.Go(func() {
				if err := s.writer.do(t.Context(), op); err != nil {
					t.Errorf("write = %v", err)
				}
			})
		}
		hand(&write{run: func(*writer) error { close(begun); <-hold; return nil }})
		<-begun
		for range maxGroupOps {
			size := most - rng.Int64N(largeSize/2)
			hand(&write{size: size, run: func(w *writer) error {
				n := w.commits.Load()
				groups[n] = append(groups[n], size)
				return nil
			}})
		}
		for len(s.writer.writes) < maxGroupOps {
			// until all are handed over
		}
		close(hold)
		all.Wait()
		for n, sizes := range groups {
			octets := int64(0)
			for _, size := range sizes {
				octets += size
			}
			if octets > 2*maxGroupSize && len(sizes) > 1 {
				t.Errorf("with writes of %d octets commit %d has %d of them, %d octets, want %d at most", most, n, len(sizes), octets, 2*maxGroupSize)
			}
		}
	}
}
