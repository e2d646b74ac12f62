package memory

import (
	"context"
	"slices"
	"time"

	"mailsidecar/queue"
)

// takeTurn notes a turn, and forgets those of the relay that count no more.
func (t *tables) takeTurn(turn queue.Turn) {
	t.turns[turn.Relay] = add(after(turn.At.Add(-turn.Window), t.turns[turn.Relay]), turn.At, time.Time.Compare)
}

// after returns those of the sorted times that are after t.
func after(t time.Time, times []time.Time) []time.Time {
	return slices.DeleteFunc(times, func(at time.Time) bool { return !at.After(t) })
}

// sweepTurns forgets the turns up to end, and returns how many those were.
func (t *tables) sweepTurns(end time.Time) int {
	removed := 0
	for relay, turns := range t.turns {
		t.turns[relay] = after(end, turns)
		if removed += len(turns) - len(t.turns[relay]); len(t.turns[relay]) == 0 {
			delete(t.turns, relay)
		}
	}
	return removed
}

// Turns returns the last turns that a relay's rate counts.
func (s *Store) Turns(ctx context.Context, relay string, since time.Time, limit int) (turns []time.Time, err error) {
	err = s.read(ctx, "Turns", func() error {
		turns = after(since, slices.Clone(s.turns[relay]))
		return nil
	})
	return turns[max(0, len(turns)-limit):], err
}
