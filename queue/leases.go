package queue

import (
	"context"
	"time"

	"mailsidecar/queue/dispatch"
)

// leaseKey names a lease.
type leaseKey struct {
	id     string // of the message
	number int64
}

// doubtLeases has leases compared soon: a call of the store failed that may have leased
// or changed something all the same.
func (dr *driver) doubtLeases() {
	dr.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
		dr.leasesDoubtful = true
		d.LookAt(now.Add(lostAnswer))
		return dispatch.Orders{}
	})
}

// lostAnswer is when leases are compared after a failure. They are compared every
// minute anyway.
const lostAnswer = 5 * time.Second

// compareLeases gives back the leases that the store has given to this instance and
// that are unknown here: the answer was an error. The goroutine that claims calls it,
// so that no claim goes on.
func (dr *driver) compareLeases(ctx context.Context) {
	dr.ask(func(*dispatch.Dispatcher, time.Time) { dr.leasesDoubtful = false })
	owner := dr.owner.now()
	leases, err := dr.store.Leases(ctx, owner)
	if unknown := dr.unknown(leases); err == nil && len(unknown) > 0 {
		dr.log.Warn("leases given back whose commit was answered with an error", "messages", len(unknown))
		dr.account.begin()
		err = dr.store.Release(ctx, owner, dr.now(), unknown)
		dr.account.end(Usage{}, false)
		dr.look()
	}
	if err != nil && ctx.Err() == nil {
		dr.log.Error("compare leases with queue store", "error", err)
		dr.doubtLeases()
	}
}

// unknown returns the leases that no part of the queue has. A lease moves from insert
// to dispatcher to recorder, so they are asked in this order. One that ends meanwhile is
// among them: to give it back again does nothing, for its number does not come again.
func (dr *driver) unknown(leases []Lease) []Lease {
	if len(leases) == 0 {
		return nil
	}
	known := map[leaseKey]bool{}
	know := func(j *dispatch.Job) { known[leaseKey{j.ID, j.Value.(*job).Lease}] = true }
	dr.ask(func(d *dispatch.Dispatcher, _ time.Time) {
		for id := range dr.cancels.inserting {
			known[leaseKey{id, FirstLease}] = true
		}
		dr.cancels.each(know)
		d.Each(know)
	})
	dr.recorder.each(func(k leaseKey) { known[k] = true })
	var unknown []Lease
	for _, l := range leases {
		if !known[leaseKey{l.ID, l.Number}] {
			unknown = append(unknown, l)
		}
	}
	return unknown
}
