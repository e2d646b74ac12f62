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
	// NoteUsed has it tell, before an attempt uses a further turn, which ones it used.
	NoteUsed(note func(ctx context.Context, times []time.Time) error)
}

// sharingRelay is a relay that may keep to its rate together with those of other instances, as
// smtp.Relay does.
type sharingRelay interface {
	// ShareRate has it take its turns from a note. used are those of before there was a note.
	ShareRate(note mailer.ChangeNote, used []time.Time)
}

// loginRelay is a relay that may count refused logins together with those of other instances, as
// smtp.Relay does.
type loginRelay interface {
	ShareLogins(note mailer.ChangeNote)
}

// shareLogins has the relays do so, where other instances share the store.
func (s *shared) shareLogins() {
	for _, r := range s.router.relays {
		if sharing, ok := r.(loginRelay); ok && s.owner.store != nil {
			sharing.ShareLogins(s.owner.store.ChangeNote)
		}
	}
}

// turnsOf returns the turns that the attempt used of the relay's rate, and that are not noted.
func turnsOf(r mailer.Deliverer, a mailer.Attempt) []Turn {
	rated, ok := r.(ratedRelay)
	if !ok {
		return nil
	}
	return turnsAt(rated, a.Turns)
}

func turnsAt(r ratedRelay, times []time.Time) []Turn {
	turns := make([]Turn, len(times))
	for i, at := range times {
		turns[i] = Turn{Relay: r.Name(), At: at.UTC(), Window: min(r.Rate().Per, LongestWindow)}
	}
	return turns
}

// recallTurns tells each relay that has a rate which turns of it earlier runs used. What an
// attempt uses from now on is recorded at its end; a crash before that counts one turn for
// it. So the store is told of the others before each further one. Where the store is shared
// the relays take their turns there, and what is recorded serves only a store in a file to
// which the queue may move.
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
		if sharing, ok := r.(sharingRelay); ok && s.owner.store != nil {
			sharing.ShareRate(s.owner.store.ChangeNote, times)
			continue
		}
		rated.Used(times)
		rated.NoteUsed(func(ctx context.Context, times []time.Time) error {
			return s.store.Mark(ctx, "", Lease{}, turnsAt(rated, times))
		})
	}
	return nil
}
