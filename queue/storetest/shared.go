package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// Shared is a database with two instances at it, for [RunShared].
type Shared struct {
	A, B queue.SharedStore
	// Outdate ends the lease of an owner in the database, as time does.
	Outdate func(owner string)
	// Beat has A renew its leases, or find that they are lost.
	Beat func()
}

// RunShared runs the part of the suite that is about instances which share a database. open
// returns an empty one.
func RunShared(t *testing.T, open func(t *testing.T) Shared) {
	tests := map[string]func(*testing.T, Shared){
		"TakeOver":            testTakeOver,
		"MarkAgainstTakeOver": testMarkAgainstTakeOver,
		"OutcomesAtOnce":      testOutcomesAtOnce,
		"ClaimsAtOnce":        testClaimsAtOnce,
		"EndInOrder":          testEndInOrder,
		"CloseInOrder":        testCloseInOrder,
		"OneKey":              testOneKey,
		"AnyInstance":         testAnyInstance,
		"CancelOfAnother":     testCancelOfAnother,
		"CrashesOfOthers":     testCrashesOfOthers,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { _, _ = s.A.Close(), s.B.Close() })
			test(t, s)
		})
	}
}

func leased(owner string, n int, to ...string) queue.Entry {
	e := entry(time.Duration(n)*time.Second, to...)
	e.Owner = owner
	return e
}

// ofInsert is the lease that Insert gave, as it is marked for the relay.
func ofInsert(e queue.Entry) queue.Lease {
	return queue.Lease{ID: e.Message.ID, Route: queue.TakenRoute("relay"), ForwardPaths: e.Message.Envelope.ForwardPaths, Number: queue.FirstLease}
}

// became is an outcome of that lease: all recipients are in that state.
func became(owner string, e queue.Entry, state queue.State) queue.Outcome {
	o := queue.Outcome{ID: e.Message.ID, Owner: owner, Route: "relay", At: Start, Lease: queue.FirstLease}
	a := mailer.Attempt{Relay: "relay", Started: Start}
	for _, path := range e.Message.Envelope.ForwardPaths {
		r := mailer.Result{ForwardPath: path}
		if state != queue.Delivered {
			r.Failure = &mailer.Failure{Class: mailer.ClassTransient, Text: "later"}
		}
		a.Results = append(a.Results, r)
		o.Changes = append(o.Changes, queue.Change{ForwardPath: path, State: state, Next: Start.Add(time.Hour)})
	}
	o.Attempts = []mailer.Attempt{a}
	return o
}

// testTakeOver: what an instance has leased is its own while its lease lasts. Then another one
// takes it over, and it can mark and lease nothing more; it may say that something was
// delivered.
func testTakeOver(t *testing.T, s Shared) {
	live(t, s.A, "marks-a")
	marked, not, told := leased("marks-a", 0, "x@example.org"), leased("marks-a", 1, "x@example.org"), leased("marks-a", 2, "x@example.org")
	insert(t, s.A, marked, not, told)
	for _, e := range []queue.Entry{marked, told} {
		if err := s.A.Mark(t.Context(), "marks-a", ofInsert(e), nil); err != nil {
			t.Fatalf("Mark = %v", err)
		}
	}
	s.Beat()
	if r, err := s.B.Recover(t.Context(), "marks-b", Start, false); err != nil || r.Any() || r.Crashes > 0 {
		t.Fatalf("Recover from an owner that lives = %+v, %v", r, err)
	}
	if !s.A.Trusts("marks-a") {
		t.Error("an owner that lives is not trusted")
	}
	s.Outdate("marks-a")
	if err := s.A.Mark(t.Context(), "marks-a", ofInsert(not), nil); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Mark after the lease = %v, want ErrLeaseLost", err)
	}
	r, err := s.B.Recover(t.Context(), "marks-b", Start, false)
	if err != nil || r.Uncertain != 2 || r.Released != 1 {
		t.Fatalf("Recover = %+v, %v, want two uncertain, one released", r, err)
	}
	s.Beat()
	if err := s.A.Heartbeat(t.Context(), "marks-a", Start); !errors.Is(err, queue.ErrLeaseLost) || s.A.Trusts("marks-a") {
		t.Errorf("Heartbeat after the lease = %v, trusted %v, want ErrLeaseLost", err, s.A.Trusts("marks-a"))
	}
	if _, err := s.A.Recover(t.Context(), "marks-a", Start, false); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Recover after the lease = %v, want ErrLeaseLost", err)
	}
	if works := claimFor(t, s.A, "marks-a", Start.Add(time.Minute), 9); len(works) > 0 {
		t.Errorf("Claim after the lease = %d messages", len(works))
	}
	record(t, s.A, became("marks-a", marked, queue.Bounced))
	record(t, s.A, became("marks-a", told, queue.Delivered))
	if m := get(t, s.B, marked.Message.ID); m.Status() != queue.StatusDeferred || len(m.Attempts) != 2 {
		t.Errorf("a late refusal: %s after %d attempts, want deferred", m.Status(), len(m.Attempts))
	}
	if m := get(t, s.B, told.Message.ID); m.Status() != queue.StatusDelivered {
		t.Errorf("a late delivery: %s, want delivered", m.Status())
	}
	// The instance goes on as another owner.
	live(t, s.A, "marks-a2")
	if works := claimFor(t, s.A, "marks-a2", Start.Add(time.Minute), 9); len(works) != 2 {
		t.Errorf("Claim by the next owner = %d messages, want 2", len(works))
	}
}

// testMarkAgainstTakeOver: whichever comes first, the other one knows: what is marked is
// uncertain afterwards, and what could not be marked is not.
func testMarkAgainstTakeOver(t *testing.T, s Shared) {
	both := map[bool]int{}
	for n := range 40 {
		owner := fmt.Sprint("marks-", n)
		live(t, s.A, owner)
		e := leased(owner, n, "x@example.org", "y@example.org")
		insert(t, s.A, e)
		var marked error
		var r queue.Recovered
		var wg sync.WaitGroup
		wg.Go(func() { marked = s.A.Mark(context.Background(), owner, ofInsert(e), nil) })
		wg.Go(func() {
			time.Sleep(time.Duration(n%8) * 300 * time.Microsecond)
			s.Outdate(owner)
			var err error
			if r, err = s.B.Recover(context.Background(), "marks-b", Start, true); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if marked != nil && !errors.Is(marked, queue.ErrLeaseLost) {
			t.Fatalf("Mark = %v", marked)
		}
		both[marked == nil]++
		if ok := marked == nil; ok != (r.Uncertain == 2) || ok == (r.Released == 2) {
			t.Errorf("Mark = %v, Recover = %+v", marked, r)
		}
	}
	t.Logf("marked first: %d, taken over first: %d", both[true], both[false])
}

// testOutcomesAtOnce: a message is final though its recipients are finished at the same moment
// by two instances.
func testOutcomesAtOnce(t *testing.T, s Shared) {
	for n := range 40 {
		e := leased("a", n, "x@example.org", "y@example.org")
		insert(t, s.A, e)
		var wg sync.WaitGroup
		for i, store := range []queue.Store{s.A, s.B} {
			one := became("a", e, queue.Delivered)
			one.Lease, one.Changes, one.Attempts[0].Results = 0, one.Changes[i:i+1], one.Attempts[0].Results[i:i+1]
			wg.Go(func() {
				if _, err := store.Record(context.Background(), []queue.Outcome{one}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		m := get(t, s.A, e.Message.ID)
		if u, err := s.B.Usage(t.Context()); err != nil || u.Messages != 0 || m.Status() != queue.StatusDelivered || len(m.Attempts) != 2 {
			t.Fatalf("%s after %d attempts, %d unfinished, %v", m.Status(), len(m.Attempts), u.Messages, err)
		}
	}
}

// testClaimsAtOnce: messages of many recipients are claimed whole, and once, by many claims at
// a time.
func testClaimsAtOnce(t *testing.T, s Shared) {
	var to []string
	for n := range 10 {
		to = append(to, fmt.Sprintf("r%d@example.org", n))
	}
	const messages = 60
	for n := range messages {
		insert(t, s.A, entry(time.Duration(n)*time.Second, to...))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for n, store := range []queue.Store{s.A, s.B, s.A, s.B} {
		wg.Go(func() {
			for range 40 {
				works, err := store.Claim(context.Background(), fmt.Sprint("owner", n), Start.Add(time.Hour), []queue.Want{{Route: "relay", Lane: queue.Lane{Key: "app"}, Limit: 3}})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, w := range works {
					if seen[w.ID]++; len(w.Recipients) != len(to) {
						t.Errorf("a claim has %d of %d recipients", len(w.Recipients), len(to))
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was claimed %d times", id, n)
		}
	}
	if len(seen) != messages {
		t.Errorf("%d of %d messages were claimed", len(seen), messages)
	}
}

// testEndInOrder: what an owner leaves behind that ended in order is another's at once, and no
// crash. Its lease is lost for good.
func testEndInOrder(t *testing.T, s Shared) {
	if _, err := s.A.Recover(t.Context(), "marks-a", Start, false); err != nil {
		t.Fatal(err)
	}
	insert(t, s.A, leased("marks-a", 0, "x@example.org"))
	if err := s.A.End(t.Context(), "marks-a"); err != nil {
		t.Fatal(err)
	}
	if r, err := s.B.Recover(t.Context(), "marks-b", Start, false); err != nil || r.Released != 1 || r.Crashes != 0 {
		t.Errorf("Recover after End = %+v, %v, want one released, no crash", r, err)
	}
	s.Beat()
	if err := s.A.Heartbeat(t.Context(), "marks-a", Start); !errors.Is(err, queue.ErrLeaseLost) || s.A.Trusts("marks-a") {
		t.Errorf("Heartbeat after End = %v, trusted %v, want ErrLeaseLost", err, s.A.Trusts("marks-a"))
	}
}

// testCloseInOrder: nobody need wait for a lease of an instance that closed its store.
func testCloseInOrder(t *testing.T, s Shared) {
	live(t, s.A, "marks-a")
	insert(t, s.A, leased("marks-a", 0, "x@example.org"))
	if err := s.A.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.B.Recover(t.Context(), "marks-b", Start, false); err != nil || r.Released != 1 {
		t.Errorf("Recover after Close = %+v, %v, want one released", r, err)
	}
}

// testOneKey: requests with one idempotency key are one, at whatever instances they come at
// the same moment.
func testOneKey(t *testing.T, s Shared) {
	for n := range 20 {
		key := queue.Idempotency{Key: "app", Name: fmt.Sprint("order-", n), Fingerprint: [32]byte{1}, Expires: Start.Add(queue.IdempotencyLife)}
		var entries []queue.Entry
		var replayed [2][]string
		var wg sync.WaitGroup
		for i, store := range []queue.Store{s.A, s.B} {
			e := entry(time.Duration(2*n+i)*time.Second, "x@example.org")
			entries = append(entries, e)
			wg.Go(func() {
				var err error
				if replayed[i], err = store.Insert(context.Background(), queue.Batch{Entries: []queue.Entry{e}, Idempotency: &key}); err != nil {
					t.Errorf("Insert = %v", err)
				}
			})
		}
		wg.Wait()
		first := 0 // the one that was stored
		if replayed[0] != nil {
			first = 1
		}
		if id := entries[first].Message.ID; replayed[first] != nil || len(replayed[1-first]) != 1 || replayed[1-first][0] != id {
			t.Fatalf("Insert of two with one key = %q, and %q were to be stored", replayed, []string{entries[0].Message.ID, entries[1].Message.ID})
		}
		if _, err := s.A.Get(t.Context(), "app", entries[1-first].Message.ID); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Get of the other one = %v, want ErrNotFound", err)
		}
	}
}

// testAnyInstance: each instance sees what another one has stored, tried and changed.
func testAnyInstance(t *testing.T, s Shared) {
	live(t, s.A, "marks-a")
	tried, waits := leased("marks-a", 0, "x@example.org"), leased("marks-a", 1, "x@example.org")
	insert(t, s.A, tried, waits)
	ids := []string{tried.Message.ID, waits.Message.ID}
	if got, err := s.B.Tried(t.Context(), ids); err != nil || len(got) > 0 {
		t.Errorf("Tried = %q, %v, want none", got, err)
	}
	record(t, s.A, became("marks-a", tried, queue.Deferred))
	if got, err := s.B.Tried(t.Context(), ids); err != nil || len(got) != 1 || got[0] != ids[0] {
		t.Errorf("Tried = %q, %v, want the one", got, err)
	}
	if changed, err := s.B.Retry(t.Context(), "app", ids, Start.Add(time.Minute)); err != nil || len(changed) != 1 || changed[0] != ids[0] {
		t.Errorf("Retry of what another instance has stored = %q, %v, want the one that it has not in hand", changed, err)
	}
	if works := claimFor(t, s.A, "marks-a", Start.Add(time.Minute), 9); len(works) != 1 || works[0].ID != ids[0] {
		t.Errorf("Claim of what another instance retried = %d messages, want one", len(works))
	}
}

// testCancelOfAnother: a message that another instance has leased is canceled unless its
// attempt decides otherwise; what waits is canceled at once.
func testCancelOfAnother(t *testing.T, s Shared) {
	live(t, s.A, "marks-a")
	deferred, delivered, waits := leased("marks-a", 0, "x@example.org"), leased("marks-a", 1, "x@example.org"), entry(2*time.Second, "x@example.org")
	insert(t, s.A, deferred, delivered, waits)
	var all []queue.Withdrawal
	for _, e := range []queue.Entry{deferred, delivered, waits} {
		all = append(all, queue.Withdrawal{ID: e.Message.ID})
	}
	ended, err := s.B.Cancel(t.Context(), "app", "marks-b", all, Start)
	if err != nil || len(ended) != 3 || len(ended[0].ForwardPaths)+len(ended[1].ForwardPaths) > 0 || len(ended[2].ForwardPaths) != 1 {
		t.Fatalf("Cancel = %+v, %v, want the last one ended", ended, err)
	}
	if err := s.A.Mark(t.Context(), "marks-a", ofInsert(deferred), nil); !errors.Is(err, queue.ErrCanceled) {
		t.Errorf("Mark after a cancel at another instance = %v, want ErrCanceled", err)
	}
	record(t, s.A, became("marks-a", deferred, queue.Deferred))
	record(t, s.A, became("marks-a", delivered, queue.Delivered))
	for id, want := range map[string]queue.Status{deferred.Message.ID: queue.StatusCanceled, delivered.Message.ID: queue.StatusDelivered, waits.Message.ID: queue.StatusCanceled} {
		if m := get(t, s.B, id); m.Status() != want {
			t.Errorf("status = %s, want %s", m.Status(), want)
		}
	}
}

// testCrashesOfOthers: an owner whose lease has ended has crashed; one that lives, or ended in
// order, has not.
func testCrashesOfOthers(t *testing.T, s Shared) {
	begins := func(s queue.Store, owner string, want int) {
		t.Helper()
		if r, err := s.Recover(t.Context(), owner, Start, false); err != nil || r.Crashes != want {
			t.Errorf("Recover for %s = %+v, %v, want %d crashes", owner, r, err, want)
		}
	}
	begins(s.A, "marks-a", 0)
	begins(s.B, "marks-b", 0)
	s.Outdate("marks-a")
	begins(s.B, "marks-b", 1)
	begins(s.B, "marks-b", 0) // it was told
	if err := s.B.End(t.Context(), "marks-b"); err != nil {
		t.Fatal(err)
	}
	begins(s.B, "marks-b2", 1)
}
