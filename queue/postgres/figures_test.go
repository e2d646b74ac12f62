//go:build linux

package postgres

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// The figures in docs/scaling.md come from the tests TestFigures…, which take minutes and need a quiet machine:
//
//	go test ./queue/postgres -run Figures -figures -v -timeout 60m
var (
	figures  = flag.Bool("figures", false, "measure the figures of docs/scaling.md")
	planRows = flag.Int("plan-rows", 20_000, "how many messages wait where TestPlans looks at plans")
	inOut    = flag.Int("in-out", 20_000, "how many messages TestFiguresInOut sends")
)

// figured is a server with the settings of one that is used in earnest.
func figured(t *testing.T) *server {
	t.Helper()
	if !*figures {
		t.Skip("measures for minutes: -figures")
	}
	return startOwn(t, "max_wal_size=8GB", "shared_buffers=512MB", "autovacuum_naptime=10s")
}

// of12KB is a message like that of bench/: 12 KB with one recipient.
func of12KB(owner string) queue.Entry {
	e := entry(owner, "ana@example.org")
	e.Content.Data = bytes.Repeat([]byte("All of this text is the content of a mail.\r\n"), 280)[:12_300]
	e.Message.Size = int64(len(e.Content.Data))
	return e
}

// TestFiguresAccept compares how many messages are accepted each second with a loop that only inserts the same rows in
// groups of the same size, in turn. Instances are stores of one process, each with its own connections.
func TestFiguresAccept(t *testing.T) {
	const rounds, window = 5, 3 * time.Second
	for _, callers := range []int{16, 64} {
		for _, instances := range []int{1, 2, 3} {
			srv := figured(t)
			o := options(t, srv.url())
			var stores []*Store
			for i := range instances {
				stores = append(stores, open(t, o))
				live(t, stores[i], fmt.Sprintf("owner%d", i))
			}
			bare := options(t, srv.url())
			var ours, bares, ratios []float64
			for range rounds {
				a := rate(window, callers, func(ctx context.Context, n int) error {
					i := n % instances
					_, err := stores[i].Insert(ctx, queue.Batch{Entries: []queue.Entry{of12KB(fmt.Sprintf("owner%d", i))}})
					return err
				})
				writers := insertWriters * instances
				b := bareRate(t, bare, window, writers, max(1, callers/writers))
				ours, bares, ratios = append(ours, a), append(bares, b), append(ratios, a/b)
				srv.exec(t, `CHECKPOINT`)
			}
			t.Logf("%d callers, %d instances: %.0f accepted a second, the bare loop with groups of %d %.0f, ratio %.2f (%.2f to %.2f)", callers, instances, median(ours),
				max(1, callers/(insertWriters*instances)), median(bares), median(ratios), slices.Min(ratios), slices.Max(ratios))
		}
	}
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// rate is how often a second the callers are done with f, after a while.
func rate(window time.Duration, callers int, f func(ctx context.Context, caller int) error) float64 {
	var n atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if f(context.Background(), c) == nil {
					n.Add(1)
				}
			}
		})
	}
	time.Sleep(window / 4)
	before := n.Load()
	time.Sleep(window)
	done := n.Load() - before
	cancel()
	wg.Wait()
	return float64(done) / window.Seconds()
}

// bareRate is how many messages a second connections insert that do nothing else.
func bareRate(t *testing.T, o Options, window time.Duration, writers, group int) float64 {
	t.Helper()
	c, err := newConnector(o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	var conns []*pgx.Conn
	for range writers {
		conn, err := c.connect(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		conns = append(conns, conn)
	}
	return float64(group) * rate(window, writers, func(ctx context.Context, n int) error {
		rows := insertRows{contents: true}
		for b := range group {
			e := of12KB("owner")
			id, _ := parseID(e.Message.ID)
			if err := rows.add(b, id, &e); err != nil {
				return err
			}
		}
		a := rows.args()
		batch := &pgx.Batch{}
		batch.Queue(c.sql(`INSERT INTO {s}.messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, resent_of, status, final, clock, has_content) SELECT *, 'queued', false, now(), true FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[],
			$6::jsonb[], $7::text[], $8::bigint[], $9::bool[], $10::bool[], $11::smallint[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::uuid[])`),
			append([]any{a[0]}, a[2:16]...)...)
		batch.Queue(c.sql(`INSERT INTO {s}.contents SELECT * FROM unnest($1::uuid[], $2::int[], $3::bytea[])`), a[17:20]...)
		batch.Queue(c.sql(`INSERT INTO {s}.recipients (message, n, forward_path, due, route, lane, owner, state)
			SELECT *, 'queued' FROM unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[])`), a[20:27]...)
		return conns[n].SendBatch(ctx, batch).Close()
	})
}

// TestFiguresClaim measures a claim of 48 messages from three lanes, and how many pages it reads, among more and more that
// wait.
func TestFiguresClaim(t *testing.T) {
	srv := figured(t)
	s := open(t, options(t, srv.url()))
	live(t, s, "me")
	total := 0
	for _, waiting := range []int{1_000, 100_000, 1_000_000} {
		fillWaiting(t, srv, s, waiting-total)
		total = waiting
		var wants []queue.Want
		for lane := range 3 {
			wants = append(wants, queue.Want{Route: "relay", Lane: queue.Lane{Key: fmt.Sprint("k", lane)}, Limit: 16})
		}
		var times []float64
		var pages int
		for range 41 {
			began := time.Now()
			works, err := s.Claim(t.Context(), "me", time.Now(), wants)
			times = append(times, float64(time.Since(began).Microseconds())/1000)
			if err != nil || len(works) != 48 {
				t.Fatalf("Claim = %d works, %v", len(works), err)
			}
			var leases []queue.Lease
			for _, w := range works {
				leases = append(leases, queue.Lease{ID: w.ID, Route: w.Route, ForwardPaths: w.Envelope.ForwardPaths, Number: w.Lease})
			}
			if err := s.Release(t.Context(), "me", time.Now(), leases); err != nil {
				t.Fatal(err)
			}
		}
		conn, err := s.connect(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), `EXPLAIN (ANALYZE, BUFFERS) `+s.sql(`SELECT q.message FROM unnest('{1k0,1k1,1k2}'::text[]) AS w (lane) CROSS JOIN LATERAL (
			SELECT r.message FROM {s}.recipients AS r WHERE r.route = 'relay' AND r.lane = w.lane AND r.due <= now() AND r.due IS NOT NULL AND r.owner IS NULL
			ORDER BY r.due, r.message, r.n LIMIT 80) AS q`), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		for _, n := range regexp.MustCompile(`(?:hit|read)=(\d+)`).FindAllStringSubmatch(plan[0]+plan[1], -1) {
			p, _ := strconv.Atoi(n[1])
			pages += p
		}
		s.counted.Store(false)
		var counts []float64
		for range 21 {
			began := time.Now()
			if u, err := s.Usage(t.Context()); err != nil || u.Messages != int64(waiting) {
				t.Errorf("Usage = %+v, %v, want %d messages", u, err, waiting)
			}
			counts = append(counts, float64(time.Since(began).Microseconds())/1000)
		}
		t.Logf("%d waiting: to count them takes %.1f ms, and %.1f ms once they are counted", waiting, counts[0], median(counts[1:]))
		t.Logf("%d waiting: a claim of 48 takes %.2f ms (median of %d), its look along the index reads %d pages", waiting, median(times), len(times), pages)
	}
}

// fillWaiting adds messages that wait, in five lanes.
func fillWaiting(t *testing.T, srv *server, s *Store, n int) {
	t.Helper()
	for _, sql := range []string{
		fmt.Sprintf(`INSERT INTO {s}.messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, status, final, clock, has_content) SELECT gen_random_uuid(), 'k' || n %% 5, '<1@x>', 'shop@example.com', '', NULL, 'b', 1000, false, false, 0,
			now(), NULL, now() + interval '1 day', 'queued', false, now() + interval '1 day', true FROM generate_series(1, %d) AS g (n)`, n),
		`INSERT INTO {s}.recipients (message, n, forward_path, state, due, route, lane)
			SELECT id, 0, 'x@example.org', 'queued', now(), 'relay', '1' || key FROM {s}.messages AS m WHERE NOT EXISTS (SELECT FROM {s}.recipients AS r WHERE r.message = m.id)`,
		`VACUUM ANALYZE {s}.messages`, `VACUUM ANALYZE {s}.recipients`,
	} {
		srv.exec(t, s.sql(sql))
	}
}

// TestFiguresInOut sends messages through the store, in groups of 16, and measures what one costs the server: its log, its
// processor time, and what the tables keep.
func TestFiguresInOut(t *testing.T) {
	srv := figured(t)
	s := open(t, options(t, srv.url()))
	const group, owner = 16, "me"
	live(t, s, owner)
	conn, err := s.connect(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	lsn := func() (octets int64) {
		if err := conn.QueryRow(t.Context(), `SELECT (pg_current_wal_lsn() - '0/0')::bigint`).Scan(&octets); err != nil {
			t.Fatal(err)
		}
		return octets
	}
	wal, cpu, began := lsn(), srv.cpu(t), time.Now()
	for done := 0; done < *inOut; done += group {
		var wg sync.WaitGroup
		entries, errs := make([]queue.Entry, group), make([]error, group)
		for i := range entries {
			entries[i] = of12KB(owner)
			wg.Go(func() {
				key := &queue.Idempotency{Key: "app", Name: entries[i].Message.ID, Expires: time.Now().Add(queue.IdempotencyLife)}
				_, errs[i] = s.Insert(context.Background(), queue.Batch{Entries: entries[i : i+1], Idempotency: key})
			})
		}
		wg.Wait()
		var outcomes []queue.Outcome
		for i, e := range entries {
			path := e.Message.Envelope.ForwardPaths[0]
			lease := queue.Lease{ID: e.Message.ID, Route: queue.TakenRoute("main"), ForwardPaths: []string{path}, Number: queue.FirstLease}
			wg.Go(func() { errs[i] = errors.Join(errs[i], s.Mark(context.Background(), owner, lease, nil)) })
			outcomes = append(outcomes, queue.Outcome{
				ID: e.Message.ID, Owner: owner, Route: "relay", At: time.Now(), Lease: queue.FirstLease,
				Attempts: []mailer.Attempt{{
					Relay: "main", Rung: mailer.Rung{Port: 587}, TLS: "TLS 1.3", Auth: "PLAIN", Started: time.Now(), Duration: 80 * time.Millisecond,
					Results: []mailer.Result{{ForwardPath: path, Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "Ok: queued as 4F2Jx1"}}},
				}},
				Changes: []queue.Change{{ForwardPath: path, State: queue.Delivered}},
			})
		}
		wg.Wait()
		_, err := s.Record(t.Context(), outcomes)
		if err := errors.Join(append(errs, err)...); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	wal, cpu = lsn()-wal, srv.cpu(t)-cpu
	n := float64(*inOut)
	t.Logf("%d messages in and out in %v: for each %.0f octets of the log, %.2f ms of the server's processor time", *inOut, took.Round(time.Second), float64(wal)/n, cpu.Seconds()*1000/n)
	size := func(when string) {
		var all int64
		var parts []string
		for _, table := range []string{"messages", "contents", "recipients", "attempts", "idempotency", "stats_deltas"} {
			var octets int64
			if err := conn.QueryRow(t.Context(), `SELECT pg_total_relation_size($1::regclass)`, s.schema+"."+table).Scan(&octets); err != nil {
				t.Fatal(err)
			}
			all += octets
			parts = append(parts, fmt.Sprintf("%s %.2f", table, float64(octets)/n/1000))
		}
		t.Logf("%s the tables have %d MB: KB for each message %.2f (%s)", when, all>>20, float64(all)/n/1000, strings.Join(parts, ", "))
	}
	size("right then")
	time.Sleep(30 * time.Second)
	size("after 30 s")
}

// cpu is the processor time of the server and its children so far.
func (s *server) cpu(t *testing.T) (all time.Duration) {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", s.postgres.Process.Pid))
	if err != nil {
		t.Skipf("no list of children: %v", err)
	}
	// Those that have ended are in the times of children of the server itself.
	for _, pid := range append(strings.Fields(string(children)), fmt.Sprint(s.postgres.Process.Pid)) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
			ticks, _ := strconv.ParseInt(fields[i], 10, 64)
			all += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return all
}

// TestFiguresOpen: a database with a million finished messages is open within 5 s.
func TestFiguresOpen(t *testing.T) {
	srv := figured(t)
	o := options(t, srv.url())
	s := open(t, o)
	for _, sql := range []string{
		`INSERT INTO {s}.messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
			expires, status, final, clock, has_content) SELECT gen_random_uuid(), 'k' || n % 5, '<1@x>', 'shop@example.com', '', NULL, 'b', 1000, false, false, 0,
			now(), NULL, now() + interval '1 day', 'delivered', true, now(), false FROM generate_series(1, 1000000) AS g (n)`,
		`INSERT INTO {s}.recipients (message, n, forward_path, state, route, lane) SELECT id, 0, 'x@example.org', 'delivered', 'relay', '1' || key FROM {s}.messages`,
		`VACUUM ANALYZE {s}.messages`, `VACUUM ANALYZE {s}.recipients`,
	} {
		srv.exec(t, s.sql(sql))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, _, err := Migrate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	for what, f := range map[string]func() error{
		"Recover": func() error { _, err := s.Recover(t.Context(), "me", time.Now(), false); return err },
		"Usage":   func() error { _, err := s.Usage(t.Context()); return err },
		"Waiting": func() error { _, err := s.Waiting(t.Context(), time.Now()); return err },
		"List":    func() error { _, err := s.List(t.Context(), queue.Filter{Key: queue.AnyKey}, 50, ""); return err },
	} {
		if err := f(); err != nil {
			t.Errorf("%s = %v", what, err)
		}
	}
	took := time.Since(began)
	t.Logf("open with a million finished messages after %v", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("it took %v, want up to 5 s", took)
	}
}
