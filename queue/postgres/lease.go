package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mailsidecar/queue"
)

// margin is how much earlier than the database an owner takes its lease for ended.
func (s *Store) margin() time.Duration { return s.opts.Lease / 6 }

// beats keep the owners of this store alive: as a rule one.
type beats struct {
	store *Store
	now   chan struct{} // has an element where a beat must not wait for its time

	mu     sync.Mutex
	owners map[string]*beat
}

// beat is what is known of one owner's lease.
type beat struct {
	until time.Duration // by boottime: it trusts itself until then
	lost  bool          // for good
}

// of returns the owner's name where this store keeps it alive; nil otherwise.
func (b *beats) of(owner string) *string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners[owner] == nil {
		return nil
	}
	return &owner
}

// trusts says whether the owner's lease lasts, by this machine's own clock. An owner that
// never had one has none to lose.
func (b *beats) trusts(owner string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	beat := b.owners[owner]
	return beat == nil || !beat.lost && boottime() < beat.until
}

// run renews the leases until the store is closed.
func (b *beats) run() {
	tick := time.NewTicker(b.store.opts.Lease / 6)
	defer tick.Stop()
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for {
		select {
		case <-b.store.ended:
			return
		case <-tick.C:
		case <-b.now:
		}
		conn = b.renewAll(conn)
	}
}

// renewAll renews over a connection of its own: a beat must not wait for others.
func (b *beats) renewAll(conn *pgx.Conn) *pgx.Conn {
	b.mu.Lock()
	var owners []string
	for owner, beat := range b.owners {
		if !beat.lost {
			owners = append(owners, owner)
		}
	}
	b.mu.Unlock()
	if len(owners) == 0 {
		return conn
	}
	ctx := context.Background()
	if conn == nil || conn.IsClosed() {
		// Each host has its own limit. What takes longer than a lease helps nobody.
		within, cancel := context.WithTimeout(ctx, b.store.opts.Lease)
		stop := b.store.whenClosed(cancel)
		var err error
		conn, err = b.store.connect(within, false)
		stop()
		closing := errors.Is(within.Err(), context.Canceled)
		cancel()
		if closing && err != nil {
			return nil
		}
		if err != nil {
			b.store.opts.Events.BeatFailed(named(b.store.connector, err))
			return nil
		}
	}
	for _, owner := range owners {
		if err := b.renew(ctx, conn, owner); err != nil {
			b.store.opts.Events.BeatFailed(err)
			_ = conn.Close(ctx)
			return nil
		}
	}
	return conn
}

// execer is a connection, of the pool or not.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// renew beats once. A lease that has ended is never renewed. It is trusted from the moment at
// which the beat was sent: a slow answer must not make it longer.
func (b *beats) renew(ctx context.Context, conn execer, owner string) error {
	sent := boottime()
	tag, err := conn.Exec(ctx, b.store.sql(`UPDATE {s}.instances SET until = clock_timestamp() + $2::interval
		WHERE owner = $1 AND until > clock_timestamp()`), owner, b.store.opts.Lease)
	if err != nil {
		return err
	}
	lost := tag.RowsAffected() == 0
	b.mu.Lock()
	if b.owners[owner].lost = b.owners[owner].lost || lost; !lost {
		b.owners[owner].until = sent + b.store.opts.Lease - b.store.margin()
	}
	b.mu.Unlock()
	if lost {
		b.store.opts.Events.LeaseLost(owner)
		wake(b.store.lost)
	}
	return nil
}

// wake puts an element into a channel that has room for one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Lost has an element when the lease of an owner has been lost: its instance need not wait until it
// looks the next time.
func (s *Store) Lost() <-chan struct{} { return s.lost }

// Lease is how long the database takes an owner for alive after a beat.
func (s *Store) Lease() time.Duration { return s.opts.Lease }

// Heartbeat says that owner lives, from its first call on: then the store keeps it alive by
// itself. The error is [queue.ErrLeaseLost] once it could not.
func (s *Store) Heartbeat(ctx context.Context, owner string, _ time.Time) error {
	_, err := run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (none struct{}, err error) {
		return none, s.enlist(ctx, conn, owner)
	})
	return err
}

// enlist lets an owner's lease begin, unless it has.
func (s *Store) enlist(ctx context.Context, conn execer, owner string) error {
	b := &s.beats
	b.mu.Lock()
	known := b.owners[owner] != nil
	lost := known && b.owners[owner].lost
	b.mu.Unlock()
	switch {
	case lost:
		return queue.ErrLeaseLost
	case known && !b.trusts(owner): // the next beat will tell whether it is lost
		return fmt.Errorf("%w: it has not answered the heartbeat", queue.ErrUnavailable)
	case known:
		return nil
	}
	// A row that is there is of a call before, whose answer was lost.
	sent := boottime()
	tag, err := conn.Exec(ctx, s.sql(`INSERT INTO {s}.instances AS i (owner, until) VALUES ($1, clock_timestamp() + $2::interval)
		ON CONFLICT (owner) DO UPDATE SET until = excluded.until WHERE i.until > clock_timestamp()`), owner, s.opts.Lease)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners == nil {
		b.owners = map[string]*beat{}
	}
	if b.owners[owner] == nil {
		b.owners[owner] = &beat{until: sent + s.opts.Lease - s.margin(), lost: tag.RowsAffected() == 0}
	}
	if b.owners[owner].lost {
		return queue.ErrLeaseLost
	}
	return nil
}

// resign says that the owners are gone. Where the database does not answer, others find that
// out later.
func (b *beats) resign() {
	b.mu.Lock()
	var owners []string
	for owner := range b.owners {
		owners = append(owners, owner)
	}
	b.mu.Unlock()
	if len(owners) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.store.opts.Patience)
	defer cancel()
	conn, err := b.store.pool.Acquire(ctx)
	if err != nil {
		return
	}
	defer conn.Release()
	_, _ = conn.Exec(context.WithoutCancel(ctx), b.store.sql(`DELETE FROM {s}.instances WHERE owner = ANY ($1)`), owners)
}

// Trusts says whether owner may go on with what it has marked, by this machine's own clock.
// Whoever sends looks at it before the content, and before the end of the content.
func (s *Store) Trusts(owner string) bool { return s.beats.trusts(owner) }

// MarkAlone notes whether the message is the only one in hand.
func (s *Store) MarkAlone(ctx context.Context, owner, id string, alone bool) error {
	raw, _ := parseID(id)
	bits := 0
	if alone {
		bits = markAlone
	}
	_, err := write(ctx, s, func(t *tx) (none struct{}, err error) {
		t.exec(`UPDATE {s}.recipients SET marked = marked & ~$1::smallint | $2::smallint WHERE message = $3 AND owner = $4`, markAlone, bits, raw, owner)
		return none, nil
	})
	return err
}

// End forgets the run, and ends its lease.
func (s *Store) End(ctx context.Context, owner string) error {
	_, err := write(ctx, s, func(t *tx) (none struct{}, err error) {
		t.exec(`DELETE FROM {s}.runs WHERE owner = $1`, owner)
		t.exec(`DELETE FROM {s}.instances WHERE owner = $1`, owner)
		return none, nil
	})
	if err == nil {
		s.beats.mu.Lock()
		if b := s.beats.owners[owner]; b != nil {
			b.lost = true
		}
		s.beats.mu.Unlock()
	}
	return err
}
