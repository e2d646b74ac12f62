package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// Claim leases the longest waiting messages of each lane.
func (s *Store) Claim(ctx context.Context, owner string, now time.Time, wants []queue.Want) ([]queue.Work, error) {
	var works []queue.Work
	err := s.write(ctx, func(w *writer) error {
		works = nil
		for _, want := range wants {
			ids, err := w.due(want, now)
			if err != nil {
				return err
			}
			for _, id := range ids {
				work, err := w.claim(id, owner, want, now)
				if err != nil {
					return err
				}
				works = append(works, work)
			}
		}
		return nil
	})
	return works, err
}

const dueInLane = `SELECT message FROM recipients INDEXED BY recipients_due
	WHERE route = ? AND lane = ? AND due <= ? AND due IS NOT NULL AND owner IS NULL ORDER BY due`

func (w *writer) due(want queue.Want, now time.Time) ([][]byte, error) {
	var ids [][]byte
	seen := map[string]bool{}
	// One message may have many recipients, so rows are no measure for limit.
	err := w.each(dueInLane,
		[]any{want.Route, stored.LaneText(want.Lane), now.UnixMicro()}, func(rows *sql.Rows) error {
			var id []byte
			if err := rows.Scan(&id); err != nil {
				return err
			}
			if !seen[string(id)] {
				seen[string(id)] = true
				ids = append(ids, id)
			}
			if len(ids) == want.Limit {
				return errEnough
			}
			return nil
		})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return ids, err
}

// errEnough ends a query early.
var errEnough = errors.New("enough")

func (w *writer) claim(id []byte, owner string, want queue.Want, now time.Time) (queue.Work, error) {
	work := queue.Work{Route: want.Route, Key: want.Lane.Key, Envelope: mailer.Envelope{Priority: want.Lane.Priority}}
	var err error
	if work.ID, err = fromBlob(id); err != nil {
		return work, err
	}
	var expires, since sql.NullInt64
	err = w.row(`SELECT message_id, sender, size, eight_bit, utf8_header, expires, max(created, coalesce(send_at, created)), reverse_path, suspect
		FROM messages WHERE id = ?`, []any{id},
		&work.MessageID, &work.Sender, &work.Size, &work.EightBit, &work.UTF8Header, &expires, &since, &work.Envelope.ReversePath, &work.Suspect)
	if err != nil {
		return work, err
	}
	work.Expires, work.Since = fromMicros(expires), fromMicros(since)
	// The plus keeps SQLite from taking the index over what is due, in which this
	// one message would be looked for among all that wait.
	err = w.each(`SELECT forward_path, state, tries, attempts FROM recipients
		WHERE message = ? AND +route = ? AND +due <= ? AND owner IS NULL ORDER BY n`, []any{id, want.Route, now.UnixMicro()},
		func(rows *sql.Rows) error {
			var l queue.Leased
			if err := rows.Scan(&l.ForwardPath, &l.State, &l.Tries, &l.Attempts); err != nil {
				return err
			}
			work.Recipients = append(work.Recipients, l)
			work.Envelope.ForwardPaths = append(work.Envelope.ForwardPaths, l.ForwardPath)
			return nil
		})
	if err != nil {
		return work, err
	}
	work.Lease = w.store.leases.Add(1)
	return work, w.exec(`UPDATE recipients SET owner = ?, marked = 0, lease = ?
		WHERE message = ? AND +route = ? AND +due <= ? AND owner IS NULL`, owner, work.Lease, id, want.Route, now.UnixMicro())
}

// Release ends leases without an attempt.
func (s *Store) Release(ctx context.Context, owner string, now time.Time, leases []queue.Lease) error {
	return s.write(ctx, func(w *writer) error {
		for _, l := range leases {
			if err := w.release(owner, now, l); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *writer) release(owner string, now time.Time, l queue.Lease) error {
	id, _ := blob(l.ID)
	paths, err := toJSON(l.ForwardPaths)
	if err != nil {
		return err
	}
	const these = ` WHERE message = ? AND owner = ? AND ? IN (0, lease) AND forward_path IN (SELECT value FROM json_each(?))`
	if err := w.cancelReleased(these, id, now, owner, l.Number, paths); err != nil {
		return err
	}
	return w.exec(`UPDATE recipients SET owner = NULL, marked = 0, route = ?, due = min(due, ?)`+these, l.Route, now.UnixMicro(), id, owner, l.Number, paths)
}

// Leases reads along the index of what is leased.
func (s *Store) Leases(ctx context.Context, owner string) ([]queue.Lease, error) {
	var leases []queue.Lease
	err := s.view(ctx, func(v *session) error {
		leases = nil
		return v.each(`SELECT message, lease, route, forward_path FROM recipients WHERE owner = ? ORDER BY message, lease, n`, []any{owner},
			func(rows *sql.Rows) error {
				var id []byte
				var l queue.Lease
				var path string
				err := rows.Scan(&id, &l.Number, &l.Route, &path)
				if err == nil {
					l.ID, err = fromBlob(id)
				}
				if n := len(leases); n == 0 || leases[n-1].ID != l.ID || leases[n-1].Number != l.Number {
					leases = append(leases, l)
				}
				last := &leases[len(leases)-1]
				last.ForwardPaths = append(last.ForwardPaths, path)
				return err
			})
	})
	return leases, err
}

// cancelReleased cancels those of the message's leased recipients, selected by
// these with id and args, that somebody wished to cancel: no attempt will.
func (w *writer) cancelReleased(these string, id []byte, now time.Time, args ...any) error {
	n, err := w.affect(`UPDATE recipients SET state = 'canceled', due = NULL, owner = NULL, marked = 0, cancel = 0`+
		these+` AND cancel`, append([]any{id}, args...)...)
	if err != nil || n == 0 {
		return err
	}
	_, err = w.settle(id, now)
	return err
}

// Record stores what came of attempts.
func (s *Store) Record(ctx context.Context, outcomes []queue.Outcome) (queue.Settled, error) {
	var settled queue.Settled
	awaited := slices.ContainsFunc(outcomes, func(o queue.Outcome) bool { return o.Awaited })
	err := s.writer.do(ctx, &write{patient: !awaited, run: func(w *writer) error {
		settled = queue.Settled{}
		for _, o := range outcomes {
			m, err := w.record(o)
			if err != nil {
				return err
			}
			if m.final {
				settled.Messages++
				settled.Bytes += m.size
			}
			if m.suspect && o.Touched() {
				if err := w.acquit(o.ID); err != nil {
					return err
				}
			}
		}
		return nil
	}})
	return settled, err
}

func (w *writer) record(o queue.Outcome) (settlement, error) {
	id, _ := blob(o.ID)
	results, err := lastResults(o.Attempts)
	if err != nil {
		return settlement{}, err
	}
	held := 0
	var lost []queue.Change
	for _, c := range o.Changes {
		n, err := w.changeLeased(id, o, c, results[c.ForwardPath])
		if err != nil {
			return settlement{}, err
		}
		if held += int(n); n == 0 && c.State == queue.Delivered {
			lost = append(lost, c)
		}
	}
	if held == 0 && o.Lease != 0 {
		if again, err := w.recorded(id, o.Lease); err != nil || again {
			return settlement{}, err
		}
	}
	// A lease lost meanwhile leaves nothing to say but "delivered".
	for _, c := range lost {
		if err := w.exec(changeRecipient, changeArgs(id, o, c, results[c.ForwardPath])...); err != nil {
			return settlement{}, err
		}
	}
	if err := w.insertAttempts(id, o); err != nil {
		return settlement{}, err
	}
	m, err := w.settle(id, o.At)
	w.countAttempts(id, m, o.Attempts)
	return m, err
}

// recorded says that the outcome of the lease was recorded before.
func (w *writer) recorded(id []byte, lease int64) (again bool, err error) {
	err = w.row(`SELECT EXISTS (SELECT 1 FROM attempts WHERE message = ? AND lease = ?)`, []any{id, lease}, &again)
	return again, err
}

// tried is what the attempts of one outcome came to for one recipient.
type tried struct {
	attempts int
	result   any // of the last one, as stored; nil when there was none
}

// lastResults returns what the attempts came to, by forward-path.
func lastResults(attempts []mailer.Attempt) (map[string]tried, error) {
	last := map[string]mailer.Result{}
	count := map[string]int{}
	for _, a := range attempts {
		for _, r := range a.Results {
			last[r.ForwardPath] = r
			count[r.ForwardPath]++
		}
	}
	results := make(map[string]tried, len(last))
	for path, r := range last {
		packed, err := toJSON(stored.PackResult(r))
		if err != nil {
			return nil, err
		}
		results[path] = tried{count[path], packed}
	}
	return results, nil
}

// insertAttempts stores the attempts, and the turns that they used.
func (w *writer) insertAttempts(id []byte, o queue.Outcome) error {
	for _, a := range o.Attempts {
		if err := w.insertAttempt(id, o.Lease, a); err != nil {
			return err
		}
	}
	for _, t := range o.Turns {
		if err := w.takeTurns(t, 1); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) insertAttempt(id []byte, lease int64, a mailer.Attempt) error {
	var ladder any // NULL when it is empty
	if len(a.Ladder) > 0 {
		var err error
		if ladder, err = toJSON(stored.PackLadder(a.Ladder)); err != nil {
			return err
		}
	}
	results, err := toJSON(stored.PackResults(a.Results))
	if err != nil {
		return err
	}
	return w.exec(`INSERT INTO attempts (message, n, relay, port, mode, tls, auth, ladder, started, duration, results, lease, why)
		VALUES (?, (SELECT coalesce(max(n), 0) + 1 FROM attempts WHERE message = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, id, a.Relay, a.Rung.Port, stored.ModeOf(a.Rung), a.TLS, a.Auth, ladder, a.Started.UnixMicro(), a.Duration.Microseconds(), results, lease, a.Why)
}

// changeLeased sets the state of a recipient that has the outcome's lease, and returns
// how many those are.
func (w *writer) changeLeased(id []byte, o queue.Outcome, c queue.Change, t tried) (int64, error) {
	const leased = changeRecipient + ` AND owner = ? AND ? IN (0, lease)`
	args := append(changeArgs(id, o, c, t), o.Owner, o.Lease)
	// Most messages have one recipient, the first. By its key it is changed in
	// place; else SQLite collects in a table what to change.
	if len(o.Changes) == 1 {
		if n, err := w.affect(leased+" AND n = 0", args...); err != nil || n == 1 {
			return n, err
		}
	}
	return w.affect(leased, args...)
}

func changeArgs(id []byte, o queue.Outcome, c queue.Change, t tried) []any {
	waits := !c.State.Final() && c.State != queue.Held
	var next any
	if waits {
		next = c.Next.UnixMicro()
	}
	return []any{
		!c.State.Final(), string(c.State), !c.State.Final(), next, c.Tries, t.attempts, t.result, o.RouteOf(c), id, c.ForwardPath,
	}
}

// changeRecipient sets a recipient's state. A wish to cancel it turns waiting into
// canceled.
const changeRecipient = `UPDATE recipients SET
		state = CASE WHEN cancel AND ? THEN 'canceled' ELSE ? END,
		due = CASE WHEN cancel AND ? THEN NULL ELSE ? END,
		tries = ?, attempts = attempts + ?, result = coalesce(?, result),
		route = ?, owner = NULL, marked = 0, cancel = 0
	WHERE message = ? AND forward_path = ?`

// never is when a message expires of which all that is not final is held: it waits for a
// person, not for the relay.
const never = math.MaxInt64

// settlement is what settle found out about a message.
type settlement struct {
	size    int64
	final   bool // became so just now
	suspect bool
	known   bool // retention has not removed it
	key     string
}

// settle derives the message's status from its recipients' states, and drops
// the bytes of one that nobody can retry.
func (w *writer) settle(id []byte, now time.Time) (m settlement, err error) {
	var was, mixed bool
	var clock, expires int64
	var body chunks
	var old queue.Status
	err = w.row(`SELECT key, status, size, final, clock, expires, body, chunks, suspect,
			EXISTS (SELECT 1 FROM recipients WHERE message = id AND state <> 'delivered')
		FROM messages WHERE id = ?`, []any{id}, &m.key, &old, &m.size, &was, &clock, &expires, &body.first, &body.count, &m.suspect, &mixed)
	if errors.Is(err, sql.ErrNoRows) { // retention has removed it
		return settlement{}, nil
	}
	if err != nil {
		return m, err
	}
	states := map[queue.State]int{queue.Delivered: 1}
	if mixed {
		if states, err = w.states(id); err != nil {
			return m, err
		}
	}
	m.known, body.size = true, m.size
	status := queue.StatusOf(states)
	if status != old {
		w.count(tally.Change{ID: string(id), Key: m.key, From: old, To: status})
	}
	final := states[queue.Queued]+states[queue.Deferred]+states[queue.Held] == 0
	m.final = final && !was
	switch {
	case m.final:
		w.add(-1, m.size)
	case was && !final:
		w.add(1, m.size)
	}
	switch {
	case !final && states[queue.Queued]+states[queue.Deferred] == 0:
		clock = never
	case !final:
		clock = expires
	case !was:
		clock = now.UnixMicro()
	}
	if final && states[queue.Bounced]+states[queue.Expired] == 0 {
		return m, w.finishWithoutBody(id, status, clock, now, body)
	}
	return m, w.exec(`UPDATE messages SET status = ?, final = ?, clock = ? WHERE id = ?`, string(status), final, clock, id)
}

// states returns the states that recipients of the message are in.
func (w *writer) states(id []byte) (map[queue.State]int, error) {
	states := map[queue.State]int{}
	err := w.each(`SELECT DISTINCT state FROM recipients WHERE message = ?`, []any{id}, func(rows *sql.Rows) error {
		var state queue.State
		err := rows.Scan(&state)
		states[state] = 1
		return err
	})
	return states, err
}

// chunks are the rows of contents that a message's bytes are in.
type chunks struct {
	first sql.NullInt64 // NULL: they are gone
	count int64
	size  int64 // octets in them; zero where that is not known
}

// finishWithoutBody settles a message that nobody can retry, so that its bytes are
// of no use.
func (w *writer) finishWithoutBody(id []byte, status queue.Status, clock int64, now time.Time, body chunks) error {
	if keep := w.store.opts.KeepBodies; keep > 0 {
		return w.exec(`UPDATE messages SET status = ?, final = 1, clock = ?, bytes_until = ? WHERE id = ?`,
			string(status), clock, now.Add(keep).UnixMicro(), id)
	}
	if err := w.deleteChunks(body); err != nil {
		return err
	}
	return w.exec(`UPDATE messages SET status = ?, final = 1, clock = ?, body = NULL WHERE id = ?`, string(status), clock, id)
}

// smallToDelete is up to how many octets a content is deleted with the outcome in any case. Of
// larger ones a commit deletes stageStep octets; the janitor deletes the rest.
const smallToDelete = 16 << 10

func (w *writer) deleteChunks(c chunks) error {
	if !c.first.Valid {
		return nil
	}
	if c.size > smallToDelete {
		w.deleted += c.size
	}
	if c.count > looseRows || w.deleted > stageStep && c.size > smallToDelete {
		w.left = true
		return w.loosen(c)
	}
	return w.exec(`DELETE FROM contents WHERE seq >= ? AND seq < ?`, c.first.Int64, c.first.Int64+c.count)
}

// deleteContent deletes the bytes of a message that is settled.
func (w *writer) deleteContent(id []byte) error {
	var body chunks
	err := w.row(`SELECT body, chunks, size FROM messages WHERE id = ?`, []any{id}, &body.first, &body.count, &body.size)
	if err != nil {
		return err
	}
	if err := w.deleteChunks(body); err != nil {
		return err
	}
	return w.exec(`UPDATE messages SET body = NULL, bytes_until = NULL WHERE id = ?`, id)
}

// Waiting looks at the head of each lane.
func (s *Store) Waiting(ctx context.Context, now time.Time) (queue.Waiting, error) {
	var waiting queue.Waiting
	err := s.view(ctx, func(v *session) error {
		waiting = queue.Waiting{}
		var expiry sql.NullInt64
		err := v.row(`SELECT min(clock) FROM messages WHERE final = 0 AND clock > ? AND clock < ?`, []any{now.UnixMicro(), never}, &expiry)
		if err != nil {
			return err
		}
		waiting.Expiry = fromMicros(expiry)
		waiting.Lanes, err = readLaneHeads(v)
		return err
	})
	return waiting, err
}

func readLaneHeads(v *session) (heads []queue.LaneDue, err error) {
	err = v.each(laneHeads, nil, func(rows *sql.Rows) error {
		var head queue.LaneDue
		var lane string
		var at sql.NullInt64
		err := rows.Scan(&head.Route, &lane, &at)
		if err == nil {
			head.Lane, err = stored.ParseLane(lane)
		}
		head.At = fromMicros(at)
		heads = append(heads, head)
		return err
	})
	return heads, err
}

// laneHeads steps from one route to the next and from one lane to the next: they
// are few among very many recipients.
const laneHeads = `WITH RECURSIVE
	routes (route) AS (
		SELECT min(route) FROM recipients WHERE due IS NOT NULL AND owner IS NULL
		UNION ALL
		SELECT (SELECT min(route) FROM recipients WHERE route > routes.route AND due IS NOT NULL AND owner IS NULL)
		FROM routes WHERE routes.route IS NOT NULL),
	lanes (route, lane) AS (
		SELECT route, (SELECT min(lane) FROM recipients WHERE route = routes.route AND due IS NOT NULL AND owner IS NULL)
		FROM routes WHERE route IS NOT NULL
		UNION ALL
		SELECT route, (SELECT min(lane) FROM recipients
			WHERE route = lanes.route AND lane > lanes.lane AND due IS NOT NULL AND owner IS NULL)
		FROM lanes WHERE lanes.lane IS NOT NULL)
	SELECT route, lane, (SELECT min(due) FROM recipients
		WHERE route = lanes.route AND lane = lanes.lane AND due IS NOT NULL AND owner IS NULL)
	FROM lanes WHERE lane IS NOT NULL ORDER BY route, lane`

// Expire ends what waited too long.
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) ([]queue.Ended, error) {
	var ended []queue.Ended
	err := s.write(ctx, func(w *writer) error {
		ended = nil
		ids, err := w.ids(`SELECT id FROM messages WHERE final = 0 AND clock <= ?
			AND EXISTS (SELECT 1 FROM recipients WHERE message = id AND owner IS NULL AND due IS NOT NULL)
			ORDER BY clock LIMIT ?`, now.UnixMicro(), limit)
		if err != nil {
			return err
		}
		for _, id := range ids {
			e, err := w.expire(id, now)
			if err != nil {
				return err
			}
			ended = append(ended, e)
		}
		return nil
	})
	return ended, err
}

func (w *writer) expire(id []byte, now time.Time) (queue.Ended, error) {
	var e queue.Ended
	var err error
	if e.ID, err = fromBlob(id); err != nil {
		return e, err
	}
	if err := w.row(`SELECT reverse_path FROM messages WHERE id = ?`, []any{id}, &e.ReversePath); err != nil {
		return e, err
	}
	err = w.each(`UPDATE recipients SET state = 'expired', due = NULL
		WHERE message = ? AND owner IS NULL AND due IS NOT NULL RETURNING forward_path`, []any{id},
		func(rows *sql.Rows) error {
			var path string
			err := rows.Scan(&path)
			e.ForwardPaths = append(e.ForwardPaths, path)
			return err
		})
	if err != nil {
		return e, err
	}
	m, err := w.settle(id, now)
	e.Size, e.Final = m.size, m.final
	return e, err
}
