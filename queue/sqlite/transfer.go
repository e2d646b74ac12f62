package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/transfer"
)

// copiesSchema is the first schema with marks of copies; tests write files of older ones.
const copiesSchema = 14

// side is a store that is copied, or copied into.
type side struct{ *Store }

var _ transfer.Side = side{}

// OpenSide opens the store for a copy, whatever its mark says.
func OpenSide(ctx context.Context, o Options) (transfer.Side, error) {
	o.Copying = true
	s, err := Open(ctx, o)
	if errors.Is(err, queue.ErrLocked) {
		err = fmt.Errorf("a queue is copied while no server works on it: %w", err)
	}
	return side{s}, err
}

// Place is the file.
func (s side) Place() string { return "sqlite:" + s.opts.Path }

// Settle takes over as a start does. The lock says that every owner is gone.
func (s side) Settle(ctx context.Context, hold bool) error {
	owner := uuid.NewString()
	for more := true; more; {
		r, err := s.Recover(ctx, owner, time.Now(), hold)
		if err != nil {
			return err
		}
		more = r.More
	}
	return s.End(ctx, owner)
}

// Mark reads the mark.
func (s side) Mark(ctx context.Context) (m transfer.Mark, err error) {
	err = s.view(ctx, func(v *session) (err error) {
		m, err = readMark(v)
		return err
	})
	return m, err
}

func readMark(s *session) (m transfer.Mark, err error) {
	if len(migrations) < copiesSchema {
		return m, nil
	}
	var at sql.NullInt64
	err = s.row(`SELECT role, copy, done, peer, at FROM copies`, nil, &m.Role, &m.Copy, &m.Done, &m.Peer, &at)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	m.At = fromMicros(at)
	return m, err
}

// SetMark writes the mark. The lock keeps others away until the store is closed, and the mark
// from then on.
func (s side) SetMark(ctx context.Context, was, m transfer.Mark) error {
	return s.write(ctx, func(w *writer) error {
		if err := s.want(w, was); err != nil {
			return err
		}
		var leased bool
		if err := w.row(`SELECT EXISTS (SELECT 1 FROM recipients WHERE owner IS NOT NULL)`, nil, &leased); err != nil {
			return err
		}
		if leased && m.Locked() {
			return fault(s.opts.Path, transfer.ErrInUse, "something is being sent; try again")
		}
		if err := w.exec(`DELETE FROM copies`); err != nil || m.Role == "" {
			return err
		}
		return w.exec(`INSERT INTO copies (role, copy, done, peer, at) VALUES (?, ?, ?, ?, ?)`, string(m.Role), m.Copy, m.Done, m.Peer, m.At.UnixMicro())
	})
}

// want says that the store's mark is this one.
func (s side) want(w *writer, mark transfer.Mark) error {
	stored, err := readMark(w.session)
	if err != nil {
		return err
	}
	return stored.Want(mark, s.Place())
}

// Size counts.
func (s side) Size(ctx context.Context) (n transfer.Size, err error) {
	err = s.view(ctx, func(v *session) error {
		return v.row(`SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM messages WHERE final = 0), (SELECT count(*) FROM attempts),
			(SELECT count(*) FROM idempotency)`, nil, &n.Messages, &n.Unfinished, &n.Attempts, &n.Keys)
	})
	return n, err
}

// Last looks at the end of the table's index.
func (s side) Last(ctx context.Context, t transfer.Table) (p transfer.Position, err error) {
	err = s.view(ctx, func(v *session) (err error) {
		var id []byte
		switch t {
		case transfer.Messages:
			err = v.row(`SELECT id FROM messages ORDER BY id DESC LIMIT 1`, nil, &id)
		case transfer.Attempts:
			err = v.row(`SELECT message, n FROM attempts ORDER BY message DESC, n DESC LIMIT 1`, nil, &id, &p.N)
		default:
			err = v.row(`SELECT key, name FROM idempotency ORDER BY key DESC, name DESC LIMIT 1`, nil, &p.Key, &p.Name)
		}
		if err == nil && id != nil {
			p.ID, err = fromBlob(id)
		}
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return p, err
}

// Read reads along the table's primary key.
func (s side) Read(ctx context.Context, t transfer.Table, after transfer.Position) (rows transfer.Rows, err error) {
	id := []byte{}
	if after.ID != "" {
		id, _ = blob(after.ID)
	}
	err = s.view(ctx, func(v *session) (err error) {
		rows = transfer.Rows{}
		switch t {
		case transfer.Messages:
			rows.Messages, err = copyMessages(v, id)
		case transfer.Attempts:
			rows.Attempts, err = copyAttempts(v, id, after.N)
		default:
			rows.Keys, err = copyKeys(v, after.Key, after.Name)
		}
		return err
	})
	if err == nil {
		err = rows.Clean()
	}
	return rows, storeError(s.opts.Path, err)
}

func copyMessages(v *session, after []byte) (messages []transfer.Message, err error) {
	octets := int64(0)
	var bodies []chunks
	err = v.each(`SELECT id, key, message_id, sender, subject, coalesce(tags, ''), reverse_path, size, eight_bit, utf8_header, priority, created, send_at, expires,
			lifetime, status, final, clock, body, chunks, bytes_until, suspect, crashes, coalesce(resent_of, ''), coalesce(resent_as, ''),
			(SELECT coalesce(max(n), 0) FROM attempts WHERE message = id)
		FROM messages WHERE id > ? ORDER BY id LIMIT ?`, []any{after, transfer.StepRows}, func(rows *sql.Rows) error {
		var m transfer.Message
		var id []byte
		var clock int64
		var body chunks
		var resentAs sql.NullString
		err := rows.Scan(&id, &m.Key, &m.MessageID, &m.Sender, &m.Subject, &m.Tags, &m.ReversePath, &m.Size, &m.EightBit, &m.UTF8Header, &m.Priority,
			&m.Created, &m.SendAt, &m.Expires, &m.Lifetime, &m.Status, &m.Final, &clock, &body.first, &body.count, &m.ContentUntil, &m.Suspect, &m.Crashes,
			&m.ResentOf, &resentAs, &m.Attempts)
		if err != nil {
			return err
		}
		if m.ID, err = fromBlob(id); err != nil {
			return err
		}
		if clock != never {
			m.Clock = &clock
		}
		if resentAs.String != "" {
			if err := fromJSON(resentAs, &m.ResentAs); err != nil {
				return err
			}
		}
		m.HasContent = body.first.Valid
		messages, bodies = append(messages, m), append(bodies, body)
		if octets += m.Size; octets >= transfer.StepOctets {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	for i := range messages {
		m := &messages[i]
		if m.Recipients, err = copyRecipients(v, m.ID); err != nil {
			return nil, err
		}
		if !m.HasContent {
			continue
		}
		if err := copyContent(v, m, bodies[i]); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// copyContent reads the content of a message, which has it there.
func copyContent(v *session, m *transfer.Message, body chunks) error {
	m.Content = make([]byte, 0, m.Size)
	err := v.each(`SELECT data FROM contents WHERE seq >= ? AND seq < ? ORDER BY seq`, []any{body.first.Int64, body.first.Int64 + body.count},
		func(rows *sql.Rows) error {
			var chunk sql.RawBytes
			err := rows.Scan(&chunk)
			m.Content = append(m.Content, chunk...)
			return err
		})
	if err == nil && int64(len(m.Content)) != m.Size {
		err = fmt.Errorf("%w: content of message %s", queue.ErrCorrupt, m.ID)
	}
	return err
}

func copyRecipients(v *session, message string) (recipients []transfer.Recipient, err error) {
	id, _ := blob(message)
	err = v.each(`SELECT n, forward_path, state, due, route, lease, tries, attempts, coalesce(result, '') FROM recipients WHERE message = ? ORDER BY n`, []any{id},
		func(rows *sql.Rows) error {
			var r transfer.Recipient
			err := rows.Scan(&r.N, &r.ForwardPath, &r.State, &r.Due, &r.Route, &r.Lease, &r.Tries, &r.Attempts, &r.Result)
			recipients = append(recipients, r)
			return err
		})
	return recipients, err
}

func copyAttempts(v *session, after []byte, n int) (attempts []transfer.Attempt, err error) {
	octets := 0
	err = v.each(`SELECT message, n, lease, relay, why, port, mode, tls, auth, coalesce(ladder, ''), started, duration, results FROM attempts
		WHERE (message, n) > (?, ?) ORDER BY message, n LIMIT ?`, []any{after, n, transfer.StepRows}, func(rows *sql.Rows) error {
		var a transfer.Attempt
		var id []byte
		err := rows.Scan(&id, &a.N, &a.Lease, &a.Relay, &a.Why, &a.Port, &a.Mode, &a.TLS, &a.Auth, &a.Ladder, &a.Started, &a.Duration, &a.Results)
		if err != nil {
			return err
		}
		if a.Message, err = fromBlob(id); err != nil {
			return err
		}
		attempts = append(attempts, a)
		if octets += len(a.Ladder) + len(a.Results); octets >= transfer.StepOctets {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return attempts, err
}

func copyKeys(v *session, key, name string) (keys []transfer.Key, err error) {
	err = v.each(`SELECT key, name, fingerprint, messages, expires FROM idempotency WHERE (key, name) > (?, ?) ORDER BY key, name LIMIT ?`,
		[]any{key, name, transfer.StepRows}, func(rows *sql.Rows) error {
			var k transfer.Key
			err := rows.Scan(&k.Key, &k.Name, &k.Fingerprint, &k.Messages, &k.Expires)
			keys = append(keys, k)
			return err
		})
	return keys, err
}

// Put stores the rows in one commit.
func (s side) Put(ctx context.Context, mark transfer.Mark, rows transfer.Rows) error {
	size := int64(1)
	for i := range rows.Messages {
		size += int64(len(rows.Messages[i].Content))
	}
	return s.writer.do(ctx, &write{admits: true, large: size > largeSize, size: size, run: func(w *writer) error {
		if err := s.want(w, mark); err != nil {
			return err
		}
		return w.put(&rows)
	}})
}

func (w *writer) put(rows *transfer.Rows) error {
	for i := range rows.Messages {
		if err := w.putMessage(&rows.Messages[i]); err != nil {
			return err
		}
	}
	for _, a := range rows.Attempts {
		id, _ := blob(a.Message)
		if err := w.exec(`INSERT INTO attempts (message, n, lease, relay, why, port, mode, tls, auth, ladder, started, duration, results)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			id, a.N, a.Lease, a.Relay, a.Why, a.Port, a.Mode, a.TLS, a.Auth, orNull(a.Ladder), a.Started, a.Duration, a.Results); err != nil {
			return err
		}
	}
	for _, k := range rows.Keys {
		if err := w.exec(`INSERT INTO idempotency (key, name, fingerprint, messages, expires) VALUES (?, ?, ?, ?, ?)`,
			k.Key, k.Name, k.Fingerprint, k.Messages, k.Expires); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) putMessage(m *transfer.Message) error {
	id, ok := blob(m.ID)
	if !ok {
		return errors.New("message id is not a UUID")
	}
	var body chunks
	var err error
	if m.HasContent {
		if body, err = w.insertContent(mailer.Content{Data: m.Content}); err != nil {
			return err
		}
	}
	clock := int64(never)
	if m.Clock != nil {
		clock = *m.Clock
	}
	var resentAs any
	if len(m.ResentAs) > 0 {
		if resentAs, err = toJSON(m.ResentAs); err != nil {
			return err
		}
	}
	err = w.exec(`INSERT INTO messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at, expires,
			lifetime, status, final, clock, body, chunks, bytes_until, suspect, crashes, resent_of, resent_as)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, m.Key, m.MessageID, m.Sender, m.Subject, orNull(m.Tags), m.ReversePath, m.Size, m.EightBit, m.UTF8Header, m.Priority, m.Created, orNil(m.SendAt), m.Expires,
		orNil(m.Lifetime), m.Status, m.Final, clock, body.first, body.count, orNil(m.ContentUntil), m.Suspect, m.Crashes, orNull(m.ResentOf), resentAs)
	if err != nil {
		return err
	}
	if !m.Final {
		w.add(1, m.Size)
	}
	lane := stored.LaneText(queue.Lane{Priority: mailer.Priority(m.Priority), Key: m.Key})
	for _, r := range m.Recipients {
		if err := w.exec(`INSERT INTO recipients (message, n, forward_path, state, due, route, lane, lease, tries, attempts, result)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, id, r.N, r.ForwardPath, r.State, orNil(r.Due), r.Route, lane, r.Lease, r.Tries, r.Attempts, orNull(r.Result)); err != nil {
			return err
		}
	}
	return nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func orNil(n *int64) any {
	if n == nil {
		return nil
	}
	return *n
}

// countPause is how often it is asked whether the numbers are counted.
const countPause = 50 * time.Millisecond

// ReadRest waits while the numbers are counted anew after a crash.
func (s side) ReadRest(ctx context.Context) (r transfer.Rest, err error) {
	n := &s.writer.numbers
	for {
		n.mu.Lock()
		if n.exact {
			r.Numbers = transfer.CopyNumbers(n.shown)
		}
		n.mu.Unlock()
		if r.Numbers != nil {
			break
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(countPause):
		}
	}
	if r.Pauses, err = s.ManualPauses(ctx); err != nil {
		return r, err
	}
	err = s.view(ctx, func(v *session) error {
		return v.each(`SELECT relay, at, n FROM turns`, nil, func(rows *sql.Rows) error {
			var t transfer.Turn
			err := rows.Scan(&t.Relay, &t.At, &t.N)
			r.Turns = append(r.Turns, t)
			return err
		})
	})
	r.Clean()
	return r, err
}

// PutRest replaces what the store counts.
func (s side) PutRest(ctx context.Context, mark transfer.Mark, r transfer.Rest) error {
	return s.write(ctx, func(w *writer) error {
		if err := s.want(w, mark); err != nil {
			return err
		}
		if err := w.setManualPauses(r.Pauses); err != nil {
			return err
		}
		if err := w.exec(`DELETE FROM turns`); err != nil {
			return err
		}
		for _, t := range r.Turns {
			if err := w.exec(`INSERT INTO turns (relay, at, n) VALUES (?, ?, ?)`, t.Relay, t.At, t.N); err != nil {
				return err
			}
		}
		n := &w.numbers
		n.mu.Lock()
		defer n.mu.Unlock()
		n.shown = transfer.CopyNumbers(r.Numbers)
		n.anew, n.exact, n.whole, n.stored, n.merged, n.keeps = nil, true, true, false, 0, n.shown
		return w.writeNumbers()
	})
}
