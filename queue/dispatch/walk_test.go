package dispatch

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestWalks goes long random ways through the worlds of TestSearch, and through one
// with many messages. Some deliveries never end.
func TestWalks(t *testing.T) {
	crowd := &setting{
		name: "crowd", options: Options{Relays: []string{"first", "second"}, Workers: 2, MaxMemory: 5000},
		routes: map[string][]int{"one": {0, 1}, "other": {1}}, useful: []int{2, 1}, grown: 3,
		outcomes: []outcome{delivered, deferred, inTrouble, ratedOut, refused, broken, alike, quota}, failing: true, commands: true, operator: true,
	}
	for i := range 9 {
		j := Job{Route: "one", Lane: Lane{Key: "app"}, Size: 1000, ReversePath: strings.Repeat("a", 1+i%3), Recipients: []string{fmt.Sprint(i % 4)}}
		if i%4 == 3 {
			j.Route, j.Lane.Key = "other", "other"
		}
		crowd.messages = append(crowd.messages, j)
		crowd.lives = append(crowd.lives, time.Duration(i%3)*time.Hour)
	}
	for _, s := range append(settings(), crowd) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(200) {
				walk(t, s, rand.New(rand.NewPCG(seed, 0)))
			}
		})
	}
}

// walk goes a random way. A new message takes the place of one that is delivered.
func walk(t *testing.T, s *setting, random *rand.Rand) {
	t.Helper()
	w, hangs := s.start(), random.IntN(1<<len(s.messages))
	var way []string
	for range 300 {
		var next []action
		for _, a := range w.actions(nil) {
			if a.name != "report" || hangs>>a.about&1 == 0 || w.messages[a.about].relay > 0 {
				next = append(next, a)
			}
		}
		if len(next) == 0 {
			return
		}
		a := next[random.IntN(len(next))]
		if a.outcome == delivered && a.name == "report" && random.IntN(3) > 0 {
			continue
		}
		way = append(way, a.String())
		w.prepare()
		a.do(w, a.about, a.outcome)
		if wrong := w.check(); wrong != "" {
			t.Fatalf("%s\n%s", wrong, strings.Join(way, ", "))
		}
		for i, m := range w.messages {
			if m.place == ended {
				w.messages[i] = message{}
			}
		}
	}
}
