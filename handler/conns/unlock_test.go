package conns

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// watched notes whether the set was unlocked when it was closed.
type watched struct {
	net.Conn
	set    *Set
	closed []bool
}

func (w *watched) Close() error {
	free := w.set.mu.TryLock()
	if free {
		w.set.mu.Unlock()
	}
	w.closed = append(w.closed, free)
	return nil
}

// TestClosedUnlocked: to close a connection takes a while, in which the set is not locked.
func TestClosedUnlocked(t *testing.T) {
	for name, end := range map[string]func(*Set, *conn){
		"to make room":         func(s *Set, _ *conn) { _ = s.add(&conn{set: s}, nil) },
		"of too many headers":  func(s *Set, c *conn) { s.count(c, 10, 0) },
		"that lingered":        func(s *Set, c *conn) { s.lingered(c) },
		"that was not used":    func(s *Set, _ *conn) { s.CloseUnused() },
		"for want of files":    func(s *Set, _ *conn) { s.exhausted(net.ErrClosed) },
		"that lingers no more": func(s *Set, c *conn) { s.move(c, lingering); s.endLingering() },
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Limits{Open: 1}, slog.New(slog.DiscardHandler))
			raw := &watched{set: s}
			c := &conn{raw: raw, set: s}
			if err := s.add(c, nil); err != nil {
				t.Fatal(err)
			}
			s.maxWeight, c.weight = 0, 1
			c.waits.Store(true)
			c.since = c.since.Add(-fresh)
			end(s, c)
			if len(raw.closed) != 1 || !raw.closed[0] {
				t.Errorf("closed while the set was unlocked: %v, want once", raw.closed)
			}
		})
	}
}

// TestRequestsHaveTime: a request whose key is not known yet is not ended to make room for a new
// connection, unless it is under way for long; nor is a connection that a client with a key is
// about to use.
func TestRequestsHaveTime(t *testing.T) {
	s := New(Limits{Open: 2}, slog.New(slog.DiscardHandler))
	connect := func() *conn {
		c := &conn{raw: &watched{set: s}, set: s}
		if err := s.add(c, nil); err != nil {
			t.Fatal(err)
		}
		s.move(c, strange)
		return c
	}
	client, asked := connect(), connect()
	client.known = true
	s.move(client, idle)
	if done, err := s.tryAdd(&conn{set: s}); done || err != nil || client.phase() == gone || asked.phase() == gone {
		t.Fatalf("a new connection is let in: %v, %v; closed: the client with a key %v, the request %v", done, err, client.phase() == gone, asked.phase() == gone)
	}
	asked.since = asked.since.Add(-unproven)
	if done, err := s.tryAdd(&conn{set: s}); !done || err != nil || client.phase() == gone || asked.phase() != gone {
		t.Errorf("a new connection is let in later: %v, %v; closed: the client with a key %v, the request %v", done, err, client.phase() == gone, asked.phase() == gone)
	}
}

// TestGoneReadsNothing: a request that comes over a connection which is about to be closed is
// not served: its client would not learn what became of it.
func TestGoneReadsNothing(t *testing.T) {
	s := New(Limits{Open: 1}, slog.New(slog.DiscardHandler))
	ours, theirs := net.Pipe()
	c := &conn{Conn: ours, raw: ours, set: s}
	if err := s.add(c, nil); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.close(c)
	s.mu.Unlock() // it is closed a while later
	go func() { _, _ = io.WriteString(theirs, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }()
	if n, err := c.Read(make([]byte, 100)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %d, %v, want 0 and that it is closed", n, err)
	}
}

// readConn tells when something was read.
type readConn struct {
	net.Conn
	read chan struct{}
}

func (c *readConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	close(c.read)
	return n, err
}

// TestClosedWhileItReads: nor is one whose connection is closed between the moment when its header
// was read and the moment when it is counted. One that is closed later proves no key: nothing is
// stored for it.
func TestClosedWhileItReads(t *testing.T) {
	s := New(Limits{Open: 1}, slog.New(slog.DiscardHandler))
	ours, theirs := net.Pipe()
	raw := &readConn{ours, make(chan struct{})}
	c := &conn{Conn: raw, raw: ours, set: s}
	if err := s.add(c, nil); err != nil {
		t.Fatal(err)
	}
	s.move(c, idle)
	go func() { _, _ = io.WriteString(theirs, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }()
	s.mu.Lock()
	done := make(chan error)
	go func() {
		n, err := c.Read(make([]byte, 100))
		if n != 0 {
			t.Errorf("Read = %d octets, want none", n)
		}
		done <- err
	}()
	<-raw.read
	time.Sleep(20 * time.Millisecond) // it has looked, and waits for the set; without that nothing is tried
	s.close(c)
	s.mu.Unlock()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want that it is closed", err)
	}
	if s.prove(c, "shop") {
		t.Error("a request over a closed connection has proven its key")
	}
}
