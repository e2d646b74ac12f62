// Package protocol is the protocol by which several instances share one queue in a
// database, as a state machine without SQL: leases, the mark before content goes out, the
// take-over from an instance that is gone, and commits of which the answer is lost. Its test
// visits every state that two instances with two messages can reach.
//
// # The rules
//
// A lease names the owner, which is one run of one instance and never comes again. An owner
// lives while its row in the table of instances says so, by the database's clock. The row is
// renewed by a beat, and never revived.
//
// An instance trusts itself until the moment at which it sent its last beat, plus the length
// of the lease, less a margin. The database ends the lease later than that.
//
// Insert: the answer to the client waits until the message is where a failover cannot lose
// it. After an unknown commit the instance asks again by a statement that writes: its commit
// waits for the standby, and by that for all that was committed before.
//
// Mark: before content goes out, one statement marks the recipient and checks that the owner
// lives and holds the lease. Without its answer nothing is sent. Then the instance looks at
// its own clock.
//
// Take-over: the row of a dead owner goes first. Then each lease of it ends: what is marked
// gets an uncertain attempt. The statement waits for a mark that is under way, and sees it.
//
// Claim: only an owner that lives gets leases.
//
// Release: what is given back is not sent, from the moment at which that is asked for: the
// answer may be lost, and another one may have it.
//
// Record: an outcome ends the lease with its number, once, however often it is recorded. An
// owner that has lost its lease changes nothing any more, except that it may say
// "delivered".
package protocol

// The size of the world.
const (
	Processes = 2
	Messages  = 2
	runs      = 3 // owners that one process has, one after the other
	owners    = Processes * runs
)

// Owner is one run of a process.
type Owner int8

const nobody Owner = -1

// Row is a message, with its one recipient, in the database.
type Row struct {
	Stored    bool
	Owner     Owner
	Lease     int8 // number of the last lease
	Marked    bool
	Delivered bool
	Uncertain int8 // uncertain attempts that are recorded
	Attempts  int8 // all attempts that are recorded
	Recorded  int8 // number of the last lease whose outcome is recorded
}

// Beat is what the database knows of an owner.
type Beat int8

// An owner without a row is gone. One that has expired has a row that is too old.
const (
	Absent Beat = iota
	Living
	Expired
)

// Database is what a server has.
type Database struct {
	Beats [owners]Beat
	Rows  [Messages]Row
}

// Phase is how far a process is with a message.
type Phase int8

// The phases, in their order.
const (
	Idle      Phase = iota
	Waiting         // the client waits, and nothing was sent to the database
	Asking          // the commit of the insert was not answered
	Leased          // in memory
	Marking         // the statement that marks has seen that the owner lives
	Marked          // the mark was answered
	Checked         // and the own clock says that the lease lasts: the window is open
	Told            // the relay has answered, or its answer was lost
	Releasing       // given back, and nothing else is done with it, though the answer may be lost
)

// Verdict is what came of an attempt.
type Verdict int8

// The verdicts.
const (
	None Verdict = iota
	Accepted
	Refused // for now
	Lost    // the relay may have it
)

// Job is a message in a process.
type Job struct {
	Phase   Phase
	Owner   Owner
	Lease   int8
	Verdict Verdict
}

// Process is one instance.
type Process struct {
	Up        bool
	Suspended bool
	Run       int8 // of runs
	Trusts    bool // its own clock says that its lease lasts
	Beating   bool // a beat was sent, and is not answered
	Renewed   bool // that beat has renewed the lease
	Late      bool // and by now is too old to be trusted
	Stood     bool // its clock stood still while it was suspended, as in a machine that its host pauses
	Jobs      [Messages]Job
}

// State is the whole world.
type State struct {
	Primary, Standby Database
	Processes        [Processes]Process
	Answered         [Messages]bool // the client has its 202
	Sent             [Messages]int8 // how often the relay has accepted it
	// Read is a take-over that has read and not yet written; only a fault has it.
	Read    [Messages]Row
	Reading Owner
	// Trouble is how much more may go wrong.
	Trouble int8
	Refusal int8 // how often a relay may still refuse
	Broken  string
}

// Fault is a rule that is left out, for the test to find.
type Fault int

// The faults.
const (
	Sound             Fault = iota
	AskByReading            // an unknown insert is asked for by a statement that does not write
	BelieveNotice           // success with a notice counts as success
	SendUnmarked            // content goes out without a mark
	MarkAnyway              // the mark does not ask who holds the lease
	MarkUnanswered          // content goes out though the mark was not answered
	ForgetMark              // the take-over does not look at marks
	ReadBeforeWriting       // the take-over does not wait for a mark under way
	TrustAnswer             // the lease is counted from the beat's answer on
	SameOwner               // a restarted process takes its old owner's name
	RecordTwice             // an outcome that is recorded again counts again
	TakeFromLiving          // the take-over does not look at the beat
	KeepDead                // nobody takes over
	ForgetUnknown           // leases of an unanswered claim are not given back
	DropOutcome             // an outcome whose commit was not answered is forgotten
	UseReleased             // what was given back is used where the answer was lost
	Faults
)

// Start is the world with so many messages that clients have just submitted, one to each
// process, in which so much may go wrong.
func Start(messages int, trouble int8) State {
	s := State{Trouble: trouble, Refusal: 1, Reading: nobody}
	for m := range s.Primary.Rows {
		s.Primary.Rows[m].Owner = nobody
	}
	for p := range s.Processes {
		s.Primary.Beats[ownerOf(p, 0)] = Living
		s.Processes[p] = Process{Up: true, Trusts: true}
		if p < messages {
			s.Processes[p].Jobs[p] = Job{Phase: Waiting}
		}
	}
	s.Standby = s.Primary
	return s
}

func ownerOf(p int, run int8) Owner { return Owner(p*runs) + Owner(run) }

func (s *State) owner(p int) Owner { return ownerOf(p, s.Processes[p].Run) }

// Done says that nothing is left to be done.
func (s *State) Done() bool {
	for m := range s.Answered {
		if s.Answered[m] && !s.Primary.Rows[m].Delivered || s.Primary.Rows[m].Stored && !s.Primary.Rows[m].Delivered {
			return false
		}
	}
	return true
}

// Violation says which promise is broken; empty when none is.
func (s *State) Violation() string {
	if s.Broken != "" {
		return s.Broken
	}
	for m := range s.Answered {
		r := &s.Primary.Rows[m]
		switch {
		case s.Answered[m] && (!r.Stored || !s.Standby.Rows[m].Stored):
			return "a message is accepted that a failover loses, or has lost"
		case s.Sent[m] > 1+r.Uncertain:
			return "a message went out twice, and no uncertain attempt says so"
		}
	}
	return ""
}

// Normal returns the state without what makes no difference any more: numbers of leases and
// attempts on a message that no process has. It has the same promises ahead.
func (s State) Normal() State {
	for m := range s.Answered {
		r := s.Primary.Rows[m]
		busy := r != s.Standby.Rows[m] || !r.Stored || r.Owner != nobody || s.Reading != nobody
		for p := range s.Processes {
			busy = busy || s.Processes[p].Jobs[m] != Job{}
		}
		if busy {
			continue
		}
		s.Sent[m] -= r.Uncertain
		if r = (Row{Stored: true, Owner: nobody, Lease: 1, Delivered: r.Delivered}); r.Delivered {
			s.Sent[m] = 1
		}
		s.Primary.Rows[m], s.Standby.Rows[m] = r, r
	}
	return s
}

// answer is how a commit ends for the process.
type answer int8

const (
	yes    answer = iota
	notice        // success, but the wait for the standby was cut short
	lost          // none: the connection is gone
)

// Explorer finds the steps from a state.
type Explorer struct {
	Fault Fault
	state State
	next  func(name string, s State)
}

// Steps calls next with each state that may come next.
func (e *Explorer) Steps(s State, next func(name string, s State)) {
	e.state, e.next = s, next
	for p := range s.Processes {
		e.world(p)
		if q := &s.Processes[p]; !q.Up || q.Suspended {
			continue
		}
		e.beat(p)
		e.takeOver(p)
		for m := range s.Primary.Rows {
			e.message(p, m)
		}
	}
	e.failover()
	for o, b := range s.Primary.Beats {
		if b == Living && !e.trusted(Owner(o)) {
			n := s
			n.Primary.Beats[o], n.Standby.Beats[o] = Expired, expired(n.Standby.Beats[o])
			next("the lease expires", n)
		}
	}
}

func expired(b Beat) Beat {
	if b == Living {
		return Expired
	}
	return b
}

// trusted says that a process still trusts in the owner's lease. Only afterwards does
// the database end it, for the margin is longer than clocks differ within a lease.
func (e *Explorer) trusted(o Owner) bool {
	p := int(o) / runs
	q := &e.state.Processes[p]
	// A process that is suspended does not look at its clock, which runs on.
	return q.Up && !q.Stood && e.state.owner(p) == o && (q.Trusts && !q.Suspended || q.Beating && q.Renewed && !q.Late)
}

// spend returns the state with less trouble ahead, if there is any.
func (e *Explorer) spend() (State, bool) {
	n := e.state
	n.Trouble--
	return n, e.state.Trouble > 0
}

// world is what happens to a process.
func (e *Explorer) world(p int) {
	q := e.state.Processes[p]
	if !q.Up {
		if q.Run+1 < runs || e.Fault == SameOwner {
			n := e.state
			run := q.Run + 1
			if e.Fault == SameOwner {
				run = q.Run
			}
			n.Processes[p] = Process{Up: true, Run: run, Trusts: true}
			n.Primary.Beats[ownerOf(p, run)], n.Standby.Beats[ownerOf(p, run)] = Living, Living
			e.next("restart", n)
		}
		return
	}
	if n, ok := e.spend(); ok {
		n.Processes[p] = Process{Run: q.Run}
		e.next("crash", n)
		if !q.Suspended {
			n.Processes[p] = q
			n.Processes[p].Suspended = true
			e.next("suspend", n)
		}
	}
	if q.Suspended {
		n := e.state
		n.Processes[p].Suspended = false
		if e.state.Primary.Beats[e.state.owner(p)] == Living { // else its clock has gone beyond that
			e.next("resume in time", n)
		}
		n.Processes[p].Stood = true
		e.next("resume with a clock that stood still", n)
		n.Processes[p].Stood = false
		n.Processes[p].Trusts, n.Processes[p].Late = false, q.Beating
		e.next("resume late", n)
		return
	}
	if q.Trusts || q.Beating && !q.Late {
		if n, ok := e.spend(); ok {
			n.Processes[p].Trusts, n.Processes[p].Late = false, q.Beating
			e.next("beats are late", n)
		}
	}
}

// beat renews the lease. A process whose lease is lost goes on as another owner, with what
// it has still to record.
func (e *Explorer) beat(p int) {
	q := e.state.Processes[p]
	o := e.state.owner(p)
	switch {
	case q.Beating && q.Renewed:
		n := e.state
		n.Processes[p].Beating, n.Processes[p].Renewed, n.Processes[p].Late = false, false, false
		n.Processes[p].Trusts = !q.Late || e.Fault == TrustAnswer
		e.next("beat is answered", n)
	case q.Beating:
		if q.Run+1 == runs {
			return
		}
		n := e.state
		jobs := q.Jobs
		for m := range jobs {
			if phase := jobs[m].Phase; phase > Asking && phase != Told {
				jobs[m] = Job{}
			}
		}
		n.Processes[p] = Process{Up: true, Run: q.Run + 1, Trusts: true, Jobs: jobs}
		n.Primary.Beats[ownerOf(p, q.Run+1)], n.Standby.Beats[ownerOf(p, q.Run+1)] = Living, Living
		e.next("beat finds the lease lost", n)
	case !q.Trusts || q.Stood:
		n := e.state
		n.Processes[p].Beating = true
		n.Processes[p].Renewed = n.Primary.Beats[o] == Living
		if n.Processes[p].Renewed {
			n.Processes[p].Stood = false
			n.Primary.Beats[o] = Living
			n.Standby = n.Primary
		}
		e.next("beat", n)
	}
}

// takeOver ends the leases of owners that are gone.
func (e *Explorer) takeOver(p int) {
	if e.Fault == KeepDead {
		return
	}
	for o := range Owner(owners) {
		gone := e.state.Primary.Beats[o] != Living || e.Fault == TakeFromLiving
		has := false
		for _, r := range e.state.Primary.Rows {
			has = has || r.Owner == o
		}
		if o == e.state.owner(p) || !gone || !has {
			continue
		}
		if e.Fault == ReadBeforeWriting && e.state.Reading != o {
			n := e.state
			n.Read, n.Reading = n.Primary.Rows, o
			e.next("take-over reads", n)
			continue
		}
		e.commit("take-over", func(db *Database) bool {
			db.Beats[o] = Absent
			for m := range db.Rows {
				r := &db.Rows[m]
				if r.Owner != o {
					continue
				}
				marked := r.Marked && e.Fault != ForgetMark
				if e.Fault == ReadBeforeWriting {
					marked = e.state.Read[m].Marked
				}
				if marked {
					r.Uncertain++
					r.Attempts++
				}
				r.Owner, r.Marked = nobody, false
			}
			return true
		}, func(s *State, _ answer, _ bool) { s.Read, s.Reading = [Messages]Row{}, nobody })
	}
}

// commit is a transaction. Its answer may be lost whether or not it has happened, and where
// it has happened the standby may not have it.
func (e *Explorer) commit(name string, change func(*Database) bool, then func(*State, answer, bool)) {
	n := e.state
	did := change(&n.Primary)
	n.Standby = n.Primary
	then(&n, yes, did)
	e.next(name, n)
	n, ok := e.spend()
	if !ok {
		return
	}
	then(&n, lost, false)
	e.next(name+", not done, no answer", n)
	n, _ = e.spend()
	did = change(&n.Primary)
	then(&n, lost, did)
	e.next(name+", done here, no answer", n)
	n, _ = e.spend()
	did = change(&n.Primary)
	a := notice
	if e.Fault == BelieveNotice {
		a = yes
	}
	then(&n, a, did)
	e.next(name+", done here, with a notice", n)
}

// failover makes the standby the primary.
func (e *Explorer) failover() {
	if n, ok := e.spend(); ok && n.Primary != n.Standby {
		n.Primary = n.Standby
		e.next("failover", n)
	}
}

// message is what a process does with a message.
func (e *Explorer) message(p, m int) {
	j := e.state.Processes[p].Jobs[m]
	switch j.Phase {
	case Idle:
		e.claim(p, m)
		e.giveBack(p, m)
	case Waiting, Asking:
		e.insert(p, m, j)
	case Leased:
		if e.state.Processes[p].Trusts {
			e.beginMark(p, m)
		}
	case Marking:
		e.mark(p, m)
	case Marked:
		n := e.state
		if !n.Processes[p].Trusts {
			n.Processes[p].Jobs[m].Phase = Releasing
			e.next("the own clock says no", n)
			return
		}
		if n.Primary.Beats[j.Owner] != Living && !n.Processes[p].Stood {
			n.Broken = "an owner whose lease has ended passes the look at its own clock"
		}
		n.Processes[p].Jobs[m].Phase = Checked
		e.next("look at the own clock", n)
	case Checked:
		e.send(p, m)
	case Told:
		e.record(p, m)
	case Releasing:
		e.release(p, m)
	}
}

// insert stores the message, leased to the process that has it.
func (e *Explorer) insert(p, m int, j Job) {
	o := e.state.owner(p)
	answered := func(s *State) {
		s.Answered[m] = true
		s.Processes[p].Jobs[m] = Job{}
		if r := &s.Primary.Rows[m]; r.Owner == o && !r.Delivered {
			s.Processes[p].Jobs[m] = Job{Phase: Leased, Owner: o, Lease: r.Lease}
		}
	}
	if j.Phase == Asking && e.Fault == AskByReading && e.state.Primary.Rows[m].Stored {
		n := e.state
		answered(&n)
		e.next("ask by reading", n)
		return
	}
	e.commit("insert, if it is not there", func(db *Database) bool {
		if r := &db.Rows[m]; !r.Stored {
			*r = Row{Stored: true, Owner: o, Lease: 1}
		}
		return true
	}, func(s *State, a answer, _ bool) {
		if s.Processes[p].Jobs[m].Phase = Asking; a == yes {
			answered(s)
		}
	})
}

func (e *Explorer) claim(p, m int) {
	r := e.state.Primary.Rows[m]
	if !r.Stored || r.Owner != nobody || r.Delivered || !e.state.Processes[p].Trusts {
		return
	}
	o := e.state.owner(p)
	if e.state.Primary.Beats[o] != Living {
		return
	}
	e.commit("claim", func(db *Database) bool {
		db.Rows[m].Owner, db.Rows[m].Marked = o, false
		db.Rows[m].Lease++
		return true
	}, func(s *State, a answer, _ bool) {
		if a == yes {
			s.Processes[p].Jobs[m] = Job{Phase: Leased, Owner: o, Lease: s.Primary.Rows[m].Lease}
		}
	})
}

// giveBack ends a lease that the process knows nothing of: its claim was not answered.
func (e *Explorer) giveBack(p, m int) {
	o := e.state.owner(p)
	if e.state.Primary.Rows[m].Owner != o || e.Fault == ForgetUnknown || e.Fault == SameOwner {
		return
	}
	e.commit("give back what is unknown", func(db *Database) bool {
		db.Rows[m].Owner, db.Rows[m].Marked = nobody, false
		return true
	}, func(*State, answer, bool) {})
}

func (e *Explorer) release(p, m int) {
	j := e.state.Processes[p].Jobs[m]
	e.commit("release", func(db *Database) bool {
		if r := &db.Rows[m]; r.Owner == j.Owner && r.Lease == j.Lease {
			r.Owner, r.Marked = nobody, false
		}
		return true
	}, func(s *State, a answer, _ bool) {
		switch {
		case a == yes:
			s.Processes[p].Jobs[m] = Job{}
		case e.Fault == UseReleased:
			s.Processes[p].Jobs[m].Phase = Marked
		}
	})
}

// beginMark is the part of the mark that looks whether the owner lives. What it has seen may
// be different by the time the statement has the recipient's row.
func (e *Explorer) beginMark(p, m int) {
	j := e.state.Processes[p].Jobs[m]
	n := e.state
	switch {
	case e.Fault == SendUnmarked:
		n.Processes[p].Jobs[m].Phase = Marked
		e.next("no mark", n)
	case n.Primary.Beats[j.Owner] != Living && e.Fault != MarkAnyway:
		n.Processes[p].Jobs[m] = Job{}
		e.next("mark finds the lease lost", n)
	default:
		n.Processes[p].Jobs[m].Phase = Marking
		e.next("mark begins", n)
	}
}

// mark is the fence: it waits for a take-over that has the recipient's row, and is waited for.
func (e *Explorer) mark(p, m int) {
	j := e.state.Processes[p].Jobs[m]
	e.commit("mark", func(db *Database) bool {
		r := &db.Rows[m]
		if !r.Stored || (r.Owner != j.Owner || r.Lease != j.Lease) && e.Fault != MarkAnyway {
			return false
		}
		r.Marked = true
		return true
	}, func(s *State, a answer, did bool) {
		s.Processes[p].Jobs[m].Phase = Leased
		switch {
		case a == yes && did || a == lost && e.Fault == MarkUnanswered:
			s.Processes[p].Jobs[m].Phase = Marked
		case a == yes: // the lease is lost
			s.Processes[p].Jobs[m] = Job{}
		}
	})
}

// send hands the content to the relay. What the process knows of the lease is as old as the
// look at its clock.
func (e *Explorer) send(p, m int) {
	for _, v := range []Verdict{Accepted, Refused, Lost} {
		n := e.state
		switch v {
		case Refused:
			if n.Refusal == 0 {
				continue
			}
			n.Refusal--
		case Lost:
			var ok bool
			if n, ok = e.spend(); !ok {
				continue
			}
			n.Sent[m]++
		default:
			n.Sent[m]++
		}
		n.Processes[p].Jobs[m].Phase, n.Processes[p].Jobs[m].Verdict = Told, v
		if n.Sent[m] > 1+n.Primary.Rows[m].Uncertain {
			// The one that went out first may not have been recorded yet: it counts when this
			// is not its doing.
			n.Broken = "a message goes out twice, and no uncertain attempt says so"
		}
		e.next("send", n)
	}
}

func (e *Explorer) record(p, m int) {
	j := e.state.Processes[p].Jobs[m]
	e.commit("record", func(db *Database) bool {
		r := &db.Rows[m]
		if r.Recorded >= j.Lease && e.Fault != RecordTwice {
			return true
		}
		holds := r.Owner == j.Owner && r.Lease == j.Lease
		r.Recorded = max(r.Recorded, j.Lease)
		r.Attempts++
		if j.Verdict == Lost {
			r.Uncertain++
		}
		if j.Verdict == Accepted {
			r.Delivered = true
		}
		if holds || j.Verdict == Accepted {
			r.Owner, r.Marked = nobody, false
		}
		if r.Attempts > r.Lease+r.Uncertain {
			r.Attempts = -1
		}
		return true
	}, func(s *State, a answer, _ bool) {
		if s.Primary.Rows[m].Attempts < 0 {
			s.Broken = "one attempt is recorded twice"
		}
		if a == yes || e.Fault == DropOutcome {
			s.Processes[p].Jobs[m] = Job{}
		}
	})
}
