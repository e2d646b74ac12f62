package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailsidecar/queue"
)

// Report is what a look at a whole store has found.
type Report struct {
	Schema int
	// Usage counts the messages that are not final, and Held those of them that wait for a
	// person.
	Usage queue.Usage
	Held  int64
	// Leased are recipients that were being sent, or waited for it in memory: a start takes
	// them for uncertain.
	Leased int64
	// Damage is what SQLite finds wrong with the file, and Faults what is wrong with what
	// it holds: up to maxFindings each.
	Damage, Faults []string
}

// Sound says that nothing is wrong.
func (r *Report) Sound() bool { return len(r.Damage)+len(r.Faults) == 0 }

// maxFindings is how much damage is reported.
const maxFindings = 20

// Verify looks at all of the store at path, without changing it. A server may use the store
// meanwhile. Where none does and the log is damaged, that is all that is reported.
func Verify(ctx context.Context, path string) (Report, error) {
	s, err := openLooked(ctx, path)
	if lost, ok := errors.AsType[lostFrames](err); ok {
		return Report{Damage: []string{lost.Error()}}, nil
	}
	if err != nil {
		return Report{}, err
	}
	return s.verifyAndClose()
}

func (s *snapshot) verifyAndClose() (Report, error) {
	r, err := s.verify()
	return r, errors.Join(storeError(s.path, err), s.close())
}

func (s *snapshot) verify() (r Report, err error) {
	r.Schema = s.schema
	if r.Damage, err = s.damage(); err != nil || len(r.Damage) > 0 {
		return r, err
	}
	for _, rule := range rules {
		if rule.since > s.schema {
			continue
		}
		if err := s.patience(); err != nil {
			return r, err
		}
		var n int64
		if err := s.row(rule.count, nil, &n); err != nil {
			return r, err
		}
		if n != 0 {
			r.Faults = append(r.Faults, fmt.Sprintf("%s: %d", rule.broken, n))
		}
	}
	if err := s.row(countAll, nil, &r.Usage.Messages, &r.Usage.Bytes); err != nil {
		return r, err
	}
	return r, s.row(`SELECT (SELECT count(*) FROM messages WHERE status = 'held'), (SELECT count(*) FROM recipients WHERE owner IS NOT NULL)`,
		nil, &r.Held, &r.Leased)
}

// damage is what SQLite says of the file, indexes included.
func (s *snapshot) damage() (found []string, err error) {
	err = s.each(fmt.Sprintf("PRAGMA integrity_check(%d)", maxFindings), nil, func(rows *sql.Rows) error {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		if line != "ok" && len(found) < maxFindings {
			found = append(found, line)
		}
		return s.patience()
	})
	if e, ok := errors.AsType[*sqlitedriver.Error](err); ok && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB) {
		return append(found, e.Error()), nil
	}
	return found, err
}

// rule is what holds of every store after every commit.
type rule struct {
	since  int    // the first schema that has what it asks for
	broken string // what is wrong
	count  string // how often: a query for a number that is zero as a rule
}

// statusOf is [queue.StatusOf] in SQL, from the numbers of recipients in each state.
const statusOf = `CASE WHEN queued = n THEN 'queued' WHEN queued + deferred > 0 THEN 'deferred' WHEN held > 0 THEN 'held'
	WHEN delivered = n THEN 'delivered' WHEN delivered > 0 THEN 'partial' WHEN canceled = n THEN 'canceled' ELSE 'failed' END`

var rules = []rule{
	{1, "recipients without their message", `SELECT count(*) FROM recipients WHERE message NOT IN (SELECT id FROM messages)`},
	{1, "messages without recipients", `SELECT count(*) FROM messages WHERE id NOT IN (SELECT message FROM recipients)`},
	{1, "attempts without their message", `SELECT count(*) FROM attempts WHERE message NOT IN (SELECT id FROM messages)`},
	{1, "messages whose status is not that of their recipients", `SELECT count(*) FROM messages JOIN (
		SELECT message, count(*) AS n, sum(state = 'queued') AS queued, sum(state = 'deferred') AS deferred, sum(state = 'held') AS held,
			sum(state = 'delivered') AS delivered, sum(state = 'canceled') AS canceled
		FROM recipients GROUP BY message) ON message = id
		WHERE status <> ` + statusOf + ` OR final <> (status NOT IN ('queued', 'deferred', 'held'))`},
	{1, "recipients that wait and are never due", `SELECT count(*) FROM recipients WHERE state IN ('queued', 'deferred') AND due IS NULL AND owner IS NULL`},
	{1, "recipients that do not wait and are due", `SELECT count(*) FROM recipients WHERE state NOT IN ('queued', 'deferred') AND due IS NOT NULL`},
	{1, "messages that wait and have no content", `SELECT count(*) FROM messages WHERE final = 0 AND body IS NULL`},
	{1, "messages of whose content a part is missing", `SELECT count(*) FROM messages WHERE body IS NOT NULL
		AND chunks <> (SELECT count(*) FROM contents WHERE seq >= body AND seq < body + chunks)`},
	{9, "parts of contents that belong to no message", `SELECT (SELECT count(*) FROM contents)
		- (SELECT coalesce(sum(chunks), 0) FROM messages WHERE body IS NOT NULL)
		- (SELECT count(*) FROM loose JOIN contents ON seq >= first AND seq < first + loose.count)`},
	{usageSchema, "a stored number of messages that is wrong", `SELECT count(*) FROM usage
		WHERE (messages, bytes) <> (SELECT count(*), coalesce(sum(size), 0) FROM messages WHERE final = 0)`},
	{numbersSchema, "stored numbers of messages by status that are wrong", `SELECT count(*) FROM (
		SELECT * FROM (SELECT key, status, count(*) FROM messages GROUP BY 1, 2 EXCEPT SELECT key, status, messages FROM stats_statuses)
		UNION ALL
		SELECT * FROM (SELECT key, status, messages FROM stats_statuses EXCEPT SELECT key, status, count(*) FROM messages GROUP BY 1, 2))
		WHERE EXISTS (SELECT 1 FROM stats_exact)`},
}
