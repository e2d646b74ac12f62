package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// Retry makes what did not go out due again.
func (s *Store) Retry(ctx context.Context, key string, ids []string, now time.Time) ([]string, error) {
	var changed []string
	err := s.write(ctx, func(w *writer) error {
		changed = nil
		for _, id := range ids {
			did, err := w.retry(key, id, now)
			if err != nil {
				return err
			}
			if did {
				changed = append(changed, id)
			}
		}
		return nil
	})
	return changed, err
}

func (w *writer) retry(key, id string, now time.Time) (bool, error) {
	raw, ok := blob(id)
	if !ok {
		return false, nil
	}
	if has, err := w.has(key, raw, " AND body IS NOT NULL"); err != nil || !has {
		return false, err
	}
	n, err := w.affect(`UPDATE recipients SET state = 'deferred', due = ?1, tries = 0, cancel = 0,
			route = CASE WHEN state = 'deferred' OR substr(route, 1, 1) <> '=' THEN route ELSE '' END,
			lane = (SELECT (1 - priority) || key FROM messages WHERE id = ?2)
		WHERE message = ?2 AND owner IS NULL AND state IN ('deferred', 'held', 'bounced', 'expired')`, now.UnixMicro(), raw)
	if err != nil || n == 0 {
		return false, err
	}
	// The first retry notes the lifetime, which expires then no longer tells.
	err = w.exec(`UPDATE messages SET lifetime = coalesce(lifetime, expires - max(created, coalesce(send_at, created))) WHERE id = ?`, raw)
	if err != nil {
		return false, err
	}
	err = w.exec(`UPDATE messages SET expires = max(expires, ? + lifetime), crashes = 0 WHERE id = ?`, now.UnixMicro(), raw)
	if err != nil {
		return false, err
	}
	_, err = w.settle(raw, now)
	return err == nil, err
}

// has says whether the key has the message.
func (w *writer) has(key string, id []byte, and string) (bool, error) {
	var one int
	err := w.row(`SELECT 1 FROM messages WHERE id = ?1 AND (?2 = '*' OR key = ?2)`+and, []any{id, key}, &one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Cancel ends what is not final.
func (s *Store) Cancel(ctx context.Context, key, owner string, messages []queue.Withdrawal, now time.Time) ([]queue.Ended, error) {
	var canceled []queue.Ended
	err := s.write(ctx, func(w *writer) error {
		canceled = nil
		for _, m := range messages {
			e, did, err := w.cancel(key, owner, m, now)
			if err != nil {
				return err
			}
			if did {
				canceled = append(canceled, e)
			}
		}
		return nil
	})
	return canceled, err
}

func (w *writer) cancel(key, owner string, m queue.Withdrawal, now time.Time) (e queue.Ended, did bool, err error) {
	raw, ok := blob(m.ID)
	if !ok {
		return e, false, nil
	}
	e.ID = m.ID
	err = w.row(`SELECT reverse_path FROM messages WHERE id = ?1 AND final = 0 AND (?2 = '*' OR key = ?2)`, []any{raw, key}, &e.ReversePath)
	if errors.Is(err, sql.ErrNoRows) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	withdrawn, err := toJSON(m.ForwardPaths)
	if err != nil {
		return e, false, err
	}
	err = w.each(`UPDATE recipients SET state = 'canceled', due = NULL, owner = NULL, marked = 0
		WHERE message = ? AND (owner IS NULL OR owner = ? AND forward_path IN (SELECT value FROM json_each(?)))
		AND state IN ('queued', 'deferred', 'held') RETURNING forward_path`, []any{raw, owner, withdrawn},
		func(rows *sql.Rows) error {
			var path string
			err := rows.Scan(&path)
			e.ForwardPaths = append(e.ForwardPaths, path)
			return err
		})
	if err != nil {
		return e, false, err
	}
	wished, err := w.affect(`UPDATE recipients SET cancel = 1 WHERE message = ? AND owner IS NOT NULL`, raw)
	if err != nil {
		return e, false, err
	}
	settled, err := w.settle(raw, now)
	e.Size, e.Final = settled.size, settled.final
	return e, len(e.ForwardPaths)+int(wished) > 0, err
}

// Reschedule changes when a scheduled message is due.
func (s *Store) Reschedule(ctx context.Context, key, id string, sendAt time.Time, content *mailer.Content, now time.Time) (bool, error) {
	raw, ok := blob(id)
	if !ok {
		return false, queue.ErrNotFound
	}
	var scheduled bool
	run := func(w *writer, hand handOver) error {
		scheduled = false
		if has, err := w.has(key, raw, ""); err != nil {
			return err
		} else if !has {
			return queue.ErrNotFound
		}
		var err error
		if scheduled, err = w.reschedule(raw, sendAt, now); err == nil && scheduled && content != nil {
			err = w.replaceContent(raw, *content, hand)
		}
		return err
	}
	var err error
	if content != nil && len(content.Data) > largeSize { // in steps, or one
		err = s.staged(ctx, []mailer.Content{*content}, false, run)
	} else {
		err = s.write(ctx, func(w *writer) error { return run(w, w.insertContent) })
	}
	return scheduled, err
}

func (w *writer) reschedule(id []byte, sendAt, now time.Time) (bool, error) {
	due := max(sendAt.UnixMicro(), now.UnixMicro())
	n, err := w.affect(`UPDATE messages SET send_at = ?1,
			expires = ?1 + expires - max(created, send_at), clock = ?1 + expires - max(created, send_at)
		WHERE id = ?2 AND send_at > ?3 AND NOT EXISTS
			(SELECT 1 FROM recipients WHERE message = ?2 AND (state <> 'queued' OR attempts > 0 OR owner IS NOT NULL))`,
		due, id, now.UnixMicro())
	if err != nil || n == 0 {
		return false, err
	}
	return true, w.exec(`UPDATE recipients SET due = ? WHERE message = ?`, due, id)
}

// replaceContent gives a message that is not final other bytes.
func (w *writer) replaceContent(id []byte, c mailer.Content, hand handOver) error {
	var size int64
	if err := w.row(`SELECT size FROM messages WHERE id = ?`, []any{id}, &size); err != nil {
		return err
	}
	if err := w.deleteContent(id); err != nil {
		return err
	}
	body, err := hand(c)
	if err != nil {
		return err
	}
	w.add(-1, size)
	w.add(1, int64(len(c.Data)))
	return w.exec(`UPDATE messages SET body = ?, chunks = ?, size = ?, eight_bit = ?, utf8_header = ? WHERE id = ?`,
		body.first, body.count, len(c.Data), c.EightBit, c.UTF8Header, id)
}

// Sweep removes what retention no longer covers, and gives room back to the file
// system.
func (s *Store) Sweep(ctx context.Context, now time.Time, limit int) (int, error) {
	for _, step := range []func(*writer, time.Time, int) (int, error){
		(*writer).sweepMessages, (*writer).sweepContents, (*writer).sweepIdempotency, (*writer).sweepTurns, (*writer).sweepNumbers, (*writer).sweepLoose, (*writer).vacuum,
	} {
		var n int
		err := s.write(ctx, func(w *writer) (err error) {
			n, err = step(w, now, limit)
			return err
		})
		if err != nil || n > 0 {
			return n, err
		}
	}
	return 0, nil
}

func (w *writer) sweepMessages(now time.Time, limit int) (int, error) {
	ids, err := w.ids(`SELECT id FROM messages WHERE final = 1 AND clock < ? ORDER BY clock LIMIT ?`,
		now.Add(-w.store.opts.Retention).UnixMicro(), limit)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := w.deleteContent(id); err != nil {
			return 0, err
		}
		gone := tally.Change{ID: string(id)}
		if err := w.row(`SELECT key, status FROM messages WHERE id = ?`, []any{id}, &gone.Key, &gone.From); err != nil {
			return 0, err
		}
		w.count(gone)
		for _, query := range []string{
			`DELETE FROM attempts WHERE message = ?`,
			`DELETE FROM recipients WHERE message = ?`,
			`DELETE FROM messages WHERE id = ?`,
		} {
			if err := w.exec(query, id); err != nil {
				return 0, err
			}
		}
	}
	return len(ids), nil
}

func (w *writer) sweepContents(now time.Time, limit int) (int, error) {
	ids, err := w.ids(`SELECT id FROM messages WHERE bytes_until <= ? LIMIT ?`, now.UnixMicro(), limit)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := w.deleteContent(id); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

func (w *writer) sweepIdempotency(now time.Time, limit int) (int, error) {
	n, err := w.affect(`DELETE FROM idempotency WHERE (key, name) IN
		(SELECT key, name FROM idempotency WHERE expires <= ? LIMIT ?)`, now.UnixMicro(), limit)
	return int(n), err
}

// The free pages that the file keeps for messages to come, and how many go back
// to the file system in one step.
const (
	keptPages   = 4096 // 16 MiB
	vacuumPages = 256
)

// vacuum shortens the file by some of its free pages.
func (w *writer) vacuum(_ time.Time, _ int) (int, error) {
	var free int
	if err := w.row(`SELECT freelist_count FROM pragma_freelist_count`, nil, &free); err != nil {
		return 0, err
	}
	n := min(free-keptPages, vacuumPages)
	if n <= 0 {
		return 0, nil
	}
	// The pragma frees a page with each row that is read from it.
	return n, w.each(`PRAGMA incremental_vacuum(256)`, nil, func(*sql.Rows) error { return nil })
}
