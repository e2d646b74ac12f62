package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/queue/dispatch"
)

// Options says what a [Durable] works with.
type Options struct {
	// Store keeps the messages. Whoever opened it closes it, after Run returned.
	Store  Store
	Routes Routes
	// KnowsKey reports whether an API key of that name is configured; nil knows all. Mail
	// of a key that is not any more keeps the relays that it has: nothing else tells which
	// it may go to.
	KnowsKey func(key string) bool
	Logger   *slog.Logger // nil discards
	// Workers is how many deliveries go on at a time for each set of relays that
	// shares its senders; zero means 8. Fewer run when the relay has no free
	// connection. An extra eighth (at least one) serves only non-bulk mail from
	// lanes with little in flight, and one more only such mail of high priority.
	Workers int
	// ExpiresIn is how long a message is tried when its sender does not say;
	// zero means 5 days.
	ExpiresIn time.Duration
	// HoldUncertain makes a recipient wait for a person when it is unknown whether
	// the relay accepted it (MAILSIDECAR_UNCERTAIN=hold). It costs one more commit
	// for each delivery.
	HoldUncertain bool
	// MaxMessages and MaxBytes limit the messages that are not final, in number
	// and octets; zero means no limit.
	MaxMessages int64
	MaxBytes    int64
	// MaxMemory limits the octets of messages in memory: of those that came from
	// Submit, and of those from the store. Messages that do not fit wait in the
	// store. The first message of each API key and priority may take a quarter
	// more. Zero means 16 MiB. One message of any size always fits.
	MaxMemory int64
	// StopTimeout is how long deliveries in flight may go on once the service
	// stops; zero means 5 s. Then a delivery before the final dot is cut short,
	// and one after it becomes uncertain.
	StopTimeout time.Duration
	// Meter counts what happens; nil counts nothing.
	Meter Meter
	// Now reads the clock; nil means the system's.
	Now func() time.Time
	// Random returns a number in [0, 1), which keeps messages apart that failed
	// together; nil means a random one.
	Random func() float64
}

func (o Options) withDefaults() Options {
	if o.KnowsKey == nil {
		o.KnowsKey = func(string) bool { return true }
	}
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
	if o.Meter == nil {
		o.Meter = unmetered{}
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
// messages that wait there: retries, mail for a paused relay, scheduled mail,
// and mail that did not fit into memory. A timer runs until the first of these
// is due; the store is not polled, unless it is a [SharedStore].
//
// It is made of small parts. Each guards its own fields with its own mutex, or
// has none, and is used through its methods only:
//
//	intake    admits and stores submissions, and answers them
//	driver    drives the dispatcher, which decides what goes next; has the workers
//	          and the scheduler
//	recorder  records outcomes and gives leases back
//	manual    has the pauses that a person wishes
//	peers     tells other instances at the store of pauses, and learns of theirs
//	house     does the work that can wait: heartbeat, leases of instances that are
//	          gone, sweep, the clock
//	account   counts the messages that are not final
//	waiters   are the requests that wait for an attempt
//
// A part that holds its mutex does not call the store, except manual. It may call parts that
// come later in this order: manual, intake, driver, account, waiters. The recorder calls
// no other part with its mutex held.
type Durable struct {
	shared
	intake   *intake
	driver   *driver
	recorder *recorder
	house    *house
	manual   *manual
	// rescheduling lets one message at a time be rescheduled: its content is in memory
	// for that time, and must not change.
	rescheduling *fairLine
	phase        atomic.Int32
}

// shared is what the parts of a queue have in common. It does not change.
type shared struct {
	opts    Options
	store   Store
	log     *slog.Logger
	owner   *owner           // of this instance's leases
	now     func() time.Time // reads the clock
	clock   *clock
	router  *router
	account *account
	waiters *waiters
	trouble *trouble
	hints   *hints
}

// The phases of a queue, in their order.
const (
	starting int32 = iota // Submit stores, and no delivery begins
	running
	stopping
)

// New returns a queue that delivers once [Durable.Run] runs. Without it the
// look-ups and commands work too.
func New(o Options) (*Durable, error) {
	if o.Store == nil {
		return nil, errors.New("queue: no store")
	}
	o = o.withDefaults()
	s := shared{
		opts: o, store: o.Store, log: o.Logger, owner: newOwner(o), clock: newClock(o.Now),
		router: newRouter(o.Routes, o.KnowsKey), account: newAccount(o), waiters: newWaiters(), trouble: new(trouble), hints: newHints(o.Store),
	}
	s.now = s.clock.now
	dr, r := newDriver(s), newRecorder(s)
	dr.recorder, r.driver, dr.peers = r, dr, newPeers(s, dr)
	d := &Durable{shared: s, intake: newIntake(s, dr), driver: dr, recorder: r, manual: newManual(s, dr), rescheduling: newFairLine()}
	d.house = &house{shared: s, driver: dr, manual: d.manual, drain: d.intake.drain}
	return d, nil
}

// Ready returns why messages cannot be accepted just now; nil when they can.
func (d *Durable) Ready(ctx context.Context) error {
	switch d.phase.Load() {
	case starting:
		return errors.New("starting")
	case stopping:
		return ErrShuttingDown
	}
	if err := d.intake.drain.refuses(); err != nil {
		return err
	}
	return d.store.Check(ctx)
}

// Submit stores a message and answers after the commit, or with Wait after the
// first attempt: at once where no relay for it is open, and when the service
// stops. A client that goes away loses nothing.
func (d *Durable) Submit(ctx context.Context, s Submission) (Receipt, error) {
	return d.intake.submit(ctx, s)
}

// SubmitBatch stores all messages in one commit, or none. The submissions of a
// batch have one idempotency key and fingerprint among them; Wait is ignored.
func (d *Durable) SubmitBatch(ctx context.Context, s []Submission) ([]Receipt, error) {
	receipts, _, err := d.intake.accept(ctx, s, false)
	return receipts, err
}

// Takes reports whether some relay takes mail of a key from that sender.
func (d *Durable) Takes(key, sender string) bool { return len(d.router.routes.of(key, sender)) > 0 }

// Pause says that a relay is in trouble.
type Pause = dispatch.Pause

// Pauses lists the relays that are in trouble.
func (d *Durable) Pauses() (pauses []Pause) {
	d.driver.ask(func(p *dispatch.Dispatcher, _ time.Time) { pauses = p.Pauses() })
	return pauses
}

// Usage counts the messages that are not final.
func (d *Durable) Usage() Usage { return d.account.usage() }

// Load is what a queue has in memory.
type Load struct {
	dispatch.Load
	Reserved Usage // messages that are being stored
	Keys     int   // idempotency keys of requests that are being stored
	Waiters  int   // messages whose first attempt a request waits for
}

// Load counts what is in memory.
func (d *Durable) Load() Load {
	l := Load{Reserved: d.account.storing(), Keys: d.intake.keys(), Waiters: d.waiters.count()}
	d.driver.ask(func(p *dispatch.Dispatcher, _ time.Time) { l.Load = p.Load() })
	return l
}

// Run delivers until ctx ends, and returns when everything that it started has
// ended. Then the queue accepts no message any more, gives back the leases of
// those that wait, and lets deliveries that have begun finish within StopTimeout.
// The error says which outcomes could not be recorded; the next start takes these
// for uncertain.
func (d *Durable) Run(ctx context.Context) error {
	// Steps that follow on the end of ctx must not end with it.
	work := context.WithoutCancel(ctx)
	unfinished, err := d.start(work)
	if err != nil {
		d.end(work)
		return fmt.Errorf("start queue: %w", err)
	}
	var helpers sync.WaitGroup
	recorderCtx, stopRecorder := context.WithCancel(work)
	defer stopRecorder()
	helpers.Go(func() { d.recorder.run(recorderCtx) })
	houseCtx, closeHouse := context.WithCancel(work)
	defer closeHouse()
	helpers.Go(func() { d.house.keep(houseCtx, unfinished) })

	if d.owner.store != nil {
		helpers.Go(func() { d.pollWaited(houseCtx) })
		helpers.Go(func() { d.driver.peers.run(houseCtx, d.manual) })
	}
	if h := d.hints; h.store != nil {
		helpers.Go(func() { h.run(houseCtx) })
		helpers.Go(func() { h.store.Hear(houseCtx, d.heard) })
	}

	d.driver.schedule(ctx)
	closeHouse()
	d.stop()
	stopRecorder()
	helpers.Wait()
	d.end(work)
	return d.recorder.unwritten()
}

// start takes over leases of instances that ended, and begins to deliver. unfinished
// says that there are more leases than the start has time for.
func (d *Durable) start(ctx context.Context) (unfinished bool, err error) {
	recovered, err := d.house.begin(ctx)
	if err != nil {
		return false, err
	}
	d.shareLogins()
	if err := d.recallTurns(ctx); err != nil {
		return false, err
	}
	if err := d.manual.recall(ctx); err != nil {
		return false, err
	}
	if p := d.driver.peers; p != nil {
		if err := p.learn(ctx); err != nil {
			return false, fmt.Errorf("read which relays are in trouble: %w", err)
		}
	}
	if err := d.account.recount(ctx); err != nil {
		return false, err
	}
	usage := d.account.usage()
	d.driver.start(ctx)
	d.phase.Store(running)
	d.log.Info("queue started", "messages", usage.Messages, "bytes", usage.Bytes,
		"uncertain", recovered.Uncertain, "held", recovered.Held, "released", recovered.Released,
		"crashes", recovered.Crashes, "suspects", recovered.Suspects, "taking_over", recovered.More)
	return recovered.More, nil
}

// end records that this run ends in order, and is no crash.
func (d *Durable) end(ctx context.Context) {
	if p := d.driver.peers; p != nil {
		within, cancel := context.WithTimeout(ctx, time.Second)
		p.tell(within)
		cancel()
	}
	if err := d.store.End(ctx, d.owner.now()); err != nil && !errors.Is(err, ErrClosed) {
		d.log.Warn("the end of this run could not be stored: the next start takes it for a crash", "error", err)
	}
}

// stop ends what Run began, in the order in which a message travels.
func (d *Durable) stop() {
	d.phase.Store(stopping)
	d.driver.halt()
	d.recorder.waitedFor()
	d.intake.close()
	d.driver.stop()
	d.recorder.drain(d.opts.StopTimeout)
}
