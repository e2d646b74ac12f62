package network

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"mailsidecar/sim/chance"
)

// stream is one direction of a connection. What is written arrives a little later.
type stream struct {
	chance chance.Chance
	mu     sync.Mutex
	change *sync.Cond
	chunks []chunk
	writes int
	last   time.Time // when the last chunk arrives

	ended, left, frozen bool // by the writer, by the reader, by the network
	unread              bool // the reader's process stands still
	held                bool // the writer's process does: what it writes is in waiting
	waiting             [][]byte
	readBy, writeBy     time.Time
	timer               *time.Timer // wakes the reader; nil until it has waited
}

// chunk is one write. Without data it is the end.
type chunk struct {
	at   time.Time
	data []byte
}

func newStream(c chance.Chance) *stream {
	s := &stream{chance: c}
	s.change = sync.NewCond(&s.mu)
	return s
}

func (s *stream) send(data []byte) {
	if s.held {
		s.waiting = append(s.waiting, data)
		return
	}
	at := time.Now().Add(s.chance.N(s.writes).Between(20*time.Microsecond, 600*time.Microsecond))
	s.writes++
	if !at.After(s.last) {
		at = s.last.Add(1)
	}
	s.last = at
	s.chunks = append(s.chunks, chunk{at, data})
	s.change.Broadcast()
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return 0, net.ErrClosed
	case s.left && !s.frozen:
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
	case passed(s.writeBy):
		return 0, os.ErrDeadlineExceeded
	case !s.frozen:
		s.send(append([]byte(nil), p...))
	}
	return len(p), nil
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.left:
			return 0, net.ErrClosed
		case s.unread:
			s.change.Wait()
			continue
		case passed(s.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(s.chunks) > 0 && passed(s.chunks[0].at):
			first := &s.chunks[0]
			if first.data == nil {
				return 0, io.EOF
			}
			n := copy(p, first.data)
			if first.data = first.data[n:]; len(first.data) == 0 {
				s.chunks = s.chunks[1:]
			}
			return n, nil
		}
		s.wait()
	}
}

// wait waits for a change, or for the time at which there is one.
func (s *stream) wait() {
	until := s.readBy
	if len(s.chunks) > 0 && (until.IsZero() || s.chunks[0].at.Before(until)) {
		until = s.chunks[0].at
	}
	if !until.IsZero() {
		if s.timer == nil {
			s.timer = time.AfterFunc(time.Until(until), s.wake)
		} else {
			s.timer.Reset(time.Until(until))
		}
	}
	s.change.Wait()
	if s.timer != nil {
		s.timer.Stop() // otherwise timers that mean nothing any more would pile up
	}
}

func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change.Broadcast()
}

// end is the writer's close.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && !s.frozen {
		s.send(nil)
	}
	s.ended = true
}

// leave is the reader's close.
func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	s.change.Broadcast()
}

// freeze loses what is under way, and all that is sent later.
func (s *stream) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen, s.chunks, s.waiting = true, nil, nil
}

func (s *stream) setReadDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy = t
	s.change.Broadcast()
}

func (s *stream) setWriteDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy = t
}

func (s *stream) stopReads(stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = stopped
	s.change.Broadcast()
}

func (s *stream) stopWrites(stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = stopped
	if waiting := s.waiting; !stopped {
		s.waiting = nil
		for _, data := range waiting {
			s.send(data)
		}
	}
}
