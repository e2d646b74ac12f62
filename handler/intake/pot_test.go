package intake

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// potWorld is a pot with clients, in virtual time. Each step something happens to one
// client at random.
type potWorld struct {
	t    *testing.T
	rng  *rand.Rand
	pot  pot
	now  time.Time
	live []*potClient
	log  []string

	completed, refused, cut int
}

// potClient is one request.
type potClient struct {
	claim
	name    string
	length  int64 // of its body
	known   bool  // the length was announced
	speed   int64 // octets a step
	grown   int64 // what the message becomes
	isMade  bool
	outcome string
	first   bool // it was the oldest claim of all keys
}

func (w *potWorld) failf(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.log[max(0, len(w.log)-30):] {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

func (w *potWorld) say(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *potWorld) begin() {
	c := &potClient{
		length: 1 + w.rng.Int64N(w.pot.message), known: w.rng.IntN(3) > 0, speed: 1 + w.rng.Int64N(w.pot.message/4+1),
		name: fmt.Sprintf("k%d", w.rng.IntN(5)),
	}
	c.grown = min(c.length*(1+w.rng.Int64N(3)), w.pot.message)
	var h *holder
	if w.rng.IntN(4) > 0 {
		h = w.pot.key(c.name)
	} else {
		c.name = "stranger"
	}
	w.pot.enter(&c.claim, h, w.now)
	c.phase.Store(reading)
	w.live = append(w.live, c)
	if !c.known {
		w.say("%s begins", c.name)
		return
	}
	within := h != nil && !w.pot.isOver(&c.claim, c.length)
	v, fits, told := w.pot.announce(&c.claim, c.length, w.now)
	w.say("%s announces %d: %v %v", c.name, c.length, v, fits)
	if fits != within {
		w.failf("announce(%d) of %s: fits %t, want %t", c.length, c.name, fits, within)
	}
	w.tell(told)
	if v == refused {
		w.end(c, "refused")
	}
}

// tell is what the lock around a pot does with the claims that it is told of.
func (w *potWorld) tell(told []*claim) {
	for _, c := range told {
		if c.wanted != 0 {
			w.failf("a claim was told of that still waits")
		}
	}
}

func (w *potWorld) end(c *potClient, outcome string) {
	w.say("%s ends: %s", c.name, outcome)
	c.outcome = outcome
	w.live = slices.DeleteFunc(w.live, func(other *potClient) bool { return other == c })
	w.tell(w.pot.leave(&c.claim, w.now))
	switch outcome {
	case "completed":
		w.completed++
	case "refused":
		w.refused++
	default:
		w.cut++
	}
}

// step lets one client go on.
func (w *potWorld) step() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(100)) * time.Millisecond)
	if len(w.live) == 0 || len(w.live) < 40 && w.rng.IntN(4) == 0 {
		w.begin()
		return
	}
	w.advance(w.live[w.rng.IntN(len(w.live))])
}

func (w *potWorld) advance(c *potClient) {
	switch phase := c.phase.Load(); {
	case phase == cut:
		w.end(c, "cut")
	case c.wanted > 0: // it waits
	case phase == queued:
		c.phase.Store(working)
	case phase == reading && c.came.Load() < c.length:
		c.came.Store(min(c.came.Load()+c.speed, c.length))
		if !c.fixed {
			w.grow(c, c.came.Load())
		}
	case phase == reading:
		c.phase.Store(working)
	case !c.isMade:
		c.isMade = true
		w.grow(c, c.grown)
	default:
		w.end(c, "completed")
	}
}

func (w *potWorld) grow(c *potClient, n int64) {
	isFirst := w.pot.isFirst(&c.claim) && c.held > 0
	v, told := w.pot.grow(&c.claim, n, w.now)
	w.say("%s grows to %d: %v", c.name, n, v)
	w.tell(told)
	if v == refused {
		if isFirst {
			w.failf("the oldest claim of a key was refused")
		}
		w.end(c, "refused")
	}
}

// check compares the sums, and looks for claims that were cut though they may not be.
func (w *potWorld) check() {
	var used, strangers int64
	leaving := false
	for _, c := range w.live {
		used += c.held
		if !c.holder.proven {
			strangers += c.held
		}
		isCut := c.phase.Load() == cut
		leaving = leaving || isCut
		if isCut && c.first {
			w.failf("the oldest claim of a key was cut")
		}
		if c.held > 0 && !isCut {
			c.first = w.pot.isFirst(&c.claim)
		}
	}
	if used != w.pot.used || used > w.pot.size || strangers != w.pot.strangers.held || strangers > w.pot.strangersMost() {
		w.failf("used = %d of %d, strangers %d of %d; the pot says %d and %d", used, w.pot.size, strangers, w.pot.strangersMost(), w.pot.used, w.pot.strangers.held)
	}
	for _, c := range w.pot.waiting {
		if w.pot.isSmall(c, c.wanted) {
			continue // it waits for a time, and others need not leave
		}
		if !leaving && !w.pot.isFirst(c) && !slices.ContainsFunc(w.live, func(other *potClient) bool { return other.phase.Load() == working }) {
			w.failf("a claim waits, and no other is about to leave")
		}
	}
	if len(w.pot.waiting) > 0 && !slices.ContainsFunc(w.live, func(c *potClient) bool { return c.wanted == 0 }) {
		w.failf("all %d claims wait", len(w.live))
	}
}

// TestPotModel: whatever clients do, the pot never holds more than its size, the oldest
// claim of a key completes, and all claims end once no further ones come.
func TestPotModel(t *testing.T) {
	var completed, refused, wasCut int
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		size := 20 + rng.Int64N(200)
		w := &potWorld{t: t, rng: rng, pot: newPot(size, 1+rng.Int64N(size)), now: time.Unix(1e9, 0)}
		for range 600 {
			w.step()
			w.check()
		}
		for n := 0; len(w.live) > 0; n++ {
			if n > 100_000 {
				w.failf("seed %d: %d claims never end, %d wait", seed, len(w.live), len(w.pot.waiting))
			}
			w.now = w.now.Add(time.Millisecond)
			w.advance(w.live[rng.IntN(len(w.live))])
			w.check()
		}
		if w.pot.used != 0 || w.pot.active != 0 || w.pot.oldest != nil || w.pot.youngest != nil || len(w.pot.waiting) != 0 {
			w.failf("seed %d: an empty pot = %+v", seed, w.pot)
		}
		completed, refused, wasCut = completed+w.completed, refused+w.refused, wasCut+w.cut
	}
	t.Logf("%d completed, %d refused, %d cut", completed, refused, wasCut)
	if completed < 1000 || refused < 1000 || wasCut < 1000 {
		t.Error("the model hardly does anything")
	}
}

// potCase is one pot with claims that are easily read: key names, or - for a stranger.
type potCase struct {
	pot    pot
	claims map[string]*claim
	now    time.Time
}

func newPotCase(size, message int64) *potCase {
	return &potCase{pot: newPot(size, message), claims: map[string]*claim{}, now: time.Unix(1e9, 0)}
}

// enter adds a claim by its name, whose first octet is its key.
func (p *potCase) enter(name string) *claim {
	c := &claim{}
	var h *holder
	if name[0] != '-' {
		h = p.pot.key(name[:1])
	}
	p.now = p.now.Add(time.Second)
	p.pot.enter(c, h, p.now)
	c.phase.Store(reading)
	p.claims[name] = c
	return c
}

// cut lists the claims that were cut.
func (p *potCase) cut() string {
	var names []string
	for name, c := range p.claims {
		if c.phase.Load() == cut {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return fmt.Sprint(names)
}

// TestPotShares: a key's announced length is reserved within its share, and what is over
// it gives way to another key, the slowest first.
func TestPotShares(t *testing.T) {
	p := newPotCase(100, 25)
	for i, name := range []string{"a1", "a2", "a3", "a4"} {
		c := p.enter(name)
		if v, fits, _ := p.pot.announce(c, 25, p.now); v != granted || !fits {
			t.Errorf("%s: announce(25) = %v, %t, want granted", name, v, fits)
		}
		c.came.Store(int64(20 - i)) // the youngest is not the slowest by its age
	}
	p.claims["a3"].came.Store(1)
	if v, fits, _ := p.pot.announce(p.enter("a5"), 25, p.now); v != granted || fits {
		t.Errorf("beyond the share: announce(25) = %v, %t, want its octets to count as they come", v, fits)
	}
	if v, _ := p.pot.grow(p.claims["a5"], 1, p.now); v != refused {
		t.Errorf("over its share in a full pot: grow(1) = %v, want refused", v)
	}
	b := p.enter("b1")
	if v, fits, _ := p.pot.announce(b, 25, p.now); v != waits || !fits || p.cut() != "[a3]" {
		t.Errorf("another key: announce(25) = %v, %t, cut %s, want to wait for the slowest over its share, a3", v, fits, p.cut())
	}
	told := p.pot.leave(p.claims["a3"], p.now)
	if b.held != 25 || len(told) != 1 || told[0] != b {
		t.Errorf("after the cut one left: held = %d, %d told, want 25", b.held, len(told))
	}
	if v, _, _ := p.pot.announce(p.enter("b2"), 25, p.now); v != waits || p.cut() != "[a3 a4]" {
		t.Errorf("another one: announce(25) = %v, cut %s, want to wait for a4", v, p.cut())
	}
	if v, _, _ := p.pot.announce(p.enter("b3"), 25, p.now); v != granted || p.cut() != "[a3 a4]" {
		t.Errorf("beyond b's share: announce(25) = %v, cut %s, want its octets to count as they come", v, p.cut())
	}
	if v, fits, _ := p.pot.announce(p.enter("c1"), 25, p.now); v != waits || !fits || p.cut() != "[a2 a3 a4]" {
		t.Errorf("a third key: announce(25) = %v, %t, cut %s, want to wait for a2, which is over a third of the pot", v, fits, p.cut())
	}
	if v, fits, _ := p.pot.announce(p.enter("d1"), 25, p.now); v != refused || !fits || p.cut() != "[a2 a3 a4]" {
		t.Errorf("a fourth key, beside two that wait: announce(25) = %v, %t, cut %s, want refused", v, fits, p.cut())
	}
}

// TestPotManyMessages: one request for many messages may have all of the pot when it is
// alone, and else leaves room for other keys.
func TestPotManyMessages(t *testing.T) {
	p := newPotCase(80, 10)
	a := p.enter("a1")
	if v, _ := p.pot.grow(a, 1000, p.now); v != granted || a.held != 80 {
		t.Errorf("alone: grow(1000) = %v, holds %d, want all of 80", v, a.held)
	}
	p.pot.shrink(a, 20, p.now)
	a.phase.Store(working)
	b := p.enter("b1")
	if v, _ := p.pot.grow(b, 1, p.now); v != granted {
		t.Errorf("another key: grow(1) = %v, want granted", v)
	}
	if v, _ := p.pot.grow(a, 70, p.now); v != refused {
		t.Errorf("over its share, into the last eighth: grow(70) = %v, want refused", v)
	}
	if v, _ := p.pot.grow(a, 69, p.now); v != granted {
		t.Errorf("over its share: grow(69) = %v, want granted", v)
	}
	if v, _ := p.pot.grow(b, 10, p.now); v != granted {
		t.Errorf("another key: grow(10) = %v, want granted", v)
	}
}

// TestPotStrangers: strangers hold a quarter of the pot at most, and give way to each key.
func TestPotStrangers(t *testing.T) {
	p := newPotCase(100, 10)
	for i := range 30 {
		c := p.enter(fmt.Sprintf("-%02d", i))
		c.came.Store(int64(1 + i%2))
		_, _ = p.pot.grow(c, 1, p.now)
	}
	if p.pot.strangers.held > 25 {
		t.Errorf("strangers hold %d octets, want at most 25", p.pot.strangers.held)
	}
	if v, fits, _ := p.pot.announce(p.enter("a1"), 70, p.now); v != granted || !fits {
		t.Errorf("a key beside strangers: announce(70) = %v, %t, want granted", v, fits)
	}
	if v, _, _ := p.pot.announce(p.enter("a2"), 30, p.now); v != waits {
		t.Errorf("a key: announce(30) = %v, want to wait for strangers that were cut", v)
	}
	for name, c := range p.claims {
		if name[0] == '-' && c.phase.Load() == cut {
			p.pot.leave(c, p.now)
		}
	}
	if got := p.claims["a2"].held; got != 30 {
		t.Errorf("after the strangers left: held = %d, want 30", got)
	}
}

// TestPotSmall: a small claim has room beside large ones that have filled the pot and cannot
// be cut.
func TestPotSmall(t *testing.T) {
	const mib = 1 << 20
	p := newPotCase(128*mib, 25*mib)
	for i := range 16 {
		c := p.enter(fmt.Sprintf("a%d", i))
		if v, _ := p.pot.grow(c, 8*mib, p.now); v == granted {
			c.phase.Store(working)
		}
	}
	for i := range 10 {
		if v, _ := p.pot.grow(p.enter(fmt.Sprintf("b%d", i)), firstReservation, p.now); v != granted {
			t.Errorf("small claim %d beside large ones: grow = %v, want granted", i, v)
		}
	}
	alone := newPotCase(128*mib, 25*mib)
	if v, _ := alone.pot.grow(alone.enter("a"), 200*mib, alone.now); v != granted {
		t.Errorf("a claim larger than the pot, alone: grow = %v, want granted", v)
	}
}

// TestPotSmallWaits: a small claim waits for large ones that can neither be cut nor leave
// the room that is kept for small ones, and gets what the first of them leaves.
func TestPotSmallWaits(t *testing.T) {
	const mib = 1 << 20
	p := newPotCase(128*mib, 25*mib)
	var large []*claim
	for i := range 16 {
		c := p.enter(fmt.Sprintf("a%d", i))
		if v, _ := p.pot.grow(c, 8*mib, p.now); v == granted {
			c.phase.Store(working)
			large = append(large, c)
		}
	}
	for p.pot.used < p.pot.size { // the rest, with small ones
		c := p.enter("s")
		if v, _ := p.pot.grow(c, min(firstReservation, p.pot.size-p.pot.used), p.now); v != granted {
			t.Fatalf("grow with %d of %d used = %v, want granted", p.pot.used, p.pot.size, v)
		}
		c.phase.Store(working)
	}
	b := p.enter("b")
	if v, _ := p.pot.grow(b, firstReservation, p.now); v != waits {
		t.Errorf("a small claim beside a full pot: grow = %v, want that it waits", v)
	}
	if v, _ := p.pot.grow(p.enter("c"), 8*mib, p.now); v != refused {
		t.Errorf("a large claim beside a full pot: grow = %v, want refused", v)
	}
	if told := p.pot.leave(large[0], p.now); !slices.Contains(told, b) || b.held != firstReservation {
		t.Errorf("after a large claim left: held = %d, want %d", b.held, firstReservation)
	}
}
