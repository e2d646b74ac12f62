package network

import (
	"context"
	"sync"
)

// Gate is what nothing passes while it is closed. Its methods may be called at any time.
type Gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while the gate is open
}

// NewGate returns an open gate.
func NewGate() *Gate {
	g := &Gate{open: make(chan struct{})}
	close(g.open)
	return g
}

// Close closes the gate, or opens it.
func (g *Gate) Close(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch is := g.closed(); {
	case closed && !is:
		g.open = make(chan struct{})
	case !closed && is:
		close(g.open)
	}
}

func (g *Gate) closed() bool {
	select {
	case <-g.open:
		return false
	default:
		return true
	}
}

// Closed says that the gate is closed.
func (g *Gate) Closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed()
}

// Pass waits until the gate is open, or ctx ends.
func (g *Gate) Pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		open, closed := g.open, g.closed()
		g.mu.Unlock()
		if !closed {
			return ctx.Err()
		}
		select {
		case <-open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
