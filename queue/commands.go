package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
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
	d.driver.unpause(m.Sender)
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
	// retryPage is how many messages RetryMatching changes in one commit.
	retryPage = 200
	// retryTime is how long RetryMatching begins with further pages.
	retryTime = 20 * time.Second
)

// RetryMatching retries the messages that f selects, page by page, from the start or
// from a cursor, and returns how many changed. It stops after 20 s: then next is the
// cursor to go on with; otherwise next is empty. The error is [ErrInvalidCursor] for a
// cursor that it did not give for such a filter.
func (d *Durable) RetryMatching(ctx context.Context, f Filter, cursor string) (total int, next string, err error) {
	statuses := []Status{f.Status}
	if f.Status == "" {
		statuses = []Status{StatusDeferred, StatusHeld, StatusPartial, StatusFailed}
	}
	// A message that becomes deferred by this is not met again: deferred ones come first.
	if now := d.now(); f.Until.IsZero() || f.Until.After(now) {
		f.Until = now
	}
	from, cursor, _ := strings.Cut(cursor, ".")
	begin := 0
	if from != "" {
		if begin = slices.Index(statuses, Status(from)); begin < 0 {
			return 0, "", ErrInvalidCursor
		}
	}
	defer d.changed(ctx)
	begun, end := false, time.Now().Add(retryTime)
	for _, f.Status = range statuses[begin:] {
		for more := true; more; more = cursor != "" {
			if begun && !time.Now().Before(end) {
				return total, string(f.Status) + "." + cursor, nil
			}
			begun = true
			n, err := d.retrySome(ctx, f, &cursor)
			if total += n; err != nil {
				return total, "", err
			}
		}
	}
	return total, "", nil
}

// retrySome retries a page of messages, and moves the cursor on.
func (d *Durable) retrySome(ctx context.Context, f Filter, cursor *string) (int, error) {
	page, err := d.store.List(ctx, f, retryPage, *cursor)
	if err != nil {
		return 0, err
	}
	*cursor = page.Next
	if len(page.Messages) == 0 {
		return 0, nil
	}
	ids, senders, untried := make([]string, len(page.Messages)), make([]string, len(page.Messages)), 0
	for i, m := range page.Messages {
		if ids[i], senders[i] = m.ID, m.Sender; d.untried(&m) {
			untried++
		}
	}
	changed, err := d.retry(ctx, f.Key, ids...)
	if err == nil && len(changed)+untried > 0 {
		d.driver.unpause(senders...)
	}
	return len(changed) + untried, err
}

// Cancel ends every recipient that is not final. One that is being tried just
// now is delivered or bounced as that attempt has it, and else canceled.
func (d *Durable) Cancel(ctx context.Context, key, id string) (Message, error) {
	m, err := d.store.Get(ctx, key, id)
	if err != nil {
		return Message{}, err
	}
	busy, err := d.cancel(ctx, m.Key, id)
	if err != nil {
		return Message{}, err
	}
	d.changed(ctx)
	before := m
	if m, err = d.Get(ctx, key, id); err != nil {
		return Message{}, err
	}
	d.logCanceled(before, m, busy)
	if s := m.Status(); s != StatusQueued && s != StatusDeferred {
		d.waiters.wake(id)
	} // else it is being tried, and the end of that is what its client waits for
	return m, nil
}

// cancel has the store cancel a message. What waits in memory of it is not tried, nor
// what an answer of the store brings there meanwhile. busy are the jobs of which the
// recorder logs what becomes of them.
func (d *Durable) cancel(ctx context.Context, key, id string) (busy []*dispatch.Job, err error) {
	jobs, busy := d.driver.beginCancel(id)
	var withdrawn []string
	for _, j := range jobs {
		withdrawn = append(withdrawn, lease(j).ForwardPaths...)
	}
	d.account.begin()
	ended, err := d.store.Cancel(ctx, key, id, d.owner, withdrawn, d.now())
	d.account.end(Usage{}, false)
	if err == nil && ended {
		jobs = nil // they are canceled
	}
	late := d.driver.endCancel(id)
	d.recorder.release(append(jobs, late...))
	if err == nil && !ended {
		err = ErrNothingToCancel
	}
	return append(busy, late...), err
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
