//go:build linux

package postgres

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/queue"
)

// TestPlans: no statement that is executed often visits all rows of a table that grows, not
// even by a plan that knows no values, whether the statistics are good, or are of when the
// table was empty.
func TestPlans(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	conn, err := s.connect(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), s.sql(sql), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	w := walk{where: " AND m.sender = $7"}
	statements := map[string]string{
		"claim": claimSQL, "lane heads": laneHeads, "known heads": knownHeads, "lock messages": lockMessages, "read recipients": readRecipients, "insert keys": insertKeys,
		"insert messages": insertMessages, "late rows": lateRows, "gone owners": goneOwners, "reach": reachSQL, "match": matchSQL("l.id", w.where, "ORDER BY l.id DESC LIMIT $6"),
		"show messages": showMessages, "tried": triedSQL, "show recipients": showRecipients, "link": linkResent,
		"update messages": updateMessages, "update recipients": updateRecipients, "cancel": cancelRecipients, "attempts": insertAttempts, "marks": markRecipients,
	}
	number := 0
	check := func(t *testing.T) {
		exec(`SET plan_cache_mode = force_generic_plan`)
		for name, sql := range statements {
			number++
			exec(fmt.Sprintf("PREPARE p%d AS %s", number, sql))
			most := 0
			for _, p := range regexp.MustCompile(`\$(\d+)`).FindAllStringSubmatch(sql, -1) {
				var n int
				_, _ = fmt.Sscan(p[1], &n)
				most = max(most, n)
			}
			args := strings.TrimSuffix(strings.Repeat("NULL, ", most), ", ")
			if most > 0 {
				args = "(" + args + ")"
			}
			// The four updates join a list of values: their transactions forbid other joins, and plans
			// without values.
			if name == "update messages" || name == "update recipients" || name == "cancel" || name == "marks" {
				exec(`SET enable_hashjoin = off`)
				exec(`SET enable_mergejoin = off`)
			}
			rows, err := conn.Query(t.Context(), fmt.Sprintf("EXPLAIN EXECUTE p%d%s", number, args), pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			exec(`RESET enable_hashjoin`)
			exec(`RESET enable_mergejoin`)
			for _, step := range plan {
				if regexp.MustCompile(`Seq Scan on (messages|recipients|attempts|contents|idempotency)\b`).MatchString(step) {
					t.Errorf("%s: %s\n%s", name, step, strings.Join(plan, "\n"))
				}
			}
		}
	}
	exec(`ANALYZE {s}.messages`)
	exec(fmt.Sprintf(`INSERT INTO {s}.messages (id, key, message_id, sender, subject, tags, reverse_path, size, eight_bit, utf8_header, priority, created, send_at,
		expires, status, final, clock, has_content) SELECT gen_random_uuid(), 'k' || n %% 5, '<1@x>', 'shop@example.com', '', NULL, 'b', 1000, false, false, 0,
		now(), NULL, now() + interval '1 day', 'queued', false, now() + interval '1 day', true FROM generate_series(1, %d) AS g (n)`, *planRows))
	exec(`INSERT INTO {s}.recipients (message, n, forward_path, state, due, route, lane) SELECT id, 0, 'x@example.org', 'queued', now(), 'relay', '1' || key FROM {s}.messages`)
	exec(`INSERT INTO {s}.contents (message, n, data) SELECT id, 0, 'x' FROM {s}.messages`)
	exec(`INSERT INTO {s}.idempotency SELECT key, id::text, '', '', now() FROM {s}.messages`)
	t.Run("statistics of an empty table", check)
	for _, table := range []string{"messages", "recipients", "contents", "idempotency", "attempts"} {
		exec(`VACUUM ANALYZE {s}.` + table)
	}
	t.Run("good statistics", check)
}

// TestHeldHorizon: while another transaction keeps dead rows alive, a claim does not look at
// all that was sent since that began.
func TestHeldHorizon(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	held, err := s.connect(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close(t.Context()) }()
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class"} {
		if _, err := held.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	want := []queue.Want{{Route: "relay", Lane: queue.Lane{Key: "app"}, Limit: 50}}
	sent := 0
	var last time.Time
	for range 12 {
		var batch []queue.Entry
		for range 500 {
			batch = append(batch, entry("", "x@example.org"))
		}
		insert(t, s, batch...)
		s.lanes.forget() // as time does
		if _, err := s.Waiting(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		for {
			works, err := s.Claim(t.Context(), "me", time.Now(), want)
			if err != nil {
				t.Fatal(err)
			}
			if len(works) == 0 {
				break
			}
			var outcomes []queue.Outcome
			for _, w := range works {
				outcomes = append(outcomes, queue.Outcome{
					ID: w.ID, Owner: "me", Route: "relay", At: time.Now(), Lease: w.Lease,
					Changes: []queue.Change{{ForwardPath: "x@example.org", State: queue.Delivered}},
				})
			}
			if _, err := s.Record(t.Context(), outcomes); err != nil {
				t.Fatal(err)
			}
			sent += len(works)
			last = works[len(works)-1].Since
		}
	}
	if sent != 6000 {
		t.Fatalf("%d messages were sent", sent)
	}
	// How much a look costs with the mark, and without it.
	look := func(from any) (buffers int) {
		t.Helper()
		rows, err := s.pool.Query(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT TEXT) `+s.sql(`SELECT message FROM {s}.recipients
			WHERE route = 'relay' AND lane = '1app' AND due >= $1 AND due <= now() AND due IS NOT NULL AND owner IS NULL ORDER BY due LIMIT 1`), from)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range regexp.MustCompile(`(?:hit|read)=(\d+)`).FindAllStringSubmatch(plan[1]+plan[0], -1) {
			var pages int
			_, _ = fmt.Sscan(n[1], &pages)
			buffers += pages
		}
		return buffers
	}
	low := s.lanes.low("relay", "1app")
	if low.InfinityModifier != 0 || last.Sub(low.Time) > 10*time.Second {
		t.Errorf("claims look from %v on, and the last message is of %v", low, last)
	}
	with, without := look(low), look(negativeInfinity)
	t.Logf("pages: %d with the mark, %d without", with, without)
	if 4*with > without {
		t.Errorf("a look costs %d pages with the mark and %d without, want much less", with, without)
	}
}
