package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// account counts the messages that are not final, and says whether there is room
// for more.
type account struct {
	store       Store
	log         *slog.Logger
	maxMessages int64 // zero: no limit
	maxBytes    int64 // zero: no limit

	mu       sync.Mutex
	stored   Usage
	reserved Usage // messages that are being stored
	moves    int   // how often stored was added to or taken from
	doubtful bool  // stored may be off
}

func newAccount(o Options) *account {
	return &account{store: o.Store, log: o.Logger, maxMessages: o.MaxMessages, maxBytes: o.MaxBytes}
}

// reserve makes room for messages that are about to be stored. It ends with
// commit.
func (a *account) reserve(u Usage) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	messages := a.stored.Messages + a.reserved.Messages + u.Messages
	octets := a.stored.Bytes + a.reserved.Bytes + u.Bytes
	if a.maxMessages > 0 && messages > a.maxMessages || a.maxBytes > 0 && octets > a.maxBytes {
		return fmt.Errorf("%w: %d messages of %d octets wait; MAILSIDECAR_QUEUE_MAX_MESSAGES and MAILSIDECAR_QUEUE_MAX_SIZE are the limits",
			ErrFull, a.stored.Messages, a.stored.Bytes)
	}
	a.reserved = a.reserved.plus(u)
	return nil
}

// commit says whether the reserved messages have been stored.
func (a *account) commit(u Usage, stored bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved = a.reserved.minus(u)
	if stored {
		a.moves++
		a.stored = a.stored.plus(u)
	}
}

// settle takes off messages that became final.
func (a *account) settle(u Usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moves++
	a.stored = a.stored.minus(u)
	a.stored.Messages, a.stored.Bytes = max(0, a.stored.Messages), max(0, a.stored.Bytes)
}

func (a *account) set(u Usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = u
}

func (a *account) usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stored
}

func (a *account) underway() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reserved
}

// doubt says that the count may be off, so that it is taken again soon.
func (a *account) doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubtful = true
}

func (a *account) inDoubt() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.doubtful
}

// recount brings the count in line with the store. When the count changed in the
// course of it, it may be off by that much, and is taken again soon.
func (a *account) recount(ctx context.Context) {
	a.mu.Lock()
	before := a.moves
	a.mu.Unlock()
	usage, err := a.store.Usage(ctx)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			a.log.Warn("count messages in queue store", "error", err)
		}
		a.doubt()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = usage
	a.doubtful = a.moves != before
}
