package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// Get returns a message with its recipients and attempts.
func (d *Durable) Get(ctx context.Context, key, id string) (Message, error) {
	return d.intake.get(ctx, key, id)
}

// List returns up to limit messages, from the start or from a cursor.
func (d *Durable) List(ctx context.Context, f Filter, limit int, cursor string) (Page, error) {
	page, err := d.store.List(ctx, f, limit, cursor)
	for i := range page.Messages {
		d.driver.showPauses(&page.Messages[i])
	}
	return page, err
}

// Content returns the message's bytes as they go to the relay.
func (d *Durable) Content(ctx context.Context, key, id string) ([]byte, error) {
	c, err := d.store.Content(ctx, key, id)
	return c.Data, err
}

// Retry makes every deferred, held, bounced or expired recipient due now. Relays
// that are paused are asked now, too, also for a message that was not tried yet; but not
// those that refused our login: then what waits for them has that refusal as its result,
// and NextAttempt is when the next login may be.
func (d *Durable) Retry(ctx context.Context, key, id string) (Message, error) {
	m, err := d.store.Get(ctx, key, id)
	if err != nil {
		return Message{}, err
	}
	changed, err := d.retry(ctx, m.Key, id)
	if err != nil {
		return Message{}, err
	}
	if len(changed) == 0 && !d.untried(&m) {
		return Message{}, ErrNothingToRetry
	}
	d.driver.unpause(m)
	d.changed(ctx)
	if m, err = d.Get(ctx, key, id); err == nil {
		d.driver.showRefusedLogin(&m)
	}
	return m, err
}

// untried says that a message is due, or waits for its relay, and was not tried yet.
func (d *Durable) untried(m *Message) bool {
	return m.Status() == StatusQueued && !m.SendAt.After(d.now())
}

// retry has the store retry messages, and returns the ids that changed.
func (d *Durable) retry(ctx context.Context, key string, ids ...string) ([]string, error) {
	d.account.begin()
	changed, err := d.store.Retry(ctx, key, ids, d.now())
	d.account.end(Usage{}, false)
	if err != nil {
		d.driver.look() // they may be due all the same
	}
	return changed, err
}

// Resume ends the pause of the relays with that name for good: a check has seen
// that they work.
func (d *Durable) Resume(relayName string) { d.driver.resume(relayName) }

const (
	// bulkStep is how many messages a command by filter changes in one commit: new mail
	// waits for it.
	bulkStep = 200
	// bulkTime is how long such a command begins with further steps.
	bulkTime = 20 * time.Second
)

// RetryMatching retries the messages that f selects, from the newest or from a cursor on:
// up to limit of them, or all where limit is zero. It stops after 20 s.
func (d *Durable) RetryMatching(ctx context.Context, f Filter, limit int, cursor string) (Bulk, error) {
	return d.inSteps(ctx, f.Retryable(), limit, cursor, func(page []Message, ids []string) (int, error) {
		untried := 0
		for _, m := range page {
			if d.untried(&m) {
				untried++
			}
		}
		changed, err := d.retry(ctx, f.Key, ids...)
		if err == nil && len(changed)+untried > 0 {
			d.driver.unpause(page...)
		}
		return len(changed) + untried, err
	})
}

// CancelMatching cancels the messages that f selects, as RetryMatching retries them.
func (d *Durable) CancelMatching(ctx context.Context, f Filter, limit int, cursor string) (Bulk, error) {
	return d.inSteps(ctx, f.Cancelable(), limit, cursor, func(_ []Message, ids []string) (int, error) {
		canceled, err := d.cancel(ctx, f.Key, ids...)
		for _, e := range canceled {
			if e.Final {
				d.waiters.wake(e.ID)
			}
		}
		return len(canceled), err
	})
}

// Count counts the messages that f selects: see [Store.Count].
func (d *Durable) Count(ctx context.Context, f Filter, cursor string) (n int, next string, err error) {
	return d.store.Count(ctx, f, cursor)
}

// inSteps changes the messages that f selects, a commit for each step. The list goes from the newest
// message to the oldest, so that each is met once, whatever becomes of it meanwhile. Where a step
// fails after others, there is no error but the cursor of that step.
func (d *Durable) inSteps(ctx context.Context, f Filter, limit int, cursor string, step func(page []Message, ids []string) (changed int, err error)) (b Bulk, err error) {
	defer d.changed(ctx)
	end := time.Now().Add(bulkTime)
	for b.Next = cursor; ; {
		most := bulkStep
		if limit > 0 {
			most = min(most, limit-b.Matched)
		}
		page, err := d.store.List(ctx, f, most, b.Next)
		if err != nil {
			return b, unlessBegun(b, err)
		}
		if len(page.Messages) > 0 {
			ids := make([]string, len(page.Messages))
			for i, m := range page.Messages {
				ids[i] = m.ID
			}
			changed, err := step(page.Messages, ids)
			b.Changed += changed
			if err != nil {
				return b, unlessBegun(b, err)
			}
			b.Matched += len(ids)
		}
		b.Next = page.Next
		if b.Next == "" || limit > 0 && b.Matched == limit || !time.Now().Before(end) {
			return b, nil
		}
	}
}

// unlessBegun is the error of a step; nil where steps before it have done something, which the
// answer must say. Whoever goes on at its cursor meets the error then.
func unlessBegun(b Bulk, err error) error {
	if b.Matched > 0 {
		return nil
	}
	return err
}

// Cancel ends every recipient that is not final. One that is being tried just
// now is delivered or bounced as that attempt has it, and else canceled.
func (d *Durable) Cancel(ctx context.Context, key, id string) (Message, error) {
	m, err := d.store.Get(ctx, key, id)
	if err != nil {
		return Message{}, err
	}
	canceled, err := d.cancel(ctx, m.Key, id)
	if err == nil && len(canceled) == 0 {
		err = ErrNothingToCancel
	}
	if err != nil {
		return Message{}, err
	}
	d.changed(ctx)
	if m, err = d.Get(ctx, key, id); err != nil {
		return Message{}, err
	}
	if s := m.Status(); s == StatusQueued || s == StatusDeferred {
		if m, err = d.awaitCancel(ctx, key, m); err != nil {
			return Message{}, err
		}
	}
	if s := m.Status(); s != StatusQueued && s != StatusDeferred {
		d.waiters.wake(id)
	} // else it is being tried, and the end of that is what its client waits for
	return m, nil
}

// cancel has the store cancel messages, and logs which recipients ended by that. What waits
// in memory of them is not tried, nor what an answer of the store brings there meanwhile.
// What becomes of the recipients that are being tried is logged by the recorder.
func (d *Durable) cancel(ctx context.Context, key string, ids ...string) ([]Ended, error) {
	jobs := d.driver.beginCancel(ids)
	withdrawn := map[string][]string{}
	for _, j := range jobs {
		withdrawn[j.ID] = append(withdrawn[j.ID], lease(j).ForwardPaths...)
	}
	messages := make([]Withdrawal, len(ids))
	for i, id := range ids {
		messages[i] = Withdrawal{id, withdrawn[id]}
	}
	d.account.begin()
	canceled, err := d.store.Cancel(ctx, key, d.owner.now(), messages, d.now())
	d.account.end(Usage{}, false)
	if err == nil {
		did := map[string]bool{}
		for _, e := range canceled {
			did[e.ID] = true
			if !e.Final {
				d.hints.later(HintCanceled, e.ID) // another instance may have it in memory
			}
			for _, path := range e.ForwardPaths {
				logCanceled(d.log, Message{ID: e.ID, Envelope: mailer.Envelope{ReversePath: e.ReversePath}}, path)
			}
		}
		jobs = slices.DeleteFunc(jobs, func(j *dispatch.Job) bool { return did[j.ID] })
	}
	late := d.driver.endCancel(ids)
	d.recorder.release(append(jobs, late...))
	return canceled, err
}

// Reschedule makes a message that waits for its send_at wait until at instead; a time
// that is zero or past makes it due now. Its lifetime begins then. The error is
// [ErrNotScheduled] when it does not wait for its time any more: it is due, was tried, or
// is final. A Date field that is the old time becomes the new one, unless the message is signed.
func (d *Durable) Reschedule(ctx context.Context, key, id string, at time.Time) (Message, error) {
	leave, err := d.rescheduling.enter(ctx, key)
	if err != nil {
		return Message{}, err
	}
	defer leave()
	m, err := d.store.Get(ctx, key, id)
	if err != nil {
		return Message{}, err
	}
	now := d.now()
	at = at.UTC().Truncate(time.Microsecond)
	if at.Before(now) {
		at = now
	}
	content, err := d.redate(ctx, m, at)
	if err != nil {
		return Message{}, err
	}
	d.account.begin()
	scheduled, err := d.store.Reschedule(ctx, m.Key, id, at, content, now)
	d.account.end(Usage{}, false)
	d.changed(ctx) // even with an error the commit may have happened
	switch {
	case err != nil:
		return Message{}, err
	case !scheduled:
		return Message{}, ErrNotScheduled
	}
	if m, err = d.Get(ctx, key, id); err == nil {
		d.logRescheduled(m)
	}
	return m, err
}

// redate returns the content that a scheduled message has at another time; nil where it
// stays as it is.
func (d *Durable) redate(ctx context.Context, m Message, at time.Time) (*mailer.Content, error) {
	if m.SendAt.Unix() == at.Unix() {
		return nil, nil
	}
	c, err := d.store.Content(ctx, m.Key, m.ID)
	if errors.Is(err, ErrContentGone) {
		return nil, nil // it is final, which the store tells
	}
	if err != nil {
		return nil, err
	}
	c, changed := c.Redated(m.SendAt, at)
	if !changed {
		return nil, nil
	}
	return &c, nil
}

// changed follows on a change that was made in the store by command.
func (d *Durable) changed(ctx context.Context) {
	d.account.tryRecount(ctx)
	d.driver.look()
}
