package storetest

import (
	"testing"
	"time"

	"mailsidecar/queue"
)

// testManualPauses: the list that was set last is there after a restart.
func testManualPauses(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	one := queue.ManualPause{Relay: "one", Since: Start.Add(time.Second), Reason: "we move, 「日本語」"}
	two := queue.ManualPause{Relay: "two", Since: Start, Until: Start.Add(time.Hour)}
	for _, list := range [][]queue.ManualPause{nil, {two, one}, {one}, {two}, nil} {
		if err := s.SetManualPauses(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := s.ManualPauses(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantDiff(t, "ManualPauses", got, list)
			s = reopen(s)
		}
	}
	later := queue.ManualPause{Relay: "two", Since: Start.Add(time.Minute)}
	for _, c := range []struct{ set, want []queue.ManualPause }{
		{set: []queue.ManualPause{two}, want: []queue.ManualPause{two}},
		{set: []queue.ManualPause{one}, want: []queue.ManualPause{two, one}},
		{set: []queue.ManualPause{later}, want: []queue.ManualPause{one, later}},
		{want: []queue.ManualPause{one}},
	} {
		of := "two"
		if len(c.set) > 0 {
			of = c.set[0].Relay
		}
		if err := s.SetManualPauses(t.Context(), c.set, of); err != nil {
			t.Fatal(err)
		}
		got, err := s.ManualPauses(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantDiff(t, "ManualPauses of relays one by one", got, c.want)
	}
}

// testBacklog: what is due, leased, due later and held is counted, and nothing else.
func testBacklog(t *testing.T, s queue.Store, _ func(queue.Store) queue.Store) {
	want := func(now time.Time, want queue.Backlog) {
		t.Helper()
		got, err := s.Backlog(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		wantDiff(t, "Backlog", got, want)
	}
	want(Start, queue.Backlog{})
	due, later, leased, held, done := entry(0, "a@example.org", "b@example.org"), entry(1, "a@example.org"), entry(2, "a@example.org"), entry(3, "a@example.org"), entry(4, "a@example.org")
	later.Due = Start.Add(time.Hour)
	leased.Owner, held.Owner, done.Owner = "me", "me", "me"
	insert(t, s, due, later, leased, held, done)
	for e, state := range map[*queue.Entry]queue.State{&held: queue.Held, &done: queue.Delivered} {
		record(t, s, queue.Outcome{
			ID: e.Message.ID, Owner: "me", Route: e.Route, At: Start,
			Changes: []queue.Change{{ForwardPath: "a@example.org", State: state}},
		})
	}
	want(due.Due.Add(time.Minute), queue.Backlog{Due: 3, Later: 1, Next: later.Due, Held: 1})
	want(later.Due, queue.Backlog{Due: 4, Held: 1})
}
