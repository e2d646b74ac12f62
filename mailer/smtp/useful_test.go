package smtp

import (
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

func TestUseful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tests := []struct {
			name  string
			rate  units.Rate
			limit int // of connections
			idle  int // of two that are open
			turns int // taken
			want  int
		}{
			{"no rate", units.Rate{}, 4, 0, 0, 12},
			{"rate far off", units.Rate{Messages: 100, Per: time.Second}, 4, 0, 50, 12},
			{"one a second", units.Rate{Messages: 1, Per: time.Second}, 4, 2, 1, 4},
			{"one a second, connections busy", units.Rate{Messages: 1, Per: time.Second}, 4, 0, 1, 6},
			{"five a second", units.Rate{Messages: 5, Per: time.Second}, 8, 2, 5, 20},
			{"nothing used of an hour's", units.Rate{Messages: 100, Per: time.Hour}, 4, 2, 0, 12},
			{"all but one used of an hour's", units.Rate{Messages: 100, Per: time.Hour}, 4, 2, 99, 2},
			{"an hour's used up", units.Rate{Messages: 100, Per: time.Hour}, 4, 2, 100, 2},
		}
		for _, c := range tests {
			r := &Relay{pace: pace{rate: schedule{c.rate}}}
			r.pool.window.limit, r.pool.places, r.pool.idle = c.limit, 2, make([]*conn, c.idle)
			for range c.turns {
				turn, err := r.pace.awaitTurn(t.Context(), mailer.Envelope{Priority: mailer.PriorityHigh}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				r.pace.written(turn)
			}
			if got := r.Useful(); got != c.want {
				t.Errorf("%s: Useful() = %d, want %d", c.name, got, c.want)
			}
		}
	})
}
