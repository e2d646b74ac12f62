package memory

import (
	"context"
	"maps"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// Mark notes that content is about to be sent, and to which relay.
func (s *Store) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	return s.write(ctx, "Mark", func() error {
		s.mark(s.markable(l, owner), l.Route, turns)
		return nil
	})
}

// markable are the recipients that a mark of owner is about.
func (t *tables) markable(l queue.Lease, owner string) []*recipient {
	return slices.DeleteFunc(t.leased(l.ID, owner), func(r *recipient) bool {
		return !r.has(l.Number) || !slices.Contains(l.ForwardPaths, r.ForwardPath)
	})
}

func (t *tables) mark(recipients []*recipient, route string, turns []queue.Turn) {
	for _, turn := range turns {
		t.takeTurn(turn)
	}
	for _, r := range recipients {
		r.marked.content, r.route = true, route // it is leased, and in no list of its route
	}
}

// MarkAlone notes whether the message is the only one in hand.
func (s *Store) MarkAlone(ctx context.Context, owner, id string, alone bool) error {
	return s.write(ctx, "MarkAlone", func() error {
		for _, r := range s.leased(id, owner) {
			r.marked.alone = alone
		}
		return nil
	})
}

// End forgets the run.
func (s *Store) End(ctx context.Context, owner string) error {
	return s.write(ctx, "End", func() error {
		delete(s.runs, owner)
		return nil
	})
}

// Recover takes over the leases of all other owners; in a [Database] of those that are gone.
func (s *Store) Recover(ctx context.Context, owner string, now time.Time, hold bool) (total queue.Recovered, err error) {
	err = s.read(ctx, "Recover", func() error {
		total.Crashes = s.countCrashes(owner, now)
		maps.DeleteFunc(s.lives, func(other string, _ time.Time) bool { return other != owner && !s.alive(other, 0) })
		if !s.anyGone(owner) {
			return nil
		}
		s.commits.Add(1)
		for _, m := range slices.Clone(s.unfinished) {
			for _, gone := range s.otherOwners(m, owner) {
				if s.opts.Lost != nil {
					s.opts.Lost(gone, m.ID)
				}
				total.Add(s.recover(m, gone, now, hold, s.suspects(gone, now)))
			}
		}
		return nil
	})
	return total, err
}

// countCrashes notes that owner's run began and that others crashed, and returns how
// many have of late; zero when there is nothing new.
func (t *tables) countCrashes(owner string, now time.Time) int {
	_, known := t.runs[owner]
	crashes := 0
	for other, crashed := range t.runs {
		switch {
		case other == owner, crashed.IsZero() && t.alive(other, 0):
			continue
		case crashed.IsZero():
			t.runs[other] = now
			known = false
		case now.Sub(crashed).Abs() >= queue.CrashWindow:
			delete(t.runs, other)
			continue
		}
		crashes++
	}
	if known {
		return 0
	}
	t.runs[owner] = time.Time{}
	return crashes
}

// anyGone says whether an owner beside this one has leases, and is gone.
func (t *tables) anyGone(owner string) bool {
	for other := range t.leases {
		if other != owner && !t.alive(other, 0) {
			return true
		}
	}
	return false
}

// suspects says whether the crash of the owner was not the first one of late: what it had
// leased is suspect then.
func (t *tables) suspects(gone string, now time.Time) bool {
	last := t.runs[gone]
	if last.IsZero() {
		last = now
	}
	crashes := 0
	for _, crashed := range t.runs {
		if age := last.Sub(crashed); !crashed.IsZero() && age >= 0 && age < queue.CrashWindow {
			crashes++
		}
	}
	return crashes >= queue.SuspectCrashes
}

// otherOwners returns the owners of the message's leases that are gone, except owner.
func (t *tables) otherOwners(m *message, owner string) []string {
	var owners []string
	for _, r := range m.recipients {
		if r.owner != "" && r.owner != owner && !slices.Contains(owners, r.owner) && !t.alive(r.owner, 0) {
			owners = append(owners, r.owner)
		}
	}
	return owners
}

// recover ends the leases that an owner who is gone has on a message. With suspect the
// message is that from now on.
func (s *Store) recover(m *message, gone string, now time.Time, hold, suspect bool) queue.Recovered {
	alone := s.leased(m.ID, gone)[0].marked.alone
	total := s.releaseLost(m, gone, now, hold)
	if m.final || !suspect && !alone {
		return total
	}
	m.suspect = true
	total.Suspects = 1
	if !alone {
		return total
	}
	if m.crashes++; m.crashes < queue.BlameCrashes {
		for _, r := range m.recipients {
			if rested := now.Add(queue.SuspectRest); r.waits() && r.NextAttempt.Before(rested) {
				s.update(r, func() { r.NextAttempt = rested })
			}
		}
		return total
	}
	total.Blamed = []queue.Blame{s.holdBlamed(m, now, total.Uncertain > 0)}
	return total
}

// holdBlamed holds what waits of a message that was alone in hand at crashes.
func (s *Store) holdBlamed(m *message, now time.Time, sent bool) queue.Blame {
	b := queue.Blame{ID: m.ID, ReversePath: m.Envelope.ReversePath}
	attempt := mailer.Attempt{Started: now}
	for _, r := range m.recipients {
		if r.owner != "" || r.State.Final() {
			continue
		}
		result := mailer.Result{ForwardPath: r.ForwardPath, Failure: queue.BlamedAttempt(sent)}
		s.update(r, func() {
			r.State, r.NextAttempt, r.Result = queue.Held, time.Time{}, result
			r.attempts++
		})
		b.ForwardPaths = append(b.ForwardPaths, r.ForwardPath)
		attempt.Results = append(attempt.Results, result)
	}
	m.attempts = append(m.attempts, attempt)
	s.numbers.Apply(tally.Change{Key: m.Key, Attempts: []mailer.Attempt{attempt}})
	s.settle(m.ID, now)
	return b
}

// releaseLost ends the leases, of which those are held or uncertain that may have been
// sent.
func (s *Store) releaseLost(m *message, gone string, now time.Time, hold bool) queue.Recovered {
	var total queue.Recovered
	o := queue.Outcome{ID: m.ID, Owner: gone, At: now}
	counted := map[string]bool{} // routes
	for _, r := range s.leased(m.ID, gone) {
		relay, sent := queue.MaybeSent(gone, r.route, r.marked.content)
		if !sent {
			total.Released++
			continue
		}
		total.Uncertain++
		if hold {
			total.Held++
		}
		o.Lose(queue.Leased{ForwardPath: r.ForwardPath, Tries: r.tries}, relay, hold)
		if !counted[r.route] {
			o.Turns = append(o.Turns, queue.LostTurns(r.route, now)...)
		}
		counted[r.route] = true
	}
	s.record(o)
	for _, r := range s.leased(m.ID, gone) {
		s.release(r, r.route, now)
	}
	s.settle(m.ID, now)
	return total
}
