package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailsidecar/queue/dispatch"
)

// SharedStore is a [Store] that several instances may use at the same time. There an owner
// has its leases only for as long as it is known to live. What its methods return
// [ErrLeaseLost] for must not be sent:
//
//   - From Heartbeat and Recover it means that the owner is gone for good, though its
//     instance lives: others may take over what it has leased. Its instance goes on as
//     another owner.
//   - From Mark it means that the lease is not the owner's, or is about to end.
//
// From Mark [ErrCanceled] means that a cancel was requested, at whatever instance: nothing is
// marked, and no attempt begins.
type SharedStore interface {
	Store
	// Lease is how long an owner is taken for alive after its last sign of life. The store
	// gives these by itself, from the first Heartbeat on.
	Lease() time.Duration
	// Trusts says whether owner may go on with what it has leased or marked, by this
	// machine's own clock. It is asked before content is sent, and before the final dot: it
	// must be quick.
	Trusts(owner string) bool
	// Tried returns those of the messages that are stored and were tried, or are final. It is
	// asked some times in a second for what requests wait for.
	Tried(ctx context.Context, ids []string) ([]string, error)
	// Notes returns the notes of a kind, by name, and the store's time. A note is a small value
	// that all instances see, such as what is used of a relay's rate.
	Notes(ctx context.Context, kind string) (notes map[string][]byte, now time.Time, err error)
	// ChangeNote replaces a note by what change makes of it, given the store's time. The value is
	// empty where there is no note, and none is kept where change returns nothing. Of one note
	// no two changes overlap. change may be called again when the commit fails, and on after ctx has
	// ended: after an error its caller must not touch what it writes.
	ChangeNote(ctx context.Context, kind, name string, change func(value []byte, now time.Time) []byte) error
}

// losingStore is a [SharedStore] that says at once when the lease of an owner is lost.
type losingStore interface {
	// Lost has an element when that has happened.
	Lost() <-chan struct{}
}

// NoteLife is how long a store keeps a note that nobody changes.
const NoteLife = 30 * 24 * time.Hour

const (
	// sharedPoll is how often a shared store is looked at at least: others put something there.
	sharedPoll = time.Second
	// waitPoll is how often it is asked for messages that requests wait for, and maxPolled is
	// for how many of them.
	waitPoll  = 300 * time.Millisecond
	firstPoll = 10 * time.Millisecond
	maxPolled = 1000
)

// longest is how long the store may go without a look.
func (w *owner) longest() time.Duration {
	if w.store == nil {
		return day
	}
	return sharedPoll
}

// pollWaited ends the waiting of requests for messages that another instance has tried, until
// ctx ends. The others are told what is waited for. The first looks are soon after that: what
// was tried before they knew is found by them.
func (d *Durable) pollWaited(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.waiters.added:
		}
		d.tellWaited()
		pause := firstPoll
		for ids := d.waiters.ids(maxPolled); len(ids) > 0; ids = d.waiters.ids(maxPolled) {
			timer := time.NewTimer(pause)
			for due := false; !due; {
				select {
				case <-ctx.Done():
					timer.Stop()
					return
				case <-d.waiters.added:
					if d.tellWaited() {
						pause = firstPoll
						timer.Reset(pause)
					}
				case <-timer.C:
					due = true
				}
			}
			pause = min(4*pause, waitPoll)
			tried, err := d.owner.store.Tried(ctx, d.waiters.ids(maxPolled))
			if err != nil && ctx.Err() == nil {
				d.log.Debug("look for messages that requests wait for", "error", err)
			}
			d.waiters.wake(tried...)
		}
	}
}

// tellWaited tells the others what is waited for, and says whether there was anything new.
func (d *Durable) tellWaited() bool {
	untold := d.waiters.untold()
	d.hints.later(HintWaited, untold...)
	return len(untold) > 0
}

// owner is whose the leases of this instance are. The name changes only where a shared
// store took the owner for gone.
type owner struct {
	store    SharedStore // nil: the store is not shared, and an owner is trusted always
	marksAll bool        // see [marksAll]

	mu     sync.Mutex
	name   string
	doubts time.Time // until when the owner is not trusted whatever the store says
}

// doubtTime is how long nothing is leased to an owner after a mark has found its lease lost.
// The store will have found out by then, or the mark was wrong.
const doubtTime = time.Second

func newOwner(o Options) *owner {
	shared, _ := o.Store.(SharedStore)
	// What others take over is uncertain unless the owner always marks.
	w := &owner{store: shared, marksAll: o.HoldUncertain || shared != nil}
	w.name = w.another()
	return w
}

// another returns a name that no owner has or had.
func (w *owner) another() string {
	name := uuid.NewString()
	if w.store == nil {
		name = name[:8] // of one instance at a time
	}
	if w.marksAll {
		return marksAll + name
	}
	return marksChoices + name
}

func (w *owner) now() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.name
}

func (w *owner) become(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.name, w.doubts = name, time.Time{}
}

// doubt says that a mark found the lease lost.
func (w *owner) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubts = time.Now().Add(doubtTime)
}

// trusted says whether the present owner may lease something.
func (w *owner) trusted() bool {
	if w.store == nil {
		return true
	}
	w.mu.Lock()
	name, doubted := w.name, time.Now().Before(w.doubts)
	w.mu.Unlock()
	return !doubted && w.store.Trusts(name)
}

// lost has an element when the lease was lost; nil where the store does not say so.
func (w *owner) lost() <-chan struct{} {
	if store, ok := w.store.(losingStore); ok {
		return store.Lost()
	}
	return nil
}

// interval is how often the house looks after leases.
func (w *owner) interval() time.Duration {
	if w.store == nil {
		return houseInterval
	}
	return min(max(w.store.Lease()/6, time.Second), houseInterval)
}

// mayKeep says whether a job's lease may be trusted.
func (dr *driver) mayKeep(work *job) bool {
	if dr.owner.store == nil || dr.owner.store.Trusts(work.owner) {
		return true
	}
	dr.doubtOwner()
	return false
}

// maySend returns what a relay asks before it sends content, and before the final dot; nil
// where that is always allowed.
func (dr *driver) maySend(work *job) func() bool {
	if dr.owner.store == nil {
		return nil
	}
	return func() bool { return dr.mayKeep(work) }
}

// doubtOwner has the house look whether the owner's lease is lost.
func (dr *driver) doubtOwner() {
	select {
	case dr.doubted <- struct{}{}:
	default:
	}
}

// heartbeat says that this instance lives. Where its owner is taken for gone, it goes on as
// another one.
func (h *house) heartbeat(ctx context.Context) error {
	gone := h.owner.now()
	err := h.store.Heartbeat(ctx, gone, h.now())
	if !errors.Is(err, ErrLeaseLost) {
		return err
	}
	next := h.owner.another()
	if err := h.store.Heartbeat(ctx, next, h.now()); err != nil {
		return err
	}
	h.owner.become(next)
	h.log.Warn("lease lost: other instances may send what this one had in memory; it goes on with a new lease", "owner", next, "was", gone)
	// Nothing that waits in memory may be sent. To give it back does nothing where others
	// have it already.
	h.driver.event(func(d *dispatch.Dispatcher, _ time.Time) dispatch.Orders { return d.Empty() })
	h.settle(ctx, gone)
	// What is left is this instance's to take over as any other's, and it was no crash.
	if err := h.store.End(ctx, gone); err != nil && ctx.Err() == nil {
		h.log.Warn("the end of a lost lease could not be stored: it counts as a crash", "owner", gone, "error", err)
	}
	h.driver.look()
	return nil
}

// settleStep is how often settle looks.
const settleStep = 50 * time.Millisecond

// settle waits until the outcomes of an owner that was taken for gone are stored, no longer
// than a lease. As long as nobody has taken over they count as if the lease had lasted: to take
// over first would make them uncertain, and send them again.
func (h *house) settle(ctx context.Context, gone string) {
	for end := time.Now().Add(h.owner.store.Lease()); h.driver.has(gone) && time.Now().Before(end); {
		if !sleep(ctx, settleStep) {
			return
		}
	}
}

// has says whether something leased to the owner is in memory, or its outcome is.
func (dr *driver) has(owner string) (has bool) {
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) {
		d.Each(func(j *dispatch.Job) { has = has || j.Value.(*job).owner == owner })
	})
	return has || dr.recorder.has(owner)
}
