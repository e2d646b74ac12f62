package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/queue"
)

// Bounds of one group. They keep a commit short. What is large waits for a group of large
// writes, and small messages go first for largeWait: so a small message waits for the commit of
// one such group at most, however many large messages there are, and hardly ever shares one. Sizes
// are in octets.
const (
	maxGroupOps  = 256
	maxGroupSize = 1 << 20 // of small messages
	largeSize    = 64 << 10
)

// A group of large writes has up to stageStep octets, or restSize where no small message has
// come for so long: larger groups cost less.
const (
	restSize = 4 << 20
	restTime = 10 * time.Second
)

// largeWait is how long large writes wait at most while small messages come one after the other.
const largeWait = 20 * time.Millisecond

// shareWait is how long outcomes wait for a new message whose commit they can
// share. Under load one always comes, which saves every other commit and fsync.
// The price: the time in which a crash makes a delivered message uncertain grows by
// this much.
const shareWait = 5 * time.Millisecond

// write is something to be written: with others in one transaction, or alone
// and again when that transaction failed. So run must start from nothing.
type write struct {
	run  func(*writer) error
	size int64 // octets of new messages; zero where there are none
	// large says that this waits for a commit of large writes.
	large bool
	// admits says that this needs the room that is kept back for outcomes.
	admits bool
	// patient says that this waits a while for another to share its commit.
	patient bool
	answer  error // what run found out, the store being sound
	done    chan error
}

// writer is the one goroutine that writes, and its connection.
type writer struct {
	*session
	store    *Store
	db       *sql.DB
	writes   chan *write
	large    []*write  // wait for a group of large messages
	smallAt  time.Time // when the last small message came
	largeAt  time.Time // when the first of the large ones came, or a group of them was committed
	hadLarge bool      // the last group had large messages
	log      logFile
	keep     logKeeper
	*copier

	mu     sync.RWMutex // held for reading while handing over a write
	closed bool
	ended  chan struct{}

	probes   probes      // of the disk, when a write fails
	doubtful bool        // the last transaction failed, and may have been committed
	added    queue.Usage // to the messages that are not final, by the open transaction
	deleted  int64       // octets of large contents, by the open transaction
	left     bool        // the open transaction leaves contents to the janitor
	usage    usageCount
	numbers  numbers

	failed  atomic.Pointer[error] // what the last commit came to
	probeAt time.Time             // when to try again after it failed
	// commits and written count transactions and what was in them: their
	// quotient is how many share an fsync.
	commits, written atomic.Int64
}

// openWriter opens the connection.
func openWriter(ctx context.Context, s *Store) (*writer, error) {
	name := dsn(s.opts.Path, "cache_size(-4000)", "temp_store(memory)",
		"wal_autocheckpoint(0)", fmt.Sprintf("journal_size_limit(%d)", longLog))
	db, err := sql.Open("sqlite", name+"&_journal_mode=wal&_synchronous=full")
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1)
	w := &writer{store: s, db: db, probes: probes{ask: probeDisk}, writes: make(chan *write, maxGroupOps), ended: make(chan struct{}), usage: usageCount{turn: make(chan struct{}, 1)}, log: logFile{path: logPath(s.opts.Path)}}
	c, err := w.connect()
	if err == nil {
		err = migrate(ctx, c.conn, s.opts.Path, s.opts.Logger)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	// A group commit cannot be cancelled for one caller, so writes use a context that
	// never ends. The driver is also faster that way.
	w.session = &session{context.Background(), c}
	if w.copier, err = newCopier(s.opts.Path); err != nil {
		return nil, errors.Join(err, c.close(), db.Close())
	}
	if err := errors.Join(w.usage.read(w.session), w.numbers.read(w.session)); err != nil {
		return nil, errors.Join(err, w.copier.close(), c.close(), db.Close())
	}
	return w, nil
}

// connect opens a connection that writes to the log.
func (w *writer) connect() (*connection, error) {
	c, err := connect(w.db)
	if err != nil {
		return nil, err
	}
	var mode string
	err = c.conn.QueryRowContext(context.Background(), "PRAGMA journal_mode").Scan(&mode)
	if err == nil && mode != "wal" {
		err = fault(w.store.opts.Path, queue.ErrFileSystem, "it does not support SQLite's write-ahead log; put the queue on a local disk")
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// reconnect is connect for a store that has been in use.
func (w *writer) reconnect() (*connection, error) {
	if err := w.store.moved(); err != nil {
		return nil, err
	}
	return w.connect()
}

// do hands a write over and waits until it is committed. Once handed over it is
// not given up, whatever becomes of ctx: the caller must know what happened.
func (w *writer) do(ctx context.Context, op *write) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	op.done = make(chan error, 1)
	w.mu.RLock()
	if w.closed {
		w.mu.RUnlock()
		return queue.ErrClosed
	}
	w.writes <- op
	w.mu.RUnlock()
	return <-op.done
}

// write runs f in a transaction that others share.
func (s *Store) write(ctx context.Context, f func(*writer) error) error {
	return s.writer.do(ctx, &write{run: f})
}

func (w *writer) run() {
	defer close(w.ended)
	defer func() { w.store.gate.open(w.keep.opened) }()
	defer w.awaitCopy()
	for {
		first, open := w.await()
		if !open {
			return
		}
		group, size := w.admitted(w.gather(first))
		w.trimLog(size)
		w.commitGroup(group)
		w.copySome()
	}
}

// probeInterval is how long after a failed write it is tried whether the disk is
// well again. A service that is not ready may get no mail that would tell.
const probeInterval = 2 * time.Second

// await returns the next write, which may be nil while large ones wait; false when there
// will be none.
func (w *writer) await() (*write, bool) {
	if len(w.large) > 0 && !w.copying {
		return w.next(false, nil), true
	}
	for {
		var due <-chan time.Time
		if w.lastError() != nil {
			due = time.After(time.Until(w.probeAt))
		}
		select {
		case op, open := <-w.writes:
			if !open && len(w.large) > 0 {
				w.awaitCopy()
				return nil, true
			}
			return op, open
		case <-w.keep.quiet:
			w.trimLog(0)
		case <-w.copied:
			w.endCopy()
			if len(w.large) > 0 && !w.copying {
				return nil, true
			}
		case <-due:
			w.commitGroup([]*write{{run: (*writer).probe, done: make(chan error, 1)}})
		}
	}
}

// gather returns first, if there is one, and what else waits to be written, of large messages not those
// that wait for another group. As long as all of it is patient it waits for more.
func (w *writer) gather(first *write) []*write {
	var group []*write
	patient := first != nil && first.patient
	var late <-chan time.Time
	if patient {
		late = time.After(shareWait)
	}
	if w.hadLarge {
		w.hadLarge, w.largeAt = false, time.Now()
	}
	small, urgent := int64(0), false // octets; and more than outcomes
	for n, op := 0, first; op != nil; op = w.next(patient && len(w.large) == 0, late) {
		if op.large {
			if w.large = append(w.large, op); len(w.large) == 1 {
				w.largeAt = time.Now()
			}
		} else {
			group = append(group, op)
			patient = patient && op.patient
			urgent = urgent || !op.patient
			if small += op.size; op.size > 0 {
				w.smallAt = time.Now()
			}
		}
		if n++; n == maxGroupOps || small > maxGroupSize-largeSize {
			break
		}
	}
	if urgent && time.Since(w.largeAt) < largeWait {
		return group
	}
	most := int64(stageStep)
	if time.Since(w.smallAt) > restTime {
		most = restSize
	}
	for size := int64(0); len(w.large) > 0 && !w.copying; {
		if size += w.large[0].size; size > most && size > w.large[0].size {
			break
		}
		group = append(group, w.takeLarge())
		w.hadLarge = true
	}
	return group
}

// takeLarge returns the first of the large ones.
func (w *writer) takeLarge() *write {
	op := w.large[0]
	w.large[0] = nil
	w.large = w.large[1:]
	return op
}

// next returns the next write; nil when there is none, or with wait none until
// it is late.
func (w *writer) next(wait bool, late <-chan time.Time) *write {
	select {
	case op := <-w.writes: // nil when closed
		return op
	default:
	}
	if !wait {
		return nil
	}
	select {
	case op := <-w.writes:
		return op
	case <-late:
		return nil
	}
}

// admitted answers the writes that may not be made just now. It returns the others, and
// the octets of new messages in them.
func (w *writer) admitted(group []*write) (rest []*write, size int64) {
	for _, op := range group {
		size += op.size
	}
	if size == 0 {
		return group, 0
	}
	err := w.store.admit(size)
	if err == nil {
		return group, size
	}
	for _, op := range group {
		if op.admits {
			op.done <- err
		} else {
			rest = append(rest, op)
		}
	}
	return rest, 0
}

// commitGroup commits the writes together. When that fails it commits each
// alone, so that one that cannot be written does not take the others with it. Where
// the commit may have happened it does not: a write would take effect twice.
func (w *writer) commitGroup(group []*write) {
	if len(group) == 0 {
		return
	}
	err := w.commit(group)
	if err != nil && len(group) > 1 && !w.doubtful {
		for _, op := range group {
			w.commitGroup([]*write{op})
		}
		return
	}
	for _, op := range group {
		op.done <- cmp.Or(err, op.answer)
	}
}

func (w *writer) commit(group []*write) error {
	began := time.Now()
	err := named(w.store.opts.Path, w.transaction(group), w.probes.probe)
	w.countCommit(began, len(group), err)
	if err != nil {
		w.failed.Store(&err)
		w.probeAt = time.Now().Add(probeInterval)
	} else {
		w.failed.Store(nil)
	}
	return err
}

// isAnswer says that err is about the request and not about the store. Nothing
// was written then, and the rest of the group goes on.
func isAnswer(err error) bool {
	return errors.Is(err, queue.ErrIdempotencyMismatch) || errors.Is(err, queue.ErrNotFound)
}

func (w *writer) transaction(group []*write) (err error) {
	w.doubtful, w.added, w.deleted, w.left = false, queue.Usage{}, 0, false
	w.numbers.begin()
	if err := w.begin(); err != nil {
		return err
	}
	committing := false
	defer func() {
		if err != nil {
			open := w.rollBack()
			w.doubtful = committing && !open
		}
	}()
	for _, op := range group {
		op.answer = nil
		if err := op.run(w); isAnswer(err) {
			op.answer = err
		} else if err != nil {
			return err
		}
	}
	if err := w.forgetUsage(); err != nil {
		return err
	}
	if err := w.keepNumbers(); err != nil {
		return err
	}
	committing = true
	if err := w.commitFault(false); err != nil {
		return err
	}
	if err := w.commitUsage(); err != nil {
		return err
	}
	if w.left {
		w.store.janitor.wake()
	}
	w.commits.Add(1)
	w.written.Add(int64(len(group)))
	return nil
}

func (w *writer) commitFault(happened bool) error {
	if w.store.fault == nil {
		return nil
	}
	return w.store.fault(happened)
}

// begin begins a transaction, on a new connection where the old one is of no use any
// more.
func (w *writer) begin() error {
	if !w.unsure {
		err := w.control("BEGIN IMMEDIATE")
		if err == nil {
			return nil
		}
		if w.rollBack(); !w.unsure {
			return err
		}
	}
	c, err := w.renewed(w.reconnect)
	if err != nil {
		return err
	}
	w.connection = c
	_ = w.log.close() // another one may be in its place
	return w.control("BEGIN IMMEDIATE")
}

// probe writes as little as can be written.
func (w *writer) probe() error {
	return w.exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
}

func (w *writer) lastError() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// close waits for the writes handed over, and closes the connection.
func (w *writer) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	close(w.writes)
	w.mu.Unlock()
	<-w.ended
	w.storeUsage()
	w.storeNumbers()
	return errors.Join(w.log.close(), w.copier.close(), w.connection.close(), w.db.Close())
}
