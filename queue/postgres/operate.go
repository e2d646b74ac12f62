package postgres

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/queue"
)

// turnCount is so many turns at a time.
type turnCount struct {
	queue.Turn
	n int
}

func (c turnCount) compare(d turnCount) int {
	return cmp.Or(strings.Compare(c.Relay, d.Relay), c.At.Compare(d.At))
}

// Turns reads as many turns as are wanted, whatever else there is.
func (s *Store) Turns(ctx context.Context, relay string, since time.Time, limit int) ([]time.Time, error) {
	return view(ctx, s, readTime, func(t *tx) (turns []time.Time, err error) {
		t.each(`SELECT at, n FROM {s}.turns WHERE relay = $1 AND at > $2 ORDER BY at DESC LIMIT $3`, []any{relay, stamp(since), limit}, func(rows pgx.Rows) error {
			var at pgtype.Timestamptz
			var n int
			err := rows.Scan(&at, &n)
			turns = append(turns, slices.Repeat([]time.Time{timeOf(at)}, min(n, limit-len(turns)))...)
			return err
		})
		err = t.finish()
		slices.Reverse(turns)
		return turns, err
	})
}

// ManualPauses reads a table that has as many rows as there are paused relays.
func (s *Store) ManualPauses(ctx context.Context) ([]queue.ManualPause, error) {
	return view(ctx, s, readTime, func(t *tx) (pauses []queue.ManualPause, err error) {
		t.each(`SELECT relay, since, ends, reason FROM {s}.pauses ORDER BY since, relay`, nil, func(rows pgx.Rows) error {
			var p queue.ManualPause
			var since, ends pgtype.Timestamptz
			err := rows.Scan(&p.Relay, &since, &ends, &p.Reason)
			p.Since, p.Until = timeOf(since), timeOf(ends)
			pauses = append(pauses, p)
			return err
		})
		return pauses, t.finish()
	})
}

// SetManualPauses writes all of the table anew, or the rows of some relays.
func (s *Store) SetManualPauses(ctx context.Context, pauses []queue.ManualPause, of ...string) error {
	_, err := write(ctx, s, func(t *tx) (none struct{}, err error) {
		t.exec(`LOCK TABLE {s}.pauses IN SHARE ROW EXCLUSIVE MODE`)
		if len(of) == 0 {
			t.exec(`DELETE FROM {s}.pauses`)
		} else {
			t.exec(`DELETE FROM {s}.pauses WHERE relay = ANY ($1)`, of)
		}
		for _, p := range pauses {
			t.exec(`INSERT INTO {s}.pauses (relay, since, ends, reason) VALUES ($1, $2, $3, $4)`, p.Relay, stamp(p.Since), stamp(p.Until), clean(p.Reason))
		}
		return none, nil
	})
	return err
}

// Backlog counts lane by lane along the index of what waits.
func (s *Store) Backlog(ctx context.Context, now time.Time) (queue.Backlog, error) {
	return view(ctx, s, readTime, func(t *tx) (b queue.Backlog, err error) {
		var leased int64
		var next pgtype.Timestamptz
		t.row(`SELECT count(*) FROM {s}.recipients WHERE owner IS NOT NULL`, nil, &leased)
		t.row(`SELECT count(*) FILTER (WHERE due <= $1), count(*) FILTER (WHERE due > $1), min(due) FILTER (WHERE due > $1)
			FROM {s}.recipients WHERE due IS NOT NULL AND owner IS NULL`, []any{stamp(now)}, &b.Due, &b.Later, &next)
		t.row(`SELECT count(*) FROM {s}.messages WHERE NOT final AND status = 'held'`, nil, &b.Held)
		err = t.finish()
		b.Due += leased
		b.Next = timeOf(next)
		return b, err
	})
}

// Usage adds up what commits have added since that was added up last. The first time it counts.
func (s *Store) Usage(ctx context.Context) (queue.Usage, error) {
	if !s.counted.Load() {
		counted, err := write(ctx, s, (*tx).countUnfinished)
		if err != nil {
			return queue.Usage{}, err
		}
		s.counted.Store(counted)
	}
	return view(ctx, s, readTime, func(t *tx) (u queue.Usage, err error) {
		t.row(`SELECT messages, octets FROM {s}.unfinished`, nil, &u.Messages, &u.Bytes)
		var added queue.Usage
		t.each(`SELECT kind, delta FROM {s}.stats_deltas`, nil, scanDelta(nil, &added))
		err = t.finish()
		u.Messages, u.Bytes = u.Messages+added.Messages, u.Bytes+added.Bytes
		return u, err
	})
}
