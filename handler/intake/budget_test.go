package intake

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/processor"
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

// TestProcessorsLeftFree: of what takes long, whatever it is, as much runs at once as there are
// processors but one, and the rest in its turn. What is small waits for none of it.
func TestProcessorsLeftFree(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(128<<20, 37<<20, 1000)
		var running, most, done atomic.Int64
		work := func() {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			done.Add(1)
		}
		begin := func(octets int64) *Share {
			s := b.Share()
			s.Prove("a")
			if !s.Grow(octets) {
				t.Error("no room")
			}
			if err := s.Begin(t.Context(), octets); err != nil {
				t.Error(err)
			}
			return s
		}
		for _, octets := range []int64{100 << 10, 2 << 20} {
			for range 8 {
				go func() {
					s := begin(octets)
					work()
					s.Close()
				}()
			}
		}
		synctest.Wait()
		began := time.Now()
		begin(processor.Small).Close()
		if waited := time.Since(began); waited > 0 {
			t.Errorf("something small has waited for %v", waited)
		}
		time.Sleep(time.Minute)
		if most.Load() != 3 || done.Load() != 16 {
			t.Errorf("%d at once and %d in the end, want 3 and 16", most.Load(), done.Load())
		}
		if !b.large.TryAcquire(b.mostMade) || !b.small.TryAcquire(b.maxSmall*smallAtOnce) || !b.turns.TryEnter() || !b.turns.TryEnter() || !b.turns.TryEnter() {
			t.Error("not all was given back")
		}
	})
}

// TestWaitForMemoryKeepsNoTurn: a request that waits for memory in the middle of its work
// lets others have the processor, which may need it to be done with their memory.
func TestWaitForMemoryKeepsNoTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(128<<20, 37<<20, 1000)
		var other *Share
		first := b.Share()
		first.Prove("a")
		if !first.Grow(20 << 20) {
			t.Fatal("no room")
		}
		for i, octets := range []int64{60 << 20, 40 << 20} {
			other = b.Share()
			other.Prove(string(rune('b' + i)))
			if !other.Grow(octets) {
				t.Fatal("no room")
			}
			other.claim.phase.Store(working) // it cannot be cut
		}
		if err := first.Begin(t.Context(), 20<<20); err != nil {
			t.Fatal(err)
		}
		if b.turns.TryEnter() {
			t.Fatal("there is more than one turn")
		}
		got := make(chan bool)
		go func() { got <- first.Grow(35 << 20) }()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("it need not wait")
		default:
		}
		if !b.turns.TryEnter() {
			t.Error("it keeps the turn while it waits")
		}
		b.turns.Leave()
		other.Close()
		if !<-got {
			t.Error("it has not got what it waited for")
		}
		first.Close()
		if !b.turns.TryEnter() || b.turns.TryEnter() {
			t.Error("the turn was given back more or less than once")
		}
	})
}

// TestCutBeforeWait: a request that is cut just before it waits for a turn is told so: nobody
// would end its wait.
func TestCutBeforeWait(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(128<<20, 37<<20, 1000)
		b.turns.TryEnter()
		s := b.Share()
		s.Prove("a")
		if !s.Grow(20 << 20) {
			t.Fatal("no room")
		}
		s.claim.phase.Store(cut)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if err := s.Begin(ctx, 20<<20); err == nil || time.Since(begin) > 0 {
			t.Errorf("Begin = %v after %v, want an error at once", err, time.Since(begin))
		}
		s.Close()
	})
}

// TestWaitOfHalfABody: a request that waits for its turn in the middle of its body, as that of
// a form with files does, can be cut for an older one, which may be what it waits for.
func TestWaitOfHalfABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(128<<20, 37<<20, 1000)
		first, third, form := b.Share(), b.Share(), b.Share()
		for i, s := range []*Share{first, third, form} {
			s.Prove(string(rune('a' + i)))
			if !s.Grow([]int64{20 << 20, 60 << 20, 40 << 20}[i]) {
				t.Fatal("no room")
			}
		}
		third.claim.phase.Store(working) // it cannot be cut
		form.claim.phase.Store(reading)
		form.claim.fixed = true
		if err := first.Begin(t.Context(), 30<<20); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			err := form.Begin(t.Context(), 40<<20)
			form.Close()
			ended <- err
		}()
		synctest.Wait()
		if !first.Grow(35 << 20) {
			t.Error("the oldest request has not got what it needs")
		}
		if err := <-ended; err == nil {
			t.Error("the form was not cut")
		}
		first.Close()
		third.Close()
	})
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
