package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
	"mailsidecar/queue/storetest"
)

// TestReadyBeforeTakenOver: a start is ready before it has taken over all that was in
// memory at a crash. What is not taken over yet is not tried, and in the end each
// recipient has an uncertain attempt before the one that delivers it.
func TestReadyBeforeTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages = 4000
		path := dbPath(t)
		s := openUnsynced(t, path)
		var entries []queue.Entry
		for n := range messages {
			e := randomEntry(0, time.Now().Add(time.Duration(n)*time.Microsecond))
			e.Owner, e.Message.Sender = "gone", "shop@example.com"
			e.Content.Data = []byte(e.Message.ID)
			e.Message.Size = int64(len(e.Content.Data))
			entries = append(entries, e)
		}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: entries}); err != nil {
			t.Fatal(err)
		}
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, s, nil, relay)
		leases, err := s.Leases(t.Context(), "gone")
		if err != nil {
			t.Fatal(err)
		}
		if len(leases) < messages/2 {
			t.Errorf("%d of %d messages were not taken over when the start was ready, want most", len(leases), messages)
		}
		if u := q.Usage(); u.Messages == 0 {
			t.Error("Usage = nothing, want what waits")
		}
		time.Sleep(10 * time.Minute)
		for _, e := range entries {
			m, err := s.Get(t.Context(), queue.AnyKey, e.Message.ID)
			if err != nil || len(m.Attempts) != 2 || m.Status() != queue.StatusDelivered {
				t.Fatalf("%s after %d attempts, %v, want delivered after two", m.Status(), len(m.Attempts), err)
			}
			if f := m.Attempts[0].Results[0].Failure; f == nil || f.Class != mailer.ClassUncertain {
				t.Fatalf("first attempt = %+v, want an uncertain one", m.Attempts[0])
			}
			if n := relay.Copies(e.Message.ID, "to0@example.org"); n != 1 {
				t.Fatalf("%d copies, want one", n)
			}
		}
	})
}

// TestStoppedBeforeTakenOver: the service is stopped twice before it has taken over
// all that was in memory at a crash. What is canceled or expires until then is never tried,
// and the rest goes out after one uncertain attempt.
func TestStoppedBeforeTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages = 6000
		path := dbPath(t)
		s := openUnsynced(t, path)
		var entries []queue.Entry
		for n := range messages {
			e := randomEntry(0, time.Now().Add(time.Duration(n)*time.Microsecond))
			e.Owner, e.Message.Sender = "gone", "shop@example.com"
			e.Content.Data = []byte(e.Message.ID)
			e.Message.Size = int64(len(e.Content.Data))
			if n == messages-2 {
				e.Message.Expires = time.Now().Add(time.Millisecond)
			}
			entries = append(entries, e)
		}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: entries}); err != nil {
			t.Fatal(err)
		}
		relay := queuetest.NewRelay(queuetest.Accept)
		expired, canceled := entries[messages-2].Message.ID, entries[messages-1].Message.ID
		for n := range 3 {
			q := queuetest.Start(t, s, nil, relay)
			if n == 1 {
				if m, err := q.Cancel(t.Context(), "app", canceled); err != nil || m.Status() == queue.StatusCanceled {
					t.Fatalf("Cancel of what is not taken over yet = %s, %v, want a wish", m.Status(), err)
				}
			}
			if n < 2 {
				if left, err := s.Leases(t.Context(), "gone"); err != nil || len(left) == 0 {
					t.Fatalf("%d leases, %v, want some", len(left), err)
				}
				if err := q.End(); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openUnsynced(t, path)
			}
		}
		time.Sleep(10 * time.Minute)
		for _, e := range entries {
			id, want, copies := e.Message.ID, queue.StatusDelivered, 1
			switch id {
			case expired:
				want, copies = queue.StatusFailed, 0
			case canceled:
				want, copies = queue.StatusCanceled, 0
			}
			m, err := s.Get(t.Context(), queue.AnyKey, id)
			if got := relay.Copies(id, "to0@example.org"); err != nil || m.Status() != want || got != copies || len(m.Attempts) != 1+copies {
				t.Fatalf("%s after %d attempts and %d copies, %v, want %s after %d", m.Status(), len(m.Attempts), got, err, want, 1+copies)
			}
		}
		if u, err := s.Usage(t.Context()); err != nil || u != (queue.Usage{}) {
			t.Errorf("Usage = %+v, %v, want none", u, err)
		}
	})
}

// growing are the tables whose rows grow in number with what waits or is finished.
var growing = []string{"messages", "contents", "recipients", "attempts", "idempotency", "turns"}

// openKeeping opens a store with the retention that the conformance tests count on.
func openKeeping(t *testing.T, path string) *Store {
	t.Helper()
	s := openUnsynced(t, path)
	s.opts.Retention = storetest.Retention
	return s
}

func isControl(query string) bool {
	return slices.Contains([]string{"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}, query) || strings.HasPrefix(query, "PRAGMA")
}

func planOf(t *testing.T, s *Store, query string) (steps []string) {
	t.Helper()
	args := make([]any, strings.Count(query, "?"))
	for n := 1; strings.Contains(query, fmt.Sprint("?", n)); n++ { // numbered ones
		args = make([]any, n)
	}
	err := s.view(context.Background(), func(v *session) error {
		return v.each("EXPLAIN QUERY PLAN "+query, args, func(rows *sql.Rows) error {
			var id, parent, unused int
			var step string
			err := rows.Scan(&id, &parent, &unused, &step)
			steps = append(steps, step)
			return err
		})
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return steps
}
