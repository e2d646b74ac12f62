package sqlite

import (
	"context"
	"slices"
	"sync"
)

// line gives out a few places. Keys that wait take turns, so that a key with many
// calls delays another key by one call of its own.
type line struct {
	mu    sync.Mutex
	free  int                        // places; zero while a call waits
	keys  []string                   // that wait, in the order of their turns
	calls map[string][]chan struct{} // that wait, by key; closed when a call has its place
}

func newLine(places int) *line {
	return &line{free: places, calls: map[string][]chan struct{}{}}
}

// enter waits for a place. It returns ctx's error when that ends first.
func (l *line) enter(ctx context.Context, key string) error {
	l.mu.Lock()
	if l.free > 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	if len(l.calls[key]) == 0 {
		l.keys = append(l.keys, key)
	}
	l.calls[key] = append(l.calls[key], turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		l.giveUp(key, turn)
		return ctx.Err()
	}
}

// leave gives the place to the next key.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next()
}

func (l *line) next() {
	if len(l.keys) == 0 {
		l.free++
		return
	}
	key := l.keys[0]
	l.keys = append(l.keys[1:], key)
	turn := l.calls[key][0]
	l.remove(key, 0)
	close(turn)
}

// giveUp ends the wait of a call, which may have got its place just now.
func (l *line) giveUp(key string, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := slices.Index(l.calls[key], turn); n >= 0 {
		l.remove(key, n)
	} else {
		l.next()
	}
}

func (l *line) remove(key string, n int) {
	if l.calls[key] = slices.Delete(l.calls[key], n, n+1); len(l.calls[key]) == 0 {
		delete(l.calls, key)
		l.keys = slices.DeleteFunc(l.keys, func(k string) bool { return k == key })
	}
}
