package sim

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mailsidecar/sim/relay"
)

// checks are the names of the checks that found something.
func checks(found []string) map[string]bool {
	names := map[string]bool{}
	for _, f := range found {
		name, _, _ := strings.Cut(f, ":")
		names[name] = true
	}
	return names
}

// asks is how often a shorter world is played before it is said not to fail: which
// goroutine runs first is not the seed's alone.
const asks = 3

// fails says whether one of the checks fails in the world.
func fails(t *testing.T, w *World, wanted map[string]bool) (Result, bool) {
	for range asks {
		r := Run(t, w)
		for name := range checks(r.Found) {
			if wanted[name] {
				return r, true
			}
		}
	}
	return Result{}, false
}

// Shrink makes the world that has failed shorter and simpler, as long as one of the same
// checks fails, in up to limit trials.
func Shrink(t *testing.T, w *World, failed Result, limit int) (*World, Result) {
	s := shrinker{t: t, world: w, result: failed, wanted: checks(failed.Found), left: limit}
	for before := -1; before != len(s.world.Actions) && s.left > 0; {
		before = len(s.world.Actions)
		s.actions()
		s.faults()
	}
	return s.world, s.result
}

type shrinker struct {
	t      *testing.T
	world  *World
	result Result
	wanted map[string]bool
	left   int
}

// try takes the changed world if it fails, too.
func (s *shrinker) try(change func(w *World)) bool {
	if s.left <= 0 {
		return false
	}
	s.left--
	w := *s.world
	w.Actions = append([]Action(nil), w.Actions...)
	w.Relays = append([]Relay(nil), w.Relays...)
	change(&w)
	r, failed := fails(s.t, &w, s.wanted)
	if failed {
		s.world, s.result = &w, r
	}
	return failed
}

// actions takes actions away: half of them, a quarter, and so on to each one.
func (s *shrinker) actions() {
	for size := len(s.world.Actions) / 2; size > 0; size /= 2 {
		for at := 0; at < len(s.world.Actions) && s.left > 0; {
			taken := s.try(func(w *World) {
				w.Actions = append(w.Actions[:at:at], w.Actions[min(at+size, len(w.Actions)):]...)
			})
			if !taken {
				at += size
			}
		}
	}
}

// faults takes faults away from the world.
func (s *shrinker) faults() {
	s.try(func(w *World) { w.SlowStore = 0 })
	if s.world.skewed() {
		s.try(func(w *World) { w.Skews = make([]time.Duration, w.Instances) })
	}
	for i := range s.world.Relays {
		s.try(func(w *World) { w.Relays[i].Outages = nil })
		s.try(func(w *World) { w.Relays[i].Stops = nil })
		s.try(func(w *World) { w.Relays[i].Locked = nil })
		s.try(func(w *World) { w.Relays[i].LostDials, w.Relays[i].RefusedDials = 0, 0 })
		s.try(func(w *World) { w.Relays[i].MaxConnections, w.Relays[i].Idle = 0, 0 })
		for stage := range relay.Stages {
			if s.world.Relays[i].Odds[stage] != [relay.Faults]float64{} {
				s.try(func(w *World) { w.Relays[i].Odds[stage] = [relay.Faults]float64{} })
			}
		}
	}
}

// stories writes what became of the messages that were found to fail.
func stories(out io.Writer, r Result) {
	found := strings.Join(r.Found, " ") + " "
	for i := range r.Facts.Messages {
		m := &r.Facts.Messages[i]
		if !strings.Contains(found, m.Subject+" ") && !strings.Contains(found, m.Subject+".") {
			continue
		}
		fmt.Fprintf(out, "story of %s of %s, created %v, expires %v:\n", m.Subject, m.Key, m.Created, m.Expires)
		for _, rec := range m.Recipients {
			fmt.Fprintf(out, "  %s %s\n", rec.ForwardPath, rec.State)
		}
		for _, a := range m.Attempts {
			fmt.Fprintf(out, "  attempt at %s, %v for %v\n", a.Relay, a.Started, a.Duration)
			for _, res := range a.Results {
				fmt.Fprintf(out, "    %s %v: %v\n", res.ForwardPath, res.Reply, res.Failure)
			}
		}
	}
}

// Report writes all that is needed to understand a failure: the world, the history, what
// was found, the events.
func Report(out io.Writer, w *World, r Result) {
	fmt.Fprintf(out, "%v\nactions:\n", w)
	for _, a := range w.Actions {
		fmt.Fprintln(out, " ", a)
	}
	fmt.Fprintln(out, "found:")
	for _, f := range r.Found {
		fmt.Fprintln(out, " ", f)
	}
	stories(out, r)
	fmt.Fprintln(out, "events:")
	r.Events.Write(out, 0, r.Events.Len())
}
