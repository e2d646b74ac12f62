package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"mailsidecar/sim/chance"
)

// Kind is what an action does.
type Kind string

// The actions.
const (
	Submit    Kind = "submit"     // a message, or a batch
	Repeat    Kind = "repeat"     // the same request once more, with its Idempotency-Key
	Other     Kind = "other body" // another request with that Idempotency-Key
	Cancel    Kind = "cancel"
	Retry     Kind = "retry"
	RetryAll  Kind = "retry all"  // of a key
	CancelAll Kind = "cancel all" // of a key, or of a sender of it
	Resend    Kind = "resend"     // a message to another address
	Move      Kind = "move"       // what waits for its send_at to another time
	Look      Kind = "look"       // at a message
	Pause     Kind = "pause"      // a relay, as an operator does
	Drain     Kind = "drain"      // accept nothing new, for a while
	Stop      Kind = "stop"       // in order, and start again
	Crash     Kind = "crash"      // and start again
	DiskFull  Kind = "disk full"  // for a while
	FailStore Kind = "fail"       // commits, for a while
	SetClock  Kind = "set clock"  // forward or back

	// Of one of several instances.
	Suspend   Kind = "suspend"    // time stands still for it, as with SIGSTOP
	CutOff    Kind = "cut off"    // it does not reach the database
	LoseBeats Kind = "lose beats" // only its heartbeats are lost
	Hang      Kind = "hang"       // the database answers nobody
)

// Action is one thing that is done to the service.
type Action struct {
	ID   int
	At   time.Duration // since the beginning
	Kind Kind
	Of   int // the ID of the Submit that it is about; else 0
	// For is how long it lasts, or by how much the clock is set.
	For      time.Duration
	Instance int `json:",omitzero"` // that it is done to, or at
}

// String is the action in one line.
func (a Action) String() string {
	s := fmt.Sprintf("%16v  %d %s", a.At, a.ID, a.Kind)
	if a.Of != 0 {
		s += fmt.Sprintf(" of %d", a.Of)
	}
	if a.Instance != 0 {
		s += fmt.Sprintf(" at %d", a.Instance)
	}
	if a.For != 0 {
		s += fmt.Sprintf(" for %v", a.For)
	}
	return s
}

// history draws the actions, in bursts.
func (w *World) history() []Action {
	c := w.chance.Of("history")
	bursts, spread := 1+c.Of("bursts").Below(6), chance.Pick(c.Of("spread"), 50*time.Millisecond, 2*time.Second, 20*time.Second, 3*time.Minute)
	kinds := w.kinds()
	var actions, submits []Action
	for id := 1; id <= chance.Pick(c.Of("count"), 15, 40, 60, 90); id++ {
		at := c.N(id)
		a := Action{ID: id, Kind: kinds[at.Of("kind").Below(len(kinds))]}
		a.At = c.Of("burst").N(at.Of("which").Below(bursts)).Between(0, w.Length) + at.Of("at").Between(0, spread)
		switch a.Kind {
		default:
		case Repeat, Other, Cancel, Retry, Look, Move, Resend:
			if len(submits) == 0 {
				a.Kind = Submit
				break
			}
			of := submits[at.Of("of").Below(len(submits))]
			a.Of, a.At = of.ID, of.At+at.Of("after").Between(0, chance.Pick(at.Of("soon"), 3*time.Millisecond, 50*time.Millisecond, 3*time.Second, 5*time.Minute, w.longAfter()))
			if a.Kind == Look && at.Of("late").Happens(0.3) { // shortly before it expires
				life := min(chance.Pick(at.Of("life"), time.Minute, 10*time.Minute, 20*time.Minute, 2*time.Hour, 6*time.Hour), w.longAfter()+time.Minute)
				a.At = of.At + life - at.Of("before").Between(11*time.Second, min(life/2, 9*time.Minute))
			}
		case Stop, Crash:
			a.For = at.Of("down").Between(time.Millisecond, chance.Pick(at.Of("long"), 5*time.Millisecond, 3*time.Second, 2*time.Minute))
			if len(submits) > 0 && at.Of("aimed").Happens(0.7) { // many of what goes wrong is near a commit
				of := submits[at.Of("of").Below(len(submits))]
				a.At = of.At + at.Of("after").Between(0, chance.Pick(at.Of("soon"), 2*time.Millisecond, 10*time.Millisecond, time.Second))
			}
		case Pause, Drain:
			a.For = at.Of("for").Between(time.Millisecond, chance.Pick(at.Of("long"), time.Second, time.Minute, 20*time.Minute))
			w.aimAround(&a, at, submits, min(a.For, time.Minute))
		case DiskFull, FailStore:
			a.For = at.Of("for").Between(10*time.Millisecond, chance.Pick(at.Of("long"), 100*time.Millisecond, 10*time.Second, 10*time.Minute))
		case Suspend, LoseBeats:
			a.For = at.Of("for").Between(time.Second, chance.Pick(at.Of("long"), w.Lease/2, 2*w.Lease, 2*w.Lease, 5*w.Lease))
			w.aimAround(&a, at, submits, w.Lease)
		case CutOff:
			a.For = at.Of("for").Between(time.Millisecond, chance.Pick(at.Of("long"), 100*time.Millisecond, w.Lease/2, 2*w.Lease, 5*w.Lease))
		case Hang:
			a.For = at.Of("for").Between(10*time.Millisecond, chance.Pick(at.Of("long"), time.Second, 20*time.Second, 2*w.Lease))
		case SetClock:
			a.For = chance.Pick(at.Of("by"), time.Minute, 10*time.Minute, 3*time.Hour, -time.Minute, -10*time.Minute, -3*time.Hour)
		}
		if w.shared() {
			a.Instance = at.Of("instance").Below(w.Instances)
		}
		if a.Kind == Submit {
			submits = append(submits, a)
		}
		actions = append(actions, a)
	}
	slices.SortStableFunc(actions, func(a, b Action) int { return cmp.Compare(a.At, b.At) })
	return actions
}

// aimAround lets what instances do to each other happen around a submit, and begin at most so long
// before it: mail that is under way meanwhile is what may go wrong.
func (w *World) aimAround(a *Action, at chance.Chance, submits []Action, before time.Duration) {
	if !w.shared() || len(submits) == 0 || !at.Of("aimed").Happens(0.7) {
		return
	}
	of := submits[at.Of("of").Below(len(submits))]
	a.At = max(0, of.At+at.Of("around").Between(-before, time.Second))
}

// longAfter is how long after a submit something is done to it at most. Instances look at their store
// each second, so an hour costs them as much as a day costs one alone.
func (w *World) longAfter() time.Duration {
	if w.shared() {
		return 20 * time.Minute
	}
	return 5 * time.Hour
}

// kinds are the kinds of actions, each as often as it shall happen.
func (w *World) kinds() []Kind {
	var kinds []Kind
	add := func(n int, k Kind) {
		for range n {
			kinds = append(kinds, k)
		}
	}
	add(50, Submit)
	add(5, Repeat)
	add(2, Other)
	add(9, Cancel)
	add(5, Retry)
	add(1, RetryAll)
	add(8, Look)
	add(3, Move)
	if w.chance.Of("stops").Happens(0.5) {
		add(3, Stop)
	}
	if w.shared() {
		add(10, Repeat)
		add(4, Cancel)
	}
	if w.chance.Of("resends").Happens(0.5) {
		add(4, Resend)
	}
	if w.chance.Of("cancels").Happens(0.3) {
		add(1, CancelAll)
	}
	if w.shared() && w.chance.Of("pauses").Happens(0.5) {
		add(8, Pause)
	}
	if w.Calm {
		return kinds
	}
	if w.shared() {
		if w.chance.Of("suspends").Happens(0.5) {
			add(4, Suspend)
		}
		if w.chance.Of("cuts").Happens(0.5) {
			add(4, CutOff)
			add(2, LoseBeats)
		}
		if w.chance.Of("hangs").Happens(0.4) {
			add(2, Hang)
		}
	}
	if w.chance.Of("operator").Happens(0.3) {
		add(3, Pause)
		add(1, Drain)
	}
	if w.chance.Of("crashes").Happens(0.5) {
		add(4, Crash)
	}
	if w.chance.Of("disk").Happens(0.3) {
		add(2, DiskFull)
	}
	if w.FailingStore > 0 {
		add(4, FailStore)
	}
	if w.Steps {
		add(2, SetClock)
	}
	return kinds
}
