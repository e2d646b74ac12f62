package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
)

// Get returns a message with its recipients and attempts.
func (s *Store) Get(ctx context.Context, key, id string) (queue.Message, error) {
	raw, ok := blob(id)
	if !ok {
		return queue.Message{}, queue.ErrNotFound
	}
	var m queue.Message
	err := s.view(ctx, func(v *session) error {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		v = v.unwatched()
		var err error
		if m, err = readMessage(v, raw); err != nil {
			return err
		}
		if key != queue.AnyKey && key != m.Key {
			return queue.ErrNotFound
		}
		if m.Kept, err = readKept(v, raw, s.opts.Retention); err != nil {
			return err
		}
		m.Attempts, m.EarlierAttempts, err = readAttempts(v, raw)
		return err
	})
	if err != nil {
		return queue.Message{}, err
	}
	return m, nil
}

// readKept returns how long the content of a message is kept.
func readKept(v *session, id []byte, retention time.Duration) (k queue.Kept, err error) {
	var final bool
	var clock, until sql.NullInt64
	err = v.row(`SELECT body IS NULL, final, clock, bytes_until FROM messages WHERE id = ?`, []any{id}, &k.Gone, &final, &clock, &until)
	if err != nil || k.Gone || !final {
		return k, err
	}
	k.Until = fromMicros(clock).Add(retention)
	if at := fromMicros(until); until.Valid && at.Before(k.Until) {
		k.Until = at
	}
	return k, nil
}

// readMessage returns a message with its recipients.
func readMessage(v *session, id []byte) (queue.Message, error) {
	var m queue.Message
	var tags, resentOf, resentAs sql.NullString
	var created, sendAt, expires sql.NullInt64
	err := v.row(`SELECT key, message_id, sender, subject, size, tags, reverse_path, created, send_at, expires, priority,
			resent_of, resent_as
		FROM messages WHERE id = ?`, []any{id},
		&m.Key, &m.MessageID, &m.Sender, &m.Subject, &m.Size, &tags, &m.Envelope.ReversePath, &created, &sendAt, &expires,
		&m.Envelope.Priority, &resentOf, &resentAs)
	if errors.Is(err, sql.ErrNoRows) {
		return m, queue.ErrNotFound
	}
	if err != nil {
		return m, err
	}
	if m.ID, err = fromBlob(id); err != nil {
		return m, err
	}
	m.ResentOf = resentOf.String
	if err := errors.Join(fromJSON(tags, &m.Tags), fromJSON(resentAs, &m.ResentAs)); err != nil {
		return m, err
	}
	m.Created, m.SendAt, m.Expires = fromMicros(created), fromMicros(sendAt), fromMicros(expires)
	m.Recipients, err = readRecipients(v, id)
	for _, r := range m.Recipients {
		m.Envelope.ForwardPaths = append(m.Envelope.ForwardPaths, r.ForwardPath)
	}
	return m, err
}

func readRecipients(v *session, id []byte) ([]queue.Recipient, error) {
	const query = `SELECT forward_path, state, due, result, route FROM recipients WHERE message = ? ORDER BY n`
	var recipients []queue.Recipient
	err := v.each(query, []any{id}, func(rows *sql.Rows) error {
		var r queue.Recipient
		var due sql.NullInt64
		var packed sql.NullString
		var route string
		if err := rows.Scan(&r.ForwardPath, &r.State, &due, &packed, &route); err != nil {
			return err
		}
		var result stored.Result
		if err := fromJSON(packed, &result); err != nil {
			return err
		}
		r.NextAttempt = fromMicros(due)
		r.SetTaken(route)
		if packed.Valid {
			r.Result = result.Unpack()
			r.Result.ForwardPath = r.ForwardPath
		}
		recipients = append(recipients, r)
		return nil
	})
	return recipients, err
}

// readAttempts returns the last attempts, as [queue.LatestAttempts] does of all.
func readAttempts(v *session, id []byte) (latest []mailer.Attempt, earlier int, err error) {
	results := 0
	err = v.each(`SELECT relay, why, port, mode, tls, auth, ladder, started, duration, results, n
			FROM attempts WHERE message = ? ORDER BY n DESC`, []any{id}, func(rows *sql.Rows) error {
		a, n, err := scanAttempt(rows)
		if err != nil {
			return err
		}
		if results += len(a.Results); results > queue.MaxResults && len(latest) > 0 {
			earlier = n // they are numbered from one on
			return errEnough
		}
		latest = append(latest, a)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	slices.Reverse(latest)
	return latest, earlier, err
}

func scanAttempt(rows *sql.Rows) (a mailer.Attempt, n int, err error) {
	var port int
	var mode string
	var ladder, results sql.NullString
	var started sql.NullInt64
	var duration int64
	if err := rows.Scan(&a.Relay, &a.Why, &port, &mode, &a.TLS, &a.Auth, &ladder, &started, &duration, &results, &n); err != nil {
		return a, 0, err
	}
	var rungs []stored.Rung
	var packed []stored.Result
	if err := errors.Join(fromJSON(ladder, &rungs), fromJSON(results, &packed)); err != nil {
		return a, 0, err
	}
	a.Rung, a.Ladder = stored.RungOf(port, mode), stored.UnpackLadder(rungs)
	a.Started, a.Duration = fromMicros(started), time.Duration(duration)*time.Microsecond
	for _, r := range packed {
		a.Results = append(a.Results, r.Unpack())
	}
	return a, n, nil
}

// Content returns the message's bytes.
func (s *Store) Content(ctx context.Context, key, id string) (mailer.Content, error) {
	raw, ok := blob(id)
	if !ok {
		return mailer.Content{}, queue.ErrNotFound
	}
	r := contentReader{key: key, id: raw}
	for more := true; more; {
		err := s.view(ctx, func(v *session) (err error) {
			more, err = r.some(v)
			return err
		})
		if err != nil {
			return mailer.Content{}, err
		}
	}
	return r.Content, nil
}

// contentStep is how many chunks one transaction reads (4 MiB): the log grows until it
// ends, and the disk may be slow.
const contentStep = 16

// contentReader reads a message's bytes. They do not change until the message has
// none any more.
type contentReader struct {
	key string
	id  []byte
	mailer.Content
	read int64 // chunks
}

// some reads some of the bytes, and says whether there are more.
func (r *contentReader) some(v *session) (more bool, err error) {
	var owner string
	var size int64
	var body, chunks sql.NullInt64
	err = v.row(`SELECT key, message_id, size, eight_bit, utf8_header, body, chunks FROM messages WHERE id = ?`, []any{r.id},
		&owner, &r.MessageID, &size, &r.EightBit, &r.UTF8Header, &body, &chunks)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && r.key != queue.AnyKey && r.key != owner:
		return false, queue.ErrNotFound
	case err != nil:
		return false, err
	case !body.Valid:
		return false, queue.ErrContentGone
	}
	if r.Data == nil {
		r.Data = make([]byte, 0, size)
	}
	first, end := body.Int64+r.read, body.Int64+min(r.read+contentStep, chunks.Int64)
	err = v.each(`SELECT data FROM contents WHERE seq >= ? AND seq < ? ORDER BY seq`, []any{first, end}, func(rows *sql.Rows) error {
		var chunk sql.RawBytes
		err := rows.Scan(&chunk)
		r.Data = append(r.Data, chunk...)
		return err
	})
	r.read += end - first
	more = r.read < chunks.Int64
	if err == nil && !more && int64(len(r.Data)) != size {
		err = queue.ErrCorrupt
	}
	return more, err
}

// listKeys returns key, or every key that has messages when it is AnyKey.
func listKeys(v *session, key string) ([]string, error) {
	if key != queue.AnyKey {
		return []string{key}, nil
	}
	var keys []string
	err := v.each(`WITH RECURSIVE keys (key) AS (
			SELECT min(key) FROM messages
			UNION ALL
			SELECT (SELECT min(key) FROM messages WHERE messages.key > keys.key) FROM keys WHERE keys.key IS NOT NULL)
			SELECT key FROM keys WHERE key IS NOT NULL`, nil, func(rows *sql.Rows) error {
		var k string
		err := rows.Scan(&k)
		keys = append(keys, k)
		return err
	})
	return keys, err
}
