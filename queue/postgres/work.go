package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// Record stores what came of attempts.
func (s *Store) Record(ctx context.Context, outcomes []queue.Outcome) (queue.Settled, error) {
	return write(ctx, s, func(t *tx) (settled queue.Settled, err error) {
		var ids []key
		var leases []int64
		for _, o := range outcomes {
			ids = append(ids, parseIDs([]string{o.ID})...)
			leases = append(leases, o.Lease)
		}
		recorded := map[recordKey]bool{}
		l := t.loading(ids, false)
		// An outcome with attempts is known by them, another one by its lease having ended.
		t.each(`SELECT message, lease FROM {s}.attempts WHERE message = ANY ($1) AND lease <> 0 AND lease = ANY ($2)`, []any{ids, leases},
			func(rows pgx.Rows) error {
				var k recordKey
				err := rows.Scan(&k.message, &k.lease)
				recorded[k] = true
				return err
			})
		if err := t.send(); err != nil {
			return settled, err
		}
		for _, o := range outcomes {
			id, _ := parseID(o.ID)
			m := l.byID[id]
			if m == nil { // retention has removed it
				continue
			}
			final, err := l.record(m, o, recorded[recordKey{id, o.Lease}])
			if err != nil {
				return settled, err
			}
			if final {
				settled.Messages++
				settled.Bytes += m.size
			}
			if m.suspect && o.Touched() {
				m.suspect, m.crashes, m.changed = false, 0, true
			}
		}
		return settled, l.save()
	})
}

type recordKey struct {
	message key
	lease   int64
}

// record stores one outcome, and says whether the message became final by it. before says
// that attempts of its lease are stored already.
func (l *loaded) record(m *message, o queue.Outcome, before bool) (final bool, err error) {
	held := slices.ContainsFunc(m.recipients, func(r *recipient) bool {
		return r.ownedBy(o.Owner) && r.has(o.Lease) && slices.ContainsFunc(o.Changes, func(c queue.Change) bool { return c.ForwardPath == r.path })
	})
	if !held && o.Lease != 0 && before {
		return false, nil
	}
	results, tried := map[string]mailer.Result{}, map[string]int{}
	for _, a := range o.Attempts {
		for _, r := range a.Results {
			results[r.ForwardPath] = r
			tried[r.ForwardPath]++
		}
	}
	for _, c := range o.Changes {
		for _, r := range m.recipients {
			// A lease lost meanwhile leaves nothing to say but "delivered".
			leased := r.ownedBy(o.Owner) && r.has(o.Lease)
			if r.path != c.ForwardPath || !leased && c.State != queue.Delivered {
				continue
			}
			r.change(c, o.RouteOf(c))
			if n := tried[c.ForwardPath]; n > 0 {
				if r.result, err = toJSON(stored.PackResult(results[c.ForwardPath])); err != nil {
					return false, err
				}
				r.attempts += n
			}
		}
	}
	for _, a := range o.Attempts {
		l.addAttempt(m, o.Lease, a)
	}
	for _, turn := range o.Turns {
		l.turns = append(l.turns, turnCount{turn, 1})
	}
	l.count.Apply(tally.Change{Key: m.key, Attempts: o.Attempts})
	return l.settle(m, o.At), nil
}

// change gives the recipient its new state, and ends its lease.
func (r *recipient) change(c queue.Change, route string) {
	r.unlease()
	cancel := r.cancel && !c.State.Final()
	r.state, r.due, r.tries, r.route, r.cancel = c.State, pgtype.Timestamptz{}, c.Tries, route, false
	switch {
	case cancel:
		r.state = queue.Canceled
	case !c.State.Final() && c.State != queue.Held:
		r.due = stamp(c.Next)
	}
}

// Release ends leases without an attempt.
func (s *Store) Release(ctx context.Context, owner string, now time.Time, leases []queue.Lease) error {
	if len(leases) == 0 {
		return nil
	}
	_, err := write(ctx, s, func(t *tx) (none struct{}, err error) {
		var ids []string
		for _, lease := range leases {
			ids = append(ids, lease.ID)
		}
		l, err := t.load(parseIDs(ids), false)
		if err != nil {
			return none, err
		}
		for _, lease := range leases {
			m := l.message(queue.AnyKey, lease.ID)
			if m == nil {
				continue
			}
			canceled := false
			for _, r := range m.leasedBy(owner) {
				if r.has(lease.Number) && slices.Contains(lease.ForwardPaths, r.path) {
					canceled = r.release(lease.Route, now) || canceled
				}
			}
			if canceled {
				l.settle(m, now)
			}
		}
		return none, l.save()
	})
	return err
}

// release ends a lease, and says whether the recipient was canceled by that: somebody wished
// so, and no attempt will.
func (r *recipient) release(route string, now time.Time) bool {
	if r.cancel {
		r.end(queue.Canceled)
		r.cancel = false
		return true
	}
	r.unlease()
	if r.route = route; r.due.Valid && r.due.Time.After(now) {
		r.due = stamp(now)
	}
	return false
}

// Leases reads along the index of what is leased.
func (s *Store) Leases(ctx context.Context, owner string) ([]queue.Lease, error) {
	return run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (leases []queue.Lease, err error) {
		rows, err := conn.Query(ctx, s.sql(`SELECT message, lease, coalesce(mark_route, route), forward_path FROM {s}.recipients WHERE owner = $1
			ORDER BY message, lease, n`), owner)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var id key
			var l queue.Lease
			var path string
			if err := rows.Scan(&id, &l.Number, &l.Route, &path); err != nil {
				return nil, err
			}
			l.ID = textOf(id)
			if n := len(leases); n == 0 || leases[n-1].ID != l.ID || leases[n-1].Number != l.Number {
				leases = append(leases, l)
			}
			last := &leases[len(leases)-1]
			last.ForwardPaths = append(last.ForwardPaths, path)
		}
		return leases, rows.Err()
	})
}

// Tried looks along the primary keys.
func (s *Store) Tried(ctx context.Context, ids []string) ([]string, error) {
	return run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (tried []string, err error) {
		rows, err := conn.Query(ctx, s.sql(triedSQL), parseIDs(ids))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var id key
			if err := rows.Scan(&id); err != nil {
				return nil, err
			}
			tried = append(tried, textOf(id))
		}
		return tried, rows.Err()
	})
}

// A condition EXISTS might become a look at a whole table, and without the CASE the look might be
// along the index of all that is final.
const triedSQL = `SELECT id FROM {s}.messages WHERE id = ANY ($1) AND CASE WHEN final THEN true END UNION SELECT message FROM {s}.recipients WHERE message = ANY ($1) AND attempts > 0`

// Expire ends what waited too long.
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) ([]queue.Ended, error) {
	return write(ctx, s, func(t *tx) (ended []queue.Ended, err error) {
		ids, err := t.ids(`SELECT id FROM {s}.messages AS m WHERE NOT final AND clock <= $1
			AND EXISTS (SELECT FROM {s}.recipients AS r WHERE r.message = m.id AND r.owner IS NULL AND r.due IS NOT NULL)
			ORDER BY clock LIMIT $2`, stamp(now), limit)
		if err != nil || len(ids) == 0 {
			return nil, err
		}
		l, err := t.load(ids, false)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			m := l.byID[id]
			if m == nil || m.final || !timeOf(m.clock).Before(now.Add(time.Microsecond)) { // another instance was first
				continue
			}
			e := queue.Ended{ID: textOf(id), Size: m.size, ReversePath: m.reversePath}
			for _, r := range m.recipients {
				if r.waits() {
					r.end(queue.Expired)
					e.ForwardPaths = append(e.ForwardPaths, r.path)
				}
			}
			if len(e.ForwardPaths) > 0 {
				e.Final = l.settle(m, now)
				ended = append(ended, e)
			}
		}
		return ended, l.save()
	})
}

// ids returns the ids that a query finds. It sends what was added before.
func (t *tx) ids(sql string, args ...any) (ids []key, err error) {
	t.each(sql, args, func(rows pgx.Rows) error {
		var id key
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, t.send()
}

// rewindRows is how many recipients one call of [Store.Rewind] looks at.
const rewindRows = 500

// rewindPlace is a place among what waits, in the order of the index over it.
type rewindPlace struct {
	Route, Lane string
	Due         time.Time
	Message     string
	N           int
}

// lateRows are those behind a place, along the index: in each lane what is due after latest.
// A message that a send_at holds is left alone.
const lateRows = `SELECT r.route, r.lane, r.due, r.message, r.n,
		r.attempts > 0 OR NOT coalesce((SELECT m.send_at FROM {s}.messages AS m WHERE m.id = r.message) > $6, false)
	FROM {s}.recipients AS r
	WHERE r.due IS NOT NULL AND r.owner IS NULL AND r.route = $1 AND r.lane = $2 AND (r.due, r.message, r.n) > ($3, $4, $5) AND r.due > $6
	ORDER BY r.due, r.message, r.n LIMIT $7`

// muchBehind is how much a clock must be behind the database's to be taken for wrong.
const muchBehind = time.Minute

// behind is by how much the clock of this instance is behind the database's, where that is much.
func (t *tx) behind() (time.Duration, error) {
	var at pgtype.Timestamptz
	t.row(`SELECT clock_timestamp()`, nil, &at)
	if err := t.send(); err != nil {
		return 0, err
	}
	if d := at.Time.Sub(t.now()); d > muchBehind {
		return d, nil
	}
	return 0, nil
}

// Rewind brings due times back that a clock gone wrong has put too far off. Where the clock of this
// instance is the wrong one, and behind, those that others have put there are right.
func (s *Store) Rewind(ctx context.Context, latest time.Time, from string) (string, error) {
	var place rewindPlace
	if from != "" {
		if err := json.Unmarshal([]byte(from), &place); err != nil {
			return "", fmt.Errorf("rewind from %q: %w", from, err)
		}
	}
	wished := latest
	return write(ctx, s, func(t *tx) (string, error) {
		behind, err := t.behind()
		if err != nil {
			return "", err
		}
		latest := wished.Add(behind)
		at, more := place, false // place itself stays as it is for another try
		ids, late := []key{}, map[key]map[int]bool{}
		for room := rewindRows; room > 0; {
			n := 0
			if at.Message != "" { // in a lane
				id, _ := parseID(at.Message)
				t.each(lateRows, []any{at.Route, at.Lane, stamp(at.Due), id, at.N, stamp(latest), room}, func(rows pgx.Rows) error {
					var due pgtype.Timestamptz
					var wrong bool
					err := rows.Scan(&at.Route, &at.Lane, &due, &id, &at.N, &wrong)
					at.Due, at.Message = timeOf(due), textOf(id)
					if n++; wrong {
						if late[id] == nil {
							late[id] = map[int]bool{}
							ids = append(ids, id)
						}
						late[id][at.N] = true
					}
					return err
				})
				if err := t.send(); err != nil {
					return "", err
				}
			}
			if room -= n; room <= 0 {
				more = true
				break
			}
			found := false
			t.each(`SELECT route, lane FROM {s}.recipients WHERE (route, lane) > ($1, $2) AND due IS NOT NULL AND owner IS NULL
				ORDER BY route, lane LIMIT 1`, []any{at.Route, at.Lane}, func(rows pgx.Rows) error {
				found = true
				at.Due, at.Message, at.N = latest, "ffffffff-ffff-ffff-ffff-ffffffffffff", 1<<30
				return rows.Scan(&at.Route, &at.Lane)
			})
			if err := t.send(); err != nil {
				return "", err
			}
			if !found {
				break
			}
			room--
			more = room <= 0
		}
		if err := t.rewind(ids, late, latest); err != nil || !more {
			return "", err
		}
		next, err := json.Marshal(at)
		return string(next), err
	})
}

func (t *tx) rewind(ids []key, late map[key]map[int]bool, latest time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	l, err := t.load(ids, false)
	if err != nil {
		return err
	}
	for _, m := range l.all {
		for _, r := range m.recipients {
			// It may have been tried since it was found.
			if late[m.id][r.n] && r.waits() && r.due.Time.After(latest) {
				r.due, r.changed = stamp(latest), true
			}
		}
	}
	return l.save()
}
