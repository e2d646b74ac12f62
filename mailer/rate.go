package mailer

import (
	"context"
	"sync"
	"time"
)

// Rate is so many messages in so much time. Zero is no bound.
type Rate struct {
	Messages int
	Per      time.Duration
}

// rateWait is how long a delivery waits for its turn. Longer is the queue's
// business, which may know another relay.
const rateWait = time.Minute

// pace holds deliveries to a rate: in no period of its length do more messages
// set out.
type pace struct {
	rate Rate
	mu   sync.Mutex
	last []time.Time // when the last messages set out, or are to; a ring
	next int         // the oldest of them
}

// turn waits for the moment at which one more message may set out. It is false
// when that is too far away, or ctx ended before it.
func (p *pace) turn(ctx context.Context) bool {
	wait := time.Until(p.reserve())
	if wait <= 0 {
		return true
	}
	if wait > rateWait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false // its turn is lost, which the relay will not mind
	}
}

// reserve returns the moment of the next turn, and takes the turn unless it is
// too far away.
func (p *pace) reserve() time.Time {
	if p.rate.Messages == 0 {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if len(p.last) < p.rate.Messages {
		p.last = append(p.last, now)
		return now
	}
	at := p.last[p.next].Add(p.rate.Per)
	if at.Before(now) {
		at = now
	}
	if at.Sub(now) <= rateWait {
		p.last[p.next] = at
		p.next = (p.next + 1) % len(p.last)
	}
	return at
}

// tooFast is the failure of a delivery without a turn. Nobody has judged the
// mail.
func (r *Relay) tooFast(ctx context.Context) *Failure {
	f := &Failure{
		Class: ClassRelay, Stage: StageConnect, Relay: r.opts.Name,
		Text: "the relay's rate (SMTP_RATE) is used up for now", Err: ctx.Err(),
	}
	if ctx.Err() != nil {
		f.Class = ClassTransient
	}
	return f
}
