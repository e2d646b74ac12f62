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
// table was empty. Nor does it sort more rows than it is asked for.
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
			for _, step := range growingSorts(plan) {
				t.Errorf("%s sorts what grows: %s\n%s", name, step, strings.Join(plan, "\n"))
			}
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

var (
	planNode  = regexp.MustCompile(`^( *)(?:->  )?(\S.*)\(cost=`)
	planTable = regexp.MustCompile(`on (messages|recipients|attempts|contents|idempotency)\b`)
	// planFew is the condition of a look that finds as many rows as it is asked for.
	planFew = regexp.MustCompile(`(?:Recheck|Index) Cond: \(+(id|message) = |Index Cond: \(\(key = \S+\) AND \(name = `)
)

// growingSorts returns the scans whose rows a plan sorts, or puts into a hash, though neither a limit nor a list of ids says how many
// these are at most.
func growingSorts(plan []string) (found []string) {
	type node struct {
		depth int
		text  string
	}
	var above []node
	for n, line := range plan {
		m := planNode.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at := node{len(m[1]), m[2]}
		for len(above) > 0 && above[len(above)-1].depth >= at.depth {
			above = above[:len(above)-1]
		}
		if planTable.MatchString(at.text) && strings.Contains(at.text, "Scan") {
			few := false
			for _, detail := range plan[n+1:] {
				if planNode.MatchString(detail) {
					break
				}
				few = few || planFew.MatchString(detail)
			}
			for i := len(above) - 1; i >= 0 && !few; i-- {
				switch {
				case strings.HasPrefix(above[i].text, "Limit"):
					few = true
				case strings.HasPrefix(above[i].text, "Sort"), strings.HasPrefix(above[i].text, "Incremental Sort"), strings.HasPrefix(above[i].text, "Hash "):
					found = append(found, strings.TrimSpace(line))
					few = true
				}
			}
		}
		above = append(above, at)
	}
	return found
}

// TestGrowingSorts: the test of plans finds what it is to find.
func TestGrowingSorts(t *testing.T) {
	for _, test := range []struct {
		plan string
		want int
	}{
		{"Sort  (cost=1)\n  Sort Key: id\n  ->  Index Scan using messages_list on messages m  (cost=1)\n        Index Cond: (key = 'k')", 1},
		{"Sort  (cost=1)\n  ->  Limit  (cost=1)\n        ->  Index Scan using messages_list on messages m  (cost=1)", 0},
		{"Limit  (cost=1)\n  ->  Sort  (cost=1)\n        ->  Index Scan using messages_list on messages m  (cost=1)", 1},
		{"Sort  (cost=1)\n  ->  Bitmap Heap Scan on messages  (cost=1)\n        Recheck Cond: (id = ANY ($1))\n        ->  Bitmap Index Scan on messages_pkey  (cost=1)\n" +
			"              Index Cond: (id = ANY ($1))", 0},
		{"Index Scan using messages_list on messages m  (cost=1)", 0},
	} {
		if found := growingSorts(strings.Split(test.plan, "\n")); len(found) != test.want {
			t.Errorf("found %q in\n%s", found, test.plan)
		}
	}
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
