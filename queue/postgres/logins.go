package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// loginConnections is how many connections logins have at most; none while nobody asks.
	loginConnections = 4
	// loginLook is how often a lock is asked for that another instance holds.
	loginLook = 100 * time.Millisecond
	// loginLockTime is how long the server keeps a lock that is not looked at: its process is frozen,
	// or cut off from the server. [Logins.Holds] begins that time anew.
	loginLockTime = "2min"
	// loginLock is the advisory lock of a relay's login, beside the schema's name and the relay.
	loginLock = 0x6d6c7380
)

// Logins keeps one value for each relay, which instances share. It is no part of a store: it connects
// when it is asked, and the schema may come later.
type Logins struct {
	*connector
	pool *pgxpool.Pool
	// slots has an element for each connection that a lock has. There are fewer than connections:
	// else Load and Save would wait for the end of the locks that they are called under.
	slots chan struct{}

	mu     sync.Mutex
	locks  map[int]*loginHold // by relay
	closed bool
}

// loginHold is a lock that this process has.
type loginHold struct {
	logins *Logins
	relay  int

	mu   sync.Mutex
	conn *pgxpool.Conn // nil once it has ended
}

// OpenLogins returns the logins in the schema of a store. It connects to nothing.
func OpenLogins(o Options) (*Logins, error) {
	c, err := newConnector(o.withDefaults())
	if err != nil {
		return nil, err
	}
	config := c.config.Copy()
	config.MaxConns, config.MinConns = loginConnections, 0
	config.MaxConnIdleTime = time.Minute
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	slots := make(chan struct{}, max(1, config.MaxConns-1))
	return &Logins{connector: c, pool: pool, slots: slots, locks: map[int]*loginHold{}}, nil
}

// Close ends the locks and the connections.
func (l *Logins) Close() {
	l.mu.Lock()
	l.closed = true
	locks := slices.Collect(maps.Values(l.locks))
	l.mu.Unlock()
	for _, h := range locks { // the pool waits for their connections
		h.end()
	}
	l.pool.Close()
}

// Place names the schema.
func (l *Logins) Place() string { return l.place() }

// acquire waits for a connection as long as ctx lasts. What is done with it is not ended by ctx.
func (l *Logins) acquire(ctx context.Context) (*pgxpool.Conn, context.Context, error) {
	within, cancel := context.WithTimeout(ctx, l.connectLimit())
	defer cancel()
	conn, err := l.pool.Acquire(within)
	return conn, context.WithoutCancel(ctx), named(l.connector, err)
}

// Load returns the relay's value; nil where there is none.
func (l *Logins) Load(ctx context.Context, relay int) (value []byte, err error) {
	conn, ctx, err := l.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	err = conn.QueryRow(ctx, l.sql(`SELECT sealed FROM {s}.logins WHERE relay = $1`), relay).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return value, named(l.connector, err)
}

// Save replaces the relay's value; nil removes it.
func (l *Logins) Save(ctx context.Context, relay int, value []byte) error {
	conn, ctx, err := l.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	delete(conn.Conn().PgConn().CustomData(), warned)
	if value == nil {
		_, err = conn.Exec(ctx, l.sql(`DELETE FROM {s}.logins WHERE relay = $1`), relay)
	} else {
		_, err = conn.Exec(ctx, l.sql(`INSERT INTO {s}.logins (relay, sealed, changed) VALUES ($1, $2, clock_timestamp())
			ON CONFLICT (relay) DO UPDATE SET sealed = excluded.sealed, changed = excluded.changed`), relay, value)
	}
	if err != nil {
		return named(l.connector, err)
	}
	return unknownCommit(conn.Conn())
}

// Lock takes the relay's lock: that of a transaction, which ends with unlock, or with the connection.
// Nothing is read or written in it, so that it keeps no dead row from vacuum.
func (l *Logins) Lock(ctx context.Context, relay int) (unlock func(), err error) {
	for {
		h, err := l.tryLock(ctx, relay)
		switch {
		case h != nil && ctx.Err() != nil: // granted too late: the caller has given up
			h.end()
			return nil, ctx.Err()
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, named(l.connector, err)
		case h != nil:
			return h.end, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(loginLook):
		}
	}
}

// tryLock returns nil where another one has the lock.
func (l *Logins) tryLock(ctx context.Context, relay int) (*loginHold, error) {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, ctx, err := l.acquire(ctx)
	if err != nil {
		<-l.slots
		return nil, err
	}
	h := &loginHold{logins: l, relay: relay, conn: conn}
	var got bool
	_, err = conn.Exec(ctx, `BEGIN ISOLATION LEVEL READ COMMITTED`)
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1, hashtext($2)) AND set_config('idle_in_transaction_session_timeout', $3, true) IS NOT NULL`,
			loginLock, fmt.Sprint(l.name, relay), loginLockTime).Scan(&got)
	}
	if err == nil && got {
		l.mu.Lock()
		if l.closed {
			err = errors.New("the logins are closed")
		} else {
			l.locks[relay] = h
		}
		l.mu.Unlock()
	}
	if err != nil || !got {
		h.end()
		return nil, err
	}
	return h, nil
}

// Holds says whether this process still has the relay's lock, and keeps the server from ending it
// for as long again.
func (l *Logins) Holds(relay int) bool {
	l.mu.Lock()
	h := l.locks[relay]
	l.mu.Unlock()
	return h != nil && h.lasts()
}

func (h *loginHold) lasts() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return false
	}
	_, err := h.conn.Exec(context.Background(), "SELECT 1")
	if err != nil {
		h.endNow()
	}
	return err == nil
}

func (h *loginHold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endNow()
}

// endNow ends the lock, unless it has ended. The caller holds mu.
func (h *loginHold) endNow() {
	if h.conn == nil {
		return
	}
	ctx, l := context.Background(), h.logins
	if _, err := h.conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = h.conn.Conn().Close(ctx)
	}
	h.conn.Release()
	h.conn = nil
	<-l.slots
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.locks[h.relay] == h {
		delete(l.locks, h.relay)
	}
}
