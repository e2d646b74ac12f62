package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/queue"
	"mailsidecar/queue/stored"
)

const (
	// chunkSize is how many octets of a message one row holds. Two such rows fit a page.
	chunkSize = 7600
	// insertWriters is how many groups are written at a time.
	insertWriters = 2
	// What a group takes; one request may have more.
	groupRequests = 64
	groupOctets   = 1 << 20
	// longestGather is how long a group waits for more requests at most.
	longestGather = 2 * time.Millisecond
	// pieceRows is how many rows of a large request's content are sent at a time.
	pieceRows = groupOctets / chunkSize
	// The pauses between tries while it is unknown what became of a group.
	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second
)

// inserts writes new messages: requests that come at the same time share a commit.
//
// What it holds in memory is bounded by its callers' own memory: a request that no writer has
// taken leaves with its caller. A writer has one group; the octets of a caller who has left
// are let go of once that group is answered, or its connection has ended. One writer at a time
// has a large request, and sends it in pieces.
type inserts struct {
	store *Store

	mu      sync.Mutex
	waiting []*insertion
	large   bool // a writer has a large request
	closed  bool
	wake    *sync.Cond
	writers sync.WaitGroup

	repeats atomic.Pointer[time.Time] // when something was there already the last time
}

// insertion is one request.
type insertion struct {
	queue.Batch
	ids    []key
	octets int64
	done   chan struct{}
	left   atomic.Bool // nobody waits for the answer any more

	again    bool // it was sent before
	doubted  bool // and not answered
	replayed []string
	err      error
}

func newInserts(s *Store) *inserts {
	in := &inserts{store: s}
	in.wake = sync.NewCond(&in.mu)
	for range insertWriters {
		in.writers.Go(in.write)
	}
	return in
}

// Insert stores the batch in a commit that other requests share. When ctx ends, or the
// answer takes too long, it returns, and the batch may be stored all the same.
func (s *Store) Insert(ctx context.Context, b queue.Batch) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	i := &insertion{Batch: b, done: make(chan struct{})}
	for _, e := range b.Entries {
		id, ok := parseID(e.Message.ID)
		if !ok {
			return nil, errors.New("message id is not a UUID")
		}
		i.ids = append(i.ids, id)
		i.octets += int64(len(e.Content.Data)) + 1000
	}
	if len(i.ids) == 0 {
		return nil, nil
	}
	if err := s.inserts.add(i); err != nil {
		return nil, err
	}
	patience := time.NewTimer(s.opts.Patience)
	defer patience.Stop()
	select {
	case <-i.done:
		return i.replayed, i.err
	case <-ctx.Done():
		s.inserts.leave(i)
		return nil, ctx.Err()
	case <-patience.C:
		s.inserts.leave(i)
		err := fmt.Errorf("%w: no answer to a commit", queue.ErrUnavailable)
		s.answered(err)
		return nil, err
	}
}

func (in *inserts) add(i *insertion) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return queue.ErrClosed
	}
	in.waiting = append(in.waiting, i)
	in.wake.Signal()
	return nil
}

// leave says that nobody waits for the answer to a request any more. It is not stored unless
// it was sent.
func (in *inserts) leave(i *insertion) {
	i.left.Store(true)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.waiting = slices.DeleteFunc(in.waiting, func(w *insertion) bool { return w == i })
}

// close ends the writers once what waits is written, or the database cannot be asked.
func (in *inserts) close() {
	in.mu.Lock()
	in.closed = true
	in.wake.Broadcast()
	in.mu.Unlock()
	in.writers.Wait()
}

func (in *inserts) write() {
	var last int           // how many requests the last group had
	var took time.Duration // and how long it took
	for {
		in.gather(last, min(took/8, longestGather))
		group := in.next()
		if group == nil {
			return
		}
		began := time.Now()
		in.store.writeGroup(group)
		if isLarge(group) {
			in.mu.Lock()
			in.large = false
			in.wake.Broadcast()
			in.mu.Unlock()
		}
		last, took = len(group), time.Since(began)
		for _, i := range group {
			close(i.done)
		}
	}
}

// gather waits until as many requests wait as the last group had, or for so long once one waits.
// Callers that are answered often come again at once, and not all in the same moment: the first of
// them would take a commit alone, and the others would have to wait for it.
func (in *inserts) gather(last int, limit time.Duration) {
	if last < 2 { // there may be one caller only
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var timer *time.Timer
	over := false
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for !in.closed && len(in.waiting) < last {
		switch {
		case over && len(in.waiting) > 0:
			return
		case over: // the other writer has taken them
			timer, over = nil, false
		case timer == nil && len(in.waiting) > 0:
			timer = time.AfterFunc(limit, func() {
				in.mu.Lock()
				defer in.mu.Unlock()
				over = true
				in.wake.Broadcast()
			})
		}
		in.wake.Wait()
	}
}

// isLarge says that the group is one request that is larger than a group should be.
func isLarge(group []*insertion) bool { return len(group) == 1 && group[0].octets > groupOctets }

// next waits for requests, and takes those that may share a commit. It returns nil after close,
// once no request is left.
func (in *inserts) next() (group []*insertion) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		if group = in.take(); group != nil {
			if isLarge(group) {
				in.large = true
			}
			if len(in.waiting) > 0 {
				in.wake.Signal()
			}
			return group
		}
		if in.closed && len(in.waiting) == 0 {
			return nil
		}
		in.wake.Wait()
	}
}

// take takes requests for one commit. Two with the same key or message do not share one.
func (in *inserts) take() (group []*insertion) {
	var left []*insertion
	keys, ids, octets := map[[2]string]bool{}, map[key]bool{}, int64(0)
	for n, i := range in.waiting {
		full := len(group) > 0 && (len(group) == groupRequests || octets+i.octets > groupOctets)
		if full {
			left = append(left, in.waiting[n:]...)
			break
		}
		if in.large && i.octets > groupOctets ||
			i.Idempotency != nil && keys[[2]string{i.Idempotency.Key, i.Idempotency.Name}] || slices.ContainsFunc(i.ids, func(id key) bool { return ids[id] }) {
			left = append(left, i)
			continue
		}
		group = append(group, i)
		octets += i.octets
		if i.Idempotency != nil {
			keys[[2]string{i.Idempotency.Key, i.Idempotency.Name}] = true
		}
		for _, id := range i.ids {
			ids[id] = true
		}
	}
	in.waiting = left
	return group
}

// writeGroup stores the requests, and finds out what became of them: each is stored, or is
// not, or was stored before. While that is unknown it asks again, for those who wait for the
// answer. For the others that would only do harm: they were told that it is unknown, and may
// have repeated their request.
func (s *Store) writeGroup(group []*insertion) {
	ctx, sent := context.Background(), false
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if group = whoWait(group); len(group) == 0 {
			return
		}
		err := s.tryGroup(ctx, group, &sent)
		var end error
		switch {
		case err == nil:
			s.answered(nil)
			return
		case errors.Is(err, errFault), !sent:
			end = err
		case again(err):
			continue
		case isReadOnly(err):
			end = err
		case !unknown(err) && len(group) > 1: // one of them may be to blame
			for _, i := range group {
				s.writeGroup([]*insertion{i})
			}
			return
		case !unknown(err):
			end = err
		}
		if end == nil {
			s.answered(s.storeError(err))
			for _, i := range group {
				i.doubted = true
			}
			select {
			case <-s.ended:
				end = err
			case <-time.After(pause):
				continue
			}
		}
		end = s.storeError(end)
		s.answered(end)
		for _, i := range group {
			if i.err = end; i.doubted && !errors.Is(end, queue.ErrUnavailable) && !errors.Is(err, errFault) {
				// That is of this try alone.
				i.err = fmt.Errorf("%w: an earlier try was not answered, and then: %v", queue.ErrUnavailable, end) //nolint:errorlint // it must not read as certain
			}
		}
		return
	}
}

// whoWait are the requests whose callers wait for the answer.
func whoWait(group []*insertion) (waiting []*insertion) {
	for _, i := range group {
		if !i.left.Load() {
			waiting = append(waiting, i)
		}
	}
	return waiting
}

// errFault is a fault that a test has made.
var errFault = errors.New("fault")

// tryGroup stores what is not stored yet. sent says that the database may have got something,
// now or before.
func (s *Store) tryGroup(ctx context.Context, group []*insertion, sent *bool) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if s.fault != nil {
		if err := s.fault(false); err != nil {
			return errors.Join(errFault, err)
		}
	}
	for _, i := range group {
		i.again = i.again || *sent
	}
	*sent = true
	fresh, err := s.insertGroup(ctx, conn.Conn(), group)
	if isReadOnly(err) {
		_ = conn.Conn().Close(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.askOthers(ctx, conn.Conn(), group, fresh); err != nil {
		return err
	}
	if s.fault != nil {
		if err := s.fault(true); err != nil {
			return errors.Join(errFault, err)
		}
	}
	return nil
}

const (
	insertKeys = `INSERT INTO {s}.idempotency AS i (key, name, fingerprint, messages, expires)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::timestamptz[])
		ON CONFLICT (key, name) DO UPDATE SET fingerprint = excluded.fingerprint, messages = excluded.messages, expires = excluded.expires
			WHERE i.expires <= excluded.expires - $6::interval`
	// insertMessages stores the requests whose keys are theirs by now, and of which no message
	// is stored yet: all of a request, or nothing.
	insertMessages = `WITH lost AS MATERIALIZED (
		SELECT k.b FROM unnest($1::int[], $2::text[], $3::text[], $4::bytea[]) AS k (b, key, name, messages)
		WHERE (SELECT i.messages FROM {s}.idempotency AS i WHERE i.key = k.key AND i.name = k.name) IS DISTINCT FROM k.messages),
	known AS MATERIALIZED (SELECT id FROM {s}.messages WHERE id = ANY ($5)),
	u AS MATERIALIZED (
		SELECT * FROM unnest($5::uuid[], $6::int[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bool[],
			$15::bool[], $16::smallint[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[], $20::uuid[], $21::int[])
			AS u (id, b, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at, expires, resent_of, recipients)),
	wanted AS MATERIALIZED (
		SELECT * FROM u WHERE b NOT IN (SELECT b FROM lost) AND b NOT IN (SELECT b FROM u WHERE id IN (SELECT id FROM known))),
	fresh AS (
		INSERT INTO {s}.messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, status, final, clock, has_content, resent_of)
		SELECT id, key, message_id, sender, subject, tags::jsonb, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, 'queued', false, expires, true, resent_of FROM wanted ORDER BY id
		ON CONFLICT (id) DO NOTHING RETURNING id),
	c AS (
		INSERT INTO {s}.contents (message, n, data) SELECT * FROM unnest($22::uuid[], $23::int[], $24::bytea[]) AS c (message, n, data)
		WHERE message IN (SELECT id FROM fresh)),
	r AS (
		INSERT INTO {s}.recipients (message, n, forward_path, state, due, route, lane, owner)
		SELECT message, n, forward_path, 'queued', due, route, lane, owner
		FROM unnest($25::uuid[], $26::int[], $27::text[], $28::timestamptz[], $29::text[], $30::text[], $31::text[])
			AS r (message, n, forward_path, due, route, lane, owner)
		WHERE message IN (SELECT id FROM fresh)),
	d AS (
		INSERT INTO {s}.stats_deltas (kind, delta)
		SELECT 0, json_agg(json_build_array(u.key, (extract(epoch FROM u.created) * 1000000)::bigint, u.recipients, u.size))::text
		FROM u WHERE id IN (SELECT id FROM fresh) HAVING count(*) > 0)
	SELECT id FROM fresh`
	// These store requests of which nothing is there, and fail where something is. They are much
	// simpler than those above, and the database plans each statement each time.
	plainKeys     = `INSERT INTO {s}.idempotency (key, name, fingerprint, messages, expires) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::timestamptz[])`
	plainMessages = `INSERT INTO {s}.messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, resent_of, status, final, clock, has_content)
		SELECT id, key, message_id, sender, subject, tags::jsonb, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, resent_of, 'queued', false, expires, true
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bool[], $10::bool[], $11::smallint[],
			$12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::uuid[])
			AS u (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at, expires, resent_of)`
	plainContents   = `INSERT INTO {s}.contents (message, n, data) SELECT * FROM unnest($1::uuid[], $2::int[], $3::bytea[])`
	plainRecipients = `INSERT INTO {s}.recipients (message, n, forward_path, due, route, lane, owner, state)
		SELECT r.*, 'queued' FROM unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[]) AS r`
	linkResent = `UPDATE {s}.messages SET resent_as = (array_append(resent_as, $2::uuid))[greatest(1, coalesce(cardinality(resent_as), 0) + 2 - $3::int):]
		WHERE id = $1 AND NOT coalesce($2::uuid = ANY (resent_as), false) AND EXISTS (SELECT FROM {s}.messages WHERE id = $2 AND resent_of = $1)`
)

// carefulTime is for how long groups are not taken for new after something was there already: whoever
// repeats requests often does so again, and a group that is sent twice costs its time twice.
const carefulTime = 10 * time.Second

// insertGroup sends the group in one transaction, and returns the messages that were not there
// before. It takes one round trip, but for a large request, of which the content follows in
// pieces: the driver holds twice what it sends at a time.
func (s *Store) insertGroup(ctx context.Context, conn *pgx.Conn, group []*insertion) (map[key]bool, error) {
	plain := !slices.ContainsFunc(group, func(i *insertion) bool { return i.again })
	if at := s.inserts.repeats.Load(); at != nil && time.Since(*at) < carefulTime &&
		slices.ContainsFunc(group, func(i *insertion) bool { return i.Idempotency != nil }) {
		plain = false
	}
	fresh, err := s.insertAs(ctx, conn, group, plain)
	if plain && isRepeat(err) {
		now := time.Now()
		s.inserts.repeats.Store(&now)
		fresh, err = s.insertAs(ctx, conn, group, false)
	}
	return fresh, err
}

// isRepeat says that something is stored already (unique_violation). By that nothing has happened.
func isRepeat(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "23505"
}

func (s *Store) insertAs(ctx context.Context, conn *pgx.Conn, group []*insertion, plain bool) (_ map[key]bool, err error) {
	t := &tx{Store: s, ctx: ctx, conn: conn, batch: &pgx.Batch{}}
	fresh := map[key]bool{}
	large := isLarge(group)
	if large {
		t.exec(beginSQL)
		t.exec(settingsSQL)
		defer func() {
			if err != nil {
				t.rollBack()
			}
		}()
	}
	if err := t.insert(group, fresh, !large, plain); err != nil {
		return nil, err
	}
	delete(conn.PgConn().CustomData(), warned)
	if s.cut != nil {
		if err := s.cut(false); err != nil {
			return nil, err
		}
	}
	if err := t.send(); err != nil {
		return nil, err
	}
	if large {
		if err := t.insertPieces(group[0], fresh); err != nil {
			return nil, err
		}
	}
	if s.cut != nil {
		if err := s.cut(true); err != nil {
			return nil, err
		}
	}
	return fresh, unknownCommit(conn)
}

// insertPieces sends the contents of a large request, and commits. A piece may have the contents of many messages.
func (t *tx) insertPieces(i *insertion, fresh map[key]bool) error {
	var of []key
	var numbers []int
	var chunks [][]byte
	add := func() { t.exec(plainContents, of, numbers, chunks) }
	for m, e := range i.Entries {
		if !fresh[i.ids[m]] {
			continue
		}
		n := 0
		for data := range slices.Chunk(e.Content.Data, chunkSize) {
			if len(of) == pieceRows {
				add()
				if err := t.send(); err != nil {
					return err
				}
				of, numbers, chunks = of[:0], numbers[:0], chunks[:0]
			}
			of, numbers, chunks = append(of, i.ids[m]), append(numbers, n), append(chunks, data)
			n++
		}
	}
	if len(of) > 0 {
		add()
	}
	t.batch.Queue("COMMIT").Exec(committed)
	return t.send()
}

// insertContent adds rows of a message's content, from that number on.
func (t *tx) insertContent(id key, from int, data []byte) {
	var n []int
	var chunks [][]byte
	for chunk := range slices.Chunk(data, chunkSize) {
		n, chunks = append(n, from+len(n)), append(chunks, chunk)
	}
	t.exec(`INSERT INTO {s}.contents (message, n, data) SELECT $1, n, data FROM unnest($2::int[], $3::bytea[]) AS c (n, data)`, id, n, chunks)
}

// numbered is a request with its number in the group.
type numbered struct {
	*insertion
	b int
}

// insert adds the statements. Without BEGIN they are one transaction. The plain ones fail where something is
// stored already.
func (t *tx) insert(group []*insertion, fresh map[key]bool, contents, plain bool) error {
	var keyed []numbered
	for b, i := range group {
		if i.Idempotency != nil {
			keyed = append(keyed, numbered{i, b})
		}
	}
	// Two groups lock keys in the same order.
	slices.SortFunc(keyed, func(a, b numbered) int {
		return cmp.Or(strings.Compare(a.Idempotency.Key, b.Idempotency.Key), strings.Compare(a.Idempotency.Name, b.Idempotency.Name))
	})
	var number []int
	var keys, names []string
	var prints, messages [][]byte
	var expires []pgtype.Timestamptz
	for _, i := range keyed {
		number, keys, names = append(number, i.b), append(keys, i.Idempotency.Key), append(names, i.Idempotency.Name)
		prints, messages = append(prints, i.Idempotency.Fingerprint[:]), append(messages, joinIDs(i.ids))
		expires = append(expires, stamp(i.Idempotency.Expires))
	}
	switch {
	case len(keyed) == 0:
	case plain:
		t.exec(plainKeys, keys, names, prints, messages, expires)
	default:
		t.exec(insertKeys, keys, names, prints, messages, expires, queue.IdempotencyLife)
	}
	rows := insertRows{contents: contents}
	for b, i := range group {
		for n := range i.Entries {
			if err := rows.add(b, i.ids[n], &i.Entries[n]); err != nil {
				return err
			}
			if e := &i.Entries[n]; e.Owner == "" {
				t.lanes.put(e.Route, stored.LaneText(e.Message.Lane()), e.Due)
			}
		}
	}
	if plain {
		if err := t.insertPlain(&rows, fresh); err != nil {
			return err
		}
	} else {
		t.each(insertMessages, append([]any{number, keys, names, messages}, rows.args()...), func(r pgx.Rows) error {
			var id key
			err := r.Scan(&id)
			fresh[id] = true
			return err
		})
	}
	for _, link := range rows.links() {
		t.exec(linkResent, link[0], link[1], queue.MaxResent)
	}
	return nil
}

// insertPlain adds the statements for messages of which none is stored.
func (t *tx) insertPlain(rows *insertRows, fresh map[key]bool) error {
	type accepted [4]any
	var counts []accepted
	for n, id := range rows.ids {
		fresh[id] = true
		counts = append(counts, accepted{rows.key[n], rows.created[n].Time.UnixMicro(), rows.recipients[n], rows.size[n]})
	}
	delta, err := toJSON(counts)
	if err != nil {
		return err
	}
	args := rows.args()
	t.exec(plainMessages, append(args[:1:1], args[2:16]...)...)
	if rows.contents {
		t.exec(plainContents, args[17:20]...)
	}
	t.exec(plainRecipients, args[20:27]...)
	t.exec(`INSERT INTO {s}.stats_deltas (kind, delta) VALUES ($1, $2)`, deltaAccepted, *delta)
	return nil
}

// joinIDs is how an idempotency key keeps the ids of its messages.
func joinIDs(ids []key) (joined []byte) {
	for _, id := range ids {
		joined = append(joined, id[:]...)
	}
	return joined
}

// insertRows are the columns of a group.
type insertRows struct {
	contents                                     bool // they are among the columns
	ids                                          []key
	b, recipients                                []int
	key, messageID, sender, subject, reversePath []string
	tags                                         []*string
	size                                         []int64
	eightBit, utf8Header                         []bool
	priority                                     []int16
	created, sendAt, expires                     []pgtype.Timestamptz
	resentOf                                     []pgtype.UUID
	chunkOf                                      []key
	chunkN                                       []int
	chunks                                       [][]byte
	recipientOf                                  []key
	recipientN                                   []int
	path, route, lane                            []string
	due                                          []pgtype.Timestamptz
	owner                                        []*string
}

func (r *insertRows) add(b int, id key, e *queue.Entry) error {
	m := &e.Message
	var tags *string
	var err error
	if len(m.Tags) > 0 {
		if tags, err = toJSON(m.Tags); err != nil {
			return err
		}
	}
	var earlier pgtype.UUID
	if m.ResentOf != "" {
		raw, ok := parseID(m.ResentOf)
		if !ok {
			return errors.New("id of the earlier message is not a UUID")
		}
		earlier = pgtype.UUID{Bytes: raw, Valid: true}
	}
	r.ids, r.b, r.recipients = append(r.ids, id), append(r.b, b), append(r.recipients, len(m.Envelope.ForwardPaths))
	r.key, r.messageID, r.sender = append(r.key, m.Key), append(r.messageID, m.MessageID), append(r.sender, m.Sender)
	r.subject, r.reversePath, r.tags = append(r.subject, clean(m.Subject)), append(r.reversePath, m.Envelope.ReversePath), append(r.tags, tags)
	r.size, r.eightBit, r.utf8Header = append(r.size, m.Size), append(r.eightBit, e.Content.EightBit), append(r.utf8Header, e.Content.UTF8Header)
	r.priority = append(r.priority, int16(m.Envelope.Priority))
	r.created, r.sendAt, r.expires = append(r.created, stamp(m.Created)), append(r.sendAt, stamp(m.SendAt)), append(r.expires, stamp(m.Expires))
	r.resentOf = append(r.resentOf, earlier)
	if r.contents {
		n := 0
		for data := range slices.Chunk(e.Content.Data, chunkSize) {
			r.chunkOf, r.chunkN, r.chunks = append(r.chunkOf, id), append(r.chunkN, n), append(r.chunks, data)
			n++
		}
	}
	lane := stored.LaneText(m.Lane())
	var owner *string
	if e.Owner != "" {
		owner = &e.Owner
	}
	for n, path := range m.Envelope.ForwardPaths {
		r.recipientOf, r.recipientN, r.path = append(r.recipientOf, id), append(r.recipientN, n), append(r.path, path)
		r.route, r.lane, r.due, r.owner = append(r.route, e.Route), append(r.lane, lane), append(r.due, stamp(e.Due)), append(r.owner, owner)
	}
	return nil
}

func (r *insertRows) args() []any {
	return []any{
		r.ids, r.b, r.key, r.messageID, r.sender, r.subject, r.tags, r.reversePath, r.size, r.eightBit, r.utf8Header, r.priority,
		r.created, r.sendAt, r.expires, r.resentOf, r.recipients, r.chunkOf, r.chunkN, r.chunks,
		r.recipientOf, r.recipientN, r.path, r.due, r.route, r.lane, r.owner,
	}
}

// links are the messages that send an earlier one again: the earlier one, and they. Rows of
// messages are locked in the order of their ids.
func (r *insertRows) links() (links [][2]key) {
	for i, earlier := range r.resentOf {
		if earlier.Valid {
			links = append(links, [2]key{earlier.Bytes, r.ids[i]})
		}
	}
	slices.SortFunc(links, func(a, b [2]key) int {
		return cmp.Or(bytes.Compare(a[0][:], b[0][:]), bytes.Compare(a[1][:], b[1][:]))
	})
	return links
}

// askOthers finds out about the requests that were not stored just now. It locks what it
// finds: its commit then waits until a standby has that, and by that the commit that stored
// it, which may have had no answer.
func (s *Store) askOthers(ctx context.Context, conn *pgx.Conn, group []*insertion, fresh map[key]bool) error {
	var others []*insertion
	var ids []key
	for _, i := range group {
		if !fresh[i.ids[0]] {
			others = append(others, i)
			ids = append(ids, i.ids...)
		}
	}
	if len(others) == 0 {
		return nil
	}
	_, err := writeOnce(ctx, s, conn, func(t *tx) (none struct{}, err error) {
		found := map[key]bool{} // and whether it is the same message
		of := map[key]*queue.Message{}
		for _, i := range others {
			for n, id := range i.ids {
				of[id] = &i.Entries[n].Message
			}
		}
		t.each(`SELECT id, key, message_id, created, size FROM {s}.messages WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`, []any{ids}, func(rows pgx.Rows) error {
			var id key
			var m queue.Message
			var created pgtype.Timestamptz
			err := rows.Scan(&id, &m.Key, &m.MessageID, &created, &m.Size)
			as := of[id]
			found[id] = m.Key == as.Key && m.MessageID == as.MessageID && created.Time.Equal(stamp(as.Created).Time) && m.Size == as.Size
			return err
		})
		if err := t.send(); err != nil {
			return none, err
		}
		for _, i := range others {
			if err := t.judge(i, found); err != nil {
				return none, err
			}
		}
		return none, nil
	})
	return err
}

// judge says what became of a request that was not stored just now.
func (t *tx) judge(i *insertion, found map[key]bool) error {
	i.replayed, i.err = nil, nil
	if i.Idempotency != nil {
		replayed, err := t.replay(i.Idempotency)
		switch {
		case errors.Is(err, queue.ErrIdempotencyMismatch):
			i.err = err
			return nil
		case err != nil:
			return err
		case i.again && bytes.Equal(joinIDs(parseIDs(replayed)), joinIDs(i.ids)): // it was this call
			return nil
		case replayed != nil:
			i.replayed = replayed
			return nil
		}
	}
	known := 0
	for _, id := range i.ids {
		same, ok := found[id]
		if ok {
			known++
		}
		if ok && !same {
			i.err = fmt.Errorf("message id %s is taken", textOf(id))
			return nil
		}
	}
	switch {
	case known == len(i.ids):
	case known > 0:
		i.err = errors.New("some messages of the batch are stored already")
	default:
		return errUnknown // it was removed in between: once more
	}
	return nil
}

// replay looks an idempotency key up, and locks it, for the same reason.
func (t *tx) replay(i *queue.Idempotency) (ids []string, err error) {
	var fingerprint, messages []byte
	t.each(`SELECT fingerprint, messages FROM {s}.idempotency WHERE key = $1 AND name = $2 AND expires > $3 FOR KEY SHARE`,
		[]any{i.Key, i.Name, stamp(i.Expires.Add(-queue.IdempotencyLife))}, func(rows pgx.Rows) error { return rows.Scan(&fingerprint, &messages) })
	if err := t.send(); err != nil || messages == nil {
		return nil, err
	}
	if !bytes.Equal(fingerprint, i.Fingerprint[:]) {
		return nil, queue.ErrIdempotencyMismatch
	}
	for part := range slices.Chunk(messages, len(key{})) {
		ids = append(ids, textOf(key(part)))
	}
	return ids, nil
}

// Replay is what Insert would answer to a repeated request.
func (s *Store) Replay(ctx context.Context, i queue.Idempotency) ([]string, error) {
	return write(ctx, s, func(t *tx) ([]string, error) { return t.replay(&i) })
}
