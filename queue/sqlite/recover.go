package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
)

// What recipients.marked tells, each a bit.
const (
	markContent = 1 << iota // content is about to be sent
	markAlone               // the message is the only one in hand
)

// Mark notes that content is about to be sent, and to which relay.
func (s *Store) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	key, _ := blob(l.ID)
	paths, err := toJSON(l.ForwardPaths)
	if err != nil {
		return err
	}
	return s.write(ctx, func(w *writer) error {
		for _, t := range turns {
			if err := w.takeTurns(t, 1); err != nil {
				return err
			}
		}
		return w.exec(`UPDATE recipients SET marked = marked | ?, route = ?
			WHERE message = ? AND owner = ? AND ? IN (0, lease) AND forward_path IN (SELECT value FROM json_each(?))`,
			markContent, l.Route, key, owner, l.Number, paths)
	})
}

// MarkAlone notes whether the message is the only one in hand.
func (s *Store) MarkAlone(ctx context.Context, owner, id string, alone bool) error {
	key, _ := blob(id)
	bits := 0
	if alone {
		bits = markAlone
	}
	return s.write(ctx, func(w *writer) error {
		return w.exec(`UPDATE recipients SET marked = marked & ~?1 | ?2 WHERE message = ?3 AND owner = ?4`, markAlone, bits, key, owner)
	})
}

// End forgets the run.
func (s *Store) End(ctx context.Context, owner string) error {
	return s.write(ctx, func(w *writer) error {
		return w.exec(`DELETE FROM runs WHERE owner = ?`, owner)
	})
}

// stepRecipients is how many recipients one call of [Store.Recover] takes, and then the
// rest of the last one's message: new mail waits for the commit, some 15 ms.
const stepRecipients = 200

// takeover is one call of Recover.
type takeover struct {
	*writer
	owner string
	now   time.Time
	hold  bool
	first bool // of this run
}

// Recover takes over what a process that ended had leased. The lock file says
// that every other owner has ended, so once it is done nothing can be left.
func (s *Store) Recover(ctx context.Context, owner string, now time.Time, hold bool) (queue.Recovered, error) {
	if only, _ := s.only.Load().(string); only == owner {
		return queue.Recovered{}, nil
	}
	begun, _ := s.begun.Load().(string)
	var r queue.Recovered
	err := s.write(ctx, func(w *writer) (err error) {
		t := takeover{writer: w, owner: owner, now: now, hold: hold, first: begun != owner}
		r, err = t.step()
		return err
	})
	if err != nil {
		return queue.Recovered{}, err
	}
	s.begun.Store(owner)
	if !r.More {
		s.only.Store(owner)
	}
	return r, nil
}

func (t *takeover) step() (queue.Recovered, error) {
	var r queue.Recovered
	gone, err := t.gone()
	if err != nil {
		return r, err
	}
	if t.first {
		if err := t.countTurns(gone); err != nil {
			return r, err
		}
	}
	if r.Crashes, err = t.countCrashes(); err != nil {
		return r, err
	}
	for _, owner := range gone {
		if r.More = r.Uncertain+r.Released >= stepRecipients; r.More {
			break
		}
		if err := t.some(owner, &r); err != nil {
			return r, err
		}
		if r.More {
			break
		}
	}
	return r, nil
}

// otherOwners steps from one owner of leases to the next: they are few.
const otherOwners = `WITH RECURSIVE owners (owner) AS (
		SELECT min(owner) FROM recipients WHERE owner IS NOT NULL
		UNION ALL
		SELECT (SELECT min(owner) FROM recipients WHERE owner > owners.owner) FROM owners WHERE owners.owner IS NOT NULL)
	SELECT owner FROM owners WHERE owner IS NOT NULL AND owner <> ?`

// gone returns the other owners that have leases.
func (t *takeover) gone() ([]string, error) {
	var owners []string
	err := t.each(otherOwners, []any{t.owner}, func(rows *sql.Rows) error {
		var owner string
		err := rows.Scan(&owner)
		owners = append(owners, owner)
		return err
	})
	return owners, err
}

// countTurns counts what may have been sent by owners that were not known to be gone. It
// does so for all their messages at once: relays are told of turns before the first
// delivery, and most leases are taken after that.
func (t *takeover) countTurns(gone []string) error {
	for _, owner := range gone {
		var known bool
		err := t.row(`SELECT EXISTS (SELECT 1 FROM runs WHERE owner = ? AND crashed IS NOT NULL)`, []any{owner}, &known)
		if err != nil {
			return err
		}
		if known { // and counted
			continue
		}
		routes := map[string]int{}
		err = t.each(`SELECT route, marked & ?, count(DISTINCT message) FROM recipients WHERE owner = ? GROUP BY 1, 2`,
			[]any{markContent, owner}, func(rows *sql.Rows) error {
				var route string
				var marked bool
				var n int
				err := rows.Scan(&route, &marked, &n)
				if _, sent := queue.MaybeSent(owner, route, marked); sent {
					routes[route] += n
				}
				return err
			})
		if err != nil {
			return err
		}
		for route, n := range routes {
			for _, turn := range queue.LostTurns(route, t.now) {
				if err := t.takeTurns(turn, n); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// countCrashes notes that this run began and that others crashed, and returns how
// many have of late. Of a run that has leases it is kept that it crashed, lest what it had
// leased is counted twice.
func (t *takeover) countCrashes() (crashes int, err error) {
	now := t.now.UnixMicro()
	window := queue.CrashWindow.Microseconds()
	err = errors.Join(
		t.exec(`UPDATE runs SET crashed = ? WHERE owner <> ? AND crashed IS NULL`, now, t.owner),
		t.exec(`DELETE FROM runs WHERE crashed NOT BETWEEN ? AND ?
			AND NOT EXISTS (SELECT 1 FROM recipients WHERE recipients.owner = runs.owner)`, now-window+1, now+window),
		t.exec(`INSERT INTO runs (owner) VALUES (?) ON CONFLICT DO NOTHING`, t.owner),
	)
	if err != nil {
		return 0, err
	}
	err = t.row(`SELECT count(*) FROM runs WHERE crashed BETWEEN ? AND ?`, []any{now - window + 1, now + window}, &crashes)
	return crashes, err
}

// suspects says whether the crash of the owner was not the first one: what it had leased
// is suspect then. What a run that crashed before it had leased is not.
func (t *takeover) suspects(owner string) (bool, error) {
	var crashes int
	err := t.row(`SELECT count(*) FROM runs, (SELECT coalesce((SELECT crashed FROM runs WHERE owner = ?1), ?2) AS last)
		WHERE crashed > last - ?3 AND crashed <= last`, []any{owner, t.now.UnixMicro(), queue.CrashWindow.Microseconds()}, &crashes)
	return crashes >= queue.SuspectCrashes, err
}

// some takes some of the owner's leases.
func (t *takeover) some(owner string, r *queue.Recovered) error {
	suspect, err := t.suspects(owner)
	if err != nil {
		return err
	}
	room := stepRecipients - r.Uncertain - r.Released
	var ids [][]byte
	orphans := map[string][]orphan{}
	n := 0
	// A message is taken as a whole: what is done with it ends all its leases.
	err = t.each(`SELECT message, forward_path, route, tries, marked FROM recipients WHERE owner = ? ORDER BY message, n`, []any{owner},
		func(rows *sql.Rows) error {
			var id []byte
			o := orphan{owner: owner}
			if err := rows.Scan(&id, &o.path, &o.route, &o.tries, &o.marked); err != nil {
				return err
			}
			if orphans[string(id)] == nil {
				if n >= room {
					return errEnough
				}
				ids = append(ids, id)
			}
			n++
			orphans[string(id)] = append(orphans[string(id)], o)
			return nil
		})
	if r.More = errors.Is(err, errEnough); err != nil && !r.More {
		return err
	}
	for _, id := range ids {
		step, err := t.message(id, orphans[string(id)], suspect)
		if err != nil {
			return err
		}
		r.Add(step)
	}
	return nil
}

// orphan is a recipient whose owner is gone.
type orphan struct {
	owner, path, route string
	tries, marked      int
}

// message takes the leases that one owner has on a message.
func (t *takeover) message(key []byte, orphans []orphan, suspect bool) (queue.Recovered, error) {
	r, err := t.release(key, orphans)
	if err != nil {
		return r, err
	}
	alone := orphans[0].marked&markAlone != 0
	if !alone && !suspect {
		return r, nil
	}
	n, err := t.affect(`UPDATE messages SET suspect = 1, crashes = crashes + ? WHERE id = ? AND final = 0`, alone, key)
	if err != nil || n == 0 {
		return r, err
	}
	r.Suspects = 1
	if alone {
		err = t.blame(key, &r)
	}
	return r, err
}

// release ends the leases, of which those are held or uncertain that may have been
// sent.
func (t *takeover) release(key []byte, orphans []orphan) (queue.Recovered, error) {
	id, err := fromBlob(key)
	if err != nil {
		return queue.Recovered{}, err
	}
	var r queue.Recovered
	o := queue.Outcome{ID: id, Owner: orphans[0].owner, At: t.now}
	for _, lost := range orphans {
		relay, sent := queue.MaybeSent(lost.owner, lost.route, lost.marked&markContent != 0)
		if !sent {
			r.Released++
			continue
		}
		r.Uncertain++
		if t.hold {
			r.Held++
		}
		o.Lose(queue.Leased{ForwardPath: lost.path, Tries: lost.tries}, relay, t.hold)
	}
	if _, err := t.record(o); err != nil {
		return r, err
	}
	// What was not changed is released.
	const these = ` WHERE message = ? AND owner = ?`
	if err := t.cancelReleased(these, key, t.now, o.Owner); err != nil {
		return r, err
	}
	return r, t.exec(`UPDATE recipients SET owner = NULL, marked = 0, due = min(due, ?)`+these, t.now.UnixMicro(), key, o.Owner)
}

// blame lets a message rest that was alone in hand at a crash, or holds it when that
// was not the first one.
func (t *takeover) blame(key []byte, r *queue.Recovered) error {
	b := queue.Blame{}
	var crashes int
	err := t.row(`SELECT crashes, reverse_path FROM messages WHERE id = ?`, []any{key}, &crashes, &b.ReversePath)
	if err != nil {
		return err
	}
	if crashes < queue.BlameCrashes {
		rested := t.now.Add(queue.SuspectRest).UnixMicro()
		return t.exec(`UPDATE recipients SET due = ?1 WHERE message = ?2 AND owner IS NULL AND due < ?1`, rested, key)
	}
	if b.ID, err = fromBlob(key); err != nil {
		return err
	}
	result := mailer.Result{Failure: queue.BlamedAttempt(r.Uncertain > 0)}
	packed, err := toJSON(stored.PackResult(result))
	if err != nil {
		return err
	}
	attempt := mailer.Attempt{Started: t.now}
	err = t.each(`UPDATE recipients SET state = 'held', due = NULL, attempts = attempts + 1, result = ?
		WHERE message = ? AND owner IS NULL AND state IN ('queued', 'deferred', 'held') RETURNING forward_path`, []any{packed, key},
		func(rows *sql.Rows) error {
			err := rows.Scan(&result.ForwardPath)
			b.ForwardPaths = append(b.ForwardPaths, result.ForwardPath)
			attempt.Results = append(attempt.Results, result)
			return err
		})
	if err != nil {
		return err
	}
	r.Blamed = append(r.Blamed, b)
	if err := t.insertAttempt(key, 0, attempt); err != nil {
		return err
	}
	m, err := t.settle(key, t.now)
	t.countAttempts(key, m, []mailer.Attempt{attempt})
	return err
}

// acquit ends the suspicion of a message.
func (w *writer) acquit(id string) error {
	key, _ := blob(id)
	return w.exec(`UPDATE messages SET suspect = 0, crashes = 0 WHERE id = ?`, key)
}
