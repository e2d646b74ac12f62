package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
)

// fillMany lets SQLite make up messages, a second apart until end, which is many times
// quicker than inserting them: of the keys k0, k1 and k2 in turn, every tenth failed and the
// others delivered. It returns the ids, the oldest first.
func fillMany(t *testing.T, s *Store, n int, end time.Time) []string {
	t.Helper()
	begin := end.Add(-time.Duration(n) * time.Second).UnixMilli()
	numbers := fmt.Sprintf("WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < %d) ", n-1)
	id := fmt.Sprintf("unhex(printf('%%012x70008%%015x', %d + n * 1000, n))", begin)
	state := func(failed, delivered string) string {
		return fmt.Sprintf("CASE WHEN n %% 10 = 0 THEN '%s' ELSE '%s' END", failed, delivered)
	}
	err := s.write(t.Context(), func(w *writer) error {
		for _, query := range []string{
			`INSERT INTO messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header,
				created, expires, status, final, clock, chunks)
				SELECT ` + id + `, 'k' || (n % 3), '<' || n || '@example.com>', 'shop' || (n % 2) || '@example.com', 'Order', '{"order":"' || n || '"}', '', 100, 0, 0,
				(` + fmt.Sprint(begin) + ` + n * 1000) * 1000, 0, ` + state("failed", "delivered") + `, 1, 0, 0 FROM numbers`,
			`INSERT INTO recipients (message, n, forward_path, state, route)
				SELECT ` + id + `, 0, 'to' || n || '@example.org', ` + state("bounced", "delivered") + `, 'relay' FROM numbers`,
		} {
			if err := w.exec(numbers + query); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%012x70008%015x", begin+int64(i)*1000, i)
		ids[i] = ids[i][:8] + "-" + ids[i][8:12] + "-" + ids[i][12:16] + "-" + ids[i][16:20] + "-" + ids[i][20:]
	}
	return ids
}

// listAll follows a list from page to page, and returns the ids and how many pages were
// cut short.
func listAll(t *testing.T, s *Store, f queue.Filter, limit int) (ids []string, cut int) {
	t.Helper()
	cursor, last := "", (time.Time{})
	for {
		page, err := s.List(t.Context(), f, limit, cursor)
		if err != nil || len(page.Messages) > limit {
			t.Fatalf("List(%+v) = %d messages, %v", f, len(page.Messages), err)
		}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
		if back := page.SearchedBackTo; !back.IsZero() {
			if cut++; page.Next == "" || !last.IsZero() && !back.Before(last) {
				t.Fatalf("page searched back to %v, after one back to %v, with the cursor %q", back, last, page.Next)
			}
			last = back
		}
		if cursor = page.Next; cursor == "" {
			return ids, cut
		}
	}
}

// TestListInSteps: whatever the filter, and wherever one step ends, a list has the same
// messages as if all were looked at at once.
func TestListInSteps(t *testing.T) { synctest.Test(t, testListInSteps) }

func testListInSteps(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	end := time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)
	all := fillMany(t, s, 1500, end)
	for _, f := range []queue.Filter{
		{},
		{Status: queue.StatusFailed},
		{Sender: "SHOP1@example.com"},
		{Recipient: "to12@example.org"},
		{MessageID: "<1497@example.com>"},
		{TagName: "order"},
		{TagName: "order", TagValue: "30"},
		{Status: queue.StatusFailed, Sender: "shop0@example.com"},
		{Recipient: "none@example.org"},
		{Sender: "shop1@example.com", Since: end.Add(-20 * time.Minute), Until: end.Add(-9*time.Minute - time.Millisecond)},
	} {
		for _, f.Key = range []string{"k0", "k1", "none", queue.AnyKey} {
			var want []string
			for n, id := range slices.Backward(all) {
				at := end.Add(time.Duration(n-len(all)) * time.Second)
				if (f.Key == queue.AnyKey || f.Key == fmt.Sprint("k", n%3)) && (f.Status == "" || n%10 == 0) &&
					(f.Sender == "" || fmt.Sprint(n%2) == f.Sender[4:5]) && (f.Recipient == "" || f.Recipient == fmt.Sprintf("to%d@example.org", n)) &&
					(f.MessageID == "" || n == 1497) && (f.TagValue == "" || f.TagValue == fmt.Sprint(n)) &&
					(f.Since.IsZero() || !at.Before(f.Since) && at.Before(f.Until)) {
					want = append(want, id)
				}
			}
			for _, rows := range []int{1, 7, firstStep} {
				w, err := newWalk(f, len(all), "")
				if err != nil {
					t.Fatal(err)
				}
				steps := 0
				for w.rows = rows; !w.ended; steps++ {
					if err := s.listStep(t.Context(), w); err != nil {
						t.Fatal(err)
					}
				}
				var got []string
				for _, m := range w.page.Messages {
					got = append(got, m.ID)
				}
				if !slices.Equal(got, want) {
					t.Errorf("List(%+v) in %d steps = %d messages, want %d", f, steps, len(got), len(want))
				}
			}
			for _, limit := range []int{1, 50} {
				if len(want) > 100*limit {
					continue // as many pages take long
				}
				if got, cut := listAll(t, s, f, limit); !slices.Equal(got, want) || cut > 0 {
					t.Errorf("List(%+v) by %d = %d messages with %d pages cut short, want %d, 0", f, limit, len(got), cut, len(want))
				}
			}
		}
	}
}

// TestSearchOfManyKeys: a search among the messages of all keys looks at a part of them in
// each step, though few or none have the status that is wanted.
func TestSearchOfManyKeys(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	all := fillMany(t, s, 3000, time.Now())
	if err := s.writer.exec("UPDATE messages SET key = 'k' || (created / 1000000 % ?)", 2*fewSpans); err != nil {
		t.Fatal(err)
	}
	for status, want := range map[queue.Status]int{queue.StatusHeld: 0, queue.StatusFailed: 300} {
		w, err := newWalk(queue.Filter{Key: queue.AnyKey, Status: status, Sender: "shop0@example.com"}, len(all), "")
		if err != nil {
			t.Fatal(err)
		}
		for steps := 0; !w.ended; steps++ {
			before := w.from
			w.rows = 100
			if err := s.listStep(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			var rows int
			err := s.view(t.Context(), func(v *session) error {
				return v.row("SELECT count(*) FROM messages WHERE id < ? AND id >= ?", []any{before, w.from}, &rows)
			})
			if err != nil || rows > 100 {
				t.Fatalf("step %d of a search for %s looks at %d messages, %v, want 100", steps, status, rows, err)
			}
		}
		if len(w.page.Messages) != want {
			t.Errorf("%d messages are %s, want %d", len(w.page.Messages), status, want)
		}
	}
}

// TestSearchCutShort: a search for what is rare among very many messages answers when
// its time is over, and goes on from there to the end.
func TestSearchCutShort(t *testing.T) {
	path := dbPath(t)
	s := openUnsynced(t, path)
	all := fillMany(t, s, 60_000, time.Now())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []queue.Filter{
		{Key: "k1", Recipient: "to1@example.org"},
		{Key: "k1", Sender: "SHOP1@example.com", MessageID: "<1@example.com>"},
		{Key: "k1", TagName: "order", TagValue: "1"},
		{Key: queue.AnyKey, Recipient: "to1@example.org"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, path)
			s.step = func() { time.Sleep(listTime / 5) } // no context cuts it short, as one does a query
			began := time.Now()
			page, err := s.List(t.Context(), f, 50, "")
			if took := time.Since(began); err != nil || len(page.Messages) > 0 || page.Next == "" || page.SearchedBackTo.IsZero() || took > listTime+listTime/5 {
				t.Errorf("List(%+v) = %d messages back to %v, %v after %v, want none and a cursor within %v",
					f, len(page.Messages), page.SearchedBackTo, err, took, listTime)
			}
			s.step = func() { time.Sleep(listTime / 20) }
			if ids, cut := listAll(t, s, f, 50); !slices.Equal(ids, all[1:2]) || cut == 0 {
				t.Errorf("List(%+v) = %v with %d pages cut short, want the second message and some", f, ids, cut)
			}
		})
	}
}

// TestSlowList: a store in which no step ends in time, and one with more lists than
// have their turn in time.
func TestSlowList(t *testing.T) {
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path)
		fillMany(t, s, 10, time.Now())
		s.step = func() { time.Sleep(viewTime + time.Millisecond) }
		var all sync.WaitGroup
		for i := range listConnections {
			all.Go(func() {
				if _, err := s.List(t.Context(), queue.Filter{Key: fmt.Sprint("k", i)}, 50, ""); !errors.Is(err, queue.ErrSearchTooSlow) {
					t.Errorf("List in a slow store = %v, want ErrSearchTooSlow", err)
				}
			})
		}
		all.Wait()
		release := make(chan struct{})
		s.step = func() { <-release }
		for i := range listConnections {
			all.Go(func() { _, _ = s.List(t.Context(), queue.Filter{Key: fmt.Sprint("k", i)}, 50, "") })
		}
		synctest.Wait()
		began := time.Now()
		if _, err := s.List(t.Context(), queue.Filter{Key: "k2"}, 50, ""); !errors.Is(err, queue.ErrTooManyLists) || time.Since(began) != listTime {
			t.Errorf("List without a turn = %v after %v, want ErrTooManyLists after %v", err, time.Since(began), listTime)
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if _, err := s.List(ctx, queue.Filter{Key: "k2"}, 50, ""); !errors.Is(err, context.Canceled) {
			t.Errorf("List of a caller who left = %v, want context.Canceled", err)
		}
		close(release)
		all.Wait()
		s.step = func() {}
		if page, err := s.List(t.Context(), queue.Filter{Key: "k2"}, 50, ""); err != nil || len(page.Messages) != 3 {
			t.Errorf("List afterwards = %d messages, %v, want 3", len(page.Messages), err)
		}
	})
}

// TestSearchesLeaveLookUps: while as many searches go on as want to, the queue reads
// what it delivers, and a message is looked up.
func TestSearchesLeaveLookUps(t *testing.T) {
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path)
		e := randomEntry(0, time.Now())
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		s.step = func() { <-release }
		var searches sync.WaitGroup
		for i := range 4 * (listConnections + readConnections) {
			searches.Go(func() {
				_, _ = s.List(t.Context(), queue.Filter{Key: fmt.Sprint("app", i%4), Sender: "shop@example.com"}, 50, "")
			})
		}
		synctest.Wait()
		if free, all := len(s.readers.free), s.readers.left(); free != all {
			t.Errorf("connections for look-ups that are free = %d, want all %d", free, all)
		}
		began := time.Now()
		_, err1 := s.Get(t.Context(), "app", e.Message.ID)
		_, err2 := s.Content(t.Context(), "app", e.Message.ID)
		_, err3 := s.Waiting(t.Context(), began)
		_, err4 := s.Usage(t.Context())
		if err := errors.Join(err1, err2, err3, err4, s.Check(t.Context())); err != nil || time.Since(began) > 0 {
			t.Errorf("look-ups beside searches = %v after %v, want nil at once", err, time.Since(began))
		}
		close(release)
		searches.Wait()
	})
}

// TestPageOfManyRecipients: a page ends early when its messages have very many
// recipients.
func TestPageOfManyRecipients(t *testing.T) { synctest.Test(t, testPageOfManyRecipients) }

func testPageOfManyRecipients(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	const messages, each = 5, pageRecipients/2 - 1
	var want []string
	for n := range messages {
		e := randomEntry(each-1, time.Date(2030, 1, 31, 8, 0, n, 0, time.UTC))
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		want = append([]string{e.Message.ID}, want...)
	}
	for _, f := range []queue.Filter{{Key: "app"}, {Key: "app", Recipient: "to0@example.org"}} {
		page, err := s.List(t.Context(), f, 50, "")
		if err != nil || len(page.Messages) != 3 || page.Next == "" {
			t.Errorf("List(%+v) = %d messages, %v, want 3 and a cursor", f, len(page.Messages), err)
		}
		if got, _ := listAll(t, s, f, 50); !slices.Equal(got, want) {
			t.Errorf("List(%+v) = %v, want %v", f, got, want)
		}
	}
}

// TestLineTakesTurns: a key with one call waits for one call of a key that has many.
func TestLineTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1)
		if err := l.enter(t.Context(), "busy"); err != nil {
			t.Fatal(err)
		}
		var order []string
		var all sync.WaitGroup
		call := func(ctx context.Context, key string) {
			all.Go(func() {
				if l.enter(ctx, key) == nil {
					order = append(order, key)
					l.leave()
				}
			})
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		call(gone, "gone")
		for range 3 {
			call(t.Context(), "busy")
		}
		call(gone, "busy")
		call(t.Context(), "rare")
		leave()
		synctest.Wait()
		l.leave()
		all.Wait()
		if want := []string{"busy", "rare", "busy", "busy"}; !slices.Equal(order, want) {
			t.Errorf("turns = %v, want %v", order, want)
		}
		if l.free != 1 || len(l.keys)+len(l.calls) > 0 {
			t.Errorf("in the end %d places are free and %d keys wait, want 1, 0", l.free, len(l.keys))
		}
	})
}
