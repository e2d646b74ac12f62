package sqlite

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// countUsage counts what [Store.Usage] says.
func countUsage(t *testing.T, s *Store) (u queue.Usage) {
	t.Helper()
	err := s.view(t.Context(), func(v *session) error {
		return v.row(`SELECT count(*), coalesce(sum(size), 0) FROM messages WHERE final = 0`, nil, &u.Messages, &u.Bytes)
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestUsageCounted: whatever happens to messages, and whichever commits fail or are in
// doubt, the count is that of the messages.
func TestUsageCounted(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	path := dbPath(t)
	s := openUnsynced(t, path)
	errFault := errors.New("fault")
	now := time.Now().UTC().Truncate(time.Microsecond)
	var entries []queue.Entry
	pick := func() queue.Entry { return entries[random.IntN(len(entries))] }
	for n := range 400 {
		now = now.Add(time.Second)
		fail, after := random.IntN(4) == 0, random.IntN(2) == 0
		s.fault = func(happened bool) error {
			if fail && happened == after {
				return errFault
			}
			return nil
		}
		var err error
		switch random.IntN(9) {
		case 0, 1:
			e := randomEntry(random.IntN(3), now)
			e.Message.Size = random.Int64N(1000)
			if random.IntN(2) == 0 {
				e.Message.SendAt = now.Add(time.Hour)
			}
			entries = append(entries, e)
			_, err = s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}})
		case 2, 3:
			if len(entries) > 0 {
				_, err = s.Record(t.Context(), []queue.Outcome{randomOutcome(random, pick(), now), randomOutcome(random, pick(), now)})
			}
		case 4:
			if len(entries) > 0 {
				_, err = s.Cancel(t.Context(), queue.AnyKey, "me", []queue.Withdrawal{{ID: pick().Message.ID, ForwardPaths: pick().Message.Envelope.ForwardPaths}}, now)
			}
		case 5:
			if len(entries) > 0 {
				_, err = s.Retry(t.Context(), queue.AnyKey, []string{pick().Message.ID, pick().Message.ID}, now)
			}
		case 6:
			_, err = s.Expire(t.Context(), now.Add(time.Duration(random.IntN(3)-2)*time.Hour), 5)
		case 7:
			_, err = s.Recover(t.Context(), "you", now, random.IntN(2) == 0)
		case 8:
			if len(entries) > 0 {
				other := mailer.Content{Data: make([]byte, random.IntN(1000))}
				_, err = s.Reschedule(t.Context(), queue.AnyKey, pick().Message.ID, now.Add(time.Minute), &other, now)
			}
		}
		if err != nil && !errors.Is(err, errFault) && !errors.Is(err, queue.ErrNotFound) {
			t.Fatal(err)
		}
		got, err := s.Usage(t.Context())
		if want := countUsage(t, s); err != nil || got != want {
			t.Fatalf("step %d: Usage = %+v, %v, want %+v", n, got, err, want)
		}
	}
	if u := countUsage(t, s); u.Messages == 0 || u.Messages == int64(len(entries)) {
		t.Errorf("%d of %d messages wait, want some", u.Messages, len(entries))
	}
}

// TestUsageStored: an orderly close stores the number, and the next start takes it without
// a look at the messages. After a crash, and after any change, the messages are counted.
func TestUsageStored(t *testing.T) {
	path := dbPath(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	rows := func(s *Store) (n int) {
		t.Helper()
		if err := s.view(t.Context(), func(v *session) error { return v.row(`SELECT count(*) FROM usage`, nil, &n) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	want := func(s *Store, when string, known bool) {
		t.Helper()
		if got := s.writer.usage.current.Load() != nil; got != known {
			t.Errorf("%s: the number is known: %t, want %t", when, got, known)
		}
		if got, err := s.Usage(t.Context()); err != nil || got != countUsage(t, s) {
			t.Errorf("%s: Usage = %+v, %v, want %+v", when, got, err, countUsage(t, s))
		}
	}
	insert := func(s *Store) {
		t.Helper()
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{randomEntry(0, now)}}); err != nil {
			t.Fatal(err)
		}
	}
	s := openUnsynced(t, path)
	insert(s)
	want(s, "new", true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openUnsynced(t, path)
	want(s, "closed in order", true)
	if rows(s) != 1 {
		t.Error("an orderly close has stored no number")
	}
	insert(s)
	if rows(s) != 0 {
		t.Error("a number is stored that is not true any more")
	}
	want(s, "changed", true)
	crashed := filepath.Join(t.TempDir(), "queue.db")
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(crashed+end, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := openUnsynced(t, crashed)
	want(c, "after a crash", false)
	want(c, "counted", true)
	insert(c)
	want(c, "changed after a crash", true)
}
