package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"mailsidecar/queue"
)

// Bounds of a list. A search may have to look at every message of a key: it does so
// in many transactions, and other lists have their turn in between.
const (
	listTime = 2 * time.Second // for a page; what is found by then is the page
	viewTime = time.Second     // for a transaction
	stepTime = 40 * time.Millisecond
	// What a transaction looks at, in messages of a key and status. It grows while
	// transactions take less than stepTime.
	firstStep, longestStep = 256, 8192
	// pageRecipients limits the memory of a page. Its last message may have more.
	pageRecipients = 10_000
)

// List returns a page of the messages that f selects.
func (s *Store) List(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Page, error) {
	w, err := newWalk(f, limit, cursor)
	if err != nil {
		return queue.Page{}, err
	}
	return s.walk(ctx, w)
}

// Count counts the messages that f selects.
func (s *Store) Count(ctx context.Context, f queue.Filter, cursor string) (int, string, error) {
	w, err := newWalk(f, 0, cursor)
	if err != nil {
		return 0, "", err
	}
	w.counts, w.searches = true, true // so that no step counts all there are
	page, err := s.walk(ctx, w)
	return w.counted, page.Next, err
}

// walk goes on to the end, or as long as a page may take.
func (s *Store) walk(ctx context.Context, w *walk) (queue.Page, error) {
	within, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for !w.ended {
		err := s.listStep(within, w)
		switch {
		case err == nil && within.Err() == nil:
		case ctx.Err() != nil:
			return queue.Page{}, ctx.Err()
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return queue.Page{}, err
		case within.Err() != nil:
			return w.cutShort(err)
		default: // the step took too long
			w.rows = max(1, w.rows/16)
		}
	}
	return w.page, nil
}

// listStep waits for the key's turn at the connections, then at the processors, and goes one
// step, in a transaction of its own.
func (s *Store) listStep(ctx context.Context, w *walk) error {
	if err := s.line.enter(ctx, w.key); err != nil {
		return err
	}
	defer s.line.leave()
	if err := s.opts.Processor.Enter(ctx, w.key); err != nil {
		return err
	}
	defer s.opts.Processor.Leave()
	w.served = true
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	var found part
	var took time.Duration
	err := s.lists.view(ctx, func(v *session) (err error) {
		began := time.Now()
		s.step()
		found, err = w.step(v, began)
		took = time.Since(began)
		return err
	})
	if err != nil {
		return storeError(s.opts.Path, err)
	}
	w.add(found)
	w.pace(took)
	return nil
}

// walk goes from the newest message that a list may have to the oldest.
type walk struct {
	key      string
	statuses []queue.Status
	conditions
	searches bool // most messages may have to be looked at for one that is found
	limit    int
	counts   bool // messages are counted, and not read
	counted  int

	from, floor []byte // the ids that are left: below from, and not below floor
	rows        int    // how many messages of each span the next step looks at
	spans       []span // nil before the first step
	served      bool   // its turn came
	moved       bool   // a step was made
	ended       bool
	page        queue.Page
	recipients  int // on the page
}

// conditions is the part of a list's query that does not depend on the index it
// walks along.
type conditions struct {
	sql  string
	args []any
}

func (c *conditions) and(sql string, args ...any) {
	c.sql += " AND " + sql
	c.args = append(c.args, args...)
}

// span is what a walk looks at along one index: the messages that have the where
// clause's key and status, or all of them.
type span struct {
	where string // with the table
	args  []any
	also  conditions // of those that match, beside the walk's
}

func newWalk(f queue.Filter, limit int, cursor string) (*walk, error) {
	w := &walk{
		key: f.Key, statuses: queue.Statuses, limit: limit, rows: firstStep,
		from: bytes.Repeat([]byte{0xff}, 16), floor: make([]byte, 16),
	}
	if f.Status != "" {
		w.statuses = []queue.Status{f.Status}
	}
	w.statuses = slices.DeleteFunc(slices.Clone(w.statuses), func(s queue.Status) bool { return !f.Among.Has(s) })
	// Ids begin with the time of acceptance in milliseconds.
	if !f.Since.IsZero() {
		w.floor, _ = blob(queue.FirstID(f.Since))
		w.and("created >= ?", f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		w.from, _ = blob(queue.FirstID(f.Until.Add(time.Millisecond)))
		w.and("created < ?", f.Until.UnixMicro())
	}
	if f.ID != "" {
		first, last := queue.IDRange(f.ID)
		w.limits(first[:], append(last[:], 0)) // which sorts right behind the last id
	}
	if cursor != "" {
		id, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || len(id) != 16 {
			return nil, queue.ErrInvalidCursor
		}
		w.limits(w.floor, id)
	}
	w.search(f)
	return w, nil
}

// limits leaves the ids that are below from, and not below floor.
func (w *walk) limits(floor, from []byte) {
	if bytes.Compare(from, w.from) < 0 {
		w.from = from
	}
	if bytes.Compare(floor, w.floor) > 0 {
		w.floor = floor
	}
}

// search adds what no index tells.
func (w *walk) search(f queue.Filter) {
	if f.Sender != "" {
		w.and("sender = ? COLLATE NOCASE", f.Sender)
	}
	if f.State != "" {
		w.and("EXISTS (SELECT 1 FROM recipients WHERE message = id AND state = ?)", string(f.State))
	}
	if f.ByRecipient() {
		of := ofRecipient(f)
		w.and("EXISTS (SELECT 1 FROM recipients WHERE message = id"+of.sql+")", of.args...)
	}
	w.statuses = slices.DeleteFunc(w.statuses, func(s queue.Status) bool {
		return f.State != "" && !s.Has(f.State) || f.RecipientState != "" && !s.Has(f.RecipientState)
	})
	if f.MessageID != "" {
		w.and("message_id = ?", f.MessageID)
	}
	for _, word := range queue.SubjectWords(f.Subject) {
		w.and("substr(subject, 1, ?) GLOB ?", queue.SubjectSearched, globPattern(word))
	}
	if f.TagName != "" {
		w.and("tags IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.key = ? AND (? = '' OR tag.value = ?))",
			f.TagName, f.TagValue, f.TagValue)
	}
	w.searches = f.Sender != "" || f.Subject != "" || f.MessageID != "" || f.TagName != "" || f.State != "" || f.ByRecipient()
}

// ofRecipient is what the filter asks of a recipient.
func ofRecipient(f queue.Filter) (c conditions) {
	if f.RecipientState != "" {
		c.and("state = ?", string(f.RecipientState))
	}
	if f.Recipient != "" {
		c.and("forward_path = ? COLLATE NOCASE", f.Recipient)
	}
	if f.Domain != "" {
		end := "@" + f.Domain // in ASCII, so that its octets are characters
		c.and("substr(forward_path, ?) = ? COLLATE NOCASE", -len(end), end)
	}
	if f.ByReply() {
		c.and(byReply, f.Relay, f.Relay, f.ReplyCode, f.ReplyCode, f.EnhancedCode, f.EnhancedCode, f.Text == "" && !f.NoText, likePattern(f.Text))
	}
	return c
}

// byReply looks into what package stored has written.
const byReply = `result ->> '$.failure.class' IS NOT NULL
	AND (? = '' OR result ->> '$.failure.relay' = ?)
	AND (? = 0 OR coalesce(result ->> '$.failure.code', 0) = ?)
	AND (? = '' OR result ->> '$.failure.enhanced' = ?)
	AND (? OR coalesce(CASE WHEN result ->> '$.failure.code' IS NULL THEN result ->> '$.failure.text' ELSE result ->> '$.failure.reply' END, '') LIKE ? ESCAPE '\')`

// likePattern is a pattern of [queue.Filter] in SQL.
func likePattern(text string) string {
	return strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%").Replace(text)
}

// globPattern matches texts with the word in them, in any case: LIKE knows the case of ASCII alone.
func globPattern(word string) string {
	pattern := []byte{'*'}
	for _, r := range word {
		cases := string(queue.LetterCases(r))
		if len(cases) > len(string(r)) || strings.ContainsRune("*?[", r) {
			cases = "[" + cases + "]"
		}
		pattern = append(pattern, cases...)
	}
	return string(append(pattern, '*'))
}

// part is what one step has found.
type part struct {
	spans      []span
	messages   []queue.Message
	counted    int
	recipients int
	to         []byte // it has looked at all messages from there on
	next       []byte // the last id on a page that is full
}

// step looks at some messages and reads those that match.
func (w *walk) step(v *session, began time.Time) (part, error) {
	p := part{spans: w.spans}
	var err error
	if p.spans == nil {
		if p.spans, err = w.plan(v); err != nil {
			return p, err
		}
	}
	if p.to, err = w.reach(v, p.spans); err != nil {
		return p, err
	}
	if w.counts {
		p.counted, err = w.count(v, p.spans, p.to)
		return p, err
	}
	left := w.limit - len(w.page.Messages)
	ids, err := w.match(v, p.spans, p.to, left+1)
	if err != nil {
		return p, err
	}
	return w.read(v, ids, p, began)
}

// read adds the messages with these ids to the part, as many as fit the page and its time.
func (w *walk) read(v *session, ids [][]byte, p part, began time.Time) (part, error) {
	left := w.limit - len(w.page.Messages)
	for n, id := range ids {
		if err := v.ctx.Err(); err != nil {
			return p, err
		}
		full := n == left || w.recipients+p.recipients >= pageRecipients || time.Since(began) > viewTime/2
		if full && len(w.page.Messages)+n > 0 {
			p.next = w.last(ids[:n])
			return p, nil
		}
		m, err := readMessage(v.unwatched(), id)
		if err != nil {
			return p, err
		}
		p.messages = append(p.messages, m)
		p.recipients += len(m.Recipients)
	}
	return p, nil
}

// last is the id of the last message on the page, of which the step has found ids.
func (w *walk) last(ids [][]byte) []byte {
	if len(ids) > 0 {
		return ids[len(ids)-1]
	}
	id, _ := blob(w.page.Messages[len(w.page.Messages)-1].ID)
	return id
}

// fewSpans is up to how many a search walks along the indexes of keys and statuses.
const fewSpans = 16

// plan chooses the spans. Along the index for each key and status no page is slow
// because few among very many messages match.
func (w *walk) plan(v *session) ([]span, error) {
	all := span{where: "messages WHERE 1"}
	if w.key == queue.AnyKey && len(w.statuses) == len(queue.Statuses) {
		return []span{all}, nil
	}
	keys, err := listKeys(v, w.key)
	if err != nil {
		return nil, err
	}
	if w.searches && w.key == queue.AnyKey && len(keys) > fewSpans {
		statuses, err := toJSON(w.statuses)
		all.also.and("status IN (SELECT value FROM json_each(?))", statuses)
		return []span{all}, err
	}
	spans := []span{}
	for _, key := range keys {
		for _, status := range w.statuses {
			spans = append(spans, span{where: "messages INDEXED BY messages_list WHERE key = ? AND status = ?", args: []any{key, string(status)}})
		}
	}
	return spans, nil
}

// reach returns how far this step goes: so that it looks at w.rows messages in the
// longest span, or at all that are left.
func (w *walk) reach(v *session, spans []span) ([]byte, error) {
	to := w.floor
	if !w.searches {
		return to, nil
	}
	for _, s := range spans {
		var id []byte
		err := v.row("SELECT id FROM "+s.where+" AND id < ? AND id >= ? ORDER BY id DESC LIMIT 1 OFFSET ?",
			slices.Concat(s.args, []any{w.from, to, w.rows - 1}), &id)
		switch {
		case err == nil:
			to = id
		case !errors.Is(err, sql.ErrNoRows):
			return nil, err
		}
	}
	return to, nil
}

// match returns the newest ids down to to that match, up to limit. Each query has one
// row, because the driver watches a context only until the first one.
func (w *walk) match(v *session, spans []span, to []byte, limit int) ([][]byte, error) {
	var ids [][]byte
	for _, s := range spans {
		var text string
		err := v.row("SELECT coalesce(group_concat(hex(id), ''), '') FROM (SELECT id FROM "+s.where+" AND id < ? AND id >= ?"+s.also.sql+w.sql+
			" ORDER BY id DESC LIMIT ?)", slices.Concat(s.args, []any{w.from, to}, s.also.args, w.args, []any{limit}), &text)
		if err != nil {
			return nil, err
		}
		found, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, slices.Collect(slices.Chunk(found, 16))...)
	}
	slices.SortFunc(ids, func(a, b []byte) int { return bytes.Compare(b, a) })
	return ids[:min(len(ids), limit)], nil
}

// count counts the messages down to to that match.
func (w *walk) count(v *session, spans []span, to []byte) (all int, err error) {
	for _, s := range spans {
		var n int
		if err := v.row("SELECT count(*) FROM "+s.where+" AND id < ? AND id >= ?"+s.also.sql+w.sql, slices.Concat(s.args, []any{w.from, to}, s.also.args, w.args), &n); err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

// add adds what a step has found to the page.
func (w *walk) add(p part) {
	w.spans, w.moved = p.spans, true
	w.page.Messages = append(w.page.Messages, p.messages...)
	w.recipients += p.recipients
	w.counted += p.counted
	w.from = p.to
	switch {
	case p.next != nil:
		w.page.Next, w.ended = cursorAt(p.next), true
	case bytes.Equal(p.to, w.floor):
		w.ended = true
	}
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
	switch {
	case w.ended:
		return w.page, nil
	case w.moved:
		id, err := fromBlob(w.from)
		w.page.Next, w.page.SearchedBackTo = cursorAt(w.from), queue.TimeOf(id).Add(time.Millisecond)
		return w.page, err
	case !w.served:
		return queue.Page{}, queue.ErrTooManyLists
	default:
		return queue.Page{}, errors.Join(queue.ErrSearchTooSlow, err)
	}
}

func cursorAt(id []byte) string { return base64.RawURLEncoding.EncodeToString(id) }
