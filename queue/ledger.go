package queue

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// ledger records outcomes beside the workers, so that a worker goes on with the
// next message while the last one's outcome is being committed. What cannot be
// written is kept and tried again: a delivered message must not be sent twice
// because the disk was full for a while.
type ledger struct {
	d    *Durable
	wake chan struct{}

	mu       sync.Mutex
	outcomes []recorded
	leases   []Lease
	writing  int // outcomes and leases taken by the writer and not yet written
	idle     *sync.Cond
	lastErr  error
}

type recorded struct {
	Outcome
	job *job
}

func newLedger(d *Durable) *ledger {
	l := &ledger{d: d, wake: make(chan struct{}, 1)}
	l.idle = sync.NewCond(&l.mu)
	return l
}

func (l *ledger) record(o Outcome, j *job) {
	l.mu.Lock()
	l.outcomes = append(l.outcomes, recorded{o, j})
	l.mu.Unlock()
	l.poke()
}

func (l *ledger) release(leases []Lease) {
	if len(leases) == 0 {
		return
	}
	l.mu.Lock()
	l.leases = append(l.leases, leases...)
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
	outcomes, leases := l.outcomes, l.leases
	l.outcomes, l.leases = nil, nil
	l.writing = len(outcomes) + len(leases)
	l.mu.Unlock()
	if len(outcomes)+len(leases) == 0 {
		return false
	}
	err := l.commit(ctx, &outcomes, &leases)
	l.mu.Lock()
	l.outcomes = append(outcomes, l.outcomes...)
	l.leases = append(leases, l.leases...)
	l.writing = 0
	l.lastErr = err
	l.idle.Broadcast()
	l.mu.Unlock()
	l.d.setStuck(err)
	return true
}

// commit writes, and empties what it wrote.
func (l *ledger) commit(ctx context.Context, outcomes *[]recorded, leases *[]Lease) error {
	if len(*outcomes) > 0 {
		settled, err := l.d.store.Record(ctx, l.d.batch(*outcomes))
		if err != nil {
			return err
		}
		l.d.recorded(*outcomes, settled)
		*outcomes = nil
	}
	if len(*leases) > 0 {
		if err := l.d.store.Release(ctx, l.d.owner, l.d.now(), *leases); err != nil {
			return err
		}
		l.d.released(*leases)
		*leases = nil
	}
	return nil
}

// batch returns the outcomes as the store takes them.
func (d *Durable) batch(outcomes []recorded) []Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	batch := make([]Outcome, len(outcomes))
	for i, r := range outcomes {
		batch[i] = r.Outcome
		batch[i].Awaited = len(d.watches[r.ID]) > 0 || d.phase == stopping
	}
	return batch
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
	for !late && len(l.outcomes)+len(l.leases)+l.writing > 0 {
		l.idle.Wait()
	}
}

// unwritten tells what was given up.
func (l *ledger) unwritten() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.outcomes) + len(l.leases)
	if n == 0 {
		return nil
	}
	return fmt.Errorf("queue: the outcomes of %d messages could not be stored and count as uncertain: %w", n,
		cmp.Or(l.lastErr, context.DeadlineExceeded))
}

// setStuck stops and resumes deliveries as outcomes cannot or can be recorded.
func (d *Durable) setStuck(err error) {
	d.mu.Lock()
	was := d.stuck
	d.stuck = err != nil
	if was && err == nil {
		for _, g := range d.groups {
			d.dispatch(g)
		}
		d.poke()
	}
	d.mu.Unlock()
	switch {
	case err != nil && !was:
		d.log.Error("outcomes cannot be stored: deliveries stop until they can", "error", err)
	case err == nil && was:
		d.log.Info("outcomes can be stored again")
	}
}

// recorded does what follows on outcomes once they are durable.
func (d *Durable) recorded(outcomes []recorded, settled Settled) {
	d.mu.Lock()
	d.credit(settled)
	for _, r := range outcomes {
		d.tell(r.ID)
		for _, c := range r.Changes {
			if !c.State.Final() && c.State != Held {
				d.noteWaiting(d.groupFor(r), r.job.Lane(), c.Next, r.job.Expires)
			}
		}
	}
	d.mu.Unlock()
	for _, r := range outcomes {
		d.logOutcome(r)
	}
}

// groupFor returns the group that an outcome belongs to, made up where no relay
// takes the mail.
func (d *Durable) groupFor(r recorded) *group {
	if g := d.groups[r.Route]; g != nil {
		return g
	}
	return newGroup(r.Route, []*relay{{}})
}

// released does what follows on leases given back.
func (d *Durable) released(leases []Lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, lease := range leases {
		d.tell(lease.ID)
	}
	d.poke()
}
