// Package face stands between the queue and its store: it takes time, fails, and dies.
package face

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/queue"
	"mailsidecar/sim/chance"
	"mailsidecar/sim/events"
	"mailsidecar/sim/network"
)

// Weather is what goes wrong with the store, over all runs of the service. Its methods
// may be called at any time.
type Weather struct {
	chance chance.Chance
	log    *events.Log
	full   atomic.Int32 // how many reasons there are for the disk to be full
	mu     sync.Mutex
	calls  map[string]int
	odds   float64 // of a commit to fail
	slow   float64 // of a call to take seconds
	notes  Notes
	owners map[string]int  // the instances that have them
	stored map[string]bool // leased messages, by id
	hung   *network.Gate   // closed while the database does not answer
	late   sync.WaitGroup  // calls that nobody waits for any more
}

// Notes are what became known of the store in a history.
type Notes struct {
	Expired  []Expired
	Troubles []Trouble
	Leases   []Lease // of a store that several instances share
}

// Expired is a recipient whose message has expired, when that was committed.
type Expired struct {
	At       time.Time
	ID, Path string
}

// Trouble is a call that failed, or took seconds.
type Trouble struct{ From, To time.Time }

// Notes returns what became known.
func (w *Weather) Notes() Notes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.notes
}

func (w *Weather) expired(id string, paths ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range paths {
		w.notes.Expired = append(w.notes.Expired, Expired{time.Now(), id, path})
	}
}

func (w *Weather) trouble(since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes.Troubles = append(w.notes.Troubles, Trouble{since, time.Now()})
}

// NewWeather returns good weather; slow is how many calls take seconds.
func NewWeather(c chance.Chance, slow float64, log *events.Log) *Weather {
	return &Weather{chance: c, log: log, slow: slow, calls: map[string]int{}, owners: map[string]int{}, stored: map[string]bool{}, hung: network.NewGate()}
}

// Full says whether the disk is full from now on. Calls with true and false come in
// pairs, which may overlap.
func (w *Weather) Full(full bool) {
	if full {
		w.full.Add(1)
	} else {
		w.full.Add(-1)
	}
}

// Fail sets how many commits fail from now on, before or after they happened.
func (w *Weather) Fail(odds float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.odds = odds
}

// Calm makes no call slow any more.
func (w *Weather) Calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.odds, w.slow = 0, 0
}

func (w *Weather) call(method string) (c chance.Chance, odds, slow float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.calls[method]
	w.calls[method]++
	return w.chance.Of(method).N(n), w.odds, w.slow
}

// Face is the store as one run of the service sees it.
type Face struct {
	store   queue.Store
	weather *Weather
	link    *Link // nil: no other instance has the store
	dead    atomic.Bool
}

var _ queue.Store = (*Face)(nil)

// New returns a face of the store.
func New(store queue.Store, w *Weather) *Face { return &Face{store: store, weather: w} }

// Die lets every call fail from now on, as after the end of the process. Calls that go on
// may have their effect, and do not return it.
func (f *Face) Die() { f.dead.Store(true) }

var (
	errBefore = errors.New("the commit failed")
	errAfter  = errors.New("the commit failed, though it happened")
	errFull   = errors.New("no space left on device")
)

// kind is what a call does.
type kind int

const (
	reads kind = iota
	writes
	inserts
)

// call makes one call of the store.
func call[T any](ctx context.Context, f *Face, method string, k kind, do func() (T, error)) (T, error) {
	if f.link != nil {
		return callShared(ctx, f, method, k, do)
	}
	var zero T
	w, began := f.weather, time.Now()
	c, odds, slow := w.call(method)
	before := c.Of("before").Between(10*time.Microsecond, 700*time.Microsecond)
	if c.Of("slow").Happens(slow) {
		before += c.Of("how slow").Between(time.Second, 20*time.Second)
		defer w.trouble(began)
	}
	if err := wait(ctx, before); err != nil {
		return zero, err
	}
	switch {
	case f.dead.Load():
		return zero, queue.ErrClosed
	case k == inserts && w.full.Load() > 0:
		return zero, queue.ErrDiskFull
	case k == writes && w.full.Load() > 0 && c.Of("full").Happens(0.3):
		w.trouble(began)
		return zero, errFull
	case k != reads && c.Of("fault").Happens(odds/2):
		w.trouble(began)
		w.log.Add("store", "fails before", method, 0)
		return zero, errBefore
	}
	v, err := do()
	time.Sleep(c.Of("after").Between(10*time.Microsecond, 700*time.Microsecond))
	if k != reads && err == nil && !housekeeping[method] {
		w.log.Add("store", method, "", 0)
	}
	switch {
	case f.dead.Load():
		return zero, queue.ErrClosed
	case k != reads && err == nil && c.Of("late fault").Happens(odds/2):
		w.trouble(began)
		w.log.Add("store", "fails after", method, 0)
		return zero, errAfter
	}
	return v, err
}

// housekeeping comes every minute, and would fill the log.
var housekeeping = map[string]bool{"Heartbeat": true, "Recover": true, "Sweep": true, "Rewind": true}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec is call for a method that returns an error only.
func exec(ctx context.Context, f *Face, method string, k kind, do func() error) error {
	_, err := call(ctx, f, method, k, func() (struct{}, error) { return struct{}{}, do() })
	return err
}
