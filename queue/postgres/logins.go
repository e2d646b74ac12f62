package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// loginConnections is how many connections logins have at most; none while nobody asks.
	loginConnections = 4
	// loginLook is how often a lock is asked for that another instance holds.
	loginLook = 100 * time.Millisecond
	// loginLockTime is how long a process that is frozen keeps a lock.
	loginLockTime = "2min"
	// loginLock is the advisory lock of a relay's login, beside the schema's name and the relay.
	loginLock = 0x6d6c7380
)

// Logins keeps one value for each relay, which instances share. It is no part of a store: it connects
// when it is asked, and the schema may come later.
type Logins struct {
	*connector
	pool *pgxpool.Pool
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
	return &Logins{c, pool}, nil
}

// Close ends the connections.
func (l *Logins) Close() { l.pool.Close() }

// Place names the schema.
func (l *Logins) Place() string { return l.place() }

// acquire waits for a connection as long as ctx lasts. What is done with it is not ended by ctx.
func (l *Logins) acquire(ctx context.Context) (*pgxpool.Conn, context.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*connectTime)
	defer cancel()
	conn, err := l.pool.Acquire(ctx)
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
		conn, inside, err := l.acquire(ctx)
		if err != nil {
			return nil, err
		}
		unlock, err := l.tryLock(inside, conn, relay)
		if unlock != nil || err != nil {
			return unlock, named(l.connector, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(loginLook):
		}
	}
}

// tryLock returns nil where another one has the lock.
func (l *Logins) tryLock(ctx context.Context, conn *pgxpool.Conn, relay int) (unlock func(), err error) {
	end := func() {
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			_ = conn.Conn().Close(ctx)
		}
		conn.Release()
	}
	var got bool
	_, err = conn.Exec(ctx, `BEGIN ISOLATION LEVEL READ COMMITTED`)
	if err == nil {
		err = conn.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1, hashtext($2)) AND set_config('idle_in_transaction_session_timeout', $3, true) IS NOT NULL`,
			loginLock, fmt.Sprint(l.name, relay), loginLockTime).Scan(&got)
	}
	if err != nil || !got {
		end()
		return nil, err
	}
	return end, nil
}
