package queue

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"mailsidecar/queue/dispatch"
)

// ledger records outcomes beside the workers, so that a worker goes on with the
// next message while the last one's outcome is being committed. An outcome that
// cannot be written is kept and written later: a delivered message must not be
// sent twice because the disk was full for a while.
type ledger struct {
	shared
	desk *desk
	wake chan struct{} // capacity 1: there is something to write

	mu      sync.Mutex
	pending []pendingOutcome
	leased  []*dispatch.Job // whose leases are to be given back
	writing int             // outcomes and leases that are being written
	hurry   bool            // the service stops, and waits for each write
	idle    *sync.Cond
	lastErr error
}

// pendingOutcome is an outcome that is not stored yet, of a job.
type pendingOutcome struct {
	Outcome
	job *job
}

func newLedger(s shared) *ledger {
	l := &ledger{shared: s, wake: make(chan struct{}, 1)}
	l.idle = sync.NewCond(&l.mu)
	return l
}

func (l *ledger) record(o Outcome, j *job) {
	l.mu.Lock()
	l.pending = append(l.pending, pendingOutcome{o, j})
	l.mu.Unlock()
	l.poke()
}

// release gives back the leases of jobs. Their contents are in the store only,
// from now on.
func (l *ledger) release(jobs []*dispatch.Job) {
	if len(jobs) == 0 {
		return
	}
	for _, j := range jobs {
		j.Value.(*job).content = nil
	}
	l.mu.Lock()
	l.leased = append(l.leased, jobs...)
	l.mu.Unlock()
	l.poke()
}

func (l *ledger) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends. Then it has been drained, or given up.
func (l *ledger) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for l.write(ctx) {
			if err := l.failure(); err != nil && !sleep(ctx, ledgerRetry) {
				return
			}
		}
	}
}

// ledgerRetry is how long the ledger waits after the store failed.
const ledgerRetry = time.Second

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// write writes all there is, once, and says whether there was anything.
func (l *ledger) write(ctx context.Context) bool {
	l.mu.Lock()
	outcomes, leased, hurry := l.pending, l.leased, l.hurry
	l.pending, l.leased = nil, nil
	l.writing = len(outcomes) + len(leased)
	l.mu.Unlock()
	if len(outcomes)+len(leased) == 0 {
		return false
	}
	err := l.commit(ctx, &outcomes, &leased, hurry)
	l.mu.Lock()
	l.pending = append(outcomes, l.pending...)
	l.leased = append(leased, l.leased...)
	l.writing = 0
	was := l.lastErr
	if err == nil || ctx.Err() == nil { // the end of ctx is no fault of the store
		l.lastErr = err
	}
	l.idle.Broadcast()
	l.mu.Unlock()
	l.tellDesk(was, err)
	return true
}

// commit writes, and empties what it wrote.
func (l *ledger) commit(ctx context.Context, outcomes *[]pendingOutcome, leased *[]*dispatch.Job, hurry bool) error {
	if len(*outcomes) > 0 {
		settled, err := l.store.Record(ctx, l.batch(*outcomes, hurry))
		if err != nil {
			return err
		}
		l.afterRecord(*outcomes, settled)
		*outcomes = nil
	}
	if len(*leased) > 0 {
		leases := make([]Lease, len(*leased))
		for i, j := range *leased {
			leases[i] = lease(j)
		}
		if err := l.store.Release(ctx, l.owner, l.now(), leases); err != nil {
			return err
		}
		for _, j := range *leased {
			l.waiters.wake(j.ID)
		}
		l.desk.released(*leased)
		*leased = nil
	}
	return nil
}

// batch returns the outcomes as the store takes them.
func (l *ledger) batch(outcomes []pendingOutcome, hurry bool) []Outcome {
	batch := make([]Outcome, len(outcomes))
	for i, o := range outcomes {
		batch[i] = o.Outcome
		batch[i].Awaited = hurry || l.waiters.waited(o.ID)
	}
	return batch
}

// afterRecord does what follows on outcomes once they are durable.
func (l *ledger) afterRecord(outcomes []pendingOutcome, settled Settled) {
	l.account.settle(settled)
	for _, o := range outcomes {
		l.waiters.wake(o.ID)
	}
	l.desk.recorded(outcomes)
	for _, o := range outcomes {
		l.logOutcome(o)
	}
}

// tellDesk stops and resumes deliveries as outcomes cannot or can be recorded.
func (l *ledger) tellDesk(was, err error) {
	switch {
	case err != nil && was == nil:
		l.desk.stuck(true)
		l.log.Error("outcomes cannot be stored: deliveries stop until they can", "error", err)
	case err == nil && was != nil:
		l.desk.stuck(false)
		l.log.Info("outcomes can be stored again")
	}
}

func (l *ledger) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastErr
}

// drain waits until everything is written; after timeout it gives up.
func (l *ledger) drain(timeout time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	late := false
	t := time.AfterFunc(timeout, func() {
		l.mu.Lock()
		late = true
		l.mu.Unlock()
		l.idle.Broadcast()
	})
	defer t.Stop()
	for !late && len(l.pending)+len(l.leased)+l.writing > 0 {
		l.idle.Wait()
	}
}

// waitedFor says that from now on each outcome is waited for.
func (l *ledger) waitedFor() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurry = true
}

// unwritten is the error of what was given up; nil when everything is written.
func (l *ledger) unwritten() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.pending) + len(l.leased)
	if n == 0 {
		return nil
	}
	return fmt.Errorf("queue: the outcomes of %d messages could not be stored and count as uncertain: %w", n,
		cmp.Or(l.lastErr, context.DeadlineExceeded))
}
