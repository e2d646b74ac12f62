package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailsidecar/queue"
)

// How many connections read at most: each has a page cache of up to 2 MiB.
const (
	readConnections = 4 // for what the queue asks, and for look-ups of one message
	listConnections = 2
)

// readers are connections that read.
type readers struct {
	store  *Store
	db     *sql.DB
	free   chan *connection // those that are not in use
	closed chan struct{}    // closed by refuse

	mu  sync.Mutex
	all int // connections, in use or not; at least one
}

// openReaders opens one connection, of up to n. The others are opened when so many are
// in use at once: a start does not wait for them, and an idle server does not need their
// memory. The first one is opened now: once the file is deleted none can be opened any
// more, and what is stored must be read all the same.
func openReaders(s *Store, n int) (*readers, error) {
	db, err := sql.Open("sqlite", dsn(s.opts.Path, "query_only(1)")+"&mode=rw")
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1)
	p := &readers{store: s, db: db, free: make(chan *connection, n), closed: make(chan struct{})}
	c, err := p.connect()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	p.all = 1
	p.free <- c
	return p, nil
}

// connect opens a connection, unless the file is another one by now.
func (p *readers) connect() (*connection, error) {
	if err := p.store.moved(); err != nil {
		return nil, err
	}
	c, err := connect(p.db)
	if err != nil {
		return nil, err
	}
	// SQLite opens the log with the first read.
	if err := (&session{context.Background(), c}).read(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// read reads from the file.
func (s *session) read() error {
	var tables int
	return s.row("SELECT count(*) FROM sqlite_schema", nil, &tables)
}

// take waits for a connection that is not in use.
func (p *readers) take(ctx context.Context) (*connection, error) {
	select {
	case c := <-p.free:
		return c, nil
	default:
	}
	if c := p.another(); c != nil {
		return c, nil
	}
	select {
	case c := <-p.free:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, queue.ErrClosed
	}
}

// another opens one more connection; nil when there are as many as there may be, or none
// can be opened.
func (p *readers) another() *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == cap(p.free) || p.isClosed() {
		return nil
	}
	c, err := p.connect()
	if err != nil {
		return nil
	}
	p.all++
	return c
}

// begin begins a transaction, on a new connection where c is of no use any more. It
// returns the connection to go on with, and to give back.
func (p *readers) begin(c *connection) (*connection, error) {
	if !c.unsure {
		if err := c.control("BEGIN"); err == nil {
			return c, nil
		}
		c.rollBack()
	}
	if c.unsure {
		fresh, err := c.renewed(p.connect)
		if err != nil {
			return c, err
		}
		c = fresh
	}
	return c, c.control("BEGIN")
}

// giveBack lets others use the connection. One that is unsure is replaced; where
// that is impossible it is given up, unless it is the last one.
func (p *readers) giveBack(c *connection) {
	if c.unsure && !p.isClosed() {
		if fresh, err := c.renewed(p.connect); err == nil {
			c = fresh
		} else if p.giveUp() {
			_ = c.close() // it is broken
			return
		}
	}
	p.free <- c
}

func (p *readers) giveUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == 1 {
		return false
	}
	p.all--
	return true
}

func (p *readers) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// refuse makes calls of take fail.
func (p *readers) refuse() { close(p.closed) }

// close waits for the connections in use and closes all. refuse was called before.
func (p *readers) close() error {
	var errs []error
	for p.left() > 0 {
		errs = append(errs, (<-p.free).close())
		p.mu.Lock()
		p.all--
		p.mu.Unlock()
	}
	return errors.Join(append(errs, p.db.Close())...)
}

func (p *readers) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// view runs f on one consistent state of the store. It should not take longer than
// viewTime: the log grows until it ends.
func (s *Store) view(ctx context.Context, f func(*session) error) error {
	return storeError(s.opts.Path, s.readers.view(ctx, f))
}

func (p *readers) view(ctx context.Context, f func(*session) error) error {
	c, err := p.take(ctx)
	if err != nil {
		return err
	}
	return p.viewOn(ctx, c, f)
}

func (p *readers) viewOn(ctx context.Context, c *connection, f func(*session) error) error {
	if err := p.store.gate.enter(ctx); err != nil {
		p.giveBack(c)
		return err
	}
	defer p.store.gate.leave()
	c, err := p.begin(c)
	defer func() { p.giveBack(c) }()
	if err != nil {
		return err
	}
	defer c.rollBack() // nothing was written
	err = f(&session{ctx, c})
	if isInterrupted(err) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// isInterrupted says that a statement was cut short, as the driver does when a context
// ends. It does not always say that this was the reason.
func isInterrupted(err error) bool {
	var e *sqlitedriver.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_INTERRUPT
}

// tryRead reads, unless all connections are in use just now or a checkpoint is about
// to begin.
func (s *Store) tryRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil || s.gate.isShut() {
		return err
	}
	select {
	case c := <-s.readers.free:
		return storeError(s.opts.Path, s.readers.viewOn(ctx, c, (*session).read))
	default:
		return nil
	}
}
