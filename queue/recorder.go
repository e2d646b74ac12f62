package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"mailsidecar/queue/dispatch"
)

// recorder records outcomes beside the workers, so that a worker goes on with the
// next message while the last one's outcome is being committed. An outcome that
// cannot be written is kept and written later: a delivered message must not be
// sent twice because the disk was full for a while.
type recorder struct {
	shared
	driver *driver
	wake   chan struct{} // capacity 1: there is something to write

	mu      sync.Mutex
	pending []pendingOutcome
	leased  []*dispatch.Job // whose leases are to be given back
	hurry   bool            // the service stops, and waits for each write
	idle    *sync.Cond
	lastErr error
}

// pendingOutcome is an outcome that is not stored yet, of a job.
type pendingOutcome struct {
	Outcome
	job *job
}

func newRecorder(s shared) *recorder {
	r := &recorder{shared: s, wake: make(chan struct{}, 1)}
	r.idle = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) record(o Outcome, j *job) {
	r.mu.Lock()
	r.pending = append(r.pending, pendingOutcome{o, j})
	r.mu.Unlock()
	r.poke()
}

// release gives back the leases of jobs. Their contents are in the store only,
// from now on.
func (r *recorder) release(jobs []*dispatch.Job) {
	if len(jobs) == 0 {
		return
	}
	for _, j := range jobs {
		j.Value.(*job).content = nil
	}
	r.mu.Lock()
	r.leased = append(r.leased, jobs...)
	r.mu.Unlock()
	r.poke()
}

func (r *recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends. Then it has been drained, or given up.
func (r *recorder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for ctx.Err() == nil && r.write(ctx) {
			if err := r.failure(); err != nil && !sleep(ctx, recorderRetry) {
				return
			}
		}
	}
}

// recorderRetry is how long the recorder waits after the store failed.
const recorderRetry = time.Second

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

// recorderStep is how many outcomes and leases one commit takes: new mail waits for it.
const recorderStep = 500

// write writes what there is, up to a step of it, and says whether there was anything.
func (r *recorder) write(ctx context.Context) bool {
	r.mu.Lock()
	outcomes, leased, hurry := r.pending, r.leased, r.hurry
	outcomes, leased = outcomes[:min(len(outcomes), recorderStep)], leased[:min(len(leased), recorderStep)]
	r.mu.Unlock()
	if len(outcomes)+len(leased) == 0 {
		return false
	}
	recorded, released, err := r.commit(ctx, outcomes, leased, hurry)
	r.mu.Lock()
	r.pending, r.leased = rest(r.pending, recorded), rest(r.leased, released)
	was := r.lastErr
	if err == nil || ctx.Err() == nil { // the end of ctx is no fault of the store
		r.lastErr = err
	}
	r.idle.Broadcast()
	r.mu.Unlock()
	r.tellDriver(was, err)
	return true
}

// rest drops the first n of a list.
func rest[E any](list []E, n int) []E {
	if n == len(list) {
		return nil
	}
	return list[n:]
}

// commit writes, and returns how many outcomes and leases it wrote. After an error it
// is unknown whether the others were: to write them again does no harm.
func (r *recorder) commit(ctx context.Context, outcomes []pendingOutcome, leased []*dispatch.Job, hurry bool) (recorded, released int, err error) {
	if len(outcomes) > 0 {
		r.account.begin()
		settled, err := r.store.Record(ctx, r.batch(outcomes, hurry))
		r.account.end(Usage{}.minus(settled), err == nil)
		if err != nil {
			return 0, 0, err
		}
		r.afterRecord(ctx, outcomes)
	}
	if len(leased) > 0 {
		// As a rule they have one owner.
		n := slices.IndexFunc(leased, func(j *dispatch.Job) bool { return ownerOf(j) != ownerOf(leased[0]) })
		if n > 0 {
			leased = leased[:n]
		}
		leases := make([]Lease, len(leased))
		for i, j := range leased {
			leases[i] = lease(j)
		}
		r.account.begin()
		err := r.store.Release(ctx, ownerOf(leased[0]), r.now(), leases)
		r.account.end(Usage{}, false) // canceled messages became final
		if err != nil {
			return len(outcomes), 0, err
		}
		for _, j := range leased {
			r.waiters.wake(j.ID)
		}
		r.driver.released(leased)
		r.logReleased(ctx, leased)
	}
	return len(outcomes), len(leased), nil
}

func ownerOf(j *dispatch.Job) string { return j.Value.(*job).owner }

// has says whether an outcome or a lease of the owner is to be written.
func (r *recorder) has(owner string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.pending, func(o pendingOutcome) bool { return o.Owner == owner }) ||
		slices.ContainsFunc(r.leased, func(j *dispatch.Job) bool { return ownerOf(j) == owner })
}

// each calls f with each lease that an outcome ends, or that is to be given back.
func (r *recorder) each(f func(leaseKey)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.pending {
		f(leaseKey{o.ID, o.Lease})
	}
	for _, j := range r.leased {
		f(leaseKey{j.ID, j.Value.(*job).Lease})
	}
}

// batch returns the outcomes as the store takes them.
func (r *recorder) batch(outcomes []pendingOutcome, hurry bool) []Outcome {
	batch := make([]Outcome, len(outcomes))
	for i, o := range outcomes {
		batch[i] = o.Outcome
		batch[i].Awaited = hurry || r.waiters.waited(o.ID)
	}
	return batch
}

// afterRecord does what follows on outcomes once they are durable.
func (r *recorder) afterRecord(ctx context.Context, outcomes []pendingOutcome) {
	for _, o := range outcomes { // before anybody is told: who reads the numbers then finds it there
		r.opts.Meter.Tried(o.Attempts)
		countEnded(r.opts.Meter, o)
	}
	for _, o := range outcomes {
		r.waiters.wake(o.ID)
	}
	r.driver.recorded(outcomes)
	r.hints.tried(outcomes)
	jobs := make([]*job, len(outcomes))
	for i, o := range outcomes {
		jobs[i] = o.job
	}
	canceled := r.driver.canceled(jobs)
	for _, o := range outcomes {
		if canceled[o.job] {
			o.Changes = r.canceledChanges(ctx, o)
		}
		o.Changes = r.driver.paused(o)
		r.logOutcome(o)
	}
}

// tellDriver stops and resumes deliveries as outcomes cannot or can be recorded.
func (r *recorder) tellDriver(was, err error) {
	switch {
	case err != nil && was == nil:
		r.driver.stuck(true)
		r.log.Error("outcomes cannot be stored: deliveries stop until they can", "error", err)
	case err == nil && was != nil:
		r.driver.stuck(false)
		r.log.Info("outcomes can be stored again")
	}
}

func (r *recorder) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastErr
}

// drain waits until everything is written; after timeout it gives up.
func (r *recorder) drain(timeout time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := false
	t := time.AfterFunc(timeout, func() {
		r.mu.Lock()
		late = true
		r.mu.Unlock()
		r.idle.Broadcast()
	})
	defer t.Stop()
	for !late && len(r.pending)+len(r.leased) > 0 {
		r.idle.Wait()
	}
}

// waitedFor says that from now on each outcome is waited for.
func (r *recorder) waitedFor() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hurry = true
}

// unwritten is the error of what was given up; nil when everything is written.
func (r *recorder) unwritten() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.pending) + len(r.leased)
	if n == 0 {
		return nil
	}
	return fmt.Errorf("queue: the outcomes of %d messages could not be stored and count as uncertain: %w", n,
		cmp.Or(r.lastErr, context.DeadlineExceeded))
}
