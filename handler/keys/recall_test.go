package keys

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mailsidecar/units"
)

// TestRecall: what is left of a rate after a restart is what was left before it, whatever
// was sent.
func TestRecall(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		rate := units.Rate{Messages: 1 + rng.IntN(50), Per: []time.Duration{time.Second, time.Minute, time.Hour}[rng.IntN(3)]}
		before, after := &Key{rate: rate}, &Key{rate: rate}
		now := time.Unix(1e9, 0)
		var accepted []time.Time
		for range rng.IntN(60) {
			now = now.Add(time.Duration(rng.Int64N(int64(rate.Per) / 2)))
			n := 1 + rng.IntN(3)
			if rng.IntN(10) == 0 {
				n = rate.Messages * (1 + rng.IntN(4))
			}
			if _, ok := before.bucket.take(rate, n, now); ok {
				accepted = append(accepted, slices.Repeat([]time.Time{now}, n)...)
			}
		}
		slices.Reverse(accepted)
		recent := slices.DeleteFunc(accepted, func(at time.Time) bool { return at.Before(now.Add(-before.Window())) })
		after.Recall(recent)
		left := func(k *Key) time.Duration { return max(k.bucket.full.Sub(now), 0) }
		if diff := (left(before) - left(after)).Abs(); diff > time.Microsecond {
			t.Fatalf("rate %v: %v until the bucket is full after the restart, want %v", rate, left(after), left(before))
		}
	}
}
