package sqlite

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
				size = largeSize + 1 + rng.Int64N(2*stageStep)
				large++
			} else {
				small++
			}
			hand(&write{large: size > largeSize, size: size, run: func(*writer) error { order = append(order, size); return nil }})
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
		if most := max(stageStep, slices.Max(order)); octets > most {
			t.Errorf("the last small message waited for %d octets of large ones, want %d at most", octets, most)
		}
	}
}

// TestSmallFirst: while small messages come one after the other, large ones have a commit
// each time that largeWait is over.
func TestSmallFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took, n = time.Millisecond, 5
		s := openUnsynced(t, dbPath(t))
		var all sync.WaitGroup
		hand := func(op *write) {
			all.Go(func() {
				if err := s.writer.do(t.Context(), op); err != nil {
					t.Errorf("write = %v", err)
				}
			})
		}
		var large []time.Duration // when they were written, since the first could be
		var began time.Time
		var next func(*writer) error
		next = func(*writer) error {
			if began.IsZero() {
				began = time.Now()
				for range n {
					hand(&write{large: true, size: stageStep, run: func(*writer) error {
						large = append(large, time.Since(began))
						return nil
					}})
				}
			}
			if len(large) < n { // the next one waits before this one is committed
				hand(&write{size: 1, run: next})
			}
			time.Sleep(took)
			return nil
		}
		hand(&write{size: 1, run: next})
		all.Wait()
		for i, at := range large {
			if earliest := time.Duration(i+1) * largeWait; at < earliest || at > earliest+time.Duration(i+1)*2*took {
				t.Errorf("large write %d came after %v, want %v and a little", i+1, at, earliest)
			}
		}
		_ = s.Close()
	})
}

// TestGroupSize: what shares a commit has maxGroupSize of small messages and stageStep of
// large ones at most, or restSize while there are no small ones; but for a single larger
// write.
func TestGroupSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		size  int64
		small bool // a small message came just now
		most  int64
	}{
		{largeSize, true, maxGroupSize},
		{2 * largeSize, true, stageStep},
		{3 * stageStep, true, stageStep},
		{largeSize, false, maxGroupSize},
		{2 * largeSize, false, restSize},
		{3 * stageStep, false, restSize},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := openUnsynced(t, dbPath(t))
			if insertSized(t, s, 1); !c.small {
				time.Sleep(restTime + 1)
			}
			begun, hold := make(chan struct{}), make(chan struct{})
			groups := map[int64][]int64{} // sizes, by the commits before
			hand := func(op *write) {
				go func() {
					if err := s.writer.do(t.Context(), op); err != nil {
						t.Errorf("write = %v", err)
					}
				}()
			}
			hand(&write{run: func(*writer) error { close(begun); <-hold; return nil }})
			<-begun
			for range maxGroupOps {
				size := c.size - rng.Int64N(largeSize/2)
				hand(&write{large: size > largeSize, size: size, run: func(w *writer) error {
					n := w.commits.Load()
					groups[n] = append(groups[n], size)
					return nil
				}})
			}
			synctest.Wait() // until all are handed over
			close(hold)
			synctest.Wait()
			for n, sizes := range groups {
				octets := int64(0)
				for _, size := range sizes {
					octets += size
				}
				if octets > c.most && len(sizes) > 1 {
					t.Errorf("%+v: commit %d has %d writes of %d octets, want %d at most", c, n, len(sizes), octets, c.most)
				}
			}
			_ = s.Close()
		})
	}
}
