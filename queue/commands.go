package queue

import (
	"context"
	"errors"
	"time"
)

// Get returns a message with its recipients and attempts.
func (d *Durable) Get(ctx context.Context, key, id string) (Message, error) {
	m, err := d.store.Get(ctx, key, id)
	if err == nil {
		d.awaitRelays(&m)
	}
	return m, err
}

// List returns up to limit messages, from the start or from a cursor.
func (d *Durable) List(ctx context.Context, f Filter, limit int, cursor string) (Page, error) {
	page, err := d.store.List(ctx, f, limit, cursor)
	for i := range page.Messages {
		d.awaitRelays(&page.Messages[i])
	}
	return page, err
}

// awaitRelays makes NextAttempt what it will be while all relays that may take
// the message are paused. The message's own recipients change.
func (d *Durable) awaitRelays(m *Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.groupOf(m.Sender)
	if g == nil || g.open(d.now(), m.Envelope.Priority) {
		return
	}
	reopens := g.reopens(m.Envelope.Priority)
	for i := range m.Recipients {
		if next := &m.Recipients[i].NextAttempt; !next.IsZero() && next.Before(reopens) {
			*next = reopens
		}
	}
}

// Content returns the message's bytes as they go to the relay.
func (d *Durable) Content(ctx context.Context, key, id string) ([]byte, error) {
	c, err := d.store.Content(ctx, key, id)
	return c.Data, err
}

// Retry makes every deferred, held, bounced or expired recipient due now. Relays
// that are paused are asked now, too.
func (d *Durable) Retry(ctx context.Context, key, id string) (Message, error) {
	m, err := d.store.Get(ctx, key, id)
	if err != nil {
		return Message{}, err
	}
	changed, err := d.store.Retry(ctx, m.Key, []string{id}, d.now())
	if err != nil {
		return Message{}, err
	}
	if len(changed) == 0 {
		return Message{}, ErrNothingToRetry
	}
	d.unpause(m.Sender)
	d.changed(ctx)
	return d.Get(ctx, key, id)
}

// unpause ends the pauses of the relays that take the senders' mail: one delivery
// goes through as a probe, and what it meets decides how it goes on.
func (d *Durable) unpause(senders ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, sender := range senders {
		g := d.groupOf(sender)
		if g == nil {
			continue
		}
		for _, r := range g.relays {
			if now.Before(r.until) {
				r.until = now
			}
		}
	}
}

// Resume ends the pause of the relays with that name for good, because somebody
// saw that they work.
func (d *Durable) Resume(relayName string) {
	var resumed []Pause
	d.mu.Lock()
	for _, r := range d.relays {
		if r.Name() == relayName && r.failures > 0 {
			resumed = append(resumed, Pause{Relay: relayName})
			r.failures, r.until, r.reason = 0, time.Time{}, nil
		}
	}
	if len(resumed) > 0 {
		for _, g := range d.groups {
			d.dispatch(g)
		}
		d.poke()
	}
	d.mu.Unlock()
	for _, p := range resumed {
		d.logRelay(p, false, true)
	}
}

// retryPage is how many messages RetryMatching changes in one commit.
const retryPage = 200

// RetryMatching retries every message that f selects, page by page, and returns
// how many changed.
func (d *Durable) RetryMatching(ctx context.Context, f Filter) (int, error) {
	statuses := []Status{f.Status}
	if f.Status == "" {
		statuses = []Status{StatusDeferred, StatusHeld, StatusPartial, StatusFailed}
	}
	// What becomes deferred by this must not be met again.
	if now := d.now(); f.Until.IsZero() || f.Until.After(now) {
		f.Until = now
	}
	defer d.changed(ctx)
	total := 0
	for _, f.Status = range statuses {
		for cursor := ""; ; {
			page, err := d.store.List(ctx, f, retryPage, cursor)
			if err != nil {
				return total, err
			}
			ids, senders := make([]string, len(page.Messages)), make([]string, len(page.Messages))
			for i, m := range page.Messages {
				ids[i], senders[i] = m.ID, m.Sender
			}
			changed, err := d.store.Retry(ctx, f.Key, ids, d.now())
			if err != nil {
				return total, err
			}
			if total += len(changed); len(changed) > 0 {
				d.unpause(senders...)
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
	}
	return total, nil
}

// Cancel ends every recipient that is not final. One that is being tried just
// now is delivered or bounced as that attempt has it, and else canceled.
func (d *Durable) Cancel(ctx context.Context, key, id string) (Message, error) {
	m, err := d.store.Get(ctx, key, id)
	if err != nil {
		return Message{}, err
	}
	leases := d.withdraw(id)
	var withdrawn []string
	for _, l := range leases {
		withdrawn = append(withdrawn, l.ForwardPaths...)
	}
	ended, err := d.store.Cancel(ctx, m.Key, id, d.owner, withdrawn, d.now())
	if err != nil {
		d.ledger.release(leases)
		return Message{}, err
	}
	if !ended {
		return Message{}, ErrNothingToCancel
	}
	d.changed(ctx)
	if m, err = d.Get(ctx, key, id); err != nil {
		return Message{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := m.Status(); s != StatusQueued && s != StatusDeferred {
		d.tell(id)
	} else {
		// It is being tried, and the end of that is what its client waits for. Where
		// it is given back instead, nobody counts that it became final.
		d.recountSoon = true
	}
	return m, nil
}

// withdraw takes the message's jobs out of their lines. There are several where
// its recipients were due at different times; another may be in hand.
func (d *Durable) withdraw(id string) []Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	var leases []Lease
	for _, g := range d.groups {
		for _, l := range g.lanes {
			for _, j := range take(&l.fresh, id) {
				d.fresh -= d.memoryCost(j.Size)
				leases = append(leases, j.lease(g.route))
			}
			for _, j := range take(&l.claimed, id) {
				leases = append(leases, j.lease(g.route))
			}
		}
		g.tidy()
	}
	return leases
}

// take removes the message's jobs from a line and returns them.
func take(line *[]*job, id string) []*job {
	var taken, rest []*job
	for _, j := range *line {
		if j.ID == id {
			taken = append(taken, j)
		} else {
			rest = append(rest, j)
		}
	}
	if taken != nil {
		*line = rest
	}
	return taken
}

// changed follows on a change that was made in the store by command.
func (d *Durable) changed(ctx context.Context) {
	d.recount(ctx)
	d.poke()
}

// recount brings the account of what is not final in line with the store. When
// it moved meanwhile the count may be off by that much, and is taken again soon.
func (d *Durable) recount(ctx context.Context) {
	d.mu.Lock()
	before := d.moves
	d.mu.Unlock()
	usage, err := d.store.Usage(ctx)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			d.log.Warn("count messages in queue store", "error", err)
		}
		d.mu.Lock()
		d.recountSoon = true
		d.mu.Unlock()
		return
	}
	d.mu.Lock()
	d.stored = usage
	d.recountSoon = d.moves != before
	d.mu.Unlock()
}
