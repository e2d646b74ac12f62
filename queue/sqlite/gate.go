package sqlite

import (
	"context"
	"sync"
	"time"
)

// gate counts the views of the store. It can be shut for a moment, so that a
// checkpoint finds none: only then does SQLite begin its log anew.
type gate struct {
	mu     sync.Mutex
	views  int           // that are inside
	waits  int           // views that wait until it opens
	opened chan struct{} // closed when it opens; nil while it is open
	quiet  chan struct{} // closed when it is shut and no view is inside
}

// enter lets a view in, once the gate is open. It returns ctx's error when that
// ends first.
func (g *gate) enter(ctx context.Context) error {
	g.mu.Lock()
	if g.opened == nil {
		g.views++
		g.mu.Unlock()
		return nil
	}
	g.waits++
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-opened: // and this view counts
		return nil
	case <-ctx.Done():
		g.giveUp(opened)
		return ctx.Err()
	}
}

func (g *gate) giveUp(opened chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == opened {
		g.waits--
	} else {
		g.out()
	}
}

// leave ends a view.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.out()
}

func (g *gate) out() {
	g.views--
	g.tell()
}

func (g *gate) tell() {
	if g.opened != nil && g.views == 0 {
		close(g.quiet)
	}
}

// isShut says that a view would have to wait.
func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

// shut keeps new views out until open is called, or for viewTime at most. quiet is closed
// when those inside have ended; opened when views come in again.
func (g *gate) shut() (quiet, opened <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.quiet, g.opened = make(chan struct{}), make(chan struct{})
	mine := g.opened
	time.AfterFunc(viewTime, func() { g.open(mine) })
	g.tell()
	return g.quiet, mine
}

// open lets those in that wait since that shut.
func (g *gate) open(opened <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil || g.opened != opened {
		return
	}
	close(g.opened)
	g.views, g.waits, g.opened = g.views+g.waits, 0, nil
}
