package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
)

const (
	showMessages = `SELECT id, key, message_id, sender, subject, size, tags::text, reverse_path, created, send_at, expires, priority, resent_of, resent_as
		FROM {s}.messages WHERE id = ANY ($1) ORDER BY id DESC`
	showRecipients = `SELECT message, forward_path, state, due, result::text, coalesce(mark_route, route) FROM {s}.recipients WHERE message = ANY ($1) ORDER BY message, n`
)

// show adds the queries for messages with their recipients, the newest first.
func (t *tx) show(ids []key, messages *[]queue.Message) {
	place := map[key]int{}
	t.each(showMessages, []any{ids}, func(rows pgx.Rows) error {
		var m queue.Message
		var id key
		var tags *string
		var created, sendAt, expires pgtype.Timestamptz
		var resentOf *key
		var resentAs []key
		err := rows.Scan(&id, &m.Key, &m.MessageID, &m.Sender, &m.Subject, &m.Size, &tags, &m.Envelope.ReversePath, &created, &sendAt, &expires,
			&m.Envelope.Priority, &resentOf, &resentAs)
		if err == nil {
			err = fromJSON(tags, &m.Tags)
		}
		m.ID, m.Created, m.SendAt, m.Expires = textOf(id), timeOf(created), timeOf(sendAt), timeOf(expires)
		if resentOf != nil {
			m.ResentOf = textOf(*resentOf)
		}
		for _, again := range resentAs {
			m.ResentAs = append(m.ResentAs, textOf(again))
		}
		place[id] = len(*messages)
		*messages = append(*messages, m)
		return err
	})
	t.each(showRecipients, []any{ids}, func(rows pgx.Rows) error {
		var id key
		var r queue.Recipient
		var due pgtype.Timestamptz
		var packed *string
		var route string
		if err := rows.Scan(&id, &r.ForwardPath, &r.State, &due, &packed, &route); err != nil {
			return err
		}
		var result stored.Result
		if err := fromJSON(packed, &result); err != nil {
			return err
		}
		r.NextAttempt = timeOf(due)
		r.SetTaken(route)
		if packed != nil {
			r.Result = result.Unpack()
			r.Result.ForwardPath = r.ForwardPath
		}
		if i, ok := place[id]; ok {
			m := &(*messages)[i]
			m.Recipients = append(m.Recipients, r)
			m.Envelope.ForwardPaths = append(m.Envelope.ForwardPaths, r.ForwardPath)
		}
		return nil
	})
}

// Get returns a message with its recipients and attempts.
func (s *Store) Get(ctx context.Context, of, id string) (queue.Message, error) {
	raw, ok := parseID(id)
	if !ok {
		return queue.Message{}, queue.ErrNotFound
	}
	return view(ctx, s, readTime, func(t *tx) (m queue.Message, err error) {
		var found []queue.Message
		var latest []mailer.Attempt
		var earlier int
		t.show([]key{raw}, &found)
		t.attempts(raw, &latest, &earlier)
		var kept queue.Kept
		t.kept(raw, &kept)
		if err := t.finish(); err != nil {
			return m, err
		}
		if len(found) == 0 || of != queue.AnyKey && of != found[0].Key {
			return m, queue.ErrNotFound
		}
		m = found[0]
		slices.Reverse(latest)
		m.Attempts, m.EarlierAttempts, m.Kept = latest, earlier, kept
		return m, nil
	})
}

// kept adds the query for how long the content of a message is kept.
func (t *tx) kept(id key, k *queue.Kept) {
	t.each(`SELECT NOT has_content, final, clock, content_until FROM {s}.messages WHERE id = $1`, []any{id}, func(rows pgx.Rows) error {
		var final bool
		var clock, until pgtype.Timestamptz
		if err := rows.Scan(&k.Gone, &final, &clock, &until); err != nil || k.Gone || !final {
			return err
		}
		k.Until = timeOf(clock).Add(t.opts.Retention)
		if at := timeOf(until); until.Valid && at.Before(k.Until) {
			k.Until = at
		}
		return nil
	})
}

// attempts adds the query for the last attempts, as [queue.LatestAttempts] returns them of
// all: from the last one back, up to so many results.
func (t *tx) attempts(id key, latest *[]mailer.Attempt, earlier *int) {
	t.each(`SELECT relay, why, port, mode, tls, auth, ladder::text, started, duration, results::text, n FROM (
			SELECT *, sum(jsonb_array_length(results)) OVER (ORDER BY n DESC) AS sum, row_number() OVER (ORDER BY n DESC) AS back
			FROM {s}.attempts WHERE message = $1) AS a
		WHERE sum <= $2 OR back = 1 ORDER BY n DESC`, []any{id, queue.MaxResults}, func(rows pgx.Rows) error {
		var a mailer.Attempt
		var port, n int
		var mode string
		var ladder, results *string
		var begun pgtype.Timestamptz
		var duration int64
		if err := rows.Scan(&a.Relay, &a.Why, &port, &mode, &a.TLS, &a.Auth, &ladder, &begun, &duration, &results, &n); err != nil {
			return err
		}
		var rungs []stored.Rung
		var packed []stored.Result
		if err := fromJSON(ladder, &rungs); err != nil {
			return err
		}
		if err := fromJSON(results, &packed); err != nil {
			return err
		}
		a.Rung, a.Ladder = stored.RungOf(port, mode), stored.UnpackLadder(rungs)
		a.Started, a.Duration = timeOf(begun), time.Duration(duration)*time.Microsecond
		for _, r := range packed {
			a.Results = append(a.Results, r.Unpack())
		}
		*latest, *earlier = append(*latest, a), n-1 // they are numbered from one on
		return nil
	})
}

// contentStep is how many rows one statement reads: about 2 MiB.
const contentStep = 280

// Content returns the message's bytes.
func (s *Store) Content(ctx context.Context, of, id string) (mailer.Content, error) {
	raw, ok := parseID(id)
	if !ok {
		return mailer.Content{}, queue.ErrNotFound
	}
	return view(ctx, s, readTime, func(t *tx) (c mailer.Content, err error) {
		var owner string
		var size int64
		found, has := false, false
		t.each(`SELECT key, message_id, size, eight_bit, utf8_header, has_content FROM {s}.messages WHERE id = $1`, []any{raw}, func(rows pgx.Rows) error {
			found = true
			return rows.Scan(&owner, &c.MessageID, &size, &c.EightBit, &c.UTF8Header, &has)
		})
		next, more := 0, true
		for first := true; more; first = false {
			rowsRead := 0
			t.each(`SELECT data FROM {s}.contents WHERE message = $1 AND n >= $2 ORDER BY n LIMIT $3`, []any{raw, next, contentStep}, func(rows pgx.Rows) error {
				if c.Data == nil {
					c.Data = make([]byte, 0, size)
				}
				var chunk pgtype.DriverBytes
				err := rows.Scan(&chunk)
				c.Data = append(c.Data, chunk...)
				rowsRead++
				return err
			})
			if err := t.send(); err != nil {
				return mailer.Content{}, err
			}
			if first && (!found || of != queue.AnyKey && of != owner) {
				return mailer.Content{}, queue.ErrNotFound
			}
			next += rowsRead
			more = rowsRead == contentStep
		}
		switch {
		case !has:
			return mailer.Content{}, queue.ErrContentGone
		case int64(len(c.Data)) != size:
			return mailer.Content{}, queue.ErrCorrupt
		}
		return c, nil
	})
}
