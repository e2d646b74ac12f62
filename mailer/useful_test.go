package mailer

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestUseful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tests := []struct {
			name  string
			rate  Rate
			limit int // of connections
			idle  int // of two that are open
			turns int // taken
			want  int
		}{
			{"no rate", Rate{}, 4, 0, 0, 12},
			{"rate far off", Rate{100, time.Second}, 4, 0, 50, 12},
			{"one a second", Rate{1, time.Second}, 4, 2, 1, 4},
			{"one a second, connections busy", Rate{1, time.Second}, 4, 0, 1, 6},
			{"five a second", Rate{5, time.Second}, 8, 2, 5, 20},
			{"nothing used of an hour's", Rate{100, time.Hour}, 4, 2, 0, 12},
			{"all but one used of an hour's", Rate{100, time.Hour}, 4, 2, 99, 2},
			{"an hour's used up", Rate{100, time.Hour}, 4, 2, 100, 2},
		}
		for _, c := range tests {
			r := &Relay{pace: pace{rate: c.rate}}
			r.pool.window.limit, r.pool.places, r.pool.idle = c.limit, 2, make([]*conn, c.idle)
			for range c.turns {
				if err := r.pace.turn(t.Context(), PriorityHigh, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if got := r.Useful(); got != c.want {
				t.Errorf("%s: Useful() = %d, want %d", c.name, got, c.want)
			}
		}
	})
}
