// Package processor divides the processors among what takes long.
//
// Go lets a goroutine run for 10 ms before another one gets its processor, and looks at the
// network only when a processor has nothing to do. Where every processor has long work, what
// takes a moment waits for tens of milliseconds, again and again. So long work takes turns,
// and one processor stays free of it.
package processor

import (
	"context"
	"sync"
)

// Small is up to how many octets a work is over in a moment, and needs no turn.
const Small = 64 << 10

// Deliveries is the key of work for messages that were accepted. No API key has that name.
const Deliveries = "\x00deliveries"

// Turns lets as much long work run at once as there are processors but one, and one at
// least. Keys take turns: however much of one key waits, another key's next work waits for one
// work of each other key at most. The works of one key have their turn in the order in which
// they came. A nil *Turns limits nothing.
type Turns struct {
	mu    sync.Mutex
	free  int                // turns that nobody has
	line  []string           // keys with works that wait: whose turn is next
	waits map[string][]*wait // none of these is empty
}

// wait is one work that waits. given is closed when it has the turn.
type wait struct{ given chan struct{} }

// New returns the turns of this process.
func New() *Turns {
	return &Turns{free: max(Count()-1, 1), waits: map[string][]*wait{}}
}

// TryEnter takes a turn that is free, and reports whether there was one.
func (t *Turns) TryEnter() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free == 0 {
		return false
	}
	t.free--
	return true
}

// Enter waits for a turn, as long as ctx does not end: the error is that of ctx. Call
// [Turns.Leave] when the work is done. Work that has a turn must not ask for another one.
func (t *Turns) Enter(ctx context.Context, key string) error {
	if t.TryEnter() {
		return nil
	}
	w := t.queue(key)
	if w == nil {
		return nil
	}
	select {
	case <-w.given:
		return nil
	case <-ctx.Done():
	}
	if !t.giveUp(key, w) {
		t.Leave() // it was given meanwhile
	}
	return ctx.Err()
}

// queue adds a work to those that wait; nil where a turn has become free.
func (t *Turns) queue(key string) *wait {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free > 0 {
		t.free--
		return nil
	}
	w := &wait{make(chan struct{})}
	if len(t.waits[key]) == 0 {
		t.line = append(t.line, key)
	}
	t.waits[key] = append(t.waits[key], w)
	return w
}

// giveUp removes a work from those that wait, and reports whether it was there.
func (t *Turns) giveUp(key string, w *wait) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.waits[key] {
		if other == w {
			t.remove(key, i)
			return true
		}
	}
	return false
}

// remove takes the i-th work of the key out of the line, and the key where it was the last.
func (t *Turns) remove(key string, i int) {
	rest := append(t.waits[key][:i:i], t.waits[key][i+1:]...)
	if t.waits[key] = rest; len(rest) > 0 {
		return
	}
	delete(t.waits, key)
	for j, other := range t.line {
		if other == key {
			t.line = append(t.line[:j], t.line[j+1:]...)
			return
		}
	}
}

// Leave ends a turn: the next key has it.
func (t *Turns) Leave() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.line) == 0 {
		t.free++
		return
	}
	key := t.line[0]
	w := t.waits[key][0]
	t.remove(key, 0)
	if len(t.waits[key]) > 0 { // to the end of the line
		t.line = append(t.line[1:], key)
	}
	close(w.given)
}
