package storetest

import (
	"testing"
	"time"

	"mailsidecar/queue"
)

// testTaken: the store remembers for each recipient which relay may have taken it, over
// restarts, until a person has it tried again.
func testTaken(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	e := entry(0, "a@example.org", "b@example.org")
	e.Route = "one,two"
	insert(t, s, e)
	works, err := s.Claim(t.Context(), "me", Start, []queue.Want{{Route: "one,two", Lane: queue.Lane{Key: "app"}, Limit: 1}})
	if err != nil || len(works) != 1 {
		t.Fatalf("Claim = %v, %v", works, err)
	}
	if _, err := s.Record(t.Context(), []queue.Outcome{{
		ID: e.Message.ID, Owner: "me", Route: "one,two", At: Start, Lease: works[0].Lease,
		Changes: []queue.Change{
			{ForwardPath: "a@example.org", State: queue.Deferred, Next: Start, Route: queue.TakenRoute("two")},
			{ForwardPath: "b@example.org", State: queue.Deferred, Next: Start},
		},
	}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = reopen(s)
		wantTaken(t, s, e, "two", "")
		wantRoutes(t, s, queue.TakenRoute("two"), "one,two")
	}
	// What waits is hurried only; what is held a person sets free.
	for _, free := range []bool{false, true} {
		if free {
			works, err := s.Claim(t.Context(), "me", Start, []queue.Want{{Route: queue.TakenRoute("two"), Lane: queue.Lane{Key: "app"}, Limit: 1}})
			if err != nil || len(works) != 1 || len(works[0].Recipients) != 1 {
				t.Fatalf("Claim = %v, %v, want the one recipient", works, err)
			}
			if _, err := s.Record(t.Context(), []queue.Outcome{{
				ID: e.Message.ID, Owner: "me", Route: queue.TakenRoute("two"), At: Start, Lease: works[0].Lease,
				Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Held}},
			}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Retry(t.Context(), "app", []string{e.Message.ID}, Start); err != nil {
			t.Fatal(err)
		}
		if free {
			wantTaken(t, s, e, "", "")
			wantRoutes(t, s, queue.Unfiled, "one,two")
			continue
		}
		wantTaken(t, s, e, "two", "")
	}
}

// testTakenLost: what owners that are gone had leased is filed for the relay that may have
// taken it, as far as they have noted which it was; what they would have noted was not sent.
func testTakenLost(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	tests := []struct {
		owner, route, marked string
		want                 string // the route afterwards
		sent                 bool
	}{
		{"choice-1", "one,two", "two", "=two", true},
		{"choice-1", "one,two", "", "one,two", false},
		{"choice-1", "one", "", "=one", true},
		{"choice-1", "=two", "", "=two", true},
		{"choice-1", queue.Unfiled, "", queue.Unfiled, false},
		{"marks-1", "one", "", "one", false},
		{"marks-1", "one", "one", "=one", true},
		{"older", "one,two", "", "=one", true},
		{"older", "one", "", "=one", true},
	}
	var entries []queue.Entry
	for _, tt := range tests {
		e := entry(0, "a@example.org", "b@example.org")
		e.Owner, e.Route = tt.owner, tt.route
		insert(t, s, e)
		entries = append(entries, e)
		live(t, s, tt.owner)
		if tt.marked != "" { // one of its recipients
			l := queue.Lease{ID: e.Message.ID, Route: queue.TakenRoute(tt.marked), ForwardPaths: []string{"a@example.org"}, Number: queue.FirstLease}
			if err := s.Mark(t.Context(), tt.owner, l, []queue.Turn{{Relay: "before", At: Start.Add(-time.Minute), Window: time.Hour}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Mark(t.Context(), "", queue.Lease{}, []queue.Turn{{Relay: "before", At: Start, Window: time.Hour}}); err != nil {
		t.Error(err)
	}
	s = reopen(s)
	// Of two messages, and the one of no message.
	wantTurns(t, s, "before", Start.Add(-time.Hour), 10, Start.Add(-time.Minute), Start.Add(-time.Minute), Start)
	recoverAll(t, s, "me", Start, false)
	for i, tt := range tests {
		m := get(t, s, entries[i].Message.ID)
		if got := len(m.Attempts) == 1; got != tt.sent {
			t.Errorf("%+v: %d attempts", tt, len(m.Attempts))
		}
		if got := m.Recipients[0].TakenBy; got != queue.TakenBy(tt.want) {
			t.Errorf("%+v: TakenBy = %q", tt, got)
		}
		if tt.sent && (m.Attempts[0].Relay != queue.TakenBy(tt.want) || m.Recipients[0].Result.Failure.Relay != queue.TakenBy(tt.want)) {
			t.Errorf("%+v: attempt at %q", tt, m.Attempts[0].Relay)
		}
		if other := m.Recipients[1]; tt.marked != "" && other.TakenBy != "" {
			t.Errorf("%+v: the recipient that was not marked is taken by %q", tt, other.TakenBy)
		}
	}
}

func wantTaken(t *testing.T, s queue.Store, e queue.Entry, relays ...string) {
	t.Helper()
	for i, r := range get(t, s, e.Message.ID).Recipients {
		if r.TakenBy != relays[i] {
			t.Errorf("TakenBy of %s = %q, want %q", r.ForwardPath, r.TakenBy, relays[i])
		}
	}
}

// wantRoutes says which routes have something that waits.
func wantRoutes(t *testing.T, s queue.Store, want ...string) {
	t.Helper()
	waiting, err := s.Waiting(t.Context(), Start)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range waiting.Lanes {
		got = append(got, l.Route)
	}
	wantDiff(t, "routes on which something waits", got, want)
}
