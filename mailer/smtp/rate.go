package smtp

import (
	"context"
	"slices"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// rateWait is how far off a turn may be that a delivery waits for. What is further
// off is the queue's business, which may know another relay.
const rateWait = time.Minute

// pace holds deliveries to a rate, see [spreading.free] and [spreading.spread]. A turn is
// given at its moment, to who comes first then of those who wait.
type pace struct {
	rate    spreading
	quit    chan struct{} // closed when nobody is to wait any more; nil: never
	mu      sync.Mutex
	stopped bool        // quit is closed
	sent    []time.Time // when the last messages set out, the oldest first; Rate.Messages of them at most
	line    line
	timer   *time.Timer // for the next one
}

// turn is what a delivery waits for.
type turn struct {
	due    time.Time
	urgent bool          // of high priority
	given  chan struct{} // closed when it may set out
	at     time.Time     // when that was; zero before
}

// turn waits for the moment at which one more message may set out. The error is
// a [mailer.RateError] when that is too far away, at once where that is known, or ctx's
// own.
func (p *pace) turn(ctx context.Context, priority mailer.Priority, due time.Time) error {
	if p.rate.Messages == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &turn{due: due, urgent: priority > mailer.PriorityNormal, given: make(chan struct{})}
	if err := p.enqueue(t, patience(ctx, rateWait)); err != nil {
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
	case <-p.quit:
		return p.leave(t)
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
func (p *pace) enqueue(t *turn, longest time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.line.add(t)
	if at := p.expected(now, t); at.After(now.Add(longest)) {
		p.line.remove(t)
		return &mailer.RateError{At: at}
	}
	p.give(now)
	return nil
}

// foresight is how many turns are counted out. Those after them come at the
// rate, near enough.
const foresight = 64

// expected is when the turn of t comes, which is in line, if nobody gets in
// before it. The caller holds mu.
func (p *pace) expected(now time.Time, t *turn) time.Time {
	var room [foresight]time.Time
	d, l, at := departures{p.sent, room[:0]}, p.line, now
	for range foresight {
		var next *turn
		if next, at = p.rate.next(d, l, at); next == t {
			return at
		}
		l.pass(next)
		d.foreseen = append(d.foreseen, at)
	}
	return at.Add(time.Duration(1+l.ahead(t)) * (p.rate.Per / time.Duration(p.rate.Messages)))
}

// give lets those in line set out whose moment has come, and wakes for the next
// one. The caller holds mu.
func (p *pace) give(now time.Time) {
	for p.line.len() > 0 {
		t, at := p.rate.next(departures{past: p.sent}, p.line, now)
		if at.After(now) {
			p.wakeAt(at)
			return
		}
		p.line.remove(t)
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
// when that was just now.
func (p *pace) leave(t *turn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !t.at.IsZero() {
		return nil
	}
	at := p.expected(time.Now(), t)
	p.line.remove(t)
	return &mailer.RateError{At: at}
}

// giveBack lets the next one have the turn.
func (p *pace) giveBack(t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.at.IsZero() {
		p.line.remove(t)
		return
	}
	for i := len(p.sent) - 1; i >= 0 && !p.sent[i].Before(t.at); i-- {
		if p.sent[i].Equal(t.at) {
			p.sent = slices.Delete(p.sent, i, i+1)
			break
		}
	}
	p.give(time.Now())
}

// Turns tells how a relay's rate is being used.
type Turns struct {
	mailer.Rate
	// Waiting is how many deliveries wait for their turn. None begins to whose turn is
	// more than a minute off: see [mailer.RateError].
	Waiting int
	// Next is when the next turn comes for mail that is not of high priority; zero
	// when that is now.
	Next time.Time
}

// Turns tells about the turns of this moment. It is zero without a rate.
func (r *Relay) Turns() Turns {
	p := &r.pace
	if p.rate.Messages == 0 {
		return Turns{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	t := Turns{Rate: p.rate.Rate, Waiting: p.line.len()}
	if at := p.rate.spread(departures{past: p.sent}, now); at.After(now) {
		t.Next = at
	}
	return t
}

// StopWaiting ends the waiting for a turn, now and from now on: what has begun at
// the relay goes on, and a delivery without a turn fails with a [mailer.RateError] at
// once. It is for a service that stops.
func (r *Relay) StopWaiting() {
	p := &r.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.stopped = true
		close(p.quit)
	}
}

// tooFast is the failure of a delivery without a turn. Nobody has judged the
// mail.
func (r *Relay) tooFast(ctx context.Context, why error) *mailer.Failure {
	f := &mailer.Failure{
		Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: r.opts.Name,
		Text: "the relay's rate (SMTP_RATE) is used up for now", Err: why,
	}
	if ctx.Err() != nil {
		f.Class = mailer.ClassTransient
	}
	return f
}
