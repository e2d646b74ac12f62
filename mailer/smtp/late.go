package smtp

import (
	"context"
	"crypto/tls"
	"io"
	"time"
)

// A delivery whose caller leaves ends at once, but the relay may be busy with its
// connection for a while: with the content, of which the verdict comes late, or with a
// command, in the middle of which it does not notice that we are gone. For the relay
// that session counts until it has ended it. So it counts here: the pool opens no
// other one in its place before.

// hold counts one more connection that serves no delivery any more, until releaseHeld.
// The caller holds mu.
func (p *pool) hold() {
	p.places++
	p.leaving++
	p.held++
}

// handToListener holds a place for a connection that waits for a late verdict.
func (p *pool) handToListener() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold()
}

func (p *pool) releaseHeld() {
	p.mu.Lock()
	p.held--
	p.mu.Unlock()
	p.releaseLeaving()
}

// listenLate waits for the verdict of a delivery that has been answered already, and
// logs it. The place of the connection is held. The turn of t is that of an envelope
// behind the content. quit says that there is none: no command waits for its reply.
func (c *conn) listenLate(ctx context.Context, t *transaction, answers <-chan answer, quit bool) {
	defer c.relay.pool.releaseHeld()
	select {
	case a := <-answers:
		c.recordVerdict(t, a)
	case <-ctx.Done():
		c.close()
		c.recordVerdict(t, <-answers)
	}
	c.relay.pace.written(t.turn)
	c.noteLogin(t.accepted, false)
	for _, r := range t.accepted {
		c.relay.logLateVerdict(t, *r)
	}
	switch {
	case c.dead:
	case quit:
		c.farewell()
	default:
		c.awaitEnd(ctx)
	}
}

// abort ends a connection in the middle of a dialogue. Where that is because ctx has
// ended, its place is held until the relay has noticed.
func (c *conn) abort(ctx context.Context) {
	if !hasEnded(ctx) {
		c.close()
		return
	}
	c.linger()
}

// linger ends a connection whose delivery has left, and holds a place for it beside
// that of the delivery.
func (c *conn) linger() {
	c.relay.pool.mu.Lock()
	defer c.relay.pool.mu.Unlock()
	c.lingerLocked()
}

// lingerLocked is linger for a caller that holds the pool's lock.
func (c *conn) lingerLocked() {
	c.dead = true
	if c.unbind != nil {
		c.unbind() // it would end the wait
	}
	c.relay.pool.hold()
	c.relay.background(func(ctx context.Context) {
		c.awaitEnd(ctx)
		c.relay.pool.releaseHeld()
	})
}

// hasEnded reports whether ctx is over. At the time of its deadline a read may fail
// before ctx does.
func hasEnded(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// awaitEnd tells the relay that we send no more, waits until it ends the connection,
// as long as for the reply to a command, and closes it.
func (c *conn) awaitEnd(ctx context.Context) {
	defer c.hangUp() // the holder still reads c.dead
	c.raw.SetDeadline(time.Now().Add(c.relay.opts.Timeouts.Command))
	stop := context.AfterFunc(ctx, func() { c.raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.drain()
}

// drain ends our side of the connection and reads until the relay ends its own, the
// deadline comes, or the relay has said more than any reply.
func (c *conn) drain() {
	var ended bool
	for _, nc := range []any{c.nc, c.raw} {
		if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			ended = true
		}
	}
	if ended {
		_, _ = io.CopyN(io.Discard, c.raw, maxReplyOctets)
	}
}

var _ interface{ CloseWrite() error } = (*tls.Conn)(nil)
