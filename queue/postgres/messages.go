package postgres

import (
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// A command locks the rows of its messages, reads them with their recipients, changes them
// in memory, and writes what has changed: two round trips, however many they are. Whoever
// changes a recipient has its message's lock, so that one of two that finish it sees that
// all are final. A mark alone does without, see [Store.Mark]; it changes nothing but marks.

// message is one whose row is locked.
type message struct {
	id                              key
	key, reversePath                string
	status                          queue.Status
	priority                        mailer.Priority
	size                            int64
	created, sendAt, expires, clock pgtype.Timestamptz
	lifetime                        *int64 // in microseconds, as it was before the first retry
	final, hasContent, suspect      bool
	contentUntil                    pgtype.Timestamptz
	crashes, attempts               int
	recipients                      []*recipient

	changed bool
	drop    bool // the content goes
}

// recipient is one of a message whose row is locked.
type recipient struct {
	n                        int
	path                     string
	state                    queue.State
	due                      pgtype.Timestamptz
	route, lane              string
	markRoute, owner, result *string
	lease                    int64
	marked                   int
	cancel                   bool
	tries, attempts          int

	changed  bool
	canceled bool // cancel alone has changed
}

// What recipients.marked tells, each a bit.
const (
	markContent = 1 << iota // content is about to be sent
	markAlone               // the message is the only one in hand
)

func (r *recipient) waits() bool { return r.owner == nil && r.due.Valid }

func (r *recipient) ownedBy(owner string) bool { return r.owner != nil && *r.owner == owner }

// has says that the recipient's lease has the number; zero is any.
func (r *recipient) has(lease int64) bool { return lease == 0 || lease == r.lease }

// unlease ends the lease.
func (r *recipient) unlease() {
	r.owner, r.marked, r.markRoute, r.changed = nil, 0, nil, true
}

// end gives the recipient a final state outside an attempt, and ends its lease.
func (r *recipient) end(state queue.State) {
	r.state, r.due = state, pgtype.Timestamptz{}
	r.unlease()
}

const (
	lockMessages = `SELECT id, key, reverse_path, status, priority, size, created, send_at, expires, clock, lifetime, final, has_content,
		suspect, content_until, crashes, attempts FROM {s}.messages WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`
	readRecipients = `SELECT message, n, forward_path, state, due, route, lane, mark_route, owner, lease, marked, cancel, tries, attempts
		FROM {s}.recipients WHERE message = ANY ($1) ORDER BY message, n`
)

// loaded are the messages of a transaction.
type loaded struct {
	*tx
	all   []*message // by id
	byID  map[key]*message
	count *tally.Tally
	usage queue.Usage // what is not final changes by that
	turns []turnCount
	added []attempt
}

// attempt is one that is stored.
type attempt struct {
	message key
	n       int
	lease   int64
	mailer.Attempt
}

// load locks the messages, and reads them. With marks it waits for marks under way, so that
// each is seen.
func (t *tx) load(ids []key, marks bool) (*loaded, error) {
	l := t.loading(ids, marks)
	return l, t.send()
}

// loading is load before it is sent.
func (t *tx) loading(ids []key, marks bool) *loaded {
	l := &loaded{tx: t, byID: map[key]*message{}, count: tally.New()}
	t.each(lockMessages, []any{ids}, func(rows pgx.Rows) error {
		m := &message{}
		err := rows.Scan(&m.id, &m.key, &m.reversePath, &m.status, &m.priority, &m.size, &m.created, &m.sendAt, &m.expires, &m.clock,
			&m.lifetime, &m.final, &m.hasContent, &m.suspect, &m.contentUntil, &m.crashes, &m.attempts)
		l.all = append(l.all, m)
		l.byID[m.id] = m
		return err
	})
	query := readRecipients
	if marks {
		query += " FOR UPDATE"
	}
	t.each(query, []any{ids}, func(rows pgx.Rows) error {
		r := &recipient{}
		var id key
		err := rows.Scan(&id, &r.n, &r.path, &r.state, &r.due, &r.route, &r.lane, &r.markRoute, &r.owner, &r.lease, &r.marked, &r.cancel,
			&r.tries, &r.attempts)
		if m := l.byID[id]; m != nil {
			m.recipients = append(m.recipients, r)
		}
		return err
	})
	return l
}

// message returns the message when key may see it; nil otherwise.
func (l *loaded) message(of, id string) *message {
	raw, ok := parseID(id)
	if !ok {
		return nil
	}
	m := l.byID[raw]
	if m == nil || of != queue.AnyKey && of != m.key {
		return nil
	}
	return m
}

// settle derives from its recipients what a message is, and says whether it became final
// by that. The content of one that nobody can retry is dropped.
func (l *loaded) settle(m *message, now time.Time) bool {
	states := map[queue.State]int{}
	for _, r := range m.recipients {
		states[r.state]++
	}
	status := queue.StatusOf(states)
	l.count.Apply(tally.Change{Key: m.key, From: m.status, To: status})
	waits := states[queue.Queued] + states[queue.Deferred]
	was, final := m.final, waits+states[queue.Held] == 0
	m.status, m.final, m.changed = status, final, true
	switch {
	case final && !was:
		l.usage.Messages, l.usage.Bytes = l.usage.Messages-1, l.usage.Bytes-m.size
	case was && !final:
		l.usage.Messages, l.usage.Bytes = l.usage.Messages+1, l.usage.Bytes+m.size
	}
	switch {
	case !final && waits == 0:
		m.clock = never
	case !final:
		m.clock = m.expires
	case !was:
		m.clock = stamp(now)
	}
	if final && m.hasContent && states[queue.Bounced]+states[queue.Expired] == 0 {
		if keep := l.opts.KeepBodies; keep > 0 {
			m.contentUntil = stamp(now.Add(keep))
		} else {
			m.hasContent, m.contentUntil, m.drop = false, pgtype.Timestamptz{}, true
		}
	}
	return final && !was
}

// addAttempt stores an attempt.
func (l *loaded) addAttempt(m *message, lease int64, a mailer.Attempt) {
	m.attempts++
	m.changed = true
	l.added = append(l.added, attempt{m.id, m.attempts, lease, a})
}

const (
	updateMessages = `UPDATE {s}.messages AS m SET status = u.status, final = u.final, clock = u.clock, expires = u.expires, lifetime = u.lifetime,
		has_content = u.has_content, content_until = u.content_until, suspect = u.suspect, crashes = u.crashes, attempts = u.attempts
		FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::timestamptz[], $5::timestamptz[], $6::bigint[], $7::bool[], $8::timestamptz[],
			$9::bool[], $10::int[], $11::int[])
			AS u (id, status, final, clock, expires, lifetime, has_content, content_until, suspect, crashes, attempts)
		WHERE m.id = u.id`
	updateRecipients = `UPDATE {s}.recipients AS r SET state = u.state, due = u.due, route = u.route, lane = u.lane, mark_route = u.mark_route,
		owner = u.owner, lease = u.lease, marked = u.marked, cancel = u.cancel, tries = u.tries, attempts = u.attempts,
		result = coalesce(u.result::jsonb, r.result)
		FROM unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
			$10::smallint[], $11::bool[], $12::int[], $13::int[], $14::text[])
			AS u (message, n, state, due, route, lane, mark_route, owner, lease, marked, cancel, tries, attempts, result)
		WHERE r.message = u.message AND r.n = u.n`
	cancelRecipients = `UPDATE {s}.recipients AS r SET cancel = true FROM unnest($1::uuid[], $2::int[]) AS u (message, n)
		WHERE r.message = u.message AND r.n = u.n`
	insertAttempts = `INSERT INTO {s}.attempts (message, n, lease, relay, why, port, mode, tls, auth, ladder, started, duration, results)
		SELECT * FROM (SELECT message, n, lease, relay, why, port, mode, tls, auth, ladder::jsonb, started, duration, results::jsonb
			FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[], $9::text[], $10::text[],
				$11::timestamptz[], $12::bigint[], $13::text[])
			AS u (message, n, lease, relay, why, port, mode, tls, auth, ladder, started, duration, results)) AS v
		ON CONFLICT (message, n) DO NOTHING`
)

// save adds to what is sent next all that has changed.
func (l *loaded) save() error {
	l.saveRecipients()
	l.saveMessages()
	if err := l.saveAttempts(); err != nil {
		return err
	}
	l.saveTurns(l.turns)
	return l.saveNumbers(l.count, l.usage)
}

func (l *loaded) saveMessages() {
	var ids, dropped []key
	var status []string
	var final, content, suspect []bool
	var clock, expires, until []pgtype.Timestamptz
	var lifetime []*int64
	var crashes, attempts []int
	for _, m := range l.all {
		if m.drop {
			dropped = append(dropped, m.id)
		}
		if !m.changed {
			continue
		}
		ids = append(ids, m.id)
		status = append(status, string(m.status))
		final, content, suspect = append(final, m.final), append(content, m.hasContent), append(suspect, m.suspect)
		clock, expires, until = append(clock, m.clock), append(expires, m.expires), append(until, m.contentUntil)
		lifetime = append(lifetime, m.lifetime)
		crashes, attempts = append(crashes, m.crashes), append(attempts, m.attempts)
	}
	if len(ids) > 0 {
		l.exec(updateMessages, ids, status, final, clock, expires, lifetime, content, until, suspect, crashes, attempts)
	}
	if len(dropped) > 0 {
		l.exec(`DELETE FROM {s}.contents WHERE message = ANY ($1)`, dropped)
	}
}

func (l *loaded) saveRecipients() {
	var ids, canceledIDs []key
	var n, canceled, tries, attempts []int
	var state, route, lane []string
	var due []pgtype.Timestamptz
	var markRoute, owner, result []*string
	var lease []int64
	var marked []int16
	var cancel []bool
	for _, m := range l.all {
		for _, r := range m.recipients {
			switch {
			case r.changed:
			case r.canceled:
				canceledIDs, canceled = append(canceledIDs, m.id), append(canceled, r.n)
				continue
			default:
				continue
			}
			ids, n, state, due = append(ids, m.id), append(n, r.n), append(state, string(r.state)), append(due, r.due)
			route, lane, markRoute = append(route, r.route), append(lane, r.lane), append(markRoute, r.markRoute)
			owner, lease, marked = append(owner, r.owner), append(lease, r.lease), append(marked, int16(r.marked))
			cancel, tries, attempts = append(cancel, r.cancel), append(tries, r.tries), append(attempts, r.attempts)
			result = append(result, r.result)
			if r.waits() {
				l.lanes.put(r.route, r.lane, r.due.Time)
			}
		}
	}
	if len(ids) > 0 {
		l.exec(updateRecipients, ids, n, state, due, route, lane, markRoute, owner, lease, marked, cancel, tries, attempts, result)
	}
	if len(canceled) > 0 {
		l.exec(cancelRecipients, canceledIDs, canceled)
	}
}

func (l *loaded) saveAttempts() error {
	if len(l.added) == 0 {
		return nil
	}
	var ids []key
	var n, port []int
	var lease, duration []int64
	var relay, why, mode, version, auth []string
	var ladder, results []*string
	var begun []pgtype.Timestamptz
	for _, a := range l.added {
		packed, err := toJSON(stored.PackResults(a.Results))
		if err != nil {
			return err
		}
		var rungs *string
		if len(a.Ladder) > 0 {
			if rungs, err = toJSON(stored.PackLadder(a.Ladder)); err != nil {
				return err
			}
		}
		ids, n, lease = append(ids, a.message), append(n, a.n), append(lease, a.lease)
		relay, why = append(relay, clean(a.Relay)), append(why, clean(a.Why))
		port, mode = append(port, a.Rung.Port), append(mode, stored.ModeOf(a.Rung))
		version, auth = append(version, clean(a.TLS)), append(auth, clean(a.Auth))
		ladder, results = append(ladder, rungs), append(results, packed)
		begun, duration = append(begun, stamp(a.Started)), append(duration, a.Duration.Microseconds())
	}
	for i := range begun {
		if !begun[i].Valid { // NULL is not allowed, and no time is a time
			begun[i] = pgtype.Timestamptz{Time: time.Time{}, Valid: true}
		}
	}
	l.exec(insertAttempts, ids, n, lease, relay, why, port, mode, version, auth, ladder, begun, duration, results)
	return nil
}

// leasedBy returns the message's recipients that owner has leased.
func (m *message) leasedBy(owner string) []*recipient {
	return slices.DeleteFunc(slices.Clone(m.recipients), func(r *recipient) bool { return !r.ownedBy(owner) })
}
