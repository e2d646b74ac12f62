package processor

import (
	"runtime"
	"testing"
)

// TestAddSpare: long work fills the processors but one, and not the places that are spare.
func TestAddSpare(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	defer processors.Store(0)
	t.Setenv("GOMAXPROCS", "")
	AddSpare()
	wantFree(t, New(), 2)
	if got := runtime.GOMAXPROCS(0); got != 3+spare {
		t.Errorf("%d goroutines may run at once, want %d", got, 3+spare)
	}
}

// TestAddSpareOverridden: what the operator sets holds.
func TestAddSpareOverridden(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	t.Setenv("GOMAXPROCS", "3")
	AddSpare()
	wantFree(t, New(), 2)
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("%d goroutines may run at once, want 3 as set", got)
	}
}
