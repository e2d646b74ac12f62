package mailer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// connMaxAge is when a connection is given up however busy it is: relays
	// bound a session's life, some to ten minutes, and a preferred rung or
	// another address of the relay deserves its share.
	connMaxAge = 5 * time.Minute
	// growPause is how long a relay that refused a further connection is left
	// with those it has, before one more is tried.
	growPause = time.Minute
	// bookedPatience is how long a delivery waits for the connection that it
	// booked, before it takes any other as well.
	bookedPatience = time.Second
)

// pool keeps a relay's connections that are logged in for the messages to come.
// A connection is in the hands of one delivery, or idle and watched. When there
// are as many as may be, deliveries stand in line.
//
// mu is never held while the relay is waited for. Where the line is not empty,
// no connection is idle and none more may be opened.
type pool struct {
	relay *Relay

	mu     sync.Mutex
	idle   []*conn   // the last used comes last, and is taken first: the others get old
	line   []*waiter // the first in front
	places int       // connections, and those being opened or saying farewell
	limit  int       // of places: at most MaxConnections
	growAt time.Time // when limit may rise again
	closed bool      // keep nothing any more
}

// waiter is a delivery in line. While it is there, what it has open may be
// changed under the pool's lock only.
type waiter struct {
	delivery *delivery
	grants   chan grant   // of one
	done     bool         // the delivery has its grant, or has left
	booked   *transaction // see book
	patience *time.Timer  // until the one that has booked takes any connection; or nil
}

// grant is what a delivery in line gets: a connection, leave to open one, or the
// failure that it would meet.
type grant struct {
	conn    *conn        // nil: the place is there, the connection is not
	idle    bool         // the connection is watched still, see wake
	booked  *transaction // its envelope has gone out on conn already
	failure *Failure
}

// take returns a connection for d, or none with the place for one to open. first
// is for a delivery that had its turn in line already.
func (p *pool) take(ctx context.Context, d *delivery, first bool) grant {
	for {
		g, w := p.next(d, first)
		if w != nil {
			g = p.wait(ctx, w)
		}
		if g.conn == nil || !g.idle || g.conn.wake() {
			return g
		}
		g.conn.close()
		p.vacate()
	}
}

// wait stands in line.
func (p *pool) wait(ctx context.Context, w *waiter) grant {
	var g grant
	select {
	case g = <-w.grants:
	case <-ctx.Done():
		p.leave(w)
		g.failure = p.busy(ctx)
	}
	if w.booked != nil && g.booked == nil { // it came to nothing
		w.delivery.open = append(w.booked.results, w.delivery.open...)
	}
	return g
}

// next is what can be had at once, or the place in line.
func (p *pool) next(d *delivery, first bool) (grant, *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return grant{conn: c, idle: true}, nil
	}
	p.grow()
	if p.places < p.limit {
		p.places++
		return grant{}, nil
	}
	w := &waiter{delivery: d, grants: make(chan grant, 1)}
	if first {
		p.line = slices.Insert(p.line, 0, w)
	} else {
		p.line = append(p.line, w)
	}
	return grant{}, w
}

// grow lets the pool be one connection larger again, some time after the relay
// refused one. The caller holds mu.
func (p *pool) grow() {
	if most := p.relay.opts.MaxConnections; p.limit < most && time.Now().After(p.growAt) {
		p.limit++
		p.growAt = time.Now().Add(growPause)
		p.serve()
	}
}

// serve lets those in line open connections. The caller holds mu.
func (p *pool) serve() {
	for len(p.line) > 0 && p.places < p.limit {
		p.places++
		p.first().grants <- grant{}
	}
}

// first takes the first waiter out of the line, to be given its grant. The
// caller holds mu.
func (p *pool) first() *waiter {
	w := p.line[0]
	w.done = true
	p.line = slices.Delete(p.line, 0, 1)
	return w
}

// forget takes w out of the line, if it is there. The caller holds mu.
func (p *pool) forget(w *waiter) {
	if i := slices.Index(p.line, w); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
	}
}

// leave takes w out of the line, and gives back what it got meanwhile.
func (p *pool) leave(w *waiter) {
	p.mu.Lock()
	w.done = true
	p.forget(w)
	var g grant
	got := false
	select {
	case g = <-w.grants:
		got = true
	default:
	}
	p.mu.Unlock()
	switch {
	case !got, g.failure != nil:
	case g.conn != nil:
		if g.booked != nil {
			g.conn.close() // its envelope is under way
		}
		p.put(g.conn)
	default:
		p.vacate()
	}
}

// book promises the connection to the first in line while its holder still has
// it, so that the envelope of the one can go out behind the content of the other
// (RFC 2920 §3.1): then a connection carries one message in each round trip. It
// is nil when nobody waits, or when the first message does not fit as it is.
//
// Whatever becomes of the holder, the one that is booked has not sent any
// content. When the connection ends it starts over with a new one.
func (p *pool) book(c *conn) *waiter {
	if !c.ext.has("PIPELINING") || p.relay.distrust.has(behindDot) || c.worn() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.line) == 0 || p.line[0].booked != nil || !p.line[0].delivery.fits(c.ext) {
		return nil
	}
	w := p.line[0]
	p.forget(w)
	w.booked = w.delivery.transaction(c.ext)
	w.booked.sent = true
	w.patience = time.AfterFunc(bookedPatience, func() { p.loosen(w) })
	return w
}

// loosen lets the one that booked a connection have any other: the message
// before it may be about to wait for minutes. It is the first in line again, but
// for those that were loosened before.
func (p *pool) loosen(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.done {
		return
	}
	if n := len(p.idle); n > 0 {
		w.done = true
		w.grants <- grant{conn: p.idle[n-1], idle: true}
		p.idle = p.idle[:n-1]
		return
	}
	at := 0
	for at < len(p.line) && p.line[at].booked != nil {
		at++
	}
	p.line = slices.Insert(p.line, at, w)
	p.serve()
}

// hand gives a connection to the one that booked it, or the place of it.
func (p *pool) hand(c *conn, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.patience.Stop()
	p.forget(w)
	done := w.done
	w.done = true
	switch {
	case done: // it has left, or has another one
		if !c.dead { // else a late listener may have the socket
			c.close() // its envelope is under way
		}
		p.places--
		p.serve()
	case c.dead:
		w.grants <- grant{}
	default:
		w.grants <- grant{conn: c, booked: w.booked}
	}
}

// busy is the failure of a delivery whose time was over while it stood in line.
// It says nothing about the relay.
func (p *pool) busy(ctx context.Context) *Failure {
	f := &Failure{
		Class: ClassTransient, Stage: StageConnect, Relay: p.relay.opts.Name,
		Text: "all connections to the relay were busy", Err: ctx.Err(),
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		f.Text = "the attempt was stopped"
	}
	return f
}

// refused gives back the place of a connection that was not to be had. True
// means that the relay wants no more of them, but serves others of ours or may
// do so soon: the delivery may wait for one of these. Otherwise those in line
// need not find out one by one that there is none.
func (p *pool) refused(ctx context.Context, f *Failure) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places--
	switch {
	case ctx.Err() != nil || f.Reply.Code/100 == 5 && p.places > 0:
		p.serve()
	case p.places > 0:
		p.limit = p.places
		p.growAt = time.Now().Add(growPause)
		return true
	default:
		p.limit = p.relay.opts.MaxConnections
		for len(p.line) > 0 {
			p.first().grants <- grant{failure: f}
		}
	}
	return false
}

// vacate gives back a place: its connection has ended, or none was opened.
func (p *pool) vacate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places--
	p.serve()
}

// put takes a connection back from a delivery. It goes to the first in line,
// and is kept where there is none.
func (p *pool) put(c *conn) {
	if w := c.next; w != nil {
		c.next = nil
		p.hand(c, w)
		return
	}
	switch {
	case c.dead:
		p.vacate()
		return
	case c.br.Buffered() > 0: // an answer to nothing: out of step
		c.close()
		p.vacate()
		return
	case c.worn():
		p.retire(c)
		return
	}
	p.mu.Lock()
	switch {
	case len(p.line) > 0:
		p.first().grants <- grant{conn: c}
	case p.closed:
		defer p.retire(c)
	default:
		p.idle = append(p.idle, c)
		c.raw.SetReadDeadline(time.Now().Add(p.relay.opts.IdleTimeout))
		p.relay.background(func(context.Context) { p.watch(c) })
	}
	p.mu.Unlock()
}

// worn: the connection has served as long as it should.
func (c *conn) worn() bool {
	return c.served >= c.relay.opts.MessagesPerConnection || time.Since(c.since) > connMaxAge
}

// retire says farewell in the background. The place is given back only then, for
// the relay may count the connection until it has heard it.
func (p *pool) retire(c *conn) {
	c.dead = true
	p.relay.background(func(context.Context) {
		c.farewell()
		p.vacate()
	})
}

// watch waits on an idle connection for its next user, for the end of its time,
// or for the relay to end it, so that no message is risked on one that is gone.
func (p *pool) watch(c *conn) {
	_, err := c.br.Peek(1)
	p.mu.Lock()
	i := slices.Index(p.idle, c)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.mu.Unlock()
	switch {
	case i < 0:
		c.watched <- err
	case isTimeout(err):
		c.farewell()
		p.vacate()
	default: // closed, or the 421 that comes before
		c.close()
		p.vacate()
	}
}

// wake ends the watch over a connection that was taken out of idle. False means
// that the relay has ended it, or has said something meanwhile.
func (c *conn) wake() bool {
	c.raw.SetReadDeadline(time.Unix(1, 0))
	return isTimeout(<-c.watched)
}

// close says farewell on the idle connections, and from now on on every other
// that comes back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		if c.wake() {
			p.retire(c)
			continue
		}
		c.close()
		p.vacate()
	}
}
