package service

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"mailsidecar/config"
	"mailsidecar/units"
)

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 300, 1 << 20: 300, 6 << 20: 200, 12 << 20: 100, 24 << 20: 50, 1 << 30: 50} {
		if got := gcPercent(live, littleGarbage); got != want {
			t.Errorf("gcPercent(%d) = %d, want %d", live, got, want)
		}
	}
}

// TestGarbage: the heap may have more garbage while collections follow one another quickly, and
// within a few seconds little again.
func TestGarbage(t *testing.T) {
	now := time.Now()
	c := collectorTuning{garbage: littleGarbage, last: now}
	collect := func(after time.Duration, n int) {
		for range n {
			now = now.Add(after)
			c = c.next(now, 24<<20)
		}
	}
	for _, tc := range []struct {
		after time.Duration
		times int
		want  uint64
	}{
		{quickly, 10, littleGarbage},
		{quickly - 1, 1, 2 * littleGarbage},
		{quickly, 10, 2 * littleGarbage},
		{quickly - 1, 10, muchGarbage},
		{slowly, 10, muchGarbage},
		{slowly + 1, 1, muchGarbage / 2},
		{slowly + 1, 10, littleGarbage},
	} {
		if collect(tc.after, tc.times); c.garbage != tc.want {
			t.Errorf("after %d collections every %v = %d octets of garbage, want %d", tc.times, tc.after, c.garbage, tc.want)
		}
		if want := gcPercent(24<<20, tc.want); c.percent*5 < want*4 || c.percent*4 > want*5 {
			t.Errorf("after %d collections every %v = %d%%, want %d%% or nearly so", tc.times, tc.after, c.percent, want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	for _, tc := range []struct{ inFlight, message, want units.Size }{
		{128 << 20, 25 << 20, 320 << 20},
		{38 << 20, 25 << 20, 164 << 20},
		{1 << 20, 1 << 10, 66 << 20},
	} {
		if got := memoryLimit(config.Service{MaxInFlight: tc.inFlight, MaxMessageSize: tc.message}); got != int64(tc.want) {
			t.Errorf("memoryLimit(%v in flight, messages of %v) = %d, want %d", tc.inFlight, tc.message, got, tc.want)
		}
	}
}

func TestTuneCollector(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) }) // until the next collection, that is
	t.Setenv("GOGC", "100")
	if tuneCollector(); percentNow() != 100 {
		t.Errorf("with GOGC set it is %d%%, want it left at 100%%", percentNow())
	}
	collectorTuning{garbage: littleGarbage, percent: 100, last: time.Now()}.await()
	// They follow one another at once, so there may be much garbage.
	lives := make([]byte, 48<<20)
	awaitPercent(t, 100*muchGarbage/(64<<20), 100*muchGarbage/(48<<20))
	runtime.KeepAlive(lives)
	awaitPercent(t, 100*muchGarbage/(12<<20), 100*muchGarbage/(4<<20))
}

// awaitPercent collects until the setting is from least to most.
func awaitPercent(t *testing.T, least, most int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); percentNow() < least || percentNow() > most; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("GOGC = %d, want %d to %d", percentNow(), least, most)
		}
		runtime.GC()
	}
}

func percentNow() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}
