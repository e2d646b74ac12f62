package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// stageStep is how many octets of content one commit takes. What has more is written in
// several commits, so that the writes of others wait for a short one, however large a
// message is.
const stageStep = 1 << 20

// stage is content that is written in several commits, before the one that makes it a
// message's. The rows have the numbers from first on. The table loose has them until then:
// a crash leaves them there, and [janitor] deletes them.
type stage struct {
	chunks [][]byte
	first  int64
	taken  bool // finish has called hand
}

// stages are the stages under way. The janitor does not delete their rows.
type stages struct {
	mu  sync.Mutex
	all map[*stage]bool
}

// begin returns a new stage for the contents.
func (s *stages) begin(contents []mailer.Content) *stage {
	st := &stage{}
	for _, c := range contents {
		for chunk := range chunked(c.Data) {
			st.chunks = append(st.chunks, chunk)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*stage]bool{}
	}
	s.all[st] = true
	return st
}

// place says which rows are the stage's.
func (s *stages) place(st *stage, first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.first = first
}

func (s *stages) end(st *stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, st)
}

func (s *stages) has(first int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.all {
		if st.first == first {
			return true
		}
	}
	return false
}

// staged writes the contents in steps, and calls finish in the transaction of the last one. In
// that, hand returns the rows of one content after another. Where finish wants none of
// them, they are deleted.
func (s *Store) staged(ctx context.Context, contents []mailer.Content, admits bool, finish func(w *writer, hand handOver) error) error {
	st := s.stages.begin(contents)
	err := s.inSteps(ctx, st, admits, finish)
	s.stages.end(st)
	if err != nil || !st.taken {
		s.janitor.wake()
	}
	return err
}

// handOver returns the rows that have the content, one content after the other.
type handOver func(mailer.Content) (chunks, error)

func (s *Store) inSteps(ctx context.Context, st *stage, admits bool, finish func(w *writer, hand handOver) error) error {
	for from := 0; from < len(st.chunks); {
		to, size := st.step(from)
		err := s.writer.do(ctx, &write{admits: admits, large: true, size: size, run: func(w *writer) error {
			st.taken = false // in a try before this one it may have been
			err := w.writeStep(st, from, to)
			if err == nil && to == len(st.chunks) {
				err = finish(w, w.handOver(st))
			}
			return err
		}})
		if err != nil {
			return err
		}
		// What was begun is not given up, as any other write.
		ctx = context.WithoutCancel(ctx)
		from = to
	}
	return nil
}

// step returns up to which chunk a step goes, and its octets.
func (st *stage) step(from int) (to int, size int64) {
	for to = from; to < len(st.chunks); to++ {
		n := int64(len(st.chunks[to]))
		if to > from && size+n > stageStep {
			break
		}
		size += n
	}
	return to, max(size, 1)
}

// writeStep stores some of the chunks.
func (w *writer) writeStep(st *stage, from, to int) error {
	last := len(st.chunks) - 1
	if from == 0 {
		if err := w.beginStage(st); err != nil {
			return err
		}
	}
	for i := from; i < min(to, last); i++ {
		if err := w.insertChunk(st.first+int64(i), st.chunks[i]); err != nil {
			return err
		}
	}
	if to > last {
		return w.exec(`UPDATE contents SET data = ? WHERE seq = ?`, st.chunks[last], st.first+int64(last))
	}
	return nil
}

// beginStage makes the last row first, empty: all others get their numbers behind that,
// so that those of this stage stay free.
func (w *writer) beginStage(st *stage) error {
	var last int64
	if err := w.row(`SELECT coalesce(max(seq), 0) FROM contents`, nil, &last); err != nil {
		return err
	}
	w.store.stages.place(st, last+1)
	count := int64(len(st.chunks))
	if err := w.loosen(chunks{first: sql.NullInt64{Int64: st.first, Valid: true}, count: count}); err != nil {
		return err
	}
	return w.insertChunk(st.first+count-1, []byte{})
}

func (w *writer) insertChunk(seq int64, chunk []byte) error {
	return w.exec(`INSERT INTO contents (seq, data) VALUES (?, ?)`, seq, chunk)
}

// handOver makes the staged rows the caller's, with the first call.
func (w *writer) handOver(st *stage) handOver {
	next := st.first
	return func(c mailer.Content) (chunks, error) {
		if st.taken = true; next == st.first {
			n, err := w.affect(`DELETE FROM loose WHERE first = ? AND count = ?`, st.first, len(st.chunks))
			if err == nil && n == 0 {
				err = errors.New("the staged content is gone")
			}
			if err != nil {
				return chunks{}, err
			}
		}
		body := chunks{first: sql.NullInt64{Int64: next, Valid: true}}
		for range chunked(c.Data) {
			body.count++
		}
		next += body.count
		return body, nil
	}
}

// loosen says that rows of contents belong to no message: not yet, or not any more.
func (w *writer) loosen(c chunks) error {
	return w.exec(`INSERT INTO loose (first, count) VALUES (?, ?)`, c.first.Int64, c.count)
}

// insertStaged is Insert for a batch of many octets.
func (s *Store) insertStaged(ctx context.Context, b queue.Batch, size int64) (replayed []string, err error) {
	if err := s.admit(size); err != nil {
		return nil, err
	}
	contents := make([]mailer.Content, len(b.Entries))
	for i, e := range b.Entries {
		contents[i] = e.Content
	}
	err = s.staged(ctx, contents, true, func(w *writer, hand handOver) error {
		replayed, err = w.insertBatch(b, hand)
		return err
	})
	return replayed, err
}
