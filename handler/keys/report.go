package keys

import (
	"context"
	"math"
	"slices"
	"time"

	"mailsidecar/units"
)

// reportTime limits what is asked about the rates that instances share, for all keys together.
const reportTime = time.Second

// Report is what is known of one key.
type Report struct {
	Name    string // empty for that of a server without keys
	Roles   Role
	Senders []string // in lower case; none: all
	Rate    units.Rate
	// Used is how much of Rate is used up, in messages; it may be more than the rate after a
	// large batch. Negative where it is not known, because the database did not say it.
	Used int
	// LastUsed is when a request last proved the key to this instance; zero: never.
	LastUsed time.Time
}

// Report describes the keys, in the order of the configuration; without any, the one that
// every request has then. It has no secrets.
func (r *Ring) Report(ctx context.Context) []Report {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	all := r.keys
	if r.Empty() {
		all = []*Key{r.keyless}
	}
	reports := make([]Report, len(all))
	for i, k := range all {
		reports[i] = Report{Name: k.name, Roles: k.roles, Senders: slices.Clone(k.senders), Rate: k.rate, Used: k.usedOfRate(ctx)}
		if at := k.used.Load(); at != 0 {
			reports[i].LastUsed = time.Unix(0, at)
		}
	}
	return reports
}

func (k *Key) usedOfRate(ctx context.Context) int {
	switch {
	case k.rate.Messages <= 0:
		return 0
	case k.shared != nil:
		return k.shared.usedOf(ctx, k.rate)
	}
	k.bucket.mu.Lock()
	defer k.bucket.mu.Unlock()
	return messagesIn(k.rate, time.Until(k.bucket.full))
}

// messagesIn is how many messages of the rate a time pays for, rounded up; 0 where the time
// is negative.
func messagesIn(rate units.Rate, d time.Duration) int {
	const rounding = 1e-6 // of floating point
	return max(int(math.Ceil(float64(d)/float64(rate.Per)*float64(rate.Messages)-rounding)), 0)
}

// usedOf looks at the note, without changing it. What instances hold and have not used does not
// count. It is -1 where the note cannot be read.
func (b *sharedBucket) usedOf(ctx context.Context, rate units.Rate) int {
	used := -1
	err := b.note(ctx, noteKind, b.name, func(value []byte, at time.Time) []byte {
		n, held := readBucketNote(value), 0
		for _, h := range n.Holds {
			if h.Until > at.UnixMicro() {
				held += h.N
			}
		}
		used = max(messagesIn(rate, time.Duration(n.Full-at.UnixMicro())*time.Microsecond)-held, 0)
		return value
	})
	if err != nil {
		return -1
	}
	return used
}
