package smtp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

const (
	// connMaxAge is when a connection is closed even if it is in use: relays limit
	// the length of a session, some to ten minutes, and a preferred rung or another
	// address of the relay gets its chance.
	connMaxAge = 5 * time.Minute
	// maxFruitless is how many consecutive transactions may deliver nothing. Relays
	// count refusals: from the tenth on Postfix delays each reply by a second, and
	// one transaction has two refusals or more.
	maxFruitless = 4
	// maxResets is how many RSETs a connection may have beyond one for each message,
	// which Exim does not count, and further EHLOs. Exim ends the session at the
	// eleventh.
	maxResets = 10
	// maxFences is how many further EHLOs a connection may have. Sendmail delays its
	// reply to the third of a session by a second, and to each one after it by twice as
	// long as before.
	maxFences = 4
	// bookingTimeout is how long a delivery waits for the connection that it
	// booked, before it takes any other one, too.
	bookingTimeout = time.Second
)

// pool keeps the connections that are logged in, for the messages to come. Each is
// used by one delivery, or is idle and watched. A delivery takes an idle one, else it
// waits in line for what is free first: the pool opens connections in the background
// while the line is longer than their number and the limit allows more.
//
// mu is never held while something waits for the relay. Invariant, after serve: if
// the line is not empty, as many connections are being opened, or the limit is
// reached; and none is idle, unless one is being opened for a delivery that wants a
// new one.
type pool struct {
	relay *Relay

	mu      sync.Mutex
	window  window     // limits places
	places  int        // connections: open, being opened or leaving
	leaving int        // those of places that are saying QUIT, or that a delivery has left
	held    int        // those of leaving that are no sign of a relay that works: see hold and dismiss
	opening []*opening // those of places that are not logged in yet
	idle    []*conn    // the last used at the end; it is used first, so that the others age
	// offered are connections that wait for the reply to their last content and that
	// no delivery has booked; the one that waits longest is first.
	offered       []*conn
	line          []*waiter // the one that is due first in front
	stallTimer    *time.Timer
	stallTimerSet bool // stallTimer will run growIfStalled
	closed        bool // keep no connection any more
}

// Connections is how many connections a relay has and may have.
type Connections struct {
	Open    int // logged in, being opened or being closed
	Limit   int // how many there may be now, see Reason
	Max     int // Options.MaxConnections
	Waiting int // messages that wait for a connection
	// Reason is why Limit last changed, in a few words; the relay's own are escaped.
	Reason string
}

// Connections returns the numbers of this moment.
func (r *Relay) Connections() Connections {
	p := &r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	return Connections{Open: p.places, Limit: p.window.limit, Max: p.window.max, Waiting: len(p.line), Reason: p.window.reason}
}

// waiter is a delivery in line. While it is there, its open recipients are guarded
// by the pool's lock.
type waiter struct {
	delivery     *delivery
	grants       chan grant   // of one
	done         bool         // the delivery has its grant, or has left
	booked       *transaction // see book
	bookingTimer *time.Timer  // ends the exclusive booking; nil without one
}

// grant is what a delivery gets: a connection, or the failure that it would meet; or
// neither, where the connection that it booked has ended: then it starts over.
type grant struct {
	conn    *conn        // beside a failure: the one whose login was refused
	idle    bool         // the connection is still watched, see stopWatch
	booked  *transaction // its envelope was sent on conn already
	failure *mailer.Failure
	reports []mailer.RungReport // of the rungs that were raced before the failure
}

// get returns a connection for d, or why there is none.
func (p *pool) get(ctx context.Context, d *delivery) grant {
	for {
		g, w := p.next(d)
		if w != nil {
			g = p.wait(ctx, w)
		}
		if !g.idle || g.conn.stopWatch() {
			return g
		}
		g.conn.close()
		p.releasePlace()
	}
}

// wait waits in line until w has its grant, ctx ends, or the message expires.
func (p *pool) wait(ctx context.Context, w *waiter) grant {
	var g grant
	var expired <-chan time.Time
	if at := w.delivery.env.Expires; !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case g = <-w.grants:
	case <-ctx.Done():
		g.failure = p.leave(ctx, w)
	case <-expired:
		g.failure = p.leave(ctx, w)
	}
	if w.booked != nil && g.booked == nil { // the booking was not kept
		w.delivery.unbook(w.booked)
	}
	return g
}

// next returns an idle connection, or puts the delivery in line.
func (p *pool) next(d *delivery) (grant, *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) > 0 && !d.wantsNew {
		return grant{conn: p.popIdle(), idle: true}, nil
	}
	w := &waiter{delivery: d, grants: make(chan grant, 1)}
	p.enqueue(w)
	p.serve()
	p.bookOffered()
	return grant{}, w
}

// popIdle takes the idle connection that was used last. The caller holds mu.
func (p *pool) popIdle() *conn {
	c := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

// enqueue puts w in line, behind those that are due no later. The caller holds
// mu.
func (p *pool) enqueue(w *waiter) {
	at := len(p.line)
	for at > 0 && w.delivery.due.Before(p.line[at-1].delivery.due) {
		at--
	}
	p.line = slices.Insert(p.line, at, w)
	if p.stallTimerSet || p.closed || p.window.limit == p.window.max && !w.delivery.wantsNew {
		return
	}
	p.stallTimerSet = true
	if p.stallTimer == nil {
		p.stallTimer = time.AfterFunc(stallTime, p.growIfStalled)
		return
	}
	p.stallTimer.Reset(stallTime)
}

// growIfStalled lets the window grow when messages wait and no verdict comes. It
// does not while connections are being opened that may come soon, or before the
// first is open, because the relay may be dead; those that hang beside open ones
// hold nothing up.
func (p *pool) growIfStalled() {
	p.adjust(func(w *window) {
		p.stallTimerSet = len(p.line) > 0 && !p.closed
		if !p.stallTimerSet {
			return
		}
		p.stallTimer.Reset(stallTime)
		if len(p.opening) == 0 || p.loggedIn() > 0 && p.soon() == 0 {
			w.stalled(time.Now())
		}
	})
}

// adjust lets f change the window, then opens and closes connections by its limit.
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
	p.closeIdle(surplus)
	p.relay.logWindow(before, limit, reason)
}

// overLimit reports whether there are more connections than the limit. The caller
// holds mu.
func (p *pool) overLimit() bool { return p.places-p.leaving > p.window.limit }

// logWindow logs a change of the limit. Fewer connections concern the operator.
func (r *Relay) logWindow(before, limit int, reason string) {
	switch {
	case limit > before:
		r.opts.Logger.Debug("more connections", "relay", r.opts.Name, "limit", limit, "before", before, "reason", reason)
	case limit < before:
		r.opts.Logger.Info("fewer connections", "relay", r.opts.Name, "limit", limit, "before", before, "reason", reason)
	}
}

// accepted records a message that the relay accepted on c, after wait.
func (p *pool) accepted(c *conn, wait time.Duration) {
	p.adjust(func(w *window) {
		w.accepted(time.Now(), wait, c.next != nil || len(p.line) > 0)
	})
}

// notePushback records what a failure of a transaction on c says of our load.
// pushed reports whether the relay asked for less, and others whether there are
// connections beside c.
func (p *pool) notePushback(c *conn, f *mailer.Failure) (pushed, others bool) {
	j := c.judgementOf(f)
	p.adjust(func(w *window) {
		now := time.Now()
		kind := j.Pushback
		if j.Verdict == relays.Retry && f.Reply.Code == 421 && !j.EndsConnection && !w.endedNormally(now, c.served-1) {
			kind = relays.TooFast
		}
		if pushed, others = kind != relays.NoPushback, p.places-p.leaving > 1; pushed {
			if w.acceptedLately(now) {
				f.Err = mailer.ErrPushedBack
			}
			w.pushedBack(now, p.places-p.leaving, kind, f.Error())
		}
	})
	return pushed, others
}

// popFirst takes the first waiter out of the line; the caller gives it its grant
// and holds mu.
func (p *pool) popFirst() *waiter {
	w := p.line[0]
	w.done = true
	p.line = slices.Delete(p.line, 0, 1)
	return w
}

// removeFromLine takes w out of the line, if it is there. The caller holds mu.
func (p *pool) removeFromLine(w *waiter) {
	if i := slices.Index(p.line, w); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
	}
}

// leave takes w out of the line because ctx has ended or the message has expired, and
// gives back a connection that came at the same time. It returns the failure of the
// delivery.
func (p *pool) leave(ctx context.Context, w *waiter) *mailer.Failure {
	p.mu.Lock()
	w.done = true
	p.removeFromLine(w)
	f := p.gaveUp(ctx)
	var g grant
	select {
	case g = <-w.grants:
	default:
	}
	p.mu.Unlock()
	if c := g.conn; c != nil && g.failure == nil {
		switch {
		case g.booked != nil && g.booked.sent:
			c.linger()
		case g.idle && !c.stopWatch(): // the relay has ended it
			c.close()
		}
		p.put(c)
	}
	return f
}

// book promises c to the first delivery in line while its holder still uses it, so
// that the next envelope can be sent right behind the content (RFC 2920 §3.1): then
// a connection carries one message in each round trip. It returns nil when the
// line is empty, or when the first message would have to be converted.
//
// The delivery that has booked sends no content before it has the connection. If
// the connection ends first, it starts over with another.
func (p *pool) book(c *conn) *waiter {
	if !p.bookable(c) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.booker(c)
	if w != nil {
		p.promise(c, w)
	}
	return w
}

// booker returns the first delivery in line where that may book c. It does not while
// a new connection may come as soon, or after it has lost one, perhaps for that
// reason. The caller holds mu.
func (p *pool) booker(c *conn) *waiter {
	if p.overLimit() || len(p.line) <= p.soon() {
		return nil
	}
	w := p.line[0]
	if w.booked != nil || !w.delivery.mayBook(c.ext) {
		return nil
	}
	return w
}

// bookable reports whether an envelope may follow the final dot on c before the
// reply to that.
func (p *pool) bookable(c *conn) bool {
	return c.ext.has("PIPELINING") && !p.relay.distrust.has(behindDot) && !c.usedUp()
}

// promise takes w out of the line: it gets c as soon as the holder of c is done. The
// caller holds mu.
func (p *pool) promise(c *conn, w *waiter) {
	p.removeFromLine(w)
	c.next = w
	w.booked = w.delivery.transaction(c.ext)
	w.bookingTimer = time.AfterFunc(bookingTimeout, func() { p.releaseBooking(w) })
}

// offer lets a delivery that comes later book c, whose holder has sent its last
// content and waits for the reply. The holder learns of the booking through
// c.booked, and sends the envelope.
func (p *pool) offer(c *conn) {
	if c.next != nil || !p.bookable(c) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offered = append(p.offered, c)
	p.bookOffered()
}

// bookOffered lets the first in line book the connection that has waited longest
// for its reply. The caller holds mu.
func (p *pool) bookOffered() {
	if len(p.offered) == 0 {
		return
	}
	c := p.offered[0]
	if w := p.booker(c); w != nil {
		p.offered = slices.Delete(p.offered, 0, 1)
		p.promise(c, w)
		c.booked <- struct{}{}
	}
}

// withdraw ends offer. The envelope of a booking that the holder has not noticed is
// sent later.
func (p *pool) withdraw(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.offered, c); i >= 0 {
		p.offered = slices.Delete(p.offered, i, i+1)
	}
	select {
	case <-c.booked:
	default:
	}
}

// send reports whether the envelope of w may be sent on the connection that it booked,
// and records that it is: w has neither left nor got another connection, and its
// message has not expired.
func (p *pool) send(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.done || w.delivery.expired() || p.relay.pace.stale(w.booked.turn) {
		return false
	}
	w.booked.sent = true
	return true
}

// releaseBooking lets a waiter that booked a connection take any free one: the
// message before it may wait for minutes.
func (p *pool) releaseBooking(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.done {
		return
	}
	if len(p.idle) > 0 {
		w.done = true
		w.grants <- grant{conn: p.popIdle(), idle: true}
		return
	}
	p.enqueue(w)
	p.serve()
}

// handOver gives c to the waiter that booked it; where c has ended, or takes no more
// mail, the waiter starts over. It returns false when c is left for others, or to retire.
func (p *pool) handOver(c *conn, w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.bookingTimer.Stop()
	p.removeFromLine(w)
	if w.booked.sent { // the relay reads its MAIL now
		p.relay.pace.written(w.booked.turn)
	}
	done := w.done
	switch w.done = true; {
	case done && !w.booked.sent:
		return false
	case done: // it has left, or has another connection
		if !c.dead { // its envelope was sent
			c.lingerLocked()
		}
		p.places--
		p.serve()
	case !c.dead && c.retiring && w.booked.sent: // the relay may take QUIT for content
		w.grants <- grant{}
		c.lingerLocked()
		p.places--
		p.serve()
	case !c.dead && c.retiring:
		w.grants <- grant{}
		return false
	case !c.dead:
		w.grants <- grant{conn: c, booked: w.booked}
	default:
		w.grants <- grant{}
		p.places--
		p.serve()
	}
	return true
}

// gaveUp returns the failure of a delivery whose message expired while it waited in
// line, or whose context ended. It is about the relay only where no connection to that
// was open. The caller holds mu.
func (p *pool) gaveUp(ctx context.Context) *mailer.Failure {
	switch {
	case ctx.Err() == nil:
		return p.relay.expiredFailure()
	case errors.Is(ctx.Err(), context.Canceled):
		return p.stopped()
	case p.loggedIn() == 0 && len(p.opening) > 0:
		return p.unreached()
	default:
		return &mailer.Failure{
			Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: p.relay.opts.Name,
			Text: "all connections to the relay were busy", Err: ctx.Err(),
		}
	}
}

// releasePlace gives back a place: its connection has ended, or was not opened.
func (p *pool) releasePlace() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places--
	p.serve()
}

// put takes a connection back from a delivery. It goes to the delivery that booked
// it, else to the first in line, else it is kept.
func (p *pool) put(c *conn) {
	if w := c.next; w != nil {
		if c.next = nil; p.handOver(c, w) {
			return
		}
	}
	switch {
	case c.dead:
		p.releasePlace()
		return
	case c.br.Buffered() > 0: // a reply without a command: out of step
		c.close()
		p.releasePlace()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(c)
}

// keep gives c to the first in line, or keeps it for the next delivery. The caller
// holds mu.
func (p *pool) keep(c *conn) {
	switch {
	case c.usedUp(), p.overLimit(), p.closed && len(p.line) == 0:
		p.leaving++
		p.retire(c)
	case len(p.line) > 0:
		p.popFirst().grants <- grant{conn: c}
	default:
		c.idleSince = time.Now()
		p.idle = append(p.idle, c)
		c.raw.SetReadDeadline(c.idleSince.Add(p.relay.opts.IdleTimeout))
		p.relay.background(func(context.Context) { p.watch(c) })
	}
	p.serve()
}

// usedUp reports whether the connection has served as long as it should.
func (c *conn) usedUp() bool {
	return c.retiring || c.served >= c.relay.opts.MessagesPerConnection || time.Since(c.loggedIn) > connMaxAge ||
		c.fruitless >= maxFruitless || c.resets >= maxResets
}

// retire says QUIT in the background on a connection that is counted as leaving. It
// gives the place back only after that, because the relay may count the connection
// until then. The caller may hold mu.
func (p *pool) retire(c *conn) {
	c.dead = true
	p.relay.background(func(context.Context) {
		c.farewell()
		p.releaseLeaving()
	})
}

// releaseLeaving gives back the place of a connection that was counted as leaving.
func (p *pool) releaseLeaving() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving--
	p.places--
	p.serve()
}

// watch waits on an idle connection until it is used again, its idle time is over
// or the relay ends it, so that no message is sent on a connection that is gone.
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
		p.releaseLeaving()
	default: // the relay closed it, or said 421 before it does
		c.close()
		p.releaseLeaving()
	}
}

// stopWatch ends the watch over a connection that was taken out of idle. It returns
// false when the relay has ended the connection or sent something on it.
func (c *conn) stopWatch() bool {
	c.raw.SetReadDeadline(time.Unix(1, 0))
	c.stale = time.Since(c.idleSince) > staleAfter
	return isTimeout(<-c.watched)
}

// close retires the idle connections, and each other one when it comes back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.leaving += len(idle)
	if p.stallTimer != nil {
		p.stallTimer.Stop()
	}
	p.mu.Unlock()
	p.closeIdle(idle)
}

// closeIdle ends connections that were taken out of idle and are counted as leaving.
func (p *pool) closeIdle(idle []*conn) {
	for _, c := range idle {
		if c.stopWatch() {
			p.retire(c)
			continue
		}
		c.close()
		p.releaseLeaving()
	}
}
