package queue

import (
	"context"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// attemptAlone is attempt. A message that may make the service crash is marked before it
// is touched, while it is the only one in hand: a crash is then blamed on it. After a
// while it has shown that it does no harm, and others go on.
func (dr *driver) attemptAlone(j *dispatch.Job, work *job) ([]mailer.Attempt, error) {
	if !work.Suspect {
		return dr.attempt(j, work)
	}
	if err := dr.store.MarkAlone(dr.ctx, work.owner, j.ID, true); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.WithoutCancel(dr.ctx))
	defer end()
	over := make(chan struct{})
	harmless := time.AfterFunc(dispatch.AloneTime, func() {
		defer close(over)
		dr.harmless(ctx, j)
	})
	attempts, err := dr.attempt(j, work)
	if !harmless.Stop() {
		end()
		<-over
	}
	return attempts, err
}

// harmless takes the mark from a message, and lets others go on beside it. Others wait
// until the store has done it, or ctx ends with the attempt.
func (dr *driver) harmless(ctx context.Context, j *dispatch.Job) {
	for {
		err := dr.store.MarkAlone(ctx, ownerOf(j), j.ID, false)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			dr.log.Error("message could not be unmarked", "id", j.ID, "error", err)
		}
		if !sleep(ctx, recorderRetry) {
			return
		}
	}
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.Harmless(j, now) })
}
