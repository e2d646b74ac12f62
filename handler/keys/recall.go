package keys

import (
	"time"

	"mailsidecar/units"
)

// MaxRecalled is how many messages of a key are looked at after a restart, to know what is
// used of its rate.
const MaxRecalled = 10_000

// Rated returns the keys that have a rate.
func (r *Ring) Rated() []*Key {
	var rated []*Key
	for _, k := range r.keys {
		if k.rate.Messages > 0 {
			rated = append(rated, k)
		}
	}
	return rated
}

// Window is how long a message may count towards the key's rate: for the rate's period, or
// until a batch that overdrew it is paid for. Of batches with over a thousand messages
// only so many count after a restart.
func (k *Key) Window() time.Duration { return max(k.rate.Per, 1000*cost(k.rate)) }

// Recall sets what is used of the key's rate after a restart. The times are those at which
// messages were accepted, the newest first.
func (k *Key) Recall(accepted []time.Time) {
	k.bucket.mu.Lock()
	defer k.bucket.mu.Unlock()
	for i, at := range accepted {
		if full := at.Add(time.Duration(i+1) * cost(k.rate)); full.After(k.bucket.full) {
			k.bucket.full = full
		}
	}
}

// cost is the time after which a message is paid for.
func cost(r units.Rate) time.Duration { return r.Per / time.Duration(r.Messages) }
