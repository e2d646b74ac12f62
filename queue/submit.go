package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailsidecar/mailer"
)

// Submit stores a message and answers after the commit, or with Wait after the
// first attempt: at once where no relay for it is open, and when the service
// stops. A client that goes away loses nothing.
func (d *Durable) Submit(ctx context.Context, s Submission) (Receipt, error) {
	receipts, watches, err := d.accept(ctx, []Submission{s}, s.Wait)
	if err != nil {
		return Receipt{}, err
	}
	if len(watches) == 0 {
		return receipts[0], nil
	}
	defer d.unwatch(watches[0])
	return d.await(ctx, s, receipts[0], watches[0]), nil
}

// SubmitBatch stores all messages in one commit, or none. The submissions of a
// batch have one idempotency key and fingerprint among them; Wait is ignored.
func (d *Durable) SubmitBatch(ctx context.Context, s []Submission) ([]Receipt, error) {
	receipts, _, err := d.accept(ctx, s, 0)
	return receipts, err
}

// request is what accept knows of a batch while it is being stored.
type request struct {
	batch  Batch
	groups []*group
	jobs   []*job // nil where a message waits in the store
	usage  Usage
	watch  *watch
}

// accept stores the submissions. The watches are for wait, if that is not zero.
func (d *Durable) accept(ctx context.Context, subs []Submission, wait time.Duration) ([]Receipt, []*watch, error) {
	if len(subs) == 0 {
		return nil, nil, nil
	}
	r, err := d.prepare(subs, wait)
	if err != nil {
		return d.refuse(ctx, subs[0], wait, err)
	}
	defer d.submissions.Done()
	replayed, err := d.store.Insert(ctx, r.batch)
	d.finish(r, err == nil && replayed == nil)
	switch {
	case err != nil:
		return d.refuse(ctx, subs[0], wait, err)
	case replayed != nil:
		return d.replay(ctx, subs[0], replayed, wait)
	}
	receipts := make([]Receipt, len(subs))
	for i, e := range r.batch.Entries {
		d.logAccepted(e)
		receipts[i].Message = e.Message
		d.awaitRelays(&receipts[i].Message)
	}
	if r.watch == nil {
		return receipts, nil, nil
	}
	return receipts, []*watch{r.watch}, nil
}

// refuse answers a request that cannot be stored just now: it may be the
// repetition of one that was.
func (d *Durable) refuse(ctx context.Context, s Submission, wait time.Duration, why error) ([]Receipt, []*watch, error) {
	if s.IdempotencyKey != "" && noRoom(why) {
		replayed, err := d.store.Replay(ctx, idempotency(s, d.now()))
		switch {
		case replayed != nil:
			return d.replay(ctx, s, replayed, wait)
		case errors.Is(err, ErrIdempotencyMismatch):
			why = err
		case err != nil && ctx.Err() == nil:
			d.log.Warn("look up idempotency key", "error", err)
		}
	}
	d.logRefusal(why)
	return nil, nil, why
}

// noRoom says that a new message is refused for what does not concern one that
// is stored.
func noRoom(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, ErrDiskFull) || errors.Is(err, ErrMoved) || errors.Is(err, ErrNoRoute)
}

func idempotency(s Submission, now time.Time) Idempotency {
	return Idempotency{s.Key, s.IdempotencyKey, s.Fingerprint, now.Add(IdempotencyLife)}
}

// prepare checks whether the submissions may be stored and reserves room for
// them.
func (d *Durable) prepare(subs []Submission, wait time.Duration) (*request, error) {
	now := d.now()
	r := &request{}
	if s := subs[0]; s.IdempotencyKey != "" {
		i := idempotency(s, now)
		r.batch.Idempotency = &i
	}
	for _, s := range subs {
		if s.IdempotencyKey != subs[0].IdempotencyKey || s.Fingerprint != subs[0].Fingerprint {
			return nil, errors.New("queue: a batch with several idempotency keys")
		}
		r.batch.Entries = append(r.batch.Entries, d.entry(s, now))
		r.usage.Messages++
		r.usage.Bytes += int64(len(s.Content.Data))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.admit(r); err != nil {
		return nil, err
	}
	for i := range r.batch.Entries {
		d.place(r, &r.batch.Entries[i], now)
	}
	if g := r.groups[0]; wait > 0 && subs[0].SendAt.IsZero() && g.open(now, subs[0].Envelope.Priority) {
		r.watch = d.watch(r.batch.Entries[0].Message.ID, g, subs[0].Envelope.Priority)
	}
	return r, nil
}

func (d *Durable) entry(s Submission, now time.Time) Entry {
	due := now
	sendAt := s.SendAt.UTC().Truncate(time.Microsecond)
	if sendAt.After(now) {
		due = sendAt
	}
	life := s.ExpiresIn
	if life == 0 {
		life = d.opts.ExpiresIn
	}
	m := Message{
		ID: NewID(now), Key: s.Key, MessageID: s.Content.MessageID, Sender: s.Sender, Subject: s.Subject,
		Size: int64(len(s.Content.Data)), Tags: s.Tags, Envelope: s.Envelope,
		Created: now, Expires: due.Add(life), Recipients: make([]Recipient, len(s.Envelope.ForwardPaths)),
	}
	if !s.SendAt.IsZero() {
		m.SendAt = sendAt
	}
	for i, path := range s.Envelope.ForwardPaths {
		m.Recipients[i] = Recipient{ForwardPath: path, State: Queued, NextAttempt: due}
	}
	return Entry{Message: m, Content: s.Content, Due: due}
}

// admit says whether the request may be stored, and notes that it is being so.
func (d *Durable) admit(r *request) error {
	if d.phase == stopping {
		return ErrShuttingDown
	}
	for _, e := range r.batch.Entries {
		g := d.groupOf(e.Message.Sender)
		if g == nil {
			return ErrNoRoute
		}
		r.groups = append(r.groups, g)
	}
	i := r.batch.Idempotency
	if i != nil && d.pending[pendingKey{i.Key, i.Name}] {
		return ErrIdempotencyInProgress
	}
	messages := d.stored.Messages + d.reserved.Messages + r.usage.Messages
	octets := d.stored.Bytes + d.reserved.Bytes + r.usage.Bytes
	if d.opts.MaxMessages > 0 && messages > d.opts.MaxMessages || d.opts.MaxBytes > 0 && octets > d.opts.MaxBytes {
		return fmt.Errorf("%w: %d messages of %d octets wait; MAILSIDECAR_QUEUE_MAX_MESSAGES and MAILSIDECAR_QUEUE_MAX_SIZE are the limits",
			ErrFull, d.stored.Messages, d.stored.Bytes)
	}
	if i != nil {
		d.pending[pendingKey{i.Key, i.Name}] = true
	}
	d.reserved.Messages += r.usage.Messages
	d.reserved.Bytes += r.usage.Bytes
	d.submissions.Add(1)
	return nil
}

// place decides whether a message goes to a worker in memory, leased from the
// start, or waits in the store.
func (d *Durable) place(r *request, e *Entry, now time.Time) {
	g := r.groups[len(r.jobs)]
	e.Route = g.route
	cost, l := d.memoryCost(e.Message.Size), g.lane(e.Message.Lane())
	if d.phase != running || e.Due.After(now) || !g.open(now, l.Priority) || !d.fits(d.fresh, cost, l.waiting()+l.storing == 0) {
		r.jobs = append(r.jobs, nil)
		return
	}
	d.fresh += cost
	l.storing++
	e.Owner = d.owner
	j := &job{content: &e.Content, Work: Work{
		ID: e.Message.ID, MessageID: e.Message.MessageID, Sender: e.Message.Sender, Route: g.route, Key: e.Message.Key, Size: e.Message.Size,
		Expires: e.Message.Expires, Envelope: e.Message.Envelope,
	}}
	for _, path := range e.Message.Envelope.ForwardPaths {
		j.Recipients = append(j.Recipients, Leased{ForwardPath: path, State: Queued})
	}
	r.jobs = append(r.jobs, j)
}

// finish hands stored messages over for delivery, or takes back what prepare
// reserved.
func (d *Durable) finish(r *request, stored bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved.Messages -= r.usage.Messages
	d.reserved.Bytes -= r.usage.Bytes
	if i := r.batch.Idempotency; i != nil {
		delete(d.pending, pendingKey{i.Key, i.Name})
	}
	for i, j := range r.jobs {
		if j != nil {
			r.groups[i].lane(j.Lane()).storing--
		}
	}
	if !stored {
		for _, j := range r.jobs {
			if j != nil {
				d.fresh -= d.memoryCost(j.Size)
			}
		}
		if r.watch != nil {
			d.forget(r.watch)
			r.watch = nil
		}
		return
	}
	d.moves++
	d.stored.Messages += r.usage.Messages
	d.stored.Bytes += r.usage.Bytes
	for i, j := range r.jobs {
		g, e := r.groups[i], r.batch.Entries[i]
		switch {
		case j == nil:
			d.noteWaiting(g, e.Message.Lane(), e.Due, e.Message.Expires)
		case !g.open(d.now(), j.Envelope.Priority): // paused meanwhile
			d.fresh -= d.memoryCost(j.Size)
			d.ledger.release([]Lease{j.lease(g.route)})
		default:
			g.add(j)
		}
	}
	for _, g := range r.groups {
		d.dispatch(g)
	}
}

// replay answers a repeated request with what became of the messages.
func (d *Durable) replay(ctx context.Context, s Submission, ids []string, wait time.Duration) ([]Receipt, []*watch, error) {
	var watches []*watch
	if wait > 0 {
		d.mu.Lock()
		if g := d.groupOf(s.Sender); g != nil && g.open(d.now(), s.Envelope.Priority) && d.phase != stopping {
			watches = append(watches, d.watch(ids[0], g, s.Envelope.Priority))
		}
		d.mu.Unlock()
	}
	receipts := make([]Receipt, len(ids))
	for i, id := range ids {
		m, err := d.Get(ctx, s.Key, id)
		if err != nil {
			d.unwatch(watches...)
			return nil, nil, err
		}
		receipts[i] = Receipt{Message: m, Replayed: true}
	}
	if m := receipts[0].Message; m.Status() != StatusQueued || m.SendAt.After(d.now()) {
		d.unwatch(watches...)
		return receipts, nil, nil
	}
	return receipts, watches, nil
}

// watch waits for the end of a message's first attempt.
type watch struct {
	id    string
	group *group
	// priority is the message's.
	priority mailer.Priority
	inHand   bool // its attempt is under way, and its outcome worth waiting for
	over     chan struct{}
}

// watch begins to wait. The caller holds mu.
func (d *Durable) watch(id string, g *group, p mailer.Priority) *watch {
	w := &watch{id: id, group: g, priority: p, over: make(chan struct{})}
	d.watches[id] = append(d.watches[id], w)
	return w
}

func (d *Durable) unwatch(watches ...*watch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range watches {
		d.forget(w)
	}
}

func (d *Durable) forget(gone *watch) {
	var rest []*watch
	for _, w := range d.watches[gone.id] {
		if w != gone {
			rest = append(rest, w)
		}
	}
	if d.watches[gone.id] = rest; rest == nil {
		delete(d.watches, gone.id)
	}
}

// tell ends the waiting for a message. The caller holds mu.
func (d *Durable) tell(id string) {
	for _, w := range d.watches[id] {
		close(w.over)
	}
	delete(d.watches, id)
}

// await waits for the first attempt's end and returns the message as it is then.
func (d *Durable) await(ctx context.Context, s Submission, r Receipt, w *watch) Receipt {
	timeout := time.NewTimer(s.Wait)
	defer timeout.Stop()
	select {
	case <-w.over:
	case <-timeout.C:
	case <-d.quit:
	case <-ctx.Done():
		return r
	}
	if m, err := d.Get(ctx, s.Key, r.Message.ID); err == nil {
		r.Message = m
	} else {
		// It is stored, so the answer is that it was accepted.
		d.log.Warn("read message after waiting for it", "id", r.Message.ID, "error", err)
	}
	return r
}
