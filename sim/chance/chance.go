// Package chance makes random decisions that do not depend on each other's order.
//
// A decision is a hash of the seed and of what is decided, not a draw: to take one
// away changes no other. So a history can be made shorter, and still goes the same way.
package chance

import "time"

// Chance is a place in the tree of decisions. [Chance.Of] and [Chance.N] go down from
// it, the other methods decide there. It is a value: to decide twice at one place gives
// the same.
type Chance uint64

// New is the root for a seed.
func New(seed uint64) Chance { return Chance(mix(seed + 1)) }

// Of goes down by a name.
func (c Chance) Of(name string) Chance {
	h := uint64(c) ^ 14695981039346656037
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211 // FNV-1a
	}
	return Chance(mix(h))
}

// N goes down by a number.
func (c Chance) N(n int) Chance { return Chance(mix(uint64(c) + 0x9e3779b97f4a7c15*uint64(n+1))) }

// mix is the last step of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Float is in [0, 1).
func (c Chance) Float() float64 { return float64(uint64(c)>>11) / (1 << 53) }

// Happens is true with the probability p.
func (c Chance) Happens(p float64) bool { return c.Float() < p }

// Below is in [0, n), n > 0.
func (c Chance) Below(n int) int { return int(uint64(c) >> 1 % uint64(n)) }

// Between is in [from, to), to the nanosecond: two decisions hardly ever give the same.
func (c Chance) Between(from, to time.Duration) time.Duration {
	return from + time.Duration(uint64(c)>>1%uint64(to-from))
}

// Pick returns one of the list.
func Pick[E any](c Chance, list ...E) E { return list[c.Below(len(list))] }
