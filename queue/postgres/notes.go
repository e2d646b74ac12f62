package postgres

import (
	"bytes"
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/queue"
)

// Notes reads some rows: one for each relay, or each key.
func (s *Store) Notes(ctx context.Context, kind string) (notes map[string][]byte, now time.Time, err error) {
	type answer struct {
		notes map[string][]byte
		now   time.Time
	}
	a, err := run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (answer, error) {
		a := answer{notes: map[string][]byte{}}
		// The time comes in a row of its own, for there may be no note.
		rows, err := conn.Query(ctx, s.sql(`SELECT NULL AS name, NULL AS value, clock_timestamp() AS now UNION ALL SELECT name, value, NULL FROM {s}.notes WHERE kind = $1`), kind)
		if err != nil {
			return a, err
		}
		defer rows.Close()
		for rows.Next() {
			var name *string
			var value []byte
			var at pgtype.Timestamptz
			if err := rows.Scan(&name, &value, &at); err != nil {
				return a, err
			}
			if name == nil {
				a.now = timeOf(at)
				continue
			}
			a.notes[*name] = value
		}
		return a, rows.Err()
	})
	return a.notes, a.now, err
}

// noteLockTime is how long a change may have the lock of a note while the process does nothing: it is
// frozen, and others wait.
const noteLockTime = "2s"

// ChangeNote locks the note's row while change is called.
func (s *Store) ChangeNote(ctx context.Context, kind, name string, change func(value []byte, now time.Time) []byte) error {
	_, err := write(ctx, s, func(t *tx) (none struct{}, err error) {
		t.exec(`SELECT set_config('idle_in_transaction_session_timeout', $1, true)`, noteLockTime)
		before, now, there, err := t.note(kind, name)
		if err != nil {
			return none, err
		}
		after := change(bytes.Clone(before), now)
		switch {
		case bytes.Equal(before, after):
		case len(after) == 0:
			t.exec(`DELETE FROM {s}.notes WHERE kind = $1 AND name = $2`, kind, name)
		case there:
			t.exec(`UPDATE {s}.notes SET value = $3, changed = $4 WHERE kind = $1 AND name = $2`, kind, name, after, stamp(now))
		default: // another one may have made it since it was looked for
			var made int
			t.count(&made, `INSERT INTO {s}.notes (kind, name, value, changed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, kind, name, after, stamp(now))
			if err = t.send(); err == nil && made == 0 {
				err = errNoteMade
			}
		}
		return none, err
	})
	return err
}

// note locks a note's row, and returns what it has, and the time, which is that after the lock came.
func (t *tx) note(kind, name string) (value []byte, now time.Time, there bool, err error) {
	t.each(`SELECT value FROM {s}.notes WHERE kind = $1 AND name = $2 FOR UPDATE`, []any{kind, name}, func(rows pgx.Rows) error {
		there = true
		return rows.Scan(&value)
	})
	var at pgtype.Timestamptz
	t.row(`SELECT clock_timestamp()`, nil, &at)
	err = t.send()
	return value, timeOf(at), there, err
}

func (t *tx) sweepNotes(_ time.Time, limit int) (n int, err error) {
	t.count(&n, `DELETE FROM {s}.notes WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM {s}.notes WHERE changed < clock_timestamp() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED))`, queue.NoteLife, limit)
	return n, t.send()
}
