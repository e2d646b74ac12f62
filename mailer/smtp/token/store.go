package token

import (
	"context"
	"errors"
	"sync"
)

// ErrNotStored says that a store has no login for a relay.
var ErrNotStored = errors.New("no login is stored")

// Store keeps the logins of relays, one record for each relay's number. It may be
// shared by several processes, and it is safe for concurrent use.
type Store interface {
	// Load returns the relay's record. The error is [ErrNotStored] where there is none,
	// and a [*DamagedError] where it cannot be understood.
	Load(ctx context.Context, relay int) (Record, error)
	// Save replaces the relay's record. When it returns nil, the record outlasts a
	// crash of the machine, as far as the store lasts at all; after an error the old
	// record is still whole. The caller holds the relay's lock.
	Save(ctx context.Context, relay int, r Record) error
	// Lock waits until no other user of the store has the relay's lock, and takes it.
	// It is for whoever spends a refresh token or saves one: from before the request
	// until the new token is saved. The lock ends with unlock, or with the process. An
	// error is ctx's, where another user had the lock all the time.
	Lock(ctx context.Context, relay int) (unlock func(), err error)
	// Lasting reports whether records outlast the process.
	Lasting() bool
}

// DamagedError is a stored record that cannot be understood.
type DamagedError struct {
	Where string // such as the file
	Err   error
}

func (e *DamagedError) Error() string {
	return "the login in " + e.Where + " cannot be read: " + e.Err.Error()
}

func (e *DamagedError) Unwrap() error { return e.Err }

// MemoryStore keeps logins until the process ends. The zero value is ready.
type MemoryStore struct {
	mu      sync.Mutex
	records map[int]Record
	locks   map[int]chan struct{} // hold one value while locked
}

var _ Store = (*MemoryStore)(nil)

// Load returns the relay's record, or [ErrNotStored].
func (m *MemoryStore) Load(_ context.Context, relay int) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[relay]
	if !ok {
		return Record{}, ErrNotStored
	}
	return r, nil
}

// Save replaces the relay's record. It never fails for a record that is valid.
func (m *MemoryStore) Save(_ context.Context, relay int, r Record) error {
	if err := r.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[int]Record{}
	}
	m.records[relay] = r
	return nil
}

// Lock takes the relay's lock, see [Store].
func (m *MemoryStore) Lock(ctx context.Context, relay int) (unlock func(), err error) {
	m.mu.Lock()
	if m.locks == nil {
		m.locks = map[int]chan struct{}{}
	}
	lock := m.locks[relay]
	if lock == nil {
		lock = make(chan struct{}, 1)
		m.locks[relay] = lock
	}
	m.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Lasting is false.
func (m *MemoryStore) Lasting() bool { return false }
