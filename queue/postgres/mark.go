package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"mailsidecar/queue"
)

const (
	// markWriters is how many groups of marks are written at a time.
	markWriters = 2
	// What a group takes; one mark may have more recipients.
	groupMarks, groupMarked = 64, 1000
	// markLockTime is how long a group waits for the lock of a row. Then each mark waits alone.
	markLockTime = "500ms"
)

// marks writes marks: those that are asked for at the same time share a commit. It has no
// goroutine while there are none. What waits is bounded by the deliveries in hand.
type marks struct {
	store *Store

	mu      sync.Mutex
	waiting []*marking
	writers int
}

// marking is one mark.
type marking struct {
	owner string
	id    key
	queue.Lease
	turns []turnCount
	done  chan error // capacity 1
}

// Mark notes that content is about to be sent, and to which relay. It is the fence: an owner
// whose lease has ended, or ends soon, marks nothing, and gets [queue.ErrLeaseLost]. A
// take-over waits for the row, and sees the mark; or the mark waits, and finds another
// owner. A cancel that came first is heeded: [queue.ErrCanceled]. It takes no lock but the
// recipients' own.
func (s *Store) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	m := &marking{owner: owner, Lease: l, done: make(chan error, 1)}
	m.id, _ = parseID(l.ID)
	for _, turn := range turns {
		m.turns = append(m.turns, turnCount{turn, 1})
	}
	err := errAlone
	if len(l.ForwardPaths) > 0 {
		err = s.markTogether(ctx, m)
	}
	if errors.Is(err, errAlone) {
		_, err = write(ctx, s, func(t *tx) (none struct{}, err error) { return none, t.markOne(m) })
	}
	if err == nil && len(l.ForwardPaths) > 0 && !s.beats.trusts(owner) {
		return queue.ErrLeaseLost
	}
	return err
}

// errAlone says that a mark was not made with others, and may be made in a transaction of its own.
var errAlone = errors.New("the mark cannot be made with others")

// markTogether makes a mark in a commit that other marks share. When ctx ends, or the answer
// takes too long, it returns, and the mark may be made all the same.
func (s *Store) markTogether(ctx context.Context, m *marking) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.calls.Done()
	s.marks.add(m)
	patience, stop := s.patience(ctx)
	defer stop()
	select {
	case err := <-m.done:
		return err
	case <-ctx.Done():
		s.marks.leave(m)
		return ctx.Err()
	case <-patience:
		s.marks.leave(m)
		return fmt.Errorf("%w: no answer within %v", queue.ErrUnavailable, 2*s.opts.Patience)
	}
}

// add adds a mark to those that wait. A call of the store goes on.
func (w *marks) add(m *marking) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, m)
	if w.writers < markWriters {
		w.writers++
		w.store.calls.Add(1)
		go w.write()
	}
}

// leave says that nobody waits for a mark any more. It is not made unless it was sent.
func (w *marks) leave(m *marking) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = slices.DeleteFunc(w.waiting, func(other *marking) bool { return other == m })
}

// write writes groups until none waits.
func (w *marks) write() {
	defer w.store.calls.Done()
	for group := w.next(); group != nil; group = w.next() {
		w.store.markGroup(group)
	}
}

// next takes marks for one commit; nil ends the writer.
func (w *marks) next() []*marking {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) == 0 {
		w.writers--
		return nil
	}
	n, recipients := 0, 0
	for n < min(len(w.waiting), groupMarks) && (n == 0 || recipients+len(w.waiting[n].ForwardPaths) <= groupMarked) {
		recipients += len(w.waiting[n].ForwardPaths)
		n++
	}
	group := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return group
}

// markGroup makes the marks in one commit. Those that cannot be made with the others are left to
// their callers.
func (s *Store) markGroup(group []*marking) {
	ctx := Unhurried(context.Background())
	for len(group) > 0 {
		var good []*marking
		_, err := write(ctx, s, func(t *tx) (none struct{}, err error) {
			good, err = t.markAll(group)
			return none, err
		})
		again := errors.Is(err, errAlone)
		for _, m := range group {
			if !again || !slices.Contains(good, m) {
				m.done <- err
			}
		}
		if !again {
			return
		}
		group = good
	}
}

// markRecipients marks recipients of several messages. Each is fenced by its own owner and lease.
const markRecipients = `UPDATE {s}.recipients AS r SET marked = r.marked | $1::smallint, mark_route = m.route
	FROM unnest($2::int[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::text[]) AS m (number, message, owner, lease, route, path)
	WHERE r.message = m.message AND r.owner = m.owner AND m.lease IN (0, r.lease) AND r.forward_path = m.path AND NOT r.cancel
		AND EXISTS (SELECT FROM {s}.instances AS i WHERE i.owner = m.owner AND i.until > clock_timestamp() + $8::interval)
	RETURNING m.number`

// markAll marks the recipients of all. Where that fails for some, the error is errAlone, and good
// are the others.
func (t *tx) markAll(group []*marking) (good []*marking, err error) {
	type row struct {
		*marking
		n    int
		path string
	}
	var rows []row
	var turns []turnCount
	for n, m := range group {
		for _, path := range m.ForwardPaths {
			rows = append(rows, row{m, n, path})
		}
		turns = append(turns, m.turns...)
	}
	// Two groups lock recipients in the same order, as far as the database keeps to it.
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(bytes.Compare(a.id[:], b.id[:]), strings.Compare(a.path, b.path)) })
	var number []int
	var ids []key
	var owners, routes, paths []string
	var leases []int64
	for _, r := range rows {
		number, ids, paths = append(number, r.n), append(ids, r.id), append(paths, r.path)
		owners, routes, leases = append(owners, r.owner), append(routes, r.Route), append(leases, r.Number)
	}
	marked := make([]int, len(group))
	t.exec(`SELECT set_config('lock_timeout', $1, true)`, markLockTime)
	t.each(markRecipients, []any{markContent, number, ids, owners, leases, routes, paths, t.margin()}, func(r pgx.Rows) error {
		var n int
		err := r.Scan(&n)
		if err == nil {
			marked[n]++
		}
		return err
	})
	t.saveTurns(turns)
	err = t.send()
	if err != nil && !unknown(err) { // one of them may be to blame, or another transaction has a row
		return nil, errAlone
	}
	if err != nil {
		return nil, err
	}
	for n, m := range group {
		if marked[n] == len(m.ForwardPaths) {
			good = append(good, m)
		}
	}
	if len(good) < len(group) {
		return good, errAlone
	}
	return good, nil
}

// markOne marks the recipients of one, or says why it cannot. Without recipients it only notes
// the turns.
func (t *tx) markOne(m *marking) error {
	if len(m.ForwardPaths) == 0 {
		t.saveTurns(m.turns)
		return nil
	}
	marked := 0
	t.count(&marked, `UPDATE {s}.recipients SET marked = marked | $1::smallint, mark_route = $2
		WHERE message = $3 AND owner = $4 AND $5::bigint IN (0, lease) AND forward_path = ANY ($6) AND NOT cancel
			AND EXISTS (SELECT FROM {s}.instances WHERE owner = $4 AND until > clock_timestamp() + $7::interval)`,
		markContent, m.Route, m.id, m.owner, m.Number, m.ForwardPaths, t.margin())
	t.saveTurns(m.turns)
	if err := t.send(); err != nil {
		return err
	}
	if marked == len(m.ForwardPaths) {
		return nil
	}
	var canceled bool
	t.row(`SELECT EXISTS (SELECT FROM {s}.recipients WHERE message = $1 AND owner = $2 AND $3::bigint IN (0, lease) AND forward_path = ANY ($4) AND cancel)`,
		[]any{m.id, m.owner, m.Number, m.ForwardPaths}, &canceled)
	if err := t.send(); err != nil {
		return err
	}
	if canceled {
		return queue.ErrCanceled
	}
	return queue.ErrLeaseLost
}
