package sqlite

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/stored"
	"mailsidecar/queue/tally"
)

// numbers are those of [queue.Stats]. They are in memory, where each commit counts what it
// has done. The tables stats_… get them with a transaction that is written anyway, once
// every keepInterval, and when the store is closed: to write them with each one would make
// a commit a tenth longer. After a crash, and after a commit that may or may not have
// happened, they may be wrong by what such an interval has: then [Store.countSome]
// counts anew in the background.
type numbers struct {
	// The writer's: what the open transaction has done, which numbers it writes, and
	// when they were written last.
	pending []tally.Change
	keeps   *tally.Tally // what it writes of; nil: nothing
	kept    time.Time
	// merged says that counts were put together by the hour before that time, in microseconds since 1970, and that the
	// table has the parts still; zero: it has not.
	merged int64

	mu     sync.Mutex
	shown  *tally.Tally
	exact  bool
	stored bool // stats_exact has a row
	whole  bool // the tables have others, which must go
	// anew is what is being counted; nil while nothing is. It has the messages with ids up
	// to visited, and those after last, which are too new to be visited.
	anew          *tally.Tally
	visited, last string
}

const (
	// keepInterval is how long what a crash makes uncertain may be.
	keepInterval = time.Second
	// numbersSchema is the first schema with tables for them; tests write files of older ones.
	numbersSchema = 12
)

func (w *writer) count(c tally.Change) { w.numbers.pending = append(w.numbers.pending, c) }

// countAttempts counts what came of attempts on a message.
func (w *writer) countAttempts(id []byte, m settlement, attempts []mailer.Attempt) {
	if m.known && len(attempts) > 0 {
		w.count(tally.Change{ID: string(id), Key: m.key, Attempts: attempts})
	}
}

// begin begins a transaction.
func (n *numbers) begin() {
	clear(n.pending) // it may hold what came of many attempts
	n.pending, n.keeps = n.pending[:0], nil
}

// commit counts what the transaction has done. The caller holds the turn of usageCount.
func (n *numbers) commit() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keeps != nil && n.keeps == n.shown { // else a new count has taken its place meanwhile
		n.shown.Clean()
		n.kept, n.whole, n.merged = time.Now(), false, 0
	}
	n.stored = n.stored && len(n.pending) == 0
	for _, c := range n.pending {
		n.shown.Apply(c)
		if n.anew != nil && (c.ID <= n.visited || c.ID > n.last) {
			n.anew.Apply(c)
		}
	}
	clear(n.pending)
	n.pending = n.pending[:0]
}

// doubt says that a commit may have happened.
func (n *numbers) doubt() {
	if len(n.pending) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exact, n.anew = false, nil
}

// read takes what the tables have.
func (n *numbers) read(s *session) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shown, n.kept = tally.New(), time.Now()
	if len(migrations) < numbersSchema {
		n.exact = true // of what a test asks for
		return nil
	}
	if err := s.row(`SELECT EXISTS (SELECT 1 FROM stats_exact)`, nil, &n.exact); err != nil {
		return err
	}
	n.stored = n.exact
	return readNumbers(s, n.shown)
}

func readNumbers(s *session, t *tally.Tally) error {
	err := s.each(`SELECT key, status, messages FROM stats_statuses`, nil, func(rows *sql.Rows) error {
		var k tally.StatusKey
		var n int64
		err := rows.Scan(&k.Key, &k.Status, &n)
		t.Statuses[k] = n
		return err
	})
	if err != nil {
		return err
	}
	err = s.each(`SELECT at, key, relay, messages, accepted, delivered, deferred, bounced, uncertain FROM stats_counts`, nil, func(rows *sql.Rows) error {
		var k tally.CountKey
		c := &queue.Counts{}
		err := rows.Scan(&k.At, &k.Key, &k.Relay, &c.Messages, &c.Accepted, &c.Delivered, &c.Deferred, &c.Bounced, &c.Uncertain)
		t.Counts[k] = c
		return err
	})
	if err != nil {
		return err
	}
	return s.each(`SELECT at, key, relay, class, code, enhanced, text, n, first, last FROM stats_replies`, nil, func(rows *sql.Rows) error {
		var k tally.ReplyKey
		r := &tally.Reply{}
		err := rows.Scan(&k.At, &k.Key, &k.Relay, &k.Class, &k.Code, &k.Enhanced, &k.Text, &r.N, &r.First, &r.Last)
		t.AddReply(k, r)
		return err
	})
}

// keepNumbers writes the numbers into their tables, if it is time for that, and says that
// they are not those of all commits any more.
func (w *writer) keepNumbers() error {
	n := &w.numbers
	if len(migrations) < numbersSchema || len(n.pending) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stored {
		if err := w.exec(`DELETE FROM stats_exact`); err != nil {
			return err
		}
	}
	if time.Since(n.kept) < keepInterval {
		return nil
	}
	n.keeps = n.shown
	return w.writeNumbers()
}

// writeNumbers writes what has changed. It writes whole numbers: nothing is wrong if they
// are written once more, after a commit that may have happened.
func (w *writer) writeNumbers() error {
	t := w.numbers.shown
	if w.numbers.whole {
		for _, table := range []string{"stats_statuses", "stats_counts", "stats_replies"} {
			if err := w.exec("DELETE FROM " + table); err != nil {
				return err
			}
		}
	}
	if before := w.numbers.merged; before != 0 { // the sums come in the same transaction
		if err := w.exec(`DELETE FROM stats_counts WHERE at < ? AND (relay <> '' OR at % ? <> 0)`, before, time.Hour.Microseconds()); err != nil {
			return err
		}
	}
	changed := t.Changed()
	for k, n := range changed.Statuses {
		if err := w.writeStatus(k, n); err != nil {
			return err
		}
	}
	for k, c := range changed.Counts {
		err := w.exec(`INSERT OR REPLACE INTO stats_counts (at, key, relay, messages, accepted, delivered, deferred, bounced, uncertain)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, k.At, k.Key, k.Relay, c.Messages, c.Accepted, c.Delivered, c.Deferred, c.Bounced, c.Uncertain)
		if err != nil {
			return err
		}
	}
	for k, r := range changed.Replies {
		err := w.exec(`INSERT OR REPLACE INTO stats_replies (at, key, relay, class, code, enhanced, text, n, first, last)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, k.At, k.Key, k.Relay, int(k.Class), k.Code, k.Enhanced, k.Text, r.N, r.First, r.Last)
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) writeStatus(k tally.StatusKey, n int64) error {
	if n == 0 {
		return w.exec(`DELETE FROM stats_statuses WHERE key = ? AND status = ?`, k.Key, string(k.Status))
	}
	return w.exec(`INSERT OR REPLACE INTO stats_statuses (key, status, messages) VALUES (?, ?, ?)`, k.Key, string(k.Status), n)
}

// storeNumbers stores them when the store is closed. Where they are not those of all
// commits, the next start counts anew.
func (w *writer) storeNumbers() {
	n := &w.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stored || len(migrations) < numbersSchema || w.begin() != nil {
		return
	}
	err := w.writeNumbers()
	if err == nil && n.exact {
		err = w.exec(`INSERT INTO stats_exact SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM stats_exact)`)
	}
	if err != nil || w.control("COMMIT") != nil {
		w.rollBack()
	}
}

// sweepNumbers removes what is not shown any more, and returns how many numbers.
func (w *writer) sweepNumbers(now time.Time, _ int) (int, error) {
	if len(migrations) < numbersSchema {
		return 0, nil
	}
	n := &w.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	day, week, to := tally.Limits(now)
	if n.shown.Prune(now) {
		n.merged = day
	}
	if n.anew != nil {
		n.anew.Prune(now)
	}
	if n.merged != 0 {
		n.keeps = n.shown
		if err := w.writeNumbers(); err != nil {
			return 0, err
		}
	}
	removed := 0
	for table, from := range map[string]int64{"stats_counts": week, "stats_replies": day} {
		rows, err := w.affect("DELETE FROM "+table+" WHERE at < ? OR at > ?", from, to)
		if err != nil {
			return 0, err
		}
		removed += int(rows)
	}
	return removed, nil
}

// Week returns what is counted whenever something is committed.
func (s *Store) Week(ctx context.Context, key string, now time.Time) ([]queue.Bucket, error) {
	if err := s.view(ctx, func(*session) error { return nil }); err != nil { // it is closed, or ctx has ended
		return nil, err
	}
	n := &s.writer.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shown.Week(key, now), nil
}

// Stats returns what is counted whenever something is committed, and looks at the heads of
// the lanes and at what is leased.
func (s *Store) Stats(ctx context.Context, key string, now time.Time) (queue.Stats, error) {
	var due []tally.Due
	err := s.view(ctx, func(v *session) (err error) {
		due, err = dues(v)
		return err
	})
	if err != nil {
		return queue.Stats{}, err
	}
	n := &s.writer.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	stats := n.shown.Stats(key, now, due)
	stats.Counting = !n.exact
	return stats, nil
}

const leasedDue = `SELECT lane, min(due) FROM recipients INDEXED BY recipients_leased WHERE owner IS NOT NULL AND due IS NOT NULL GROUP BY lane`

// dues returns when something in each lane is due first, what is leased included.
func dues(v *session) ([]tally.Due, error) {
	var due []tally.Due
	add := func(lane queue.Lane, at time.Time) { due = append(due, tally.Due{Lane: lane, At: at}) }
	heads, err := readLaneHeads(v)
	if err != nil {
		return nil, err
	}
	for _, head := range heads {
		add(head.Lane, head.At)
	}
	err = v.each(leasedDue, nil, func(rows *sql.Rows) error {
		var text string
		var at sql.NullInt64
		if err := rows.Scan(&text, &at); err != nil {
			return err
		}
		lane, err := stored.ParseLane(text)
		add(lane, fromMicros(at))
		return err
	})
	return due, err
}
