package keys

import (
	"sync"
	"time"

	"mailsidecar/units"
)

// bucket is a token bucket of as many messages as the rate has, kept as the time at
// which it will be full again.
//
// x/time/rate refuses more messages at once than the bucket holds, however long the
// caller waits, and counts in floating point, which moves a Retry-After by a second.
type bucket struct {
	mu   sync.Mutex
	full time.Time
}

// take uses n messages of the rate, or returns how long to wait. A zero rate has no
// limit. A batch larger than the whole bucket passes when the bucket is full; the next
// message then waits until all of the batch is paid for.
func (b *bucket) take(rate units.Rate, n int, now time.Time) (wait time.Duration, ok bool) {
	if rate.Messages <= 0 {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	full := b.full
	if full.Before(now) {
		full = now
	}
	after := full.Add(time.Duration(n) * rate.Per / time.Duration(rate.Messages))
	if wait := after.Sub(now) - rate.Per; wait > 0 && full.After(now) {
		return min(wait, full.Sub(now)), false
	}
	b.full = after
	return 0, true
}
