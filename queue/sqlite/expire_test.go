package sqlite

import (
	"testing"
	"time"

	"mailsidecar/queue"
)

// TestHeldIsNotMetAgain: messages that wait for a person cost nothing when others expire,
// however many there are. One that is retried expires after all.
func TestHeldIsNotMetAgain(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	now := time.Now().UTC().Truncate(time.Microsecond)
	var ids []string
	for range 20 {
		e := randomEntry(1, now)
		ids = append(ids, e.Message.ID)
		o := queue.Outcome{ID: e.Message.ID, Owner: "me", Route: "relay", At: now}
		for i, state := range []queue.State{queue.Held, queue.Delivered} {
			o.Changes = append(o.Changes, queue.Change{ForwardPath: e.Message.Envelope.ForwardPaths[i], State: state})
		}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Record(t.Context(), []queue.Outcome{o}); err != nil {
			t.Fatal(err)
		}
	}
	later := now.Add(2 * time.Hour)
	wantExpired(t, s, later, 0)
	if w, err := s.Waiting(t.Context(), now); err != nil || !w.Expiry.IsZero() {
		t.Errorf("Waiting = %+v, %v, want no expiry", w, err)
	}
	if changed, err := s.Retry(t.Context(), queue.AnyKey, ids[:1], now.Add(time.Hour)); err != nil || len(changed) != 1 {
		t.Fatalf("Retry = %v, %v", changed, err)
	}
	wantExpired(t, s, later, 1)
}

// wantExpired says how many messages a look at what has expired meets, and how many it
// ends.
func wantExpired(t *testing.T, s *Store, now time.Time, want int) {
	t.Helper()
	var met int
	err := s.view(t.Context(), func(v *session) error {
		return v.row(`SELECT count(*) FROM messages WHERE final = 0 AND clock <= ?`, []any{now.UnixMicro()}, &met)
	})
	ended, expireErr := s.Expire(t.Context(), now, 100)
	if err != nil || expireErr != nil || met != want || len(ended) != want {
		t.Errorf("Expire met %d messages and ended %d, %v, %v, want %d", met, len(ended), err, expireErr, want)
	}
}
