//go:build linux

package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

func entry(owner string, to ...string) queue.Entry {
	now := time.Now().UTC().Truncate(time.Microsecond)
	data := []byte("Subject: x\r\n\r\nhello\r\n")
	return queue.Entry{
		Message: queue.Message{
			ID: queue.NewID(now), Key: "app", MessageID: "<1@example.com>", Sender: "shop@example.com", Size: int64(len(data)),
			Envelope: mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: to}, Created: now, Expires: now.Add(time.Hour),
		},
		Content: mailer.Content{Data: data, MessageID: "<1@example.com>"}, Route: "relay", Owner: owner, Due: now,
	}
}

func insert(t *testing.T, s *Store, entries ...queue.Entry) {
	t.Helper()
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: entries}); err != nil {
		t.Fatalf("Insert = %v", err)
	}
}

func get(t *testing.T, s *Store, e queue.Entry) queue.Message {
	t.Helper()
	m, err := s.Get(t.Context(), queue.AnyKey, e.Message.ID)
	if err != nil {
		t.Fatalf("Get = %v", err)
	}
	return m
}

func live(t *testing.T, s *Store, owner string) {
	t.Helper()
	if err := s.Heartbeat(t.Context(), owner, time.Now()); err != nil {
		t.Fatalf("Heartbeat = %v", err)
	}
}

// outdate ends an owner's lease, as time does.
func outdate(t *testing.T, s *Store, owner string) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), s.sql(`UPDATE {s}.instances SET until = clock_timestamp() - interval '1 s' WHERE owner = $1`), owner); err != nil {
		t.Fatal(err)
	}
}

func lease(e queue.Entry) queue.Lease {
	return queue.Lease{ID: e.Message.ID, Route: queue.TakenRoute("relay"), ForwardPaths: e.Message.Envelope.ForwardPaths, Number: queue.FirstLease}
}

func outcome(owner string, e queue.Entry, state queue.State) queue.Outcome {
	o := queue.Outcome{ID: e.Message.ID, Owner: owner, Route: "relay", At: time.Now(), Lease: queue.FirstLease}
	a := mailer.Attempt{Relay: "relay", Started: time.Now()}
	for _, path := range e.Message.Envelope.ForwardPaths {
		r := mailer.Result{ForwardPath: path}
		if state != queue.Delivered {
			r.Failure = &mailer.Failure{Class: mailer.ClassTransient, Text: "later"}
		}
		a.Results = append(a.Results, r)
		o.Changes = append(o.Changes, queue.Change{ForwardPath: path, State: state, Next: time.Now().Add(time.Hour)})
	}
	o.Attempts = []mailer.Attempt{a}
	return o
}

// TestShared: two instances keep the rules by which they share a database.
func TestShared(t *testing.T) {
	url := start(t).url()
	storetest.RunShared(t, func(t *testing.T) storetest.Shared {
		o := options(t, url)
		a, b := open(t, o), open(t, o)
		return storetest.Shared{A: a, B: b, Outdate: func(owner string) { outdate(t, b, owner) }, Beat: func() {
			if conn := a.beats.renewAll(nil); conn != nil {
				_ = conn.Close(t.Context())
			}
		}}
	})
}

// TestUnknownInsert: an insert whose answer is lost is asked for again, until it is known to be
// stored; it is stored once.
func TestUnknownInsert(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	for _, happened := range []bool{false, true} {
		for _, keyed := range []bool{false, true} {
			var lost sync.Once
			s.cut = func(did bool) (err error) {
				if did == happened {
					lost.Do(func() { err = errUnknown })
				}
				return err
			}
			b := queue.Batch{Entries: []queue.Entry{entry("me", "x@example.org"), entry("me", "x@example.org")}}
			if keyed {
				b.Idempotency = &queue.Idempotency{Key: "app", Name: fmt.Sprint(happened), Expires: time.Now().Add(queue.IdempotencyLife)}
			}
			if replayed, err := s.Insert(t.Context(), b); err != nil || replayed != nil {
				t.Errorf("Insert whose answer is lost (happened %v) = %v, %v, want nil", happened, replayed, err)
			}
			if m := get(t, s, b.Entries[1]); len(m.Recipients) != 1 {
				t.Errorf("recipients = %d", len(m.Recipients))
			}
		}
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 8 {
		t.Errorf("Usage = %+v, %v, want 8 messages", u, err)
	}
}

// TestRewindBehind: an instance whose clock is hours behind does not take the due times of others for wrong; one
// whose clock is right does, of what a clock gone wrong has put there.
func TestRewindBehind(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	const day = 24 * time.Hour
	soon, far := entry("", "a@example.org"), entry("", "b@example.org")
	soon.Due, far.Due = time.Now().Add(2*time.Hour), time.Now().Add(30*day)
	insert(t, s, soon, far)
	due := func(e queue.Entry) time.Duration {
		t.Helper()
		id, _ := parseID(e.Message.ID)
		var at time.Time
		if err := s.pool.QueryRow(t.Context(), s.sql(`SELECT due FROM {s}.recipients WHERE message = $1`), id).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return time.Until(at).Round(time.Hour)
	}
	for _, test := range []struct {
		clock     time.Duration // how wrong this instance's is
		soon, far time.Duration
	}{
		{-5 * time.Hour, 2 * time.Hour, 4 * time.Hour},
		{0, 2 * time.Hour, 4 * time.Hour},
	} {
		s.now = func() time.Time { return time.Now().Add(test.clock) }
		if _, err := s.Rewind(t.Context(), s.now().Add(4*time.Hour), ""); err != nil {
			t.Fatal(err)
		}
		if due(soon) != test.soon || due(far) != test.far {
			t.Errorf("by a clock that is off by %v, mail is due in %v and %v, want %v and %v", test.clock, due(soon), due(far), test.soon, test.far)
		}
	}
}

// TestRepeatsShareGroup: requests that are new, repeated, or repeated otherwise get their own answers though they
// are written together, and what was new is stored once.
func TestRepeatsShareGroup(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	request := func(name string) *insertion {
		e := entry("", "a@example.org", "b@example.org")
		e.Message.Tags = map[string]string{"order": name}
		i := &insertion{Batch: queue.Batch{Entries: []queue.Entry{e}}}
		if name != "" {
			i.Idempotency = &queue.Idempotency{Key: "app", Name: name, Expires: time.Now().Add(queue.IdempotencyLife)}
		}
		id, _ := parseID(e.Message.ID)
		i.ids = []key{id}
		return i
	}
	first, outdated := request("first"), request("outdated")
	outdated.Idempotency.Expires = time.Now().Add(-time.Hour)
	s.writeGroup([]*insertion{first, outdated})
	for range 2 { // the second time the store knows that requests are repeated
		other, again, renewed, plain, stored := request("other"+queue.NewID(time.Now())), request("first"), request("outdated"), request(""), request("")
		mismatch := request("first")
		mismatch.Idempotency.Fingerprint[0] = 1
		stored.ids, stored.Entries = first.ids, slices.Clone(first.Entries) // the same message without a key
		s.writeGroup([]*insertion{other, again, renewed, plain})
		s.writeGroup([]*insertion{mismatch, stored})
		for _, i := range []*insertion{other, plain, stored} {
			if i.err != nil || i.replayed != nil {
				t.Errorf("a new request = %v, %v", i.replayed, i.err)
			}
			if m := get(t, s, i.Entries[0]); len(m.Recipients) != 2 {
				t.Errorf("%d recipients", len(m.Recipients))
			}
		}
		if again.err != nil || !slices.Equal(again.replayed, []string{first.Entries[0].Message.ID}) {
			t.Errorf("a repeated request = %v, %v, want the first one's message", again.replayed, again.err)
		}
		if renewed.err != nil {
			t.Errorf("a request with a key that is over = %v", renewed.err)
		}
		if !errors.Is(mismatch.err, queue.ErrIdempotencyMismatch) {
			t.Errorf("another request with the same key = %v", mismatch.err)
		}
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 2+2*2+1 {
		t.Errorf("Usage = %+v, %v, want 7 messages", u, err)
	}
	stats, err := s.Stats(t.Context(), queue.AnyKey, time.Now())
	if err != nil || stats.Statuses[queue.StatusQueued] != 7 {
		t.Errorf("Stats = %+v, %v, want 7 messages", stats, err)
	}
}

// TestUnknownThenRefused: an insert whose answer was lost is not taken for refused because a
// later try is: it may be stored.
func TestUnknownThenRefused(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	for _, happened := range []bool{false, true} {
		sent := 0
		s.cut = func(did bool) error {
			if !did {
				sent++
			}
			switch {
			case sent == 1 && did == happened:
				return errUnknown
			case sent > 1 && !did:
				return &pgconn.PgError{Severity: "ERROR", Code: "53100", Message: "could not extend file: No space left on device"}
			}
			return nil
		}
		e := entry("me", "x@example.org")
		_, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}})
		if !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrDiskFull) || sent != 2 {
			t.Errorf("Insert after %d tries, the first of which happened (%v) = %v, want ErrUnavailable", sent, happened, err)
		}
		s.cut = nil
		if _, err := s.Get(t.Context(), queue.AnyKey, e.Message.ID); happened && err != nil || !happened && !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Get (happened %v) = %v", happened, err)
		}
	}
}

// TestStandbyGone: while a named standby is missing no message is accepted, not even when an
// administrator ends the wait: the database says yes then, and warns.
func TestStandbyGone(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	o := options(t, own.url())
	o.Patience, o.AnswerTime = time.Minute, time.Minute
	s := open(t, o)
	insert(t, s, entry("", "x@example.org")) // the connections are there
	own.exec(t, `ALTER SYSTEM SET synchronous_standby_names = 'gone'`)
	own.exec(t, `SELECT pg_reload_conf()`)
	time.Sleep(200 * time.Millisecond)
	e := entry("", "x@example.org")
	done := make(chan error, 1)
	go func() {
		_, err := s.Insert(context.Background(), queue.Batch{Entries: []queue.Entry{e}})
		done <- err
	}()
	for range 3 { // the insert, and what asks for it
		time.Sleep(300 * time.Millisecond)
		own.exec(t, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
	}
	time.Sleep(300 * time.Millisecond)
	select {
	case err := <-done:
		t.Fatalf("Insert that no standby has = %v, want no answer", err)
	default:
	}
	m, err := s.Get(t.Context(), queue.AnyKey, e.Message.ID)
	if err != nil || m.ID == "" {
		t.Errorf("Get = %v, want the message, which is there but not safe", err)
	}
	own.exec(t, `ALTER SYSTEM RESET synchronous_standby_names`)
	own.exec(t, `SELECT pg_reload_conf()`)
	if err := <-done; err != nil {
		t.Errorf("Insert = %v, want nil once no standby is asked for", err)
	}
}

// TestContextsCancelNothing: no caller that leaves ends the wait of a commit, and no connection
// that is given up.
func TestContextsCancelNothing(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	o := options(t, own.url())
	o.AnswerTime = 500 * time.Millisecond
	s := open(t, o)
	e := entry("me", "x@example.org")
	insert(t, s, e)
	live(t, s, "me")
	own.exec(t, `ALTER SYSTEM SET synchronous_standby_names = 'gone'`)
	own.exec(t, `SELECT pg_reload_conf()`)
	time.Sleep(200 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Mark(ctx, "me", lease(e), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Mark = %v, want the context's end", err)
	}
	time.Sleep(time.Second)
	var waiting int
	if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`).Scan(&waiting); err != nil || waiting != 1 {
		t.Errorf("commits that wait = %d, %v, want that of the caller that left", waiting, err)
	}
	own.exec(t, `ALTER SYSTEM RESET synchronous_standby_names`)
	own.exec(t, `SELECT pg_reload_conf()`)
}

// TestFrozenServer: a server that stands still is noticed though its kernel acknowledges what is
// sent. Afterwards everything goes on, and nothing is stored twice or lost.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	o := options(t, own.url())
	o.AnswerTime, o.Patience = time.Second, time.Second
	s := open(t, o)
	insert(t, s, entry("", "x@example.org"))
	own.signal(t, syscall.SIGSTOP)
	e := entry("", "x@example.org")
	began := time.Now()
	_, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}})
	if !errors.Is(err, queue.ErrUnavailable) || time.Since(began) > 3*time.Second {
		t.Errorf("Insert = %v after %v, want ErrUnavailable after a second", err, time.Since(began))
	}
	if err := s.Check(t.Context()); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Check = %v, want ErrUnavailable", err)
	}
	own.signal(t, syscall.SIGCONT)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err = s.Get(t.Context(), queue.AnyKey, e.Message.ID); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the message that was unknown is not stored: %v", err)
		}
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Messages != 2 {
		t.Errorf("Usage = %+v, %v, want two messages", u, err)
	}
}

// TestCrashedServer: what was accepted before the server crashed is there afterwards, and the
// store goes on by itself.
func TestCrashedServer(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	s := open(t, options(t, own.url()))
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	accepted := map[string]bool{}
	refused := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				e := entry("", "x@example.org")
				_, err := s.Insert(context.Background(), queue.Batch{Entries: []queue.Entry{e}})
				mu.Lock()
				if err == nil {
					accepted[e.Message.ID] = true
				} else {
					refused++
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		own.crash(t)
	}
	number := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted)
	}
	before := number()
	for end := time.Now().Add(30 * time.Second); number() < before+10 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	wg.Wait()
	for id := range accepted {
		if _, err := s.Get(t.Context(), queue.AnyKey, id); err != nil {
			t.Errorf("Get(%s) of what was accepted = %v", id, err)
		}
	}
	if len(accepted) == before || before == 0 {
		t.Errorf("%d messages were accepted before the last crash, %d in all", before, len(accepted))
	}
	t.Logf("%d accepted, %d not", len(accepted), refused)
}

// crash kills a child of the server: it ends all others at once, and recovers.
func (s *server) crash(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.url())
	if err != nil {
		t.Fatal(err)
	}
	pid := conn.PgConn().PID()
	_ = syscall.Kill(int(pid), syscall.SIGKILL)
	_ = conn.Close(t.Context())
	time.Sleep(100 * time.Millisecond)
	if err := awaitServer(s.url()); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateAtOnce: ten instances that start at once migrate once, through PgBouncer too. A
// schema that is newer by more than one version is refused, with what helps.
func TestMigrateAtOnce(t *testing.T) {
	srv := start(t)
	for _, url := range []string{srv.url(), srv.pooledURL()} {
		o := Options{URL: url, Schema: fmt.Sprintf("at once %d", schemas.Add(1))}
		var wg sync.WaitGroup
		var mu sync.Mutex
		fresh := 0
		for range 10 {
			wg.Go(func() {
				from, to, err := Migrate(t.Context(), o)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || to != len(migrations) {
					t.Errorf("Migrate = %d, %d, %v", from, to, err)
				}
				if from == 0 {
					fresh++
				}
			})
		}
		wg.Wait()
		if fresh != 1 {
			t.Errorf("%d of ten have migrated, want one", fresh)
		}
		for _, c := range []struct {
			newer int
			err   error
		}{{1, nil}, {2, queue.ErrNewerSchema}} {
			srv.exec(t, fmt.Sprintf(`UPDATE %s.version SET version = $1`, pgx.Identifier{o.Schema}.Sanitize()), len(migrations)+c.newer)
			if from, to, err := Migrate(t.Context(), o); !errors.Is(err, c.err) || to != len(migrations)+c.newer { // as each start does
				t.Errorf("Migrate of a schema that is newer by %d = %d, %d, %v, want %v", c.newer, from, to, err, c.err)
			}
			s, err := Open(t.Context(), o)
			if !errors.Is(err, c.err) {
				t.Errorf("Open of a schema that is newer by %d = %v, want %v", c.newer, err, c.err)
			}
			if err == nil {
				_ = s.Close()
			}
		}
	}
}

// TestRole: after the migration a role suffices that may not create anything.
func TestRole(t *testing.T) {
	srv := start(t)
	o := options(t, srv.url())
	name := pgx.Identifier{o.Schema}.Sanitize()
	srv.exec(t, `CREATE ROLE app LOGIN`)
	srv.exec(t, `GRANT USAGE ON SCHEMA `+name+` TO app`)
	srv.exec(t, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+name+` TO app`)
	o.URL = strings.Replace(o.URL, "test@", "app@", 1)
	s := open(t, o)
	e := entry("me", "x@example.org")
	insert(t, s, e)
	if _, err := s.Record(t.Context(), []queue.Outcome{outcome("me", e, queue.Delivered)}); err != nil {
		t.Error(err)
	}
	if err := s.SetManualPauses(t.Context(), nil); err != nil {
		t.Error(err)
	}
	o.Schema = "elsewhere"
	var known *queue.StoreError
	if _, _, err := Migrate(t.Context(), o); !errors.As(err, &known) || !strings.Contains(err.Error(), "grant the role") {
		t.Errorf("Migrate as a role that may not = %v, want what helps", err)
	}
}

// TestAnyText: a relay may say anything, and the database takes it.
func TestAnyText(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	e := entry("me", "x@example.org")
	e.Message.Subject, e.Message.Tags = "a\x00b\xff", map[string]string{"n\x00": "\x00"}
	insert(t, s, e)
	o := outcome("me", e, queue.Deferred)
	o.Attempts[0].Results[0].Failure = &mailer.Failure{Class: mailer.ClassTransient, Reply: mailer.Reply{Code: 450, Text: "\x00 \xff \\u0000 \\"}}
	o.Attempts[0].TLS = "\x00"
	if _, err := s.Record(t.Context(), []queue.Outcome{o}); err != nil {
		t.Fatal(err)
	}
	m := get(t, s, e)
	if got := m.Attempts[0].Results[0].Failure.Reply.Text; got != "\ufffd \ufffd \\u0000 \\" {
		t.Errorf("reply = %q", got)
	}
}

// TestAddress: what is wrong with an address is said without the password.
func TestAddress(t *testing.T) {
	for _, url := range []string{
		"", "sqlite:x", "host=x password=secret", "postgres://u:secret@h:port/db", "postgres://u:secret@h/db?search_path=x", "postgres://u:secret@h/db?sslmode=perhaps",
		"postgres://u:sec%ret@h/db", "postgres://u:secret@h/db?pool_max_conns=x",
	} {
		_, err := newConnector(Options{URL: url, Schema: "s"})
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sec%ret") {
			t.Errorf("newConnector(%q) = %v, want an error without the password", url, err)
		}
	}
	c, err := newConnector(Options{URL: "postgres://u:secret@h1,h2:5433/db?target_session_attrs=read-write&application_name=x", Schema: "s"}.withDefaults())
	if err != nil || strings.Contains(c.place(), "secret") {
		t.Errorf("newConnector = %v", err)
	}
}

// TestManyDeltas: numbers are the same before and after they are added up, by one of two
// instances.
func TestManyDeltas(t *testing.T) {
	o := options(t, start(t).url())
	a, b := open(t, o), open(t, o)
	now := storetest.Churn(t, a, 7, storetest.Start)
	for _, s := range []*Store{b, a, b} {
		storetest.CheckStats(t, s, now)
		if _, err := write(t.Context(), s, (*tx).addUp); err != nil {
			t.Fatal(err)
		}
		storetest.CheckStats(t, a, now)
	}
	var left int
	if err := a.pool.QueryRow(t.Context(), a.sql(`SELECT count(*) FROM {s}.stats_deltas`)).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d deltas are left, %v", left, err)
	}
}

// TestSeesOtherInstance: what another instance stores in a new lane is seen within a second,
// and what it has tried is.
func TestSeesOtherInstance(t *testing.T) {
	o := options(t, start(t).url())
	a, b := open(t, o), open(t, o)
	live(t, a, "marks-a")
	for range 2 { // from now on b knows all lanes
		if _, err := b.Waiting(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	waits, has := entry("", "x@example.org"), entry("marks-a", "x@example.org")
	insert(t, a, waits, has)
	began := time.Now()
	for {
		w, err := b.Waiting(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if len(w.Lanes) == 1 {
			break
		}
		if time.Since(began) > 5*time.Second { // a second, and what a busy machine takes
			t.Fatal("the lane of another instance is not seen")
		}
		time.Sleep(100 * time.Millisecond)
	}
	ids := []string{waits.Message.ID, has.Message.ID, queue.NewID(time.Now()), "none"}
	if tried, err := b.Tried(t.Context(), ids); err != nil || len(tried) != 0 {
		t.Errorf("Tried = %q, %v, want none yet", tried, err)
	}
	if _, err := a.Record(t.Context(), []queue.Outcome{outcome("marks-a", has, queue.Deferred)}); err != nil {
		t.Fatal(err)
	}
	if tried, err := b.Tried(t.Context(), ids); err != nil || len(tried) != 1 || tried[0] != has.Message.ID {
		t.Errorf("Tried = %q, %v, want the one that was", tried, err)
	}
	canceled, err := a.Cancel(t.Context(), "app", "marks-a", []queue.Withdrawal{{ID: waits.Message.ID}}, time.Now())
	if err != nil || len(canceled) != 1 {
		t.Fatalf("Cancel = %v, %v", canceled, err)
	}
	if tried, err := b.Tried(t.Context(), ids); err != nil || len(tried) != 2 {
		t.Errorf("Tried = %q, %v, want what is final, too", tried, err)
	}
	// A heartbeat without an answer is not a lost lease.
	a.beats.mu.Lock()
	a.beats.owners["marks-a"].until = 0
	a.beats.mu.Unlock()
	if err := a.Heartbeat(t.Context(), "marks-a", time.Now()); !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrLeaseLost) || a.Trusts("marks-a") {
		t.Errorf("Heartbeat of an owner that is not trusted = %v, want ErrUnavailable", err)
	}
	if conn := a.beats.renewAll(nil); conn != nil {
		_ = conn.Close(t.Context())
	}
	if err := a.Heartbeat(t.Context(), "marks-a", time.Now()); err != nil || !a.Trusts("marks-a") {
		t.Errorf("Heartbeat after an answer = %v, want it trusted again", err)
	}
}

// lostEvents counts what becomes of leases.
type lostEvents struct {
	noEvents
	lost atomic.Int64
}

func (e *lostEvents) LeaseLost(string) { e.lost.Add(1) }

// TestBeatWhenBack: when the database answers again after a lease has ended, the instance learns at once that it is lost.
func TestBeatWhenBack(t *testing.T) {
	e := &lostEvents{}
	o := options(t, start(t).url())
	o.Lease, o.Events = 10*time.Minute, e // no beat comes by itself
	s := open(t, o)
	live(t, s, "marks-a")
	s.answered(queue.ErrUnavailable)
	outdate(t, s, "marks-a")
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("no word of the lost lease")
	}
	if n := e.lost.Load(); n != 1 {
		t.Errorf("%d leases are lost, want one", n)
	}
	if err := s.Heartbeat(t.Context(), "marks-a", time.Now()); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Heartbeat = %v, want %v", err, queue.ErrLeaseLost)
	}
}

// TestBeatPastSilentHosts: a heartbeat reaches the primary though hosts before it in the URL do not answer, and goes to it
// first once it is known.
func TestBeatPastSilentHosts(t *testing.T) {
	srv := start(t)
	o := options(t, srv.url())
	var hosts []string
	for range 5 { // a second each: more than the 4 s that all had together
		l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		hosts = append(hosts, l.Addr().String())
	}
	hosts = append(hosts, fmt.Sprintf("localhost:%d", srv.port))
	o.URL = fmt.Sprintf("postgres://test@%s/postgres?sslmode=disable&connect_timeout=1", strings.Join(hosts, ","))
	s := open(t, o)
	beat := func() time.Duration {
		began := time.Now()
		conn := s.beats.renewAll(nil)
		if conn == nil {
			t.Fatal("the heartbeat failed")
		}
		_ = conn.Close(t.Context())
		return time.Since(began)
	}
	live(t, s, "marks-a")
	if took := beat(); took > time.Second {
		t.Errorf("a heartbeat took %v with a primary that is known", took)
	}
	s.primary.Store(nil)
	beat()
	if took := beat(); took > time.Second {
		t.Errorf("a heartbeat took %v after one that found the primary", took)
	}
	// The primary is another one now: the others are asked in their order.
	s.primary.Store(&pgconn.FallbackConfig{Host: "127.0.0.1", Port: s.config.ConnConfig.Fallbacks[1].Port})
	cc := s.config.ConnConfig.Copy()
	s.primaryFirst(cc)
	order := []uint16{cc.Port}
	for _, f := range cc.Fallbacks {
		order = append(order, f.Port)
	}
	all := s.config.ConnConfig.Fallbacks
	if want := []uint16{all[1].Port, s.config.ConnConfig.Port, all[0].Port, all[2].Port, all[3].Port, all[4].Port}; !slices.Equal(order, want) {
		t.Errorf("hosts are tried in the order %v, want %v", order, want)
	}
}
