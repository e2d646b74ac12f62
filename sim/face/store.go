package face

import (
	"context"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// Insert takes new messages.
func (f *Face) Insert(ctx context.Context, b queue.Batch) ([]string, error) {
	return call(ctx, f, "Insert", inserts, func() ([]string, error) {
		replayed, err := f.store.Insert(ctx, b)
		for _, e := range b.Entries {
			if f.link != nil && err == nil && replayed == nil && e.Owner != "" {
				f.weather.inserted(e.Owner, e.Message.ID)
			}
		}
		return replayed, err
	})
}

// Replay reads.
func (f *Face) Replay(ctx context.Context, i queue.Idempotency) ([]string, error) {
	return call(ctx, f, "Replay", reads, func() ([]string, error) { return f.store.Replay(ctx, i) })
}

// Claim writes.
func (f *Face) Claim(ctx context.Context, owner string, now time.Time, wants []queue.Want) ([]queue.Work, error) {
	return call(ctx, f, "Claim", writes, func() ([]queue.Work, error) {
		works, err := f.store.Claim(ctx, owner, now, wants)
		for _, w := range works {
			if f.link != nil {
				f.weather.leased(owner, w.ID, false)
			}
		}
		return works, err
	})
}

// Mark writes.
func (f *Face) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	return exec(ctx, f, "Mark", writes, func() error { return f.store.Mark(ctx, owner, l, turns) })
}

// MarkAlone writes.
func (f *Face) MarkAlone(ctx context.Context, owner, id string, alone bool) error {
	return exec(ctx, f, "MarkAlone", writes, func() error { return f.store.MarkAlone(ctx, owner, id, alone) })
}

// Record writes.
func (f *Face) Record(ctx context.Context, outcomes []queue.Outcome) (queue.Settled, error) {
	return call(ctx, f, "Record", writes, func() (queue.Settled, error) {
		settled, err := f.store.Record(ctx, outcomes)
		for _, o := range outcomes {
			for _, c := range o.Changes {
				if err == nil && c.State == queue.Expired {
					f.weather.expired(o.ID, c.ForwardPath)
				}
			}
		}
		return settled, err
	})
}

// Release writes.
func (f *Face) Release(ctx context.Context, owner string, now time.Time, leases []queue.Lease) error {
	return exec(ctx, f, "Release", writes, func() error { return f.store.Release(ctx, owner, now, leases) })
}

// Leases reads.
func (f *Face) Leases(ctx context.Context, owner string) ([]queue.Lease, error) {
	return call(ctx, f, "Leases", reads, func() ([]queue.Lease, error) { return f.store.Leases(ctx, owner) })
}

// Recover writes.
func (f *Face) Recover(ctx context.Context, owner string, now time.Time, hold bool) (queue.Recovered, error) {
	return call(ctx, f, "Recover", writes, func() (queue.Recovered, error) { return f.store.Recover(ctx, owner, now, hold) })
}

// End writes.
func (f *Face) End(ctx context.Context, owner string) error {
	return exec(ctx, f, "End", writes, func() error { return f.store.End(ctx, owner) })
}

// Week reads.
func (f *Face) Week(ctx context.Context, key string, now time.Time) ([]queue.Bucket, error) {
	return call(ctx, f, "Week", reads, func() ([]queue.Bucket, error) { return f.store.Week(ctx, key, now) })
}

// Stats reads.
func (f *Face) Stats(ctx context.Context, key string, now time.Time) (queue.Stats, error) {
	return call(ctx, f, "Stats", reads, func() (queue.Stats, error) { return f.store.Stats(ctx, key, now) })
}

// Turns reads.
func (f *Face) Turns(ctx context.Context, relay string, since time.Time, limit int) ([]time.Time, error) {
	return call(ctx, f, "Turns", reads, func() ([]time.Time, error) { return f.store.Turns(ctx, relay, since, limit) })
}

// ManualPauses reads.
func (f *Face) ManualPauses(ctx context.Context) ([]queue.ManualPause, error) {
	return call(ctx, f, "ManualPauses", reads, func() ([]queue.ManualPause, error) { return f.store.ManualPauses(ctx) })
}

// SetManualPauses writes.
func (f *Face) SetManualPauses(ctx context.Context, pauses []queue.ManualPause, of ...string) error {
	return exec(ctx, f, "SetManualPauses", writes, func() error { return f.store.SetManualPauses(ctx, pauses, of...) })
}

// Heartbeat writes.
func (f *Face) Heartbeat(ctx context.Context, owner string, now time.Time) error {
	return exec(ctx, f, "Heartbeat", writes, func() error { return f.store.Heartbeat(ctx, owner, now) })
}

// Waiting reads.
func (f *Face) Waiting(ctx context.Context, now time.Time) (queue.Waiting, error) {
	return call(ctx, f, "Waiting", reads, func() (queue.Waiting, error) { return f.store.Waiting(ctx, now) })
}

// Expire writes.
func (f *Face) Expire(ctx context.Context, now time.Time, limit int) ([]queue.Ended, error) {
	return call(ctx, f, "Expire", writes, func() ([]queue.Ended, error) {
		ended, err := f.store.Expire(ctx, now, limit)
		for _, e := range ended {
			f.weather.expired(e.ID, e.ForwardPaths...)
		}
		return ended, err
	})
}

// Rewind writes.
func (f *Face) Rewind(ctx context.Context, latest time.Time, from string) (string, error) {
	return call(ctx, f, "Rewind", writes, func() (string, error) { return f.store.Rewind(ctx, latest, from) })
}

// Get reads.
func (f *Face) Get(ctx context.Context, key, id string) (queue.Message, error) {
	return call(ctx, f, "Get", reads, func() (queue.Message, error) { return f.store.Get(ctx, key, id) })
}

// List reads.
func (f *Face) List(ctx context.Context, filter queue.Filter, limit int, cursor string) (queue.Page, error) {
	return call(ctx, f, "List", reads, func() (queue.Page, error) { return f.store.List(ctx, filter, limit, cursor) })
}

// Count reads.
func (f *Face) Count(ctx context.Context, filter queue.Filter, cursor string) (n int, next string, err error) {
	err = exec(ctx, f, "Count", reads, func() (err error) {
		n, next, err = f.store.Count(ctx, filter, cursor)
		return err
	})
	return n, next, err
}

// Content reads.
func (f *Face) Content(ctx context.Context, key, id string) (mailer.Content, error) {
	return call(ctx, f, "Content", reads, func() (mailer.Content, error) { return f.store.Content(ctx, key, id) })
}

// Retry writes.
func (f *Face) Retry(ctx context.Context, key string, ids []string, now time.Time) ([]string, error) {
	return call(ctx, f, "Retry", writes, func() ([]string, error) { return f.store.Retry(ctx, key, ids, now) })
}

// Cancel writes.
func (f *Face) Cancel(ctx context.Context, key, owner string, messages []queue.Withdrawal, now time.Time) ([]queue.Ended, error) {
	return call(ctx, f, "Cancel", writes, func() ([]queue.Ended, error) { return f.store.Cancel(ctx, key, owner, messages, now) })
}

// Reschedule writes.
func (f *Face) Reschedule(ctx context.Context, key, id string, sendAt time.Time, content *mailer.Content, now time.Time) (bool, error) {
	return call(ctx, f, "Reschedule", writes, func() (bool, error) { return f.store.Reschedule(ctx, key, id, sendAt, content, now) })
}

// Backlog reads.
func (f *Face) Backlog(ctx context.Context, now time.Time) (queue.Backlog, error) {
	return call(ctx, f, "Backlog", reads, func() (queue.Backlog, error) { return f.store.Backlog(ctx, now) })
}

// Usage reads.
func (f *Face) Usage(ctx context.Context) (queue.Usage, error) {
	return call(ctx, f, "Usage", reads, func() (queue.Usage, error) { return f.store.Usage(ctx) })
}

// Sweep writes.
func (f *Face) Sweep(ctx context.Context, now time.Time, limit int) (int, error) {
	return call(ctx, f, "Sweep", writes, func() (int, error) { return f.store.Sweep(ctx, now, limit) })
}

// Check says what Insert would say of the disk.
func (f *Face) Check(ctx context.Context) error {
	return exec(ctx, f, "Check", reads, func() error {
		if f.weather.full.Load() > 0 {
			return queue.ErrDiskFull
		}
		return f.store.Check(ctx)
	})
}

// Close closes the store, whether it is alive or not.
func (f *Face) Close() error { return f.store.Close() }
