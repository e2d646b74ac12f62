package relaytest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how many octets one side may send before the other reads.
const pipeBuffer = 64 << 10

// pipe returns the two ends of a connection in memory. Unlike net.Pipe it
// buffers as a socket does: both sides may write before either reads.
func pipe() (a, b *pipeEnd) {
	ab, ba := newStream(), newStream()
	return &pipeEnd{in: ba, out: ab}, &pipeEnd{in: ab, out: ba}
}

type pipeEnd struct {
	net.Conn // nil: the type that wraps the end has the addresses
	in, out  *stream
}

func (e *pipeEnd) Read(p []byte) (int, error) { return e.in.read(p) }

func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }

// Close lets the other side read what was sent, and then the end.
func (e *pipeEnd) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

// CloseWrite lets the other side read what was sent, and then the end.
func (e *pipeEnd) CloseWrite() error {
	e.out.close()
	return nil
}

// CloseRead makes the other side's writes fail, as a reset would.
func (e *pipeEnd) CloseRead() error {
	e.in.close()
	return nil
}

func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.readBy, t)
	return nil
}

func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.writeBy, t)
	return nil
}

// stream is one direction.
type stream struct {
	mu              sync.Mutex
	change          *sync.Cond
	buf             []byte
	closed          bool
	readBy, writeBy time.Time
}

func newStream() *stream {
	s := &stream{}
	s.change = sync.NewCond(&s.mu)
	return s
}

func (s *stream) setDeadline(deadline *time.Time, t time.Time) {
	s.mu.Lock()
	*deadline = t
	s.mu.Unlock()
	s.change.Broadcast()
	if d := time.Until(t); !t.IsZero() && d > 0 {
		time.AfterFunc(d, func() {
			s.mu.Lock() // otherwise a reader that is about to wait would miss this
			defer s.mu.Unlock()
			s.change.Broadcast()
		})
	}
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case passed(s.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			s.change.Broadcast()
			return n, nil
		case s.closed:
			return 0, io.EOF
		}
		s.change.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch room := pipeBuffer - len(s.buf); {
		case s.closed:
			return n, io.ErrClosedPipe
		case passed(s.writeBy):
			return n, os.ErrDeadlineExceeded
		case room > 0:
			part := p[:min(room, len(p))]
			s.buf = append(s.buf, part...)
			n += len(part)
			p = p[len(part):]
			s.change.Broadcast()
			if len(p) == 0 {
				return n, nil
			}
			continue
		}
		s.change.Wait()
	}
}

func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.change.Broadcast()
}
