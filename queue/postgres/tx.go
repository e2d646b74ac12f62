package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// deadlockTries is how often a transaction is tried that the database has ended for the sake
// of another one.
const deadlockTries = 5

// errNoteMade says that another transaction has made the note that this one was to make.
var errNoteMade = errors.New("another transaction has made the note")

// errUnknown says that a commit may have happened.
var errUnknown = errors.New("it is unknown whether the commit has happened")

// unknownCommit is the error of a commit that came with a warning: the database has not
// waited for its standby.
func unknownCommit(conn *pgx.Conn) error {
	if message, ok := conn.PgConn().CustomData()[warned]; ok {
		return fmt.Errorf("%w: the database warns: %v", errUnknown, message)
	}
	return nil
}

// tx is a transaction whose statements are sent together, as far as the answers need not be
// known.
type tx struct {
	*Store
	ctx   context.Context
	conn  *pgx.Conn
	batch *pgx.Batch
}

// The settings of a transaction. A process that is frozen in the middle of one must not hold
// its locks for long. The plans must be good though statistics are old, or the server wants
// plans that know no values.
const (
	beginSQL    = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE`
	settingsSQL = `SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('plan_cache_mode', 'force_custom_plan', true),
	set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`
)

// write calls f in a transaction, and commits.
func write[T any](ctx context.Context, s *Store, f func(t *tx) (T, error)) (T, error) {
	return run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (T, error) {
		for try := 1; ; try++ {
			value, err := writeOnce(ctx, s, conn, f)
			if !again(err) || try == deadlockTries {
				return value, err
			}
		}
	})
}

// again says that nothing has happened, and may the next time.
func again(err error) bool {
	var e *pgconn.PgError
	return errors.Is(err, errNoteMade) || errors.As(err, &e) && (e.Code == "40P01" || e.Code == "40001" || e.Code == "55P03")
}

func writeOnce[T any](ctx context.Context, s *Store, conn *pgx.Conn, f func(t *tx) (T, error)) (T, error) {
	var none T
	t := &tx{Store: s, ctx: ctx, conn: conn, batch: &pgx.Batch{}}
	t.exec(beginSQL)
	t.exec(settingsSQL)
	value, err := f(t)
	if err == nil {
		err = t.commit()
	}
	if err != nil {
		t.rollBack()
		return none, err
	}
	return value, nil
}

// exec adds a statement to what is sent next.
func (t *tx) exec(sql string, args ...any) { t.batch.Queue(t.sql(sql), args...) }

// each adds a query to what is sent next; f is called with each row.
func (t *tx) each(sql string, args []any, f func(rows pgx.Rows) error) {
	t.batch.Queue(t.sql(sql), args...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := f(rows); err != nil {
				rows.Close()
				return err
			}
		}
		return rows.Err()
	})
}

// row adds a query of one row.
func (t *tx) row(sql string, args []any, into ...any) {
	t.batch.Queue(t.sql(sql), args...).QueryRow(func(row pgx.Row) error { return row.Scan(into...) })
}

// count adds a statement to what is sent next, and the number of its rows to n.
func (t *tx) count(n *int, sql string, args ...any) {
	t.batch.Queue(t.sql(sql), args...).Exec(func(tag pgconn.CommandTag) error {
		*n += int(tag.RowsAffected())
		return nil
	})
}

// send sends what was added, and waits for the answers.
func (t *tx) send() error {
	b := t.batch
	t.batch = &pgx.Batch{}
	if b.Len() == 0 {
		return nil
	}
	return t.conn.SendBatch(t.ctx, b).Close()
}

// commit commits, with what was added last.
func (t *tx) commit() error {
	if t.fault != nil {
		if err := t.fault(false); err != nil {
			return err
		}
	}
	data := t.conn.PgConn().CustomData()
	delete(data, warned)
	t.batch.Queue("COMMIT").Exec(committed)
	if err := t.send(); err != nil {
		return err
	}
	if err := unknownCommit(t.conn); err != nil {
		return err
	}
	if t.fault != nil {
		return t.fault(true)
	}
	return nil
}

// committed is the error of a COMMIT that rolled back.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return fmt.Errorf("the transaction was not committed: %s", tag)
	}
	return nil
}

// rollBack ends a transaction that has failed.
func (t *tx) rollBack() {
	if t.conn.IsClosed() || t.conn.PgConn().TxStatus() == 'I' {
		return
	}
	if _, err := t.conn.Exec(t.ctx, "ROLLBACK"); err != nil {
		_ = t.conn.Close(t.ctx)
	}
}

// isNetwork says that the error is the connection's.
func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "conn closed")
}

// unknown says that after the error it is unknown whether a commit that was sent has
// happened. A statement that the database has refused has not.
func unknown(err error) bool {
	var e *pgconn.PgError
	return !errors.As(err, &e) || e.Severity == "FATAL" || e.Severity == "PANIC" || strings.HasPrefix(e.Code, "57P")
}

// finish sends what was added, and ends a transaction that only reads.
func (t *tx) finish() error {
	t.batch.Queue("COMMIT")
	return t.send()
}

// view calls f in a transaction that reads one state of the database, for so long at most.
func view[T any](ctx context.Context, s *Store, limit time.Duration, f func(t *tx) (T, error)) (T, error) {
	return run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (T, error) {
		t := &tx{Store: s, ctx: ctx, conn: conn, batch: &pgx.Batch{}}
		t.exec(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
		t.exec(settingsSQL)
		t.exec(fmt.Sprintf("SET LOCAL statement_timeout = %d", limit.Milliseconds()))
		value, err := f(t)
		t.rollBack()
		return value, err
	})
}
