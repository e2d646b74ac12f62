package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// Faults makes commits of the store under test fail: a method answers with an error
// then, whether its commit has happened or not.
type Faults struct {
	next   atomic.Int32 // 1: before it happens, 2: after it has happened
	random atomic.Bool  // some do, and the caller cannot know which
}

var errCommit = errors.New("the commit failed")

// Commit is called by the store under test before each commit, and once more after it
// has happened; its error is the commit's.
func (f *Faults) Commit(happened bool) error {
	want := int32(1)
	if happened {
		want = 2
	}
	if f.next.CompareAndSwap(want, 0) || f.random.Load() && rand.IntN(4) == 0 { //nolint:gosec // it need not be secret
		return errCommit
	}
	return nil
}

// Fail makes the next commit fail, before it happens or after it has happened.
func (f *Faults) Fail(happened bool) {
	f.next.Store(1)
	if happened {
		f.next.Store(2)
	}
}

// RunFaults runs the part of the suite in which commits fail. open returns an empty
// store whose commits f makes fail.
func RunFaults(t *testing.T, open func(t *testing.T, f *Faults) queue.Store) {
	tests := map[string]func(*testing.T, queue.Store, *doubt){
		"Insert":  testInsertAgain,
		"Record":  testRecordAgain,
		"Claim":   testClaimLost,
		"Release": testReleaseAgain,
	}
	for name, test := range tests {
		for _, happened := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/happened=%v", name, happened), func(t *testing.T) {
				f := &Faults{}
				s := open(t, f)
				t.Cleanup(func() { _ = s.Close() })
				test(t, s, &doubt{f, happened})
			})
		}
	}
	t.Run("Random", func(t *testing.T) {
		f := &Faults{}
		s := open(t, f)
		t.Cleanup(func() { _ = s.Close() })
		testFaultsAtRandom(t, s, f)
	})
}

// doubt fails one commit after another in the same way.
type doubt struct {
	f        *Faults
	happened bool
}

// want calls a method whose commit fails.
func (d *doubt) want(t *testing.T, method string, call func() error) {
	t.Helper()
	d.f.Fail(d.happened)
	if err := call(); !errors.Is(err, errCommit) {
		t.Errorf("%s whose commit fails = %v, want %v", method, err, errCommit)
	}
}

func leases(t *testing.T, s queue.Store, owner string) []queue.Lease {
	t.Helper()
	l, err := s.Leases(t.Context(), owner)
	if err != nil {
		t.Fatalf("Leases = %v", err)
	}
	return l
}

// testInsertAgain: the same messages are stored once, however often.
func testInsertAgain(t *testing.T, s queue.Store, d *doubt) {
	plain, keyed := entry(0, "a@example.org", "b@example.org"), entry(time.Second, "a@example.org")
	plain.Owner, keyed.Owner = "me", "me"
	batches := []queue.Batch{{Entries: []queue.Entry{plain}}, {
		Entries:     []queue.Entry{keyed},
		Idempotency: &queue.Idempotency{Key: "app", Name: "k", Expires: Start.Add(24 * time.Hour)},
	}}
	for _, b := range batches {
		d.want(t, "Insert", func() error { _, err := s.Insert(t.Context(), b); return err })
		for range 2 {
			replayed, err := s.Insert(t.Context(), b)
			if err != nil || len(replayed) > 0 && replayed[0] != b.Entries[0].Message.ID {
				t.Errorf("Insert again = %v, %v, want nothing, or its own id", replayed, err)
			}
		}
		want := b.Entries[0].Message
		wantDiff(t, "Get", get(t, s, want.ID), want)
		if c, err := s.Content(t.Context(), "app", want.ID); err != nil || string(c.Data) != string(b.Entries[0].Content.Data) {
			t.Errorf("Content = %q, %v", c.Data, err)
		}
	}
	wantDiff(t, "Leases", leases(t, s, "me"), []queue.Lease{
		{ID: plain.Message.ID, Route: "relay", ForwardPaths: []string{"a@example.org", "b@example.org"}, Number: queue.FirstLease},
		{ID: keyed.Message.ID, Route: "relay", ForwardPaths: []string{"a@example.org"}, Number: queue.FirstLease},
	})
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 2 {
		t.Errorf("Usage = %+v, %v, want two messages", u, err)
	}

	// What another message has is taken all the same, and so is half a batch.
	other := entry(0, "z@example.org")
	other.Message.ID, other.Message.Key = plain.Message.ID, "other"
	for _, b := range [][]queue.Entry{{other}, {plain, entry(0, "a@example.org")}} {
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: b}); err == nil {
			t.Error("Insert of an id that is taken = nil, want an error")
		}
	}
}

// testRecordAgain: an outcome takes effect once, whatever became of the recipients
// since.
func testRecordAgain(t *testing.T, s queue.Store, d *doubt) {
	e := entry(0, "a@example.org", "b@example.org")
	e.Owner = "me"
	insert(t, s, e)
	attempt := func(f *mailer.Failure) mailer.Attempt {
		return mailer.Attempt{Relay: "relay", Started: Start, Results: []mailer.Result{
			{ForwardPath: "a@example.org", Failure: f}, {ForwardPath: "b@example.org", Failure: f},
		}}
	}
	change := func(state queue.State) []queue.Change {
		return []queue.Change{
			{ForwardPath: "a@example.org", State: state, Next: Start, Tries: 1}, {ForwardPath: "b@example.org", State: state, Next: Start, Tries: 1},
		}
	}
	outcomes := []queue.Outcome{
		{
			Attempts: []mailer.Attempt{attempt(refusedSender), attempt(refusedSender)}, Changes: change(queue.Deferred),
			Turns: []queue.Turn{{Relay: "relay", At: Start, Window: time.Hour}},
		},
		{Changes: change(queue.Deferred)}, // put off without an attempt
		{Attempts: []mailer.Attempt{attempt(nil)}, Changes: change(queue.Delivered)},
	}
	lease, attempts := int64(queue.FirstLease), 0
	for i, o := range outcomes {
		o.ID, o.Owner, o.Route, o.At, o.Lease = e.Message.ID, "me", "relay", Start, lease
		again := func() error { _, err := s.Record(t.Context(), []queue.Outcome{o}); return err }
		d.want(t, "Record", again)
		for range 2 {
			if err := again(); err != nil {
				t.Fatalf("Record again = %v", err)
			}
		}
		attempts += len(o.Attempts)
		if got := len(get(t, s, e.Message.ID).Attempts); got != attempts {
			t.Errorf("attempts after outcome %d = %d, want %d", i, got, attempts)
		}
		works := claim(t, s, Start, 1)
		if i == len(outcomes)-1 {
			if len(works) > 0 {
				t.Errorf("Claim of a delivered message = %+v", works)
			}
			break
		}
		if len(works) != 1 || works[0].Recipients[0].Attempts != attempts {
			t.Fatalf("Claim after outcome %d = %+v, want %d attempts", i, works, attempts)
		}
		lease = works[0].Lease
		// Once more, with the recipients leased anew to the same owner.
		if err := again(); err != nil {
			t.Fatalf("Record again = %v", err)
		}
		wantDiff(t, "Leases", leases(t, s, "me"), []queue.Lease{{ID: e.Message.ID, Route: "relay", ForwardPaths: e.Message.Envelope.ForwardPaths, Number: lease}})
	}
	wantStates(t, s, e, "delivered delivered", queue.StatusDelivered)
	wantTurns(t, s, "relay", Start.Add(-time.Second), 10, Start)
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 0 {
		t.Errorf("Usage = %+v, %v, want nothing", u, err)
	}
}

// testClaimLost: what a claim has leased, and could not say so, can be given back.
func testClaimLost(t *testing.T, s queue.Store, d *doubt) {
	lost, mine, others := entry(0, "a@example.org", "b@example.org"), entry(time.Second, "a@example.org"), entry(0, "a@example.org")
	others.Owner = "other"
	insert(t, s, lost, mine, others)
	d.want(t, "Claim", func() error {
		_, err := s.Claim(t.Context(), "me", Start, []queue.Want{{Route: "relay", Lane: queue.Lane{Key: "app"}, Limit: 10}})
		return err
	})
	known := map[int64]bool{}
	for _, w := range claim(t, s, Start.Add(time.Second), 10) {
		known[w.Lease] = true
	}
	for _, l := range leases(t, s, "me") {
		if known[l.Number] {
			continue
		}
		if !d.happened || l.ID != lost.Message.ID || len(l.ForwardPaths) != 2 {
			t.Errorf("unknown lease %+v", l)
		}
		if err := s.Release(t.Context(), "me", Start, []queue.Lease{l}); err != nil {
			t.Fatal(err)
		}
	}
	works := claim(t, s, Start.Add(time.Second), 10)
	if got := len(works) == 1 && works[0].ID == lost.Message.ID; got != d.happened {
		t.Errorf("Claim = %+v, want what was given back: %v", works, d.happened)
	}
	if n := len(leases(t, s, "me")); n != 2 {
		t.Errorf("leases = %d, want both messages", n)
	}
	if l := leases(t, s, "other"); len(l) != 1 || l[0].ID != others.Message.ID {
		t.Errorf("leases of another owner = %+v, want its own", l)
	}
}

// testReleaseAgain: a lease that was given back and taken anew is another one.
func testReleaseAgain(t *testing.T, s queue.Store, d *doubt) {
	e := entry(0, "a@example.org")
	e.Owner = "me"
	insert(t, s, e)
	old := leases(t, s, "me")
	release := func() error { return s.Release(t.Context(), "me", Start, old) }
	d.want(t, "Release", release)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if works := claim(t, s, Start, 1); len(works) != 1 {
		t.Fatalf("Claim = %v, want what was given back", works)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if n := len(leases(t, s, "me")); n != 1 {
		t.Errorf("leases = %d, want the new one", n)
	}
}

// testFaultsAtRandom: several callers do everything again until it is answered. Each
// message is there once, with one attempt, and nothing stays leased.
func testFaultsAtRandom(t *testing.T, s queue.Store, f *Faults) {
	f.random.Store(true)
	again := func(call func() error) {
		err := call()
		for errors.Is(err, errCommit) {
			err = call()
		}
		if err != nil {
			t.Error(err)
		}
	}
	var entries []queue.Entry
	var wg sync.WaitGroup
	for range 40 {
		e := entry(0, "a@example.org")
		e.Owner = "me"
		entries = append(entries, e)
		wg.Go(func() {
			again(func() error { _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); return err })
			o := queue.Outcome{
				ID: e.Message.ID, Owner: "me", Route: "relay", At: Start, Lease: queue.FirstLease,
				Attempts: []mailer.Attempt{{Started: Start, Results: []mailer.Result{{ForwardPath: "a@example.org"}}}},
				Changes:  []queue.Change{{ForwardPath: "a@example.org", State: queue.Delivered}},
			}
			again(func() error { _, err := s.Record(t.Context(), []queue.Outcome{o}); return err })
		})
	}
	wg.Wait()
	f.random.Store(false)
	for _, e := range entries {
		if m := get(t, s, e.Message.ID); m.Status() != queue.StatusDelivered || len(m.Attempts) != 1 {
			t.Errorf("message is %s after %d attempts, want delivered after one", m.Status(), len(m.Attempts))
		}
	}
	if l := leases(t, s, "me"); len(l) > 0 {
		t.Errorf("leases = %+v, want none", l)
	}
}
