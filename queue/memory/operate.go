package memory

import (
	"context"
	"slices"
	"time"

	"mailsidecar/queue"
)

// ManualPauses returns the list that was set last.
func (s *Store) ManualPauses(ctx context.Context) (pauses []queue.ManualPause, err error) {
	err = s.read(ctx, "ManualPauses", func() error {
		pauses = slices.Clone(s.pauses)
		return nil
	})
	return pauses, err
}

// SetManualPauses keeps the list, in the order in which the pauses began.
func (s *Store) SetManualPauses(ctx context.Context, pauses []queue.ManualPause, of ...string) error {
	return s.write(ctx, "SetManualPauses", func() error {
		s.pauses = slices.DeleteFunc(s.pauses, func(p queue.ManualPause) bool { return len(of) == 0 || slices.Contains(of, p.Relay) })
		s.pauses = append(s.pauses, pauses...)
		slices.SortStableFunc(s.pauses, func(a, b queue.ManualPause) int { return a.Since.Compare(b.Since) })
		return nil
	})
}

// Backlog looks at every message that is not final.
func (s *Store) Backlog(ctx context.Context, now time.Time) (b queue.Backlog, err error) {
	err = s.read(ctx, "Backlog", func() error {
		b = queue.Backlog{}
		for _, m := range s.messages {
			if m.final {
				continue
			}
			states := map[queue.State]int{}
			for _, r := range m.recipients {
				states[r.State]++
				switch {
				case r.owner != "", r.waits() && !r.NextAttempt.After(now):
					b.Due++
				case r.waits():
					b.Later++
					if b.Next.IsZero() || r.NextAttempt.Before(b.Next) {
						b.Next = r.NextAttempt
					}
				}
			}
			if queue.StatusOf(states) == queue.StatusHeld {
				b.Held++
			}
		}
		return nil
	})
	return b, err
}
