package smtp

import (
	"context"
	"slices"
	"sync"
)

// late holds the connections that wait for a verdict after their deliveries were
// answered, the oldest first.
type late struct {
	mu    sync.Mutex
	conns []*conn
}

// add keeps c, and closes the oldest connection when there are more than most:
// otherwise a relay that answers no final dot would collect connections without
// limit.
func (l *late) add(c *conn, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	if len(l.conns) > most {
		l.conns[0].raw.Close() // its listener closes the rest
		l.conns = slices.Delete(l.conns, 0, 1)
	}
}

func (l *late) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.conns, c); i >= 0 {
		l.conns = slices.Delete(l.conns, i, i+1)
	}
}

// listenLate waits for the verdict of a delivery that has been answered already, and
// logs it.
func (c *conn) listenLate(ctx context.Context, t *transaction, answers <-chan answer) {
	defer c.relay.late.remove(c)
	defer c.close()
	select {
	case a := <-answers:
		c.verdict(t, a)
	case <-ctx.Done():
		c.close()
		c.verdict(t, <-answers)
	}
	for _, r := range t.accepted {
		c.relay.logLateVerdict(t, *r)
	}
}
