package postgres

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"mailsidecar/queue"
)

// Bounds of a list. A search may have to look at every message of a key: it does so
// in many statements.
const (
	listTime = 2 * time.Second // for a page; what is found by then is the page
	stepTime = 40 * time.Millisecond
	// What a statement looks at, in messages of a key and status. It grows while
	// statements take less than stepTime.
	firstStep, longestStep = 256, 8192
	// pageRecipients limits the memory of a page. Its last message may have more.
	pageRecipients = 10_000
	// listsAtATime is how many connections lists and searches have.
	listsAtATime = 2
)

// List returns a page of the messages that f selects.
func (s *Store) List(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Page, error) {
	w, err := newWalk(f, limit, cursor)
	if err != nil {
		return queue.Page{}, err
	}
	page, _, err := s.walk(ctx, w)
	return page, err
}

// Count counts the messages that f selects.
func (s *Store) Count(ctx context.Context, f queue.Filter, cursor string) (int, string, error) {
	w, err := newWalk(f, 0, cursor)
	if err != nil {
		return 0, "", err
	}
	w.counts, w.searches = true, true // so that no step counts all there are
	page, counted, err := s.walk(ctx, w)
	return counted, page.Next, err
}

// walk goes on to the end, or as long as a page may take.
func (s *Store) walk(ctx context.Context, w *walk) (queue.Page, int, error) {
	type found struct {
		page    queue.Page
		counted int
	}
	deadline := time.Now().Add(listTime)
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case s.lists <- struct{}{}:
	case <-waiting.Done():
		if ctx.Err() != nil {
			return queue.Page{}, 0, ctx.Err()
		}
		return queue.Page{}, 0, queue.ErrTooManyLists
	}
	var begun atomic.Bool // whoever sets it gives the place back
	r, err := view(ctx, s, listTime, func(t *tx) (found, error) {
		if !begun.CompareAndSwap(false, true) {
			return found{}, context.Canceled
		}
		defer func() { <-s.lists }()
		for !w.ended {
			err := w.step(t)
			var e *pgconn.PgError
			switch {
			case errors.As(err, &e) && e.Code == "57014", err == nil && !w.ended && time.Now().After(deadline):
				page, err := w.cutShort(err)
				return found{page, w.counted}, err
			case err != nil:
				return found{}, err
			}
		}
		return found{w.page, w.counted}, nil
	})
	if begun.CompareAndSwap(false, true) {
		<-s.lists
	}
	return r.page, r.counted, err
}

// walk goes from the newest message that a list may have to the oldest.
type walk struct {
	key      string
	statuses []string
	where    string // of those that match, beside their range of ids
	args     []any
	searches bool // most messages may have to be looked at for one that is found
	all      bool // every status
	limit    int
	counts   bool // messages are counted, and not read
	counted  int

	from, floor key // the ids that are left: below from, and not below floor
	above       bool
	rows        int // how many messages of each key and status the next step looks at
	ended       bool
	moved       bool // a step was made
	page        queue.Page
	recipients  int // on the page
}

func newWalk(f queue.Filter, limit int, cursor string) (*walk, error) {
	w := &walk{key: f.Key, limit: limit, rows: firstStep, from: key(bytes.Repeat([]byte{0xff}, 16)), above: true}
	for _, status := range queue.Statuses {
		switch {
		case f.Status != "" && f.Status != status, !f.Among.Has(status),
			f.State != "" && !status.Has(f.State), f.RecipientState != "" && !status.Has(f.RecipientState):
		default:
			w.statuses = append(w.statuses, string(status))
		}
	}
	w.all = len(w.statuses) == len(queue.Statuses)
	// Ids begin with the time of acceptance in milliseconds.
	if !f.Since.IsZero() {
		w.floor, _ = parseID(queue.FirstID(f.Since))
		w.and("m.created >= %s", stamp(f.Since))
	}
	if !f.Until.IsZero() {
		w.from, _ = parseID(queue.FirstID(f.Until.Add(time.Millisecond)))
		w.above = false
		w.and("m.created < %s", stamp(f.Until))
	}
	if f.ID != "" {
		first, last := queue.IDRange(f.ID)
		w.limits(key(first), key(last), true)
	}
	if cursor != "" {
		id, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || len(id) != 16 {
			return nil, queue.ErrInvalidCursor
		}
		w.limits(w.floor, key(id), false)
	}
	w.search(f)
	return w, nil
}

// limits leaves the ids that are below from, or with above not above it, and not below floor.
func (w *walk) limits(floor, from key, above bool) {
	if c := bytes.Compare(from[:], w.from[:]); c < 0 || c == 0 && !above {
		w.from, w.above = from, above
	}
	if bytes.Compare(floor[:], w.floor[:]) > 0 {
		w.floor = floor
	}
}

// and adds a condition, in which %s is the next argument.
func (w *walk) and(sql string, args ...any) {
	for _, a := range args {
		w.args = append(w.args, a)
		sql = strings.Replace(sql, "%s", fmt.Sprintf("$%d", firstArg+len(w.args)), 1)
	}
	w.where += " AND " + sql
}

// firstArg is how many arguments a step's statement has before those of the conditions.
const firstArg = 6

// search adds what no index tells. In the collation C only ASCII has cases.
func (w *walk) search(f queue.Filter) {
	if f.Sender != "" {
		w.and("lower(m.sender) = lower(%s::text COLLATE \"C\")", f.Sender)
	}
	if f.State != "" {
		w.and("EXISTS (SELECT FROM {s}.recipients AS r WHERE r.message = m.id AND r.state = %s)", string(f.State))
	}
	if f.ByRecipient() {
		outer := w.where
		w.where = ""
		w.ofRecipient(f)
		w.where = outer + " AND EXISTS (SELECT FROM {s}.recipients AS r WHERE r.message = m.id" + w.where + ")"
	}
	if f.MessageID != "" {
		w.and("m.message_id = %s", f.MessageID)
	}
	for _, word := range queue.SubjectWords(f.Subject) {
		from, to := otherCases(word)
		w.and(`strpos(translate(left(m.subject, %s::int) COLLATE "C", %s, %s), %s) > 0`, queue.SubjectSearched, clean(from), clean(to), clean(word))
	}
	if f.TagName != "" {
		w.and("m.tags ? %s", clean(f.TagName))
		if f.TagValue != "" {
			w.and("m.tags ->> %s = %s", clean(f.TagName), clean(f.TagValue))
		}
	}
	w.searches = f.Sender != "" || f.Subject != "" || f.MessageID != "" || f.TagName != "" || f.State != "" || f.ByRecipient()
}

// ofRecipient is what the filter asks of a recipient.
func (w *walk) ofRecipient(f queue.Filter) {
	if f.RecipientState != "" {
		w.and("r.state = %s", string(f.RecipientState))
	}
	if f.Recipient != "" {
		w.and("lower(r.forward_path) = lower(%s::text COLLATE \"C\")", f.Recipient)
	}
	if f.Domain != "" {
		w.and("lower(right(r.forward_path, %s::int)) = lower(%s::text COLLATE \"C\")", len(f.Domain)+1, "@"+f.Domain)
	}
	if !f.ByReply() {
		return
	}
	// Package stored has written the result.
	w.and("r.result #> '{failure,class}' IS NOT NULL")
	if f.Relay != "" {
		w.and("r.result #>> '{failure,relay}' = %s", clean(f.Relay))
	}
	if f.ReplyCode != 0 {
		w.and("coalesce((r.result #>> '{failure,code}')::int, 0) = %s::int", f.ReplyCode)
	}
	if f.EnhancedCode != "" {
		w.and("r.result #>> '{failure,enhanced}' = %s", clean(f.EnhancedCode))
	}
	if f.Text != "" || f.NoText { // without a pattern nothing but an empty text matches
		w.and(`lower(coalesce(CASE WHEN r.result #> '{failure,code}' IS NULL THEN r.result #>> '{failure,text}' ELSE r.result #>> '{failure,reply}' END, '') COLLATE "C")
			LIKE lower(%s::text COLLATE "C") ESCAPE '\'`, likePattern(clean(f.Text)))
	}
}

// likePattern is a pattern of [queue.Filter] in SQL.
func likePattern(text string) string {
	return strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%").Replace(text)
}

// otherCases are the characters that stand for a letter of the word in another case, and those letters: what the
// database itself knows of case depends on its locale.
func otherCases(word string) (from, to string) {
	var others, letters []rune
	for _, r := range word {
		for _, c := range queue.LetterCases(r) {
			if c != r && !slices.Contains(others, c) {
				others, letters = append(others, c), append(letters, r)
			}
		}
	}
	return string(others), string(letters)
}

// spansSQL are the keys and statuses to walk along: along the index of each no page is slow
// because few among very many messages match. Without a key it steps from one to the next.
const spansSQL = `WITH RECURSIVE keys AS (
	(SELECT key FROM {s}.messages WHERE $1 = '*' ORDER BY key LIMIT 1)
	UNION ALL
	SELECT n.* FROM keys AS k CROSS JOIN LATERAL (SELECT m.key FROM {s}.messages AS m WHERE m.key > k.key ORDER BY m.key LIMIT 1) AS n),
spans AS MATERIALIZED (
	SELECT k.key, s.status FROM (SELECT key FROM keys UNION ALL SELECT $1 WHERE $1 <> '*') AS k CROSS JOIN unnest($2::text[]) AS s (status))`

// reachSQL is how far a step goes: so that it looks at so many messages in the longest span.
const reachSQL = spansSQL + ` SELECT max(l.id::text)::uuid FROM spans AS s CROSS JOIN LATERAL (
	SELECT m.id FROM {s}.messages AS m WHERE m.key = s.key AND m.status = s.status AND m.id >= $3 AND m.id <= $4 AND ($5 OR m.id < $4)
	ORDER BY m.id DESC OFFSET $6 LIMIT 1) AS l`

func matchSQL(what, where, end string) string {
	return spansSQL + ` SELECT ` + what + ` FROM spans AS s CROSS JOIN LATERAL (
	SELECT m.id FROM {s}.messages AS m WHERE m.key = s.key AND m.status = s.status AND m.id >= $3 AND m.id <= $4 AND ($5 OR m.id < $4)` + where +
		` ORDER BY m.id DESC LIMIT $6) AS l ` + end
}

// step looks at some messages, and reads those that match.
func (w *walk) step(t *tx) error {
	began := time.Now()
	to := w.floor
	if w.searches {
		var reached *key
		t.row(reachSQL, []any{w.key, w.statuses, w.floor, w.from, w.above, w.rows - 1}, &reached)
		if err := t.send(); err != nil {
			return err
		}
		if reached != nil {
			to = *reached
		}
	}
	if w.counts {
		var n int
		t.row(matchSQL("count(*)", w.where, ""), append([]any{w.key, w.statuses, to, w.from, w.above, 1 << 30}, w.args...), &n)
		if err := t.send(); err != nil {
			return err
		}
		w.counted += n
	} else if full, err := w.read(t, to); err != nil || full {
		return err
	}
	w.moved, w.from, w.above = true, to, false
	w.ended = to == w.floor
	w.pace(time.Since(began))
	return nil
}

// read adds what matches to the page, and says whether that is full.
func (w *walk) read(t *tx, to key) (full bool, err error) {
	left := w.limit - len(w.page.Messages)
	ids, err := t.ids(matchSQL("l.id", w.where, "ORDER BY l.id DESC LIMIT $6"), append([]any{w.key, w.statuses, to, w.from, w.above, left + 1}, w.args...)...)
	if err != nil {
		return false, err
	}
	for part := range slices.Chunk(ids[:min(len(ids), left)], 50) {
		if w.recipients >= pageRecipients {
			full = true
			break
		}
		var messages []queue.Message
		t.show(part, &messages)
		if err := t.send(); err != nil {
			return false, err
		}
		w.page.Messages = append(w.page.Messages, messages...)
		for _, m := range messages {
			w.recipients += len(m.Recipients)
		}
	}
	if full = full || len(ids) > left; full {
		last, _ := parseID(w.page.Messages[len(w.page.Messages)-1].ID)
		w.page.Next, w.ended = cursorAt(last), true
	}
	return full, nil
}

// pace makes the next step longer or shorter.
func (w *walk) pace(took time.Duration) {
	switch {
	case took < stepTime/2:
		w.rows = min(2*w.rows, longestStep)
	case took > stepTime:
		w.rows = max(w.rows/2, 1)
	}
}

// cutShort returns the page as it is when its time is over.
func (w *walk) cutShort(err error) (queue.Page, error) {
	if !w.moved {
		return queue.Page{}, errors.Join(queue.ErrSearchTooSlow, err)
	}
	w.page.Next, w.page.SearchedBackTo = cursorAt(w.from), queue.TimeOf(textOf(w.from)).Add(time.Millisecond)
	return w.page, nil
}

func cursorAt(id key) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
