package queue

import (
	"context"
	"fmt"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

// ratedRelay is a relay that may have a rate, as smtp.Relay may.
type ratedRelay interface {
	Name() string
	// Rate is the relay's rate; zero means that it has none.
	Rate() units.Rate
	// Used tells the relay when messages set out for it before it was made.
	Used(times []time.Time)
}

// turnsOf returns the turns that the attempt used of the relay's rate.
func turnsOf(r mailer.Deliverer, a mailer.Attempt) []Turn {
	rated, ok := r.(ratedRelay)
	if !ok {
		return nil
	}
	turns := make([]Turn, len(a.Turns))
	for i, at := range a.Turns {
		turns[i] = Turn{Relay: r.Name(), At: at.UTC(), Window: min(rated.Rate().Per, LongestWindow)}
	}
	return turns
}

// recallTurns tells each relay that has a rate which turns of it earlier runs used.
func (s *shared) recallTurns(ctx context.Context) error {
	for _, r := range s.router.relays {
		rated, ok := r.(ratedRelay)
		if !ok || rated.Rate().Messages == 0 {
			continue
		}
		rate := rated.Rate()
		times, err := s.store.Turns(ctx, rated.Name(), s.now().Add(-rate.Per), rate.Messages)
		if err != nil {
			return fmt.Errorf("read what was used of the rate: %w", err)
		}
		rated.Used(times)
	}
	return nil
}
