package postgres

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// Retry makes what did not go out due again.
func (s *Store) Retry(ctx context.Context, of string, ids []string, now time.Time) ([]string, error) {
	return write(ctx, s, func(t *tx) (changed []string, err error) {
		l, err := t.load(parseIDs(ids), false)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if m := l.message(of, id); m != nil && l.retry(m, now) {
				changed = append(changed, id)
			}
		}
		return changed, l.save()
	})
}

func (l *loaded) retry(m *message, now time.Time) bool {
	retried := false
	for _, r := range m.recipients {
		if !m.hasContent || r.owner != nil || r.state == queue.Queued || r.state == queue.Delivered || r.state == queue.Canceled {
			continue
		}
		if r.state != queue.Deferred && queue.TakenBy(r.route) != "" {
			r.route = queue.Unfiled
		}
		r.state, r.due, r.tries, r.cancel, r.changed = queue.Deferred, stamp(now), 0, false, true
		retried = true
	}
	if !retried {
		return false
	}
	m.crashes, m.changed = 0, true
	if m.lifetime == nil { // the first retry notes it: expires then no longer tells
		lifetime := m.expires.Time.Sub(m.begins()).Microseconds()
		m.lifetime = &lifetime
	}
	if again := now.Add(time.Duration(*m.lifetime) * time.Microsecond); again.After(m.expires.Time) {
		m.expires = stamp(again)
	}
	l.settle(m, now)
	return true
}

// begins is when the message's lifetime begins.
func (m *message) begins() time.Time {
	if m.sendAt.Valid && m.sendAt.Time.After(m.created.Time) {
		return m.sendAt.Time
	}
	return m.created.Time
}

// Cancel ends what is not final.
func (s *Store) Cancel(ctx context.Context, of, owner string, messages []queue.Withdrawal, now time.Time) ([]queue.Ended, error) {
	return write(ctx, s, func(t *tx) (canceled []queue.Ended, err error) {
		var ids []string
		for _, w := range messages {
			ids = append(ids, w.ID)
		}
		l, err := t.load(parseIDs(ids), false)
		if err != nil {
			return nil, err
		}
		for _, w := range messages {
			if m := l.message(of, w.ID); m != nil && !m.final {
				canceled = append(canceled, l.cancel(m, owner, w.ForwardPaths, now))
			}
		}
		return canceled, l.save()
	})
}

func (l *loaded) cancel(m *message, owner string, withdrawn []string, now time.Time) queue.Ended {
	e := queue.Ended{ID: textOf(m.id), Size: m.size, ReversePath: m.reversePath}
	for _, r := range m.recipients {
		switch {
		case r.state.Final():
		case r.owner == nil || r.ownedBy(owner) && slices.Contains(withdrawn, r.path):
			r.end(queue.Canceled)
			e.ForwardPaths = append(e.ForwardPaths, r.path)
		default: // its owner may be marking it: nothing else of it is written
			r.cancel, r.canceled = true, true
		}
	}
	e.Final = l.settle(m, now)
	return e
}

// Reschedule changes when a scheduled message is due.
func (s *Store) Reschedule(ctx context.Context, of, id string, sendAt time.Time, content *mailer.Content, now time.Time) (bool, error) {
	return write(ctx, s, func(t *tx) (bool, error) {
		l, err := t.load(parseIDs([]string{id}), false)
		if err != nil {
			return false, err
		}
		m := l.message(of, id)
		if m == nil {
			return false, queue.ErrNotFound
		}
		tried := slices.ContainsFunc(m.recipients, func(r *recipient) bool { return r.state != queue.Queued || r.attempts > 0 || r.owner != nil })
		if tried || !m.sendAt.Valid || !m.sendAt.Time.After(now) {
			return false, nil
		}
		if sendAt.Before(now) {
			sendAt = now
		}
		m.expires = stamp(sendAt.Add(m.expires.Time.Sub(m.begins())))
		m.clock, m.changed = m.expires, true
		for _, r := range m.recipients {
			r.due, r.changed = stamp(sendAt), true
		}
		t.exec(`UPDATE {s}.messages SET send_at = $2 WHERE id = $1`, m.id, stamp(sendAt))
		if content != nil {
			t.replaceContent(m.id, *content)
			l.usage.Bytes += int64(len(content.Data)) - m.size
		}
		return true, l.save()
	})
}

// replaceContent gives a message that is not final other bytes.
func (t *tx) replaceContent(id key, c mailer.Content) {
	t.exec(`UPDATE {s}.messages SET size = $2, eight_bit = $3, utf8_header = $4 WHERE id = $1`, id, len(c.Data), c.EightBit, c.UTF8Header)
	t.exec(`DELETE FROM {s}.contents WHERE message = $1`, id)
	t.insertContent(id, 0, c.Data)
}

// Sweep removes what retention no longer covers. One instance does so at a time; another one
// finds nothing meanwhile.
func (s *Store) Sweep(ctx context.Context, now time.Time, limit int) (int, error) {
	for _, step := range []func(*tx, time.Time, int) (int, error){
		(*tx).sweepMessages, (*tx).sweepContents, (*tx).sweepIdempotency, (*tx).sweepTurns, (*tx).sweepNumbers, (*tx).sweepNotes,
	} {
		n, err := write(ctx, s, func(t *tx) (int, error) {
			if alone, err := t.alone(sweepLock); err != nil || !alone {
				return 0, err
			}
			return step(t, now, limit)
		})
		if err != nil || n > 0 {
			return n, err
		}
	}
	return 0, nil
}

func (t *tx) sweepMessages(now time.Time, limit int) (int, error) {
	var ids []key
	count := tally.New()
	t.each(`SELECT id, key, status FROM {s}.messages WHERE final AND clock < $1 ORDER BY clock LIMIT $2 FOR UPDATE SKIP LOCKED`,
		[]any{stamp(now.Add(-t.opts.Retention)), limit}, func(rows pgx.Rows) error {
			var id key
			var c tally.Change
			err := rows.Scan(&id, &c.Key, &c.From)
			ids = append(ids, id)
			count.Apply(c)
			return err
		})
	if err := t.send(); err != nil || len(ids) == 0 {
		return 0, err
	}
	for _, query := range []string{
		`DELETE FROM {s}.contents WHERE message = ANY ($1)`, `DELETE FROM {s}.attempts WHERE message = ANY ($1)`,
		`DELETE FROM {s}.recipients WHERE message = ANY ($1)`, `DELETE FROM {s}.messages WHERE id = ANY ($1)`,
	} {
		t.exec(query, ids)
	}
	return len(ids), t.saveNumbers(count, queue.Usage{})
}

func (t *tx) sweepContents(now time.Time, limit int) (int, error) {
	ids, err := t.ids(`SELECT id FROM {s}.messages WHERE content_until <= $1 LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED`, stamp(now), limit)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	t.exec(`DELETE FROM {s}.contents WHERE message = ANY ($1)`, ids)
	t.exec(`UPDATE {s}.messages SET has_content = false, content_until = NULL WHERE id = ANY ($1)`, ids)
	return len(ids), nil
}

func (t *tx) sweepIdempotency(now time.Time, limit int) (n int, err error) {
	t.count(&n, `DELETE FROM {s}.idempotency WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM {s}.idempotency WHERE expires <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, stamp(now), limit)
	return n, t.send()
}

// saveTurns adds turns, and removes those of their relays that count no more.
func (t *tx) saveTurns(turns []turnCount) {
	if len(turns) == 0 {
		return
	}
	// Two transactions lock them in the same order. One statement adds to a row once.
	turns = slices.Clone(turns)
	slices.SortFunc(turns, turnCount.compare)
	var relays []string
	var times []pgtype.Timestamptz
	var counts []int
	old := map[string]time.Time{}
	for _, turn := range turns {
		if at := turn.At.Add(-turn.Window); at.After(old[turn.Relay]) {
			old[turn.Relay] = at
		}
		at, last := stamp(turn.At), len(counts)-1
		if last >= 0 && relays[last] == turn.Relay && times[last] == at {
			counts[last] += turn.n
			continue
		}
		relays, times, counts = append(relays, turn.Relay), append(times, at), append(counts, turn.n)
	}
	for _, relay := range slices.Sorted(maps.Keys(old)) {
		t.exec(`DELETE FROM {s}.turns WHERE ctid = ANY (ARRAY(SELECT ctid FROM {s}.turns WHERE relay = $1 AND at <= $2 LIMIT 1000 FOR UPDATE SKIP LOCKED))`,
			relay, stamp(old[relay]))
	}
	t.exec(`INSERT INTO {s}.turns AS u (relay, at, n) SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::int[])
		ON CONFLICT (relay, at) DO UPDATE SET n = u.n + excluded.n`, relays, times, counts)
}

func (t *tx) sweepTurns(now time.Time, limit int) (n int, err error) {
	t.count(&n, `DELETE FROM {s}.turns WHERE ctid = ANY (ARRAY(SELECT ctid FROM {s}.turns WHERE at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`,
		stamp(now.Add(-queue.LongestWindow)), limit)
	return n, t.send()
}
