package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// recountStep is how many messages one view counts; fewer in tests.
var recountStep = 50

// recountTrouble is how long the counter rests after the store could not be read.
const recountTrouble = 5 * time.Second

// startCounter counts the numbers anew where a crash, an upgrade or a doubtful commit left
// them in doubt.
func (s *Store) startCounter() { s.counter.start(s.countSome) }

// countSome counts some messages, and says whether there are more. It rests for as long as
// that took.
func (s *Store) countSome(ctx context.Context) (more bool) {
	n := &s.writer.numbers
	n.mu.Lock()
	exact := n.exact
	n.mu.Unlock()
	if exact {
		return false
	}
	began := time.Now()
	var r recount
	err := s.view(ctx, func(v *session) error { return r.step(ctx, s, v) })
	rest := time.Since(began)
	if err != nil {
		n.mu.Lock()
		n.anew = nil // from the beginning
		n.mu.Unlock()
		rest = recountTrouble
	} else {
		n.add(&r)
	}
	select {
	case <-ctx.Done():
	case <-time.After(rest):
	}
	return true
}

// recount is one step of counting anew.
type recount struct {
	tally    *tally.Tally // that is being made
	from, to []byte       // ids after from, up to to
	since    int64        // what was before is not counted anew, in microseconds since 1970
	done     bool
	found    *tally.Tally // in these messages
}

// step looks at some messages. Commits wait while the view begins and the step is chosen:
// from then on each counts by itself what it does with these messages.
func (r *recount) step(ctx context.Context, s *Store, v *session) error {
	turn, n := &s.writer.usage, &s.writer.numbers
	if err := turn.begin(ctx); err != nil {
		return err
	}
	err := r.choose(v, n)
	turn.end()
	if err != nil || r.done && len(r.to) == 0 {
		return err
	}
	return r.read(v)
}

func (r *recount) choose(v *session, n *numbers) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.anew == nil {
		var last []byte
		if err := v.row(`SELECT coalesce((SELECT max(id) FROM messages), x'')`, nil, &last); err != nil {
			return err
		}
		n.anew, n.visited, n.last = tally.New(), "", string(last)
	}
	r.tally, r.from = n.anew, []byte(n.visited)
	last := []byte(n.last)
	err := v.row(`SELECT coalesce((SELECT id FROM messages WHERE id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?), ?)`,
		[]any{r.from, last, recountStep - 1, last}, &r.to)
	if err != nil {
		n.anew = nil
		return err
	}
	n.visited, r.done = string(r.to), bytes.Equal(r.to, last)
	// What was before is kept, hour by hour: so an hour is counted as a whole.
	r.since = tally.HourOf(tally.Begin(newest(last)))
	return nil
}

// newest is about when the newest message was accepted.
func newest(last []byte) time.Time {
	now := time.Now()
	if id, err := fromBlob(last); err == nil && queue.TimeOf(id).Before(now) {
		return queue.TimeOf(id)
	}
	return now
}

// slack is how much later than its message, or than its own begin, an attempt may end at most.
const slack = time.Hour

func (r *recount) read(v *session) error {
	r.found = tally.New()
	type row struct {
		tally.Change
		created int64
		tried   bool // there may be attempts to count
	}
	var found []row
	err := v.each(`SELECT id, key, status, created, final = 0 OR clock >= ? FROM messages WHERE id > ? AND id <= ?`,
		[]any{r.since - slack.Microseconds(), r.from, r.to}, func(rows *sql.Rows) error {
			var m row
			var id []byte
			err := rows.Scan(&id, &m.Key, &m.To, &m.created, &m.tried)
			m.ID = string(id)
			found = append(found, m)
			return err
		})
	if err != nil {
		return err
	}
	for _, m := range found {
		id := []byte(m.ID)
		if m.created >= r.since {
			m.At = time.UnixMicro(m.created)
			if err := v.row(`SELECT count(*) FROM recipients WHERE message = ?`, []any{id}, &m.Accepted); err != nil {
				return err
			}
		}
		r.found.Apply(m.Change)
		if m.tried {
			if err := r.attempts(v, m.Key, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// attempts counts those of a message that may be shown, outcome by outcome: they have the
// number of its lease. Only one outcome is held in memory.
func (r *recount) attempts(v *session, key string, id []byte) error {
	var outcome []mailer.Attempt
	var of int64
	flush := func() {
		if len(outcome) > 0 {
			r.found.Apply(tally.Change{Key: key, Attempts: outcome})
		}
		outcome = nil
	}
	err := v.each(`SELECT relay, started, duration, results, lease FROM attempts WHERE message = ? AND started >= ? ORDER BY n`,
		[]any{id, r.since - slack.Microseconds()}, func(rows *sql.Rows) error {
			var a mailer.Attempt
			var started, duration, lease int64
			var results sql.NullString
			if err := rows.Scan(&a.Relay, &started, &duration, &results, &lease); err != nil {
				return err
			}
			var packed []stored.Result
			if err := fromJSON(results, &packed); err != nil {
				return err
			}
			a.Started, a.Duration = time.UnixMicro(started), time.Duration(duration)*time.Microsecond
			for _, one := range packed {
				a.Results = append(a.Results, one.Unpack())
			}
			if lease == 0 || lease != of {
				flush()
			}
			outcome, of = append(outcome, a), lease
			return nil
		})
	flush()
	return err
}

// add adds what a step has found. After the last one the new numbers take the place of the
// old ones.
func (n *numbers) add(r *recount) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.tally == nil || n.anew != r.tally { // a commit was doubtful meanwhile
		return
	}
	if r.found != nil {
		n.anew.Add(r.found)
	}
	if r.done {
		n.anew.Take(n.shown, r.since)
		n.anew.Touch()
		n.shown, n.anew, n.exact, n.whole, n.kept = n.anew, nil, true, true, time.Time{}
	}
}
