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

// Mark notes that content is about to be sent.
func (s *Store) Mark(ctx context.Context, owner, id string) error {
	return s.mark(ctx, owner, id, markContent, true)
}

// MarkAlone notes whether the message is the only one in hand.
func (s *Store) MarkAlone(ctx context.Context, owner, id string, alone bool) error {
	return s.mark(ctx, owner, id, markAlone, alone)
}

func (s *Store) mark(ctx context.Context, owner, id string, bit int, set bool) error {
	key, _ := blob(id)
	bits := 0
	if set {
		bits = bit
	}
	return s.write(ctx, func(w *writer) error {
		return w.exec(`UPDATE recipients SET marked = marked & ~?1 | ?2 WHERE message = ?3 AND owner = ?4`, bit, bits, key, owner)
	})
}

// End forgets the run.
func (s *Store) End(ctx context.Context, owner string) error {
	return s.write(ctx, func(w *writer) error {
		return w.exec(`DELETE FROM runs WHERE owner = ?`, owner)
	})
}

// takeover is one call of Recover.
type takeover struct {
	*writer
	owner   string
	now     time.Time
	hold    bool
	suspect bool // there were several crashes
}

// Recover takes over what a process that ended had leased. The lock file says
// that every other owner has ended, so once it is done nothing can be left.
func (s *Store) Recover(ctx context.Context, owner string, now time.Time, hold bool) (queue.Recovered, error) {
	var total queue.Recovered
	if only, _ := s.only.Load().(string); only == owner {
		return total, nil
	}
	t := takeover{owner: owner, now: now, hold: hold}
	err := s.write(ctx, func(w *writer) (err error) {
		t.writer = w
		total.Crashes, err = t.countCrashes()
		return err
	})
	if err != nil {
		return queue.Recovered{}, err
	}
	t.suspect = total.Crashes >= queue.SuspectCrashes
	for {
		var step queue.Recovered
		var n int
		err := s.write(ctx, func(*writer) (err error) {
			step, n, err = t.some()
			return err
		})
		if err != nil {
			return total, err
		}
		if n == 0 {
			s.only.Store(owner)
			return total, nil
		}
		total.Add(step)
	}
}

// countCrashes notes that this run began and that others crashed, and returns how
// many have of late.
func (t *takeover) countCrashes() (crashes int, err error) {
	now := t.now.UnixMicro()
	window := queue.CrashWindow.Microseconds()
	err = errors.Join(
		t.exec(`UPDATE runs SET crashed = ? WHERE owner <> ? AND crashed IS NULL`, now, t.owner),
		t.exec(`DELETE FROM runs WHERE crashed NOT BETWEEN ? AND ?`, now-window+1, now+window),
		t.exec(`INSERT INTO runs (owner) VALUES (?) ON CONFLICT DO NOTHING`, t.owner),
	)
	if err != nil {
		return 0, err
	}
	err = t.row(`SELECT count(*) FROM runs WHERE crashed IS NOT NULL`, nil, &crashes)
	return crashes, err
}

// stepRecipients is how many recipients one step of [Store.Recover] takes, and
// then the rest of the last one's message.
const stepRecipients = 500

// some takes some of the leases, and returns of how many messages.
func (t *takeover) some() (queue.Recovered, int, error) {
	var r queue.Recovered
	type lease struct{ message, owner string }
	orphans := map[lease][]orphan{}
	n := 0
	// A message is taken as a whole: what is done with it ends all its leases.
	err := t.each(`SELECT message, owner, forward_path, route, tries, marked FROM recipients
		WHERE owner IS NOT NULL AND owner <> ? ORDER BY owner, message`, []any{t.owner}, func(rows *sql.Rows) error {
		var id []byte
		var o orphan
		if err := rows.Scan(&id, &o.owner, &o.path, &o.route, &o.tries, &o.marked); err != nil {
			return err
		}
		key := lease{string(id), o.owner}
		if n >= stepRecipients && orphans[key] == nil {
			return errEnough
		}
		n++
		orphans[key] = append(orphans[key], o)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return r, 0, err
	}
	for key, lost := range orphans {
		step, err := t.message([]byte(key.message), lost)
		if err != nil {
			return r, 0, err
		}
		r.Add(step)
	}
	return r, len(orphans), nil
}

// orphan is a recipient whose owner is gone.
type orphan struct {
	owner, path, route string
	tries, marked      int
}

// message takes the leases that one owner has on a message.
func (t *takeover) message(key []byte, orphans []orphan) (queue.Recovered, error) {
	r, err := t.release(key, orphans)
	if err != nil {
		return r, err
	}
	alone := orphans[0].marked&markAlone != 0
	if !alone && !t.suspect {
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
	var o queue.Outcome
	attempt := mailer.Attempt{Started: t.now}
	for _, lost := range orphans {
		o = queue.Outcome{ID: id, Owner: lost.owner, Route: lost.route, At: t.now, Changes: o.Changes}
		if t.hold && queue.Marks(lost.owner) && lost.marked&markContent == 0 {
			r.Released++
			continue
		}
		change := queue.Change{ForwardPath: lost.path, State: queue.Deferred, Next: t.now, Tries: lost.tries}
		if t.hold {
			change.State = queue.Held
			r.Held++
		}
		r.Uncertain++
		o.Changes = append(o.Changes, change)
		attempt.Results = append(attempt.Results, mailer.Result{ForwardPath: lost.path, Failure: queue.LostAttempt()})
	}
	if len(o.Changes) > 0 {
		o.Attempts = []mailer.Attempt{attempt}
		o.Turns = queue.LostTurns(o.Route, t.now)
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
	_, err = t.settle(key, t.now)
	return err
}

// acquit ends the suspicion of a message.
func (w *writer) acquit(id string) error {
	key, _ := blob(id)
	return w.exec(`UPDATE messages SET suspect = 0, crashes = 0 WHERE id = ?`, key)
}
