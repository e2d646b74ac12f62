package memory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// Claim leases the longest waiting messages of each lane.
func (s *Store) Claim(ctx context.Context, owner string, now time.Time, wants []queue.Want) (works []queue.Work, err error) {
	err = s.write(ctx, "Claim", func() error {
		works = s.claimAll(owner, now, wants)
		return nil
	})
	return works, err
}

func (t *tables) claimAll(owner string, now time.Time, wants []queue.Want) (works []queue.Work) {
	for _, want := range wants {
		for _, m := range t.due(want, now) {
			works = append(works, t.claim(m, owner, want, now))
		}
	}
	return works
}

// due returns the messages that are wanted and due.
func (t *tables) due(want queue.Want, now time.Time) []*message {
	var due []*message
	for _, r := range t.waiting[line{want.Route, want.Lane}] {
		if r.NextAttempt.After(now) || len(due) == want.Limit {
			break
		}
		if !slices.Contains(due, r.message) {
			due = append(due, r.message)
		}
	}
	return due
}

func (t *tables) claim(m *message, owner string, want queue.Want, now time.Time) queue.Work {
	w := queue.Work{
		ID: m.ID, MessageID: m.MessageID, Sender: m.Sender, Route: want.Route, Key: m.Key, Size: m.Size, Expires: m.Expires, Since: m.Created,
		EightBit: m.content.EightBit, UTF8Header: m.content.UTF8Header,
		Envelope: mailer.Envelope{ReversePath: m.Envelope.ReversePath, Priority: m.Envelope.Priority},
		Suspect:  m.suspect,
	}
	if m.SendAt.After(w.Since) {
		w.Since = m.SendAt
	}
	t.lastLease++
	w.Lease = t.lastLease
	for _, r := range m.recipients {
		if !r.waits() || r.route != want.Route || r.NextAttempt.After(now) {
			continue
		}
		t.update(r, func() { r.owner, r.lease, r.marked = owner, w.Lease, marks{} })
		w.Envelope.ForwardPaths = append(w.Envelope.ForwardPaths, r.ForwardPath)
		w.Recipients = append(w.Recipients, queue.Leased{ForwardPath: r.ForwardPath, State: r.State, Tries: r.tries, Attempts: r.attempts})
	}
	return w
}

// leased returns the message's recipients that owner has leased.
func (t *tables) leased(id, owner string) []*recipient {
	m := t.messages[id]
	if m == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.recipients), func(r *recipient) bool { return r.owner != owner })
}

// Release ends leases without an attempt.
func (s *Store) Release(ctx context.Context, owner string, now time.Time, leases []queue.Lease) error {
	return s.write(ctx, "Release", func() error {
		for _, l := range leases {
			for _, r := range s.leased(l.ID, owner) {
				if r.has(l.Number) && slices.Contains(l.ForwardPaths, r.ForwardPath) {
					s.release(r, l.Route, now)
				}
			}
			s.settle(l.ID, now)
		}
		return nil
	})
}

// has says that the recipient's lease has the number; zero is any.
func (r *recipient) has(lease int64) bool { return lease == 0 || lease == r.lease }

// Leases lists what owner has leased.
func (s *Store) Leases(ctx context.Context, owner string) (leases []queue.Lease, err error) {
	err = s.read(ctx, "Leases", func() error {
		if s.leases[owner] == 0 {
			return nil // as nearly each minute
		}
		for _, m := range s.messages {
			of := map[int64]*queue.Lease{}
			for _, r := range s.leased(m.ID, owner) {
				l := of[r.lease]
				if l == nil {
					l = &queue.Lease{ID: m.ID, Route: r.route, Number: r.lease}
					of[r.lease] = l
				}
				l.ForwardPaths = append(l.ForwardPaths, r.ForwardPath)
			}
			for _, l := range of {
				leases = append(leases, *l)
			}
		}
		slices.SortFunc(leases, func(a, b queue.Lease) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Number, b.Number))
		})
		return nil
	})
	return leases, err
}

// release ends a lease. A recipient that was to be canceled is; any other is due at
// now or before, though the clock was set back.
func (t *tables) release(r *recipient, route string, now time.Time) {
	t.update(r, func() {
		if r.cancel {
			r.end(queue.Canceled)
			r.cancel = false
			return
		}
		r.owner, r.marked, r.route = "", marks{}, route
		if r.NextAttempt.After(now) {
			r.NextAttempt = now
		}
	})
}

// Record stores what came of attempts.
func (s *Store) Record(ctx context.Context, outcomes []queue.Outcome) (settled queue.Settled, err error) {
	err = s.write(ctx, "Record", func() error {
		for _, o := range outcomes {
			if s.record(o) {
				settled.Messages++
				settled.Bytes += s.messages[o.ID].Size
			}
			if m := s.messages[o.ID]; m != nil && o.Touched() {
				m.suspect, m.crashes = false, 0
			}
		}
		return nil
	})
	return settled, err
}

// record stores one outcome, and says whether the message became final by it.
func (s *Store) record(o queue.Outcome) bool {
	m := s.messages[o.ID]
	if m == nil || o.Lease != 0 && slices.Contains(m.recorded, o.Lease) {
		return false
	}
	if o.Lease != 0 {
		m.recorded = append(m.recorded, o.Lease)
	}
	results, tried := map[string]mailer.Result{}, map[string]int{}
	for _, a := range o.Attempts {
		a = kept(a)
		m.attempts = append(m.attempts, a)
		for _, r := range a.Results {
			results[r.ForwardPath] = r
			tried[r.ForwardPath]++
		}
	}
	for _, c := range o.Changes {
		for _, r := range m.recipients {
			if r.ForwardPath != c.ForwardPath || (r.owner != o.Owner || !r.has(o.Lease)) && c.State != queue.Delivered {
				continue
			}
			s.update(r, func() { r.change(c, o.RouteOf(c)) })
			if n := tried[c.ForwardPath]; n > 0 {
				r.Result = results[c.ForwardPath]
				r.attempts += n
			}
		}
	}
	for _, turn := range o.Turns {
		s.takeTurn(turn)
	}
	s.numbers.Apply(tally.Change{Key: m.Key, Attempts: o.Attempts})
	return s.settle(o.ID, o.At)
}

func (r *recipient) change(c queue.Change, route string) {
	cancel := r.cancel && !c.State.Final()
	r.State, r.NextAttempt, r.tries, r.route = c.State, time.Time{}, c.Tries, route
	r.owner, r.marked, r.cancel = "", marks{}, false
	switch {
	case cancel:
		r.State = queue.Canceled
	case !c.State.Final() && c.State != queue.Held:
		r.NextAttempt = c.Next
	}
}

// kept returns an attempt as a store on a disk keeps it: without the errors
// behind the failures.
func kept(a mailer.Attempt) mailer.Attempt {
	a.Results, a.Ladder = slices.Clone(a.Results), slices.Clone(a.Ladder)
	for i := range a.Results {
		a.Results[i].Failure = withoutErr(a.Results[i].Failure)
	}
	for i := range a.Ladder {
		a.Ladder[i].Failure = withoutErr(a.Ladder[i].Failure)
	}
	return a
}

func withoutErr(f *mailer.Failure) *mailer.Failure {
	if f == nil {
		return nil
	}
	g := *f
	g.Err = nil
	return &g
}

// Waiting looks at the front of each line.
func (s *Store) Waiting(ctx context.Context, now time.Time) (w queue.Waiting, err error) {
	err = s.read(ctx, "Waiting", func() error {
		for l, recipients := range s.waiting {
			w.Lanes = append(w.Lanes, queue.LaneDue{Route: l.route, Lane: l.lane, At: recipients[0].NextAttempt})
		}
		slices.SortFunc(w.Lanes, func(a, b queue.LaneDue) int {
			return cmp.Or(cmp.Compare(a.Route, b.Route), cmp.Compare(b.Lane.Priority, a.Lane.Priority), cmp.Compare(a.Lane.Key, b.Lane.Key))
		})
		for _, m := range s.unfinished {
			if m.clock.After(now) {
				w.Expiry = m.clock
				break
			}
		}
		return nil
	})
	return w, err
}

// Expire ends what waited too long.
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) (ended []queue.Ended, err error) {
	err = s.write(ctx, "Expire", func() error {
		for _, m := range slices.Clone(s.unfinished) {
			if m.clock.After(now) || len(ended) == limit {
				break
			}
			e := queue.Ended{ID: m.ID, Size: m.Size, ReversePath: m.Envelope.ReversePath}
			for _, r := range m.recipients {
				if r.waits() {
					s.update(r, func() { r.end(queue.Expired) })
					e.ForwardPaths = append(e.ForwardPaths, r.ForwardPath)
				}
			}
			if len(e.ForwardPaths) > 0 {
				e.Final = s.settle(m.ID, now)
				ended = append(ended, e)
			}
		}
		return nil
	})
	return ended, err
}

// Rewind makes recipients due at latest that are not due before.
func (s *Store) Rewind(ctx context.Context, latest time.Time, _ string) (next string, err error) {
	return "", s.write(ctx, "Rewind", func() error {
		for _, m := range s.unfinished {
			for _, r := range m.recipients {
				if r.waits() && r.NextAttempt.After(latest) && (r.attempts > 0 || !m.SendAt.After(latest)) {
					s.update(r, func() { r.NextAttempt = latest })
				}
			}
		}
		return nil
	})
}
