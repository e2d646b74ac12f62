//go:build linux

package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailsidecar/queue"
)

// marksAtOnce asks for many marks at the same time, and returns their errors.
func marksAtOnce(s *Store, owner string, leases []queue.Lease, turns []queue.Turn) []error {
	errs := make([]error, len(leases))
	begin := make(chan struct{})
	var work sync.WaitGroup
	for n, l := range leases {
		work.Go(func() {
			<-begin
			errs[n] = s.Mark(context.Background(), owner, l, turns)
		})
	}
	close(begin)
	work.Wait()
	return errs
}

// marked says which recipients of a message are marked.
func marked(t *testing.T, s *Store, l queue.Lease) (paths []string) {
	t.Helper()
	id, _ := parseID(l.ID)
	rows, err := s.pool.Query(t.Context(), s.sql(`SELECT forward_path FROM {s}.recipients WHERE message = $1 AND marked <> 0 ORDER BY n`), id)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var path string
		if err := rows.Scan(&path); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestMarksShareCommits: marks that are asked for at once are written in few commits. One that cannot be made
// is not made at all, says why, and does not keep the others from being made.
func TestMarksShareCommits(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	live(t, s, "me")
	live(t, s, "other")
	const many = 60
	var leases, good []queue.Lease
	var want []error
	for n := range many {
		e, err := entry("me", "a@example.org", "b@example.org"), error(nil)
		l := lease(e)
		switch n % 20 {
		case 7:
			e.Owner, err = "other", queue.ErrLeaseLost
		case 9:
			l.Number, err = queue.FirstLease+1, queue.ErrLeaseLost
		case 11:
			l.ForwardPaths, err = []string{"a@example.org", "c@example.org"}, queue.ErrLeaseLost
		case 13:
			err = queue.ErrCanceled
		default:
			good = append(good, l)
		}
		insert(t, s, e)
		if errors.Is(err, queue.ErrCanceled) {
			if _, err := s.Cancel(t.Context(), "app", "another instance", []queue.Withdrawal{{ID: e.Message.ID}}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		leases, want = append(leases, l), append(want, err)
	}
	turns := []queue.Turn{{Relay: "relay", At: time.Now(), Window: time.Hour}}
	for n, err := range marksAtOnce(s, "me", leases, turns) {
		if !errors.Is(err, want[n]) {
			t.Errorf("mark %d = %v, want %v", n, err, want[n])
		}
		paths := "a@example.org b@example.org"
		if want[n] != nil {
			paths = ""
		}
		if got := strings.Join(marked(t, s, leases[n]), " "); got != paths {
			t.Errorf("mark %d has marked %q, want %q", n, got, paths)
		}
	}
	number := func() (n int64) {
		t.Helper()
		if err := s.pool.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text::bigint`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := number()
	for _, err := range marksAtOnce(s, "me", good, turns) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := number() - before - 1; n > many/4 {
		t.Errorf("%d marks at once took %d transactions, want %d at most", len(good), n, many/4)
	}
	if turns, err := s.Turns(t.Context(), "relay", time.Now().Add(-time.Hour), 1000); err != nil || len(turns) != 2*len(good) {
		t.Errorf("turns = %d, %v, want %d: those of the marks that were made", len(turns), err, 2*len(good))
	}
}

// TestMarkBesideLock: while another transaction has a row, the marks of other messages are made.
func TestMarkBesideLock(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	live(t, s, "me")
	var leases []queue.Lease
	for range 20 {
		e := entry("me", "a@example.org")
		insert(t, s, e)
		leases = append(leases, lease(e))
	}
	id, _ := parseID(leases[7].ID)
	other, err := s.connect(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.Background()) }()
	for _, sql := range []string{`BEGIN`, `SELECT FROM {s}.recipients WHERE message = $1 FOR UPDATE`} {
		args := []any{id}
		if sql == `BEGIN` {
			args = nil
		}
		if _, err := other.Exec(t.Context(), s.sql(sql), args...); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- s.Mark(context.Background(), "me", leases[7], nil) }()
	for n, err := range marksAtOnce(s, "me", append(leases[:7:7], leases[8:]...), nil) {
		if err != nil {
			t.Errorf("mark %d beside one that waits = %v", n, err)
		}
	}
	select {
	case err := <-done:
		t.Errorf("the mark of a row that another transaction has = %v before its end", err)
	default:
	}
	if _, err := other.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the mark of a row that another transaction had = %v", err)
	}
}

// TestMarksOfLostLease: no mark is made for an owner whose lease has ended, and those of another one in the same
// group are.
func TestMarksOfLostLease(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	live(t, s, "me")
	live(t, s, "dead")
	var group []*marking
	for n := range 6 {
		owner := []string{"me", "dead"}[n%2]
		e := entry(owner, "a@example.org")
		insert(t, s, e)
		m := &marking{owner: owner, Lease: lease(e), done: make(chan error, 1)}
		m.id, _ = parseID(m.ID)
		group = append(group, m)
	}
	outdate(t, s, "dead")
	s.markGroup(group)
	for n, m := range group {
		err := <-m.done
		if n%2 == 0 && err != nil || n%2 == 1 && !errors.Is(err, errAlone) {
			t.Errorf("mark %d of %s = %v", n, m.owner, err)
		}
		if got := len(marked(t, s, m.Lease)); got != 1-n%2 {
			t.Errorf("mark %d of %s has marked %d recipients", n, m.owner, got)
		}
	}
	if err := s.Mark(t.Context(), "dead", group[1].Lease, nil); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Mark of an owner whose lease has ended = %v, want ErrLeaseLost", err)
	}
}

// TestMarksOfFrozenServer: while the server stands still marks end with their contexts, or by themselves, and
// afterwards marks are made again. Nothing is left that waits.
func TestMarksOfFrozenServer(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	o := options(t, own.url())
	o.AnswerTime, o.Patience = time.Second, time.Second
	s := open(t, o)
	live(t, s, "me")
	var leases []queue.Lease
	for range 200 {
		e := entry("me", "a@example.org")
		insert(t, s, e)
		leases = append(leases, lease(e))
	}
	own.signal(t, syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Mark(ctx, "me", leases[0], nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Mark = %v, want its context's end", err)
	}
	for n, err := range marksAtOnce(s, "me", leases, nil) {
		if !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("mark %d = %v, want ErrUnavailable", n, err)
		}
	}
	own.signal(t, syscall.SIGCONT)
	await(t, "mark", func() bool { return s.Mark(t.Context(), "me", leases[0], nil) == nil })
	await(t, "end of the writers", func() bool {
		s.marks.mu.Lock()
		defer s.marks.mu.Unlock()
		return s.marks.writers == 0 && len(s.marks.waiting) == 0
	})
}

// TestMarksBound: a group has no more recipients than it may, but for one mark that has more by itself.
func TestMarksBound(t *testing.T) {
	w := marks{writers: 1}
	for _, n := range []int{1, groupMarked, 400, 400, 400, 2 * groupMarked, 1} {
		w.waiting = append(w.waiting, &marking{Lease: queue.Lease{ForwardPaths: make([]string, n)}})
	}
	for range groupMarks + 1 {
		w.waiting = append(w.waiting, &marking{Lease: queue.Lease{ForwardPaths: make([]string, 1)}})
	}
	for _, want := range []int{1, 1, 2, 1, 1, groupMarks, 2, 0} {
		if group := w.next(); len(group) != want {
			t.Errorf("a group has %d marks, want %d", len(group), want)
		}
	}
}
