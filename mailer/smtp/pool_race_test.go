package smtp

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

// These tests make two events happen at the same time that rarely do.

// newIdlePool returns the pool of a relay, and its one connection, which is in use.
func newIdlePool(t *testing.T) (*pool, *conn) {
	t.Helper()
	p, c, _ := newIdlePoolAt(t)
	return p, c
}

// newIdlePoolAt is newIdlePool, and returns the relay's end of the connection, too.
func newIdlePoolAt(t *testing.T) (*pool, *conn, net.Conn) {
	t.Helper()
	r, err := New(Options{Host: "relay.test", Ladder: []mailer.Rung{{Port: 587}}, MaxConnections: 1})
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	t.Cleanup(func() {
		server.Close()
		r.Close()
	})
	c := r.newConn(mailer.Rung{Port: 587})
	c.raw, c.loggedIn = client, time.Now()
	c.ext = extensions{"PIPELINING": ""}
	c.use(client)
	r.pool.places = 1
	return &r.pool, c, server
}

// newWaiter puts a delivery in line.
func newWaiter(t *testing.T, p *pool) *waiter {
	t.Helper()
	d := &delivery{relay: p.relay, open: []*mailer.Result{{ForwardPath: "b@example.org"}}}
	_, w := p.next(d)
	if w == nil {
		t.Fatal("the delivery does not wait")
	}
	return w
}

// TestPoolLeaves: a delivery that leaves in the moment in which it gets the
// connection that it booked. Where its envelope is under way the connection ends,
// else the next one has it.
func TestPoolLeaves(t *testing.T) {
	for _, sent := range []bool{false, true} {
		for _, early := range []bool{false, true} { // it has left before the connection comes
			synctest.Test(t, func(t *testing.T) {
				p, c := newIdlePool(t)
				w := newWaiter(t, p)
				p.offer(c)
				if c.next != w {
					t.Fatal("the delivery has not joined")
				}
				p.withdraw(c)
				w.booked.sent = sent
				if early {
					_ = p.leave(t.Context(), w)
				}
				p.put(c)
				if !early {
					_ = p.leave(t.Context(), w)
				}
				synctest.Wait()
				if c.dead != sent {
					t.Errorf("envelope sent %v, left early %v: the connection is closed: %v", sent, early, c.dead)
				}
				if places := 1; p.places != places && !sent || p.places != 0 && sent {
					t.Errorf("envelope sent %v, left early %v: %d places", sent, early, p.places)
				}
			})
		}
	}
}

// TestPoolRetiresBooked: a connection that takes no more mail is not given to the
// delivery that booked it in the last moment. That one starts over.
func TestPoolRetiresBooked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newIdlePool(t)
		w := newWaiter(t, p)
		p.offer(c)
		p.withdraw(c)
		c.retiring = true
		p.put(c)
		if g := <-w.grants; g.conn != nil || g.failure != nil {
			t.Errorf("the delivery gets %+v, want that it starts over", g)
		}
		time.Sleep(quitTimeout)
		synctest.Wait()
		if !c.dead || p.places != 0 {
			t.Errorf("closed: %v, %d places; want it closed, and its place given back", c.dead, p.places)
		}
	})
}

// TestPoolRetiresSent: the envelope of that delivery was sent already, so the relay may
// wait for content. QUIT would be content to it: the connection ends without.
func TestPoolRetiresSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, server := newIdlePoolAt(t)
		w := newWaiter(t, p)
		p.offer(c)
		p.withdraw(c)
		if !p.send(w) {
			t.Fatal("the envelope may not be sent")
		}
		c.retiring = true
		p.put(c)
		if g := <-w.grants; g.conn != nil || g.failure != nil {
			t.Errorf("the delivery gets %+v, want that it starts over", g)
		}
		server.SetReadDeadline(time.Now().Add(time.Hour))
		if said, _ := io.ReadAll(server); len(said) > 0 {
			t.Errorf("the relay gets %q, want nothing", said)
		}
		synctest.Wait()
		if !c.dead || p.places != 0 {
			t.Errorf("closed: %v, %d places; want it closed, and its place given back", c.dead, p.places)
		}
	})
}

// TestPoolLeavesIdle: a delivery leaves just when it gets an idle connection in place
// of the one that it booked. Afterwards one goroutine watches that connection, and it
// can be used.
func TestPoolLeavesIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newIdlePool(t)
		w := newWaiter(t, p)
		p.offer(c)
		p.withdraw(c)
		_, other := newIdlePool(t)
		other.relay = p.relay
		p.window.max, p.window.limit, p.places = 2, 2, 2
		p.put(other)
		synctest.Wait()
		p.releaseBooking(w)
		_ = p.leave(t.Context(), w)
		synctest.Wait()
		g, _ := p.next(&delivery{})
		if g.conn != other || !other.stopWatch() {
			t.Fatalf("next() = %+v, want the idle connection", g)
		}
		synctest.Wait()
		if n := len(other.watched); n != 0 {
			t.Errorf("%d more watched the connection", n)
		}
		other.close()
	})
}

// TestPoolBookingEndsLate: a booking ends just when its connection has ended. The
// delivery is not put in line once more, because it starts over.
func TestPoolBookingEndsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newIdlePool(t)
		w := newWaiter(t, p)
		p.offer(c)
		p.withdraw(c)
		p.places++ // another one, so that c is one too many
		c.close()
		p.put(c)
		p.releaseBooking(w) // which its timer had begun
		if n, starts := len(p.line), len(w.grants); n != 0 || starts != 1 {
			t.Errorf("the delivery stands in line %d times, and starts over %d times; want never and once", n, starts)
		}
	})
}

// TestPaceGivesBack: a turn that is given just when the delivery is stopped is not
// lost.
func TestPaceGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: schedule{units.Rate{Messages: 2, Per: time.Hour}}}
		for range 3 {
			x := &turn{due: time.Now(), given: make(chan struct{})}
			if err := p.enqueue(x, time.Minute); err != nil || x.at.IsZero() {
				t.Fatalf("enqueue() = %v, %+v; want a turn at once", err, x)
			}
			p.giveBack(x)
		}
		if n := len(p.sent) + len(p.outstanding); n != 0 {
			t.Errorf("%d messages set out or may, want none", n)
		}
	})
}
