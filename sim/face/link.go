package face

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/queue"
	"mailsidecar/sim/network"
)

// What the store in PostgreSQL is set to, see service/postgres.go.
const (
	patience   = 1500 * time.Millisecond // of a call for a connection, and of an insert for its answer
	answerTime = 6 * time.Second         // after which a connection is given up that is silent
)

// Link is the way of one instance to a database that others share. Its methods may be called at
// any time.
type Link struct {
	weather  *Weather
	instance int
	gate     *network.Gate // closed while the instance stands still

	mu        sync.Mutex
	cut, deaf int // how many reasons there are
}

// Link returns a way for an instance, which stands still while its gate is closed.
func (w *Weather) Link(instance int, gate *network.Gate) *Link {
	return &Link{weather: w, instance: instance, gate: gate}
}

// Cut says whether the instance is cut off from the database. Calls with true and false come
// in pairs, which may overlap.
func (l *Link) Cut(cut bool) { l.count(&l.cut, cut) }

// LoseBeats says whether only its heartbeats are lost.
func (l *Link) LoseBeats(lost bool) { l.count(&l.deaf, lost) }

func (l *Link) count(n *int, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *n--; more {
		*n += 2
	}
}

func (l *Link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut > 0
}

func (l *Link) isDeaf() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut+l.deaf > 0
}

// Hang says whether the database answers nobody. What it was asked it may do later.
func (w *Weather) Hang(hung bool) { w.hung.Close(hung) }

// Wait waits for what the database was asked by callers that have gone.
func (w *Weather) Wait() { w.late.Wait() }

var (
	errAway     = fmt.Errorf("%w: no connection", queue.ErrUnavailable)
	errNoAnswer = fmt.Errorf("%w: no answer", queue.ErrUnavailable)
)

// polled are the calls that each instance makes every second or so. They take no time where
// nothing is wrong: a history has hundreds of thousands of them.
var polled = map[string]bool{"Heartbeat": true, "Waiting": true, "Recover": true, "Leases": true, "Usage": true, "Tried": true, "Sweep": true, "ManualPauses": true, "Notes": true}

// callShared is call for a database that others share. What a caller's context ends is the
// caller's waiting.
func callShared[T any](ctx context.Context, f *Face, method string, k kind, do func() (T, error)) (T, error) {
	var zero T
	w, l := f.weather, f.link
	if f.dead.Load() {
		return zero, queue.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	if polled[method] && !l.gate.Closed() && !l.isCut() && !w.hung.Closed() && !w.bad() {
		return do()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	w.late.Go(func() {
		v, err := carry(f, method, k, do)
		done <- result{v, err}
	})
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

func (w *Weather) bad() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.odds+w.slow > 0
}

// carry carries a call to the database, and its answer back.
func carry[T any](f *Face, method string, k kind, do func() (T, error)) (T, error) {
	var zero T
	w, l, began, ctx := f.weather, f.link, time.Now(), context.Background()
	c, odds, slow := w.call(method)
	before := c.Of("before").Between(10*time.Microsecond, 700*time.Microsecond)
	if c.Of("slow").Happens(slow) {
		before += c.Of("how slow").Between(time.Second, answerTime-time.Second)
		defer w.trouble(began)
	}
	_ = l.gate.Pass(ctx)
	time.Sleep(before)
	_ = l.gate.Pass(ctx)
	fail := func(what string, err error) (T, error) {
		w.trouble(began)
		w.log.Add("store", what, method, l.instance)
		_ = l.gate.Pass(ctx)
		return zero, err
	}
	switch {
	case f.dead.Load():
		return zero, queue.ErrClosed
	case l.isCut():
		time.Sleep(c.Of("cut").Between(time.Millisecond, patience))
		return fail("is away", errAway)
	case w.hung.Closed():
		within, cancel := context.WithTimeout(ctx, answerTime)
		err := w.hung.Pass(within)
		cancel()
		if err == nil {
			break
		}
		if k != reads && c.Of("late").Happens(0.5) { // it stands in the connection's buffer
			w.late.Go(func() {
				_ = w.hung.Pass(ctx)
				time.Sleep(c.Of("how late").Between(time.Microsecond, 2*time.Second))
				w.log.Add("store", "does late", method, l.instance)
				_, _ = do()
			})
		}
		return fail("hangs", errNoAnswer)
	}
	switch {
	case k == inserts && w.full.Load() > 0:
		return zero, queue.ErrDiskFull
	case k == writes && w.full.Load() > 0 && c.Of("full").Happens(0.3):
		return fail("is full", errFull)
	case k != reads && c.Of("fault").Happens(odds/2):
		return fail("fails before", errNoAnswer)
	}
	v, err := do()
	time.Sleep(c.Of("after").Between(10*time.Microsecond, 700*time.Microsecond))
	_ = l.gate.Pass(ctx)
	if k != reads && err == nil && !housekeeping[method] {
		w.log.Add("store", method, "", l.instance)
	}
	switch {
	case f.dead.Load():
		return zero, queue.ErrClosed
	case err == nil && l.isCut(), k != reads && err == nil && c.Of("late fault").Happens(odds/2):
		return fail("fails after", errNoAnswer)
	}
	return v, err
}

// Shared is a [Face] of a database as one of several instances has it.
type Shared struct {
	*Face
	shared queue.SharedStore
}

var _ queue.SharedStore = (*Shared)(nil)

// NewShared returns a face of the store that is reached by the link.
func NewShared(store queue.SharedStore, l *Link) *Shared {
	f := New(store, l.weather)
	f.link = l
	return &Shared{f, store}
}

// Lease is that of the store.
func (s *Shared) Lease() time.Duration { return s.shared.Lease() }

// Trusts is that of the store. A process that stands still asks nothing: what it does in this
// world meanwhile must have no effect.
func (s *Shared) Trusts(owner string) bool {
	return !s.dead.Load() && !s.link.gate.Closed() && s.shared.Trusts(owner)
}

// Tried reads.
func (s *Shared) Tried(ctx context.Context, ids []string) ([]string, error) {
	return call(ctx, s.Face, "Tried", reads, func() ([]string, error) { return s.shared.Tried(ctx, ids) })
}

// Notes reads.
func (s *Shared) Notes(ctx context.Context, kind string) (notes map[string][]byte, now time.Time, err error) {
	type result struct {
		notes map[string][]byte
		now   time.Time
	}
	r, err := call(ctx, s.Face, "Notes", reads, func() (r result, err error) {
		r.notes, r.now, err = s.shared.Notes(ctx, kind)
		return r, err
	})
	return r.notes, r.now, err
}

// ChangeNote writes.
func (s *Shared) ChangeNote(ctx context.Context, kind, name string, change func(value []byte, now time.Time) []byte) error {
	return exec(ctx, s.Face, "ChangeNote", writes, func() error { return s.shared.ChangeNote(ctx, kind, name, change) })
}

// Heartbeat reaches the database by the hooks of the store: its trust begins when it was sent.
func (s *Shared) Heartbeat(ctx context.Context, owner string, now time.Time) error {
	if s.dead.Load() {
		return queue.ErrClosed
	}
	s.weather.own(owner, s.link.instance)
	return s.shared.Heartbeat(ctx, owner, now)
}

// The pauses between tries while it is unknown what became of an insert.
const firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second

// Insert asks again while it is unknown whether the batch is stored, and its caller waits, as the
// store in PostgreSQL does.
func (s *Shared) Insert(ctx context.Context, b queue.Batch) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		replayed []string
		err      error
	}
	done := make(chan result, 1)
	var left atomic.Bool // nobody waits for the answer any more
	defer left.Store(true)
	s.weather.late.Go(func() {
		again := false
		for pause := firstPause; ; pause = min(2*pause, longestPause) {
			replayed, err := s.Face.Insert(context.WithoutCancel(ctx), b)
			if again && err == nil && slices.Equal(replayed, idsOf(b)) {
				replayed = nil // it was this call
			}
			if again && errors.Is(err, queue.ErrDiskFull) {
				err = errNoAnswer // that is of this try alone
			}
			// What is cut off before it was sent is not stored.
			if again = again || errors.Is(err, errNoAnswer); !again || err == nil || !errors.Is(err, queue.ErrUnavailable) || left.Load() {
				done <- result{replayed, err}
				return
			}
			time.Sleep(pause)
		}
	})
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case r := <-done:
		return r.replayed, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
		return nil, errNoAnswer
	}
}

func idsOf(b queue.Batch) (ids []string) {
	for _, e := range b.Entries {
		ids = append(ids, e.Message.ID)
	}
	return ids
}

// Before is what the store calls before it sends a heartbeat, and After when the database has
// answered.
func (l *Link) Before(ctx context.Context, method string) error {
	if method != "Beat" && method != "Heartbeat" {
		return nil
	}
	if err := l.gate.Pass(ctx); err != nil {
		return err
	}
	if l.isDeaf() {
		return errAway
	}
	within, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if l.weather.hung.Pass(within) != nil {
		return errNoAnswer
	}
	return nil
}

// After lets an answer pass.
func (l *Link) After(ctx context.Context, method string) error {
	if method != "Beat" && method != "Heartbeat" {
		return nil
	}
	if err := l.gate.Pass(ctx); err != nil {
		return err
	}
	if l.isDeaf() {
		return errNoAnswer
	}
	return nil
}

// Lease is a moment at which a message became an instance's, or was taken from it because it
// was taken for gone.
type Lease struct {
	At       time.Time
	ID       string
	Owner    string
	Instance int
	Taken    bool
}

func (w *Weather) own(owner string, instance int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners[owner] = instance
}

// Owners are the owners that the instance has had.
func (w *Weather) Owners(instance int) (owners []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for owner, of := range w.owners {
		if of == instance {
			owners = append(owners, owner)
		}
	}
	return owners
}

func (w *Weather) leased(owner, id string, taken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes.Leases = append(w.notes.Leases, Lease{time.Now(), id, owner, w.owners[owner], taken})
}

// inserted notes the lease of a new message, once.
func (w *Weather) inserted(owner, id string) {
	w.mu.Lock()
	known := w.stored[id]
	w.stored[id] = true
	w.mu.Unlock()
	if !known {
		w.leased(owner, id, false)
	}
}

// Lost is what the store calls when a message is taken from an owner.
func (w *Weather) Lost(owner, id string) { w.leased(owner, id, true) }
