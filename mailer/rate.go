package mailer

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Rate is so many messages in so much time. Zero is no bound.
type Rate struct {
	Messages int
	Per      time.Duration
}

// RateError is the cause of a [Failure] of class [ClassRelay] where the relay's
// rate is used up. It says nothing about the relay's health: nobody was asked.
type RateError struct {
	At time.Time // when this message's turn would have come
}

func (e *RateError) Error() string {
	return "no message may set out before " + e.At.UTC().Format(time.RFC3339)
}

// rateWait is how far off a turn may be that a delivery waits for. What is further
// off is the queue's business, which may know another relay.
const rateWait = time.Minute

// pace holds deliveries to a rate: in no period of its length do more messages
// set out. A turn is given at its moment, to who is due first of those who wait
// then.
type pace struct {
	rate  Rate
	mu    sync.Mutex
	sent  []time.Time // when the last messages set out, the oldest first; Rate.Messages of them at most
	line  []*turn     // the first in front
	timer *time.Timer // for the first one
}

// turn is what a delivery waits for.
type turn struct {
	due   time.Time
	given chan struct{} // closed when it may set out
	at    time.Time     // when that was; zero before
}

// turn waits for the moment at which one more message may set out. The error is
// a [RateError] when that is too far away, at once where that is known, or ctx's
// own.
func (p *pace) turn(ctx context.Context, due time.Time) error {
	if p.rate.Messages == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t, err := p.enqueue(due, patience(ctx, rateWait))
	if err != nil {
		return err
	}
	select {
	case <-t.given: // at once, mostly
		return nil
	default:
	}
	// Until it is due others get in before it. Who left then, and came back later,
	// would never have a turn while they come in time for each.
	timer := time.NewTimer(patience(ctx, rateWait+max(time.Until(due), 0)))
	defer timer.Stop()
	select {
	case <-t.given:
		return nil
	case <-ctx.Done():
		p.giveBack(t)
		return ctx.Err()
	case <-timer.C: // others were due before
		return p.leave(t)
	}
}

// patience is how long a delivery may wait for its turn: half of its time at
// most, for a turn is of no use to one that cannot finish any more.
func patience(ctx context.Context, longest time.Duration) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(longest, time.Until(end)/2)
	}
	return longest
}

// enqueue puts a delivery in line, unless its turn will not come in time: who
// cannot wait must not keep others from theirs.
func (p *pace) enqueue(due time.Time, longest time.Duration) (*turn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	i := len(p.line)
	for i > 0 && due.Before(p.line[i-1].due) {
		i--
	}
	if at := p.expected(now, i); at.After(now.Add(longest)) {
		return nil, &RateError{At: at}
	}
	t := &turn{due: due, given: make(chan struct{})}
	p.line = slices.Insert(p.line, i, t)
	p.give(now)
	return t, nil
}

// expected is when the turn of the one at i in line comes, if nobody gets in
// before it. The caller holds mu.
func (p *pace) expected(now time.Time, i int) time.Time {
	n := p.rate.Messages
	var periods time.Duration // that the turns before it fill
	for i >= n {
		i -= n
		periods += p.rate.Per
	}
	at := now
	if oldest := len(p.sent) + i - n; oldest >= 0 && at.Before(p.sent[oldest].Add(p.rate.Per)) {
		at = p.sent[oldest].Add(p.rate.Per)
	}
	return at.Add(periods)
}

// give lets those in line set out whose moment has come, and wakes for the next
// one. The caller holds mu.
func (p *pace) give(now time.Time) {
	for len(p.line) > 0 {
		if at := p.expected(now, 0); at.After(now) {
			p.wakeAt(at)
			return
		}
		t := p.line[0]
		p.line = slices.Delete(p.line, 0, 1)
		if len(p.sent) == p.rate.Messages {
			p.sent = p.sent[1:]
		}
		p.sent = append(p.sent, now)
		t.at = now
		close(t.given)
	}
}

func (p *pace) wakeAt(at time.Time) {
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(at), p.wake)
		return
	}
	p.timer.Reset(time.Until(at))
}

func (p *pace) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.give(time.Now())
}

// leave takes t out of line, and says when its turn would have come. It is nil
// when that is just now.
func (p *pace) leave(t *turn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.line, t)
	if i < 0 {
		return nil
	}
	at := p.expected(time.Now(), i)
	p.line = slices.Delete(p.line, i, i+1)
	return &RateError{At: at}
}

// giveBack lets the next one have the turn.
func (p *pace) giveBack(t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.line, t); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
		return
	}
	for i := len(p.sent) - 1; i >= 0; i-- {
		if p.sent[i].Equal(t.at) {
			p.sent = slices.Delete(p.sent, i, i+1)
			break
		}
	}
	p.give(time.Now())
}

// tooFast is the failure of a delivery without a turn. Nobody has judged the
// mail.
func (r *Relay) tooFast(ctx context.Context, why error) *Failure {
	f := &Failure{
		Class: ClassRelay, Stage: StageConnect, Relay: r.opts.Name,
		Text: "the relay's rate (SMTP_RATE) is used up for now", Err: why,
	}
	if ctx.Err() != nil {
		f.Class = ClassTransient
	}
	return f
}
