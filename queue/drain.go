package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrDraining: an operator lets the queue run empty, and nothing new is accepted.
var ErrDraining = errors.New("draining")

// Backlog counts recipients that are not final.
type Backlog struct {
	Due   int64     // are due, or being tried
	Later int64     // are due later
	Next  time.Time // when the first of these is; zero where there is none
	Held  int64     // messages that wait for a person
}

// Drain is how far an operator's drain is.
type Drain struct {
	Since time.Time // zero: new mail is accepted
	// Ended is when a person ended the last one of this run; zero where none did.
	Ended time.Time
	Left  Backlog
}

// drain lets nothing new in while an operator wants that. It does not survive a restart: a
// forgotten one would refuse mail for as long as nobody looks.
type drain struct {
	log *slog.Logger
	now func() time.Time

	mu          sync.Mutex
	begun, told time.Time // zero: it is not drained
	ended       time.Time
}

func newDrain(log *slog.Logger, now func() time.Time) *drain { return &drain{log: log, now: now} }

// begin drains; it does nothing where that goes on already.
func (d *drain) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun.IsZero() {
		return
	}
	d.begun = d.now()
	d.tell()
}

// tell logs a drain. The caller holds mu.
func (d *drain) tell() {
	d.told = d.now()
	d.log.Warn("draining: new mail is refused", "since", d.begun)
}

// look is called now and then, and logs again every hour that it lasts.
func (d *drain) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun.IsZero() && d.now().Sub(d.told).Abs() >= manualInterval {
		d.tell()
	}
}

func (d *drain) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun.IsZero() {
		return
	}
	d.begun, d.ended = time.Time{}, d.now()
	d.log.Info("drain ended: new mail is accepted")
}

// state is how it is, and left what there is to be done.
func (d *drain) state(left Backlog) Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Drain{Since: d.begun, Ended: d.ended, Left: left}
}

// since is when it began; zero when it is not drained.
func (d *drain) since() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}

// refuses is the error for new mail; nil where that is accepted.
func (d *drain) refuses() error {
	if d.since().IsZero() {
		return nil
	}
	return ErrDraining
}

// Drain refuses new mail with [ErrDraining] from now on, and delivers what is here, until
// [Durable.EndDrain] or the end of the process.
func (d *Durable) Drain() {
	d.intake.mu.Lock() // what was admitted before is counted by now
	defer d.intake.mu.Unlock()
	d.intake.drain.begin()
}

// EndDrain lets new mail in again.
func (d *Durable) EndDrain() { d.intake.drain.end() }

// Drained says how far a drain is. Its cost grows with the recipients that wait.
func (d *Durable) Drained(ctx context.Context) (Drain, error) {
	storing := d.account.storing().Messages // what was let in before, and is not counted below
	left, err := d.store.Backlog(ctx, d.now())
	left.Due += storing
	return d.intake.drain.state(left), err
}
