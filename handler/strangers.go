package handler

import (
	"context"
	"time"
)

// strangersTurn is how long an answer waits for the one before it.
const strangersTurn = 100 * time.Millisecond

// turnstile lets the answers to requests without a valid key through one at a time: clients
// could ask, over very many connections, as fast as all processors answer.
type turnstile chan struct{}

func newTurnstile() turnstile { return make(turnstile, 1) }

// enter waits for the turn, and returns a function that ends it. It does not wait for ever:
// the one before may write to a client that does not read.
func (t turnstile) enter(ctx context.Context) (leave func()) {
	select {
	case t <- struct{}{}:
		return t.leave
	default:
	}
	late := time.NewTimer(strangersTurn)
	defer late.Stop()
	select {
	case t <- struct{}{}:
		return t.leave
	case <-late.C:
	case <-ctx.Done():
	}
	return func() {}
}

func (t turnstile) leave() { <-t }
