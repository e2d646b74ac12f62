package conns

import (
	"context"
	"time"
)

// Limits of lingering. A client that sends 30 MiB before it reads needs the octets, and one
// on a slow line the time.
const (
	lingerTime   = 25 * time.Second
	lingerPause  = 4 * time.Second // without an octet
	lingerOctets = 256 << 20
	// lingerPauseAtStop takes the place of lingerPause while the server stops.
	lingerPauseAtStop = 500 * time.Millisecond
	// lingerTimeAtStop is what a server that has stopped waits for all of them together.
	lingerTimeAtStop = 2 * time.Second
)

// lingerBuffer is the memory, in octets, of a lingering connection.
const lingerBuffer = 4 << 10

// lingerRate is how many octets all lingering connections read together in a second: clients
// that send as fast as they can would otherwise take all processors. A connection waits for
// its turn when that is over lingerAhead from now.
const (
	lingerRate  = 64 << 20
	lingerAhead = time.Millisecond
)

// Close ends the connection. After an answer it first reads on and throws away what comes,
// within limits, as RFC 9112 §9.6 advises: many clients send the whole request before they
// read, and would lose an answer that comes earlier. It does not wait for that.
//
// A Close during a Read breaks the connection at once.
func (c *conn) Close() error {
	if c.ended.Swap(true) {
		return nil
	}
	if c.wrote.Load() && !c.reading.Load() && c.set.linger(c) {
		return nil
	}
	return c.Conn.Close()
}

// CloseWrite is what net/http calls after an answer, and then reads no more.
func (c *conn) CloseWrite() error { return c.Close() }

// linger lets the connection linger; false when it is closed already.
func (s *Set) linger(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.phase() == gone {
		return false
	}
	s.move(c, lingering)
	go c.linger()
	return true
}

// linger ends what is written, and reads until the client closes, or over a limit. Over TLS
// it does not decrypt.
func (c *conn) linger() {
	defer c.set.lingered(c)
	closeWrite(c.Conn) // over TLS, a close_notify
	closeWrite(c.raw)
	end := time.Now().Add(lingerTime)
	buf := make([]byte, lingerBuffer)
	for octets := 0; octets < lingerOctets; {
		c.set.allowPause(c, end)
		n, err := c.raw.Read(buf)
		if err != nil {
			return
		}
		octets += n
		time.Sleep(c.set.turn(n))
	}
}

// turn returns how long to wait after so many octets.
func (s *Set) turn(octets int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.turns.Before(now) {
		s.turns = now
	}
	s.turns = s.turns.Add(time.Duration(octets) * time.Second / lingerRate)
	if ahead := s.turns.Sub(now); ahead > lingerAhead {
		return ahead
	}
	return 0
}

// closeWrite ends what is written to a connection that has a direction of its own for that.
func closeWrite(nc any) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// allowPause sets the time by which the client must send more, or close.
func (s *Set) allowPause(c *conn, end time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pause := lingerPause
	if s.draining {
		pause = lingerPauseAtStop
	}
	if next := time.Now().Add(pause); next.Before(end) {
		end = next
	}
	_ = c.raw.SetReadDeadline(end)
}

// lingered closes the connection, unless that has happened to make room.
func (s *Set) lingered(c *conn) {
	s.mu.Lock()
	defer s.unlock()
	s.close(c)
}

// Drain waits until no connection lingers, for a server that has stopped. Clients that send
// nothing more have half a second, and all of them two seconds, or until ctx ends.
func (s *Set) Drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lingerTimeAtStop)
	defer cancel()
	s.mu.Lock()
	s.draining = true
	for e := s.lingering.Front(); e != nil; e = e.Next() {
		_ = e.Value.(*conn).raw.SetReadDeadline(time.Now().Add(lingerPauseAtStop))
	}
	s.mu.Unlock()
	for s.lingers() {
		select {
		case <-ctx.Done():
			s.endLingering()
			return
		case <-time.After(look):
		}
	}
}

func (s *Set) lingers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lingering.Len() > 0
}

func (s *Set) endLingering() {
	s.mu.Lock()
	defer s.unlock()
	for s.closeFirst(&s.lingering) {
	}
}
