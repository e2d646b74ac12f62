package smtp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

const (
	// connMaxAge is when a connection is given up however busy it is: relays
	// bound a session's life, some to ten minutes, and a preferred rung or
	// another address of the relay deserves its share.
	connMaxAge = 5 * time.Minute
	// mostVain is how many transactions in a row may end without a message. Relays
	// count what they refuse: at the tenth refusal Postfix begins to wait a second
	// for each, and one transaction brings two of them or more.
	mostVain = 4
	// mostResets is how many RSETs may be said beyond one for each message, which
	// Exim forgives. It ends the session at the eleventh.
	mostResets = 10
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
	relay   *Relay
	opening atomic.Int32 // connections that are not logged in yet

	mu       sync.Mutex
	window   window    // of places
	places   int       // connections, and those being opened or saying farewell
	leaving  int       // of places: those saying farewell
	idle     []*conn   // the last used comes last, and is taken first: the others get old
	awaiting []*conn   // whose last content is out, and that nobody has booked; the longest first
	line     []*waiter // the first in front, see delivery.due
	stirrer  *time.Timer
	stirring bool // stirrer will look at the line
	closed   bool // keep nothing any more
}

// Connections tells how many connections a relay has and may have.
type Connections struct {
	Open    int // those that are logged in, being opened or being closed
	Limit   int // how many the relay gets now, see Reason
	Max     int // Options.MaxConnections
	Waiting int // messages that wait for a connection
	// Reason is why Limit last changed, in a few words; the relay's own are escaped.
	Reason string
}

// Connections tells about the connections of this moment.
func (r *Relay) Connections() Connections {
	p := &r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	return Connections{Open: p.places, Limit: p.window.limit, Max: p.window.most, Waiting: len(p.line), Reason: p.window.reason}
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
	failure *mailer.Failure
}

// take returns a connection for d, or none with the place for one to open.
// refused is why d did not get one before, and was to wait for the others.
func (p *pool) take(ctx context.Context, d *delivery, refused *mailer.Failure) grant {
	for {
		g, w := p.next(d, refused)
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
func (p *pool) next(d *delivery, refused *mailer.Failure) (grant, *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if refused != nil && p.places == 0 { // the others have come to nothing meanwhile
		return grant{failure: refused}, nil
	}
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return grant{conn: c, idle: true}, nil
	}
	if p.places < p.window.limit {
		p.places++
		return grant{}, nil
	}
	w := &waiter{delivery: d, grants: make(chan grant, 1)}
	p.enqueue(w)
	p.join()
	return grant{}, w
}

// enqueue puts w in line, behind those that are due no later. The caller holds
// mu.
func (p *pool) enqueue(w *waiter) {
	at := len(p.line)
	for at > 0 && w.delivery.due.Before(p.line[at-1].delivery.due) {
		at--
	}
	p.line = slices.Insert(p.line, at, w)
	if p.stirring || p.closed || p.window.limit == p.window.most {
		return
	}
	p.stirring = true
	if p.stirrer == nil {
		p.stirrer = time.AfterFunc(lineStep, p.stir)
		return
	}
	p.stirrer.Reset(lineStep)
}

// stir lets the window grow for messages that wait though no verdict comes. As
// long as a connection is being opened the relay may be dead.
func (p *pool) stir() {
	p.adjust(func(w *window) {
		p.stirring = len(p.line) > 0 && !p.closed
		if !p.stirring {
			return
		}
		p.stirrer.Reset(lineStep)
		if p.opening.Load() == 0 {
			w.silent(time.Now())
		}
	})
}

// adjust lets f move the window, and does what follows of it.
func (p *pool) adjust(f func(w *window)) {
	p.mu.Lock()
	before := p.window.limit
	f(&p.window)
	p.serve()
	limit, reason := p.window.limit, p.window.reason
	var surplus []*conn
	if limit < before {
		surplus = p.idle[:min(len(p.idle), max(0, p.places-p.leaving-limit))]
		p.idle = p.idle[len(surplus):]
		p.leaving += len(surplus)
	}
	p.mu.Unlock()
	p.dismiss(surplus)
	p.relay.logWindow(before, limit, reason)
}

// crowded: there are more connections than there should be. The caller holds mu.
func (p *pool) crowded() bool { return p.places-p.leaving > p.window.limit }

// logWindow tells of each change once. That there is less is for the operator.
func (r *Relay) logWindow(before, limit int, reason string) {
	switch {
	case limit > before:
		r.opts.Logger.Debug("more connections", "relay", r.opts.Name, "limit", limit, "before", before, "reason", reason)
	case limit < before:
		r.opts.Logger.Info("fewer connections", "relay", r.opts.Name, "limit", limit, "before", before, "reason", reason)
	}
}

// accepted notes a message that the relay took on c, after wait.
func (p *pool) accepted(c *conn, wait time.Duration) {
	p.adjust(func(w *window) {
		w.accepted(time.Now(), wait, c.next != nil || len(p.line) > 0)
	})
}

// heed notes what a failure of a transaction on c says of the pace. pushed says
// that the relay asked for less; others, that there are connections beside c.
func (p *pool) heed(c *conn, f *mailer.Failure) (pushed, others bool) {
	p.adjust(func(w *window) {
		now, kind := time.Now(), relays.PushbackOf(f.Stage, f.Reply)
		if kind == relays.NoPushback && f.Reply.Code == 421 && !relays.EndsConnection(f.Reply) && !w.enough(now, c.served-1) {
			kind = relays.TooFast
		}
		if pushed, others = kind != relays.NoPushback, p.places-p.leaving > 1; pushed {
			if w.works(now) {
				f.Err = mailer.ErrPushedBack
			}
			w.pushedBack(now, p.places-p.leaving, kind, f.Error())
		}
	})
	return pushed, others
}

// serve lets those in line open connections. The caller holds mu.
func (p *pool) serve() {
	for len(p.line) > 0 && p.places < p.window.limit {
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
		if g.booked != nil && g.booked.sent || g.idle && !g.conn.wake() {
			g.conn.close() // its envelope is under way, or the relay has ended it
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
	if !p.bookable(c) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crowded() || len(p.line) == 0 || p.line[0].booked != nil || !p.line[0].delivery.fits(c.ext) {
		return nil
	}
	w := p.line[0]
	p.promise(c, w)
	return w
}

// bookable: an envelope may follow the final dot on c before its reply.
func (p *pool) bookable(c *conn) bool {
	return c.ext.has("PIPELINING") && !p.relay.distrust.has(behindDot) && !c.worn()
}

// promise gives c to w, which is in line, as soon as its holder is done with it.
// The caller holds mu.
func (p *pool) promise(c *conn, w *waiter) {
	p.forget(w)
	c.next = w
	w.booked = w.delivery.transaction(c.ext)
	w.patience = time.AfterFunc(bookedPatience, func() { p.loosen(w) })
}

// await offers a connection whose holder has sent its last content and waits for
// the reply to who comes meanwhile. Its holder is told of the booking through
// joined, and sends the envelope.
func (p *pool) await(c *conn) {
	if c.next != nil || !p.bookable(c) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awaiting = append(p.awaiting, c)
	p.join()
}

// join lets the first in line book the connection whose reply has been under way
// for the longest. The caller holds mu.
func (p *pool) join() {
	if len(p.awaiting) == 0 || len(p.line) == 0 || p.crowded() {
		return
	}
	c, w := p.awaiting[0], p.line[0]
	if w.booked == nil && w.delivery.fits(c.ext) {
		p.awaiting = slices.Delete(p.awaiting, 0, 1)
		p.promise(c, w)
		c.joined <- struct{}{}
	}
}

// unawait ends await: what has joined and has not been noticed is sent later.
func (p *pool) unawait(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.awaiting, c); i >= 0 {
		p.awaiting = slices.Delete(p.awaiting, i, i+1)
	}
	select {
	case <-c.joined:
	default:
	}
}

// gone says whether w has left, or has another connection than it booked.
func (p *pool) gone(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.done
}

// loosen lets the one that booked a connection have any other: the message
// before it may be about to wait for minutes.
func (p *pool) loosen(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.done {
		return
	}
	p.forget(w) // where hand has put it back meanwhile
	if n := len(p.idle); n > 0 {
		w.done = true
		w.grants <- grant{conn: p.idle[n-1], idle: true}
		p.idle = p.idle[:n-1]
		return
	}
	p.enqueue(w)
	p.serve()
}

// hand gives a connection to the one that booked it, or the place of it. False
// means that the one has left, and the connection is as good as it was.
func (p *pool) hand(c *conn, w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.patience.Stop()
	p.forget(w)
	done := w.done
	switch w.done = true; {
	case done && !w.booked.sent:
		return false
	case done: // it has left, or has another one
		if !c.dead { // else a late listener may have the socket
			c.close() // its envelope is under way
		}
		p.places--
		p.serve()
	case !c.dead:
		w.grants <- grant{conn: c, booked: w.booked}
	case p.crowded(): // as a new one
		p.places--
		w.done = false
		w.delivery.open = append(w.booked.results, w.delivery.open...)
		w.booked = nil
		p.enqueue(w)
	default:
		w.grants <- grant{}
	}
	return true
}

// busy is the failure of a delivery whose time was over while it stood in line.
// It says nothing about the relay.
func (p *pool) busy(ctx context.Context) *mailer.Failure {
	f := &mailer.Failure{
		Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: p.relay.opts.Name,
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
func (p *pool) refused(ctx context.Context, f *mailer.Failure) (others bool) {
	p.adjust(func(w *window) {
		p.places--
		switch {
		case ctx.Err() != nil || f.Reply.Code/100 == 5 && p.places > 0:
		case p.places > 0:
			w.refused(time.Now(), p.places, f.Error())
			others = true
		default:
			if f.Reply.Code == 0 {
				w.restart()
			}
			for len(p.line) > 0 {
				p.first().grants <- grant{failure: f}
			}
		}
	})
	return others
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
		if c.next = nil; p.hand(c, w) {
			return
		}
	}
	switch {
	case c.dead:
		p.vacate()
		return
	case c.br.Buffered() > 0: // an answer to nothing: out of step
		c.close()
		p.vacate()
		return
	}
	p.mu.Lock()
	switch {
	case c.worn(), p.crowded(), p.closed && len(p.line) == 0:
		p.leaving++
		defer p.retire(c)
	case len(p.line) > 0:
		p.first().grants <- grant{conn: c}
	default:
		c.rested = time.Now()
		p.idle = append(p.idle, c)
		c.raw.SetReadDeadline(c.rested.Add(p.relay.opts.IdleTimeout))
		p.relay.background(func(context.Context) { p.watch(c) })
	}
	p.mu.Unlock()
}

// worn: the connection has served as long as it should.
func (c *conn) worn() bool {
	return c.served >= c.relay.opts.MessagesPerConnection || time.Since(c.since) > connMaxAge ||
		c.vain >= mostVain || c.resets >= mostResets
}

// retire says farewell in the background on a connection that is counted as
// leaving. The place is given back only then, for the relay may count the
// connection until it has heard it.
func (p *pool) retire(c *conn) {
	c.dead = true
	p.relay.background(func(context.Context) {
		c.farewell()
		p.left()
	})
}

// left gives back the place of a connection that was counted as leaving.
func (p *pool) left() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving--
	p.places--
	p.serve()
}

// watch waits on an idle connection for its next user, for the end of its time,
// or for the relay to end it, so that no message is risked on one that is gone.
func (p *pool) watch(c *conn) {
	_, err := c.br.Peek(1)
	p.mu.Lock()
	i := slices.Index(p.idle, c)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
		p.leaving++
	}
	p.mu.Unlock()
	switch {
	case i < 0:
		c.watched <- err
	case isTimeout(err):
		c.farewell()
		p.left()
	default: // closed, or the 421 that comes before
		c.close()
		p.left()
	}
}

// wake ends the watch over a connection that was taken out of idle. False means
// that the relay has ended it, or has said something meanwhile.
func (c *conn) wake() bool {
	c.raw.SetReadDeadline(time.Unix(1, 0))
	c.stale = time.Since(c.rested) > staleAfter
	return isTimeout(<-c.watched)
}

// close says farewell on the idle connections, and from now on on every other
// that comes back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.leaving += len(idle)
	if p.stirrer != nil {
		p.stirrer.Stop()
	}
	p.mu.Unlock()
	p.dismiss(idle)
}

// dismiss ends connections that were taken out of idle and are counted as leaving.
func (p *pool) dismiss(idle []*conn) {
	for _, c := range idle {
		if c.wake() {
			p.retire(c)
			continue
		}
		c.close()
		p.left()
	}
}
