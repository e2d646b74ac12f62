package intake

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/processor"
)

const (
	// firstReservation is the least that a key's request reserves, in octets. What is
	// made of a small body has room in it, too.
	firstReservation = 64 << 10
	// uncounted is what each request may take beside the budget, in octets: the memory
	// for connections covers it.
	uncounted = 4 << 10
	// smallWait is how long a small request within its key's share waits for requests that
	// are being answered.
	smallWait = 2 * time.Second
	// tolerance is how much larger than its body a message may become without
	// reserving more, in octets: a few fields are added to finished messages.
	tolerance = 64 << 10
)

// Of the memory for what is made a part is for what is small, so that several requests
// have room there at once.
const (
	smallPart   = 8
	smallAtOnce = 8
)

// Budget divides the memory for requests (MAILSIDECAR_MAX_IN_FLIGHT) among them: the
// octets of their bodies, and of the messages that are made of them. What else is made
// on the way has half as much again, and waits in line for it.
type Budget struct {
	recipients int // that a message may have
	// large and small are for what is made, of over and up to maxSmall octets: nothing
	// small waits behind something large.
	large, small *semaphore.Weighted
	mostMade     int64 // in large
	maxSmall     int64
	turns        *processor.Turns

	mu  sync.Mutex
	pot pot
}

// SpareForOthers keeps half of the budget free of any single key, for a server whose
// requests hold their memory as long as a relay takes.
func (b *Budget) SpareForOthers() { b.pot.spare = 1 }

// ShareProcessors makes requests take turns with what else takes long.
func (b *Budget) ShareProcessors(t *processor.Turns) { b.turns = t }

// NewBudget returns one of size octets, where a request for one message has up to
// message octets, and the message so many recipients at most.
func NewBudget(size, message int64, recipients int) *Budget {
	most := max(size/2, min(message, size))
	b := &Budget{recipients: recipients, mostMade: most - most/smallPart, maxSmall: most / smallPart / smallAtOnce, pot: newPot(size, message)}
	b.large, b.small = semaphore.NewWeighted(b.mostMade), semaphore.NewWeighted(max(most/smallPart, 1))
	b.turns = processor.New()
	return b
}

// Used is how many octets requests hold just now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pot.used
}

// Share returns a request's share, empty at first. It is a stranger's until
// [Share.Prove]. Close it when the request is answered.
func (b *Budget) Share() *Share {
	s := &Share{budget: b}
	s.claim.share = s
	return s
}

// Share is one request's share of the budget. One goroutine uses it.
type Share struct {
	budget *Budget
	key    string
	proven bool
	claim  claim
	made   int64 // octets that it holds of those for what is made, all in one line
	line   *semaphore.Weighted
	turn   bool            // it has a turn to use a processor for what is made
	more   int64           // octets that it holds of large, beside those
	done   <-chan struct{} // closed when the client is gone; nil: never

	// The budget's mutex guards these.
	wake      chan struct{}      // tells that a wait is over; nil while nothing waits
	interrupt func()             // ends a read of the body; nil where that cannot be
	cancel    context.CancelFunc // ends a wait for the turn; nil while there is none
}

// Prove says whose the request is: from now on it is a stranger's no more.
func (s *Share) Prove(key string) {
	s.key, s.proven = key, true
	if b := s.budget; s.claim.entered {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pot.prove(&s.claim, b.pot.key(key))
	}
}

// enter makes the claim one of the pot's. The caller holds the mutex.
func (s *Share) enter(now time.Time) {
	if s.claim.entered {
		return
	}
	var h *holder
	if s.proven {
		h = s.budget.pot.key(s.key)
	}
	s.budget.pot.enter(&s.claim, h, now)
}

// Grow makes the share at least n octets and reports whether there was room. It may
// wait until requests that were cut are gone. A request larger than the whole budget is
// let in when it is alone.
func (s *Share) Grow(n int64) bool {
	if n <= s.claim.held {
		return true
	}
	b := s.budget
	b.mu.Lock()
	now := time.Now()
	s.enter(now)
	v, told := b.pot.grow(&s.claim, n, now)
	return s.await(v, told)
}

// await waits where that is the verdict, and unlocks the mutex. It reports whether the
// share got what it wants.
func (s *Share) await(v verdict, told []*claim) bool {
	b := s.budget
	tell(told)
	if v != waits {
		b.mu.Unlock()
		return v == granted
	}
	s.wake = make(chan struct{}, 1)
	wake := s.wake
	var late <-chan time.Time
	if b.pot.isSmall(&s.claim, s.claim.wanted) {
		late = time.After(smallWait)
	}
	b.mu.Unlock()
	s.leaveTurn() // others may need it to be done with what this one waits for
	select {
	case <-wake:
	case <-s.done:
	case <-late:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.wake = nil
	got := s.claim.wanted == 0 && s.claim.phase.Load() != cut
	b.pot.stopWaiting(&s.claim)
	s.claim.phase.CompareAndSwap(queued, working)
	return got
}

// tell wakes the requests that wait no more, and stops those that are cut. The caller
// holds the mutex.
func tell(claims []*claim) {
	for _, c := range claims {
		s := c.share
		if s.wake != nil {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
		if c.phase.Load() != cut {
			continue
		}
		if s.interrupt != nil {
			s.interrupt()
		}
		if s.cancel != nil {
			s.cancel()
		}
	}
}

// open begins to read a body of the announced length, -1 when that is not known. The
// error is a problem: there is no room, which a client that sent Expect: 100-continue
// so learns before it sends the body.
func (s *Share) open(length int64, asks, canInterrupt bool, interrupt func()) error {
	b := s.budget
	b.mu.Lock()
	now := time.Now()
	s.enter(now)
	c := &s.claim
	if canInterrupt {
		s.interrupt = interrupt
		c.phase.Store(reading)
	}
	v, fits, told := b.pot.announce(c, max(length, firstReservation), now)
	switch {
	case length < 0:
		c.fixed = false // that was for its beginning
	case !fits && asks && !b.pot.hasRoom(c, length):
		v = refused
	}
	if !s.await(v, told) {
		return busy()
	}
	return nil
}

// MayCut says that the share may be taken from the request by calling stop, from now on
// until it is closed. What goes on then must end soon.
func (s *Share) MayCut(stop func() error) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	if s.claim.phase.CompareAndSwap(working, reading) {
		s.interrupt = func() { _ = stop() }
		tell(s.budget.pot.settle(time.Now()))
	}
}

// endRead says that the whole body is there. It reports whether the request goes on.
func (s *Share) endRead() bool {
	return s.claim.phase.CompareAndSwap(reading, working) || s.claim.phase.Load() != cut
}

// unlessCut calls f if the share is not cut, and reports that.
func (s *Share) unlessCut(f func()) bool {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	if s.claim.phase.Load() == cut {
		return false
	}
	f()
	return true
}

// Hold makes the share large enough for messages of so many octets in place of the body,
// of which a few may be added. The error is a problem.
func (s *Share) Hold(octets int64) error {
	if !s.Grow(octets - tolerance) {
		return busy()
	}
	return nil
}

// Shrink gives back what the share is over n octets.
func (s *Share) Shrink(n int64) {
	if n >= s.claim.held {
		return
	}
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	tell(b.pot.shrink(&s.claim, n, time.Now()))
}

// Close gives back all that the share has.
func (s *Share) Close() {
	s.End()
	if !s.claim.entered {
		return
	}
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	s.interrupt = nil
	tell(b.pot.leave(&s.claim, time.Now()))
}

// Begin waits for the turn to make so many octets of the request, beside its body and
// its messages. It ends with [Share.End]. What is so small that the request's first
// reservation has room for it needs no turn, and neither do 0 octets. The error is a problem, or the context's.
func (s *Share) Begin(ctx context.Context, octets int64) error {
	s.End()
	if octets <= 0 || s.claim.held <= firstReservation && octets <= s.claim.held/2 {
		return nil
	}
	octets = min(octets, s.budget.mostMade)
	line := s.budget.large
	if octets <= s.budget.maxSmall {
		line = s.budget.small
	}
	// First the processor: only who has it holds many octets, so they come free without it.
	if octets > processor.Small {
		if err := s.takeTurn(ctx); err != nil {
			return err
		}
		s.turn = true
	}
	if !line.TryAcquire(octets) {
		if err := s.wait(ctx, func(ctx context.Context) error { return line.Acquire(ctx, octets) }, func() { line.Release(octets) }); err != nil {
			s.leaveTurn()
			return err
		}
	}
	s.made, s.line = octets, line
	return nil
}

// takeTurn waits for the turn to use a processor for long. Give it back with Leave.
func (s *Share) takeTurn(ctx context.Context) error {
	turns := s.budget.turns
	if turns.TryEnter() {
		return nil
	}
	return s.wait(ctx, func(ctx context.Context) error { return turns.Enter(ctx, s.key) }, turns.Leave)
}

func (s *Share) leaveTurn() {
	if s.turn {
		s.turn = false
		s.budget.turns.Leave()
	}
}

// wait waits in a line with acquire. A request that waits there may be cut, and then releases
// what it got nevertheless.
func (s *Share) wait(ctx context.Context, acquire func(context.Context) error, release func()) error {
	b := s.budget
	inLine, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	if s.claim.phase.Load() == cut { // just now: nobody would end the wait
		b.mu.Unlock()
		return busy()
	}
	before := s.claim.phase.Swap(queued) // reading, or working; only who has the mutex cuts
	s.cancel = cancel
	tell(b.pot.settle(time.Now()))
	b.mu.Unlock()
	err := acquire(inLine)
	b.mu.Lock()
	defer b.mu.Unlock()
	s.cancel = nil
	s.claim.phase.CompareAndSwap(queued, before)
	switch {
	case s.claim.phase.Load() == cut:
		if err == nil {
			release()
		}
		return busy()
	case err != nil:
		return ctx.Err()
	}
	return nil
}

// More makes so many octets more than [Share.Begin] asked for, if they are free.
func (s *Share) More(octets int64) bool {
	room := s.budget.mostMade - s.more
	if s.line == s.budget.large {
		room -= s.made
	}
	octets = min(octets, room) // all of it is enough: it is alone then
	if !s.budget.large.TryAcquire(octets) {
		return false
	}
	s.more += octets
	return true
}

// End says that everything is made. It need not be called before Close.
func (s *Share) End() {
	if s.made > 0 {
		s.line.Release(s.made)
		s.leaveTurn()
	}
	if s.more > 0 {
		s.budget.large.Release(s.more)
	}
	s.made, s.more = 0, 0
}

func busy() *problem.Error { return problem.New(api.CodeBusy, "") }

// asksFirst reports whether the client waits for 100 Continue.
func asksFirst(h http.Header) bool { return h.Get("Expect") != "" }
