package processor

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns: keys take turns, and the works of one key keep their order.
func TestTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		turns := New()
		if !turns.TryEnter() || turns.TryEnter() {
			t.Fatal("two processors do not have one turn")
		}
		var order []string
		for _, name := range []string{"a1", "a2", "a3", "a4", "b1", "b2", "c1"} {
			go func() {
				if err := turns.Enter(t.Context(), name[:1]); err != nil {
					t.Error(err)
				}
				order = append(order, name)
				time.Sleep(time.Second)
				turns.Leave()
			}()
			synctest.Wait()
		}
		turns.Leave()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []string{"a1", "b1", "c1", "a2", "b2", "a3", "a4"}; !slices.Equal(order, want) {
			t.Errorf("turns went to %v, want %v", order, want)
		}
		wantFree(t, turns, 1)
	})
}

// TestTurnsGivenUp: who goes away while it waits takes no turn, and leaves nothing behind.
func TestTurnsGivenUp(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		turns := New()
		turns.TryEnter()
		for _, key := range []string{"a", "a", "b"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go func() {
				if err := turns.Enter(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Enter = %v, want that the time is over", err)
				}
			}()
		}
		time.Sleep(2 * time.Second)
		turns.Leave()
		wantFree(t, turns, 1)
	})
}

func wantFree(t *testing.T, turns *Turns, free int) {
	t.Helper()
	if turns.free != free || len(turns.line) != 0 || len(turns.waits) != 0 {
		t.Errorf("%d turns are free and %d keys wait (%d), want %d and none", turns.free, len(turns.line), len(turns.waits), free)
	}
}

// TestNoTurns: a nil *Turns limits nothing.
func TestNoTurns(t *testing.T) {
	var turns *Turns
	if err := turns.Enter(t.Context(), "a"); err != nil || !turns.TryEnter() {
		t.Errorf("Enter = %v, want a turn", err)
	}
	turns.Leave()
}
