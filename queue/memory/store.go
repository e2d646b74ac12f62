// Package memory is the queue store that a test or a simulation runs on. It keeps
// all promises of queue.Store except that nothing outlives the process, and it
// can be made to fail, to take its time, and to crash.
package memory

import (
	"context"
	"sync/atomic"
	"time"

	"mailsidecar/queue"
)

// Options says how long a store keeps what is final, and what goes wrong in it.
type Options struct {
	// Retention is how long a message is kept after it became final; zero means
	// 7 days.
	Retention time.Duration
	// KeepBodies is how long the bytes of a message are kept that cannot be
	// retried; zero drops them at once.
	KeepBodies time.Duration
	// Before is called before a method of that name takes effect. Its error is
	// the method's answer, and nothing has happened. nil lets all pass.
	Before func(ctx context.Context, method string) error
	// After is called once the method has taken effect, and before it answers.
	// Its error is the answer although the method has taken effect. nil lets all
	// pass.
	After func(ctx context.Context, method string) error
	// Lost is called when a message's lease is taken from an owner that is gone; nil for
	// nobody. It must not call the store.
	Lost func(owner, id string)
}

// Store is a [queue.Store] in memory. Its zero value is not usable.
type Store struct {
	*tables
	opts Options
	// commits counts the calls that wrote.
	commits atomic.Int64
	dead    atomic.Bool
}

var _ queue.Store = (*Store)(nil)

// New returns an empty store.
func New(o Options) *Store {
	if o.Retention == 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	return &Store{opts: o, tables: newTables()}
}

// Reopen returns a store with what s has committed, as a restart of the process
// finds it. s fails from now on, as if it had crashed.
func (s *Store) Reopen() *Store {
	s.dead.Store(true)
	return &Store{opts: s.opts, tables: s.tables}
}

// Commits is how many calls have written since the store was opened.
func (s *Store) Commits() int64 { return s.commits.Load() }

// Close ends the store. What it has committed is there for Reopen.
func (s *Store) Close() error {
	s.dead.Store(true)
	return nil
}

// Check answers what Options.Before says, and nil otherwise.
func (s *Store) Check(ctx context.Context) error {
	return s.read(ctx, "Check", func() error { return nil })
}

// Heartbeat has nothing to do: a store in memory has one owner at a time.
func (s *Store) Heartbeat(ctx context.Context, _ string, _ time.Time) error {
	return s.read(ctx, "Heartbeat", func() error { return nil })
}

// read runs f with the tables locked.
func (s *Store) read(ctx context.Context, method string, f func() error) error {
	if err := s.before(ctx, method); err != nil {
		return err
	}
	s.mu.Lock()
	if s.dead.Load() { // it crashed while the call waited
		s.mu.Unlock()
		return queue.ErrClosed
	}
	err := f()
	s.mu.Unlock()
	if s.opts.After != nil {
		if late := s.opts.After(ctx, method); late != nil {
			return late
		}
	}
	return err
}

// write is read for a method that changes the tables. f changes nothing when it
// returns an error.
func (s *Store) write(ctx context.Context, method string, f func() error) error {
	return s.read(ctx, method, func() error {
		s.commits.Add(1)
		return f()
	})
}

func (s *Store) before(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.dead.Load() {
		return queue.ErrClosed
	}
	if s.opts.Before == nil {
		return nil
	}
	return s.opts.Before(ctx, method)
}
