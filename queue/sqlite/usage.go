package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"mailsidecar/queue"
)

// usageCount is the number of messages that are not final, with their octets, in memory:
// to store it with each commit would make a commit a tenth longer. The table usage holds
// it while the store is closed, if that was in order; after a crash the messages are
// counted once.
type usageCount struct {
	current atomic.Pointer[queue.Usage] // nil: it must be counted
	stored  bool                        // the table has a row, which the next change makes wrong; the writer's

	// turn is held while a transaction commits and its changes are added, so that a view
	// which begins meanwhile agrees with changes. It guards the rest.
	turn    chan struct{}
	changes queue.Usage // by all commits since the store was opened
	doubts  int         // commits that may or may not have happened
}

// countAll counts the messages that are not final, in each key's part of the index.
const countAll = `WITH RECURSIVE keys (key) AS (
		SELECT min(key) FROM messages
		UNION ALL
		SELECT (SELECT min(key) FROM messages WHERE messages.key > keys.key) FROM keys WHERE keys.key IS NOT NULL)
	SELECT count(*), coalesce(sum(size), 0) FROM keys CROSS JOIN messages INDEXED BY messages_list
	WHERE messages.key = keys.key AND status IN ('queued', 'deferred', 'held')`

// Usage says what is stored. It counts only after a crash, and after a commit that may
// or may not have happened.
func (s *Store) Usage(ctx context.Context) (queue.Usage, error) {
	c := &s.writer.usage
	if u := c.current.Load(); u != nil {
		return *u, nil
	}
	var u queue.Usage
	err := s.view(ctx, func(v *session) (err error) {
		u, err = c.recount(ctx, v)
		return err
	})
	return u, err
}

// recount counts what the view sees.
func (c *usageCount) recount(ctx context.Context, v *session) (u queue.Usage, err error) {
	if err := c.begin(ctx); err != nil {
		return u, err
	}
	var rows int
	err = v.row(`SELECT count(*) FROM sqlite_schema`, nil, &rows) // from here on the view sees no other commit
	changes, doubts := c.changes, c.doubts
	c.end()
	if err == nil {
		err = v.row(countAll, nil, &u.Messages, &u.Bytes)
	}
	if err != nil {
		return u, err
	}
	if err := c.begin(ctx); err != nil {
		return u, err
	}
	defer c.end()
	u.Messages += c.changes.Messages - changes.Messages
	u.Bytes += c.changes.Bytes - changes.Bytes
	if doubts == c.doubts {
		c.current.Store(&u)
	}
	return u, nil
}

func (c *usageCount) begin(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *usageCount) end() { <-c.turn }

// usageSchema is the first schema with the table usage; tests write files of older ones.
const usageSchema = 7

// read takes what the last orderly close has stored, if there was one.
func (c *usageCount) read(s *session) error {
	if len(migrations) < usageSchema {
		return nil
	}
	var u queue.Usage
	err := s.row(`SELECT messages, bytes FROM usage`, nil, &u.Messages, &u.Bytes)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		c.current.Store(&u)
		c.stored = true
	}
	return err
}

// add counts messages of size octets each that the open transaction makes unfinished; a
// negative number is of those that it finishes.
func (w *writer) add(messages, size int64) {
	w.added.Messages += messages
	w.added.Bytes += messages * size
}

// forgetUsage removes the stored number in the first transaction that changes it.
func (w *writer) forgetUsage() error {
	if !w.usage.stored || w.added == (queue.Usage{}) {
		return nil
	}
	return w.exec(`DELETE FROM usage`)
}

// commitUsage commits the transaction, whose changes count from then on.
func (w *writer) commitUsage() error {
	c := &w.usage
	c.turn <- struct{}{}
	defer c.end()
	err := w.control("COMMIT")
	if err == nil {
		err = w.commitFault(true)
	}
	if err != nil {
		// It may have happened all the same.
		c.current.Store(nil)
		c.doubts++
		w.numbers.doubt()
		w.store.counter.wake()
		return err
	}
	w.numbers.commit()
	if w.added == (queue.Usage{}) {
		return nil
	}
	c.stored = false
	c.changes.Messages += w.added.Messages
	c.changes.Bytes += w.added.Bytes
	if u := c.current.Load(); u != nil {
		c.current.Store(&queue.Usage{Messages: u.Messages + w.added.Messages, Bytes: u.Bytes + w.added.Bytes})
	}
	return nil
}

// storeUsage stores the number when the store is closed, where it is known. Without it
// the next start counts.
func (w *writer) storeUsage() {
	u := w.usage.current.Load()
	if u == nil || w.usage.stored || len(migrations) < usageSchema || w.begin() != nil {
		return
	}
	if w.exec(`INSERT INTO usage (messages, bytes) VALUES (?, ?)`, u.Messages, u.Bytes) != nil || w.control("COMMIT") != nil {
		w.rollBack()
	}
}
