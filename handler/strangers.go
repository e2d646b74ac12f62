package handler

import (
	"context"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/handler/conns"
)

const (
	// strangersTurn is how long a turn lasts at most: who writes to a client that does not
	// read uses no processor, and need not be waited for.
	strangersTurn = 2 * time.Millisecond
	// strangersWait is how long an answer waits for its turn. A thousand of them are made in
	// less time; but whoever asks whether the process lives gets an answer in any case.
	strangersWait = 500 * time.Millisecond
)

// turnstile lets the answers to requests without a valid key through one at a time: clients
// could ask, over very many connections, as fast as all processors answer.
type turnstile chan struct{}

func newTurnstile() turnstile { return make(turnstile, 1) }

// enter waits for the turn, and returns a function that ends it.
func (t turnstile) enter(ctx context.Context) (leave func()) {
	if !t.wait(ctx) {
		return func() {}
	}
	end := sync.OnceFunc(func() { <-t })
	late := time.AfterFunc(strangersTurn, end)
	return func() {
		late.Stop()
		end()
	}
}

// takeStrangersTurn waits until this request, which needs no key or has none, may be answered.
// Its turn lasts until its answer is sent and logged: what one request does beside its turn, it
// would do at the same time as all others.
func (s *Server) takeStrangersTurn(c echo.Context) {
	if r := request(c); r.endTurn == nil {
		r.endTurn = s.strangers.enter(c.Request().Context())
	}
}

// endStrangersTurn lets the turn of the request, if it has one, end with the request.
func endStrangersTurn(c echo.Context) {
	if r := request(c); r.endTurn != nil {
		conns.AfterRequest(c.Request().Context(), r.endTurn)
	}
}

// wait reports whether it got the turn.
func (t turnstile) wait(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	default:
	}
	late := time.NewTimer(strangersWait)
	defer late.Stop()
	select {
	case t <- struct{}{}:
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}
