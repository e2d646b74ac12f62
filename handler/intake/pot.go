package intake

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// This file decides who gets memory for requests. A [pot] is a value without lock,
// clock or goroutine, as queue/dispatch is.
//
//   - A key's share is the pot divided by the keys with requests under way, but at least
//     one message. Of a key's claims the oldest ones are within the share, as far as it
//     reaches: its oldest claim is unless it is for several messages.
//   - All strangers together are never within a share, and have a part of the pot at most.
//   - Where there is no room for a claim within its share, claims over theirs are cut:
//     strangers first, then the slowest. If that is not enough, younger claims whose
//     length was not announced, or that wait for their turn, are cut.
//   - A claim over its share cuts only what is slower than itself, and leaves an eighth
//     of the pot free for the others.
//   - Large claims leave a 128th of the pot free for small ones.
//   - A claim that cannot be satisfied so is refused, except the oldest one of all keys: it
//     waits, and completes in the end.

// The phases of a claim.
const (
	working int32 = iota // it ends by itself: it cannot be cut
	reading              // its body comes in
	queued               // it waits for its turn to make something of the body
	cut                  // it is refused, and leaves soon
)

// claim is one request's part of the pot.
type claim struct {
	share  *Share // whose claim it is
	holder *holder
	held   int64 // octets
	wanted int64 // octets that it waits for, those held included; else zero
	// fixed says that the announced length is held: the body needs no more.
	fixed          bool
	entered        bool
	began          time.Time
	number         uint64       // the oldest claim has the smallest
	came           atomic.Int64 // octets of the body so far
	phase          atomic.Int32
	older, younger *claim
}

// holder is whose claims are: a key's, or all strangers'.
type holder struct {
	proven bool
	claims int
	held   int64 // octets

	pass uint64 // of pot.judge
	sum  int64
}

// pot divides its octets among claims.
type pot struct {
	size             int64
	message          int64 // octets of the largest request for one message
	used             int64
	keys             map[string]*holder
	active           int // keys with claims
	spare            int // keys for which there is a share though they have no claims
	strangers        holder
	oldest, youngest *claim
	waiting          []*claim // see byTurn
	entries          uint64   // claims that have entered
	pass             uint64
}

func newPot(size, message int64) pot {
	return pot{size: size, message: min(message, size), keys: map[string]*holder{}}
}

// strangersPart is which part of the pot strangers may hold together, or one message
// where that is more.
const strangersPart = 4

func (p *pot) strangersMost() int64 { return max(p.size/strangersPart, p.message) }

// share is what each key may hold while others want theirs.
func (p *pot) share() int64 { return max(p.size/int64(max(p.active+p.spare, 1)), p.message) }

// key returns the holder of a key's claims.
func (p *pot) key(name string) *holder {
	h := p.keys[name]
	if h == nil {
		h = &holder{proven: true}
		p.keys[name] = h
	}
	return h
}

// enter adds a claim, as the youngest. A nil holder means the strangers.
func (p *pot) enter(c *claim, h *holder, now time.Time) {
	p.entries++
	c.began, c.number, c.entered = now, p.entries, true
	if c.older = p.youngest; c.older != nil {
		c.older.younger = c
	} else {
		p.oldest = c
	}
	p.youngest = c
	if h == nil {
		h = &p.strangers
	}
	p.join(c, h)
}

func (p *pot) join(c *claim, h *holder) {
	c.holder = h
	h.held += c.held
	if h.claims++; h.proven && h.claims == 1 {
		p.active++
	}
}

func (p *pot) part(c *claim) {
	h := c.holder
	h.held -= c.held
	if h.claims--; h.proven && h.claims == 0 {
		p.active--
	}
}

// prove makes a stranger's claim one of a key.
func (p *pot) prove(c *claim, h *holder) {
	p.part(c)
	p.join(c, h)
}

// leave removes a claim with all that it holds. It returns the claims whose wait is
// over or that were cut.
func (p *pot) leave(c *claim, now time.Time) []*claim {
	if c.older != nil {
		c.older.younger = c.younger
	} else {
		p.oldest = c.younger
	}
	if c.younger != nil {
		c.younger.older = c.older
	} else {
		p.youngest = c.older
	}
	c.older, c.younger = nil, nil
	p.stopWaiting(c)
	p.part(c)
	p.used -= c.held
	c.held, c.entered, c.holder = 0, false, nil
	return p.settle(now)
}

// shrink gives back what the claim holds over n octets.
func (p *pot) shrink(c *claim, n int64, now time.Time) []*claim {
	less := c.held - n
	if less <= 0 {
		return nil
	}
	p.take(c, -less)
	return p.settle(now)
}

func (p *pot) take(c *claim, more int64) {
	c.held += more
	c.holder.held += more
	p.used += more
}

// verdict is what becomes of a claim that wants more.
type verdict int

const (
	granted verdict = iota
	waits
	refused
)

// grow makes the claim at least n octets, all of the pot at most. It returns the claims
// that were cut for that, or whose wait is over.
func (p *pot) grow(c *claim, n int64, now time.Time) (verdict, []*claim) {
	n = min(n, p.size)
	more := n - c.held
	switch {
	case more <= 0:
		return granted, nil
	case c.phase.Load() == cut:
		return refused, nil
	case p.hasRoom(c, n):
		p.take(c, more)
		return granted, nil
	}
	victims, ok := p.makeRoom(c, n, now)
	if !ok {
		return refused, nil
	}
	c.wanted = n
	at, _ := slices.BinarySearchFunc(p.waiting, c, byTurn)
	p.waiting = slices.Insert(p.waiting, at, c)
	c.phase.CompareAndSwap(working, queued)
	return waits, victims
}

func byAge(a, b *claim) int { return cmp.Compare(a.number, b.number) }

// byTurn is the order in which claims that wait get room: keys before strangers.
func byTurn(a, b *claim) int {
	switch {
	case a.holder.proven == b.holder.proven:
		return byAge(a, b)
	case a.holder.proven:
		return -1
	default:
		return 1
	}
}

// announce reserves the announced length of a body, if the claim is within its share
// with it. If not, fits is false: its octets count as they come.
func (p *pot) announce(c *claim, n int64, now time.Time) (v verdict, fits bool, told []*claim) {
	if !c.holder.proven || p.isOver(c, n) {
		return granted, false, nil
	}
	v, told = p.grow(c, n, now)
	c.fixed = v != refused
	return v, true, told
}

// hasRoom reports whether the claim can have n octets just now, and nothing is cut for it.
func (p *pot) hasRoom(c *claim, n int64) bool {
	return p.limit(c, n)-p.used-p.aside(c) >= min(n, p.size)-c.held
}

// sparePart is which part of the pot is free for small requests when others have filled
// it: they need not wait until a large one is gone.
const sparePart = 128

// limit is how full the pot may be after the claim got n octets.
func (p *pot) limit(c *claim, n int64) int64 {
	whole := p.size
	if n > firstReservation && p.used > c.held {
		whole -= p.size / sparePart
	}
	if !p.isOver(c, n) {
		return whole
	}
	limit := p.size - p.size/8
	if p.spare > 0 {
		limit = p.size - p.size/2
	}
	if p.oldest == c && p.youngest == c {
		limit = p.size
	}
	if !c.holder.proven {
		limit = min(limit, p.used+p.strangersMost()-c.holder.held)
	}
	return limit
}

// aside is what others wait for. Strangers have no claim to it before a key.
func (p *pot) aside(c *claim) (octets int64) {
	for _, w := range p.waiting {
		if w != c && (w.holder.proven || !c.holder.proven) {
			octets += w.wanted - w.held
		}
	}
	return octets
}

// isOver reports whether the claim is over its holder's share with n octets.
func (p *pot) isOver(c *claim, n int64) bool {
	if !c.holder.proven {
		return true
	}
	if len(p.waiting) == 0 && c.holder.held-c.held+n <= p.share() {
		return false
	}
	found := false
	p.judge(c, n, func(other *claim, over bool) {
		if other == c {
			found = over
		}
	})
	return found
}

// judge says of each claim whether it is over its holder's share, where c has n octets.
func (p *pot) judge(c *claim, n int64, say func(c *claim, over bool)) {
	p.pass++
	share := p.share()
	for other := p.oldest; other != nil; other = other.younger {
		if other.phase.Load() == cut {
			continue
		}
		h := other.holder
		if h.pass != p.pass {
			h.pass, h.sum = p.pass, 0
		}
		octets := max(other.held, other.wanted)
		if other == c {
			octets = n
		}
		h.sum += octets
		say(other, !h.proven || h.sum > share)
	}
}

// makeRoom cuts claims until there is room for c to have n octets, once they have left.
// If that cannot be, it cuts no claim, and ok says whether c waits nevertheless.
func (p *pot) makeRoom(c *claim, n int64, now time.Time) (victims []*claim, ok bool) {
	need := n - c.held - (p.limit(c, n) - p.used - p.aside(c))
	for other := p.oldest; other != nil; other = other.younger {
		if other.phase.Load() == cut && (c.holder.proven || !other.holder.proven) {
			need -= other.held
		}
	}
	if need <= 0 {
		return nil, true
	}
	for _, v := range p.victims(c, n, now) {
		if need <= 0 {
			break
		}
		victims = append(victims, v)
		need -= v.held
	}
	if need > 0 {
		return nil, !p.isOver(c, n) && (p.isFirst(c) && c.held > 0 || p.isSmall(c, n))
	}
	return p.cutAll(victims), true
}

// isSmall says that the claim is a small request of a key that has nothing yet. It may wait
// for requests that are being answered, which cannot be cut: while it holds nothing, no
// other request waits for it. See [smallWait].
func (p *pot) isSmall(c *claim, n int64) bool {
	return c.holder.proven && c.held == 0 && n <= min(firstReservation, p.size/sparePart)
}

// cutAll cuts claims, but for those that have gone on to what cannot be cut.
func (p *pot) cutAll(victims []*claim) []*claim {
	return slices.DeleteFunc(victims, func(v *claim) bool {
		if !v.phase.CompareAndSwap(reading, cut) && !v.phase.CompareAndSwap(queued, cut) {
			return true
		}
		p.stopWaiting(v)
		return false
	})
}

// isFirst reports whether c is the oldest claim of all keys.
func (p *pot) isFirst(c *claim) bool {
	for other := p.oldest; other != nil; other = other.younger {
		if other.holder.proven && other.phase.Load() != cut {
			return other == c
		}
	}
	return false
}

// victims returns the claims that may be cut for c to have n octets, in the order in
// which they are.
func (p *pot) victims(c *claim, n int64, now time.Time) []*claim {
	type candidate struct {
		*claim
		rank  int
		speed float64
	}
	var all []candidate
	own := candidate{claim: c, rank: 2}
	p.judge(c, n, func(other *claim, over bool) {
		v := candidate{claim: other, rank: 2, speed: other.speed(now)}
		phase := other.phase.Load()
		switch {
		case !other.holder.proven:
			v.rank = 0
		case over:
			v.rank = 1
		case other.fixed && phase == reading, byAge(other, c) <= 0:
			v.rank = 3 // not at all
		}
		if other == c {
			own = v
			if !over {
				own.rank = 3
			}
		} else if other.held > 0 && v.rank < 3 && (phase == reading || phase == queued) {
			all = append(all, v)
		}
	})
	order := func(a, b candidate) int {
		if c := cmp.Compare(a.rank, b.rank); c != 0 {
			return c
		}
		if a.rank < 2 && a.speed != b.speed {
			return cmp.Compare(a.speed, b.speed)
		}
		return byAge(b.claim, a.claim)
	}
	slices.SortFunc(all, order)
	var list []*claim
	for _, v := range all {
		if own.rank < 2 && order(v, own) > 0 {
			break // c itself is next
		}
		list = append(list, v.claim)
	}
	return list
}

// speed is in octets for each second. A body that has just begun is not slow.
func (c *claim) speed(now time.Time) float64 {
	return float64(c.came.Load()+1) / (now.Sub(c.began).Seconds() + 0.05)
}

func (p *pot) stopWaiting(c *claim) {
	if c.wanted > 0 {
		c.wanted = 0
		p.waiting = slices.DeleteFunc(p.waiting, func(w *claim) bool { return w == c })
	}
}

// settle gives claims that wait what they wait for, as far as there is room. It returns
// those whose wait is over, and those that were cut.
func (p *pot) settle(now time.Time) (told []*claim) {
	for again := len(p.waiting) > 0; again; {
		again = false
		before := int64(0) // that older claims wait for
		for _, c := range p.waiting {
			more := c.wanted - c.held
			if p.limit(c, c.wanted)-p.used-before >= more {
				p.take(c, more)
				p.stopWaiting(c)
				told, again = append(told, c), true
				break
			}
			before += more
		}
	}
	for _, c := range slices.Clone(p.waiting) {
		if c.wanted == 0 {
			continue // cut for an older one
		}
		victims, ok := p.makeRoom(c, c.wanted, now)
		if told = append(told, victims...); !ok {
			p.stopWaiting(c)
			c.phase.Store(cut)
			told = append(told, c)
		}
	}
	return told
}
