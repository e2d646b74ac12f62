// Package storetest is the conformance suite of queue.Store: what every store
// promises, whatever it is made of.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// Start is the time that the suite's clock begins at.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)

// Retention is how long the store under test must keep what is final, and not
// keep the bytes of what was delivered.
const Retention = 48 * time.Hour

// Run runs the suite. open returns an empty store each time; reopen closes one
// and opens it again, as a restart does.
func Run(t *testing.T, open func(*testing.T) queue.Store, reopen func(*testing.T, queue.Store) queue.Store) {
	tests := map[string]func(*testing.T, queue.Store){
		"Insert":          testInsert,
		"InsertMany":      testInsertMany,
		"Content":         testContent,
		"Idempotency":     testIdempotency,
		"Claim":           testClaim,
		"ClaimConcurrent": testClaimConcurrent,
		"Lanes":           testLanes,
		"LanesAgain":      testLanesAgain,
		"RecordPartial":   testRecordPartial,
		"RecordLost":      testRecordLost,
		"Attempts":        testAttempts,
		"Release":         testRelease,
		"RecoverRetry":    testRecoverRetry,
		"RecoverHold":     testRecoverHold,
		"RecoverMany":     testRecoverMany,
		"Waiting":         testWaiting,
		"Expire":          testExpire,
		"Rewind":          testRewind,
		"RewindMany":      testRewindMany,
		"ReleaseSetBack":  testReleaseSetBack,
		"List":            testList,
		"ListByState":     testListByState,
		"ListByReply":     testListByReply,
		"ListByRecipient": testListByRecipient,
		"ListByID":        testListByID,
		"ListBySubject":   testListBySubject,
		"Kept":            testKept,
		"Many attempts":   testManyAttempts,
		"Retry":           testRetry,
		"RetryLifetime":   testRetryLifetime,
		"Cancel":          testCancel,
		"CancelMany":      testCancelMany,
		"CancelInHand":    testCancelInHand,
		"CancelReleased":  testCancelReleased,
		"Reschedule":      testReschedule,
		"Resent":          testResent,
		"Usage":           testUsage,
		"Sweep":           testSweep,
		"Contexts":        testContexts,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { _ = s.Close() })
			test(t, s)
		})
	}
	t.Run("Reopen", func(t *testing.T) { testReopen(t, open(t), reopen) })
	lasting := map[string]func(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store){
		"ManualPauses":   testManualPauses,
		"Backlog":        testBacklog,
		"Turns":          testTurns,
		"TurnsLost":      testTurnsLost,
		"Crashes":        testCrashes,
		"Unfinished":     testUnfinished,
		"LongUnfinished": testLongUnfinished,
		"Suspects":       testSuspects,
		"Blame":          testBlame,
		"BlameHold":      testBlameHold,
		"Kills":          testKills,
		"Unmarked":       testUnmarked,
		"Taken":          testTaken,
		"TakenLost":      testTakenLost,
		"Stats":          testStats,
		"Week":           testWeek,
	}
	for name, test := range lasting {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { _ = s.Close() })
			test(t, s, func(old queue.Store) queue.Store {
				s = reopen(t, old)
				return s
			})
		})
	}
}

// entry returns a message for the recipients, accepted d after Start.
func entry(d time.Duration, to ...string) queue.Entry {
	created := Start.Add(d)
	data := []byte("Subject: x\r\n\r\nhello\r\n")
	e := queue.Entry{
		Message: queue.Message{
			ID: idOf(created), Key: "app", MessageID: "<1@example.com>", Sender: "shop@example.com", Subject: "Grüße",
			Size: int64(len(data)), Tags: map[string]string{"order": "7"},
			Envelope: mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: to},
			Created:  created, Expires: created.Add(5 * 24 * time.Hour),
		},
		Content: mailer.Content{Data: data, MessageID: "<1@example.com>", EightBit: true},
		Route:   "relay", Due: created,
	}
	for _, path := range to {
		e.Message.Recipients = append(e.Message.Recipients, queue.Recipient{ForwardPath: path, State: queue.Queued, NextAttempt: created})
	}
	return e
}

// Entry returns a message for the recipients, accepted d after [Start].
func Entry(d time.Duration, to ...string) queue.Entry { return entry(d, to...) }

// idOf returns a new id whose time is t.
func idOf(t time.Time) string {
	u := uuid.New()
	ms := uint64(t.UnixMilli()) // after 1970
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	return u.String()
}

func insert(t *testing.T, s queue.Store, entries ...queue.Entry) {
	t.Helper()
	if replayed, err := s.Insert(t.Context(), queue.Batch{Entries: entries}); err != nil || replayed != nil {
		t.Fatalf("Insert = %v, %v, want nil, nil", replayed, err)
	}
}

func get(t *testing.T, s queue.Store, id string) queue.Message {
	t.Helper()
	m, err := s.Get(t.Context(), queue.AnyKey, id)
	if err != nil {
		t.Fatalf("Get(%s) = %v", id, err)
	}
	return m
}

func claim(t *testing.T, s queue.Store, now time.Time, limit int) []queue.Work {
	t.Helper()
	return claimFor(t, s, "me", now, limit)
}

// claimFor leases up to limit messages to the owner: first those that the relay may have
// taken.
func claimFor(t *testing.T, s queue.Store, owner string, now time.Time, limit int) (works []queue.Work) {
	t.Helper()
	for _, route := range []string{queue.TakenRoute("relay"), queue.Unfiled, "relay"} {
		if limit -= len(works); limit <= 0 {
			break
		}
		more, err := s.Claim(t.Context(), owner, now, []queue.Want{{Route: route, Lane: queue.Lane{Key: "app"}, Limit: limit}})
		if err != nil {
			t.Fatalf("Claim = %v", err)
		}
		works = append(works, more...)
	}
	return works
}

// mark notes that the message is about to be sent to the relay.
func mark(t *testing.T, s queue.Store, owner string, e queue.Entry) {
	t.Helper()
	live(t, s, owner)
	l := queue.Lease{ID: e.Message.ID, Route: queue.TakenRoute("relay"), ForwardPaths: e.Message.Envelope.ForwardPaths}
	if err := s.Mark(t.Context(), owner, l, nil); err != nil {
		t.Fatalf("Mark = %v", err)
	}
}

// live says that the owner lives: no other one marks anything.
func live(t *testing.T, s queue.Store, owner string) {
	t.Helper()
	if err := s.Heartbeat(t.Context(), owner, Start); err != nil {
		t.Fatalf("Heartbeat = %v", err)
	}
}

// leave ends the owner, with what it has leased, so that another one need not wait until it
// is taken for gone.
func leave(t *testing.T, s queue.Store, owner string) {
	t.Helper()
	if err := s.End(t.Context(), owner); err != nil {
		t.Fatalf("End = %v", err)
	}
}

func record(t *testing.T, s queue.Store, o queue.Outcome) queue.Settled {
	t.Helper()
	if o.Owner == "" {
		o.Owner = "me"
	}
	o.Route = "relay"
	settled, err := s.Record(t.Context(), []queue.Outcome{o})
	if err != nil {
		t.Fatalf("Record = %v", err)
	}
	return settled
}

// finish claims the message and gives all its recipients the state.
func finish(t *testing.T, s queue.Store, e queue.Entry, state queue.State, at time.Time) {
	t.Helper()
	if works := claim(t, s, at, 1000); len(works) == 0 {
		t.Fatal("Claim = nothing, want work")
	}
	o := queue.Outcome{ID: e.Message.ID, At: at}
	for _, path := range e.Message.Envelope.ForwardPaths {
		o.Changes = append(o.Changes, queue.Change{ForwardPath: path, State: state, Next: at.Add(time.Hour), Tries: 1})
	}
	record(t, s, o)
}

func states(m queue.Message) string {
	var s []string
	for _, r := range m.Recipients {
		s = append(s, string(r.State))
	}
	return strings.Join(s, " ")
}

func wantStates(t *testing.T, s queue.Store, e queue.Entry, want string, status queue.Status) {
	t.Helper()
	m := get(t, s, e.Message.ID)
	if states(m) != want || m.Status() != status {
		t.Errorf("states = %s (%s), want %s (%s)", states(m), m.Status(), want, status)
	}
	page, err := s.List(t.Context(), queue.Filter{Key: queue.AnyKey, Status: status}, 100, "")
	if err != nil || !slices.ContainsFunc(page.Messages, func(l queue.Message) bool { return l.ID == e.Message.ID }) {
		t.Errorf("List(%s) = %d messages, %v, want this one among them", status, len(page.Messages), err)
	}
}

func wantDiff(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func testInsert(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org")
	e.Message.SendAt = Start.Add(time.Hour)
	insert(t, s, e)
	wantDiff(t, "Get", get(t, s, e.Message.ID), e.Message)
	for _, c := range []struct{ key, id string }{{"other", e.Message.ID}, {"app", idOf(Start)}, {"app", "x"}, {"app", ""}} {
		if _, err := s.Get(t.Context(), c.key, c.id); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Get(%q, %q) = %v, want ErrNotFound", c.key, c.id, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late := entry(0, "a@example.org")
	if _, err := s.Insert(ctx, queue.Batch{Entries: []queue.Entry{late}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Insert(ended context) = %v, want context.Canceled", err)
	}
	if _, err := s.Get(t.Context(), "app", late.Message.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("Get after a failed Insert = %v, want ErrNotFound", err)
	}
}

func testInsertMany(t *testing.T, s queue.Store) {
	var to []string
	for i := range 131 {
		to = append(to, fmt.Sprintf("r%d@example.org", i))
	}
	many := entry(0, to...)
	insert(t, s, many, entry(time.Second, "a@example.org"))
	wantDiff(t, "recipients", get(t, s, many.Message.ID).Envelope.ForwardPaths, to)

	// All or none: the second id is taken.
	first, twice := entry(0, "a@example.org"), entry(0, "a@example.org")
	twice.Message.ID = many.Message.ID
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{first, twice}}); err == nil {
		t.Error("Insert(taken id) = nil, want an error")
	}
	if _, err := s.Get(t.Context(), "app", first.Message.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("Get of half a batch = %v, want ErrNotFound", err)
	}
}

func testContent(t *testing.T, s queue.Store) {
	for _, size := range []int{2, 255 << 10, 256 << 10, 1<<20 + 1} {
		e := entry(0, "a@example.org")
		e.Content.Data = bytes.Repeat([]byte{'x', 0xff}, size/2+1)[:size]
		e.Content.UTF8Header = size == 2
		e.Message.Size = int64(size)
		insert(t, s, e)
		for _, key := range []string{"app", queue.AnyKey} {
			c, err := s.Content(t.Context(), key, e.Message.ID)
			if err != nil || !bytes.Equal(c.Data, e.Content.Data) || c.EightBit != e.Content.EightBit || c.UTF8Header != e.Content.UTF8Header || c.MessageID != e.Content.MessageID {
				t.Errorf("Content(%q) of %d octets = %d octets, %v", key, size, len(c.Data), err)
			}
		}
		if _, err := s.Content(t.Context(), "other", e.Message.ID); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Content(other key) = %v, want ErrNotFound", err)
		}
	}
}

func testIdempotency(t *testing.T, s queue.Store) {
	batch := func(key, name string, print byte, at time.Duration) queue.Batch {
		return queue.Batch{
			Entries:     []queue.Entry{entry(at, "a@example.org"), entry(at, "b@example.org")},
			Idempotency: &queue.Idempotency{Key: key, Name: name, Fingerprint: [32]byte{print}, Expires: Start.Add(at + 24*time.Hour)},
		}
	}
	first := batch("app", "x", 1, 0)
	ids := []string{first.Entries[0].Message.ID, first.Entries[1].Message.ID}
	tests := []struct {
		name string
		b    queue.Batch
		want []string
		err  error
	}{
		{"first", first, nil, nil},
		{"same", batch("app", "x", 1, time.Hour), ids, nil},
		{"other request", batch("app", "x", 2, time.Hour), nil, queue.ErrIdempotencyMismatch},
		{"other key", batch("app2", "x", 2, time.Hour), nil, nil},
		{"other name", batch("app", "y", 2, time.Hour), nil, nil},
		{"just within its life", batch("app", "x", 1, 24*time.Hour-time.Second), ids, nil},
		{"after its life", batch("app", "x", 3, 24*time.Hour+time.Second), nil, nil},
	}
	for _, c := range tests {
		got, err := s.Replay(t.Context(), *c.b.Idempotency)
		if !errors.Is(err, c.err) || !slices.Equal(got, c.want) {
			t.Errorf("%s: Replay = %v, %v, want %v, %v", c.name, got, err, c.want, c.err)
		}
		got, err = s.Insert(t.Context(), c.b)
		if !errors.Is(err, c.err) || !slices.Equal(got, c.want) {
			t.Errorf("%s: Insert = %v, %v, want %v, %v", c.name, got, err, c.want, c.err)
		}
		stored := c.want == nil && c.err == nil
		if _, err := s.Get(t.Context(), queue.AnyKey, c.b.Entries[1].Message.ID); (err == nil) != stored {
			t.Errorf("%s: Get = %v, want stored %v", c.name, err, stored)
		}
	}
}

// checkSince: Claim says since when a message waits: since it was accepted, or was to be sent.
func checkSince(t *testing.T, s queue.Store) {
	t.Helper()
	at := Start.Add(-time.Hour)
	plain, scheduled, past := entry(-time.Hour, "a@example.org"), entry(-time.Hour, "a@example.org"), entry(-time.Hour, "a@example.org")
	scheduled.Message.SendAt, past.Message.SendAt = Start, at.Add(-time.Hour)
	want := map[string]time.Time{plain.Message.ID: at, scheduled.Message.ID: Start, past.Message.ID: at}
	for _, e := range []*queue.Entry{&plain, &scheduled, &past} {
		e.Message.Created, e.Due, e.Route = at, at, "since"
	}
	insert(t, s, plain, scheduled, past)
	works, err := s.Claim(t.Context(), "me", Start, []queue.Want{{Route: "since", Lane: queue.Lane{Key: "app"}, Limit: 9}})
	if err != nil || len(works) != 3 {
		t.Fatalf("Claim = %v, %v, want 3", works, err)
	}
	for _, w := range works {
		if !w.Since.Equal(want[w.ID]) {
			t.Errorf("Claim: since %v, want %v", w.Since, want[w.ID])
		}
	}
}

func testClaim(t *testing.T, s queue.Store) {
	checkSince(t, s)
	late, early, other := entry(2*time.Second, "a@example.org"), entry(time.Second, "a@example.org", "b@example.org"), entry(0, "a@example.org")
	other.Route = "elsewhere"
	leased := entry(0, "a@example.org")
	leased.Owner = "me"
	insert(t, s, late, early, other, leased)

	if works := claim(t, s, Start.Add(999*time.Millisecond), 10); len(works) != 0 {
		t.Errorf("Claim before anything is due = %v, want nothing", works)
	}
	works := claim(t, s, Start.Add(time.Minute), 1)
	if len(works) != 1 || works[0].Lease <= queue.FirstLease {
		t.Fatalf("Claim = %+v, want one message, with a lease that Insert does not give", works)
	}
	want := []queue.Work{{
		ID: early.Message.ID, MessageID: "<1@example.com>", Sender: "shop@example.com", Route: "relay", Key: "app", Size: early.Message.Size, EightBit: true,
		Expires: early.Message.Expires, Since: early.Message.Created, Envelope: early.Message.Envelope,
		Recipients: []queue.Leased{{ForwardPath: "a@example.org", State: queue.Queued}, {ForwardPath: "b@example.org", State: queue.Queued}},
	}}
	want[0].Lease = works[0].Lease
	wantDiff(t, "Claim", works, want)
	if works = claim(t, s, Start.Add(time.Minute), 10); len(works) != 1 || works[0].ID != late.Message.ID {
		t.Errorf("Claim = %v, want the later message only", works)
	}
	if works = claim(t, s, Start.Add(time.Minute), 10); len(works) != 0 {
		t.Errorf("Claim of what is leased = %v, want nothing", works)
	}
}

// in is entry in a lane.
func in(l queue.Lane, d time.Duration) queue.Entry {
	e := entry(d, "a@example.org")
	e.Message.Key, e.Message.Envelope.Priority = l.Key, l.Priority
	return e
}

// testLanes: each lane is claimed by itself, in the order wanted, and nothing
// but what is wanted.
func testLanes(t *testing.T, s queue.Store) {
	high, normal, bulk := queue.Lane{Priority: mailer.PriorityHigh, Key: "z"}, queue.Lane{Key: "a"}, queue.Lane{Priority: mailer.PriorityBulk, Key: ""}
	other := queue.Lane{Key: "a%b'c"}
	for i, l := range []queue.Lane{bulk, bulk, bulk, normal, normal, high, other} {
		insert(t, s, in(l, time.Duration(i)*time.Second))
	}
	later := in(queue.Lane{Key: "later"}, time.Hour)
	insert(t, s, later)
	now := Start.Add(time.Minute)
	at := func(l queue.Lane, d time.Duration) queue.LaneDue {
		return queue.LaneDue{Route: "relay", Lane: l, At: Start.Add(d)}
	}
	w, err := s.Waiting(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "Waiting", w.Lanes, []queue.LaneDue{
		at(high, 5*time.Second), at(normal, 3*time.Second), at(other, 6*time.Second), at(queue.Lane{Key: "later"}, time.Hour), at(bulk, 0),
	})
	works, err := s.Claim(t.Context(), "me", now, []queue.Want{
		{Route: "relay", Lane: bulk, Limit: 2},
		{Route: "relay", Lane: normal, Limit: 9},
		{Route: "elsewhere", Lane: normal, Limit: 9},
		{Route: "relay", Lane: other, Limit: 1},
		{Route: "relay", Lane: queue.Lane{Key: "later"}, Limit: 9},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []queue.Lane
	for _, w := range works {
		got = append(got, queue.Lane{Priority: w.Envelope.Priority, Key: w.Key})
	}
	wantDiff(t, "lanes claimed", got, []queue.Lane{bulk, bulk, normal, normal, other})
	w, err = s.Waiting(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "Waiting after that", w.Lanes, []queue.LaneDue{
		at(high, 5*time.Second), at(queue.Lane{Key: "later"}, time.Hour), at(bulk, 2*time.Second),
	})
}

// testLanesAgain: a message keeps its lane, whatever becomes of it.
func testLanesAgain(t *testing.T, s queue.Store) {
	lane := queue.Lane{Priority: mailer.PriorityBulk, Key: "app"}
	want := []queue.Want{{Route: "relay", Lane: lane, Limit: 9}}
	e := in(lane, 0)
	insert(t, s, e)
	now := Start
	steps := []struct {
		name string
		do   func(w queue.Work)
	}{
		{"released", func(w queue.Work) {
			if err := s.Release(t.Context(), "me", Start, []queue.Lease{{ID: w.ID, Route: "relay", ForwardPaths: w.Envelope.ForwardPaths}}); err != nil {
				t.Fatal(err)
			}
		}},
		{"deferred", func(w queue.Work) {
			record(t, s, queue.Outcome{ID: w.ID, At: now, Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Deferred, Next: now, Tries: 1}}})
		}},
		{"bounced and retried", func(w queue.Work) {
			record(t, s, queue.Outcome{ID: w.ID, At: now, Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Bounced, Tries: 2}}})
			if changed, err := s.Retry(t.Context(), "app", []string{w.ID}, now); err != nil || len(changed) != 1 {
				t.Fatalf("Retry = %v, %v", changed, err)
			}
		}},
		{"recovered", func(queue.Work) {
			if _, err := s.Recover(t.Context(), "another", now, false); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, step := range steps {
		works, err := s.Claim(t.Context(), "me", now, want)
		if err != nil || len(works) != 1 {
			t.Fatalf("Claim before it was %s = %v, %v, want the message", step.name, works, err)
		}
		step.do(works[0])
		w, err := s.Waiting(t.Context(), now)
		if err != nil || len(w.Lanes) != 1 || w.Lanes[0].Lane != lane {
			t.Errorf("Waiting after it was %s = %+v, %v, want its lane", step.name, w.Lanes, err)
		}
	}
	if m := get(t, s, e.Message.ID); m.Envelope.Priority != mailer.PriorityBulk {
		t.Errorf("priority = %v, want bulk", m.Envelope.Priority)
	}
}

func testClaimConcurrent(t *testing.T, s queue.Store) {
	for range 40 {
		insert(t, s, entry(0, "a@example.org"))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for {
				works, err := s.Claim(t.Context(), fmt.Sprint("owner", i), Start, []queue.Want{{Route: "relay", Lane: queue.Lane{Key: "app"}, Limit: 3}})
				if err != nil || len(works) == 0 {
					return
				}
				mu.Lock()
				for _, w := range works {
					seen[w.ID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was claimed %d times, want once", id, n)
		}
	}
	if len(seen) != 40 {
		t.Errorf("%d messages were claimed, want 40", len(seen))
	}
}

func testRecordPartial(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org", "c@example.org")
	insert(t, s, e)
	claim(t, s, Start, 1)
	next := Start.Add(time.Minute)
	record(t, s, queue.Outcome{ID: e.Message.ID, At: Start, Changes: []queue.Change{
		{ForwardPath: "a@example.org", State: queue.Delivered},
		{ForwardPath: "b@example.org", State: queue.Bounced},
		{ForwardPath: "c@example.org", State: queue.Deferred, Next: next, Tries: 1},
	}})
	wantStates(t, s, e, "delivered bounced deferred", queue.StatusDeferred)
	if got := get(t, s, e.Message.ID).Recipients[2].NextAttempt; !got.Equal(next) {
		t.Errorf("NextAttempt = %v, want %v", got, next)
	}
	works := claim(t, s, next, 1)
	want := []queue.Leased{{ForwardPath: "c@example.org", State: queue.Deferred, Tries: 1}}
	if len(works) != 1 || !slices.Equal(works[0].Recipients, want) {
		t.Fatalf("Claim = %+v, want one recipient %+v", works, want)
	}
	settled := record(t, s, queue.Outcome{ID: e.Message.ID, At: next, Changes: []queue.Change{{ForwardPath: "c@example.org", State: queue.Delivered}}})
	if want := (queue.Settled{Messages: 1, Bytes: e.Message.Size}); settled != want {
		t.Errorf("Record = %+v, want %+v", settled, want)
	}
	wantStates(t, s, e, "delivered bounced delivered", queue.StatusPartial)
	if _, err := s.Content(t.Context(), "app", e.Message.ID); err != nil {
		t.Errorf("Content of a message with a bounced recipient = %v, want its bytes", err)
	}

	done := entry(0, "a@example.org")
	insert(t, s, done)
	finish(t, s, done, queue.Delivered, Start)
	if _, err := s.Content(t.Context(), "app", done.Message.ID); !errors.Is(err, queue.ErrContentGone) {
		t.Errorf("Content of a delivered message = %v, want ErrContentGone", err)
	}
}

// testRecordLost: an instance that was thought gone reports after all.
func testRecordLost(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org")
	insert(t, s, e)
	claim(t, s, Start, 1)
	record(t, s, queue.Outcome{ID: e.Message.ID, Owner: "gone", At: Start, Changes: []queue.Change{
		{ForwardPath: "a@example.org", State: queue.Delivered},
		{ForwardPath: "b@example.org", State: queue.Bounced},
	}})
	wantStates(t, s, e, "delivered queued", queue.StatusDeferred)
}

func testAttempts(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org")
	insert(t, s, e)
	refused := &mailer.Failure{
		Class: mailer.ClassPermanent, Stage: mailer.StageRcpt, Reply: mailer.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"},
		Relay: "two", Port: 2525, Text: "refused",
	}
	attempts := []mailer.Attempt{{
		Relay: "one", Why: "key, first", Started: Start, Duration: 300 * time.Millisecond,
		Ladder: []mailer.RungReport{{Rung: mailer.Rung{Port: 587}, Duration: time.Millisecond, Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "no answer"}}},
		Results: []mailer.Result{
			{ForwardPath: "a@example.org", Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "no answer"}},
			{ForwardPath: "b@example.org", Failure: &mailer.Failure{Class: mailer.ClassUncertain, Stage: mailer.StageContent, Text: "no reply"}},
		},
	}, {
		Relay: "two", Why: "failover: one failed", Rung: mailer.Rung{Port: 465, Implicit: true}, TLS: "TLS 1.3", Auth: "PLAIN", Started: Start.Add(time.Second), Duration: time.Millisecond,
		Ladder: []mailer.RungReport{{Rung: mailer.Rung{Port: 465, Implicit: true}, Won: true, Duration: time.Millisecond}},
		Results: []mailer.Result{
			{ForwardPath: "a@example.org", Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued as 1"}},
			{ForwardPath: "b@example.org", Reply: refused.Reply, Failure: refused},
		},
	}}
	claim(t, s, Start, 1)
	record(t, s, queue.Outcome{ID: e.Message.ID, At: Start, Attempts: attempts, Changes: []queue.Change{
		{ForwardPath: "a@example.org", State: queue.Deferred, Next: Start, Tries: 1},
		{ForwardPath: "b@example.org", State: queue.Bounced},
	}})
	m := get(t, s, e.Message.ID)
	wantDiff(t, "attempts", m.Attempts, attempts)
	wantDiff(t, "first result", m.Recipients[0].Result, attempts[1].Results[0])
	wantDiff(t, "second result", m.Recipients[1].Result, attempts[1].Results[1])
	if works := claim(t, s, Start, 1); len(works) != 1 || works[0].Recipients[0] != (queue.Leased{ForwardPath: "a@example.org", State: queue.Deferred, Tries: 1, Attempts: 2}) {
		t.Errorf("Claim = %+v, want tries 1, attempts 2", works)
	}
	// A change without an attempt keeps the last reply.
	record(t, s, queue.Outcome{ID: e.Message.ID, At: Start, Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Expired}}})
	wantDiff(t, "result after expiry", get(t, s, e.Message.ID).Recipients[0].Result, attempts[1].Results[0])
}

func testRelease(t *testing.T, s queue.Store) {
	paths := []string{"a@example.org", "b@example.org"}
	e := entry(0, paths...)
	e.Owner = "me"
	insert(t, s, e)
	if err := s.Release(t.Context(), "other", Start, []queue.Lease{{ID: e.Message.ID, Route: "relay", ForwardPaths: paths}}); err != nil {
		t.Fatal(err)
	}
	if works := claim(t, s, Start, 1); len(works) != 0 {
		t.Errorf("Claim after another's release = %v, want nothing", works)
	}
	if err := s.Release(t.Context(), "me", Start, []queue.Lease{{ID: e.Message.ID, Route: "moved", ForwardPaths: paths[:1]}}); err != nil {
		t.Fatal(err)
	}
	works, err := s.Claim(t.Context(), "you", Start, []queue.Want{{Route: "moved", Lane: queue.Lane{Key: "app"}, Limit: 1}})
	if err != nil || len(works) != 1 || !slices.Equal(works[0].Envelope.ForwardPaths, paths[:1]) {
		t.Errorf("Claim on the new route = %v, %v, want the recipient that was released", works, err)
	}
	wantStates(t, s, e, "queued queued", queue.StatusQueued)
}

func testRecoverRetry(t *testing.T, s queue.Store) {
	lost, mine := entry(0, "a@example.org"), entry(0, "a@example.org")
	lost.Owner, mine.Owner = "gone", "me"
	insert(t, s, lost, mine)
	now := Start.Add(24 * time.Hour)
	r, err := s.Recover(t.Context(), "me", now, false)
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "Recover", r, queue.Recovered{Uncertain: 1})
	wantStates(t, s, lost, "deferred", queue.StatusDeferred)
	m := get(t, s, lost.Message.ID)
	if len(m.Attempts) != 1 || m.Recipients[0].Result.Failure.Class != mailer.ClassUncertain {
		t.Errorf("attempts = %+v, want one uncertain", m.Attempts)
	}
	works := claim(t, s, now, 10)
	if len(works) != 1 || works[0].ID != lost.Message.ID {
		t.Errorf("Claim = %+v, want what was lost and nothing else", works)
	}
}

func testRecoverHold(t *testing.T, s queue.Store) {
	marked, not, unknown := entry(0, "a@example.org"), entry(0, "a@example.org"), entry(0, "a@example.org")
	marked.Owner, not.Owner, unknown.Owner = "marks-gone", "marks-gone", "gone"
	insert(t, s, marked, not, unknown)
	mark(t, s, "marks-gone", marked)
	leave(t, s, "marks-gone")
	r, err := s.Recover(t.Context(), "me", Start, true)
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "Recover", r, queue.Recovered{Uncertain: 2, Held: 2, Released: 1})
	wantStates(t, s, marked, "held", queue.StatusHeld)
	wantStates(t, s, unknown, "held", queue.StatusHeld) // its owner does not mark
	wantStates(t, s, not, "queued", queue.StatusQueued)
	if n := len(get(t, s, not.Message.ID).Attempts); n != 0 {
		t.Errorf("attempts of what was not being sent = %d, want 0", n)
	}
	if works := claim(t, s, Start, 10); len(works) != 1 || works[0].ID != not.Message.ID {
		t.Errorf("Claim = %+v, want what was not held", works)
	}
	if changed, err := s.Retry(t.Context(), "app", []string{marked.Message.ID}, Start); err != nil || len(changed) != 1 {
		t.Errorf("Retry(held) = %v, %v, want it", changed, err)
	}
	wantStates(t, s, marked, "deferred", queue.StatusDeferred)
}

// testRecoverMany: a message with more recipients than a store takes at a time
// is recovered as a whole, and so are those beside it.
func testRecoverMany(t *testing.T, s queue.Store) {
	var to []string
	for i := range 1200 {
		to = append(to, fmt.Sprintf("r%d@example.org", i))
	}
	few, many, not := entry(0, to[:3]...), entry(0, to...), entry(0, to[:600]...)
	few.Owner, many.Owner, not.Owner = "marks-gone", "marks-gone", "marks-too"
	insert(t, s, few, many, not)
	for _, e := range []queue.Entry{few, many} {
		mark(t, s, "marks-gone", e)
	}
	leave(t, s, "marks-gone")
	r := recoverAll(t, s, "me", Start, true)
	wantDiff(t, "Recover", r, queue.Recovered{Uncertain: 1203, Held: 1203, Released: 600})
	for _, e := range []queue.Entry{few, many} {
		m := get(t, s, e.Message.ID)
		n := 0
		for _, r := range m.Recipients {
			if r.State == queue.Held {
				n++
			}
		}
		if n != len(m.Recipients) || len(m.Attempts) != 1 || len(m.Attempts[0].Results) != n {
			t.Errorf("%d of %d recipients are held after %d attempts, want all after one", n, len(m.Recipients), len(m.Attempts))
		}
	}
	if works := claim(t, s, Start, 10); len(works) != 1 || works[0].ID != not.Message.ID || len(works[0].Recipients) != 600 {
		t.Errorf("Claim = %d messages, want the one that was not being sent, with all recipients", len(works))
	}
}

// recoverAll has the store recover until nothing more is left.
func recoverAll(t *testing.T, s queue.Store, owner string, now time.Time, hold bool) (total queue.Recovered) {
	t.Helper()
	for more := true; more; {
		step, err := s.Recover(t.Context(), owner, now, hold)
		if err != nil {
			t.Fatalf("Recover = %v", err)
		}
		total.Add(step)
		more = step.More
	}
	return total
}

// rewind has the store rewind to the end.
func rewind(t *testing.T, s queue.Store, latest time.Time) {
	t.Helper()
	for from := ""; ; {
		next, err := s.Rewind(t.Context(), latest, from)
		if err != nil {
			t.Fatalf("Rewind = %v", err)
		}
		if from = next; from == "" {
			return
		}
	}
}

func testWaiting(t *testing.T, s queue.Store) {
	if w, err := s.Waiting(t.Context(), Start); err != nil || len(w.Lanes) != 0 || !w.Expiry.IsZero() {
		t.Errorf("Waiting(empty) = %+v, %v, want nothing", w, err)
	}
	a, b, c, leased := entry(time.Second, "a@example.org"), entry(time.Minute, "a@example.org"), entry(time.Hour, "a@example.org"), entry(0, "a@example.org")
	b.Route, c.Route, leased.Owner = "z", "a", "me"
	insert(t, s, a, b, c, leased)
	w, err := s.Waiting(t.Context(), Start)
	if err != nil {
		t.Fatal(err)
	}
	app := queue.Lane{Key: "app"}
	wantDiff(t, "Waiting", w, queue.Waiting{Expiry: leased.Message.Expires, Lanes: []queue.LaneDue{
		{Route: "a", Lane: app, At: c.Due}, {Route: "relay", Lane: app, At: a.Due}, {Route: "z", Lane: app, At: b.Due},
	}})
	w, err = s.Waiting(t.Context(), leased.Message.Expires)
	if err != nil || !w.Expiry.Equal(a.Message.Expires) {
		t.Errorf("Waiting later: expiry = %v, %v, want %v", w.Expiry, err, a.Message.Expires)
	}
}

func testExpire(t *testing.T, s queue.Store) {
	e, leased, later := entry(0, "a@example.org", "b@example.org"), entry(0, "a@example.org"), entry(time.Hour, "a@example.org")
	leased.Owner = "me"
	insert(t, s, e, leased, later)
	now := e.Message.Expires
	ended, err := s.Expire(t.Context(), now, 10)
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "Expire", ended, []queue.Ended{{
		ID: e.Message.ID, Size: e.Message.Size, Final: true, ReversePath: "bounce@example.com", ForwardPaths: []string{"a@example.org", "b@example.org"},
	}})
	wantStates(t, s, e, "expired expired", queue.StatusFailed)
	wantStates(t, s, leased, "queued", queue.StatusQueued)
	wantStates(t, s, later, "queued", queue.StatusQueued)
}

func testRewind(t *testing.T, s queue.Store) {
	deferred, fresh, held := entry(0, "a@example.org"), entry(time.Second, "b@example.org"), entry(2*time.Second, "c@example.org")
	fresh.Due = Start.Add(24 * time.Hour)
	held.Due, held.Message.SendAt = fresh.Due, fresh.Due
	insert(t, s, deferred)
	claim(t, s, Start, 1)
	record(t, s, queue.Outcome{
		ID: deferred.Message.ID, At: Start, Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Deferred, Next: fresh.Due, Tries: 1}},
		Attempts: []mailer.Attempt{{Started: Start, Results: []mailer.Result{{ForwardPath: "a@example.org"}}}},
	})
	insert(t, s, fresh, held)
	rewind(t, s, Start.Add(time.Hour))
	works := claim(t, s, Start.Add(time.Hour), 10)
	if len(works) != 2 || works[0].ID == held.Message.ID || works[1].ID == held.Message.ID {
		t.Errorf("Claim after Rewind = %+v, want all but the one that send_at holds", works)
	}
}

// testRewindMany: what is due too late is found among much that a send_at holds, in every
// lane and on every route, though one step does not get that far.
func testRewindMany(t *testing.T, s queue.Store) {
	far, latest := Start.Add(24*time.Hour), Start.Add(time.Hour)
	var batch []queue.Entry
	wrong := map[string]bool{}
	for n := range 1500 {
		e := entry(time.Duration(n)*time.Millisecond, "a@example.org")
		e.Message.Key, e.Route = fmt.Sprint("key", n%3), fmt.Sprint("relay", n%2)
		e.Message.Envelope.Priority = mailer.Priority(n%5%3 - 1)
		switch e.Due = far.Add(time.Duration(n%7) * time.Hour); n % 4 {
		case 0:
			wrong[e.Message.ID] = true
		case 1:
			e.Due = latest
		default:
			e.Message.SendAt = e.Due
		}
		batch = append(batch, e)
	}
	insert(t, s, batch...)
	rewind(t, s, latest)
	for _, e := range batch {
		want := e.Due
		if wrong[e.Message.ID] {
			want = latest
		}
		if got := get(t, s, e.Message.ID).Recipients[0].NextAttempt; !got.Equal(want) {
			t.Fatalf("due at %v after Rewind to %v, want %v", got, latest, want)
		}
	}
	rewind(t, s, latest) // nothing is left to be done
}

// testReleaseSetBack: what was leased when the clock was set back is due when its lease
// is given back.
func testReleaseSetBack(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org")
	insert(t, s, e)
	work := claim(t, s, Start, 1)[0]
	lease := queue.Lease{ID: work.ID, Route: "relay", ForwardPaths: []string{"a@example.org"}, Number: work.Lease}
	past := Start.Add(-24 * time.Hour)
	if err := s.Release(t.Context(), "me", past, []queue.Lease{lease}); err != nil {
		t.Fatal(err)
	}
	if works := claim(t, s, past, 1); len(works) != 1 {
		t.Errorf("Claim after the clock was set back = %+v, want the message", works)
	}
}

func testList(t *testing.T, s queue.Store) {
	var all []queue.Entry
	for i := range 7 {
		e := entry(time.Duration(i)*time.Hour, fmt.Sprintf("r%d@Example.org", i), "common@example.org")
		e.Message.Key = []string{"app", "other"}[i/5]
		e.Message.Sender = []string{"Shop@example.com", "news@example.com"}[i%2]
		e.Message.MessageID = fmt.Sprintf("<%d@example.com>", i)
		e.Content.MessageID = e.Message.MessageID
		e.Message.Tags = map[string]string{"n": fmt.Sprint(i), `q"uo$te.d`: "x"}
		all = append(all, e)
	}
	insert(t, s, all...)
	claim(t, s, Start, 1)
	record(t, s, queue.Outcome{ID: all[0].Message.ID, At: Start, Changes: []queue.Change{
		{ForwardPath: "r0@Example.org", State: queue.Bounced}, {ForwardPath: "common@example.org", State: queue.Bounced},
	}})
	tests := []struct {
		f    queue.Filter
		want string
	}{
		{queue.Filter{Key: "app"}, "43210"},
		{queue.Filter{Key: "other"}, "65"},
		{queue.Filter{Key: "nobody"}, ""},
		{queue.Filter{Key: ""}, ""},
		{queue.Filter{Key: queue.AnyKey}, "6543210"},
		{queue.Filter{Key: queue.AnyKey, Status: queue.StatusQueued}, "654321"},
		{queue.Filter{Key: "app", Status: queue.StatusFailed}, "0"},
		{queue.Filter{Key: "app", Recipient: "R3@example.ORG"}, "3"},
		{queue.Filter{Key: "app", Recipient: "common@example.org"}, "43210"},
		{queue.Filter{Key: "app", Sender: "shop@example.com"}, "420"},
		{queue.Filter{Key: "app", MessageID: "<3@example.com>"}, "3"},
		{queue.Filter{Key: "other", MessageID: "<3@example.com>"}, ""},
		{queue.Filter{Key: "app", TagName: "n"}, "43210"},
		{queue.Filter{Key: "app", TagName: "n", TagValue: "2"}, "2"},
		{queue.Filter{Key: "app", TagName: `q"uo$te.d`, TagValue: "x"}, "43210"},
		{queue.Filter{Key: "app", TagName: "m"}, ""},
		{queue.Filter{Key: queue.AnyKey, Since: Start.Add(2 * time.Hour)}, "65432"},
		{queue.Filter{Key: queue.AnyKey, Until: Start.Add(2 * time.Hour)}, "10"},
		{queue.Filter{Key: queue.AnyKey, Since: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)}, "6543210"},
		{queue.Filter{Key: "app", Until: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)}, ""},
		{queue.Filter{Key: "app", Since: Start.Add(3 * time.Hour), Until: Start.Add(2 * time.Hour)}, ""},
		{queue.Filter{Key: queue.AnyKey, Since: Start.Add(2*time.Hour + time.Microsecond), Until: Start.Add(4*time.Hour + time.Microsecond)}, "43"},
	}
	number := map[string]string{}
	for i, e := range all {
		number[e.Message.ID] = fmt.Sprint(i)
	}
	for _, c := range tests {
		for _, limit := range []int{1, 2, 100} {
			got, cursor := "", ""
			for {
				page, err := s.List(t.Context(), c.f, limit, cursor)
				if err != nil || len(page.Messages) > limit {
					t.Fatalf("List(%+v, %d) = %d messages, %v", c.f, limit, len(page.Messages), err)
				}
				for _, m := range page.Messages {
					got += number[m.ID]
					if len(m.Recipients) != 2 {
						t.Errorf("List: message has %d recipients, want 2", len(m.Recipients))
					}
				}
				if cursor = page.Next; cursor == "" {
					break
				}
			}
			if got != c.want {
				t.Errorf("List(%+v) by %d = %s, want %s", c.f, limit, got, c.want)
			}
		}
	}
	for _, cursor := range []string{"x", "!", strings.Repeat("A", 200)} {
		if _, err := s.List(t.Context(), queue.Filter{Key: "app"}, 1, cursor); !errors.Is(err, queue.ErrInvalidCursor) {
			t.Errorf("List(cursor %q) = %v, want ErrInvalidCursor", cursor, err)
		}
	}
}

// testManyAttempts: a look-up returns the last attempts, and says how many come before.
// testListByState: a state selects the messages that have such a recipient, whatever their
// status is.
func testListByState(t *testing.T, s queue.Store) {
	final := []queue.State{queue.Delivered, queue.Bounced, queue.Expired, queue.Canceled}
	want := map[queue.State][]string{}
	for i, a := range append([]queue.State{queue.Deferred, queue.Held}, final...) {
		for j, b := range final {
			e := entry(time.Duration(10*i+j)*time.Second, "a@example.org", "b@example.org")
			insert(t, s, e)
			claim(t, s, e.Due, 1)
			record(t, s, queue.Outcome{ID: e.Message.ID, At: e.Due, Changes: []queue.Change{
				{ForwardPath: "a@example.org", State: a, Next: Start.Add(time.Hour)}, {ForwardPath: "b@example.org", State: b},
			}})
			for _, state := range []queue.State{a, b} {
				if !slices.Contains(want[state], e.Message.ID) {
					want[state] = append([]string{e.Message.ID}, want[state]...)
				}
			}
		}
	}
	for state, ids := range want {
		page, err := s.List(t.Context(), queue.Filter{Key: "app", State: state}, 100, "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range page.Messages {
			got = append(got, m.ID)
		}
		wantDiff(t, "List of "+string(state), got, ids)
	}
	page, err := s.List(t.Context(), queue.Filter{Key: "app", State: queue.Bounced, Status: queue.StatusPartial}, 100, "")
	if err != nil || len(page.Messages) != 2 {
		t.Errorf("List of partial messages with a bounced recipient = %d, %v, want 2", len(page.Messages), err)
	}
}

func testManyAttempts(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org")
	insert(t, s, e)
	for n, c := range []struct{ results, attempts, earlier int }{
		{queue.MaxResults / 2, 1, 0},
		{queue.MaxResults / 2, 2, 0},
		{1, 2, 1},
		{queue.MaxResults + 1, 1, 3},
		{2, 1, 4},
	} {
		results := slices.Repeat([]mailer.Result{{ForwardPath: "a@example.org"}}, c.results)
		at := Start.Add(time.Duration(n) * time.Minute)
		record(t, s, queue.Outcome{ID: e.Message.ID, At: at, Attempts: []mailer.Attempt{{Relay: "relay", Started: at, Results: results}}})
		m, err := s.Get(t.Context(), "app", e.Message.ID)
		if err != nil || len(m.Attempts) != c.attempts || m.EarlierAttempts != c.earlier {
			t.Fatalf("Get after %d attempts = %d and %d earlier, %v, want %d and %d", n+1, len(m.Attempts), m.EarlierAttempts, err, c.attempts, c.earlier)
		}
		if last := m.Attempts[c.attempts-1]; !last.Started.Equal(at) || len(last.Results) != c.results {
			t.Errorf("last attempt = %v with %d results, want %v with %d", last.Started, len(last.Results), at, c.results)
		}
	}
}

func testRetry(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org", "c@example.org", "d@example.org")
	insert(t, s, e)
	claim(t, s, Start, 1)
	record(t, s, queue.Outcome{ID: e.Message.ID, At: Start, Changes: []queue.Change{
		{ForwardPath: "a@example.org", State: queue.Delivered},
		{ForwardPath: "b@example.org", State: queue.Bounced},
		{ForwardPath: "c@example.org", State: queue.Expired},
		{ForwardPath: "d@example.org", State: queue.Canceled},
	}})
	now := Start.Add(40 * time.Hour)
	if changed, err := s.Retry(t.Context(), "other", []string{e.Message.ID}, now); err != nil || len(changed) != 0 {
		t.Errorf("Retry(other key) = %v, %v, want nothing", changed, err)
	}
	changed, err := s.Retry(t.Context(), "app", []string{idOf(Start), e.Message.ID}, now)
	if err != nil || !slices.Equal(changed, []string{e.Message.ID}) {
		t.Errorf("Retry = %v, %v, want %s", changed, err, e.Message.ID)
	}
	wantStates(t, s, e, "delivered deferred deferred canceled", queue.StatusDeferred)
	if got, want := get(t, s, e.Message.ID).Expires, now.Add(5*24*time.Hour); !got.Equal(want) {
		t.Errorf("Expires = %v, want %v", got, want)
	}
	if works := claim(t, s, now, 1); len(works) != 1 || len(works[0].Recipients) != 2 {
		t.Errorf("Claim = %+v, want two recipients", works)
	}
	if changed, err := s.Retry(t.Context(), "app", []string{e.Message.ID}, now); err != nil || len(changed) != 0 {
		t.Errorf("Retry(leased) = %v, %v, want nothing", changed, err)
	}
}

// testRetryLifetime: each retry gives the lifetime that the message had at
// first, however many there are, and never takes from it.
func testRetryLifetime(t *testing.T, s queue.Store) {
	const day = 24 * time.Hour
	plain, held, past := entry(0, "a@example.org"), entry(0, "a@example.org"), entry(0, "a@example.org")
	held.Message.SendAt, held.Message.Expires = Start.Add(10*day), Start.Add(12*day)
	past.Message.SendAt = Start.Add(-365 * day)
	tests := []struct {
		name string
		e    queue.Entry
		at   time.Duration
		want time.Duration
	}{
		{"plain", plain, day, 6 * day},
		{"plain again", plain, 2 * day, 7 * day},
		{"plain a third time", plain, 3 * day, 8 * day},
		{"clock set back", plain, 0, 8 * day},
		{"send_at to come", held, day, 12 * day},
		{"after send_at", held, 11 * day, 13 * day},
		{"send_at long past", past, day, 6 * day},
	}
	insert(t, s, plain, held, past)
	claim(t, s, Start, 10)
	for _, e := range []queue.Entry{plain, held, past} {
		record(t, s, queue.Outcome{ID: e.Message.ID, At: Start, Changes: []queue.Change{
			{ForwardPath: "a@example.org", State: queue.Deferred, Next: Start.Add(time.Hour), Tries: 1},
		}})
	}
	for _, c := range tests {
		changed, err := s.Retry(t.Context(), "app", []string{c.e.Message.ID}, Start.Add(c.at))
		if err != nil || len(changed) != 1 {
			t.Errorf("%s: Retry = %v, %v, want the message", c.name, changed, err)
		}
		if got, want := get(t, s, c.e.Message.ID).Expires, Start.Add(c.want); !got.Equal(want) {
			t.Errorf("%s: Expires = %v, want %v", c.name, got, want)
		}
	}
}

// cancelOne cancels a message for the owner "me", and says whether there was a recipient to
// end.
func cancelOne(s queue.Store, key string, e queue.Entry, withdrawn ...string) (bool, error) {
	canceled, err := s.Cancel(context.Background(), key, "me", []queue.Withdrawal{{ID: e.Message.ID, ForwardPaths: withdrawn}}, Start)
	return len(canceled) == 1, err
}

func testCancel(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org")
	insert(t, s, e)
	if ended, err := cancelOne(s, "other", e); ended || err != nil {
		t.Errorf("Cancel(other key) = %v, %v, want nothing", ended, err)
	}
	for _, want := range []bool{true, false} {
		if ended, err := cancelOne(s, "app", e); err != nil || ended != want {
			t.Errorf("Cancel = %v, %v, want %v", ended, err, want)
		}
	}
	wantStates(t, s, e, "canceled canceled", queue.StatusCanceled)
	if works := claim(t, s, Start, 1); len(works) != 0 {
		t.Errorf("Claim = %v, want nothing", works)
	}
	if _, err := s.Content(t.Context(), "app", e.Message.ID); !errors.Is(err, queue.ErrContentGone) {
		t.Errorf("Content = %v, want ErrContentGone", err)
	}
	mine := entry(0, "a@example.org", "b@example.org")
	mine.Owner = "me"
	insert(t, s, mine)
	if ended, err := cancelOne(s, queue.AnyKey, mine, "b@example.org"); err != nil || !ended {
		t.Errorf("Cancel(own lease) = %v, %v, want true", ended, err)
	}
	wantStates(t, s, mine, "queued canceled", queue.StatusDeferred)
	record(t, s, queue.Outcome{ID: mine.Message.ID, At: Start, Changes: []queue.Change{
		{ForwardPath: "a@example.org", State: queue.Deferred, Next: Start.Add(time.Minute), Tries: 1},
	}})
	wantStates(t, s, mine, "canceled canceled", queue.StatusCanceled)
}

func testCancelInHand(t *testing.T, s queue.Store) {
	e := entry(0, "a@example.org", "b@example.org")
	insert(t, s, e)
	claim(t, s, Start, 1)
	if ended, err := cancelOne(s, "app", e); err != nil || !ended {
		t.Errorf("Cancel = %v, %v, want true", ended, err)
	}
	wantStates(t, s, e, "queued queued", queue.StatusQueued)
	record(t, s, queue.Outcome{ID: e.Message.ID, At: Start, Changes: []queue.Change{
		{ForwardPath: "a@example.org", State: queue.Delivered},
		{ForwardPath: "b@example.org", State: queue.Deferred, Next: Start.Add(time.Minute), Tries: 1},
	}})
	wantStates(t, s, e, "delivered canceled", queue.StatusPartial)
}

// testCancelReleased: what was to be canceled and is not tried after all is not
// tried later either.
func testCancelReleased(t *testing.T, s queue.Store) {
	released, lost, half := entry(0, "a@example.org", "b@example.org"), entry(0, "a@example.org"), entry(0, "a@example.org", "b@example.org")
	released.Owner, lost.Owner, half.Owner = "me", "marks-gone", "me"
	insert(t, s, released, lost, half)
	for _, e := range []queue.Entry{released, lost, half} {
		if ended, err := cancelOne(s, "app", e); err != nil || !ended {
			t.Errorf("Cancel = %v, %v, want true", ended, err)
		}
	}
	if _, err := s.Recover(t.Context(), "me", Start, true); err != nil {
		t.Fatal(err)
	}
	wantStates(t, s, lost, "canceled", queue.StatusCanceled)
	leases := []queue.Lease{
		{ID: released.Message.ID, Route: "relay", ForwardPaths: []string{"a@example.org", "b@example.org"}},
		{ID: half.Message.ID, Route: "relay", ForwardPaths: []string{"b@example.org"}},
	}
	if err := s.Release(t.Context(), "me", Start, leases); err != nil {
		t.Fatal(err)
	}
	wantStates(t, s, released, "canceled canceled", queue.StatusCanceled)
	wantStates(t, s, half, "queued canceled", queue.StatusDeferred)
	if works := claim(t, s, Start, 10); len(works) != 0 {
		t.Errorf("Claim = %+v, want nothing", works)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 1 {
		t.Errorf("Usage = %+v, %v, want the message that is in hand", u, err)
	}
}

// testReschedule: only what waits for its time is rescheduled, with its lifetime, and
// with other bytes where they are given.
func testReschedule(t *testing.T, s queue.Store) {
	const day = 24 * time.Hour
	scheduled := func(to ...string) queue.Entry {
		e := entry(0, to...)
		e.Message.SendAt, e.Due, e.Message.Expires = Start.Add(day), Start.Add(day), Start.Add(3*day)
		return e
	}
	e, plain, canceled, leased := scheduled("a@example.org", "b@example.org"), entry(0, "a@example.org"), scheduled("a@example.org"), scheduled("a@example.org")
	leased.Owner = "me"
	insert(t, s, e, plain, canceled, leased)
	if _, err := cancelOne(s, "app", canceled); err != nil {
		t.Fatal(err)
	}
	other := mailer.Content{Data: bytes.Repeat([]byte("y"), 300<<10), MessageID: e.Content.MessageID, UTF8Header: true}
	for _, c := range []struct {
		name        string
		id          string
		at, now     time.Duration
		content     *mailer.Content
		want        bool
		due, expiry time.Duration
	}{
		{"later", e.Message.ID, 2 * day, 0, nil, true, 2 * day, 4 * day},
		{"earlier, with other bytes", e.Message.ID, time.Hour, 0, &other, true, time.Hour, 2*day + time.Hour},
		{"past", e.Message.ID, -day, time.Minute, nil, true, time.Minute, 2*day + time.Minute},
		{"due", e.Message.ID, day, time.Minute, &e.Content, false, time.Minute, 2*day + time.Minute},
		{"without a time", plain.Message.ID, day, 0, &other, false, 0, 5 * day},
		{"canceled", canceled.Message.ID, 2 * day, 0, &other, false, day, 3 * day},
		{"leased", leased.Message.ID, 2 * day, 0, &other, false, day, 3 * day},
	} {
		got, err := s.Reschedule(t.Context(), "app", c.id, Start.Add(c.at), c.content, Start.Add(c.now))
		m := get(t, s, c.id)
		if err != nil || got != c.want || !m.Expires.Equal(Start.Add(c.expiry)) {
			t.Errorf("%s: Reschedule = %v, %v, expires %v, want %v and %v", c.name, got, err, m.Expires, c.want, Start.Add(c.expiry))
		}
		if next := m.Recipients[0].NextAttempt; !next.IsZero() && !next.Equal(Start.Add(c.due)) {
			t.Errorf("%s: next attempt = %v, want %v", c.name, next, Start.Add(c.due))
		}
	}
	content, err := s.Content(t.Context(), "app", e.Message.ID)
	if m := get(t, s, e.Message.ID); err != nil || m.Size != 300<<10 || !m.SendAt.Equal(Start.Add(time.Minute)) {
		t.Errorf("message = %d octets at %v, %v, want %d at %v", m.Size, m.SendAt, err, 300<<10, Start.Add(time.Minute))
	}
	wantDiff(t, "content", content, other)
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 3 || u.Bytes != 300<<10+plain.Message.Size+leased.Message.Size {
		t.Errorf("Usage = %+v, %v, want the new size counted", u, err)
	}
	if works := claim(t, s, Start.Add(time.Minute), 10); len(works) != 2 || works[1].ID != e.Message.ID || works[1].Size != 300<<10 || len(works[1].Recipients) != 2 {
		t.Errorf("Claim = %+v, want the plain and the rescheduled message", works)
	}
	for _, c := range []struct{ key, id string }{{"other", e.Message.ID}, {"app", idOf(Start)}, {"app", "x"}} {
		if _, err := s.Reschedule(t.Context(), c.key, c.id, Start, nil, Start); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Reschedule(%q, %q) = %v, want ErrNotFound", c.key, c.id, err)
		}
	}
}

func testUsage(t *testing.T, s queue.Store) {
	a, b, c := entry(0, "a@example.org"), entry(0, "a@example.org"), entry(time.Second, "a@example.org")
	b.Message.Key = "other"
	insert(t, s, a, b, c)
	finish(t, s, c, queue.Delivered, Start.Add(time.Hour))
	got, err := s.Usage(t.Context())
	if want := (queue.Usage{Messages: 2, Bytes: a.Message.Size + b.Message.Size}); err != nil || got != want {
		t.Errorf("Usage = %+v, %v, want %+v", got, err, want)
	}
}

func testSweep(t *testing.T, s queue.Store) {
	final, waits := entry(0, "a@example.org"), entry(time.Hour, "a@example.org")
	b := queue.Batch{Entries: []queue.Entry{final}, Idempotency: &queue.Idempotency{Key: "app", Name: "k", Expires: Start.Add(24 * time.Hour)}}
	if _, err := s.Insert(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	finish(t, s, final, queue.Bounced, Start)
	insert(t, s, waits)
	sweep := func(now time.Time) (total int) {
		for {
			n, err := s.Sweep(t.Context(), now, 10)
			if err != nil {
				t.Fatalf("Sweep = %v", err)
			}
			if total += n; n == 0 {
				return total
			}
		}
	}
	if n := sweep(Start.Add(23 * time.Hour)); n != 0 {
		t.Errorf("Sweep early removed %d, want 0", n)
	}
	if _, err := s.Content(t.Context(), "app", final.Message.ID); err != nil {
		t.Errorf("Content of a bounced message within retention = %v", err)
	}
	if n := sweep(Start.Add(Retention + time.Second)); n != 2 {
		t.Errorf("Sweep removed %d, want the message and the idempotency key", n)
	}
	if _, err := s.Get(t.Context(), "app", final.Message.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("Get after Sweep = %v, want ErrNotFound", err)
	}
	wantStates(t, s, waits, "queued", queue.StatusQueued)
}

func testReopen(t *testing.T, s queue.Store, reopen func(*testing.T, queue.Store) queue.Store) {
	e := entry(0, "a@example.org")
	b := queue.Batch{Entries: []queue.Entry{e}, Idempotency: &queue.Idempotency{Key: "app", Name: "k", Expires: Start.Add(24 * time.Hour)}}
	if _, err := s.Insert(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	t.Cleanup(func() { _ = s.Close() })
	wantDiff(t, "Get", get(t, s, e.Message.ID), e.Message)
	if replayed, err := s.Insert(t.Context(), b); err != nil || !slices.Equal(replayed, []string{e.Message.ID}) {
		t.Errorf("Insert of a known idempotency key = %v, %v, want %s", replayed, err, e.Message.ID)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := s.Insert(t.Context(), b); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Insert after Close = %v, want ErrClosed", err)
	}
}
