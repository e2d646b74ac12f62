package relay

import (
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/sim/chance"
	"mailsidecar/sim/events"
	"mailsidecar/sim/network"
)

// Options are what a relay is like.
type Options struct {
	Name string
	Odds Odds
	// Outages are when it cannot be reached; LostDials and RefusedDials are how many of
	// the other dials to its first port meet a firewall or a closed port.
	Outages                 []Span
	Locked                  []Span // when every login is refused, as with another password
	LostDials, RefusedDials float64
	Stops                   []Stop
	FirstPort               int

	Pipelining, EightBit, Login bool
	// MaxConnections and MaxRecipients limit the clients, and the recipients of a
	// transaction; zero means no limit.
	MaxConnections, MaxRecipients int
	// Idle is how long a client may be silent before it gets a 421; zero means no limit.
	Idle time.Duration
	TLS  *tls.Config `json:"-"` // nil: clear text
}

// Relay is a relay. Its methods may be called at any time.
type Relay struct {
	opts     Options
	chance   chance.Chance
	log      *events.Log
	began    time.Time
	calm     atomic.Bool
	sessions sync.WaitGroup
	over     chan struct{}

	mu    sync.Mutex
	open  int
	conns map[*network.Conn]bool
	count int
	asked map[question]int
	notes Notes
}

// question is what a random decision is about.
type question struct {
	stage Stage
	about string
}

// New returns a relay. The history begins now.
func New(o Options, c chance.Chance, log *events.Log) *Relay {
	return &Relay{
		opts: o, chance: c, log: log, began: time.Now(), over: make(chan struct{}),
		conns: map[*network.Conn]bool{}, asked: map[question]int{},
	}
}

// Calm ends all faults.
func (r *Relay) Calm() { r.calm.Store(true) }

// Reach says whether a dial reaches the relay.
func (r *Relay) Reach(port, n int) network.Fate {
	at := r.chance.Of("dial").N(port).N(n)
	switch {
	case r.calm.Load():
		return network.Reached
	case r.out():
		return chance.Pick(at, network.Lost, network.Refused)
	case port == r.opts.FirstPort && at.Happens(r.opts.LostDials):
		return network.Lost
	case port == r.opts.FirstPort && at.Of("refused").Happens(r.opts.RefusedDials):
		return network.Refused
	}
	return network.Reached
}

func (r *Relay) out() bool { return r.in(r.opts.Outages) }

func (r *Relay) locked() bool { return !r.calm.Load() && r.in(r.opts.Locked) }

// in says that it is now one of the times.
func (r *Relay) in(spans []Span) bool {
	at := time.Since(r.began)
	return slices.ContainsFunc(spans, func(s Span) bool { return s.holds(at) })
}

// Serve talks to a client in the background.
func (r *Relay) Serve(c *network.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &session{relay: r, conn: c, number: r.count, opened: time.Now(), transaction: -1, crowded: r.opts.MaxConnections > 0 && r.open >= r.opts.MaxConnections && !r.calm.Load()}
	r.count++
	r.open++
	r.conns[c] = true
	r.sessions.Go(func() {
		s.run()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.open--
		delete(r.conns, c)
		c.Close()
	})
}

// Close ends all sessions, and waits for them.
func (r *Relay) Close() {
	close(r.over)
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.sessions.Wait()
}

// Connections is how many clients there are.
func (r *Relay) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// decide says what happens at a stage to what the question is about.
func (r *Relay) decide(stage Stage, about string) (Fault, chance.Chance) {
	r.mu.Lock()
	q := question{stage, about}
	n := r.asked[q]
	r.asked[q]++
	r.mu.Unlock()
	c := r.chance.N(int(stage)).Of(about).N(n)
	if r.calm.Load() {
		return Faults, c
	}
	if r.stopped(stage) != nil {
		return Refuse, c
	}
	return r.opts.Odds.pick(stage, c), c
}
