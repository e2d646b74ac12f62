package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// looseRows is how many rows of contents one commit deletes.
const looseRows = stageStep / chunkSize

// janitor works in the background, in small steps.
type janitor struct {
	work   chan struct{} // tells that there is some
	stop   context.CancelFunc
	rested chan struct{} // closed when it has stopped
}

// startJanitor begins with what a crash has left.
func (s *Store) startJanitor() { s.janitor.start(s.deleteLoose) }

// start calls step whenever there is work, as long as it says that there may be more.
func (j *janitor) start(step func(context.Context) (more bool)) {
	ctx, stop := context.WithCancel(context.Background())
	*j = janitor{work: make(chan struct{}, 1), stop: stop, rested: make(chan struct{})}
	j.wake()
	go func() {
		defer close(j.rested)
		for {
			select {
			case <-ctx.Done():
				return
			case <-j.work:
			}
			for ctx.Err() == nil && step(ctx) {
			}
		}
	}()
}

func (j *janitor) wake() {
	select {
	case j.work <- struct{}{}:
	default:
	}
}

// end waits until the janitor has stopped.
func (j *janitor) end() {
	if j.stop != nil {
		j.stop()
		<-j.rested
	}
}

// deleteLoose deletes some contents that belong to no message, a few in each commit, and says whether there may be more. Where it fails, the next
// call of Sweep does it.
func (s *Store) deleteLoose(ctx context.Context) bool {
	var some chunks
	err := s.view(ctx, func(v *session) (err error) {
		some, err = v.someLoose(&s.stages)
		return err
	})
	if err != nil || some.count == 0 {
		return false // a commit of nothing would say that the disk is well
	}
	return s.writer.do(ctx, &write{large: true, size: stageStep, run: func(w *writer) error {
		_, err := w.sweepLoose(time.Time{}, 0)
		return err
	}}) == nil
}

// sweepLoose deletes some rows that belong to no message, and returns how many. The rows
// that are left of them keep others from their numbers: the last ones are deleted last.
func (w *writer) sweepLoose(time.Time, int) (int, error) {
	c, err := w.someLoose(&w.store.stages)
	if err != nil || c.count == 0 {
		return 0, err
	}
	first, n := c.first.Int64, min(c.count, looseRows)
	if err := w.exec(`DELETE FROM contents WHERE seq >= ? AND seq < ?`, first, first+n); err != nil {
		return 0, err
	}
	if n == c.count {
		return int(n), w.exec(`DELETE FROM loose WHERE first = ?`, first)
	}
	return int(n), w.exec(`UPDATE loose SET first = first + ?1, count = count - ?1 WHERE first = ?2`, n, first)
}

// someLoose returns rows of which no stage is under way; zero when there are none.
func (s *session) someLoose(underWay *stages) (c chunks, err error) {
	err = s.each(`SELECT first, count FROM loose`, nil, func(rows *sql.Rows) error {
		var some chunks
		if err := rows.Scan(&some.first, &some.count); err != nil {
			return err
		}
		if underWay.has(some.first.Int64) {
			return nil
		}
		c = some
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return c, err
}
