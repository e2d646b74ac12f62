package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/transfer"
)

// Place is where a store is, or can be, for tests of copies.
type Place struct {
	// Open opens the store as a start does.
	Open func() (queue.Store, error)
	// Side opens it for a copy.
	Side func() (transfer.Side, error)
}

// RunCopy tests copies from stores to stores; from and to return a new place each time.
func RunCopy(t *testing.T, from, to func(*testing.T) Place) {
	t.Run("All", func(t *testing.T) { testCopyAll(t, from(t), to(t)) })
	t.Run("CutShort", func(t *testing.T) { testCopyCutShort(t, from(t), to(t)) })
	t.Run("TakenOver", func(t *testing.T) { testCopyTakenOver(t, from(t), to(t)) })
	t.Run("Refused", func(t *testing.T) { testCopyRefused(t, from, to) })
}

// openAt opens a store that must start, until the test ends or it is closed before.
func (p Place) openAt(t *testing.T) queue.Store {
	t.Helper()
	s, err := p.Open()
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// starts says whether a start may use the store.
func (p Place) starts(t *testing.T) error {
	t.Helper()
	s, err := p.Open()
	if err != nil {
		return err
	}
	return s.Close()
}

func (p Place) sideAt(t *testing.T) transfer.Side {
	t.Helper()
	s, err := p.Side()
	if err != nil {
		t.Fatalf("open for a copy = %v", err)
	}
	return s
}

func (p Place) size(t *testing.T) transfer.Size {
	t.Helper()
	s := p.sideAt(t)
	n, err := s.Size(t.Context())
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// copyTo copies, by sides that wrap turns into others.
func (p Place) copyTo(t *testing.T, to Place, wrap func(transfer.Side) transfer.Side) (transfer.Report, error) {
	t.Helper()
	a, b := p.sideAt(t), to.sideAt(t)
	r, err := transfer.Copy(t.Context(), wrap(a), wrap(b), false, func(transfer.Progress) {})
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	return r, err
}

func asItIs(s transfer.Side) transfer.Side { return s }

// filled is a store with one of everything, and how it looks.
type filled struct {
	now      time.Time
	keys     []queue.Idempotency
	messages int64
}

// fill makes messages of every kind.
func (p Place) fill(t *testing.T, seed uint64) (f filled) {
	t.Helper()
	s := p.openAt(t)
	f.now = Churn(t, s, seed, Start)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte("0123456789abcdef\x00\xff\r\n"), 60_000)
	for i, data := range [][]byte{[]byte("x"), large[:7600], large[:300_000], large} {
		e := entry(f.now.Sub(Start), "a@example.org", "b@example.org")
		e.Message.Subject = fmt.Sprintf("%d \x00 \xff\xfe \u2028 %s", i, strings.Repeat("ü", i))
		e.Message.Tags = map[string]string{"n": "\x00 <&>", "m": fmt.Sprint(i)}
		e.Message.Size, e.Content.Data = int64(len(data)), data
		e.Message.SendAt = f.now.Add(time.Hour)
		e.Due = e.Message.SendAt
		e.Message.Envelope.Priority = []mailer.Priority{mailer.PriorityHigh, mailer.PriorityNormal, mailer.PriorityBulk}[i%3]
		key := queue.Idempotency{Key: e.Message.Key, Name: fmt.Sprintf("order-%d", i), Fingerprint: [32]byte{byte(i)}, Expires: f.now.Add(queue.IdempotencyLife)}
		_, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}, Idempotency: &key})
		must(err)
		f.keys = append(f.keys, key)
		if i == 1 {
			again := entry(f.now.Sub(Start)+time.Second, "c@example.org")
			again.Message.ResentOf = e.Message.ID
			insert(t, s, again)
		}
	}
	must(s.SetManualPauses(t.Context(), []queue.ManualPause{{Relay: "two", Since: f.now, Reason: "moving"}, {Relay: "one", Since: f.now, Until: f.now.Add(time.Hour), Reason: "x"}}))
	must(s.Mark(t.Context(), "me", queue.Lease{}, []queue.Turn{{Relay: "one", At: f.now.Add(-time.Minute), Window: time.Hour}}))
	// The last run was killed with something in hand.
	e := entry(f.now.Sub(Start)+2*time.Second, "lost@example.org")
	live(t, s, "killed")
	e.Owner = "killed"
	insert(t, s, e)
	mark(t, s, "killed", e)
	must(s.Close())
	f.messages = p.size(t).Messages
	return f
}

// described is all that can be seen of a store.
func (f filled) described(t *testing.T, s queue.Store) (lines []string) {
	t.Helper()
	for _, m := range allMessages(t, s) {
		content, err := s.Content(t.Context(), queue.AnyKey, m.ID)
		lines = append(lines, fmt.Sprintf("%+v", get(t, s, m.ID)), fmt.Sprintf("%q %v", content.Data, errors.Is(err, queue.ErrContentGone)))
	}
	for _, key := range append(f.keys, queue.Idempotency{Key: "app", Name: "other", Expires: f.now.Add(queue.IdempotencyLife)}) {
		ids, err := s.Replay(t.Context(), key)
		lines = append(lines, fmt.Sprint(key.Name, ids, err))
	}
	usage, err := s.Usage(t.Context())
	stats, err2 := s.Stats(t.Context(), queue.AnyKey, f.now)
	week, err7 := s.Week(t.Context(), queue.AnyKey, f.now)
	backlog, err3 := s.Backlog(t.Context(), f.now)
	turns, err4 := s.Turns(t.Context(), "one", f.now.Add(-time.Hour), 1000)
	pauses, err5 := s.ManualPauses(t.Context())
	waiting, err6 := s.Waiting(t.Context(), f.now)
	if err := errors.Join(err, err2, err3, err4, err5, err6, err7); err != nil {
		t.Fatal(err)
	}
	return append(lines, fmt.Sprintf("%+v", usage), fmt.Sprint(recite(stats)), fmt.Sprintf("%+v", backlog), fmt.Sprint(turns), fmt.Sprintf("%+v", pauses), fmt.Sprintf("%+v", waiting), fmt.Sprintf("%+v", week))
}

// testCopyAll: a queue that has moved looks as it did. What was in hand at a crash is uncertain
// there, and what waits can be claimed.
func testCopyAll(t *testing.T, from, to Place) {
	f := from.fill(t, 7)
	r, err := from.copyTo(t, to, asItIs)
	if err != nil {
		t.Fatalf("Copy = %v", err)
	}
	if r.Messages != f.messages || r.Keys != 4 || r.Attempts == 0 || len(r.Digest) != 64 {
		t.Errorf("Copy = %+v, want %d messages and 4 keys", r, f.messages)
	}
	if err := from.starts(t); !errors.Is(err, transfer.ErrMovedAway) || !strings.Contains(err.Error(), "queue copy --undo") {
		t.Errorf("start on the old store = %v, want %v and the remedy", err, transfer.ErrMovedAway)
	}
	if again, err := from.copyTo(t, to, asItIs); err != nil || !again.Before {
		t.Errorf("the same copy again = %+v, %v, want that it was done before", again, err)
	}
	s := to.openAt(t)
	after := f.described(t, s)
	CheckStats(t, s, f.now)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// How the old one looks shows after its mark is gone.
	side := from.sideAt(t)
	if err := errors.Join(transfer.Undo(t.Context(), side, func(transfer.Mark) error { return nil }), side.Close()); err != nil {
		t.Fatalf("Undo = %v", err)
	}
	old := from.openAt(t)
	before := f.described(t, old)
	_ = old.Close()
	wantDiff(t, "the copy", clean(after), clean(before))
	if all := strings.Join(after, "\n"); !strings.Contains(all, "the service ended while this was in hand") {
		t.Error("what was in hand has no uncertain attempt")
	}
	s = to.openAt(t)
	recoverAll(t, s, "me", f.now, false)
	var claimed int
	for _, w := range (&churner{t: t, s: s, rng: rand.New(rand.NewPCG(1, 1)), now: f.now.Add(2 * time.Hour)}).claim("me") { //nolint:gosec // the same again
		claimed += len(w.Recipients)
	}
	if claimed == 0 {
		t.Error("nothing can be claimed from the copy")
	}
}

// clean is what both kinds of stores can show of a text.
func clean(lines []string) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		all[i] = transfer.Text(line)
	}
	return all
}

// errCut is what a copy ends with that is cut short.
var errCut = errors.New("cut")

// cutting is a side whose last call fails, before it has any effect, or after.
type cutting struct {
	transfer.Side
	left  *int
	after bool
}

func (c cutting) cut(f func() error) error {
	*c.left--
	if *c.left == 0 && !c.after {
		return errCut
	}
	if err := f(); err != nil || *c.left != 0 {
		return err
	}
	return errCut
}

func (c cutting) SetMark(ctx context.Context, was, now transfer.Mark) error {
	return c.cut(func() error { return c.Side.SetMark(ctx, was, now) })
}

func (c cutting) Put(ctx context.Context, mark transfer.Mark, r transfer.Rows) error {
	return c.cut(func() error { return c.Side.Put(ctx, mark, r) })
}

func (c cutting) PutRest(ctx context.Context, mark transfer.Mark, r transfer.Rest) error {
	return c.cut(func() error { return c.Side.PutRest(ctx, mark, r) })
}

// testCopyCutShort: whenever a copy is cut short, and however often, no store starts that has
// only a part, or whose mail may be sent from the other one; and the copy ends with
// each message, once.
func testCopyCutShort(t *testing.T, from, to Place) {
	f := from.fill(t, 8)
	chance := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same again
	seen := map[string]bool{}
	for cuts := 0; ; cuts++ {
		left, after := 1+cuts%9, chance.IntN(2) == 0
		if cuts == 60 {
			t.Fatal("the copy does not end")
		}
		_, err := from.copyTo(t, to, func(s transfer.Side) transfer.Side { return cutting{small{s}, &left, after} })
		if err == nil {
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("copy %d = %v", cuts, err)
		}
		errFrom, errTo := from.starts(t), to.starts(t)
		n := to.size(t).Messages
		switch {
		case errFrom == nil && n == 0:
			seen["before"] = true
		case errors.Is(errFrom, transfer.ErrMovedAway) && errors.Is(errTo, transfer.ErrUnfinished):
			seen["under way"] = true
		case errors.Is(errFrom, transfer.ErrMovedAway) && errTo == nil && (n == 0 || n == f.messages):
			seen["at an end"] = true
		default:
			t.Errorf("after cut %d the old store says %v, the new one with %d messages of %d %v", cuts, errFrom, n, f.messages, errTo)
		}
	}
	if !seen["under way"] {
		t.Errorf("the copy was cut at %v, want under way too", seen)
	}
	if n := to.size(t).Messages; n != f.messages {
		t.Errorf("the copy has %d messages, want %d", n, f.messages)
	}
	if errFrom, errTo := from.starts(t), to.starts(t); !errors.Is(errFrom, transfer.ErrMovedAway) || errTo != nil {
		t.Errorf("afterwards the old store says %v, the new one %v", errFrom, errTo)
	}
}

// testCopyTakenOver: who does not know the mark of a store changes nothing there.
func testCopyTakenOver(t *testing.T, from, to Place) {
	from.fill(t, 10)
	a, b := from.sideAt(t), to.sideAt(t)
	defer a.Close() //nolint:errcheck // the end of the test
	defer b.Close() //nolint:errcheck // the end of the test
	source := func(name string) transfer.Mark {
		return transfer.Mark{Role: transfer.Source, Copy: name, Peer: "x", At: Start}
	}
	target := func(name string) transfer.Mark {
		return transfer.Mark{Role: transfer.Target, Copy: name, Peer: "x", At: Start}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	late := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, transfer.ErrTakenOver) {
			t.Errorf("%s = %v, want %v", what, err, transfer.ErrTakenOver)
		}
	}
	must(a.Settle(t.Context(), false))
	must(a.SetMark(t.Context(), transfer.Mark{}, source("one")))
	must(b.SetMark(t.Context(), transfer.Mark{}, target("one")))
	late("SetMark of one that found none", a.SetMark(t.Context(), transfer.Mark{}, source("two")))
	done := source("one")
	done.Done = true
	late("SetMark of one that found it done", a.SetMark(t.Context(), done, transfer.Mark{}))
	rows, err := a.Read(t.Context(), transfer.Messages, transfer.Position{})
	must(err)
	rest, err := a.ReadRest(t.Context())
	must(err)
	late("Put of another copy", b.Put(t.Context(), target("two"), rows))
	late("PutRest of another copy", b.PutRest(t.Context(), target("two"), rest))
	if size, err := b.Size(t.Context()); err != nil || size != (transfer.Size{}) {
		t.Errorf("the target has %+v, %v, want nothing", size, err)
	}
	late("Undo of what was done meanwhile", transfer.Undo(t.Context(), a, func(transfer.Mark) error { return a.SetMark(t.Context(), source("one"), done) }))
	must(b.Put(t.Context(), target("one"), rows))
	must(a.SetMark(t.Context(), done, transfer.Mark{}))
	if m, err := a.Mark(t.Context()); err != nil || m.Role != "" {
		t.Errorf("mark = %+v, %v, want none", m, err)
	}
}

// small is a side that reads few rows at a time.
type small struct{ transfer.Side }

func (s small) Read(ctx context.Context, t transfer.Table, after transfer.Position) (transfer.Rows, error) {
	const few = 40
	rows, err := s.Side.Read(ctx, t, after)
	rows.Messages = rows.Messages[:min(few, len(rows.Messages))]
	rows.Attempts = rows.Attempts[:min(few, len(rows.Attempts))]
	rows.Keys = rows.Keys[:min(few, len(rows.Keys))]
	return rows, err
}

// testCopyRefused: what a copy must not touch.
func testCopyRefused(t *testing.T, from, to func(*testing.T) Place) {
	a, b := from(t), to(t)
	a.fill(t, 9)
	insertOne := func(p Place) {
		s := p.openAt(t)
		insert(t, s, entry(0, "a@example.org"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	insertOne(b)
	if _, err := a.copyTo(t, b, asItIs); !errors.Is(err, transfer.ErrNotEmpty) {
		t.Errorf("copy into a queue with mail = %v, want %v", err, transfer.ErrNotEmpty)
	}
	if err := a.starts(t); err != nil {
		t.Errorf("the refused copy has marked the old store: %v", err)
	}
	c := to(t)
	if _, err := a.copyTo(t, c, asItIs); err != nil {
		t.Fatalf("Copy = %v", err)
	}
	if _, err := a.copyTo(t, to(t), asItIs); !errors.Is(err, transfer.ErrMovedAway) {
		t.Errorf("copy of what was copied elsewhere = %v, want %v", err, transfer.ErrMovedAway)
	}
	if _, err := c.copyTo(t, a, asItIs); !errors.Is(err, transfer.ErrMovedAway) {
		t.Errorf("copy back into the old store = %v, want %v", err, transfer.ErrMovedAway)
	}
	d := from(t)
	if _, err := c.copyTo(t, d, asItIs); err != nil {
		t.Errorf("a second move = %v", err)
	}
	if err := d.starts(t); err != nil {
		t.Errorf("start after the second move: %v", err)
	}
	side := d.sideAt(t)
	if err := errors.Join(side.Close()); err != nil {
		t.Fatal(err)
	}
	side = b.sideAt(t)
	if err := transfer.Undo(t.Context(), side, func(transfer.Mark) error { return nil }); !errors.Is(err, transfer.ErrNotCopied) {
		t.Errorf("Undo of a queue that was not copied = %v, want %v", err, transfer.ErrNotCopied)
	}
	if err := side.Close(); err != nil {
		t.Fatal(err)
	}
}
