package queue

import (
	"slices"
	"sync"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// waiters are the requests that wait for the end of a message's first attempt.
type waiters struct {
	added chan struct{} // capacity 1: somebody waits

	mu   sync.Mutex
	byID map[string][]*waiter
}

type waiter struct {
	id       string // of the message
	route    string
	priority mailer.Priority
	begun    bool // the attempt goes on, and its outcome is worth waiting for
	far      bool // another instance may try it
	told     bool // the other instances know that it waits
	over     chan struct{}
}

func newWaiters() *waiters {
	return &waiters{added: make(chan struct{}, 1), byID: map[string][]*waiter{}}
}

// add begins to wait for a message. It ends with remove. far says that another instance may try
// the message.
func (w *waiters) add(id, route string, p mailer.Priority, far bool) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := &waiter{id: id, route: route, priority: p, far: far, over: make(chan struct{})}
	w.byID[id] = append(w.byID[id], one)
	select {
	case w.added <- struct{}{}:
	default:
	}
	return one
}

// remove ends a wait that may be over. It ignores nil.
func (w *waiters) remove(gone *waiter) {
	if gone == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	others := slices.DeleteFunc(w.byID[gone.id], func(one *waiter) bool { return one == gone })
	if w.byID[gone.id] = others; len(others) == 0 {
		delete(w.byID, gone.id)
	}
}

// wake ends the waiting for messages.
func (w *waiters) wake(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.wakeLocked(id)
	}
}

func (w *waiters) wakeLocked(id string) {
	for _, one := range w.byID[id] {
		close(one.over)
	}
	delete(w.byID, id)
}

// begin says that a message's attempt begins.
func (w *waiters) begin(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.byID[id] {
		one.begun = true
	}
}

// giveUp ends the waiting for messages that no relay takes just now.
func (w *waiters) giveUp(shut dispatch.Shut) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, all := range w.byID {
		if one := all[0]; one.route == shut.Route && one.priority == shut.Priority && !one.begun {
			w.wakeLocked(id)
		}
	}
}

// waited says whether a request waits for the message.
func (w *waiters) waited(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byID[id]) > 0
}

// untold are messages of which the other instances are not told yet that a request waits for
// them. They are told now.
func (w *waiters) untold() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, all := range w.byID {
		tell := false
		for _, one := range all {
			tell = tell || one.far && !one.told
			one.told = true
		}
		if tell {
			ids = append(ids, id)
		}
	}
	return ids
}

// ids are messages that requests wait for, up to limit of them.
func (w *waiters) ids(limit int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]string, 0, min(len(w.byID), limit))
	for id := range w.byID { // in another order each time, so that each has its turn
		if len(ids) == limit {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

func (w *waiters) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byID)
}
