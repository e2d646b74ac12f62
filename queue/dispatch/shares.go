package dispatch

// Shares deals messages out to relays in proportion to their weights, one at a time and
// evenly mixed (smooth weighted round robin). While one of them takes no mail, the others
// share all of it; what it missed is not made up for later. It is a value without lock or
// clock, and the same calls have the same results. The zero value has no relays.
type Shares struct {
	weights []int
	// credit is what each relay has got too little of, in messages times the sum of the
	// weights. It sums up to zero.
	credit []int
}

// NewShares returns the shares of relays with these weights. A relay whose weight is zero
// has none.
func NewShares(weights []int) Shares { return Shares{weights, make([]int, len(weights))} }

// Next returns the relay whose turn it is, as its index, among those that may have one; -1
// when none may.
func (s *Shares) Next(may func(int) bool) int {
	next, most := -1, 0
	for i, w := range s.weights {
		if w == 0 || !may(i) {
			continue
		}
		if credit := s.credit[i] + w; next < 0 || credit > most {
			next, most = i, credit
		}
	}
	return next
}

// Deal notes that relay i got a message, which others could have had too: those that may.
func (s *Shares) Deal(i int, may func(int) bool) {
	for other, w := range s.weights {
		if w > 0 && may(other) {
			s.credit[other] += w
			s.credit[i] -= w
		}
	}
}

// Weighted says whether the relay has a share.
func (s *Shares) Weighted(i int) bool { return s.weights[i] > 0 }

// Count is how many relays have a share.
func (s *Shares) Count() (n int) {
	for _, w := range s.weights {
		if w > 0 {
			n++
		}
	}
	return n
}

// Order returns all relays in the order in which they are asked, as indexes: first, and
// then those with a share before those without.
func (s *Shares) Order(first int) []int {
	order := []int{first}
	for _, share := range []bool{true, false} {
		for i := range s.weights {
			if i != first && s.Weighted(i) == share {
				order = append(order, i)
			}
		}
	}
	return order
}
