package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// The store that the targets speak of: a million finished messages and a million
// that wait.
const (
	manyFinished = 1_000_000
	manyWaiting  = 1_000_000
	fewWaiting   = 50_000
)

// BenchmarkLarge fills such a store once (about 1 GB, half a minute), and then
// measures what must stay quick on it: the start within a second, a page of the
// list and a message's story within 10 ms, and what the scheduler asks.
//
//	go test ./queue/sqlite -run - -bench Large -benchtime 20x
func BenchmarkLarge(b *testing.B) {
	path := filepath.Join(b.TempDir(), "queue.db")
	began := time.Now()
	fillLarge(b, path, manyWaiting)
	if info, err := os.Stat(path); err == nil {
		b.Logf("filled %d MiB in %v", info.Size()>>20, time.Since(began).Round(time.Second))
	}

	b.Run("start", func(b *testing.B) { benchStart(b, path, 0) })
	b.Run("start after a crash", func(b *testing.B) { benchStart(b, path, 5000) })
	b.Run("start after a crash with a large memory", func(b *testing.B) { benchStart(b, path, 100_000) })
	s := openLarge(b, path)
	b.Cleanup(func() { _ = s.Close() })
	benchSchedule(b, s)
	for _, page := range []struct {
		name string
		f    queue.Filter
	}{
		{"first page", queue.Filter{Key: "app1"}},
		{"first page of every key", queue.Filter{Key: queue.AnyKey}},
		{"failed", queue.Filter{Key: "app1", Status: queue.StatusFailed}},
		{"deferred", queue.Filter{Key: queue.AnyKey, Status: queue.StatusDeferred}},
		{"since yesterday", queue.Filter{Key: "app1", Since: time.Now().Add(-24 * time.Hour)}},
	} {
		b.Run("list/"+page.name, func(b *testing.B) { benchList(b, s, page.f, "") })
	}
	middle, err := s.List(b.Context(), queue.Filter{Key: "app1", Until: time.Now().Add(-3 * 24 * time.Hour)}, 50, "")
	if err != nil || middle.Next == "" {
		b.Fatalf("List = %d messages, %v", len(middle.Messages), err)
	}
	b.Run("list/page in the middle", func(b *testing.B) { benchList(b, s, queue.Filter{Key: "app1"}, middle.Next) })
	b.Run("story", func(b *testing.B) {
		for b.Loop() {
			if m, err := s.Get(b.Context(), "app1", middle.Messages[0].ID); err != nil || len(m.Attempts) != 1 {
				b.Fatalf("Get = %d attempts, %v, want 1", len(m.Attempts), err)
			}
		}
	})
}

// BenchmarkMigrate measures the first start of this version on a store of each earlier
// schema with a million finished messages and few that wait: it must be ready within 5 s.
func BenchmarkMigrate(b *testing.B) {
	all := migrations
	b.Cleanup(func() { migrations = all })
	for version := 1; version < len(all); version++ {
		b.Run(fmt.Sprint("from schema ", version), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				path := filepath.Join(b.TempDir(), "queue.db")
				migrations = all[:version]
				fillLarge(b, path, fewWaiting)
				migrations = all
				b.StartTimer()
				s := openLarge(b, path)
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// benchSchedule measures a look at what waits, and a claim from each lane.
func benchSchedule(b *testing.B, s *Store) {
	b.Run("waiting", func(b *testing.B) {
		for b.Loop() {
			if w, err := s.Waiting(b.Context(), time.Now()); err != nil || len(w.Lanes) != 3 {
				b.Fatalf("Waiting = %+v, %v, want 3 lanes", w.Lanes, err)
			}
		}
	})
	b.Run("claim", func(b *testing.B) {
		due := time.Now().Add(2 * time.Hour)
		var wants []queue.Want
		for i := range 3 {
			wants = append(wants, queue.Want{Route: "relay", Lane: queue.Lane{Key: fmt.Sprint("app", i)}, Limit: 10})
		}
		for b.Loop() {
			works, err := s.Claim(b.Context(), "me", due, wants)
			if err != nil || len(works) != 30 {
				b.Fatalf("Claim = %d messages, %v, want 30", len(works), err)
			}
			b.StopTimer()
			var leases []queue.Lease
			for _, w := range works {
				leases = append(leases, queue.Lease{ID: w.ID, Route: w.Route, ForwardPaths: w.Envelope.ForwardPaths})
			}
			if err := s.Release(b.Context(), "me", due, leases); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

func benchList(b *testing.B, s *Store, f queue.Filter, cursor string) {
	for b.Loop() {
		if page, err := s.List(b.Context(), f, 50, cursor); err != nil || len(page.Messages) != 50 {
			b.Fatalf("List(%+v) = %d messages, %v, want 50", f, len(page.Messages), err)
		}
	}
}

// benchStart measures from the opening of the store until messages can be
// accepted. Nothing is due, lest delivery be measured.
func benchStart(b *testing.B, path string, leased int) {
	for b.Loop() {
		b.StopTimer()
		s := openLarge(b, path)
		err := s.write(b.Context(), func(w *writer) error {
			if leased > 0 { // no count is stored at a crash
				w.usage.current.Store(nil)
				if err := w.exec(`DELETE FROM usage`); err != nil {
					return err
				}
			}
			return w.exec(`UPDATE recipients SET owner = 'gone' WHERE due IS NOT NULL AND message IN
				(SELECT message FROM recipients WHERE due IS NOT NULL AND owner IS NULL LIMIT ?)`, leased)
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		s = openLarge(b, path)
		d, err := queue.New(queue.Options{Store: s, Routes: queue.Routes{{Relay: queuetest.NewRelay(queuetest.Unreachable)}}})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		for d.Ready(ctx) != nil {
			if len(done) > 0 {
				b.Fatalf("Run = %v", <-done)
			}
			time.Sleep(100 * time.Microsecond)
		}
		b.StopTimer()
		if u := d.Usage(); u.Messages != manyWaiting {
			b.Fatalf("waiting = %d, want %d", u.Messages, manyWaiting)
		}
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func openLarge(b *testing.B, path string) *Store {
	b.Helper()
	s, err := Open(b.Context(), Options{Path: path, MinFreeDisk: 1})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// fillLarge lets SQLite make up the rows itself, which is many times quicker
// than inserting messages. The finished ones spread over the last week, the
// waiting ones are deferred and due during the next hour.
func fillLarge(b *testing.B, path string, waiting int) {
	b.Helper()
	fillStore(b, path, manyFinished, waiting)
}

func fillStore(b *testing.B, path string, finished, waiting int) {
	b.Helper()
	lane, value := "", ""
	if len(migrations) >= 3 { // it has lanes
		lane, value = ", lane", ", '1app' || (n % 3)"
	}
	s := openLarge(b, path)
	now := time.Now()
	for _, part := range []struct {
		count         int
		status, state string // of every tenth, and of the others
		others        string
		final         int
	}{
		{finished, "failed", "bounced", "delivered", 1},
		{waiting, "deferred", "deferred", "deferred", 0},
	} {
		const step = 50_000
		for first := 0; first < part.count; first += step {
			err := s.write(b.Context(), func(w *writer) error {
				// Milliseconds of acceptance: ids are in its order.
				at := fmt.Sprintf("(%d + CAST(n AS INTEGER) * %d / %d)", now.Add(-7*24*time.Hour).UnixMilli()+int64(1-part.final), 7*24*time.Hour/time.Millisecond, part.count)
				id := fmt.Sprintf("unhex(printf('%%012x7%%03x8%%015x', %s, n %% 4096, n + %d))", at, part.final<<40)
				numbers := fmt.Sprintf("WITH RECURSIVE numbers (n) AS (SELECT %d UNION ALL SELECT n + 1 FROM numbers WHERE n < %d)", first, min(first+step, part.count)-1)
				choose := func(tenth string) string {
					return fmt.Sprintf("CASE WHEN n %% 10 = 0 THEN '%s' ELSE '%s' END", tenth, part.others)
				}
				due, body := "NULL", "NULL"
				if part.final == 0 {
					due = fmt.Sprintf("%d + n * 30000", now.Add(time.Minute).UnixMicro())
					body = "n + 1"
					if err := w.exec(numbers + " INSERT INTO contents (seq, data) SELECT n + 1, zeroblob(200) FROM numbers"); err != nil {
						return err
					}
				}
				for _, query := range []string{
					fmt.Sprintf(`INSERT INTO messages (id, key, message_id, sender, subject, reverse_path, size, eight_bit, utf8_header,
						created, expires, status, final, clock, body, chunks)
						SELECT %[1]s, 'app' || (n %% 3), '<' || n || '.0198c0de@example.com>', 'shop@example.com', 'Your order ' || n, 'bounce@example.com', 200, 0, 0,
						%[2]s * 1000, %[2]s * 1000 + 864000000000, %[3]s, %[4]d, %[2]s * 1000 + 864000000000 * (1 - %[4]d), %[5]s, 1 FROM numbers`,
						id, at, choose(part.status), part.final, body),
					fmt.Sprintf(`INSERT INTO recipients (message, n, forward_path, state, due, route, tries, attempts, result%s)
						SELECT %s, 0, 'customer' || n || '@example.org', %s, %s, 'relay', 1, 1,
						'{"code":250,"enhanced":"2.0.0","text":"Ok: queued as 4f2Jx1"}'%s FROM numbers`, lane, id, choose(part.state), due, value),
					fmt.Sprintf(`INSERT INTO attempts (message, n, relay, port, mode, tls, auth, started, duration, results)
						SELECT %s, 1, 'relay', 587, 'starttls', 'TLS 1.3', 'PLAIN', %s * 1000, 42000,
						'[{"to":"customer' || n || '@example.org","code":250,"enhanced":"2.0.0","text":"Ok: queued as 4f2Jx1"}]' FROM numbers`, id, at),
				} {
					if err := w.exec(numbers + " " + query); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	err := s.write(b.Context(), func(w *writer) error {
		if len(migrations) < 7 { // it counts when it is asked
			return nil
		}
		w.usage.current.Store(nil) // which has not seen these rows
		if len(migrations) >= numbersSchema {
			w.numbers.mu.Lock()
			w.numbers.exact, w.numbers.stored = false, false // nor have these
			w.numbers.mu.Unlock()
			if err := w.exec(`DELETE FROM stats_exact`); err != nil {
				return err
			}
		}
		return w.exec(`DELETE FROM usage`)
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
