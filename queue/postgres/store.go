// Package postgres is the queue's store in a PostgreSQL database, which any number of
// instances may share. Package protocol has the rules by which they do.
package postgres

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"mailsidecar/queue"
	"mailsidecar/queue/transfer"
)

// Options says where a store is and how long it keeps what is final.
type Options struct {
	// URL is the address of the database, as libpq takes it. Several hosts are tried in
	// order; target_session_attrs=read-write finds the primary.
	URL string
	// Reread returns the URL as it is now, for each new connection: user and password of it are
	// used, and nothing else. An error leaves them as they were. It may be nil.
	Reread func() (string, error)
	// Schema is where the tables are; empty means mailsidecar.
	Schema string
	// Connections is how many connections this instance makes at most, beside one for its
	// heartbeat; zero means what the URL says, or else one for each processor, at least four
	// and at most eight.
	Connections int
	// Lease is how long the database takes an instance for alive after its last heartbeat;
	// zero means a minute. A sixth of it is the margin: an instance trusts itself for that
	// much less.
	Lease time.Duration
	// AnswerTime is how long the database has for each answer; zero means 6 s. Then the
	// connection is given up. A database that is frozen is not noticed otherwise.
	AnswerTime time.Duration
	// Patience is how long a call waits for a connection, and Insert for its answer; zero
	// means 2 s. Other calls wait twice as long for theirs, unless they are [Unhurried].
	Patience time.Duration
	// Listen is the address of the database for a connection that hears what other instances
	// tell, where poolers between would keep that from it. Empty means URL, [ListenNone] that it
	// hears nothing. It need not arrive: whatever is told is looked for, too.
	Listen string
	// Retention and KeepBodies are those of the store in a file.
	Retention  time.Duration
	KeepBodies time.Duration
	// Events is told what a person should know; nil tells nobody.
	Events Events
	// Copying opens the store also where its mail was copied to another one, or a copy into it
	// is not whole.
	Copying bool
}

// ListenNone is no address, see [Options.Listen].
const ListenNone = "none"

// Events is told what a person should know of the store.
type Events interface {
	// Commits is called at the start. safe says that no crash of the database loses what it
	// has acknowledged, and no failover, as far as its settings tell.
	Commits(synchronousCommit, synchronousStandbyNames string, safe bool)
	// Away says that the database does not answer, and Back that it does again, and for how
	// long it did not.
	Away(err error)
	Back(after time.Duration)
	// Hears says whether what other instances tell arrives, once at the start and when that
	// changes; err is why not.
	Hears(does bool, err error)
	// BeatFailed says that a heartbeat failed.
	BeatFailed(err error)
	// LeaseLost says that the owner's lease has ended: others have taken over, or will.
	LeaseLost(owner string)
}

type noEvents struct{}

func (noEvents) Commits(string, string, bool) {}
func (noEvents) Away(error)                   {}
func (noEvents) Back(time.Duration)           {}
func (noEvents) Hears(bool, error)            {}
func (noEvents) BeatFailed(error)             {}
func (noEvents) LeaseLost(string)             {}

func (o Options) withDefaults() Options {
	if o.Schema == "" {
		o.Schema = "mailsidecar"
	}
	if o.Lease == 0 {
		o.Lease = time.Minute
	}
	if o.AnswerTime == 0 {
		o.AnswerTime = defaultAnswerTime
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	if o.Retention == 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	o.Retention = max(o.Retention, queue.IdempotencyLife)
	o.KeepBodies = min(o.KeepBodies, o.Retention)
	if o.Events == nil {
		o.Events = noEvents{}
	}
	return o
}

// started is when the process began.
var started = time.Now()

// Store is the [queue.Store] in a schema of a database.
//
// What a caller's context ends is the caller's waiting, never a statement or a commit: these
// go on, and end with their answer or with the connection.
type Store struct {
	*connector
	listener *connector // for the connection that hears the others
	self     string     // by which the others know who tells
	hears    atomic.Bool
	opts     Options
	pool     *pgxpool.Pool
	inserts  *inserts
	marks    marks
	beats    beats
	lost     chan struct{} // see Lost
	lanes    lanes
	lists    chan struct{}             // has an element for each list that goes on
	leases   atomic.Int64              // the number of the last lease
	away     atomic.Pointer[time.Time] // since when the database does not answer; nil: it does
	counted  atomic.Bool               // what is not final, since this store was opened
	now      func() time.Time
	fault    func(happened bool) error // fails commits, before or after they happened, in tests
	cut      func(happened bool) error // loses the answer to an insert that has not happened, or has, in tests

	mu     sync.Mutex
	calls  sync.WaitGroup
	closed bool
	ended  chan struct{} // closed by Close
	house  sync.WaitGroup
}

var _ queue.TellingStore = (*Store)(nil)

// Open opens the store. The schema must be the newest, see [Migrate], or up to one version
// newer. The error is a [queue.StoreError] with the remedy where a person must do something,
// and another one where the database cannot be reached.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := Prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.Connect(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Prepare returns a store that has not connected to its database: [Store.Connect] must follow.
// The error is about the options.
func Prepare(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	c, err := newConnector(o)
	if err != nil {
		return nil, err
	}
	listener, err := newListener(c, o)
	if err != nil {
		return nil, err
	}
	s := &Store{connector: c, listener: listener, self: uuid.NewString()[:8], opts: o, now: time.Now, ended: make(chan struct{}), lists: make(chan struct{}, listsAtATime)}
	s.lanes.begin()
	s.leases.Store(queue.FirstLease + rand.Int64N(1<<40)) //nolint:gosec // it need not be secret, only other than before
	if s.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), c.config); err != nil {
		return nil, named(c, err)
	}
	s.inserts = newInserts(s)
	s.marks.store = s
	s.beats.store, s.beats.now, s.lost = s, make(chan struct{}, 1), make(chan struct{}, 1)
	return s, nil
}

// ErrListen is about [Options.Listen].
var ErrListen = errors.New("the address at which is listened")

// newListener returns c where no other address is named.
func newListener(c *connector, o Options) (*connector, error) {
	if o.Listen == "" || o.Listen == ListenNone {
		return c, nil
	}
	o.URL, o.Reread = o.Listen, nil
	l, err := newConnector(o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListen, err)
	}
	return l, nil
}

// Connect looks at the database. The errors are those of [Open]. After another error than a
// [queue.StoreError] it may be called again.
func (s *Store) Connect(ctx context.Context) error {
	found, err := s.examine(ctx)
	if err == nil && found.Schema < found.Wanted {
		err = s.unfit(fmt.Sprintf("schema %s has version %d and this program needs %d", s.name, found.Schema, found.Wanted), "migrate it")
	}
	if err == nil && !s.opts.Copying {
		err = found.mark.Err(s.place())
	}
	if err != nil {
		return named(s.connector, err)
	}
	s.opts.Events.Commits(found.SynchronousCommit, found.Standbys, found.Safe)
	s.house.Go(s.beats.run)
	s.house.Go(s.addUp)
	return nil
}

// Examined is what is known of a database.
type Examined struct {
	Schema, Wanted    int // versions: of the tables, zero without any, and of this program
	SynchronousCommit string
	Standbys          string // synchronous_standby_names
	// Safe says that no crash of the database loses what it has acknowledged, and no failover,
	// as far as its settings tell.
	Safe bool
	// Listen is what is wrong with [Options.Listen]; nil where nothing is, or nothing is named.
	Listen error
	mark   transfer.Mark
}

// Examine looks whether the database is one that a queue can be in, and changes nothing. The
// errors are those of [Open].
func Examine(ctx context.Context, o Options) (Examined, error) {
	o = o.withDefaults()
	c, err := newConnector(o)
	if err != nil {
		return Examined{}, err
	}
	found, err := c.examine(ctx)
	if l, bad := newListener(c, o); bad != nil {
		found.Listen = bad
	} else if err == nil && l != c && found.Schema > 0 {
		found.Listen = l.examineListener(ctx)
	}
	if err == nil && !o.Copying {
		err = found.mark.Err(c.place())
	}
	return found, named(c, err)
}

func (c *connector) examine(ctx context.Context) (e Examined, err error) {
	conn, err := c.connect(ctx, false)
	if err != nil {
		return e, err
	}
	ctx = context.WithoutCancel(ctx)
	defer func() { _ = conn.Close(ctx) }()
	var encoding, isolation string
	var number int
	err = conn.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('default_transaction_isolation'),
		current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), current_setting('server_version_num')::int`).
		Scan(&encoding, &isolation, &e.SynchronousCommit, &e.Standbys, &number)
	if err != nil {
		return e, err
	}
	e.Safe = e.SynchronousCommit != "off" && (e.SynchronousCommit != "local" || e.Standbys == "")
	e.Wanted = len(migrations)
	e.Schema, err = c.version(ctx, conn)
	switch {
	case err != nil:
		return e, err
	case number < oldestVersion*10000:
		return e, c.unfit("the server is too old", fmt.Sprintf("PostgreSQL %d or newer is needed", oldestVersion))
	case encoding != "UTF8":
		return e, c.unfit("its encoding is "+encoding, "create the database with the encoding UTF8")
	case isolation != "read committed":
		return e, c.unfit("default_transaction_isolation is "+isolation, "set it to \"read committed\" for this role")
	case e.Schema > e.Wanted+1:
		return e, c.newer(e.Schema)
	}
	if e.Schema >= e.Wanted {
		e.mark, err = c.readMark(ctx, conn)
	}
	return e, err
}

func (c *connector) unfit(why, remedy string) error {
	return &queue.StoreError{Path: c.place(), Err: errors.New(why), Remedy: remedy}
}

// named says what helps where a person must do something.
func named(c *connector, err error) error {
	var known *queue.StoreError
	var e *pgconn.PgError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case !errors.As(err, &e):
		return c.namedTLS(err)
	}
	var remedy string
	switch e.Code {
	case "28P01", "28000":
		remedy = "set the right user and password in the address of the database, and let pg_hba.conf of the server take them from here"
	case "3D000":
		remedy = "create the database, or name another one"
	case "42P01", "3F000":
		remedy = "the tables are not there: run \"mailsidecar queue migrate\", or start the server, which makes them"
	case "42501":
		remedy = "grant the role the right to use the schema and its tables; \"mailsidecar queue migrate\" makes them, as a role that may"
	default:
		if strings.HasPrefix(e.Code, "57P") { // the server stops, starts, or was told to by a person
			return fmt.Errorf("the database takes no connections now or has ended this one, try again: %w", err)
		}
		return err
	}
	return &queue.StoreError{Path: c.place(), Err: errors.New(e.Message), Remedy: remedy}
}

// namedTLS says what helps where the connection cannot be as safe as it has to be. Of several
// hosts another one may be right.
func (c *connector) namedTLS(err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var why, remedy string
	switch {
	case c.several() || errors.Is(err, context.Canceled):
		return plainly(err)
	case errors.Is(err, errClearText):
		why, remedy = errClearText.Error(), "add sslmode=verify-full and sslrootcert=FILE to the address of the database"
	case errors.As(err, &name):
		why, remedy = name.Error(), "write the host as the server's certificate names it"
	case errors.As(err, &authority):
		why, remedy = authority.Error(), "set sslrootcert to the file of the authority that has issued the server's certificate"
	case errors.As(err, &invalid):
		why, remedy = invalid.Error(), "give the server a certificate that is valid, and see that the clocks are right"
	case strings.Contains(err.Error(), noTLS) && !c.mayBePlain():
		why, remedy = "the server has no TLS", "switch it on there (ssl = on)"
	default:
		return plainly(err)
	}
	return &queue.StoreError{Path: c.place(), Err: errors.New(why), Remedy: remedy}
}

// Close waits for the calls that go on, and says that the owners of this store are gone.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.ended)
	s.mu.Unlock()
	s.inserts.close()
	s.calls.Wait()
	s.house.Wait()
	s.beats.resign()
	s.pool.Close()
	return nil
}

// whenClosed calls f once the store is being closed, unless stop is called before.
func (s *Store) whenClosed(f func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-s.ended:
			f()
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

// begin says that a call goes on; it ends with calls.Done.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return queue.ErrClosed
	}
	s.calls.Add(1)
	return nil
}

// acquire takes a connection. Nothing has been sent where that fails.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	within, cancel := context.WithTimeout(ctx, s.opts.Patience)
	defer cancel()
	conn, err := s.pool.Acquire(within)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		err = fmt.Errorf("%w: %w", queue.ErrUnavailable, named(s.connector, err))
		s.answered(err)
		return nil, err
	}
}

// answered notes whether the database answers, by the error of a call.
func (s *Store) answered(err error) {
	if errors.Is(err, queue.ErrUnavailable) {
		if now := time.Now(); s.away.CompareAndSwap(nil, &now) {
			s.opts.Events.Away(err)
		}
		return
	}
	if s.away.Load() == nil {
		return
	}
	if since := s.away.Swap(nil); since != nil {
		s.opts.Events.Back(time.Since(*since))
		wake(s.beats.now) // a lease may have ended meanwhile, or be about to
	}
}

// Unhurried returns a context whose calls wait for their answers for as long as the database
// may take. Those of other contexts are of requests, and nobody waits that long for these.
func Unhurried(ctx context.Context) context.Context { return context.WithValue(ctx, unhurried{}, true) }

type unhurried struct{}

// patience is how long a call waits for its answer; nil means for ever.
func (s *Store) patience(ctx context.Context) (ends <-chan time.Time, stop func()) {
	if ctx.Value(unhurried{}) != nil {
		return nil, func() {}
	}
	t := time.NewTimer(2 * s.opts.Patience)
	return t.C, func() { t.Stop() }
}

// run calls f with a connection. When ctx or the patience ends, it returns, and f goes on.
func run[T any](ctx context.Context, s *Store, f func(ctx context.Context, conn *pgx.Conn) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if err := s.begin(); err != nil {
		return none, err
	}
	patience, stop := s.patience(ctx)
	defer stop()
	conn, err := s.acquire(ctx)
	if err != nil {
		s.calls.Done()
		return none, err
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer s.calls.Done()
		defer conn.Release()
		value, err := f(context.WithoutCancel(ctx), conn.Conn())
		if isReadOnly(err) { // it leads to a server that is not the primary any more
			_ = conn.Conn().Close(context.WithoutCancel(ctx))
		}
		err = s.storeError(err)
		s.answered(err)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-patience: // it may wait for a lock: whether the database answers, others find out
		return none, fmt.Errorf("%w: no answer within %v", queue.ErrUnavailable, 2*s.opts.Patience)
	}
}

// timeoutCode is that of a statement that took longer than it may (query_canceled).
const timeoutCode = "57014"

// isReadOnly says that the server takes no writes.
func isReadOnly(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "25006"
}

// storeError turns what the database says into what the queue knows.
func (s *Store) storeError(err error) error {
	var e *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, queue.ErrUnavailable):
		return err
	case errors.As(err, &e) && e.Code == lockedCode:
		return s.unfit("it takes nothing any more", "it was copied to another one meanwhile, or is being copied into; start again, and the start says more")
	case errors.As(err, &e) && e.Code == "53100":
		return fmt.Errorf("%w: %w", queue.ErrDiskFull, err)
	case isReadOnly(err), errors.As(err, &e) && e.Code == timeoutCode:
		return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	case errors.As(err, &e) && e.Severity != "FATAL" && e.Severity != "PANIC" && !strings.HasPrefix(e.Code, "57P"):
		return named(s.connector, fmt.Errorf("queue store: %w", err))
	case errors.As(err, &e), pgconn.SafeToRetry(err), errors.Is(err, errNoAnswer), isNetwork(err):
		return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	default:
		return err
	}
}

// Check says whether the database answers, and the store may still be used.
func (s *Store) Check(ctx context.Context) error {
	_, err := run(ctx, s, func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		var recovery, readOnly bool
		err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool`).Scan(&recovery, &readOnly)
		if err == nil && (recovery || readOnly) {
			err = fmt.Errorf("%w: the database is read-only", queue.ErrUnavailable)
		}
		if err != nil || s.opts.Copying {
			return false, err
		}
		mark, err := s.readMark(ctx, conn)
		return false, cmp.Or(err, mark.Err(s.place()))
	})
	return err
}
