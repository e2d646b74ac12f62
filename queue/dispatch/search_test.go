package dispatch

import (
	"flag"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// With each event more there are about 2.6 times as many states: at 12 there are
// over three million, which takes minutes. Worlds in which all has begun go three
// events less deep.
var depth = flag.Int("depth", 9, "how many events TestSearch lets follow on each other")

// settings are the small worlds that are searched: three messages and two relays.
func settings() []*setting {
	app, other := Lane{Key: "app"}, Lane{Key: "other"}
	urgent, bulk := Lane{Key: "other", Priority: mailer.PriorityHigh}, Lane{Key: "app", Priority: mailer.PriorityBulk}
	one := map[string][]int{"one": {0, 1}}
	two := map[string][]int{"one": {0, 1}, "other": {1}}
	jobs := func(route3 string, lanes ...Lane) []Job {
		jobs := []Job{{Route: "one", Lane: lanes[0]}, {Route: "one", Lane: lanes[1]}, {Route: route3, Lane: lanes[2]}}
		for i := range jobs {
			jobs[i].Size = 1000
		}
		return jobs
	}
	options := func(workers int, memory int64) Options {
		return Options{Relays: []string{"first", "second"}, Workers: workers, MaxMemory: memory}
	}
	weighted := func(o Options, weights ...int) Options {
		o.Weights = weights
		return o
	}
	from := func(jobs []Job, reversePaths ...string) []Job {
		for i := range jobs {
			jobs[i].ReversePath, jobs[i].Recipients = reversePaths[i], []string{reversePaths[i]}
		}
		return jobs
	}
	blame := []outcome{delivered, refused, broken}
	alikes := []outcome{delivered, alike}
	all := []outcome{delivered, deferred, inTrouble, ratedOut}
	suspects := jobs("other", app, app, other)
	suspects[0].Alone, suspects[2].Alone = true, true
	return []*setting{
		{name: "one route", options: options(2, 1<<20), routes: one, messages: jobs("one", app, app, urgent), outcomes: all},
		{name: "weights", options: weighted(options(1, 1<<20), 1, 2), routes: two, messages: jobs("other", app, app, urgent), outcomes: all},
		{name: "weights, few connections", options: weighted(options(2, 1<<20), 1, 1), routes: one, messages: jobs("one", app, app, bulk), useful: []int{1, 1}, outcomes: []outcome{delivered, inTrouble}},
		{name: "a weight and a standby", options: weighted(options(1, 1<<20), 0, 1), routes: one, messages: jobs("one", app, app, urgent), begun: true, outcomes: []outcome{delivered, inTrouble, ratedOut}},
		{name: "one line", options: options(1, 1<<20), routes: one, messages: jobs("one", app, app, app), outcomes: []outcome{delivered, inTrouble}},
		{name: "two routes, one worker", options: options(1, 1<<20), routes: two, messages: jobs("other", bulk, app, other), outcomes: all},
		{name: "little memory", options: options(2, 2500), routes: one, messages: jobs("one", app, bulk, other), outcomes: all},
		{name: "a store that fails", options: options(1, 2500), routes: two, messages: jobs("other", app, app, app), outcomes: all[:3], failing: true},
		{name: "commands", options: options(1, 1<<20), routes: one, messages: jobs("one", app, app, bulk), outcomes: all[1:], commands: true},
		{name: "few connections", options: options(2, 1<<20), routes: two, messages: jobs("other", app, app, other), useful: []int{1, 1}, outcomes: all},
		{name: "connections that come late", options: options(2, 1<<20), routes: one, messages: jobs("one", app, app, app), useful: []int{1, 1}, grown: 2, outcomes: all[:3]},
		{name: "paused by a person", options: options(1, 1<<20), routes: two, messages: jobs("other", app, app, urgent), outcomes: []outcome{delivered, inTrouble}, operator: true},
		{name: "paused by a person, with weights", options: weighted(options(1, 2500), 0, 1), routes: one, messages: jobs("one", app, bulk, app), begun: true, outcomes: all, operator: true},
		{name: "suspects", options: options(1, 2500), routes: two, messages: suspects, outcomes: all[1:]},
		{name: "short lives", options: options(1, 1<<20), routes: one, messages: jobs("one", app, app, app), lives: []time.Duration{0, 5 * time.Second, time.Minute}, outcomes: []outcome{deferred, inTrouble}},
		{name: "blame", options: options(2, 1<<20), routes: one, messages: from(jobs("one", app, app, app), "a", "a", "a"), begun: true, outcomes: blame},
		{name: "two reverse-paths", options: options(2, 1<<20), routes: one, messages: from(jobs("one", app, app, app), "a", "bb", "a"), begun: true, outcomes: blame},
		{name: "blame on two routes", options: options(1, 1<<20), routes: two, messages: from(jobs("other", app, app, urgent), "a", "a", "bb"), begun: true, outcomes: append(blame, inTrouble)},
		{name: "quota", options: options(2, 1<<20), routes: one, messages: jobs("one", app, app, urgent), begun: true, outcomes: []outcome{delivered, deferred, inTrouble, quota}, commands: true},
		{name: "quota and blame", options: options(2, 1<<20), routes: map[string][]int{"one": {0}}, messages: from(jobs("one", app, app, app), "a", "a", "bb"), begun: true, outcomes: []outcome{delivered, broken, quota}},
		{name: "alike", options: options(2, 1<<20), routes: one, messages: from(jobs("one", app, app, other), "a", "bb", "ccc"), begun: true, outcomes: alikes},
		{name: "alike of one reverse-path", options: options(2, 1<<20), routes: one, messages: from(jobs("one", app, other, app), "a", "a", "bb"), begun: true, outcomes: append(alikes, quota, broken)},
		{name: "one relay, four messages", options: options(2, 1<<20), routes: map[string][]int{"one": {0}}, messages: from(append(jobs("one", app, app, app), jobs("one", app, app, app)[0]), "a", "a", "a", "bb"), begun: true, outcomes: blame, lives: []time.Duration{0, 0, 0, time.Minute}},
	}
}

// visited is a world with how it came about.
type visited struct {
	*world
	from *visited
	by   action
}

func (v *visited) path() string {
	var names []string
	for ; v.from != nil; v = v.from {
		names = append(names, v.by.String())
	}
	slices.Reverse(names)
	return strings.Join(names, ", ")
}

// TestSearch goes through all orders of events, breadth first, and meets each
// distinct state once. It logs how many there are.
func TestSearch(t *testing.T) {
	for _, s := range settings() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			seed := maphash.MakeSeed()
			seen := map[uint64]bool{}
			frontier := []*visited{{world: s.start()}}
			var key []byte
			var actions []action
			events := *depth
			if s.begun {
				events -= 3
			}
			for n := 1; n <= events; n++ {
				var next []*visited
				for _, v := range frontier {
					actions = v.actions(actions[:0])
					for _, a := range actions {
						w := v.clone()
						w.prepare()
						a.do(w, a.about, a.outcome)
						if wrong := w.check(); wrong != "" {
							t.Fatalf("after %d events: %s\n%s, %s", n, wrong, v.path(), a)
						}
						key = w.key(key)
						if hash := maphash.Bytes(seed, key); !seen[hash] {
							seen[hash] = true
							next = append(next, &visited{w, v, a})
						}
					}
					v.world = nil // only the way to it is needed
				}
				frontier = next
			}
			t.Logf("%d events deep there are %d states", events, len(seen))
		})
	}
}
