package storetest

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"mailsidecar/queue"
)

// Noting is what [RunNotes] tests of a [queue.SharedStore].
type Noting interface {
	Notes(ctx context.Context, kind string) (notes map[string][]byte, now time.Time, err error)
	ChangeNote(ctx context.Context, kind, name string, change func(value []byte, now time.Time) []byte) error
}

var _ Noting = queue.SharedStore(nil)

// RunNotes tests notes. open returns two instances of one empty store.
func RunNotes(t *testing.T, open func(*testing.T) (a, b Noting)) {
	t.Run("Notes", func(t *testing.T) {
		a, b := open(t)
		testNotes(t, a, b)
	})
	t.Run("NotesAtOnce", func(t *testing.T) {
		a, b := open(t)
		testNotesAtOnce(t, a, b)
	})
}

// testNotes: what one instance notes the other one sees, and changes.
func testNotes(t *testing.T, a, b Noting) {
	change := func(s Noting, kind, name, want, to string) {
		t.Helper()
		var before string
		var at time.Time
		if err := s.ChangeNote(t.Context(), kind, name, func(value []byte, now time.Time) []byte {
			before, at = string(value), now
			return []byte(to)
		}); err != nil || before != want || time.Since(at).Abs() > time.Minute {
			t.Errorf("ChangeNote(%s, %s) of %q at %v, %v, want it of %q", kind, name, before, at, err, want)
		}
	}
	want := func(s Noting, kind string, want map[string]string) {
		t.Helper()
		notes, now, err := s.Notes(t.Context(), kind)
		if err != nil || time.Since(now).Abs() > time.Minute {
			t.Fatalf("Notes(%s) at %v, %v", kind, now, err)
		}
		got := map[string]string{}
		for name, value := range notes {
			got[name] = string(value)
		}
		wantDiff(t, "Notes", got, want)
	}
	want(a, "k", map[string]string{})
	change(a, "k", "one", "", "1")
	change(b, "k", "two", "", "\x00\xff")
	change(b, "other", "one", "", "other")
	change(b, "k", "one", "1", "1 and more")
	change(a, "k", "one", "1 and more", "1 and more")
	want(a, "k", map[string]string{"one": "1 and more", "two": "\x00\xff"})
	change(b, "k", "one", "1 and more", "")
	change(b, "k", "none", "", "")
	want(a, "k", map[string]string{"two": "\x00\xff"})
	change(a, "k", "one", "", "again")
	want(b, "k", map[string]string{"one": "again", "two": "\x00\xff"})
	want(b, "other", map[string]string{"one": "other"})
}

// testNotesAtOnce: no change of a note is lost, and its time never goes back.
func testNotesAtOnce(t *testing.T, a, b Noting) {
	const each = 40
	var wg sync.WaitGroup
	for _, s := range []Noting{a, b, a, b} {
		wg.Go(func() {
			for range each {
				if err := s.ChangeNote(context.Background(), "k", "n", func(value []byte, now time.Time) []byte {
					var n, last uint64
					if len(value) == 16 {
						n, last = binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:])
					}
					at := uint64(now.UnixMicro())
					if at < last {
						t.Errorf("a change at %d came after one at %d", at, last)
					}
					return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n+1), at)
				}); err != nil {
					t.Errorf("ChangeNote = %v", err)
				}
			}
		})
	}
	wg.Wait()
	notes, _, err := a.Notes(t.Context(), "k")
	if n := notes["n"]; err != nil || len(n) != 16 || binary.BigEndian.Uint64(n) != 4*each {
		t.Errorf("after %d changes the note is %x, %v", 4*each, n, err)
	}
}
