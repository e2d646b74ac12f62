package queue

import (
	"slices"
	"sync"
	"time"
)

// Trouble is what an operator should know of a queue, and [Stats] do not tell.
type Trouble struct {
	// Refused is when new mail was refused for the last time because there was no room or
	// because the store is faulty, and RefusedFor why. Zero: never by this run.
	Refused    time.Time
	RefusedFor error
	// Blamed are messages that this run has held because of crashes: the first ones, see
	// [MaxBlamed].
	Blamed []string
}

// MaxBlamed limits [Trouble.Blamed].
const MaxBlamed = 10

// trouble gathers it.
type trouble struct {
	mu  sync.Mutex
	now Trouble
}

func (t *trouble) refuse(at time.Time, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Refused, t.now.RefusedFor = at, why
}

func (t *trouble) blame(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.now.Blamed) < MaxBlamed {
		t.now.Blamed = append(t.now.Blamed, id)
	}
}

// Trouble returns what is known at this moment.
func (d *Durable) Trouble() Trouble {
	d.trouble.mu.Lock()
	defer d.trouble.mu.Unlock()
	t := d.trouble.now
	t.Blamed = slices.Clone(t.Blamed)
	return t
}
