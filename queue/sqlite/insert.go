package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"strings"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// chunkSize is how many octets of a message one row holds.
const chunkSize = 256 << 10

// Insert stores the batch in a transaction that other writers share.
func (s *Store) Insert(ctx context.Context, b queue.Batch) ([]string, error) {
	size := int64(0)
	for _, e := range b.Entries {
		size += int64(len(e.Content.Data))
	}
	if size > stageStep {
		return s.insertStaged(ctx, b, size)
	}
	var replayed []string
	op := &write{admits: true, large: size > largeSize, size: max(size, 1)}
	op.run = func(w *writer) (err error) {
		replayed, err = w.insertBatch(b, w.insertContent)
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

// insertBatch stores the messages. content returns the rows that have the bytes of one
// after the other.
func (w *writer) insertBatch(b queue.Batch, content handOver) ([]string, error) {
	if replayed, err := w.replay(b.Idempotency); err != nil || replayed != nil {
		return replayed, err
	}
	known := 0
	for _, e := range b.Entries {
		body, err := content(e.Content)
		if err != nil {
			return nil, err
		}
		fresh, err := w.insert(e, body)
		if err != nil {
			return nil, err
		}
		if !fresh {
			known++
		}
	}
	switch {
	case known == 0:
		return nil, w.remember(b)
	case known < len(b.Entries):
		return nil, errors.New("some messages of the batch are stored already")
	default:
		return nil, nil
	}
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

// insert stores a message, and says whether it did: it may be stored already.
func (w *writer) insert(e queue.Entry, body chunks) (bool, error) {
	m := e.Message
	var tags any
	var err error
	if len(m.Tags) > 0 {
		if tags, err = toJSON(m.Tags); err != nil {
			return false, err
		}
	}
	id, ok := blob(m.ID)
	if !ok {
		return false, errors.New("message id is not a UUID")
	}
	err = w.exec(`INSERT INTO messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header,
			created, send_at, expires, status, final, clock, body, chunks, priority)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', 0, ?, ?, ?, ?)`,
		id, m.Key, m.MessageID, m.Sender, m.Subject, tags, m.Envelope.ReversePath, m.Size, e.Content.EightBit, e.Content.UTF8Header,
		m.Created.UnixMicro(), micros(m.SendAt), m.Expires.UnixMicro(), m.Expires.UnixMicro(), body.first, body.count,
		int64(m.Envelope.Priority))
	if isTaken(err) {
		return false, w.insertedBefore(id, m, body)
	}
	if err != nil {
		return false, err
	}
	w.add(1, m.Size)
	w.count(tally.Change{ID: string(id), Key: m.Key, To: queue.StatusQueued, Accepted: len(m.Envelope.ForwardPaths), At: m.Created})
	if m.ResentOf != "" {
		if err := w.linkResent(id, m); err != nil {
			return false, err
		}
	}
	return true, w.insertRecipients(id, e)
}

// linkResent notes with both messages that the new one sends an earlier one again.
func (w *writer) linkResent(id []byte, m queue.Message) error {
	if err := w.exec(`UPDATE messages SET resent_of = ? WHERE id = ?`, m.ResentOf, id); err != nil {
		return err
	}
	earlier, ok := blob(m.ResentOf)
	if !ok {
		return errors.New("id of the earlier message is not a UUID")
	}
	return w.exec(`UPDATE messages SET resent_as = json_insert(
			CASE WHEN json_array_length(resent_as) >= ?1 THEN json_remove(resent_as, '$[0]') ELSE coalesce(resent_as, '[]') END, '$[#]', ?2)
		WHERE id = ?3`, queue.MaxResent, m.ID, earlier)
}

// isTaken says that there is a row with the primary key. The statement has done nothing
// then, and the transaction goes on.
func isTaken(err error) bool {
	var e *sqlitedriver.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

// insertedBefore makes sure that the message with the id is the same one, and deletes
// the bytes that were stored once more.
func (w *writer) insertedBefore(id []byte, m queue.Message, again chunks) error {
	var same bool
	err := w.row(`SELECT key = ? AND message_id = ? AND created = ? AND size = ? FROM messages WHERE id = ?`,
		[]any{m.Key, m.MessageID, m.Created.UnixMicro(), m.Size, id}, &same)
	if err == nil && !same {
		err = errors.New("message id is taken")
	}
	if err != nil {
		return err
	}
	return w.deleteChunks(again)
}

// insertContent stores the bytes and returns the rows they are in.
func (w *writer) insertContent(c mailer.Content) (chunks, error) {
	var body chunks
	for chunk := range chunked(c.Data) {
		result, err := w.execute(`INSERT INTO contents (data) VALUES (?)`, chunk)
		if err != nil {
			return body, err
		}
		if !body.first.Valid {
			first, err := result.LastInsertId()
			if err != nil {
				return body, err
			}
			body.first = sql.NullInt64{Int64: first, Valid: true}
		}
		body.count++
	}
	return body, nil
}

// chunked yields what each row has of a content: there is one at least, which may be empty.
func chunked(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			n := min(len(data), chunkSize)
			if !yield(data[:n:n]) || n == len(data) {
				return
			}
			data = data[n:]
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
	lane := stored.LaneText(e.Message.Lane())
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
