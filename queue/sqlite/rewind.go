package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// rewindRows is how many recipients and lanes one call of [Store.Rewind] looks at.
const rewindRows = 500

// rewindPlace is a place among what waits, in the order of the index over it.
type rewindPlace struct {
	Route, Lane string
	Due         int64
	Message     []byte
	N           int64
}

// late is a recipient that is due too late.
type late struct {
	message []byte
	n       int64
}

// Rewind brings due times back that a clock gone wrong has put too far off. It reads
// beside the writer, along what is due after latest in each lane: of what waits that is
// little, unless a send_at holds much.
func (s *Store) Rewind(ctx context.Context, latest time.Time, from string) (next string, err error) {
	var place rewindPlace
	if from != "" {
		if err := json.Unmarshal([]byte(from), &place); err != nil {
			return "", fmt.Errorf("rewind from %q: %w", from, err)
		}
	}
	var found []late
	var more bool
	start := place
	err = s.view(ctx, func(v *session) (err error) {
		place = start
		found, more, err = v.late(&place, latest.UnixMicro())
		return err
	})
	if err == nil && len(found) > 0 {
		err = s.rewind(ctx, found, latest.UnixMicro())
	}
	if err != nil || !more {
		return "", err
	}
	b, err := json.Marshal(place)
	return string(b), err
}

func (s *Store) rewind(ctx context.Context, found []late, latest int64) error {
	return s.write(ctx, func(w *writer) error {
		for _, l := range found {
			// It may have been tried since it was found.
			err := w.exec(`UPDATE recipients SET due = ?1 WHERE message = ?2 AND n = ?3 AND owner IS NULL AND due > ?1`, latest, l.message, l.n)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

const nextLane = `SELECT route, lane FROM recipients INDEXED BY recipients_due
	WHERE (route, lane) > (?, ?) AND due IS NOT NULL AND owner IS NULL ORDER BY route, lane LIMIT 1`

const dueAfter = `SELECT due, message, n, attempts > 0 OR NOT EXISTS (SELECT 1 FROM messages WHERE id = message AND send_at > ?)
	FROM recipients INDEXED BY recipients_due
	WHERE route = ? AND lane = ? AND (due, message, n) > (?, ?, ?) AND due IS NOT NULL AND owner IS NULL ORDER BY due, message, n LIMIT ?`

// late moves on from the place, and returns the recipients on the way that are due after
// latest and are not held by a send_at, and whether there is more to look at.
func (s *session) late(p *rewindPlace, latest int64) (found []late, more bool, err error) {
	for room := rewindRows; room > 0; {
		n := 0
		if p.Message != nil { // in a lane
			if n, err = s.lateInLane(p, latest, room, &found); err != nil {
				return nil, false, err
			}
		}
		if room -= n; room <= 0 {
			return found, true, nil
		}
		if more, err = s.nextLane(p, latest); err != nil || !more {
			return found, false, err
		}
		room--
	}
	return found, true, nil
}

// lateInLane looks at up to limit recipients of the lane, and returns how many there were.
func (s *session) lateInLane(p *rewindPlace, latest int64, limit int, found *[]late) (n int, err error) {
	err = s.each(dueAfter, []any{latest, p.Route, p.Lane, p.Due, p.Message, p.N, limit}, func(rows *sql.Rows) error {
		var wrong bool
		if err := rows.Scan(&p.Due, &p.Message, &p.N, &wrong); err != nil {
			return err
		}
		if n++; wrong {
			*found = append(*found, late{p.Message, p.N})
		}
		return nil
	})
	return n, err
}

// nextLane moves on to what is due after latest in the next lane, and says whether there
// is one.
func (s *session) nextLane(p *rewindPlace, latest int64) (more bool, err error) {
	err = s.each(nextLane, []any{p.Route, p.Lane}, func(rows *sql.Rows) error {
		more = true
		// An id has 16 octets: no message is behind this place among those due at latest.
		p.Due, p.Message, p.N = latest, bytes.Repeat([]byte{0xff}, 17), math.MaxInt64
		return rows.Scan(&p.Route, &p.Lane)
	})
	return more, err
}
