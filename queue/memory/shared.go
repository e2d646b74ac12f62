package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"mailsidecar/queue"
)

// Database is what several instances share.
type Database struct {
	tables *tables
	lease  time.Duration
}

// NewDatabase returns an empty database, in which an owner is taken for alive for so long
// after its last heartbeat.
func NewDatabase(lease time.Duration) *Database {
	d := &Database{newTables(), lease}
	d.tables.lives = map[string]time.Time{}
	return d
}

// Outdate ends the lease of an owner, as time does.
func (d *Database) Outdate(owner string) {
	d.tables.mu.Lock()
	defer d.tables.mu.Unlock()
	if _, ok := d.tables.lives[owner]; ok {
		d.tables.lives[owner] = time.Now()
	}
}

// Leased is how many recipients the owner has leased.
func (d *Database) Leased(owner string) int {
	d.tables.mu.Lock()
	defer d.tables.mu.Unlock()
	return d.tables.leases[owner]
}

// Shared is the store as one instance has it: a [queue.SharedStore]. It does what the store in
// PostgreSQL does, by the rules of queue/postgres/protocol.
//
// Beside the methods, Options.Before and Options.After are called for each heartbeat that it
// sends by itself, as "Beat".
type Shared struct {
	*Store
	database *Database

	mu     sync.Mutex
	beats  map[string]*beat // by owner
	closed bool
	ended  chan struct{}
	house  sync.WaitGroup
}

// beat is what an instance knows of its owner's lease.
type beat struct {
	until time.Time // by its own clock: it trusts itself until then
	lost  bool      // for good
}

var _ queue.SharedStore = (*Shared)(nil)

// Open returns the database as a further instance has it.
func (d *Database) Open(o Options) *Shared {
	s := &Shared{Store: New(o), database: d, beats: map[string]*beat{}, ended: make(chan struct{})}
	s.tables = d.tables
	s.house.Go(s.keepAlive)
	return s
}

// margin is how much earlier than the database an owner takes its lease for ended.
func (s *Shared) margin() time.Duration { return s.database.lease / 6 }

// Lease is how long the database takes an owner for alive after a heartbeat.
func (s *Shared) Lease() time.Duration { return s.database.lease }

// Crash ends the heartbeats as the end of the process does: others are not told. What goes on
// in the database may still have its effect. Close must follow.
func (s *Shared) Crash() { s.end() }

func (s *Shared) end() (already bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	already = s.closed
	if s.closed = true; !already {
		close(s.ended)
	}
	return already
}

// Close says that the owners of this instance are gone, unless it has crashed.
func (s *Shared) Close() error {
	already := s.end()
	s.house.Wait()
	if already {
		return s.Store.Close()
	}
	s.tables.mu.Lock()
	for owner := range s.beats {
		delete(s.lives, owner)
	}
	s.tables.mu.Unlock()
	return s.Store.Close()
}

// keepAlive renews the leases until the instance ends.
func (s *Shared) keepAlive() {
	tick := time.NewTicker(s.margin())
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		for _, owner := range s.living() {
			s.renew(owner)
		}
	}
}

// living are the owners whose leases are not known to be lost.
func (s *Shared) living() (owners []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for owner, b := range s.beats {
		if !b.lost {
			owners = append(owners, owner)
		}
	}
	return owners
}

// renew beats once. A lease that has ended is never renewed. It is trusted from the moment at
// which the beat was sent: a slow answer must not make it longer.
func (s *Shared) renew(owner string) {
	sent, lost := time.Now(), false
	err := s.write(context.Background(), "Beat", func() error {
		if lost = !s.alive(owner, 0); !lost {
			s.lives[owner] = time.Now().Add(s.database.lease)
		}
		return nil
	})
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.beats[owner]; lost {
		b.lost = true
	} else {
		b.until = sent.Add(s.database.lease - s.margin())
	}
}

// alive says that the owner's lease lasts for so long at least, by the database's clock.
func (t *tables) alive(owner string, margin time.Duration) bool {
	return t.lives[owner].After(time.Now().Add(margin))
}

// Heartbeat says that owner lives, from its first call on: then the store keeps it alive by
// itself. The error is [queue.ErrLeaseLost] once it could not.
func (s *Shared) Heartbeat(ctx context.Context, owner string, _ time.Time) error {
	switch known, lost := s.known(owner); {
	case lost:
		return queue.ErrLeaseLost
	case known && !s.Trusts(owner): // the next beat will tell whether it is lost
		return fmt.Errorf("%w: it has not answered the heartbeat", queue.ErrUnavailable)
	case known:
		return nil
	}
	sent, lost := time.Now(), false
	err := s.write(ctx, "Heartbeat", func() error {
		// What is there is of a call before, whose answer was lost.
		_, there := s.lives[owner]
		if lost = there && !s.alive(owner, 0); !lost {
			s.lives[owner] = time.Now().Add(s.database.lease)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.beats[owner] == nil {
		s.beats[owner] = &beat{until: sent.Add(s.database.lease - s.margin()), lost: lost}
	}
	if s.beats[owner].lost {
		return queue.ErrLeaseLost
	}
	return nil
}

// known says whether this instance keeps the owner alive, and whether it could not.
func (s *Shared) known(owner string) (known, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.beats[owner]
	return b != nil, b != nil && b.lost
}

// Trusts says whether owner may go on, by this instance's own clock. An owner that never had a
// lease has none to lose.
func (s *Shared) Trusts(owner string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.beats[owner]
	return b == nil || !b.lost && time.Now().Before(b.until)
}

// Mark is the fence: an owner whose lease has ended, or ends soon, marks nothing.
func (s *Shared) Mark(ctx context.Context, owner string, l queue.Lease, turns []queue.Turn) error {
	err := s.write(ctx, "Mark", func() error {
		marked := s.markable(l, owner)
		if slices.ContainsFunc(marked, func(r *recipient) bool { return r.cancel }) {
			return queue.ErrCanceled
		}
		if len(l.ForwardPaths) > 0 && (len(marked) != len(l.ForwardPaths) || !s.alive(owner, s.margin())) {
			return queue.ErrLeaseLost
		}
		s.mark(marked, l.Route, turns)
		return nil
	})
	if err == nil && len(l.ForwardPaths) > 0 && !s.Trusts(owner) {
		return queue.ErrLeaseLost
	}
	return err
}

// Claim leases to an owner of this instance only while it lives.
func (s *Shared) Claim(ctx context.Context, owner string, now time.Time, wants []queue.Want) (works []queue.Work, err error) {
	known, _ := s.known(owner)
	err = s.write(ctx, "Claim", func() error {
		if !known || s.alive(owner, 0) {
			works = s.claimAll(owner, now, wants)
		}
		return nil
	})
	return works, err
}

// Recover takes over from owners whose lease has ended.
func (s *Shared) Recover(ctx context.Context, owner string, now time.Time, hold bool) (queue.Recovered, error) {
	if err := s.Heartbeat(ctx, owner, now); err != nil {
		return queue.Recovered{}, err
	}
	return s.Store.Recover(ctx, owner, now, hold)
}

// End forgets the run, and ends its lease.
func (s *Shared) End(ctx context.Context, owner string) error {
	err := s.write(ctx, "End", func() error {
		delete(s.runs, owner)
		delete(s.lives, owner)
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.beats[owner]; b != nil {
		b.lost = true
	}
	return nil
}

// Tried returns those that were tried, or are final.
func (s *Shared) Tried(ctx context.Context, ids []string) (tried []string, err error) {
	err = s.read(ctx, "Tried", func() error {
		for _, id := range ids {
			if m := s.messages[id]; m != nil && m.tried() {
				tried = append(tried, id)
			}
		}
		return nil
	})
	return tried, err
}

func (m *message) tried() bool {
	for _, r := range m.recipients {
		if r.attempts > 0 {
			return true
		}
	}
	return m.final
}
