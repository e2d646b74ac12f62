package queue

import (
	"context"
	"sync"
	"time"

	"mailsidecar/queue/dispatch"
)

// HintKind says what a [Hint] tells of its messages.
type HintKind byte

// The kinds of hints.
const (
	// HintWaited: a request waits for the first attempt on them.
	HintWaited HintKind = 'w'
	// HintTried: they were tried, or are final.
	HintTried HintKind = 't'
	// HintCanceled: whoever has them in memory gives them back.
	HintCanceled HintKind = 'c'
)

// Hint is what instances tell each other. Any may get lost: what it tells is in the store, and
// is found there a little later.
type Hint struct {
	Kind HintKind
	IDs  []string
}

// TellingStore is a [SharedStore] by which instances tell each other something at once.
type TellingStore interface {
	SharedStore
	// Tell tells the other instances, and returns when that is committed, by itself: a
	// transaction that does more would hold up all others.
	Tell(ctx context.Context, h Hint) error
	// Hear calls f with what others tell until ctx ends. Where the store's connections do not
	// allow that it calls f never.
	Hear(ctx context.Context, f func(Hint))
	// Hears says whether what others tell arrives.
	Hears() bool
}

const (
	// hintLife is how long it is remembered that another instance's request waits: it waits no
	// longer.
	hintLife = time.Minute
	// maxHinted limits the messages of which that is remembered.
	maxHinted = 10_000
	// tellTime is how long it may take to tell something; nobody waits for it.
	tellTime = 2 * time.Second
)

// hints is what the instances tell each other. Without a [TellingStore] it does nothing.
type hints struct {
	store TellingStore // nil: none
	wake  chan struct{}

	mu     sync.Mutex
	waited map[string]time.Time // messages that other instances' requests wait for, and until when
	tell   map[HintKind][]string
}

func newHints(s Store) *hints {
	telling, _ := s.(TellingStore)
	return &hints{store: telling, wake: make(chan struct{}, 1), waited: map[string]time.Time{}, tell: map[HintKind][]string{}}
}

// later tells the others soon, in the order of the calls and without a wait.
func (h *hints) later(kind HintKind, ids ...string) {
	if h.store == nil || len(ids) == 0 {
		return
	}
	h.mu.Lock()
	if len(h.tell[kind])+len(ids) <= maxHinted { // what is too much is found by others later
		h.tell[kind] = append(h.tell[kind], ids...)
	}
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run tells the others until ctx ends.
func (h *hints) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		h.mu.Lock()
		tell := h.tell
		h.tell = map[HintKind][]string{}
		h.mu.Unlock()
		for kind, ids := range tell {
			within, cancel := context.WithTimeout(ctx, tellTime)
			_ = h.store.Tell(within, Hint{kind, ids}) // may get lost
			cancel()
		}
	}
}

// wait notes that another instance's requests wait for the messages.
func (h *hints) wait(now time.Time, ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waited)+len(ids) > maxHinted {
		for id, until := range h.waited {
			if until.Before(now) {
				delete(h.waited, id)
			}
		}
	}
	for _, id := range ids {
		if len(h.waited) < maxHinted {
			h.waited[id] = now.Add(hintLife)
		}
	}
}

// tried tells those who wait of messages that were tried.
func (h *hints) tried(outcomes []pendingOutcome) {
	if h.store == nil {
		return
	}
	var ids []string
	h.mu.Lock()
	for _, o := range outcomes {
		if _, ok := h.waited[o.ID]; ok {
			delete(h.waited, o.ID)
			ids = append(ids, o.ID)
		}
	}
	h.mu.Unlock()
	h.later(HintTried, ids...)
}

// heard does what another instance's hint asks for.
func (d *Durable) heard(h Hint) {
	switch h.Kind {
	case HintWaited:
		d.hints.wait(time.Now(), h.IDs)
	case HintTried:
		d.waiters.wake(h.IDs...)
	case HintCanceled:
		d.giveBack(h.IDs)
	}
}

// giveBack gives back what is in memory of messages that were canceled at another instance: by
// that they are canceled. What is being tried keeps its attempt.
func (d *Durable) giveBack(ids []string) {
	jobs := d.driver.beginCancel(ids)
	late := d.driver.endCancel(ids)
	d.recorder.release(append(jobs, late...))
}

// holds says whether something of the message is in memory.
func (dr *driver) holds(id string) (holds bool) {
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) {
		d.Each(func(j *dispatch.Job) { holds = holds || j.ID == id })
	})
	return holds
}

const (
	// cancelWait is how long a cancel waits for the instance that has the message in memory, and
	// cancelStep is how often it looks.
	cancelWait, cancelStep = 400 * time.Millisecond, 25 * time.Millisecond
)

// awaitCancel waits a moment until another instance has given back a message that was
// canceled, and returns it as it is then.
func (d *Durable) awaitCancel(ctx context.Context, key string, m Message) (Message, error) {
	if d.hints.store == nil || !d.hints.store.Hears() || d.driver.holds(m.ID) {
		return m, nil
	}
	for end := time.Now().Add(cancelWait); time.Now().Before(end); {
		if !sleep(ctx, cancelStep) {
			return m, nil
		}
		now, err := d.Get(ctx, key, m.ID)
		if err != nil {
			return m, err
		}
		if m = now; m.Status() != StatusQueued && m.Status() != StatusDeferred {
			return m, nil
		}
	}
	return m, nil
}
