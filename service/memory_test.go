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
		if got := gcPercent(live); got != want {
			t.Errorf("gcPercent(%d) = %d, want %d", live, got, want)
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
	adjustCollector(100)
	lives := make([]byte, 48<<20)
	awaitPercent(t, 50)
	runtime.KeepAlive(lives)
	awaitPercent(t, 300)
}

// awaitPercent collects until the setting is the one wanted.
func awaitPercent(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); percentNow() != want; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("GOGC = %d, want %d", percentNow(), want)
		}
		runtime.GC()
	}
}

func percentNow() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}
