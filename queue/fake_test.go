package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
)

// fakeRelay is a relay that does what it is told: each recipient of an attempt
// gets what say returns.
type fakeRelay struct {
	name string
	// say is asked for each recipient of the n-th attempt, n ≥ 1. A nil failure
	// accepts.
	say   func(n int, path string) *mailer.Failure
	takes time.Duration // how long an attempt takes
	// uneven makes seven attempts in a row take longer, each by that more than
	// the one before.
	uneven time.Duration

	mu       sync.Mutex
	attempts []attemptSeen
	inHand   int
	peak     int // most attempts at a time
	accepted map[string]int
}

type attemptSeen struct {
	at   time.Time
	env  mailer.Envelope
	data string
}

func newFakeRelay(say func(n int, path string) *mailer.Failure) *fakeRelay {
	return &fakeRelay{name: "relay", say: say, accepted: map[string]int{}}
}

func (f *fakeRelay) Name() string { return f.name }

func (f *fakeRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	f.mu.Lock()
	f.attempts = append(f.attempts, attemptSeen{at: time.Now(), env: env, data: string(c.Data)})
	n := len(f.attempts)
	f.inHand++
	f.peak = max(f.peak, f.inHand)
	say, takes := f.say, f.takes+f.uneven*time.Duration(n%7)
	f.mu.Unlock()
	a := mailer.Attempt{Relay: f.name, Rung: mailer.Rung{Port: 587}, TLS: "TLS 1.3", Started: time.Now()}
	cut := takes > 0 && !sleep(ctx, takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inHand--
	for _, path := range env.ForwardPaths {
		r := mailer.Result{ForwardPath: path, Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued"}}
		if cut {
			r.Failure, r.Reply = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Relay: f.name, Text: "interrupted"}, mailer.Reply{}
		} else if r.Failure = say(n, path); r.Failure != nil {
			r.Reply = r.Failure.Reply
		} else {
			f.accepted[string(c.Data)+path]++
		}
		a.Results = append(a.Results, r)
	}
	a.Duration = time.Since(a.Started)
	return a
}

func (f *fakeRelay) seen() []attemptSeen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]attemptSeen(nil), f.attempts...)
}

// deliveries counts what was accepted, by content and recipient.
func (f *fakeRelay) deliveries() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.accepted)
}

func (f *fakeRelay) set(say func(n int, path string) *mailer.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.say = say
}

// slow sets how long an attempt takes, see uneven.
func (f *fakeRelay) slow(takes, uneven time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes, f.uneven = takes, uneven
}

// most is how many attempts there were at a time.
func (f *fakeRelay) most() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peak
}

func accept(int, string) *mailer.Failure { return nil }

// copies says how often a message was accepted for a recipient.
func (f *fakeRelay) copies(data, path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted[data+path]
}

func fail(class mailer.Class, stage mailer.Stage, code int) func(int, string) *mailer.Failure {
	return func(int, string) *mailer.Failure {
		return &mailer.Failure{Class: class, Stage: stage, Relay: "relay", Text: "said so", Reply: mailer.Reply{Code: code, Text: fmt.Sprint("reply ", code)}}
	}
}

// pushedBack is a reply that asks for less at a time.
func pushedBack(code int) func(int, string) *mailer.Failure {
	return func(n int, path string) *mailer.Failure {
		f := fail(mailer.ClassTransient, mailer.StageMail, code)(n, path)
		f.Err = mailer.ErrPushedBack
		return f
	}
}

var (
	unreachable = fail(mailer.ClassRelay, mailer.StageConnect, 0)
	greylisted  = fail(mailer.ClassTransient, mailer.StageRcpt, 450)
	refused     = fail(mailer.ClassPermanent, mailer.StageRcpt, 550)
	lostReply   = fail(mailer.ClassUncertain, mailer.StageContent, 0)
)

// testQueue is a queue that runs on a store of its own.
type testQueue struct {
	*Durable
	t     *testing.T
	store *SQLite
	path  string
	end   func() error
	// skew is how far the queue's clock is off, as a [time.Duration].
	skew *atomic.Int64
}

// start opens the store at path and runs a queue on it; edit may change the
// options.
func start(t *testing.T, path string, edit func(*Options), relays ...*fakeRelay) *testQueue {
	t.Helper()
	store, err := OpenSQLite(t.Context(), SQLiteOptions{Path: path})
	if err != nil {
		t.Fatalf("OpenSQLite = %v", err)
	}
	unsync(t, store)
	return startOn(t, store, store, edit, relays...)
}

// unsync spares a test with thousands of commits their fsyncs, which only a power
// cut would tell from none. Nothing may have been written yet.
func unsync(t *testing.T, s *SQLite) {
	t.Helper()
	if err := s.writer.exec("PRAGMA synchronous = off"); err != nil {
		t.Fatal(err)
	}
}

func startOn(t *testing.T, store *SQLite, face Store, edit func(*Options), relays ...*fakeRelay) *testQueue {
	t.Helper()
	o := Options{Store: face}
	for _, r := range relays {
		o.Routes = append(o.Routes, Route{Relay: r})
	}
	if edit != nil {
		edit(&o)
	}
	skew := new(atomic.Int64)
	o.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	d, err := New(o)
	if err != nil {
		t.Fatalf("New = %v", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	for d.Ready(ctx) != nil && len(done) == 0 {
		time.Sleep(time.Millisecond)
	}
	var once sync.Once
	var ended error
	r := &testQueue{Durable: d, t: t, store: store, path: store.opts.Path, skew: skew}
	r.end = func() error {
		once.Do(func() {
			cancel()
			ended = errors.Join(<-done, store.Close())
		})
		return ended
	}
	t.Cleanup(func() { _ = r.end() })
	return r
}

func dbPath(t *testing.T) string { return filepath.Join(t.TempDir(), "data", "queue.db") }

func submission(data string, to ...string) Submission {
	return Submission{
		Key: "app", Sender: "shop@example.com", Subject: "Hello", Tags: map[string]string{"n": "1"},
		Envelope: mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: to},
		Content:  mailer.Content{Data: []byte(data), MessageID: "<1@example.com>"},
	}
}

func (r *testQueue) submit(s Submission) Receipt {
	r.t.Helper()
	receipt, err := r.Submit(r.t.Context(), s)
	if err != nil {
		r.t.Fatalf("Submit = %v", err)
	}
	return receipt
}

func (r *testQueue) message(id string) Message {
	r.t.Helper()
	m, err := r.Get(r.t.Context(), "app", id)
	if err != nil {
		r.t.Fatalf("Get = %v", err)
	}
	return m
}

func (r *testQueue) wantStatus(id string, want Status) Message {
	r.t.Helper()
	m := r.message(id)
	if m.Status() != want {
		r.t.Errorf("status = %s, want %s; attempts %d", m.Status(), want, len(m.Attempts))
	}
	return m
}

// settleDown waits until nothing goes on.
func settleDown() {
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}
