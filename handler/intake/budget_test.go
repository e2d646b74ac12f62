package intake

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSmallWait: a small request waits two seconds for those that are being answered, and
// no longer.
func TestSmallWait(t *testing.T) {
	for _, tt := range []struct {
		name string
		ends time.Duration // when the others' memory is free
		got  bool
		took time.Duration
	}{
		{"in time", time.Second, true, time.Second},
		{"too late", time.Minute, false, smallWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(8<<20, 1<<20, 1000)
			full := b.Share()
			full.Prove("a")
			if !full.Grow(8 << 20) {
				t.Fatal("no room in an empty budget")
			}
			full.claim.phase.Store(working)
			time.AfterFunc(tt.ends, full.Close)
			small := b.Share()
			small.Prove("b")
			began := time.Now()
			if got := small.Grow(1 << 10); got != tt.got || time.Since(began) != tt.took {
				t.Errorf("%s: Grow = %t after %v, want %t after %v", tt.name, got, time.Since(began), tt.got, tt.took)
			}
			small.Close()
			time.Sleep(2 * time.Minute)
			if b.Used() != 0 {
				t.Errorf("%s: %d octets are held in the end", tt.name, b.Used())
			}
		})
	}
}

// TestProcessorsLeftFree: of what is made, large or small, as much runs at once as there are
// processors but one, and the rest in its turn.
func TestProcessorsLeftFree(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for name, octets := range map[string]int64{"small": 100 << 10, "large": 2 << 20} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(128<<20, 37<<20, 1000)
			var running, most, made atomic.Int64
			for range 8 {
				go func() {
					s := b.Share()
					s.Prove("a")
					if !s.Grow(octets) {
						t.Error("no room")
					}
					if err := s.Begin(t.Context(), octets); err != nil {
						t.Error(err)
					}
					most.Store(max(most.Load(), running.Add(1)))
					time.Sleep(time.Second)
					running.Add(-1)
					made.Add(1)
					s.Close()
				}()
			}
			time.Sleep(time.Minute)
			if most.Load() != 3 || made.Load() != 8 {
				t.Errorf("%s: %d at once and %d in the end, want 3 and 8", name, most.Load(), made.Load())
			}
			if !b.large.tryAcquire(b.mostMade) || !b.small.tryAcquire(b.maxSmall*smallAtOnce) {
				t.Errorf("%s: not all was given back", name)
			}
		})
	}
}

// TestBeginNothing: what makes no octets takes no processor, which End would not give back.
func TestBeginNothing(t *testing.T) {
	b := NewBudget(128<<20, 37<<20, 1000)
	for range 2 * runtime.GOMAXPROCS(0) {
		s := b.Share()
		s.Prove("a")
		if !s.Grow(2 * firstReservation) {
			t.Fatal("no room")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cancel()
		if err := s.Begin(ctx, 0); err != nil || s.line != nil {
			t.Errorf("Begin(0) = %v and waits in a line: %v", err, s.line != nil)
		}
		s.Close()
	}
}
