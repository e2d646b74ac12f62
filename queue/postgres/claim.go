package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/queue"
	"mailsidecar/queue/stored"
)

// claimSQL leases messages. In each lane it looks at what is due first, from a mark on that
// spares it the rows which are dead by now, and takes the first messages whose rows nobody
// has locked. Only then it changes recipients: so two claims never part a message, and never
// wait for each other. Ids are handed on as arrays: a join of tables whose numbers the
// planner can only guess may become a look at all of a table. The CASE keeps it from a look along
// the index of all that waits.
const claimSQL = `WITH locked AS MATERIALIZED (
	SELECT w.o, w.route, p.* FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[]) WITH ORDINALITY AS w (route, lane, lim, low, o)
	CROSS JOIN LATERAL (
		SELECT m.*, c.due FROM (
			SELECT q.message, min(q.due) AS due FROM (
				SELECT r.message, r.due FROM {s}.recipients AS r
				WHERE r.route = w.route AND r.lane = w.lane AND r.due >= w.low AND r.due <= $5 AND r.due IS NOT NULL AND r.owner IS NULL
				ORDER BY r.due, r.message, r.n LIMIT 4 * w.lim + 16) AS q
			GROUP BY q.message ORDER BY 2, 1) AS c
		CROSS JOIN LATERAL (
			SELECT m.id, m.message_id, m.sender, m.size, m.eight_bit, m.utf8_header, m.expires, m.created, m.send_at, m.reverse_path, m.suspect
			FROM {s}.messages AS m WHERE m.id = c.message FOR NO KEY UPDATE SKIP LOCKED) AS m
		LIMIT w.lim) AS p),
claimed AS (
	UPDATE {s}.recipients AS r SET owner = $6, lease = $7, marked = 0, mark_route = NULL
	WHERE r.message = ANY (ARRAY(SELECT id FROM locked)) AND CASE WHEN r.owner IS NULL THEN r.due <= $5 END
		AND r.message::text || r.route = ANY (ARRAY(SELECT id::text || route FROM locked))
		AND ($8::text IS NULL OR EXISTS (SELECT FROM {s}.instances WHERE owner = $8 AND until > clock_timestamp()))
	RETURNING r.message, r.n, r.route, r.lane, r.due, r.forward_path, r.state, r.tries, r.attempts)
SELECT l.o, l.due, l.id, l.message_id, l.sender, l.size, l.eight_bit, l.utf8_header, l.expires, greatest(l.created, l.send_at), l.reverse_path,
	l.suspect, c.forward_path, c.state, c.tries, c.attempts
FROM locked AS l LEFT JOIN claimed AS c ON c.message = l.id AND c.route = l.route ORDER BY l.o, l.due, l.id, c.n`

// claimTries is how often a claim is made that found only what another one has locked.
const claimTries = 3

// Claim leases the longest waiting messages of each lane.
func (s *Store) Claim(ctx context.Context, owner string, now time.Time, wants []queue.Want) ([]queue.Work, error) {
	if len(wants) == 0 {
		return nil, nil
	}
	return run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (works []queue.Work, err error) {
		lease := s.leases.Add(1)
		for try := 1; ; try++ {
			works, err = s.claim(ctx, conn, owner, now, wants, lease)
			if !again(err) || try == claimTries {
				return works, err
			}
		}
	})
}

func (s *Store) claim(ctx context.Context, conn *pgx.Conn, owner string, now time.Time, wants []queue.Want, lease int64) ([]queue.Work, error) {
	var routes, lanes []string
	var limits []int
	var lows []pgtype.Timestamptz
	for _, w := range wants {
		lane := stored.LaneText(w.Lane)
		routes, lanes, limits = append(routes, w.Route), append(lanes, lane), append(limits, w.Limit)
		lows = append(lows, s.lanes.low(w.Route, lane))
	}
	if s.fault != nil {
		if err := s.fault(false); err != nil {
			return nil, err
		}
	}
	data := conn.PgConn().CustomData()
	delete(data, warned)
	rows, err := conn.Query(ctx, s.sql(claimSQL), routes, lanes, limits, lows, stamp(now), owner, lease, s.beats.of(owner))
	if err != nil {
		return nil, err
	}
	works, err := s.scanClaimed(rows, wants, lease)
	if err == nil {
		err = unknownCommit(conn)
	}
	if err == nil && s.fault != nil {
		err = s.fault(true)
	}
	if err != nil {
		s.lanes.forget()
		return nil, err
	}
	return works, nil
}

func (s *Store) scanClaimed(rows pgx.Rows, wants []queue.Want, lease int64) (works []queue.Work, err error) {
	defer rows.Close()
	last, first := int64(0), map[int64]bool{}
	for rows.Next() {
		var o int64
		var id key
		var due, expires, since pgtype.Timestamptz
		var path, state *string
		var tries, attempts *int
		w := queue.Work{Lease: lease}
		err := rows.Scan(&o, &due, &id, &w.MessageID, &w.Sender, &w.Size, &w.EightBit, &w.UTF8Header, &expires, &since, &w.Envelope.ReversePath,
			&w.Suspect, &path, &state, &tries, &attempts)
		if err != nil {
			return nil, err
		}
		want := wants[o-1]
		if !first[o] { // rows come by due time
			first[o] = true
			s.lanes.taken(want.Route, stored.LaneText(want.Lane), due.Time)
		}
		if path == nil { // another one had it between the look and the lock
			continue
		}
		w.ID, w.Route, w.Key, w.Expires, w.Since = textOf(id), want.Route, want.Lane.Key, timeOf(expires), timeOf(since)
		w.Envelope.Priority = want.Lane.Priority
		if n := len(works); n == 0 || works[n-1].ID != w.ID || last != o {
			works = append(works, w)
		}
		last = o
		work := &works[len(works)-1]
		work.Envelope.ForwardPaths = append(work.Envelope.ForwardPaths, *path)
		work.Recipients = append(work.Recipients, queue.Leased{ForwardPath: *path, State: queue.State(*state), Tries: *tries, Attempts: *attempts})
	}
	return works, rows.Err()
}

// What is known of lanes is used for so long: another instance may have put something into
// a new lane, or before what is known of one. To look for all lanes takes longer the more
// rows are dead and cannot be removed, and may take a twentieth of the time.
const (
	shortestLife, longestLife = 750 * time.Millisecond, 10 * time.Second
	lookShare                 = 20
)

// lanes remembers in which lanes something waits, and from which due time on. What is before
// are rows that are dead, and that stay in the index for as long as any transaction may see
// them: during a backup that takes an hour each claim would look at all that was sent in it.
type lanes struct {
	mu     sync.Mutex
	known  map[lanePlace]lane
	looked time.Time // when all lanes were looked for; zero: they are not known
	life   time.Duration
}

type lanePlace struct{ route, lane string }

type lane struct {
	from pgtype.Timestamptz // nothing waits before
	// put is the earliest due time that this instance has put into the lane since all lanes
	// were looked for: a claim that began before may not have seen it.
	put time.Time
}

var negativeInfinity = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}

// low is from when on something may wait in a lane.
func (l *lanes) low(route, name string) pgtype.Timestamptz {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.known[lanePlace{route, name}]; ok && l.fresh() {
		return k.from
	}
	return negativeInfinity
}

// fresh says that what is known may be used. The caller holds mu.
func (l *lanes) fresh() bool { return time.Since(l.looked) < l.life }

// taken says that the first that waits in the lane is due then.
func (l *lanes) taken(route, name string, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.known[lanePlace{route, name}]
	if !ok {
		return
	}
	if !k.put.IsZero() && k.put.Before(due) {
		due = k.put
	}
	k.from = pgtype.Timestamptz{Time: due, Valid: true}
	l.known[lanePlace{route, name}] = k
}

// put says that something is put into the lane, due then.
func (l *lanes) put(route, name string, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.known[lanePlace{route, name}]
	if !ok {
		k.from = pgtype.Timestamptz{Time: due, Valid: true}
	}
	if k.put.IsZero() || due.Before(k.put) {
		k.put = due
	}
	if k.from.InfinityModifier == pgtype.Finite && due.Before(k.from.Time) {
		k.from.Time = due
	}
	if len(l.known) < maxLanes {
		l.known[lanePlace{route, name}] = k
	} else {
		l.looked = time.Time{}
	}
}

// maxLanes is how many lanes are known at most.
const maxLanes = 10_000

// forget has all lanes looked for.
func (l *lanes) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looked = time.Time{}
}

// begin says that all lanes are looked for. What is put from now on is kept beside what is
// found.
func (l *lanes) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.looked = map[lanePlace]lane{}, time.Time{}
}

// found says in which lanes something waits, and from when on.
func (l *lanes) found(heads []head, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range heads {
		k, ok := l.known[h.lanePlace]
		if !ok || h.At.Before(k.from.Time) {
			k.from = pgtype.Timestamptz{Time: h.At, Valid: true}
		}
		l.known[h.lanePlace] = k
	}
	l.looked = began
	l.life = min(max(lookShare*time.Since(began), shortestLife), longestLife)
	if len(l.known) > maxLanes {
		l.looked = time.Time{}
	}
}

// all returns the lanes that are known, where these are all.
func (l *lanes) all() (routes, names []string, from []pgtype.Timestamptz, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fresh() {
		return nil, nil, nil, false
	}
	for place, k := range l.known {
		routes, names, from = append(routes, place.route), append(names, place.lane), append(from, k.from)
	}
	return routes, names, from, true
}

// laneHeads steps from one lane to the next: they are few among very many recipients.
const laneHeads = `WITH RECURSIVE heads AS (
	(SELECT route, lane, due FROM {s}.recipients WHERE due IS NOT NULL AND owner IS NULL ORDER BY route, lane, due LIMIT 1)
	UNION ALL
	SELECT n.* FROM heads AS h CROSS JOIN LATERAL (
		SELECT r.route, r.lane, r.due FROM {s}.recipients AS r
		WHERE (r.route, r.lane) > (h.route, h.lane) AND r.due IS NOT NULL AND r.owner IS NULL ORDER BY r.route, r.lane, r.due LIMIT 1) AS n)
	SELECT route, lane, due FROM heads ORDER BY route, lane`

// knownHeads looks at lanes that are known, from where something may wait.
const knownHeads = `SELECT w.route, w.lane, r.due FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS w (route, lane, low) CROSS JOIN LATERAL (
	SELECT r.due FROM {s}.recipients AS r WHERE r.route = w.route AND r.lane = w.lane AND r.due >= w.low AND r.due IS NOT NULL AND r.owner IS NULL
	ORDER BY r.due LIMIT 1) AS r ORDER BY w.route COLLATE "C", w.lane COLLATE "C"`

// head is the first recipient that waits in a lane.
type head struct {
	lanePlace
	queue.LaneDue
}

// heads adds the query for the first recipient in each lane, or in those that are known.
func (t *tx) heads(heads *[]head, sql string, args ...any) {
	t.each(sql, args, func(rows pgx.Rows) error {
		var h head
		var due pgtype.Timestamptz
		err := rows.Scan(&h.route, &h.lane, &due)
		if err == nil {
			h.Lane, err = stored.ParseLane(h.lane)
		}
		h.Route, h.At = h.route, timeOf(due)
		*heads = append(*heads, h)
		return err
	})
}

// readTime limits a statement that reads.
const readTime = 5 * time.Second

// Waiting looks at the head of each lane.
func (s *Store) Waiting(ctx context.Context, now time.Time) (queue.Waiting, error) {
	return view(ctx, s, readTime, func(t *tx) (w queue.Waiting, err error) {
		var heads []head
		var expiry pgtype.Timestamptz
		t.row(`SELECT min(clock) FROM {s}.messages WHERE NOT final AND clock > $1 AND clock < 'infinity'`, []any{stamp(now)}, &expiry)
		began := time.Now()
		routes, names, from, known := s.lanes.all()
		if known {
			t.heads(&heads, knownHeads, routes, names, from)
		} else {
			s.lanes.begin()
			t.heads(&heads, laneHeads)
		}
		if err := t.finish(); err != nil {
			return w, err
		}
		if !known {
			s.lanes.found(heads, began)
		}
		w.Expiry = timeOf(expiry)
		for _, h := range heads {
			w.Lanes = append(w.Lanes, h.LaneDue)
		}
		return w, nil
	})
}
