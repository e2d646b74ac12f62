package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// chunkSize is how many octets of a message one row holds.
const chunkSize = 256 << 10

// Insert stores the batch in a transaction that other writers share.
func (s *Store) Insert(ctx context.Context, b queue.Batch) ([]string, error) {
	op := &write{admits: true}
	for _, e := range b.Entries {
		op.size += int64(len(e.Content.Data))
	}
	op.size = max(op.size, 1)
	var replayed []string
	op.run = func(w *writer) error {
		var err error
		replayed, err = w.insertBatch(b)
		return err
	}
	err := s.writer.do(ctx, op)
	return replayed, err
}

// Replay reads beside the writer, whether or not that may take more mail.
func (s *Store) Replay(ctx context.Context, i queue.Idempotency) ([]string, error) {
	var replayed []string
	err := s.view(ctx, func(v *session) (err error) {
		replayed, err = v.replay(&i)
		return err
	})
	return replayed, err
}

func (w *writer) insertBatch(b queue.Batch) ([]string, error) {
	if replayed, err := w.replay(b.Idempotency); err != nil || replayed != nil {
		return replayed, err
	}
	for _, e := range b.Entries {
		if err := w.insert(e); err != nil {
			return nil, err
		}
	}
	return nil, w.remember(b)
}

// replay returns the messages that an earlier request with the key stored; nil
// when there was none. A key that is past its time does not count.
func (s *session) replay(i *queue.Idempotency) ([]string, error) {
	if i == nil {
		return nil, nil
	}
	var fingerprint, messages []byte
	err := s.row(`SELECT fingerprint, messages FROM idempotency WHERE key = ? AND name = ? AND expires > ?`,
		[]any{i.Key, i.Name, i.Expires.Add(-queue.IdempotencyLife).UnixMicro()}, &fingerprint, &messages)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	case string(fingerprint) != string(i.Fingerprint[:]):
		return nil, queue.ErrIdempotencyMismatch
	}
	var ids []string
	for ; len(messages) >= 16; messages = messages[16:] {
		id, err := fromBlob(messages[:16])
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (w *writer) remember(b queue.Batch) error {
	i := b.Idempotency
	if i == nil {
		return nil
	}
	var messages []byte
	for _, e := range b.Entries {
		id, _ := blob(e.Message.ID)
		messages = append(messages, id...)
	}
	return w.exec(`INSERT OR REPLACE INTO idempotency (key, name, fingerprint, messages, expires) VALUES (?, ?, ?, ?, ?)`,
		i.Key, i.Name, i.Fingerprint[:], messages, i.Expires.UnixMicro())
}

func (w *writer) insert(e queue.Entry) error {
	body, chunks, err := w.insertContent(e.Content)
	if err != nil {
		return err
	}
	m := e.Message
	var tags any
	if len(m.Tags) > 0 {
		if tags, err = toJSON(m.Tags); err != nil {
			return err
		}
	}
	id, ok := blob(m.ID)
	if !ok {
		return errors.New("message id is not a UUID")
	}
	err = w.exec(`INSERT INTO messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header,
			created, send_at, expires, status, final, clock, body, chunks, priority)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', 0, ?, ?, ?, ?)`,
		id, m.Key, m.MessageID, m.Sender, m.Subject, tags, m.Envelope.ReversePath, m.Size, e.Content.EightBit, e.Content.UTF8Header,
		m.Created.UnixMicro(), micros(m.SendAt), m.Expires.UnixMicro(), m.Expires.UnixMicro(), body, chunks,
		int64(m.Envelope.Priority))
	if err != nil {
		return err
	}
	return w.insertRecipients(id, e)
}

// insertContent stores the bytes and returns the rows they are in.
func (w *writer) insertContent(c mailer.Content) (first, chunks int64, err error) {
	for rest := c.Data; ; chunks++ {
		chunk := rest[:min(len(rest), chunkSize)]
		result, err := w.execute(`INSERT INTO contents (data) VALUES (?)`, chunk)
		if err != nil {
			return 0, 0, err
		}
		if chunks == 0 {
			if first, err = result.LastInsertId(); err != nil {
				return 0, 0, err
			}
		}
		if rest = rest[len(chunk):]; len(rest) == 0 {
			return first, chunks + 1, nil
		}
	}
}

// recipientRows is how many recipients one statement takes: it costs about as
// much as three that take one each.
const recipientRows = 25

var insertRecipient, insertRecipientRows = recipientSQL(1), recipientSQL(recipientRows)

func recipientSQL(n int) string {
	return `INSERT INTO recipients (message, n, forward_path, state, due, route, lane, owner) VALUES ` +
		strings.TrimSuffix(strings.Repeat(`(?, ?, ?, 'queued', ?, ?, ?, ?), `, n), ", ")
}

func (w *writer) insertRecipients(id []byte, e queue.Entry) error {
	var owner any
	if e.Owner != "" {
		owner = e.Owner
	}
	paths := e.Message.Envelope.ForwardPaths
	lane := laneText(e.Message.Lane())
	for n := 0; n < len(paths); {
		query, rows := insertRecipient, 1
		if len(paths)-n >= recipientRows {
			query, rows = insertRecipientRows, recipientRows
		}
		var args []any
		for ; rows > 0; rows-- {
			args = append(args, id, n, paths[n], e.Due.UnixMicro(), e.Route, lane, owner)
			n++
		}
		if err := w.exec(query, args...); err != nil {
			return err
		}
	}
	return nil
}
