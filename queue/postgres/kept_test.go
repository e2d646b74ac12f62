package postgres

import (
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// TestKept: what was delivered is kept as long as KeepBodies says, and a look-up tells it.
func TestKept(t *testing.T) {
	o := options(t, start(t).url())
	o.KeepBodies = time.Hour
	s := open(t, o)
	e := storetest.Entry(0, "a@example.org")
	e.Owner = "me"
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	at := storetest.Start.Add(time.Minute)
	if _, err := s.Record(t.Context(), []queue.Outcome{{
		ID: e.Message.ID, Owner: "me", Route: e.Route, At: at, Attempts: []mailer.Attempt{{Relay: "one"}},
		Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Delivered}},
	}}); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Get(t.Context(), "app", e.Message.ID); err != nil || m.Kept.Gone || !m.Kept.Until.Equal(at.Add(time.Hour)) {
		t.Errorf("Get = %+v, %v, want the content kept until %v", m.Kept, err, at.Add(time.Hour))
	}
	if _, err := s.Sweep(t.Context(), at.Add(time.Hour), 10); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Get(t.Context(), "app", e.Message.ID); err != nil || m.Kept != (queue.Kept{Gone: true}) {
		t.Errorf("Get = %+v, %v, want the content gone", m.Kept, err)
	}
}
