package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

const (
	// addInterval is how often the numbers that commits have added are added up.
	addInterval = 10 * time.Second
	// addRows is how many one transaction adds up.
	addRows = 2000
	// countInterval is how often that which is not final is counted, in case that what commits
	// have added is wrong.
	countInterval = time.Hour
)

// The kinds of deltas.
const (
	deltaAccepted = iota // a list of messages: key, when it was accepted in microseconds, recipients, octets
	deltaTally           // a [packedTally]
)

// packedTally is a tally as a row of stats_deltas keeps it.
type packedTally struct {
	Statuses []packedStatus `json:"s,omitempty"`
	Counts   []packedCount  `json:"c,omitempty"`
	Replies  []packedReply  `json:"r,omitempty"`
	Usage    *queue.Usage   `json:"u,omitempty"` // what is not final changed by that
}

type packedStatus struct {
	tally.StatusKey
	N int64
}

type packedCount struct {
	tally.CountKey
	queue.Counts
}

type packedReply struct {
	tally.ReplyKey
	tally.Reply
}

// saveNumbers adds to the transaction what it adds to the numbers, and by what it changes that which is not final.
func (t *tx) saveNumbers(count *tally.Tally, usage queue.Usage) error {
	var p packedTally
	if usage != (queue.Usage{}) {
		p.Usage = &usage
	}
	for k, n := range count.Statuses {
		p.Statuses = append(p.Statuses, packedStatus{k, n})
	}
	for k, c := range count.Counts {
		p.Counts = append(p.Counts, packedCount{k, *c})
	}
	for k, r := range count.Replies {
		p.Replies = append(p.Replies, packedReply{k, *r})
	}
	if len(p.Statuses)+len(p.Counts)+len(p.Replies) == 0 && p.Usage == nil {
		return nil
	}
	delta, err := toJSON(p)
	if err == nil {
		t.exec(`INSERT INTO {s}.stats_deltas (kind, delta) VALUES ($1, $2)`, deltaTally, *delta)
	}
	return err
}

// addUsage adds what a row of stats_deltas says of what is not final.
func addUsage(to *queue.Usage, kind int, delta string) error {
	if kind == deltaTally {
		var p struct {
			Usage queue.Usage `json:"u"`
		}
		if err := json.Unmarshal([]byte(delta), &p); err != nil {
			return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
		}
		to.Messages, to.Bytes = to.Messages+p.Usage.Messages, to.Bytes+p.Usage.Bytes
		return nil
	}
	var rows []json.RawMessage
	if err := json.Unmarshal([]byte(delta), &rows); err != nil {
		return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	for _, row := range rows {
		var key, at, recipients json.RawMessage
		var size int64
		if err := json.Unmarshal(row, &[]any{&key, &at, &recipients, &size}); err != nil {
			return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
		}
		to.Messages, to.Bytes = to.Messages+1, to.Bytes+size
	}
	return nil
}

// addDelta adds a row of stats_deltas.
func addDelta(to *tally.Tally, kind int, delta string) error {
	if kind == deltaAccepted {
		var accepted []json.RawMessage
		if err := json.Unmarshal([]byte(delta), &accepted); err != nil {
			return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
		}
		for _, one := range accepted {
			c := tally.Change{To: queue.StatusQueued}
			var at int64
			if err := json.Unmarshal(one, &[]any{&c.Key, &at, &c.Accepted}); err != nil {
				return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
			}
			c.At = time.UnixMicro(at)
			to.Apply(c)
		}
		return nil
	}
	var p packedTally
	if err := fromJSON(&delta, &p); err != nil {
		return err
	}
	part := tally.New()
	for _, s := range p.Statuses {
		part.Statuses[s.StatusKey] += s.N
	}
	for _, c := range p.Counts {
		part.Counts[c.CountKey] = &c.Counts
	}
	for _, r := range p.Replies {
		part.AddReply(r.ReplyKey, &r.Reply)
	}
	to.Add(part)
	return nil
}

// readNumbers adds the queries for the numbers that are added up, with counts from that time on, in microseconds since
// 1970.
func (t *tx) readNumbers(into *tally.Tally, from int64) {
	t.each(`SELECT key, status, messages FROM {s}.stats_statuses`, nil, func(rows pgx.Rows) error {
		var k tally.StatusKey
		var n int64
		err := rows.Scan(&k.Key, &k.Status, &n)
		into.Statuses[k] = n
		return err
	})
	t.each(`SELECT at, key, relay, messages, accepted, delivered, deferred, bounced, uncertain FROM {s}.stats_counts WHERE at >= $1`, []any{from}, func(rows pgx.Rows) error {
		var k tally.CountKey
		c := &queue.Counts{}
		err := rows.Scan(&k.At, &k.Key, &k.Relay, &c.Messages, &c.Accepted, &c.Delivered, &c.Deferred, &c.Bounced, &c.Uncertain)
		into.Counts[k] = c
		return err
	})
	t.each(`SELECT at, key, relay, class, code, enhanced, text, n, first, last FROM {s}.stats_replies`, nil, func(rows pgx.Rows) error {
		var k tally.ReplyKey
		var class int
		r := &tally.Reply{}
		err := rows.Scan(&k.At, &k.Key, &k.Relay, &class, &k.Code, &k.Enhanced, &k.Text, &r.N, &r.First, &r.Last)
		k.Class = mailer.Class(class)
		into.AddReply(k, r)
		return err
	})
}

// Stats returns what each commit has counted, and looks at the heads of the lanes and at what
// is leased.
func (s *Store) Stats(ctx context.Context, of string, now time.Time) (queue.Stats, error) {
	return view(ctx, s, readTime, func(t *tx) (stats queue.Stats, err error) {
		numbers := tally.New()
		var heads []head
		var due []tally.Due
		t.readNumbers(numbers, tally.Begin(now))
		t.heads(&heads, laneHeads)
		t.each(`SELECT lane, min(due) FROM {s}.recipients WHERE owner IS NOT NULL AND due IS NOT NULL GROUP BY lane`, nil, func(rows pgx.Rows) error {
			var text string
			var at pgtype.Timestamptz
			if err := rows.Scan(&text, &at); err != nil {
				return err
			}
			lane, err := stored.ParseLane(text)
			due = append(due, tally.Due{Lane: lane, At: timeOf(at)})
			return err
		})
		t.each(`SELECT kind, delta FROM {s}.stats_deltas ORDER BY n`, nil, scanDelta(numbers, nil))
		if err := t.finish(); err != nil {
			return stats, err
		}
		for _, h := range heads {
			due = append(due, tally.Due{Lane: h.Lane, At: h.At})
		}
		return numbers.Stats(of, now, due), nil
	})
}

// scanDelta adds a row to the numbers, and to what is not final; nil is not wanted.
func scanDelta(into *tally.Tally, usage *queue.Usage) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var kind int
		var delta string
		if err := rows.Scan(&kind, &delta); err != nil {
			return err
		}
		if usage != nil {
			if err := addUsage(usage, kind, delta); err != nil {
				return err
			}
		}
		if into == nil {
			return nil
		}
		return addDelta(into, kind, delta)
	}
}

// addUp adds up, now and then, what commits have added.
func (s *Store) addUp() {
	tick := time.NewTicker(addInterval)
	defer tick.Stop()
	counted := time.Now()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		if time.Since(counted) >= countInterval {
			counted = time.Now()
			_, _ = write(context.Background(), s, (*tx).countUnfinished) // the next time it is done again
		}
		for more := true; more; {
			n, err := write(context.Background(), s, (*tx).addUp)
			more = err == nil && n == addRows // what failed is done the next time
		}
	}
}

// addUp adds up some rows, and returns how many.
func (t *tx) addUp() (n int, err error) {
	if alone, err := t.alone(numbersLock); err != nil || !alone {
		return 0, err
	}
	numbers, usage := tally.New(), queue.Usage{}
	t.readNumbers(numbers, 0)
	if err := t.send(); err != nil {
		return 0, err
	}
	t.each(`DELETE FROM {s}.stats_deltas WHERE n = ANY (ARRAY(SELECT n FROM {s}.stats_deltas ORDER BY n LIMIT $1)) RETURNING kind, delta`, []any{addRows},
		func(rows pgx.Rows) error {
			n++
			return scanDelta(numbers, &usage)(rows)
		})
	if err := t.send(); err != nil || n == 0 {
		return 0, err
	}
	if usage != (queue.Usage{}) {
		t.exec(`UPDATE {s}.unfinished SET messages = messages + $1, octets = octets + $2`, usage.Messages, usage.Bytes)
	}
	t.writeNumbers(numbers.Changed())
	return n, nil
}

// countUnfinished counts what is not final, and returns whether it could: nobody adds up meanwhile. One statement sees one
// state of the messages and of what commits have added: what it counts has that already.
func (t *tx) countUnfinished() (bool, error) {
	if alone, err := t.alone(numbersLock); err != nil || !alone {
		return false, err
	}
	t.exec(fmt.Sprintf("SET LOCAL statement_timeout = %d", readTime.Milliseconds()))
	var all, added queue.Usage
	t.each(`SELECT c.n, c.octets, d.kind, d.delta FROM (SELECT count(*) AS n, coalesce(sum(size), 0)::bigint AS octets FROM {s}.messages WHERE NOT final) AS c
		LEFT JOIN {s}.stats_deltas AS d ON true`, nil, func(rows pgx.Rows) error {
		var kind *int
		var delta *string
		if err := rows.Scan(&all.Messages, &all.Bytes, &kind, &delta); err != nil || kind == nil {
			return err
		}
		return addUsage(&added, *kind, *delta)
	})
	if err := t.send(); err != nil {
		return false, err
	}
	t.exec(`UPDATE {s}.unfinished SET messages = $1, octets = $2`, all.Messages-added.Messages, all.Bytes-added.Bytes)
	return true, nil
}

// writeNumbers writes whole numbers in place of those before.
func (t *tx) writeNumbers(c tally.Changed) {
	for k, n := range c.Statuses {
		t.exec(`INSERT INTO {s}.stats_statuses (key, status, messages) VALUES ($1, $2, $3) ON CONFLICT (key, status) DO UPDATE SET messages = excluded.messages`,
			k.Key, string(k.Status), n)
	}
	for k, n := range c.Counts {
		t.exec(`INSERT INTO {s}.stats_counts (at, key, relay, messages, accepted, delivered, deferred, bounced, uncertain)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (at, key, relay) DO UPDATE SET messages = excluded.messages,
				accepted = excluded.accepted, delivered = excluded.delivered, deferred = excluded.deferred, bounced = excluded.bounced, uncertain = excluded.uncertain`,
			k.At, k.Key, k.Relay, n.Messages, n.Accepted, n.Delivered, n.Deferred, n.Bounced, n.Uncertain)
	}
	for k, r := range c.Replies {
		t.exec(`INSERT INTO {s}.stats_replies (at, key, relay, class, code, enhanced, text, n, first, last)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (at, key, relay, class, code, enhanced, text) DO UPDATE SET
				n = excluded.n, first = excluded.first, last = excluded.last`,
			k.At, k.Key, k.Relay, int(k.Class), k.Code, k.Enhanced, k.Text, r.N, r.First, r.Last)
	}
}

// sweepNumbers removes what is not shown any more, and returns how many numbers.
func (t *tx) sweepNumbers(now time.Time, _ int) (n int, err error) {
	if alone, err := t.alone(numbersLock); err != nil || !alone {
		return 0, err
	}
	day, week, to := tally.Limits(now)
	// Counts of the days before are put together by the hour.
	hour := time.Hour.Microseconds()
	t.exec(`INSERT INTO {s}.stats_counts AS c (at, key, relay, messages, accepted, delivered, deferred, bounced, uncertain)
		SELECT at - at % $3, key, '', sum(messages), sum(accepted), sum(delivered), sum(deferred), sum(bounced), sum(uncertain)
		FROM {s}.stats_counts WHERE at >= $1 AND at < $2 AND (relay <> '' OR at % $3 <> 0) GROUP BY 1, 2
		ON CONFLICT (at, key, relay) DO UPDATE SET messages = c.messages + excluded.messages, accepted = c.accepted + excluded.accepted,
			delivered = c.delivered + excluded.delivered, deferred = c.deferred + excluded.deferred, bounced = c.bounced + excluded.bounced,
			uncertain = c.uncertain + excluded.uncertain`, week, day, hour)
	t.exec(`DELETE FROM {s}.stats_counts WHERE at < $1 AND (relay <> '' OR at % $2 <> 0)`, day, hour)
	t.exec(`DELETE FROM {s}.stats_statuses WHERE messages = 0`)
	t.count(&n, `DELETE FROM {s}.stats_counts WHERE at < $1 OR at > $2`, week, to)
	t.count(&n, `DELETE FROM {s}.stats_replies WHERE at < $1 OR at > $2`, day, to)
	return n, t.send()
}

// Week returns what each commit has counted.
func (s *Store) Week(ctx context.Context, of string, now time.Time) ([]queue.Bucket, error) {
	return view(ctx, s, readTime, func(t *tx) ([]queue.Bucket, error) {
		numbers := tally.New()
		t.readNumbers(numbers, tally.WeekBegin(now))
		t.each(`SELECT kind, delta FROM {s}.stats_deltas ORDER BY n`, nil, scanDelta(numbers, nil))
		if err := t.finish(); err != nil {
			return nil, err
		}
		return numbers.Week(of, now), nil
	})
}
