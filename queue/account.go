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
	underway int   // calls of the store that may change what it has, and have not been answered
	answered int   // how many of them have
	doubtful bool  // stored may be off
}

func newAccount(o Options) *account {
	return &account{store: o.Store, log: o.Logger, maxMessages: o.MaxMessages, maxBytes: o.MaxBytes}
}

// begin says that the store is about to be told something that may change the count.
// It ends with end. A recount in between may be before the commit or after it.
func (a *account) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.underway++
}

// end says that the store has answered. It adds change to the count, and where that is
// not known for certain has the count taken again soon.
func (a *account) end(change Usage, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.underway--
	a.answered++
	a.doubtful = a.doubtful || !known
	a.stored = a.stored.plus(change)
	a.stored.Messages, a.stored.Bytes = max(0, a.stored.Messages), max(0, a.stored.Bytes)
}

// reserve makes room for messages that are about to be stored, which begins their
// storing. It ends with unreserve.
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
	a.underway++
	return nil
}

// unreserve takes back what was reserved. stored says what of it was stored, and known
// whether that is certain.
func (a *account) unreserve(reserved, stored Usage, known bool) {
	a.mu.Lock()
	a.reserved = a.reserved.minus(reserved)
	a.mu.Unlock()
	a.end(stored, known)
}

func (a *account) usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stored
}

func (a *account) storing() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reserved
}

func (a *account) inDoubt() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.doubtful
}

// recount brings the count in line with the store. What the store is being told
// meanwhile may be in the new count or not: then it is taken again soon.
func (a *account) recount(ctx context.Context) error {
	a.mu.Lock()
	before := a.answered
	a.mu.Unlock()
	usage, err := a.store.Usage(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.doubtful = true
		return err
	}
	a.stored = usage
	a.doubtful = a.underway > 0 || a.answered != before
	return nil
}

// tryRecount is recount, which is tried again soon when it fails.
func (a *account) tryRecount(ctx context.Context) {
	err := a.recount(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
		a.log.Warn("count messages in queue store", "error", err)
	}
}
