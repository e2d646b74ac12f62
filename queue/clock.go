package queue

import (
	"sync"
	"time"
)

// clockSlack is by how much the clock may be off before it counts as set.
const clockSlack = 30 * time.Second

// clock is a clock with the precision of the store, which may be set forward and back.
// It remembers how far ahead it was read: what was stored then has times that lie ahead
// once it is set back.
type clock struct {
	read  func() time.Time
	wall  time.Time // when it was made
	since time.Time // the same, by a clock that is never set

	mu    sync.Mutex
	off   time.Duration // by how much it was off at the last call of set
	ahead time.Duration // the most since then
}

func newClock(read func() time.Time) *clock {
	// The times are compared as they are shown: without what Go reads beside them of a
	// clock that is never set.
	c := &clock{read: func() time.Time { return read().Round(0) }, since: time.Now()}
	c.wall = c.read()
	return c
}

func (c *clock) now() time.Time {
	now := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = max(c.ahead, c.offAt(now))
	return now.UTC().Truncate(time.Microsecond)
}

func (c *clock) offAt(now time.Time) time.Duration { return now.Sub(c.wall) - time.Since(c.since) }

// set says by how much the clock was set back since the last call, from where it was
// ahead the most, and whether it was set forward.
func (c *clock) set() (back time.Duration, forward bool) {
	now := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	off := c.offAt(now)
	back, forward = c.ahead-off, off-c.off > clockSlack
	c.off, c.ahead = off, off
	if back <= clockSlack {
		back = 0
	}
	return back, forward
}
