package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailsidecar/config"
	"mailsidecar/queue"
	"mailsidecar/queue/postgres"
)

const (
	// answerTime is how long a request waits for the database.
	answerTime = 1500 * time.Millisecond
	// firstRetry and longestRetry are the pauses between tries to reach the database at the start.
	firstRetry, longestRetry = 500 * time.Millisecond, 5 * time.Second
)

func databaseOptions(c config.Service, log *slog.Logger) postgres.Options {
	listen := c.QueueListen.URL.Reveal()
	if c.QueueListen.None {
		listen = postgres.ListenNone
	}
	var reread func() (string, error)
	if file := c.Queue.File; file != "" {
		reread = func() (string, error) {
			q, err := config.ReadQueueFile(file)
			return q.URL.Reveal(), err
		}
	}
	return postgres.Options{
		Listen: listen, Reread: reread,
		URL: c.Queue.URL.Reveal(), Schema: c.Queue.Schema, Lease: time.Duration(c.Lease), Patience: answerTime,
		Retention: time.Duration(c.Retention), KeepBodies: time.Duration(c.KeepBodies), Events: &databaseEvents{log: log, queue: c.Queue.String(), explicit: listen != ""},
	}
}

// databaseEvents logs what the store tells.
type databaseEvents struct {
	log      *slog.Logger
	queue    string // its place
	explicit bool   // MAILSIDECAR_QUEUE_LISTEN has an address

	mu   sync.Mutex
	told time.Time // when the log last said that the database is away
	says bool      // the log's last word is that
}

// Commits says how durable a commit is.
func (e *databaseEvents) Commits(synchronousCommit, standbys string, safe bool) {
	if safe {
		e.log.Info("database of the queue reached", "queue", e.queue, "synchronous_commit", synchronousCommit, "synchronous_standby_names", standbys)
		return
	}
	e.log.Warn("the database may lose accepted mail in a crash: set synchronous_commit to on", "queue", e.queue, "synchronous_commit", synchronousCommit, "synchronous_standby_names", standbys)
}

// Away says that the database does not answer.
func (e *databaseEvents) Away(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); now.Sub(e.told).Abs() >= awayInterval {
		e.told = now
	} else if !e.says { // it comes and goes
		return
	}
	e.says = true
	unlimited(e.log).Warn("the database of the queue is not reached: nothing is accepted until it is", "queue", e.queue, "error", err)
}

// Back says that it does again.
func (e *databaseEvents) Back(after time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.says {
		return
	}
	e.says = false
	e.log.Info("the database of the queue is reached again", "after", after)
}

// Hears says whether the instances' notifications arrive.
func (e *databaseEvents) Hears(does bool, err error) {
	switch {
	case does:
		e.log.Info("hears what other instances tell")
	case e.explicit:
		e.log.Warn("does not hear what other instances tell, and looks for it", "setting", "MAILSIDECAR_QUEUE_LISTEN", "error", err)
	default:
		e.log.Info("does not hear what other instances tell, and looks for it", "error", err)
	}
}

// BeatFailed says that this instance could not say that it lives.
func (e *databaseEvents) BeatFailed(err error) {
	err = fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	e.log.Warn("no sign of life to the database: after a lease others take over", "error", err)
}

// LeaseLost is for the queue to tell, which goes on.
func (e *databaseEvents) LeaseLost(string) {}

// startShared is startQueue with a database. Where that is not reached the queue keeps trying,
// and accepts nothing meanwhile. What a person must mend is an error.
func startShared(ctx context.Context, c config.Service, o queue.Options) (*runningQueue, error) {
	options := databaseOptions(c, o.Logger)
	store, err := postgres.Prepare(ctx, options)
	if err != nil {
		return nil, &ConfigError{settingOf(err), err}
	}
	q, err := newQueue(c, store, o)
	if err != nil {
		return nil, err
	}
	err = q.reach(ctx, options, store)
	if errors.As(err, new(*queue.StoreError)) {
		return nil, errors.Join(err, store.Close())
	}
	if err != nil {
		options.Events.Away(fmt.Errorf("%w: %w", queue.ErrUnavailable, err))
	}
	q.begin(ctx, func(ctx context.Context) error { return q.runShared(ctx, err, options, store) })
	return q, nil
}

// settingOf is the setting that the error of an address is about.
func settingOf(err error) string {
	if errors.Is(err, postgres.ErrListen) {
		return "MAILSIDECAR_QUEUE_LISTEN"
	}
	return "MAILSIDECAR_QUEUE"
}

// reach brings the schema to the newest version, and looks at the database.
func (q *runningQueue) reach(ctx context.Context, o postgres.Options, store *postgres.Store) error {
	from, to, err := postgres.Migrate(ctx, o)
	if err == nil {
		err = store.Connect(ctx)
	}
	if err != nil {
		q.unreached.Store(&err)
		return err
	}
	if from != to {
		o.Events.(*databaseEvents).log.Info("schema of the queue is migrated", "from", from, "to", to)
	}
	q.unreached.Store(nil)
	return nil
}

// runShared reaches the database, where err says that it was not, and delivers.
func (q *runningQueue) runShared(ctx context.Context, err error, o postgres.Options, store *postgres.Store) error {
	for pause := firstRetry; err != nil; pause = min(2*pause, longestRetry) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if err = q.reach(ctx, o, store); errors.As(err, new(*queue.StoreError)) {
			return err
		}
	}
	for {
		err := q.Run(postgres.Unhurried(ctx))
		if !errors.Is(err, queue.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		o.Events.Away(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(firstRetry):
		}
	}
}

// Ready is that of the queue, once its database was reached.
func (q *runningQueue) Ready(ctx context.Context) error {
	if err := q.notReached(); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err := q.Durable.Ready(within)
	if _, shared := q.store.(queue.SharedStore); shared && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: no answer within %v", queue.ErrUnavailable, answerTime)
	}
	return err
}

// MigrateStore brings the schema of the database that the configuration names to the newest version.
func MigrateStore(ctx context.Context, c config.Service, log *slog.Logger) (from, to int, err error) {
	if !c.Queue.Shared() {
		return 0, 0, &ConfigError{"MAILSIDECAR_QUEUE", errors.New("the queue is a file, and the start of the server migrates that: there is nothing to do. For PostgreSQL set the URL of the database")}
	}
	o := databaseOptions(c, log)
	store, err := postgres.Prepare(ctx, o)
	if err != nil {
		return 0, 0, &ConfigError{settingOf(err), err}
	}
	if err := store.Close(); err != nil {
		return 0, 0, err
	}
	if from, to, err = postgres.Migrate(ctx, o); postgres.Unreachable(err) {
		err = fmt.Errorf("%s is not reached: %w; %s", c.Queue, err, reachRemedy)
	}
	return from, to, err
}

// reachRemedy is what helps where a database is not reached.
const reachRemedy = "see that the server runs, that host and port are right, and that it may be reached from here"

// ExaminedDatabase is what is known of the database of a queue.
type ExaminedDatabase = postgres.Examined

// ExamineDatabase looks whether the database that the configuration names can hold the queue,
// and changes nothing. remedy is what helps after an error, where that is known.
func ExamineDatabase(ctx context.Context, c config.Service) (d ExaminedDatabase, remedy string, err error) {
	d, err = postgres.Examine(ctx, databaseOptions(c, slog.New(slog.DiscardHandler)))
	if known, ok := errors.AsType[*queue.StoreError](err); ok {
		return d, known.Remedy, known.Err
	}
	if postgres.Unreachable(err) {
		return d, reachRemedy, err
	}
	return d, "", err
}
