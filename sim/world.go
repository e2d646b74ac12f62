// Package sim tries to break every promise of the product at once, in orders that no
// test names: the real HTTP server, queue and mailer in one bubble of virtual time, over
// a network in memory, with relays, clients and a store that misbehave.
//
// A seed makes a [World] with its history of actions, [Run] plays it, and package model
// says what must not have happened. See docs/testing.md.
package sim

import (
	"fmt"
	"slices"
	"time"

	"mailsidecar/sim/chance"
	"mailsidecar/sim/relay"
	"mailsidecar/units"
)

// World is all that a history depends on. It is made from its seed, before anything runs.
type World struct {
	Seed   uint64
	SQLite bool // the store is a file; else it is in memory

	Calm          bool            // nothing misbehaves
	Hold          bool            // uncertain mail waits for a person
	Steps         bool            // the clock is set forward and back
	SharedSenders bool            // messages of a key have one reverse-path
	Workers       int             // of the queue
	MaxMemory     int64           // octets of messages in its memory
	MaxMessages   int64           // in the queue; zero means no limit
	ExpiresIn     time.Duration   // of messages that do not say
	Instances     int             `json:",omitzero"` // at one store; zero is one
	Lease         time.Duration   `json:",omitzero"` // of an instance
	Skews         []time.Duration `json:",omitzero"` // by how much the clocks of the instances are off
	SlowStore     float64         // how many calls of the store take seconds
	FailingStore  float64         // how many commits fail while they do

	Keys    []Key
	Relays  []Relay
	Length  time.Duration
	Actions []Action
	// Drafts are the requests of recorded worlds, by the action's ID; else they are made of
	// the seed.
	Drafts map[int]*Draft

	chance chance.Chance
}

// Rate is a number of messages in a time; zero is no limit.
type Rate struct {
	Messages int
	Per      time.Duration
}

// Key is an API key.
type Key struct {
	Name, Domain string // of what it sends
	Rate         Rate
}

// Secret is what its requests bear.
func (k Key) Secret() string { return "secret-of-the-key-" + k.Name }

// Relay is a relay, and how the service uses it.
type Relay struct {
	relay.Options
	Ports                                                           []int
	Senders                                                         []string
	TLS                                                             bool
	Rate                                                            Rate
	Weight                                                          int            `json:",omitzero"`
	Keys                                                            map[string]int `json:",omitzero"` // that name it, with its place among theirs
	UseConnections, MessagesPerConnection, RecipientsPerTransaction int
	IdleTimeout                                                     time.Duration
}

// NewWorld makes the world of the seed.
func NewWorld(seed uint64, sqlite bool) *World {
	c := chance.New(seed)
	w := &World{
		Seed: seed, SQLite: sqlite, chance: c,
		Calm: c.Of("calm").Happens(0.25), Hold: c.Of("hold").Happens(0.35), Steps: c.Of("steps").Happens(0.1),
		SharedSenders: c.Of("shared").Happens(0.5),
		Workers:       chance.Pick(c.Of("workers"), 1, 2, 8), MaxMemory: chance.Pick[int64](c.Of("memory"), 0, 3000, 20_000),
		MaxMessages: chance.Pick[int64](c.Of("messages"), 0, 0, 0, 30),
		ExpiresIn:   chance.Pick(c.Of("expires"), 0, 0, 6*time.Hour, 20*time.Minute),
		Length:      chance.Pick(c.Of("length"), 5*time.Minute, 5*time.Minute, time.Hour, time.Hour, time.Hour, 6*time.Hour, 6*time.Hour, 30*time.Hour),
	}
	if !w.Calm {
		w.SlowStore = chance.Pick(c.Of("slow store"), 0, 0, 0, 0.02, 0.1)
		w.FailingStore = chance.Pick(c.Of("failing store"), 0, 0, 0.1, 0.4)
	}
	if !sqlite && sharedSeed(seed) {
		w.share(c.Of("share"))
	}
	for i := range 1 + c.Of("keys").Below(3) {
		w.Keys = append(w.Keys, w.key(i))
	}
	for i := range chance.Pick(c.Of("relays"), 1, 1, 1, 2, 2, 2, 3) {
		w.Relays = append(w.Relays, w.relay(i))
	}
	w.divide()
	w.Actions = w.history()
	return w
}

// sharedSeed says which worlds have several instances: one in four, of every core's seeds.
func sharedSeed(seed uint64) bool { return seed%8 == 0 || seed%8 == 3 }

// share makes several instances of the service. They look at their store each second, so time
// must be shorter there.
func (w *World) share(c chance.Chance) {
	w.Instances = chance.Pick(c.Of("instances"), 2, 2, 3)
	w.Lease = chance.Pick(c.Of("lease"), 10*time.Second, 30*time.Second, time.Minute)
	w.Steps = false
	w.Length = chance.Pick(c.Of("length"), 5*time.Minute, 5*time.Minute, 20*time.Minute, time.Hour)
	w.ExpiresIn = min(max(w.ExpiresIn, 20*time.Minute), 2*time.Hour)
	skewed := c.Of("skewed").Happens(0.2)
	for i := range w.Instances {
		var skew time.Duration
		if skewed {
			skew = c.Of("skew").N(i).Between(-3*time.Second, 3*time.Second)
		}
		w.Skews = append(w.Skews, skew)
	}
}

// skewed says that the clocks of the instances differ.
func (w *World) skewed() bool {
	return slices.ContainsFunc(w.Skews, func(d time.Duration) bool { return d != 0 })
}

func (w *World) key(i int) Key {
	name := []string{"app", "news", "shop"}[i]
	k := Key{Name: name, Domain: name + ".example"}
	if w.chance.Of("key rate").N(i).Happens(0.15) {
		k.Rate = Rate{Messages: 20, Per: time.Minute}
	}
	return k
}

func (w *World) relay(i int) Relay {
	c, name := w.chance.Of("relay").N(i), string(rune('a'+i))
	first := 2500 + 10*i
	r := Relay{
		Options: relay.Options{
			Name: name, FirstPort: first, Pipelining: c.Of("pipelining").Happens(0.7), EightBit: c.Of("eight bits").Happens(0.7),
			Login: c.Of("login").Happens(0.7), MaxRecipients: chance.Pick(c.Of("recipients"), 0, 0, 2),
		},
		Ports:          []int{first, first + 1}[:1+c.Of("ports").Below(2)],
		UseConnections: chance.Pick(c.Of("use"), 1, 2, 3, 8), MessagesPerConnection: chance.Pick(c.Of("served"), 1, 3, 100, 100),
		RecipientsPerTransaction: chance.Pick(c.Of("per transaction"), 1, 2, 100, 100),
		IdleTimeout:              chance.Pick(c.Of("idle"), 5*time.Second, 30*time.Second),
	}
	if c.Of("rate").Happens(0.3) {
		r.Rate = chance.Pick(c.Of("which rate"), Rate{2, time.Second}, Rate{20, time.Minute}, Rate{5, time.Minute}, Rate{100, time.Hour})
	}
	if i == 1 && c.Of("senders").Happens(0.5) {
		r.Senders = []string{w.Keys[len(w.Keys)-1].Domain}
	}
	r.TLS = c.Of("tls").Happens(0.05)
	if !w.Calm {
		w.misbehave(&r, c)
	}
	return r
}

func (w *World) misbehave(r *Relay, c chance.Chance) {
	r.Odds = relay.Draw(c.Of("odds"), chance.Pick(c.Of("rough"), 0.03, 0.08, 0.15))
	r.MaxConnections = chance.Pick(c.Of("crowded"), 0, 0, 1, 2)
	r.Idle = chance.Pick(c.Of("impatient"), 0, 0, 3*time.Second, 20*time.Second)
	r.LostDials = chance.Pick(c.Of("lost dials"), 0, 0, 0, 0.1, 0.5)
	r.RefusedDials = chance.Pick(c.Of("refused dials"), 0, 0, 0, 0.1, 0.5)
	w.stops(r, c)
	for n := range c.Of("outages").Below(3) {
		at := c.Of("outage").N(n)
		from := at.Between(0, w.Length)
		r.Outages = append(r.Outages, relay.Span{From: from, To: from + at.Of("long").Between(time.Second, w.Length/4)})
	}
	if at := c.Of("locked"); at.Happens(0.2) {
		from := at.Of("from").Between(0, w.Length)
		r.Locked = []relay.Span{{From: from, To: from + at.Of("long").Between(time.Minute, 3*time.Hour)}}
	}
}

// divide draws which relay gets how much of whose mail.
func (w *World) divide() {
	c := w.chance.Of("divide")
	if c.Of("weights").Happens(0.4) {
		for i := range w.Relays {
			w.Relays[i].Weight = chance.Pick(c.Of("weight").N(i), 0, 1, 1, 2, 3, 9)
		}
	}
	for n, k := range w.Keys {
		at := c.Of("key").N(n)
		if len(w.Relays) == 1 || !at.Happens(0.25) {
			continue
		}
		first := at.Of("first").Below(len(w.Relays))
		places := []int{first}
		if at.Of("two").Happens(0.4) {
			places = append(places, (first+1)%len(w.Relays))
		}
		if !slices.ContainsFunc(places, func(i int) bool { return w.Relays[i].takes(k.Domain) }) {
			continue // its mail would go nowhere
		}
		for place, i := range places {
			if w.Relays[i].Keys == nil {
				w.Relays[i].Keys = map[string]int{}
			}
			w.Relays[i].Keys[k.Name] = place + 1
		}
	}
}

func (r *Relay) takes(domain string) bool {
	return len(r.Senders) == 0 || slices.Contains(r.Senders, domain)
}

// stops draws when the relay refuses all mail.
func (w *World) stops(r *Relay, c chance.Chance) {
	for n := range chance.Pick(c.Of("stops"), 0, 0, 1, 2) {
		at := c.Of("stop").N(n)
		from := at.Between(0, w.Length)
		r.Stops = append(r.Stops, relay.Stop{
			Span:  relay.Span{From: from, To: from + at.Of("long").Between(time.Second, w.Length/3)},
			Stage: chance.Pick(at.Of("stage"), relay.Mail, relay.Rcpt, relay.Data, relay.Dot), Known: at.Of("known").Happens(0.5),
			Wait: chance.Pick(at.Of("wait"), 0, 90*time.Second, 20*time.Minute),
		})
	}
}

// String says what the world is like, in a few lines.
func (w *World) String() string {
	store := "memory"
	if w.SQLite {
		store = "SQLite"
	}
	s := fmt.Sprintf("seed %d, store in %s: calm %t, hold %t, steps of the clock %t, shared reverse-paths %t, workers %d, memory %d, messages %d, lifetime %v, slow store %g, failing commits %g, length %v\n",
		w.Seed, store, w.Calm, w.Hold, w.Steps, w.SharedSenders, w.Workers, w.MaxMemory, w.MaxMessages, w.ExpiresIn, w.SlowStore, w.FailingStore, w.Length)
	if w.shared() {
		s += fmt.Sprintf("  %d instances, lease %v, clocks off by %v\n", w.Instances, w.Lease, w.Skews)
	}
	for _, r := range w.Relays {
		s += fmt.Sprintf("  relay %s: ports %v, senders %v, weight %d, keys %v, rate %v, connections %d (takes %d), messages each %d, recipients %d (takes %d), pipelining %t, 8BITMIME %t, login %t, TLS %t, ends idle after %v, outages %v, stops %v, refuses logins %v, dials lost %g, refused %g\n",
			r.Name, r.Ports, r.Senders, r.Weight, r.Keys, units.Rate(r.Rate), r.UseConnections, r.MaxConnections, r.MessagesPerConnection, r.RecipientsPerTransaction, r.MaxRecipients,
			r.Pipelining, r.EightBit, r.Login, r.TLS, r.Idle, r.Outages, r.Stops, r.Locked, r.LostDials, r.RefusedDials)
		for stage, faults := range r.Odds {
			for fault, p := range faults {
				if p > 0 {
					s += fmt.Sprintf("    at %v %v: %g\n", relay.Stage(stage), relay.Fault(fault), p)
				}
			}
		}
	}
	return s
}
