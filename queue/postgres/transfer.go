package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
	"mailsidecar/queue/transfer"
)

const (
	// copyAnswerTime is [Options.AnswerTime] of a copy, whose steps are large.
	copyAnswerTime = time.Minute
	// lockedCode is the error of a store that is locked by its mark. The database has no such.
	lockedCode = "MSC01"
	// copyOwners is how the names of owners begin that take over for a copy. They lease nothing, and
	// one that was killed is in nobody's way.
	copyOwners = "copy-"
)

// side is a store that is copied, or copied into. It has one connection, and one goroutine uses
// it.
type side struct {
	*connector
	opts Options
	conn *pgx.Conn
}

var _ transfer.Side = &side{}

// OpenSide opens the store for a copy, whatever its mark says. The schema must be the newest.
func OpenSide(ctx context.Context, o Options) (transfer.Side, error) {
	o.Copying, o.AnswerTime = true, copyAnswerTime
	s, err := Open(ctx, o) // which looks at the database
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	conn, err := s.connect(ctx, false)
	if err != nil {
		return nil, named(s.connector, err)
	}
	c := &side{s.connector, o, conn}
	if err := c.owns(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// owns says whether the role may lock the store, which makes a function and triggers. A copy
// that found that out later would have locked the other store by then.
func (s *side) owns(ctx context.Context) error {
	var role string
	var tablesOwned, mayCreate bool
	err := s.conn.QueryRow(context.WithoutCancel(ctx), `SELECT current_user, coalesce(bool_and(pg_has_role(t.relowner, 'USAGE')), false),
			coalesce(bool_and(has_schema_privilege(n.oid, 'CREATE')), false)
		FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
		WHERE n.nspname = $1 AND t.relkind = 'r' AND t.relname = ANY ($2)`, s.name, tables()).Scan(&role, &tablesOwned, &mayCreate)
	if err == nil && !tablesOwned {
		err = s.unfit(fmt.Sprintf("its role %s does not own the tables, and a copy locks them", pgx.Identifier{role}.Sanitize()),
			"for the copy use the URL of the role that owns the tables, as for \"mailsidecar queue migrate\"; nothing was changed")
	} else if err == nil && !mayCreate {
		err = s.unfit(fmt.Sprintf("its role %s may not create in the schema %s, and a copy makes a function there that locks the tables", pgx.Identifier{role}.Sanitize(), s.name),
			"for the copy use the URL of the role that owns the tables, and let it: GRANT CREATE ON SCHEMA "+s.schema+" TO "+pgx.Identifier{role}.Sanitize()+"; nothing was changed")
	}
	return named(s.connector, err)
}

// Close closes the connection.
func (s *side) Close() error { return s.conn.Close(context.Background()) }

// Place is the address without the password.
func (s *side) Place() string { return "postgres://" + s.place() }

// Settle takes over as a start does, unless an owner lives.
func (s *side) Settle(ctx context.Context, hold bool) error {
	if err := s.unused(ctx, s.conn); err != nil {
		return err
	}
	store, err := Open(ctx, s.opts)
	if err != nil {
		return err
	}
	owner := copyOwners + uuid.NewString()
	for more := true; more && err == nil; {
		var r queue.Recovered
		r, err = store.Recover(ctx, owner, time.Now(), hold)
		more = r.More
	}
	if err == nil {
		err = store.End(ctx, owner)
	}
	return errors.Join(err, store.Close())
}

// unused says that no owner lives.
func (s *side) unused(ctx context.Context, q querier) error {
	var n int
	var until pgtype.Timestamptz
	err := q.QueryRow(context.WithoutCancel(ctx), s.sql(`SELECT count(*), max(until) FROM {s}.instances WHERE until > clock_timestamp() AND NOT starts_with(owner, $1)`), copyOwners).Scan(&n, &until)
	if err == nil && n > 0 {
		err = s.inUse(fmt.Sprintf("instances that work with it: %d; stop them first. Those that were killed count until %s", n, timeOf(until).Format("15:04:05 UTC")))
	}
	return err
}

func (s *side) inUse(remedy string) error {
	return &queue.StoreError{Path: s.place(), Err: transfer.ErrInUse, Remedy: remedy}
}

// Mark reads the mark.
func (s *side) Mark(ctx context.Context) (transfer.Mark, error) {
	return s.readMark(context.WithoutCancel(ctx), s.conn)
}

func (c *connector) readMark(ctx context.Context, q querier) (m transfer.Mark, err error) {
	var at pgtype.Timestamptz
	err = q.QueryRow(ctx, c.sql(`SELECT role, copy, done, peer, at FROM {s}.copies`)).Scan(&m.Role, &m.Copy, &m.Done, &m.Peer, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	m.At = timeOf(at)
	return m, err
}

// lockSQL makes the database refuse what an instance would do: to begin, and with a source to
// change anything that is copied. An instance that was suspended must not say that a message is
// canceled which is sent from the new store. It costs nothing while there is no mark. A copy may
// take mail into a target all the same.
var lockSQL = map[transfer.Role]string{
	transfer.Target: `CREATE OR REPLACE FUNCTION {s}.locked() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE EXCEPTION 'this queue is locked by a copy' USING ERRCODE = '` + lockedCode + `'; END$$;
		CREATE TRIGGER locked BEFORE INSERT ON {s}.instances FOR EACH STATEMENT EXECUTE FUNCTION {s}.locked()`,
	transfer.Source: onFrozen(`CREATE TRIGGER locked BEFORE INSERT OR UPDATE OR DELETE ON {s}.%s FOR EACH STATEMENT EXECUTE FUNCTION {s}.locked()`),
}

// frozen are the tables of a source in which nothing changes any more. Notes are not copied, and
// stats_deltas are only added up.
var frozen = []string{"messages", "contents", "recipients", "attempts", "idempotency", "pauses", "turns"}

var unlockSQL = `DROP TRIGGER IF EXISTS locked ON {s}.instances; ` + onFrozen(`DROP TRIGGER IF EXISTS locked ON {s}.%s`)

// onFrozen is a script of the statement for each of the frozen tables.
func onFrozen(statement string) string {
	var all []string
	for _, table := range frozen {
		all = append(all, fmt.Sprintf(statement, table))
	}
	return strings.Join(all, "; ")
}

// SetMark writes the mark. It waits for changes that go on; those that come later are
// refused.
func (s *side) SetMark(ctx context.Context, was, m transfer.Mark) error {
	var err error
	for range deadlockTries { // an instance that was suspended takes its locks in another order
		if err = s.setMark(ctx, was, m); !again(err) {
			break
		}
	}
	return err
}

func (s *side) setMark(ctx context.Context, was, m transfer.Mark) error {
	return s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.sql(`LOCK TABLE {s}.instances, {s}.messages, {s}.copies IN SHARE ROW EXCLUSIVE MODE`)); err != nil {
			return err
		}
		if err := s.want(ctx, tx, was); err != nil {
			return err
		}
		script := unlockSQL
		if m.Locked() {
			if err := s.unused(ctx, tx); err != nil {
				return err
			}
			var leased bool
			if err := tx.QueryRow(ctx, s.sql(`SELECT EXISTS (SELECT FROM {s}.recipients WHERE owner IS NOT NULL)`)).Scan(&leased); err != nil {
				return err
			}
			if leased {
				return s.inUse("something is being sent; try again")
			}
			script += ";" + lockSQL[transfer.Target]
			if m.Role == transfer.Source {
				script += ";" + lockSQL[transfer.Source]
			}
		}
		script += fmt.Sprintf(`; DELETE FROM {s}.instances WHERE starts_with(owner, '%[1]s'); DELETE FROM {s}.runs WHERE starts_with(owner, '%[1]s')`, copyOwners)
		if _, err := tx.Exec(ctx, s.sql(script+`; DELETE FROM {s}.copies`), pgx.QueryExecModeSimpleProtocol); err != nil || m.Role == "" {
			return err
		}
		_, err := tx.Exec(ctx, s.sql(`INSERT INTO {s}.copies (role, copy, done, peer, at) VALUES ($1, $2, $3, $4, $5)`),
			string(m.Role), m.Copy, m.Done, m.Peer, stamp(m.At))
		return err
	})
}

// want says that the store's mark is this one.
func (s *side) want(ctx context.Context, tx pgx.Tx, mark transfer.Mark) error {
	stored, err := s.readMark(ctx, tx)
	if err != nil {
		return err
	}
	return stored.Want(mark, s.place())
}

// put calls f in a transaction, and commits, while the store's mark is this one. Locks as
// those of SetMark, in the same order, keep the mark as it is until the commit.
func (s *side) put(ctx context.Context, mark transfer.Mark, f func(ctx context.Context, tx pgx.Tx) error) error {
	return s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.sql(`LOCK TABLE {s}.messages, {s}.copies IN ROW EXCLUSIVE MODE`)); err != nil {
			return err
		}
		if err := s.want(ctx, tx, mark); err != nil {
			return err
		}
		return f(ctx, tx)
	})
}

// inTx calls f in a transaction, and commits. No context ends a statement.
func (s *side) inTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if err := f(ctx, tx); err != nil {
		return named(s.connector, err)
	}
	delete(s.conn.PgConn().CustomData(), warned)
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	return unknownCommit(s.conn)
}

// Size counts. With many millions of messages that takes longer than any other answer, so it has
// a connection without a limit, which the end of ctx ends.
func (s *side) Size(ctx context.Context) (n transfer.Size, err error) {
	conn, err := s.connect(ctx, true)
	if err != nil {
		return n, named(s.connector, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, s.sql(`SELECT (SELECT count(*) FROM {s}.messages), (SELECT count(*) FROM {s}.messages WHERE NOT final),
		(SELECT count(*) FROM {s}.attempts), (SELECT count(*) FROM {s}.idempotency)`)).Scan(&n.Messages, &n.Unfinished, &n.Attempts, &n.Keys)
	return n, err
}

// Last looks at the end of the table's index.
func (s *side) Last(ctx context.Context, t transfer.Table) (p transfer.Position, err error) {
	ctx = context.WithoutCancel(ctx)
	var id key
	switch t {
	case transfer.Messages:
		err = s.conn.QueryRow(ctx, s.sql(`SELECT id FROM {s}.messages ORDER BY id DESC LIMIT 1`)).Scan(&id)
	case transfer.Attempts:
		err = s.conn.QueryRow(ctx, s.sql(`SELECT message, n FROM {s}.attempts ORDER BY message DESC, n DESC LIMIT 1`)).Scan(&id, &p.N)
	default:
		err = s.conn.QueryRow(ctx, s.sql(`SELECT key, name FROM {s}.idempotency ORDER BY key DESC, name DESC LIMIT 1`)).Scan(&p.Key, &p.Name)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if t != transfer.Keys {
		p.ID = textOf(id)
	}
	return p, err
}

// Read reads along the table's primary key. Nothing else writes meanwhile.
func (s *side) Read(ctx context.Context, t transfer.Table, after transfer.Position) (rows transfer.Rows, err error) {
	if err := ctx.Err(); err != nil {
		return rows, err
	}
	ctx = context.WithoutCancel(ctx)
	from, _ := parseID(after.ID) // zero at the beginning
	switch t {
	case transfer.Messages:
		rows.Messages, err = s.copyMessages(ctx, from)
	case transfer.Attempts:
		rows.Attempts, err = s.copyAttempts(ctx, from, after.N)
	default:
		rows.Keys, err = s.copyKeys(ctx, after.Key, after.Name)
	}
	if err == nil {
		err = rows.Clean()
	}
	return rows, err
}

// each calls f on each row of a query, until that returns false.
func (s *side) each(ctx context.Context, sql string, args []any, f func(pgx.Rows) (bool, error)) error {
	rows, err := s.conn.Query(ctx, s.sql(sql), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if more, err := f(rows); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

func (s *side) copyMessages(ctx context.Context, after key) (messages []transfer.Message, err error) {
	octets := int64(0)
	var ids []key
	err = s.each(ctx, `SELECT id, key, message_id, sender, subject, coalesce(tags::text, ''), reverse_path, size, eight_bit, utf8_header, priority, created, send_at, expires,
			lifetime, status, final, clock, has_content, content_until, suspect, crashes, attempts, resent_of, resent_as
		FROM {s}.messages WHERE id > $1 ORDER BY id LIMIT $2`, []any{after, transfer.StepRows}, func(rows pgx.Rows) (bool, error) {
		var m transfer.Message
		var id key
		var created, sendAt, expires, clock, until pgtype.Timestamptz
		var resentOf pgtype.UUID
		var resentAs []pgtype.UUID
		err := rows.Scan(&id, &m.Key, &m.MessageID, &m.Sender, &m.Subject, &m.Tags, &m.ReversePath, &m.Size, &m.EightBit, &m.UTF8Header, &m.Priority,
			&created, &sendAt, &expires, &m.Lifetime, &m.Status, &m.Final, &clock, &m.HasContent, &until, &m.Suspect, &m.Crashes, &m.Attempts, &resentOf, &resentAs)
		m.ID = textOf(id)
		m.Created, m.SendAt, m.Expires = created.Time.UnixMicro(), micros(sendAt), expires.Time.UnixMicro()
		m.Clock, m.ContentUntil = micros(clock), micros(until)
		if resentOf.Valid {
			m.ResentOf = textOf(resentOf.Bytes)
		}
		for _, other := range resentAs {
			m.ResentAs = append(m.ResentAs, textOf(other.Bytes))
		}
		messages, ids = append(messages, m), append(ids, id)
		octets += m.Size
		return octets < transfer.StepOctets, err
	})
	if err != nil || len(ids) == 0 {
		return messages, err
	}
	number := map[key]int{}
	for i, id := range ids {
		number[id] = i
		if messages[i].HasContent {
			messages[i].Content = make([]byte, 0, messages[i].Size)
		}
	}
	err = s.each(ctx, `SELECT message, n, forward_path, state, due, route, lease, tries, attempts, coalesce(result::text, '') FROM {s}.recipients
		WHERE message = ANY ($1) ORDER BY message, n`, []any{ids}, func(rows pgx.Rows) (bool, error) {
		var r transfer.Recipient
		var id key
		var due pgtype.Timestamptz
		err := rows.Scan(&id, &r.N, &r.ForwardPath, &r.State, &due, &r.Route, &r.Lease, &r.Tries, &r.Attempts, &r.Result)
		r.Due = micros(due)
		m := &messages[number[id]]
		m.Recipients = append(m.Recipients, r)
		return true, err
	})
	if err == nil {
		err = s.copyContents(ctx, messages, ids, number)
	}
	return messages, err
}

// copyContents reads the contents of messages; number has the place of each.
func (s *side) copyContents(ctx context.Context, messages []transfer.Message, ids []key, number map[key]int) error {
	err := s.each(ctx, `SELECT message, data FROM {s}.contents WHERE message = ANY ($1) ORDER BY message, n`, []any{ids}, func(rows pgx.Rows) (bool, error) {
		var id key
		var data []byte
		err := rows.Scan(&id, &data)
		if m := &messages[number[id]]; m.HasContent {
			m.Content = append(m.Content, data...)
		}
		return true, err
	})
	for i := range messages {
		if m := &messages[i]; err == nil && m.HasContent && int64(len(m.Content)) != m.Size {
			err = fmt.Errorf("%w: content of message %s", queue.ErrCorrupt, m.ID)
		}
	}
	return err
}

// micros is a time in microseconds since 1970; nil where there is none.
func micros(t pgtype.Timestamptz) *int64 {
	if !t.Valid || t.InfinityModifier != pgtype.Finite {
		return nil
	}
	n := t.Time.UnixMicro()
	return &n
}

func (s *side) copyAttempts(ctx context.Context, after key, n int) (attempts []transfer.Attempt, err error) {
	octets := 0
	err = s.each(ctx, `SELECT message, n, lease, relay, why, port, mode, tls, auth, coalesce(ladder::text, ''), started, duration, results::text FROM {s}.attempts
		WHERE (message, n) > ($1, $2) ORDER BY message, n LIMIT $3`, []any{after, n, transfer.StepRows}, func(rows pgx.Rows) (bool, error) {
		var a transfer.Attempt
		var id key
		var started pgtype.Timestamptz
		err := rows.Scan(&id, &a.N, &a.Lease, &a.Relay, &a.Why, &a.Port, &a.Mode, &a.TLS, &a.Auth, &a.Ladder, &started, &a.Duration, &a.Results)
		a.Message, a.Started = textOf(id), started.Time.UnixMicro()
		attempts = append(attempts, a)
		octets += len(a.Ladder) + len(a.Results)
		return octets < transfer.StepOctets, err
	})
	return attempts, err
}

func (s *side) copyKeys(ctx context.Context, key, name string) (keys []transfer.Key, err error) {
	err = s.each(ctx, `SELECT key, name, fingerprint, messages, expires FROM {s}.idempotency WHERE (key, name) > ($1, $2) ORDER BY key, name LIMIT $3`,
		[]any{key, name, transfer.StepRows}, func(rows pgx.Rows) (bool, error) {
			var k transfer.Key
			var expires pgtype.Timestamptz
			err := rows.Scan(&k.Key, &k.Name, &k.Fingerprint, &k.Messages, &expires)
			k.Expires = expires.Time.UnixMicro()
			keys = append(keys, k)
			return true, err
		})
	return keys, err
}

// Put stores the rows in one transaction.
func (s *side) Put(ctx context.Context, mark transfer.Mark, rows transfer.Rows) error {
	return s.put(ctx, mark, func(ctx context.Context, tx pgx.Tx) error {
		for _, table := range tablesOf(&rows) {
			if len(table.rows) == 0 {
				continue
			}
			if table.err != nil {
				return table.err
			}
			if _, err := tx.CopyFrom(ctx, pgx.Identifier{s.name, table.name}, table.columns, pgx.CopyFromRows(table.rows)); err != nil {
				return err
			}
		}
		return nil
	})
}

// tableRows are rows of one table.
type tableRows struct {
	name    string
	columns []string
	rows    [][]any
	err     error
}

func tablesOf(rows *transfer.Rows) []tableRows {
	messages := tableRows{name: "messages", columns: []string{
		"id", "key", "message_id", "sender", "subject", "tags", "reverse_path", "size", "eight_bit", "utf8_header", "priority", "created", "send_at", "expires",
		"lifetime", "status", "final", "clock", "has_content", "content_until", "suspect", "crashes", "attempts", "resent_of", "resent_as",
	}}
	contents := tableRows{name: "contents", columns: []string{"message", "n", "data"}}
	recipients := tableRows{name: "recipients", columns: []string{
		"message", "n", "forward_path", "state", "due", "route", "lane", "lease", "tries", "attempts", "result",
	}}
	attempts := tableRows{name: "attempts", columns: []string{
		"message", "n", "lease", "relay", "why", "port", "mode", "tls", "auth", "ladder", "started", "duration", "results",
	}}
	keys := tableRows{name: "idempotency", columns: []string{"key", "name", "fingerprint", "messages", "expires"}}
	for i := range rows.Messages {
		m := &rows.Messages[i]
		id, ok := parseID(m.ID)
		if !ok {
			messages.err = errors.New("message id is not a UUID")
		}
		var resentOf pgtype.UUID
		if m.ResentOf != "" {
			resentOf.Bytes, resentOf.Valid = parseID(m.ResentOf)
		}
		clock := never
		if m.Clock != nil {
			clock = fromMicros(m.Clock)
		}
		messages.rows = append(messages.rows, []any{
			id, m.Key, m.MessageID, m.Sender, m.Subject, jsonOf(m.Tags), m.ReversePath, m.Size, m.EightBit, m.UTF8Header, int16(m.Priority), fromMicros(&m.Created),
			fromMicros(m.SendAt), fromMicros(&m.Expires), m.Lifetime, m.Status, m.Final, clock, m.HasContent, fromMicros(m.ContentUntil), m.Suspect, m.Crashes,
			m.Attempts, resentOf, parseIDs(m.ResentAs),
		})
		for n, data := 0, m.Content; len(data) > 0; n++ {
			size := min(len(data), chunkSize)
			contents.rows = append(contents.rows, []any{id, n, data[:size]})
			data = data[size:]
		}
		lane := stored.LaneText(queue.Lane{Priority: mailer.Priority(m.Priority), Key: m.Key})
		for _, r := range m.Recipients {
			recipients.rows = append(recipients.rows, []any{
				id, r.N, r.ForwardPath, r.State, fromMicros(r.Due), r.Route, lane, r.Lease, r.Tries, r.Attempts, jsonOf(r.Result),
			})
		}
	}
	for _, a := range rows.Attempts {
		id, _ := parseID(a.Message)
		attempts.rows = append(attempts.rows, []any{
			id, a.N, a.Lease, a.Relay, a.Why, a.Port, a.Mode, a.TLS, a.Auth, jsonOf(a.Ladder), fromMicros(&a.Started), a.Duration, jsonOf(a.Results),
		})
	}
	for _, k := range rows.Keys {
		keys.rows = append(keys.rows, []any{k.Key, k.Name, k.Fingerprint, k.Messages, fromMicros(&k.Expires)})
	}
	return []tableRows{messages, contents, recipients, attempts, keys}
}

func fromMicros(n *int64) pgtype.Timestamptz {
	if n == nil {
		return pgtype.Timestamptz{}
	}
	return pgtype.Timestamptz{Time: time.UnixMicro(*n).UTC(), Valid: true}
}

// jsonOf is a structured value as a copy hands it over; nil where there is none.
func jsonOf(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// ReadRest adds up what commits have counted.
func (s *side) ReadRest(ctx context.Context) (r transfer.Rest, err error) {
	t := s.tx(ctx)
	r.Numbers = tally.New()
	t.readNumbers(r.Numbers, 0)
	t.each(`SELECT kind, delta FROM {s}.stats_deltas ORDER BY n`, nil, scanDelta(r.Numbers, nil))
	t.each(`SELECT relay, at, n FROM {s}.turns`, nil, func(rows pgx.Rows) error {
		var turn transfer.Turn
		var at pgtype.Timestamptz
		err := rows.Scan(&turn.Relay, &at, &turn.N)
		turn.At = at.Time.UnixMicro()
		r.Turns = append(r.Turns, turn)
		return err
	})
	t.each(`SELECT relay, since, ends, reason FROM {s}.pauses ORDER BY since, relay`, nil, func(rows pgx.Rows) error {
		var p queue.ManualPause
		var since, ends pgtype.Timestamptz
		err := rows.Scan(&p.Relay, &since, &ends, &p.Reason)
		p.Since, p.Until = timeOf(since), timeOf(ends)
		r.Pauses = append(r.Pauses, p)
		return err
	})
	err = t.send()
	r.Clean()
	return r, err
}

// tx sends statements together, which are one transaction.
func (s *side) tx(ctx context.Context) *tx {
	return &tx{Store: &Store{connector: s.connector, opts: s.opts}, ctx: context.WithoutCancel(ctx), conn: s.conn, batch: &pgx.Batch{}}
}

// PutRest replaces what the store counts.
func (s *side) PutRest(ctx context.Context, mark transfer.Mark, r transfer.Rest) error {
	return s.put(ctx, mark, func(ctx context.Context, _ pgx.Tx) error { return s.putRest(ctx, r) })
}

// putRest is within the connection's transaction.
func (s *side) putRest(ctx context.Context, r transfer.Rest) error {
	t := s.tx(ctx)
	for _, table := range []string{"turns", "pauses", "stats_statuses", "stats_counts", "stats_replies", "stats_deltas"} {
		t.exec(`DELETE FROM {s}.` + table)
	}
	for _, turn := range r.Turns {
		t.exec(`INSERT INTO {s}.turns (relay, at, n) VALUES ($1, $2, $3)`, turn.Relay, fromMicros(&turn.At), turn.N)
	}
	for _, p := range r.Pauses {
		t.exec(`INSERT INTO {s}.pauses (relay, since, ends, reason) VALUES ($1, $2, $3, $4)`, p.Relay, stamp(p.Since), stamp(p.Until), clean(p.Reason))
	}
	t.writeNumbers(transfer.CopyNumbers(r.Numbers).Changed())
	return t.send()
}
