package dispatch

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestScripts plays events, and compares the orders that follow on each. A
// message is named by its key and a number; ! is high priority and ~ bulk.
func TestScripts(t *testing.T) {
	for _, s := range []struct {
		name    string
		workers int
		memory  int64 // zero: enough
		script  string
	}{
		{"a line is served in order, with an extra worker for a line that has none", 1, 0, `
			submit a1     → begin a1
			submit a2     →
			submit a3     →
			submit b1     → begin b1
			done a1       → begin a2
			done b1       →
			done a2       → begin a3
			done a3       →`},
		{"keys take turns, however much one has", 1, 0, `
			submit a1~    → begin a1~
			submit a2~    →
			submit a3~    →
			submit b1~    →
			submit b2~    →
			submit c1~    →
			done a1~      → begin a2~
			done a2~      → begin b1~
			done b1~      → begin c1~
			done c1~      → begin a3~
			done a3~      → begin b2~`},
		{"a higher priority goes first, and bulk has no extra worker", 1, 0, `
			submit a1     → begin a1
			submit b1~    →
			submit a2     →
			submit a3!    → begin a3!
			submit a4!    → begin a4!
			submit a5!    →
			done a1       → begin a5!
			done a5!      → begin a2
			done a3!      →
			done a4!      →
			done a2       → begin b1~`},
		{"one extra worker is for high priority alone", 1, 0, `
			submit a1     → begin a1
			submit b1     → begin b1
			submit c1     →
			submit a2!    → begin a2!
			submit b2!    →
			done a2!      → begin b2!
			done b2!      →
			done a1       → begin c1`},
		{"at least every ninth turn goes to what waits", 1, 0, `
			submit a0!    → begin a0!
			submit b0     → begin b0
			submit a1!    → begin a1!
			submit c1~    →
			submit a2!    →
			submit a3!    →
			submit a4!    →
			submit a5!    →
			submit a6!    →
			submit a7!    →
			submit a8!    →
			submit a9!    →
			submit b1!    →
			done a0!      → begin a2!
			done a2!      → begin b1!
			done b1!      → begin a3!
			done a3!      → begin a4!
			done a4!      → begin a5!
			done a5!      → begin a6!
			done a6!      → begin a7!
			done a7!      → begin a8!
			done a8!      → begin c1~
			done c1~      → begin a9!`},
		{"a relay in trouble is probed, and mail goes on when it is well", 2, 0, `
			submit a1     → begin a1
			submit a2     → begin a2
			submit a3     →
			trouble a1    → release a3; shut high normal bulk; paused; look in 1s
			done a1       → look in 1s
			take a2       → no
			pass 1s       → look in 0s
			look a        → want a 1
			claim a3      → begin a3
			take a3       → yes
			take a2       → no
			look a        → look in 30s
			trouble a3    → shut high normal bulk; paused; look in 2s
			done a3       → look in 2s
			pass 2s       → look in 0s
			look a        → want a 1
			claim a3      → begin a3
			take a3       → yes
			well a3       → resumed; look in 0s
			submit a4     → begin a4; look in 0s
			done a3       → look in 0s
			look a        → want a 8`},
		{"a rate that is used up shuts out what is not more urgent", 2, 0, `
			submit a1     → begin a1
			submit a2     → begin a2
			submit a3     →
			submit b1~    →
			rate a1       → release a3 b1~; shut normal bulk; rate; look in 10s
			submit a4!    → begin a4!; look in 10s`},
		{"what does not fit into memory waits in the store", 1, 5000, `
			submit a1     → begin a1
			submit a2     →
			submit a3     → wait; look in 0s
			submit b1     → begin b1; look in 0s
			submit c1     → wait; look in 0s`},
		{"a large message is not starved by smaller ones", 8, 5000, `
			claim a1+ a2+ → begin a1+
			claim b1 b2   → begin b1
			done a1+      → begin a2+
			done b1       → begin b2`},
	} {
		t.Run(s.name, func(t *testing.T) {
			p := newPlayer(Options{Relays: []string{"relay"}, Workers: s.workers, MaxMemory: cmp.Or(s.memory, 1<<20)})
			for _, line := range strings.Split(strings.TrimSpace(s.script), "\n") {
				event, want, _ := strings.Cut(strings.TrimSpace(line), "→")
				if got := p.play(strings.Fields(event)); got != strings.TrimSpace(want) {
					t.Fatalf("%s→ %s, want %s", event, got, want)
				}
			}
		})
	}
}

// TestExpiry: messages are expired at the first look after one of them did, also
// where its lease ended later than that.
func TestExpiry(t *testing.T) {
	p := newPlayer(Options{Relays: []string{"relay"}, Workers: 1, MaxMemory: 1 << 20})
	j := p.job("a1", true)
	j.Expires = p.now.Add(time.Minute)
	looks := func(what string, want bool) {
		t.Helper()
		if got := p.d.Look(p.now); got != want {
			t.Errorf("%s: Look() = %v, want %v", what, got, want)
		}
		p.d.Looked(Waiting{}, p.now)
	}
	looks("nothing waits", false)
	p.d.Waits(j.Route, j.Lane, p.now, j.Expires, p.now)
	looks("before it expires", false)
	p.now = j.Expires
	if wake := p.d.Wake(); !wake.Equal(p.now) {
		t.Errorf("Wake() = %v, want %v", wake, p.now)
	}
	looks("when it expires", true)
	looks("after that", false)
	p.d.Released([]*Job{j}, p.now)
	looks("released later", true)
}

// player plays the events of a script.
type player struct {
	d    *Dispatcher
	now  time.Time
	jobs map[string]*Job
	out  []string
}

func newPlayer(o Options) *player {
	p := &player{d: New(o), now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), jobs: map[string]*Job{}}
	p.d.Route("relay", []int{0})
	p.d.Start(p.now)
	p.d.Look(p.now)
	p.d.Looked(Waiting{}, p.now)
	return p
}

func (p *player) job(name string, fresh bool) *Job {
	j := &Job{ID: name, Route: "relay", Lane: Lane{Key: name[:1]}, Size: 1000, Fresh: fresh}
	switch name[len(name)-1] {
	case '!':
		j.Lane.Priority = mailer.PriorityHigh
	case '~':
		j.Lane.Priority = mailer.PriorityBulk
	case '+':
		j.Size = 3000
	}
	p.jobs[name] = j
	return j
}

// play returns what follows on an event.
func (p *player) play(event []string) string {
	p.out = nil
	name, args := event[0], event[1:]
	switch name {
	case "submit":
		p.submit(p.job(args[0], true))
	case "claim":
		var jobs []*Job
		for _, arg := range args {
			jobs = append(jobs, p.job(arg, false))
		}
		p.orders(p.d.Claimed(jobs, p.now))
	case "done":
		p.orders(p.d.Done(p.jobs[args[0]], p.now))
	case "take":
		taken, o := p.d.Take(0, p.jobs[args[0]], p.now)
		p.orders(o)
		return map[bool]string{true: "yes", false: "no"}[taken]
	case "well", "trouble", "rate":
		o := map[string]outcome{"well": delivered, "trouble": inTrouble, "rate": ratedOut}[name]
		p.orders(p.d.Report(0, p.jobs[args[0]], attempt(o, p.now), p.now, 0.5))
	case "pass":
		d, _ := time.ParseDuration(args[0])
		p.now = p.now.Add(d)
	case "look":
		p.look(args[0])
	}
	p.wake()
	return strings.Join(p.out, "; ")
}

func (p *player) say(format string, args ...any) { p.out = append(p.out, fmt.Sprintf(format, args...)) }

func (p *player) submit(j *Job) {
	if !p.d.Reserve(j, p.now) {
		p.say("wait")
		p.d.Waits(j.Route, j.Lane, p.now, p.now.Add(time.Hour), p.now)
		return
	}
	p.orders(p.d.Stored([]*Job{j}, p.now))
}

// look reads a store in which mail of the key is due.
func (p *player) look(key string) {
	p.d.Look(p.now)
	wants, o := p.d.Looked(Waiting{Lanes: []LaneDue{{"relay", Lane{Key: key}, p.now}}}, p.now)
	p.orders(o)
	for _, w := range wants {
		p.say("want %s %d", w.Lane.Key, w.Limit)
	}
}

func (p *player) orders(o Orders) {
	for _, group := range []struct {
		name string
		jobs []*Job
	}{{"begin", o.Begin}, {"release", o.Release}} {
		var names []string
		for _, j := range group.jobs {
			names = append(names, j.ID)
		}
		if len(names) > 0 {
			p.say("%s %s", group.name, strings.Join(names, " "))
		}
	}
	var shut []string
	for _, s := range o.Shut {
		shut = append(shut, s.Priority.String())
	}
	if len(shut) > 0 {
		p.say("shut %s", strings.Join(shut, " "))
	}
	switch n := o.News; {
	case n == nil:
	case n.Paused:
		p.say("paused")
	case n.Resumed:
		p.say("resumed")
	case n.RateUsedUp:
		p.say("rate")
	}
}

// wake says when the store must be looked at.
func (p *player) wake() {
	if wake := p.d.Wake(); !wake.IsZero() {
		p.say("look in %v", wake.Sub(p.now))
	}
}
