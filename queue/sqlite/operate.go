package sqlite

import (
	"context"
	"database/sql"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/stored"
)

// ManualPauses reads a table that has as many rows as there are paused relays.
func (s *Store) ManualPauses(ctx context.Context) ([]queue.ManualPause, error) {
	var pauses []queue.ManualPause
	err := s.view(ctx, func(v *session) error {
		pauses = nil
		return v.each(`SELECT relay, since, ends, reason FROM pauses ORDER BY since, relay`, nil, func(rows *sql.Rows) error {
			var p queue.ManualPause
			var since, ends sql.NullInt64
			if err := rows.Scan(&p.Relay, &since, &ends, &p.Reason); err != nil {
				return err
			}
			p.Since, p.Until = fromMicros(since), fromMicros(ends)
			pauses = append(pauses, p)
			return nil
		})
	})
	return pauses, err
}

// SetManualPauses writes all of the table anew, or the rows of some relays.
func (s *Store) SetManualPauses(ctx context.Context, pauses []queue.ManualPause, of ...string) error {
	return s.write(ctx, func(w *writer) error { return w.setManualPauses(pauses, of...) })
}

func (w *writer) setManualPauses(pauses []queue.ManualPause, of ...string) error {
	if len(of) == 0 {
		if err := w.exec(`DELETE FROM pauses`); err != nil {
			return err
		}
	}
	for _, relay := range of {
		if err := w.exec(`DELETE FROM pauses WHERE relay = ?`, relay); err != nil {
			return err
		}
	}
	for _, p := range pauses {
		if err := w.exec(`INSERT INTO pauses (relay, since, ends, reason) VALUES (?, ?, ?, ?)`, p.Relay, p.Since.UnixMicro(), micros(p.Until), p.Reason); err != nil {
			return err
		}
	}
	return nil
}

// Backlog counts lane by lane along the index of what waits.
func (s *Store) Backlog(ctx context.Context, now time.Time) (b queue.Backlog, err error) {
	err = s.view(ctx, func(v *session) error {
		b = queue.Backlog{}
		if err := v.row(`SELECT count(*) FROM recipients INDEXED BY recipients_leased WHERE owner IS NOT NULL`, nil, &b.Due); err != nil {
			return err
		}
		heads, err := readLaneHeads(v)
		if err != nil {
			return err
		}
		for _, head := range heads {
			if err := v.countLane(head, now, &b); err != nil {
				return err
			}
		}
		return v.row(countHeld, nil, &b.Held)
	})
	return b, err
}

const (
	countDue = `SELECT count(*) FROM recipients INDEXED BY recipients_due
		WHERE route = ? AND lane = ? AND due <= ? AND due IS NOT NULL AND owner IS NULL`
	countLater = `SELECT count(*), min(due) FROM recipients INDEXED BY recipients_due
		WHERE route = ? AND lane = ? AND due > ? AND due IS NOT NULL AND owner IS NULL`
)

// countLane adds what waits in one lane.
func (s *session) countLane(head queue.LaneDue, now time.Time, b *queue.Backlog) error {
	of := []any{head.Route, stored.LaneText(head.Lane), now.UnixMicro()}
	var due, later int64
	var next sql.NullInt64
	if err := s.row(countDue, of, &due); err != nil {
		return err
	}
	if err := s.row(countLater, of, &later, &next); err != nil {
		return err
	}
	b.Due, b.Later = b.Due+due, b.Later+later
	if at := fromMicros(next); later > 0 && (b.Next.IsZero() || at.Before(b.Next)) {
		b.Next = at
	}
	return nil
}

// countHeld counts the messages that wait for a person, in each key's part of the index.
const countHeld = `WITH RECURSIVE keys (key) AS (
		SELECT min(key) FROM messages
		UNION ALL
		SELECT (SELECT min(key) FROM messages WHERE messages.key > keys.key) FROM keys WHERE keys.key IS NOT NULL)
	SELECT count(*) FROM keys CROSS JOIN messages INDEXED BY messages_list WHERE messages.key = keys.key AND status = 'held'`
