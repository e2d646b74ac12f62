package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"mailsidecar/queue"
)

// takeTurns notes n turns at a time, and forgets those of the relay that count no more.
func (w *writer) takeTurns(t queue.Turn, n int) error {
	err := w.exec(`DELETE FROM turns WHERE relay = ? AND at <= ?`, t.Relay, t.At.Add(-t.Window).UnixMicro())
	if err != nil {
		return err
	}
	return w.exec(`INSERT INTO turns (relay, at, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n`, t.Relay, t.At.UnixMicro(), n)
}

// Turns reads as many turns as are wanted, whatever else there is.
func (s *Store) Turns(ctx context.Context, relay string, since time.Time, limit int) ([]time.Time, error) {
	var turns []time.Time
	err := s.view(ctx, func(v *session) error {
		turns = nil
		return v.each(`SELECT at, n FROM turns WHERE relay = ? AND at > ? ORDER BY at DESC`, []any{relay, since.UnixMicro()},
			func(rows *sql.Rows) error {
				var at sql.NullInt64
				var n int
				if err := rows.Scan(&at, &n); err != nil {
					return err
				}
				n = min(n, limit-len(turns))
				if n <= 0 {
					return errEnough
				}
				turns = append(turns, slices.Repeat([]time.Time{fromMicros(at)}, n)...)
				return nil
			})
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	slices.Reverse(turns)
	return turns, nil
}

// oldTurns steps from one relay to the next, and finds its turns from the oldest on.
const oldTurns = `WITH RECURSIVE relays (relay) AS (
		SELECT min(relay) FROM turns
		UNION ALL
		SELECT (SELECT min(relay) FROM turns WHERE relay > relays.relay) FROM relays WHERE relays.relay IS NOT NULL)
	SELECT turns.relay, at FROM relays CROSS JOIN turns WHERE turns.relay = relays.relay AND at <= ? LIMIT ?`

// sweepTurns removes turns of relays that nothing sets out for any more.
func (w *writer) sweepTurns(now time.Time, limit int) (int, error) {
	n, err := w.affect(`DELETE FROM turns WHERE (relay, at) IN (`+oldTurns+`)`, now.Add(-queue.LongestWindow).UnixMicro(), limit)
	return int(n), err
}
