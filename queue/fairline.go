package queue

import (
	"context"
	"sync"
)

// fairLine lets one at a time in. Each key has one in the line: however many of one key wait,
// those of another key wait for one of them at most.
type fairLine struct {
	turn chan struct{}

	mu   sync.Mutex
	keys map[string]*keyLine
}

// keyLine has those of one key.
type keyLine struct {
	first chan struct{} // holds one: who is in the line
	n     int           // who are here
}

func newFairLine() *fairLine {
	return &fairLine{turn: make(chan struct{}, 1), keys: map[string]*keyLine{}}
}

// enter waits for the turn of one of the key, and returns a function that ends it. Its error
// is that of ctx.
func (l *fairLine) enter(ctx context.Context, key string) (leave func(), err error) {
	k := l.of(key)
	select {
	case k.first <- struct{}{}:
	case <-ctx.Done():
		l.forget(key)
		return nil, ctx.Err()
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		<-k.first
		l.forget(key)
		return nil, ctx.Err()
	}
	return func() {
		<-l.turn
		<-k.first
		l.forget(key)
	}, nil
}

func (l *fairLine) of(key string) *keyLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	if k == nil {
		k = &keyLine{first: make(chan struct{}, 1)}
		l.keys[key] = k
	}
	k.n++
	return k
}

func (l *fairLine) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[key].n--; l.keys[key].n == 0 {
		delete(l.keys, key)
	}
}
