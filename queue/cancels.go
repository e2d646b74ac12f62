package queue

import "mailsidecar/queue/dispatch"

// cancels keeps canceled messages out of the line. A claim or an insert leases a
// message when it commits, and only its answer puts the message in line. A cancel in
// between finds nothing to withdraw, and the store cancels what is leased only once
// the lease is given back. So what arrives in memory after that is given back.
//
// The driver's mutex guards it.
type cancels struct {
	underway  map[string]*cancel // by message
	inserting map[string]bool    // messages that are being inserted with a lease, and whether they were canceled
	claiming  bool               // a claim goes on
	claimed   map[string]bool    // messages that were canceled while a claim went on
}

// cancel is the cancels of one message that go on.
type cancel struct {
	n    int
	late []*dispatch.Job // that arrived meanwhile
}

func newCancels() cancels {
	return cancels{underway: map[string]*cancel{}, inserting: map[string]bool{}, claimed: map[string]bool{}}
}

// begin says that the store is about to be told of a cancel. It ends with end.
func (c *cancels) begin(id string) {
	if c.underway[id] == nil {
		c.underway[id] = &cancel{}
	}
	c.underway[id].n++
}

// end says that the store has answered, and returns jobs whose leases must be given
// back.
func (c *cancels) end(id string) []*dispatch.Job {
	one := c.underway[id]
	if one.n--; one.n == 0 {
		delete(c.underway, id)
	}
	if _, ok := c.inserting[id]; ok {
		c.inserting[id] = true
	}
	if c.claiming {
		c.claimed[id] = true
	}
	late := one.late
	one.late = nil
	return late
}

// insert says that a message is being inserted with a lease. It ends with inserted.
func (c *cancels) insert(id string) { c.inserting[id] = false }

// inserted says that the store has answered, and whether the message was canceled
// meanwhile.
func (c *cancels) inserted(id string) (canceled bool) {
	canceled = c.inserting[id]
	delete(c.inserting, id)
	return canceled
}

// claim says that a claim begins. It ends with landed.
func (c *cancels) claim() { c.claiming = true }

// landed says that what a claim has leased is in memory.
func (c *cancels) landed() {
	c.claiming = false
	clear(c.claimed)
}

// arrive says whether a job that arrives in memory may be put in line. Otherwise it is
// added to release, or kept until the cancels of its message have ended.
func (c *cancels) arrive(j *dispatch.Job, canceled bool, release *[]*dispatch.Job) bool {
	one := c.underway[j.ID]
	switch {
	case one != nil:
		one.late = append(one.late, j)
	case canceled:
		j.Value.(*job).canceled = true
		*release = append(*release, j)
	default:
		return true
	}
	return false
}

// each calls f with the jobs that are kept.
func (c *cancels) each(f func(*dispatch.Job)) {
	for _, one := range c.underway {
		for _, j := range one.late {
			f(j)
		}
	}
}
