package sqlite

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// BenchmarkBulk does to 10,000 of 100,000 messages that wait what commands by filter do, and to one
// by its id. Beside a retry and a cancel it stores new mail, and reports how long that took at
// most:
//
//	go test ./queue/sqlite -run - -bench Bulk -benchtime 3x
func BenchmarkBulk(b *testing.B) {
	const waiting, matching = 100_000, 10_000
	full := filepath.Join(b.TempDir(), "queue.db")
	fillStore(b, full, 0, waiting)
	s := openLarge(b, full)
	err := s.write(b.Context(), func(w *writer) error {
		return w.exec(`UPDATE recipients SET forward_path = replace(forward_path, '@example.org', '@example.net') WHERE forward_path LIKE '%0@example.org'`)
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	f := queue.Filter{Key: queue.AnyKey, Domain: "example.net"}
	want := func(b *testing.B, got int, err error) {
		b.Helper()
		if err != nil || got != matching {
			b.Fatalf("messages = %d, %v, want %d", got, err, matching)
		}
	}
	for _, bench := range []struct {
		name   string
		beside bool
		run    func(b *testing.B, q *queue.Durable, one string)
	}{
		{"nothing", true, func(b *testing.B, _ *queue.Durable, _ string) { time.Sleep(5 * time.Second) }},
		{"count", false, func(b *testing.B, q *queue.Durable, _ string) {
			n, _, err := q.Count(b.Context(), f, "")
			want(b, n, err)
		}},
		{"retry", true, func(b *testing.B, q *queue.Durable, _ string) {
			done, err := q.RetryMatching(b.Context(), f, 0, "")
			want(b, done.Changed, err)
		}},
		{"cancel", true, func(b *testing.B, q *queue.Durable, _ string) {
			done, err := q.CancelMatching(b.Context(), f, 0, "")
			want(b, done.Changed, err)
		}},
		{"export", false, func(b *testing.B, q *queue.Durable, _ string) {
			n := 0
			for cursor, more := "", true; more; more = cursor != "" {
				page, err := q.List(b.Context(), f, 100, cursor)
				if err != nil {
					b.Fatal(err)
				}
				for _, m := range page.Messages {
					if _, err := q.Content(b.Context(), m.Key, m.ID); err != nil {
						b.Fatal(err)
					}
					n++
				}
				cursor = page.Next
			}
			want(b, n, nil)
		}},
		{"one/retry", false, func(b *testing.B, q *queue.Durable, one string) {
			if _, err := q.Retry(b.Context(), queue.AnyKey, one); err != nil {
				b.Fatal(err)
			}
		}},
		{"one/cancel", false, func(b *testing.B, q *queue.Durable, one string) {
			if _, err := q.Cancel(b.Context(), queue.AnyKey, one); err != nil {
				b.Fatal(err)
			}
		}},
		{"one/export", false, func(b *testing.B, q *queue.Durable, one string) {
			if _, err := q.Content(b.Context(), queue.AnyKey, one); err != nil {
				b.Fatal(err)
			}
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var worst time.Duration
			for b.Loop() {
				b.StopTimer()
				q, s, end := copiedQueue(b, full)
				page, err := q.List(b.Context(), f, 1, "")
				if err != nil || len(page.Messages) != 1 {
					b.Fatalf("List = %d, %v", len(page.Messages), err)
				}
				stop := func() time.Duration { return 0 }
				if bench.beside {
					stop = newMail(b, s)
				}
				b.StartTimer()
				bench.run(b, q, page.Messages[0].ID)
				b.StopTimer()
				worst = max(worst, stop())
				end()
				b.StartTimer()
			}
			if bench.beside {
				b.ReportMetric(float64(worst.Microseconds())/1000, "new-mail-max-ms")
			}
		})
	}
}

// copiedQueue runs a queue on a copy of the store.
func copiedQueue(b *testing.B, full string) (q *queue.Durable, s *Store, end func()) {
	b.Helper()
	data, err := os.ReadFile(full)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "queue.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	s = openLarge(b, path)
	q, err = queue.New(queue.Options{Store: s, Routes: queue.Routes{{Relay: queuetest.NewRelay(queuetest.Unreachable)}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	for q.Ready(ctx) != nil {
		time.Sleep(time.Millisecond)
	}
	return q, s, func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		_ = os.Remove(path)
	}
}

// newMail stores a small message each 2 ms until stop, which returns the longest that one took.
func newMail(b *testing.B, s *Store) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(b.Context())
	worst := make(chan time.Duration)
	go func() {
		var longest time.Duration
		for ctx.Err() == nil {
			began := time.Now()
			insertOne(b, s, 2<<10)
			longest = max(longest, time.Since(began))
			time.Sleep(2 * time.Millisecond)
		}
		worst <- longest
	}()
	return func() time.Duration {
		cancel()
		return <-worst
	}
}

// BenchmarkFilters reads the first page of a list by each filter from a store with a million
// finished messages and 100,000 that wait, and from one with a tenth of that. Where an index
// leads, it takes at most three times as long:
//
//	go test ./queue/sqlite -run - -bench Filters
func BenchmarkFilters(b *testing.B) {
	for _, size := range []struct {
		name              string
		finished, waiting int
	}{{"small", 100_000, 50_000}, {"large", manyFinished, 100_000}} {
		path := filepath.Join(b.TempDir(), size.name+".db")
		fillStore(b, path, size.finished, size.waiting)
		s := openLarge(b, path)
		b.Cleanup(func() { _ = s.Close() })
		page, err := s.List(b.Context(), queue.Filter{Key: "app1", Status: queue.StatusFailed}, 100, "")
		if err != nil || len(page.Messages) != 100 {
			b.Fatalf("List = %d messages, %v", len(page.Messages), err)
		}
		id := page.Messages[50].ID
		prefix, err := queue.ParseIDPrefix(id[:18])
		if err != nil {
			b.Fatal(err)
		}
		filters := map[string]queue.Filter{
			"none": {}, "status": {Status: queue.StatusDeferred}, "since": {Since: time.Now().Add(-24 * time.Hour)}, "id": {ID: prefix},
			"domain": {Domain: "example.org"}, "recipient state": {RecipientState: queue.Bounced}, "status and domain": {Status: queue.StatusDeferred, Domain: "example.org"},
			"reply code": {ReplyCode: 550, Status: queue.StatusDeferred}, "text": {Text: "*unknown*", Status: queue.StatusDeferred}, "subject": {Subject: "NEWS letter"}, "rare subject": {Subject: "größe 1042", Status: queue.StatusDeferred}, "rare recipient": {Recipient: "customer1@example.org", Status: queue.StatusDeferred},
		}
		for _, name := range slices.Sorted(maps.Keys(filters)) {
			f := filters[name]
			for _, f.Key = range []string{"app1", queue.AnyKey} {
				b.Run(fmt.Sprintf("%s/%s/%s", name, map[bool]string{false: "key", true: "all"}[f.Key == queue.AnyKey], size.name), func(b *testing.B) {
					for b.Loop() {
						if _, err := s.List(b.Context(), f, 50, ""); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
