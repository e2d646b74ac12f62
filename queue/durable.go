package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
)

// Options says what a [Durable] works with.
type Options struct {
	// Store keeps the messages. Whoever opened it closes it, after Run returned.
	Store  Store
	Routes Routes
	Logger *slog.Logger // nil discards
	// Workers is how many deliveries go on at a time to each set of relays that
	// shares its senders; zero means 8. Fewer do while the relay has no use for
	// more. An eighth, but at least one, is there beside them for mail that is
	// not bulk and of which next to nothing is in hand.
	Workers int
	// ExpiresIn is how long a message is tried that does not say so itself; zero
	// means 5 days.
	ExpiresIn time.Duration
	// HoldUncertain makes a recipient wait for a person when it is not known
	// whether the relay accepted it (MAILSIDECAR_UNCERTAIN=hold). It costs one
	// more commit for each delivery.
	HoldUncertain bool
	// MaxMessages and MaxBytes bound what is not final; zero means no bound.
	MaxMessages int64
	MaxBytes    int64
	// MaxMemory bounds the octets of messages in memory, of those that came from
	// Submit and of those from the store; what does not fit waits in the store.
	// The first message of each API key and priority may take a quarter more.
	// Zero means 16 MiB. One message of any size always fits.
	MaxMemory int64
	// StopTimeout is how long deliveries in hand may go on once the service
	// stops; zero means 5 s. Then they are cut short before the final dot, and
	// become uncertain after it.
	StopTimeout time.Duration
	// Now reads the clock; nil means the system's.
	Now func() time.Time
	// Random returns a number in [0, 1), which keeps messages apart that failed
	// together; nil means a random one.
	Random func() float64
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.ExpiresIn == 0 {
		o.ExpiresIn = 5 * 24 * time.Hour
	}
	if o.MaxMemory == 0 {
		o.MaxMemory = 16 << 20
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return o
}

// Durable is the queue that keeps what it accepted until it is final.
//
// In good times a message is committed with its lease, handed to a worker in
// memory, and its outcome committed: the store is never read. It is read for
// what waits there: retries, mail for a paused relay, scheduled mail, and what
// did not fit into memory. Nothing polls: a timer runs until the earliest of
// these is due.
type Durable struct {
	opts   Options
	store  Store
	log    *slog.Logger
	owner  string // of this instance's leases
	now    func() time.Time
	ledger *ledger
	wake   chan struct{} // capacity 1: look at the store again
	quit   chan struct{} // closed when the service begins to stop

	// deliverCtx ends when deliveries in hand must end.
	deliverCtx  context.Context //nolint:containedctx // it spans the deliveries, not a call
	cutDeliver  context.CancelFunc
	deliveries  sync.WaitGroup
	submissions sync.WaitGroup
	nextExpiry  time.Time // of the scheduler only

	mu       sync.Mutex
	phase    phase
	stuck    bool // outcomes cannot be recorded: deliver no more until they can
	relays   map[mailer.Deliverer]*relay
	groups   map[string]*group
	fresh    int64 // octets of content that came from Submit
	loaded   int64 // octets of content that came from the store
	stored   Usage // what is not final
	reserved Usage // what is being stored
	moves    int   // how often stored was added to or taken from
	nextWake time.Time
	refused  time.Time // when the log was last told that new mail is
	watches  map[string][]*watch
	pending  map[pendingKey]bool // idempotency keys that are being stored

	recountSoon bool // stored may be off
}

type phase int

const (
	starting phase = iota // Submit stores, nothing is delivered
	running
	stopping
)

type pendingKey struct{ key, name string }

// New returns a queue that delivers once [Durable.Run] runs. Without it the
// look-ups and commands work too.
func New(o Options) (*Durable, error) {
	if o.Store == nil {
		return nil, errors.New("queue: no store")
	}
	o = o.withDefaults()
	d := &Durable{
		opts: o, store: o.Store, log: o.Logger, owner: uuid.NewString()[:8], now: precise(o.Now),
		wake: make(chan struct{}, 1), quit: make(chan struct{}),
		relays: map[mailer.Deliverer]*relay{}, groups: map[string]*group{},
		watches: map[string][]*watch{}, pending: map[pendingKey]bool{},
	}
	if o.HoldUncertain {
		d.owner = marksPrefix + d.owner
	}
	d.ledger = newLedger(d)
	for _, r := range o.Routes {
		d.relays[r.Relay] = &relay{Deliverer: r.Relay}
	}
	return d, nil
}

// precise returns the clock with the precision of the store.
func precise(now func() time.Time) func() time.Time {
	return func() time.Time { return now().UTC().Truncate(time.Microsecond) }
}

// Durable is true: an accepted message is stored.
func (*Durable) Durable() bool { return true }

// Ready says why messages cannot be accepted just now; nil when they can.
func (d *Durable) Ready(ctx context.Context) error {
	d.mu.Lock()
	phase := d.phase
	d.mu.Unlock()
	switch phase {
	case starting:
		return errors.New("starting")
	case stopping:
		return ErrShuttingDown
	case running:
	}
	return d.store.Check(ctx)
}

// Pauses lists the relays that are in trouble.
func (d *Durable) Pauses() []Pause {
	d.mu.Lock()
	defer d.mu.Unlock()
	var pauses []Pause
	for _, route := range d.opts.Routes {
		if r := d.relays[route.Relay]; r.failures > 0 {
			pauses = append(pauses, Pause{r.Name(), r.failures, r.until, r.reason})
		}
	}
	return pauses
}

// Usage counts what is not final.
func (d *Durable) Usage() Usage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stored
}

// Load is what a queue has in memory.
type Load struct {
	Fresh, Loaded int64 // octets of messages that came from Submit, and from the store
	Waiting       int   // messages in line for a relay
	InFlight      int   // deliveries under way
	Storing       int   // messages that are being stored and have a place in line
	Waiters       int   // requests that wait for an attempt
}

// Load counts what is in memory.
func (d *Durable) Load() Load {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := Load{Fresh: d.fresh, Loaded: d.loaded, Waiters: len(d.watches)}
	for _, g := range d.groups {
		l.InFlight += g.active
		l.Waiting += g.waiting()
		for _, lane := range g.lanes {
			l.Storing += lane.storing
		}
	}
	return l
}

// Run delivers until ctx ends, and returns when everything it started has. On
// stopping it accepts nothing more, gives back what waits, and lets deliveries
// that have begun finish within StopTimeout; the error tells what could not be
// recorded, and will be taken for uncertain at the next start.
func (d *Durable) Run(ctx context.Context) error {
	// What must still be done when ctx has ended is not bound by it.
	work := context.WithoutCancel(ctx)
	if err := d.start(work); err != nil {
		return fmt.Errorf("start queue: %w", err)
	}
	var helpers sync.WaitGroup
	ledgerCtx, stopLedger := context.WithCancel(work)
	defer stopLedger()
	helpers.Go(func() { d.ledger.run(ledgerCtx) })
	keepCtx, stopKeeping := context.WithCancel(work)
	defer stopKeeping()
	helpers.Go(func() { d.keepHouse(keepCtx) })

	d.schedule(ctx)
	stopKeeping()
	d.stop()
	stopLedger()
	helpers.Wait()
	return d.ledger.unwritten()
}

// start takes over what an instance that ended left behind.
func (d *Durable) start(ctx context.Context) error {
	d.deliverCtx, d.cutDeliver = context.WithCancel(ctx)
	if err := d.store.Rewind(ctx, d.now().Add(longestRetry+longestRetry/8)); err != nil {
		return err
	}
	recovered, err := d.recover(ctx)
	if err != nil {
		return err
	}
	usage, err := d.store.Usage(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.stored = usage
	d.phase = running
	for _, g := range d.groups {
		d.dispatch(g)
	}
	d.mu.Unlock()
	d.log.Info("queue started", "messages", usage.Messages, "bytes", usage.Bytes,
		"uncertain", recovered.Uncertain, "held", recovered.Held, "released", recovered.Released)
	return nil
}

func (d *Durable) recover(ctx context.Context) (Recovered, error) {
	now := d.now()
	if err := d.store.Heartbeat(ctx, d.owner, now); err != nil {
		return Recovered{}, err
	}
	return d.store.Recover(ctx, d.owner, now, d.opts.HoldUncertain)
}

// stop ends what Run began, in the order in which a message travels.
func (d *Durable) stop() {
	d.mu.Lock()
	d.phase = stopping
	close(d.quit)
	d.mu.Unlock()
	d.submissions.Wait()
	d.mu.Lock()
	var leases []Lease
	for _, g := range d.groups {
		leases = append(leases, d.evict(g, everyPriority)...)
	}
	d.mu.Unlock()
	d.ledger.release(leases)
	d.stopWaiting()

	cut := time.AfterFunc(d.opts.StopTimeout, d.cutDeliver)
	d.deliveries.Wait()
	cut.Stop()
	d.cutDeliver()
	d.ledger.drain(d.opts.StopTimeout)
}

// groupOf returns the group that takes sender's mail; nil when no relay does.
// The caller holds mu.
func (d *Durable) groupOf(sender string) *group {
	var relays []*relay
	var names []string
	for _, r := range d.opts.Routes.For(sender) {
		relays = append(relays, d.relays[r])
		names = append(names, r.Name())
	}
	if len(relays) == 0 {
		return nil
	}
	route := strings.Join(names, ",")
	g := d.groups[route]
	if g == nil {
		g = newGroup(route, relays)
		d.groups[route] = g
	}
	return g
}
