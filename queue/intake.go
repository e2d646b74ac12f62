package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mailsidecar/queue/dispatch"
)

// intake admits and stores submissions, and answers them.
type intake struct {
	shared
	driver  *driver
	drain   *drain
	quit    chan struct{}  // closed by close
	storing sync.WaitGroup // submissions that were admitted and are being stored

	mu      sync.Mutex
	closed  bool
	pending map[pendingKey]bool // idempotency keys of requests that are being stored
	refused time.Time           // when the log last said that new mail is refused
}

type pendingKey struct{ key, name string }

func newIntake(s shared, dr *driver) *intake {
	return &intake{shared: s, driver: dr, drain: newDrain(s.log, s.now), quit: make(chan struct{}), pending: map[pendingKey]bool{}}
}

// request is what is known of a batch while it is being stored.
type request struct {
	batch  Batch
	usage  Usage
	routed bool            // relays take each of the messages
	jobs   []*dispatch.Job // nil where a message waits in the store
	waiter *waiter         // nil: the answer waits for nothing
}

// close admits nothing more, and answers the requests that wait. It returns when
// what was admitted is stored.
func (in *intake) close() {
	in.mu.Lock()
	in.closed = true
	close(in.quit)
	in.mu.Unlock()
	in.storing.Wait()
}

// submit stores a message and answers, with s.Wait after its first attempt.
func (in *intake) submit(ctx context.Context, s Submission) (Receipt, error) {
	key, wait, stored := s.Key, s.Wait, s.Stored // what is left of it while it waits
	receipts, w, err := in.accept(ctx, []Submission{s}, wait > 0)
	if err != nil {
		return Receipt{}, err
	}
	if w == nil {
		return receipts[0], nil
	}
	defer in.waiters.remove(w)
	if stored != nil {
		stored()
	}
	return in.await(ctx, key, wait, receipts[0], w), nil
}

// accept stores the submissions. With wait it returns a waiter for the first one,
// unless its answer need not wait.
func (in *intake) accept(ctx context.Context, subs []Submission, wait bool) ([]Receipt, *waiter, error) {
	if len(subs) == 0 {
		return nil, nil, nil
	}
	r, err := in.prepare(subs, wait)
	if err != nil {
		return in.refuse(ctx, subs[0], wait, err)
	}
	defer in.storing.Done()
	replayed, err := in.store.Insert(ctx, r.batch)
	in.finish(r, err == nil && replayed == nil, err == nil || certain(err))
	switch {
	case errors.Is(err, ErrUnavailable):
		return in.refuse(ctx, subs[0], wait, fmt.Errorf("%w: %w", ErrMaybeStored, err))
	case err != nil:
		return in.refuse(ctx, subs[0], wait, err)
	case replayed != nil:
		return in.replay(ctx, subs[0], replayed, wait)
	}
	receipts := make([]Receipt, len(subs))
	for i, s := range subs {
		e := r.batch.Entries[i]
		in.logAccepted(e, s.Origin)
		in.opts.Meter.Accepted(e.Message.Key, s.Origin.Door, e.Message.Envelope.Priority)
		receipts[i].Message = e.Message
		in.driver.showPauses(&receipts[i].Message)
	}
	return receipts, r.waiter, nil
}

// refuse answers a request that cannot be stored just now: it may be the
// repetition of one that was.
func (in *intake) refuse(ctx context.Context, s Submission, wait bool, why error) ([]Receipt, *waiter, error) {
	if s.IdempotencyKey != "" && noRoom(why) {
		replayed, err := in.store.Replay(ctx, idempotency(s, in.now()))
		switch {
		case replayed != nil:
			return in.replay(ctx, s, replayed, wait)
		case errors.Is(err, ErrIdempotencyMismatch):
			why = err
		case err != nil && ctx.Err() == nil:
			in.log.Warn("look up idempotency key", "error", err)
		}
	}
	in.logRefusal(why)
	return nil, nil, why
}

// noRoom says that a new message is refused for a reason that does not concern
// one that is stored.
func noRoom(err error) bool {
	return errors.Is(err, ErrDraining) || errors.Is(err, ErrFull) || errors.Is(err, ErrDiskFull) || errors.Is(err, ErrMoved) || errors.Is(err, ErrNoRoute)
}

func idempotency(s Submission, now time.Time) Idempotency {
	return Idempotency{cmp.Or(s.Caller, s.Key), s.IdempotencyKey, s.Fingerprint, now.Add(IdempotencyLife)}
}

// prepare checks whether the submissions may be stored, and reserves room for
// them.
func (in *intake) prepare(subs []Submission, wait bool) (*request, error) {
	now := in.now()
	r := &request{routed: true}
	if s := subs[0]; s.IdempotencyKey != "" {
		i := idempotency(s, now)
		r.batch.Idempotency = &i
	}
	for _, s := range subs {
		if s.IdempotencyKey != subs[0].IdempotencyKey || s.Fingerprint != subs[0].Fingerprint {
			return nil, errors.New("queue: a batch with several idempotency keys")
		}
		route, relays := in.router.route(s.Key, s.Sender)
		r.routed = r.routed && len(relays) > 0
		r.batch.Entries = append(r.batch.Entries, in.entry(s, route, now))
		r.usage = r.usage.plus(Usage{1, int64(len(s.Content.Data))})
	}
	if err := in.admit(r); err != nil {
		return nil, err
	}
	r.jobs, r.waiter = in.driver.reserve(r.batch.Entries, wait && subs[0].SendAt.IsZero())
	return r, nil
}

func (in *intake) entry(s Submission, route string, now time.Time) Entry {
	due := now
	sendAt := s.SendAt.UTC().Truncate(time.Microsecond)
	if sendAt.After(now) {
		due = sendAt
	}
	life := s.ExpiresIn
	if life == 0 {
		life = in.opts.ExpiresIn
	}
	m := Message{
		ID: NewID(now), Key: s.Key, MessageID: s.Content.MessageID, Sender: s.Sender, Subject: s.Subject,
		Size: int64(len(s.Content.Data)), Tags: s.Tags, Envelope: s.Envelope,
		ResentOf: s.ResentOf, Created: now, Expires: due.Add(life), Recipients: make([]Recipient, len(s.Envelope.ForwardPaths)),
	}
	if !s.SendAt.IsZero() {
		m.SendAt = sendAt
	}
	for i, path := range s.Envelope.ForwardPaths {
		m.Recipients[i] = Recipient{ForwardPath: path, State: Queued, NextAttempt: due}
	}
	return Entry{Message: m, Content: s.Content, Due: due, Route: route}
}

// admit says whether the request may be stored, and notes that it is being so.
func (in *intake) admit(r *request) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return ErrShuttingDown
	}
	if err := in.drain.refuses(); err != nil {
		return err
	}
	if !r.routed {
		return ErrNoRoute
	}
	i := r.batch.Idempotency
	if i != nil && in.pending[pendingKey{i.Key, i.Name}] {
		return ErrIdempotencyInProgress
	}
	if err := in.account.reserve(r.usage); err != nil {
		return err
	}
	if i != nil {
		in.pending[pendingKey{i.Key, i.Name}] = true
	}
	in.storing.Add(1)
	return nil
}

// certain says that nothing was stored. Any other error may be of a commit that
// happened after all.
func certain(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, ErrIdempotencyMismatch)
}

// finish hands stored messages over for delivery, or takes back what prepare
// reserved. known is false where the messages may be stored.
func (in *intake) finish(r *request, stored, known bool) {
	var usage Usage
	if stored {
		usage = r.usage
	}
	in.account.unreserve(r.usage, usage, known)
	if i := r.batch.Idempotency; i != nil {
		in.mu.Lock()
		delete(in.pending, pendingKey{i.Key, i.Name})
		in.mu.Unlock()
	}
	if stored {
		in.driver.stored(r.batch.Entries, r.jobs)
		return
	}
	in.driver.notStored(r.jobs)
	in.waiters.remove(r.waiter)
	r.waiter = nil
	if !known {
		in.driver.doubtLeases()
	}
}

// replay answers a repeated request with what became of the messages.
func (in *intake) replay(ctx context.Context, s Submission, ids []string, wait bool) ([]Receipt, *waiter, error) {
	var w *waiter
	if wait && !in.isClosed() {
		w = in.driver.watch(ids[0], s.Key, s.Sender, s.Envelope)
	}
	receipts := make([]Receipt, len(ids))
	for i, id := range ids {
		m, err := in.get(ctx, s.Key, id)
		if err != nil {
			in.waiters.remove(w)
			return nil, nil, err
		}
		receipts[i] = Receipt{Message: m, Replayed: true}
	}
	if m := receipts[0].Message; m.Status() != StatusQueued || m.SendAt.After(in.now()) {
		in.waiters.remove(w)
		return receipts, nil, nil
	}
	return receipts, w, nil
}

func (in *intake) keys() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.pending)
}

func (in *intake) isClosed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// get returns a message as it is shown.
func (in *intake) get(ctx context.Context, key, id string) (Message, error) {
	m, err := in.store.Get(ctx, key, id)
	if err == nil {
		in.driver.showPauses(&m)
	}
	return m, err
}

// await waits for the end of the first attempt and returns the message as it is
// then.
func (in *intake) await(ctx context.Context, key string, wait time.Duration, r Receipt, w *waiter) Receipt {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	select {
	case <-w.over:
	case <-timeout.C:
	case <-in.quit:
	case <-ctx.Done():
		return r
	}
	if m, err := in.get(ctx, key, r.Message.ID); err == nil {
		r.Message = m
	} else {
		// It is stored, so the answer is that it was accepted.
		in.log.Warn("read message after waiting for it", "id", r.Message.ID, "error", err)
	}
	return r
}
