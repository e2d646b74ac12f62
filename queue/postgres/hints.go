package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"mailsidecar/queue"
)

const (
	// hintIDs is how many messages one notification names: it may have 8,000 octets.
	hintIDs = 200
	// hearTest is how often it is tested whether notifications arrive, and hearTime how long the
	// test's own may take.
	hearTest, hearTime = 15 * time.Second, 2 * time.Second
	// test begins the notification of a test, as a kind of hint.
	test = '='
	// The pauses between tries to hear.
	firstHear, longestHear = time.Second, time.Minute
)

// channel is where the instances of this schema notify each other: the names of channels are
// the database's.
func (s *Store) channel() string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.name))
	return fmt.Sprintf("mailsidecar_%016x", h.Sum64())
}

// Tell notifies the others. A notification's commit holds a lock of the whole server until a
// standby has what the transaction did, so that it must be alone in its transaction.
func (s *Store) Tell(ctx context.Context, h queue.Hint) error {
	for ids := range slices.Chunk(h.IDs, hintIDs) {
		if err := s.notify(ctx, string(h.Kind)+s.self+" "+strings.Join(ids, " ")); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) notify(ctx context.Context, text string) error {
	_, err := run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (none struct{}, err error) {
		_, err = conn.Exec(ctx, `SELECT pg_notify($1, $2)`, s.channel(), text)
		return none, err
	})
	return err
}

// Hears says whether notifications arrive.
func (s *Store) Hears() bool { return s.hears.Load() }

// Hear listens over a connection of its own. A pooler in transaction mode takes the command to
// listen, and gives the notifications to whoever has that connection next: so it is tested
// whether they arrive.
func (s *Store) Hear(ctx context.Context, f func(queue.Hint)) {
	if s.opts.Listen == ListenNone {
		return
	}
	told := false
	for pause := firstHear; ; pause = min(2*pause, longestHear) {
		began := time.Now()
		err := s.hear(ctx, f)
		was := s.hears.Swap(false)
		if ctx.Err() != nil || errors.Is(err, queue.ErrClosed) {
			return
		}
		if was && time.Since(began) > longestHear {
			pause = firstHear
		}
		if was || !told {
			told = true
			s.opts.Events.Hears(false, named(s.listener, err))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.ended:
			return
		case <-time.After(pause):
		}
	}
}

// hear listens until that fails, or ctx ends.
func (s *Store) hear(ctx context.Context, f func(queue.Hint)) error {
	conn, err := s.listener.connect(ctx, true) // it may hear nothing for long
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	within, cancel := context.WithTimeout(ctx, 2*connectTime)
	defer cancel()
	if _, err := conn.Exec(within, "LISTEN "+s.channel()); err != nil {
		return err
	}
	for {
		err := s.hearOwn(ctx, conn, f)
		if errors.Is(err, errUnheard) && s.listener != s.connector {
			if other := s.listener.hasTables(ctx, conn); other != nil {
				return other
			}
		}
		if err != nil {
			return err
		}
		if !s.hears.Swap(true) {
			s.opts.Events.Hears(true, nil)
		}
		if _, err := s.hearUntil(ctx, conn, hearTest, "", f); err != nil { // until it is time for a test
			return err
		}
	}
}

// hearOwn says whether a notification arrives that this instance makes.
func (s *Store) hearOwn(ctx context.Context, conn *pgx.Conn, f func(queue.Hint)) error {
	token := string(test) + s.self + " " + uuid.NewString()
	if err := s.notify(ctx, token); err != nil {
		return err
	}
	heard, err := s.hearUntil(ctx, conn, hearTime, token, f)
	if err == nil && !heard {
		err = errUnheard
	}
	return err
}

var errUnheard = errors.New("a notification of its own does not arrive: a pooler in transaction mode is between")

// hasTables says whether the queue is where the connection leads to.
func (c *connector) hasTables(ctx context.Context, conn *pgx.Conn) error {
	within, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	var there bool
	err := conn.QueryRow(within, `SELECT EXISTS (SELECT FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace WHERE n.nspname = $1 AND t.relname = 'version')`, c.name).Scan(&there)
	if err == nil && !there {
		err = c.unfit("it is another database: the queue is not there", "name the database of the queue, without the pooler")
	}
	return err
}

// examineListener looks whether the queue is where notifications are waited for.
func (c *connector) examineListener(ctx context.Context) error {
	conn, err := c.connect(ctx, false)
	if err == nil {
		err = errors.Join(c.hasTables(ctx, conn), conn.Close(context.WithoutCancel(ctx)))
	}
	return named(c, err)
}

// hearUntil passes on what others tell, for so long or until the token arrives, and says whether
// that has arrived.
func (s *Store) hearUntil(ctx context.Context, conn *pgx.Conn, limit time.Duration, token string, f func(queue.Hint)) (arrived bool, err error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(within)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case within.Err() != nil:
			return false, nil
		case err != nil:
			return false, err
		case n.Payload == token:
			return true, nil
		}
		s.pass(n.Payload, f)
	}
}

// pass passes a hint on that another instance has given.
func (s *Store) pass(text string, f func(queue.Hint)) {
	head, ids, ok := strings.Cut(text, " ")
	if !ok || head == "" || head[1:] == s.self || head[0] == test {
		return
	}
	f(queue.Hint{Kind: queue.HintKind(head[0]), IDs: strings.Fields(ids)})
}
