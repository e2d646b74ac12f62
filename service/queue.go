package service

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"mailsidecar/config"
	"mailsidecar/processor"
	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
)

// runningQueue is a queue with a store, at work.
type runningQueue struct {
	*queue.Durable
	store  queue.Store
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended, in order or not; then err is set
	err    error
	// unreached is why the database has not been reached since the start; nil once it was.
	unreached atomic.Pointer[error]
}

// startQueue opens the store unless it is given one, takes over what an earlier
// run left there, and begins to deliver. o has what does not come from c. The
// queue goes on when ctx ends, until beginStop.
func startQueue(ctx context.Context, c config.Service, store queue.Store, turns *processor.Turns, o queue.Options) (*runningQueue, error) {
	if store == nil && c.Queue.Shared() {
		return startShared(ctx, c, o)
	}
	if store == nil {
		var err error
		options := sqliteOptions(c, o.Logger)
		options.Meter, _ = o.Meter.(sqlite.Meter)
		options.Processor = turns
		if store, err = sqlite.Open(ctx, options); err != nil {
			return nil, err
		}
	}
	q, err := newQueue(c, store, o)
	if err != nil {
		return nil, err
	}
	q.begin(ctx, q.Run)
	return q, nil
}

// newQueue returns a queue that has not begun.
func newQueue(c config.Service, store queue.Store, o queue.Options) (*runningQueue, error) {
	o.Store, o.ExpiresIn, o.HoldUncertain = store, time.Duration(c.ExpiresIn), c.Uncertain == "hold"
	o.MaxMessages, o.MaxBytes = int64(c.QueueMaxMessages), int64(c.QueueMaxSize)
	durable, err := queue.New(o)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", err, store.Close())
	}
	return &runningQueue{Durable: durable, store: store, done: make(chan struct{})}, nil
}

// begin has it work until beginStop.
func (q *runningQueue) begin(ctx context.Context, run func(context.Context) error) {
	ctx, q.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(q.done)
		q.err = run(ctx)
	}()
}

// sqliteOptions are those of the store in a file. A minimum of zero octets of free disk becomes
// one: to the store's options zero means the default.
func sqliteOptions(c config.Service, log *slog.Logger) sqlite.Options {
	return sqlite.Options{
		Path: c.Queue.Path, MinFreeDisk: max(1, int64(c.MinFreeDisk)),
		Retention: time.Duration(c.Retention), KeepBodies: time.Duration(c.KeepBodies), Logger: log,
	}
}

// beginStop lets it accept nothing more, and answers the requests that wait for
// an attempt.
func (q *runningQueue) beginStop() { q.cancel() }

// awaitStop returns when the deliveries in flight are over, or with ctx's error
// when it ends first.
func (q *runningQueue) awaitStop(ctx context.Context) error {
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return fmt.Errorf("stop queue: %w; what was in hand is taken for uncertain at the next start", ctx.Err())
	}
}

// closeTime is how long the store has to be closed, whatever the steps before have left of the
// time: the end of a database in a file must not be cut short.
const closeTime = 500 * time.Millisecond

// closeStore is last of all. A store that is still being used is left to the
// end of the process, which loses nothing that was promised. So is one whose database does not
// answer until ctx ends.
func (q *runningQueue) closeStore(ctx context.Context) error {
	select {
	case <-q.done:
	default:
		return nil
	}
	closed := make(chan error, 1)
	go func() { closed <- q.store.Close() }()
	least := time.After(closeTime)
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-closed:
		return err
	case <-least:
		return fmt.Errorf("close the store: %w", ctx.Err())
	}
}
