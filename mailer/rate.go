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
	At time.Time // when a message may set out again
}

func (e *RateError) Error() string {
	return "no message may set out before " + e.At.UTC().Format(time.RFC3339)
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
	free []time.Time // turns to come that were given back
}

// turn waits for the moment at which one more message may set out. The error is
// a [RateError] at once when that is too far away, or ctx's own.
func (p *pace) turn(ctx context.Context) error {
	if p.rate.Messages == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	at, ok := p.reserve(time.Now().Add(patience(ctx)))
	if !ok {
		return &RateError{At: at}
	}
	wait := time.Until(at)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		p.giveBack(at)
		return ctx.Err()
	}
}

// patience is how long a delivery may wait for its turn: half of its time at
// most, for a turn is of no use to one that cannot finish any more.
func patience(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(rateWait, time.Until(end)/2)
	}
	return rateWait
}

// reserve returns the moment of the next turn, and takes the turn unless it is
// later than latest: who cannot wait for it must not keep others from it.
func (p *pace) reserve(latest time.Time) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.free = slices.DeleteFunc(p.free, now.After) // missed: used late they would crowd the next period
	if len(p.free) > 0 {
		at := slices.MinFunc(p.free, time.Time.Compare)
		if at.After(latest) {
			return at, false
		}
		i := slices.IndexFunc(p.free, at.Equal)
		p.free = slices.Delete(p.free, i, i+1)
		return at, true
	}
	if len(p.last) < p.rate.Messages {
		p.last = append(p.last, now)
		return now, true
	}
	at := p.last[p.next].Add(p.rate.Per)
	if at.Before(now) {
		at = now
	}
	if at.After(latest) {
		return at, false
	}
	p.last[p.next] = at
	p.next = (p.next + 1) % len(p.last)
	return at, true
}

// giveBack lets somebody else have the turn.
func (p *pace) giveBack(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, at)
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
