package conns

import (
	"log/slog"
	"net"
	"testing"
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
