package intake

import (
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
