package smtp

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"mailsidecar/mailer"
)

// opening is a connection that the pool opens in the background, before it is logged
// in. No delivery is tied to it: whichever is first in line gets the connection, and
// a delivery that gets another one before leaves it to the next.
type opening struct {
	began time.Time
	stage atomic.Int32 // the furthest [mailer.Stage] that one of the rungs has reached
}

// reached records how far a rung has come.
func (o *opening) reached(stage mailer.Stage) {
	for {
		before := o.stage.Load()
		if int32(stage) <= before || o.stage.CompareAndSwap(before, int32(stage)) {
			return
		}
	}
}

// reached records how far the connection has come, where the pool or a check opens it.
func (c *conn) reached(stage mailer.Stage) {
	if c.opening != nil {
		c.opening.reached(stage)
	}
}

// serve gives the deliveries in line what there is: new connections up to the limit,
// and idle ones to those that want a new one, when none comes soon. It follows every
// change that frees a place. The caller holds mu.
func (p *pool) serve() {
	if p.relay.ctx.Err() != nil {
		if p.places == p.leaving {
			p.failLine(grant{failure: p.stopped()})
		}
		return
	}
	for len(p.line) > p.coming() && p.places < p.window.limit {
		p.places++
		o := &opening{began: time.Now()}
		p.opening = append(p.opening, o)
		// The line is not empty: a delivery is in flight, as background demands.
		p.relay.background(func(ctx context.Context) { p.open(ctx, o) })
	}
	for len(p.line) > 0 && len(p.idle) > 0 && p.soon() == 0 {
		p.popFirst().grants <- grant{conn: p.popIdle(), idle: true}
	}
}

// open opens a connection and gives it to the first in line.
func (p *pool) open(ctx context.Context, o *opening) {
	c, reports, f := p.relay.dial(ctx, o)
	if f != nil {
		p.refused(ctx, o, grant{conn: c, reports: reports, failure: f})
		return
	}
	c.reports = reports
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended(o)
	p.keep(c)
}

// refused gives back the place of a connection that could not be opened. While there
// are others it says only that the relay takes no further one now, whatever the
// reply: the line waits for those. Where there are no others, the whole line fails,
// so that its deliveries need not try one by one.
func (p *pool) refused(ctx context.Context, o *opening, g grant) {
	p.adjust(func(w *window) {
		p.ended(o)
		p.places--
		switch {
		case ctx.Err() != nil: // the relay is being closed; serve ends the line
		case p.places > p.held:
			w.refused(time.Now(), p.places, g.failure.Error())
		default:
			if g.failure.Reply.Code == 0 {
				w.restart()
			}
			p.failLine(g)
		}
		if g.conn != nil && !g.conn.dead {
			p.dismiss(g.conn)
		}
	})
}

// dismiss says QUIT on a connection whose login was refused, and counts it until then.
// The caller holds mu.
func (p *pool) dismiss(c *conn) {
	p.hold()
	p.relay.background(func(context.Context) {
		c.farewell()
		p.releaseHeld()
	})
}

// failLine ends the wait of all deliveries in line. The caller holds mu.
func (p *pool) failLine(g grant) {
	for len(p.line) > 0 {
		p.popFirst().grants <- g
	}
}

// ended removes o from those that are being opened. The caller holds mu.
func (p *pool) ended(o *opening) {
	if i := slices.Index(p.opening, o); i >= 0 {
		p.opening = slices.Delete(p.opening, i, i+1)
	}
}

// soon returns how many of the connections that are being opened have not been for
// long, so that they will probably come soon. The others hang. The caller holds mu.
func (p *pool) soon() int {
	n := 0
	for _, o := range p.opening {
		if time.Since(o.began) < stallTime {
			n++
		}
	}
	return n
}

// coming returns how many connections that are being opened there are to wait for.
// Before the first is open those that hang count, too: the relay may be dead. The
// caller holds mu.
func (p *pool) coming() int {
	if p.loggedIn() > 0 {
		return p.soon()
	}
	return len(p.opening)
}

// loggedIn returns the number of connections that can carry messages. The caller
// holds mu.
func (p *pool) loggedIn() int { return p.places - p.leaving - len(p.opening) }

// unreached returns the failure of a delivery whose time is over before a first
// connection to the relay was open: how far that has come.
func (p *pool) unreached() *mailer.Failure {
	stage, why := mailer.StageConnect, dialCause(context.DeadlineExceeded)
	for _, o := range p.opening {
		stage = max(stage, mailer.Stage(o.stage.Load()))
	}
	if stage > mailer.StageConnect {
		why = readCause(context.DeadlineExceeded)
	}
	return &mailer.Failure{Class: mailer.ClassRelay, Stage: stage, Relay: p.relay.opts.Name, Text: why.text, Err: why}
}

// stopped returns the failure of a delivery that has no time any more to wait for a
// connection. It says nothing about the relay.
func (p *pool) stopped() *mailer.Failure {
	return &mailer.Failure{
		Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: p.relay.opts.Name,
		Text: "the attempt was stopped", Err: context.Canceled,
	}
}
