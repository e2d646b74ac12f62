package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// run is what one start of the service does to the store.
type run struct {
	t     *testing.T
	s     queue.Store
	owner string
	now   time.Time
}

// begin returns the run that begins at now, and what it recovers.
func begin(t *testing.T, s queue.Store, owner string, now time.Time) (*run, queue.Recovered) {
	t.Helper()
	r, err := s.Recover(t.Context(), owner, now, false)
	if err != nil {
		t.Fatalf("Recover = %v", err)
	}
	return &run{t, s, owner, now}, r
}

// claim leases up to limit messages.
func (r *run) claim(limit int) []queue.Work {
	r.t.Helper()
	return claimFor(r.t, r.s, r.owner, r.now, limit)
}

// wantClaim leases all that is due, which must be these, and so suspect.
func (r *run) wantClaim(suspect bool, entries ...queue.Entry) {
	r.t.Helper()
	got, want := map[string]bool{}, map[string]bool{}
	for _, w := range r.claim(100) {
		got[w.ID] = w.Suspect
	}
	for _, e := range entries {
		want[e.Message.ID] = suspect
	}
	wantDiff(r.t, "messages claimed, and whether they are suspect", got, want)
}

func (r *run) markAlone(e queue.Entry) { r.setAlone(e, true) }

func (r *run) setAlone(e queue.Entry, alone bool) {
	r.t.Helper()
	if err := r.s.MarkAlone(r.t.Context(), r.owner, e.Message.ID, alone); err != nil {
		r.t.Fatalf("MarkAlone = %v", err)
	}
}

// record records an attempt that ends like that; what it defers is due at once.
func (r *run) record(e queue.Entry, f *mailer.Failure) {
	r.t.Helper()
	o := queue.Outcome{ID: e.Message.ID, Owner: r.owner, At: r.now}
	a := mailer.Attempt{Started: r.now}
	for _, path := range e.Message.Envelope.ForwardPaths {
		c := queue.Change{ForwardPath: path, State: queue.Deferred, Next: r.now}
		if f == nil {
			c.State = queue.Delivered
		}
		o.Changes = append(o.Changes, c)
		a.Results = append(a.Results, mailer.Result{ForwardPath: path, Failure: f})
	}
	o.Attempts = []mailer.Attempt{a}
	record(r.t, r.s, o)
}

func (r *run) end() {
	r.t.Helper()
	if err := r.s.End(r.t.Context(), r.owner); err != nil {
		r.t.Fatalf("End = %v", err)
	}
}

// testCrashes: a run crashes that does not end in order, and a crash counts for so
// long.
func testCrashes(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	minutes := func(n int) time.Time { return Start.Add(time.Duration(n) * time.Minute) }
	tests := []struct {
		at    time.Time
		ends  bool
		want  int
		again int // what a second Recover of the run tells
	}{
		{minutes(0), true, 0, 0},
		{minutes(1), false, 0, 0},
		{minutes(2), false, 1, 0},
		{minutes(3), true, 2, 0},
		{minutes(4), false, 2, 0},
		{minutes(11), false, 3, 0},
		{minutes(13), true, 2, 0},
		{minutes(20), true, 2, 0},
		{minutes(40), false, 0, 0},
		{minutes(41), true, 1, 0},
		{minutes(-60), true, 0, 0}, // the clock was set back
	}
	for i, c := range tests {
		s = reopen(s)
		r, recovered := begin(t, s, fmt.Sprint("run", i), c.at)
		if recovered.Crashes != c.want {
			t.Errorf("run %d: crashes = %d, want %d", i, recovered.Crashes, c.want)
		}
		if _, recovered = begin(t, s, r.owner, c.at); recovered.Crashes != c.again {
			t.Errorf("run %d: crashes told again = %d, want %d", i, recovered.Crashes, c.again)
		}
		if c.ends {
			r.end()
		}
	}
}

// testSuspects: from the second crash on what the last run had leased is suspect,
// and nothing else, until it has been tried.
func testSuspects(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	waits, leased, fresh := entry(time.Hour, "a@example.org"), entry(0, "a@example.org"), entry(0, "a@example.org")
	insert(t, s, waits, leased)
	one, _ := begin(t, s, "one", Start)
	one.wantClaim(false, leased)

	s = reopen(s)
	two, recovered := begin(t, s, "two", Start.Add(time.Minute))
	wantDiff(t, "Recover after a crash", recovered, queue.Recovered{Uncertain: 1, Crashes: 1})
	two.wantClaim(false, leased)

	s = reopen(s)
	insert(t, s, fresh)
	three, recovered := begin(t, s, "three", Start.Add(2*time.Minute))
	wantDiff(t, "Recover after another crash", recovered, queue.Recovered{Uncertain: 1, Crashes: 2, Suspects: 1})
	for _, w := range three.claim(100) {
		if w.Suspect != (w.ID == leased.Message.ID) {
			t.Errorf("suspect = %v, want the message that was leased", w.Suspect)
		}
	}
	three.record(fresh, nil)

	// What says nothing of the message ends no suspicion.
	lease := []queue.Lease{{ID: leased.Message.ID, Route: "relay", ForwardPaths: []string{"a@example.org"}}}
	if err := s.Release(t.Context(), "three", three.now, lease); err != nil {
		t.Fatal(err)
	}
	three.wantClaim(true, leased)
	three.record(leased, &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect})
	three.wantClaim(true, leased)
	three.record(leased, &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageRcpt})
	three.wantClaim(false, leased)
	three.record(leased, nil)
	three.now = Start.Add(time.Hour)
	three.wantClaim(false, waits)
}

// refusedSender is a failure that says that the message did no harm.
var refusedSender = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail}

// testBlame: a message that is alone in hand at two crashes is held, whatever else
// was leased or waited then.
func testBlame(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	bad, good := entry(0, "a@example.org", "b@example.org"), entry(0, "a@example.org")
	insert(t, s, bad, good)
	blame := []queue.Blame{{ID: bad.Message.ID, ReversePath: "bounce@example.com", ForwardPaths: bad.Message.Envelope.ForwardPaths}}
	now := Start
	// crash has only bad in hand at a crash, and returns what the next run recovers.
	crash := func(r *run, want []queue.Blame) *run {
		t.Helper()
		r.markAlone(bad)
		s = reopen(s)
		now = now.Add(time.Minute)
		next, recovered := begin(t, s, "run at "+now.String(), now)
		wantDiff(t, "blamed", recovered.Blamed, want)
		return next
	}
	r, _ := begin(t, s, "first", now)
	r.wantClaim(false, bad, good)
	r = crash(r, nil)
	r.wantClaim(false, good) // bad rests, and others go first
	r.now = now.Add(queue.SuspectRest)
	r.wantClaim(true, bad)

	// It is tried between two crashes, and is not to blame.
	r.record(bad, refusedSender)
	r.wantClaim(false, bad)
	r = crash(r, nil)
	r.now = now.Add(queue.SuspectRest)
	if works := r.claim(100); len(works) != 2 {
		t.Fatalf("Claim = %+v, want both", works)
	}
	r = crash(r, blame)
	wantStates(t, s, bad, "held held", queue.StatusHeld)
	m := get(t, s, bad.Message.ID)
	if f := m.Recipients[1].Result.Failure; f == nil || f.Class != mailer.ClassUncertain || f.Text != queue.BlamedAttempt(true).Text {
		t.Errorf("result = %+v, want why it is held", f)
	}
	r.wantClaim(true, good) // it was leased, and will be tried alone

	// A person lets it go: two crashes more, and it is held again.
	for _, want := range [][]queue.Blame{nil, blame} {
		if want == nil {
			if changed, err := s.Retry(t.Context(), "app", []string{bad.Message.ID}, now); err != nil || len(changed) != 1 {
				t.Fatalf("Retry = %v, %v, want the message", changed, err)
			}
		}
		r.now = now.Add(queue.SuspectRest)
		r.claim(100)
		r = crash(r, want)
	}
	wantStates(t, s, good, "deferred", queue.StatusDeferred)
}

// testUnmarked: a message that is not alone in hand any more is not to blame.
func testUnmarked(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	e := entry(0, "a@example.org")
	insert(t, s, e)
	for n := range 5 {
		s = reopen(s)
		r, recovered := begin(t, s, fmt.Sprint("run", n), Start.Add(time.Duration(n)*time.Minute))
		if len(recovered.Blamed) > 0 {
			t.Errorf("run %d: %+v is held", n, recovered.Blamed)
		}
		r.wantClaim(n > 1, e)
		r.setAlone(e, true)
		r.setAlone(e, false)
	}
}

// testBlameHold: where uncertain mail is held, a message is blamed all the same, and
// only what was being sent counts as uncertain.
func testBlameHold(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	e := entry(0, "a@example.org")
	insert(t, s, e)
	for n := range 3 {
		r := &run{t, s, fmt.Sprint("marks-", n), Start.Add(time.Duration(n) * time.Hour)}
		recovered, err := s.Recover(t.Context(), r.owner, r.now, true)
		if err != nil {
			t.Fatal(err)
		}
		if held := len(recovered.Blamed) == 1; held != (n == 2) || recovered.Held+recovered.Uncertain > 0 {
			t.Errorf("Recover %d = %+v, want a message held for two crashes, and not before", n, recovered)
		}
		r.now = r.now.Add(queue.SuspectRest)
		if works := r.claim(1); (len(works) == 0) != (n == 2) {
			t.Errorf("Claim %d = %v", n, works)
		}
		r.markAlone(e)
		s = reopen(s)
	}
	wantStates(t, s, e, "held", queue.StatusHeld)
	if f := get(t, s, e.Message.ID).Recipients[0].Result.Failure; f == nil || f.Class != mailer.ClassTransient {
		t.Errorf("result = %+v, want why it is held", f)
	}
}

// testUnfinished: runs crash before they have taken over everything. Each message has one
// uncertain attempt and has used one turn, and only those are suspect that the second run
// to crash had leased.
func testUnfinished(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	const messages = 1000
	var first, second []queue.Entry
	for n := range messages {
		e := entry(time.Duration(n)*time.Millisecond, "a@example.org", "b@example.org")
		e.Owner = "run0"
		first = append(first, e)
	}
	begin(t, s, "run0", Start)
	insert(t, s, first...)
	var total queue.Recovered
	for n := 1; ; n++ {
		s = reopen(s)
		r, step := begin(t, s, fmt.Sprint("run", n), Start.Add(time.Duration(n)*time.Second))
		total.Add(step)
		if n == 1 {
			e := entry(time.Minute, "a@example.org")
			e.Owner = r.owner
			insert(t, s, e)
			second = append(second, e)
			wantTurns(t, s, "relay", Start, messages+1, slices.Repeat([]time.Time{r.now}, messages)...)
		}
		if n > 1 && !step.More {
			break
		}
	}
	wantDiff(t, "Recover in all", total, queue.Recovered{Uncertain: 2*messages + 1, Suspects: len(second)})
	turns, err := s.Turns(t.Context(), "relay", Start, 2*messages)
	if err != nil || len(turns) != messages+len(second) {
		t.Errorf("Turns = %d, %v, want one for each message", len(turns), err)
	}
	for _, e := range append(first, second...) {
		m := get(t, s, e.Message.ID)
		if len(m.Attempts) != 1 || len(m.Attempts[0].Results) != len(m.Recipients) || m.Status() != queue.StatusDeferred {
			t.Fatalf("%s after %d attempts, want one", m.Status(), len(m.Attempts))
		}
	}
}

// testLongUnfinished: leases of a run that crashed stay for longer than a crash counts, as
// the runs that follow end too soon. Each message has used one turn all the same, and
// crashes long before or after do not make it suspect.
func testLongUnfinished(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	const messages = 2000
	lease := func(owner string, at time.Duration) {
		t.Helper()
		var batch []queue.Entry
		for n := range messages {
			e := entry(at+time.Duration(n)*time.Millisecond, "a@example.org")
			e.Owner = owner
			batch = append(batch, e)
		}
		insert(t, s, batch...)
	}
	begin(t, s, "run0", Start)
	lease("run0", 0)
	var total queue.Recovered
	for n, end := range []bool{false, true, false, true, true} { // whether the run ends in order
		s = reopen(s)
		owner, now := fmt.Sprint("run", n+1), Start.Add(time.Duration(n+1)*queue.CrashWindow)
		_, r := begin(t, s, owner, now)
		total.Add(r)
		switch {
		case n == 0:
			lease(owner, time.Hour)
		case end:
			if err := s.End(t.Context(), owner); err != nil {
				t.Fatal(err)
			}
		}
	}
	s = reopen(s)
	total.Add(recoverAll(t, s, "last", Start.Add(10*queue.CrashWindow), false))
	wantDiff(t, "Recover in all", total, queue.Recovered{Uncertain: 2 * messages})
	turns, err := s.Turns(t.Context(), "relay", Start, 10*messages)
	if err != nil || len(turns) != 2*messages {
		t.Errorf("Turns = %d, %v, want one for each message", len(turns), err)
	}
}

// testKills: the service is killed at random, while others than the message in hand
// wait or are leased. Nothing is held for it.
func testKills(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // it need not be secret
	now := Start
	for n := range 50 {
		r, recovered := begin(t, s, fmt.Sprint("run", n), now)
		if len(recovered.Blamed) > 0 {
			t.Fatalf("run %d: %+v is held", n, recovered.Blamed)
		}
		var fresh []queue.Entry
		for range random.IntN(4) {
			e := entry(now.Sub(Start), "a@example.org")
			e.Owner = r.owner
			fresh = append(fresh, e)
		}
		insert(t, s, fresh...)
		for killed := r.now.Add(time.Duration(random.IntN(20_000)) * time.Millisecond); r.now.Before(killed); {
			works := r.claim(1)
			if len(works) == 0 {
				r.now = killed
				break
			}
			e := entry(0, works[0].Envelope.ForwardPaths...)
			e.Message.ID = works[0].ID
			if works[0].Suspect {
				r.markAlone(e)
			}
			if r.now = r.now.Add(100 * time.Millisecond); r.now.Before(killed) {
				r.record(e, nil)
			}
		}
		now = r.now.Add(time.Second)
		s = reopen(s)
	}
}
