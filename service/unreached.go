package service

import (
	"context"
	"fmt"
	"time"

	"mailsidecar/queue"
)

// notReached is the error while the database has not been reached since the start. Nothing can
// have been stored or changed then.
func (q *runningQueue) notReached() error {
	if err := q.unreached.Load(); err != nil {
		return fmt.Errorf("%w: %w: %w", queue.ErrUnavailable, queue.ErrNothingDone, *err)
	}
	return nil
}

// reached calls f once the database was reached. What a request asks of a queue before that is
// refused at once: it would wait for the queue to begin.
func reached[T any](q *runningQueue, f func() (T, error)) (none T, err error) {
	if err := q.notReached(); err != nil {
		return none, err
	}
	return f()
}

// The methods of [queue.Durable] that need its store.

func (q *runningQueue) Submit(ctx context.Context, s queue.Submission) (queue.Receipt, error) {
	return reached(q, func() (queue.Receipt, error) { return q.Durable.Submit(ctx, s) })
}

func (q *runningQueue) SubmitBatch(ctx context.Context, s []queue.Submission) ([]queue.Receipt, error) {
	return reached(q, func() ([]queue.Receipt, error) { return q.Durable.SubmitBatch(ctx, s) })
}

func (q *runningQueue) Get(ctx context.Context, key, id string) (queue.Message, error) {
	return reached(q, func() (queue.Message, error) { return q.Durable.Get(ctx, key, id) })
}

func (q *runningQueue) List(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Page, error) {
	return reached(q, func() (queue.Page, error) { return q.Durable.List(ctx, f, limit, cursor) })
}

func (q *runningQueue) Retry(ctx context.Context, key, id string) (queue.Message, error) {
	return reached(q, func() (queue.Message, error) { return q.Durable.Retry(ctx, key, id) })
}

func (q *runningQueue) RetryMatching(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Bulk, error) {
	return reached(q, func() (queue.Bulk, error) { return q.Durable.RetryMatching(ctx, f, limit, cursor) })
}

func (q *runningQueue) CancelMatching(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Bulk, error) {
	return reached(q, func() (queue.Bulk, error) { return q.Durable.CancelMatching(ctx, f, limit, cursor) })
}

func (q *runningQueue) Count(ctx context.Context, f queue.Filter, cursor string) (n int, next string, err error) {
	if err := q.notReached(); err != nil {
		return 0, "", err
	}
	return q.Durable.Count(ctx, f, cursor)
}

func (q *runningQueue) Cancel(ctx context.Context, key, id string) (queue.Message, error) {
	return reached(q, func() (queue.Message, error) { return q.Durable.Cancel(ctx, key, id) })
}

func (q *runningQueue) Resend(ctx context.Context, key string, r queue.Resend) (queue.Receipt, error) {
	return reached(q, func() (queue.Receipt, error) { return q.Durable.Resend(ctx, key, r) })
}

func (q *runningQueue) Reschedule(ctx context.Context, key, id string, at time.Time) (queue.Message, error) {
	return reached(q, func() (queue.Message, error) { return q.Durable.Reschedule(ctx, key, id, at) })
}

func (q *runningQueue) Stats(ctx context.Context, key string) (queue.Stats, error) {
	return reached(q, func() (queue.Stats, error) { return q.Durable.Stats(ctx, key) })
}

func (q *runningQueue) Week(ctx context.Context, key string) ([]queue.Bucket, error) {
	return reached(q, func() ([]queue.Bucket, error) { return q.Durable.Week(ctx, key) })
}

func (q *runningQueue) Content(ctx context.Context, key, id string) ([]byte, error) {
	return reached(q, func() ([]byte, error) { return q.Durable.Content(ctx, key, id) })
}

func (q *runningQueue) PauseRelay(ctx context.Context, name string, until time.Time, reason string) (queue.ManualPause, error) {
	return reached(q, func() (queue.ManualPause, error) { return q.Durable.PauseRelay(ctx, name, until, reason) })
}

func (q *runningQueue) ResumeRelay(ctx context.Context, name string) error {
	if err := q.notReached(); err != nil {
		return err
	}
	return q.Durable.ResumeRelay(ctx, name)
}

func (q *runningQueue) Drained(ctx context.Context) (queue.Drain, error) {
	return reached(q, func() (queue.Drain, error) { return q.Durable.Drained(ctx) })
}
