package storetest

import (
	"testing"
	"time"

	"mailsidecar/queue"
)

func wantTurns(t *testing.T, s queue.Store, relay string, since time.Time, limit int, want ...time.Time) {
	t.Helper()
	turns, err := s.Turns(t.Context(), relay, since, limit)
	if err != nil {
		t.Fatalf("Turns(%s) = %v", relay, err)
	}
	wantDiff(t, "Turns of "+relay, turns, want)
}

// testTurns: when messages set out is known for as long as it counts, relay by relay,
// after a restart too.
func testTurns(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	e := entry(0, "a@example.org")
	insert(t, s, e)
	at := func(n int) time.Time { return Start.Add(time.Duration(n) * time.Second) }
	for n := range 10 {
		works := claim(t, s, at(n), 1)
		if len(works) != 1 {
			t.Fatalf("Claim = %v, want the message", works)
		}
		o := queue.Outcome{ID: e.Message.ID, At: at(n), Changes: []queue.Change{
			{ForwardPath: "a@example.org", State: queue.Deferred, Next: at(n)},
		}}
		o.Turns = []queue.Turn{{Relay: "one", At: at(n), Window: time.Minute}}
		if n%5 == 0 {
			o.Turns = append(o.Turns, queue.Turn{Relay: "two", At: at(n), Window: time.Hour}, queue.Turn{Relay: "two", At: at(n), Window: time.Hour})
		}
		record(t, s, o)
	}
	for range 2 {
		wantTurns(t, s, "one", at(6), 10, at(7), at(8), at(9))
		wantTurns(t, s, "one", at(0), 2, at(8), at(9))
		wantTurns(t, s, "one", at(9), 10)
		wantTurns(t, s, "two", at(-1), 10, at(0), at(0), at(5), at(5))
		wantTurns(t, s, "two", at(-1), 3, at(0), at(5), at(5))
		wantTurns(t, s, "none", at(0), 10)
		s = reopen(s)
	}
	claim(t, s, at(100), 1)
	record(t, s, queue.Outcome{
		ID: e.Message.ID, At: at(100), Turns: []queue.Turn{{Relay: "one", At: at(100), Window: time.Minute}},
		Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Delivered}},
	})
	wantTurns(t, s, "one", at(-1), 100, at(100)) // the others count no more, and are not kept
	for n := 1; n > 0; {
		var err error
		if n, err = s.Sweep(t.Context(), Start.Add(queue.LongestWindow+time.Minute), 10); err != nil {
			t.Fatal(err)
		}
	}
	wantTurns(t, s, "one", at(-1), 100, at(100))
	wantTurns(t, s, "two", at(-1), 100)
}

// testTurnsLost: what was being sent when the service ended has used a turn, as far as
// can be told.
func testTurnsLost(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	lost, marked, not, released := entry(0, "a@example.org", "b@example.org"), entry(0, "a@example.org"), entry(0, "a@example.org"), entry(0, "a@example.org")
	lost.Owner, marked.Owner, not.Owner, released.Owner = "gone", "marks-gone", "marks-gone", "gone"
	lost.Route = "one,two"
	insert(t, s, lost, marked, not, released)
	mark(t, s, "marks-gone", marked)
	if err := s.Release(t.Context(), "gone", Start, []queue.Lease{{ID: released.Message.ID, Route: "relay", ForwardPaths: []string{"a@example.org"}}}); err != nil {
		t.Fatal(err)
	}
	s = reopen(s)
	now := Start.Add(time.Minute)
	if _, err := s.Recover(t.Context(), "me", now, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantTurns(t, s, "one", Start, 10, now)
		wantTurns(t, s, "two", Start, 10, now)
		wantTurns(t, s, "relay", Start, 10, now)
		s = reopen(s)
	}
}
