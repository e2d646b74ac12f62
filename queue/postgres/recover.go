package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// stepRecipients is how many recipients one call of [Store.Recover] takes, and then the
// rest of the last one's message.
const stepRecipients = 1000

// The advisory locks of what one instance does at a time, beside the hash of the schema's
// name. They are of transactions, and nobody waits for them.
const (
	recoverLock = 0x6d6c7364 + iota
	sweepLock
	numbersLock
)

// alone says whether this transaction is the only one that has the lock.
func (t *tx) alone(lock int) (alone bool, err error) {
	t.row(`SELECT pg_try_advisory_xact_lock($1, hashtext($2))`, []any{lock, t.name}, &alone)
	return alone, t.send()
}

// goneOwners steps from one owner of leases to the next: they are few. Those have gone whose
// lease has ended, and those that have none.
const goneOwners = `WITH RECURSIVE owners AS (
	(SELECT owner FROM {s}.recipients WHERE owner IS NOT NULL ORDER BY owner LIMIT 1)
	UNION ALL
	SELECT n.* FROM owners AS o CROSS JOIN LATERAL (
		SELECT r.owner FROM {s}.recipients AS r WHERE r.owner > o.owner AND r.owner IS NOT NULL ORDER BY r.owner LIMIT 1) AS n)
	SELECT owner FROM owners WHERE owner <> $1 AND NOT EXISTS (
		SELECT FROM {s}.instances AS i WHERE i.owner = owners.owner AND i.until > '-infinity')`

// takeover is one call of Recover.
type takeover struct {
	*tx
	owner string
	now   time.Time
	hold  bool
}

// Recover takes over what owners have leased that are gone. One instance does so at a time;
// another one finds nothing meanwhile.
func (s *Store) Recover(ctx context.Context, owner string, now time.Time, hold bool) (queue.Recovered, error) {
	if err := s.Heartbeat(ctx, owner, now); err != nil { // it lives from its first call on
		return queue.Recovered{}, err
	}
	return write(ctx, s, func(t *tx) (r queue.Recovered, err error) {
		if alone, err := t.alone(recoverLock); err != nil || !alone {
			return r, err
		}
		return (&takeover{t, owner, now, hold}).step()
	})
}

func (t *takeover) step() (r queue.Recovered, err error) {
	// From here on a beat of such an owner finds nothing. One that is under way has the row,
	// and is waited for.
	t.exec(`UPDATE {s}.instances SET until = '-infinity' WHERE until <= clock_timestamp() AND until > '-infinity' AND owner <> $1`, t.owner)
	var gone []string
	t.each(goneOwners, []any{t.owner}, func(rows pgx.Rows) error {
		var owner string
		err := rows.Scan(&owner)
		gone = append(gone, owner)
		return err
	})
	if err := t.send(); err != nil {
		return r, err
	}
	if err := t.countTurns(gone); err != nil {
		return r, err
	}
	if r.Crashes, err = t.countCrashes(); err != nil {
		return r, err
	}
	for _, owner := range gone {
		if r.More = r.Uncertain+r.Released >= stepRecipients; r.More {
			break
		}
		if err := t.some(owner, &r); err != nil || r.More {
			return r, err
		}
	}
	// Those of which nothing is left.
	t.exec(`DELETE FROM {s}.instances AS i WHERE until = '-infinity' AND NOT EXISTS (SELECT FROM {s}.recipients AS r WHERE r.owner = i.owner)`)
	return r, nil
}

// countTurns counts what may have been sent by owners that were not known to be gone: for all
// their messages at once, for relays are told of turns before the first delivery.
func (t *takeover) countTurns(gone []string) error {
	var counts []turnCount
	for _, owner := range gone {
		var known bool
		t.row(`SELECT EXISTS (SELECT FROM {s}.runs WHERE owner = $1 AND crashed IS NOT NULL)`, []any{owner}, &known)
		routes := map[string]int{}
		t.each(`SELECT coalesce(mark_route, route), marked & $2::smallint, count(DISTINCT message) FROM {s}.recipients WHERE owner = $1 GROUP BY 1, 2`,
			[]any{owner, markContent}, func(rows pgx.Rows) error {
				var route string
				var marked, n int
				err := rows.Scan(&route, &marked, &n)
				if _, sent := queue.MaybeSent(owner, route, marked != 0); sent {
					routes[route] += n
				}
				return err
			})
		if err := t.send(); err != nil {
			return err
		}
		if known { // and counted
			continue
		}
		for route, n := range routes {
			for _, turn := range queue.LostTurns(route, t.now) {
				counts = append(counts, turnCount{turn, n})
			}
		}
	}
	t.saveTurns(counts)
	return nil
}

// countCrashes notes that this run began and that others crashed, and returns how many have
// of late, where there is anything new. Of a run that has leases it is kept that it crashed.
func (t *takeover) countCrashes() (crashes int, err error) {
	from, to := stamp(t.now.Add(-queue.CrashWindow+time.Microsecond)), stamp(t.now.Add(queue.CrashWindow))
	var found, begun int
	t.count(&found, `UPDATE {s}.runs AS n SET crashed = $2 WHERE owner <> $1 AND crashed IS NULL
		AND NOT EXISTS (SELECT FROM {s}.instances AS i WHERE i.owner = n.owner AND i.until > '-infinity')`, t.owner, stamp(t.now))
	t.exec(`DELETE FROM {s}.runs AS n WHERE crashed NOT BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM {s}.recipients AS r WHERE r.owner = n.owner)`, from, to)
	t.count(&begun, `INSERT INTO {s}.runs (owner) VALUES ($1) ON CONFLICT DO NOTHING`, t.owner)
	t.row(`SELECT count(*) FROM {s}.runs WHERE crashed BETWEEN $1 AND $2`, []any{from, to}, &crashes)
	if err := t.send(); err != nil || found+begun == 0 {
		return 0, err
	}
	return crashes, nil
}

// suspects says whether the crash of the owner was not the first one: what it had leased
// is suspect then. What a run that crashed before it had leased is not.
func (t *takeover) suspects(owner string) (bool, error) {
	var crashes int
	t.row(`SELECT count(*) FROM {s}.runs, (SELECT coalesce((SELECT crashed FROM {s}.runs WHERE owner = $1), $2) AS last) AS l
		WHERE crashed > last - $3::interval AND crashed <= last`, []any{owner, stamp(t.now), queue.CrashWindow}, &crashes)
	err := t.send()
	return crashes >= queue.SuspectCrashes, err
}

// some takes some of the owner's leases.
func (t *takeover) some(owner string, r *queue.Recovered) error {
	suspect, err := t.suspects(owner)
	if err != nil {
		return err
	}
	room := stepRecipients - r.Uncertain - r.Released
	// A message is taken as a whole: what is done with it ends all its leases.
	rows, err := t.ids(`SELECT message FROM {s}.recipients WHERE owner = $1 ORDER BY message LIMIT $2`, owner, room+1)
	if err != nil {
		return err
	}
	r.More = len(rows) > room
	l, err := t.load(slices.Compact(rows[:min(len(rows), room)]), true)
	if err != nil {
		return err
	}
	for _, m := range l.all {
		leased := m.leasedBy(owner)
		if len(leased) == 0 { // an outcome came meanwhile
			continue
		}
		step, err := t.message(l, m, owner, leased, suspect)
		if err != nil {
			return err
		}
		r.Add(step)
	}
	return l.save()
}

// message takes the leases that one owner has on a message.
func (t *takeover) message(l *loaded, m *message, owner string, leased []*recipient, suspect bool) (queue.Recovered, error) {
	alone := leased[0].marked&markAlone != 0
	r, err := t.release(l, m, owner, leased)
	if err != nil || m.final || !suspect && !alone {
		return r, err
	}
	m.suspect, m.changed = true, true
	r.Suspects = 1
	if !alone {
		return r, nil
	}
	if m.crashes++; m.crashes < queue.BlameCrashes {
		rested := stamp(t.now.Add(queue.SuspectRest))
		for _, o := range m.recipients {
			if o.waits() && o.due.Time.Before(rested.Time) {
				o.due, o.changed = rested, true
			}
		}
		return r, nil
	}
	return r, t.holdBlamed(l, m, &r)
}

// release ends the leases, of which those are held or uncertain that may have been sent.
func (t *takeover) release(l *loaded, m *message, owner string, leased []*recipient) (r queue.Recovered, err error) {
	o := queue.Outcome{ID: textOf(m.id), Owner: owner, At: t.now}
	var rest []*recipient
	for _, lost := range leased {
		route := lost.route
		if lost.markRoute != nil {
			route = *lost.markRoute
		}
		relay, sent := queue.MaybeSent(owner, route, lost.marked&markContent != 0)
		if !sent {
			r.Released++
			rest = append(rest, lost)
			continue
		}
		r.Uncertain++
		if t.hold {
			r.Held++
		}
		o.Lose(queue.Leased{ForwardPath: lost.path, Tries: lost.tries}, relay, t.hold)
	}
	if _, err := l.record(m, o, false); err != nil {
		return r, err
	}
	for _, lost := range rest {
		lost.release(lost.route, t.now)
	}
	l.settle(m, t.now)
	return r, nil
}

// holdBlamed holds what waits of a message that was alone in hand at crashes.
func (t *takeover) holdBlamed(l *loaded, m *message, r *queue.Recovered) error {
	b := queue.Blame{ID: textOf(m.id), ReversePath: m.reversePath}
	attempt := mailer.Attempt{Started: t.now}
	for _, held := range m.recipients {
		if held.owner != nil || held.state.Final() {
			continue
		}
		result := mailer.Result{ForwardPath: held.path, Failure: queue.BlamedAttempt(r.Uncertain > 0)}
		packed, err := toJSON(stored.PackResult(result))
		if err != nil {
			return err
		}
		held.end(queue.Held)
		held.result = packed
		held.attempts++
		b.ForwardPaths = append(b.ForwardPaths, held.path)
		attempt.Results = append(attempt.Results, result)
	}
	r.Blamed = append(r.Blamed, b)
	l.addAttempt(m, 0, attempt)
	l.count.Apply(tally.Change{Key: m.key, Attempts: []mailer.Attempt{attempt}})
	l.settle(m, t.now)
	return nil
}
