package handler

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/compat"
	"mailsidecar/handler/compat/all"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// fakeQueue answers as it is told and remembers what it was asked.
type fakeQueue struct {
	durable bool
	err     error
	// receipt makes the answer; nil answers with every recipient queued.
	receipt func(queue.Submission) queue.Receipt
	message queue.Message
	page    queue.Page
	content []byte
	retried int
	next    string // of a command by filter
	did     string // the last of these
	resend  queue.Resend
	// block holds Submit until it is closed, or ctx ends; delay for a time.
	block chan struct{}
	delay time.Duration

	mu     sync.Mutex
	got    []queue.Submission
	batch  bool
	filter queue.Filter
	limit  int
	cursor string
	scope  []string // key and id of look-ups
	stats  queue.Stats
	week   []queue.Bucket
	asked  int // for stats
}

func (q *fakeQueue) Submit(ctx context.Context, s queue.Submission) (queue.Receipt, error) {
	q.mu.Lock()
	q.got = append(q.got, s)
	q.mu.Unlock()
	if s.Stored != nil && q.durable {
		s.Stored()
	}
	if q.block != nil {
		select {
		case <-q.block:
		case <-ctx.Done():
			return queue.Receipt{}, ctx.Err()
		}
	}
	select {
	case <-time.After(q.delay):
	case <-ctx.Done():
		return queue.Receipt{}, ctx.Err()
	}
	if q.err != nil {
		return queue.Receipt{}, q.err
	}
	return q.answer(s), nil
}

func (q *fakeQueue) answer(s queue.Submission) queue.Receipt {
	if q.receipt != nil {
		return q.receipt(s)
	}
	m := queue.Message{ID: "id-1", MessageID: s.Content.MessageID, Envelope: s.Envelope}
	for _, path := range s.Envelope.ForwardPaths {
		m.Recipients = append(m.Recipients, queue.Recipient{ForwardPath: path, State: queue.Queued})
	}
	return queue.Receipt{Message: m}
}

func (q *fakeQueue) SubmitBatch(_ context.Context, s []queue.Submission) ([]queue.Receipt, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.got, q.batch = append(q.got, s...), true
	var receipts []queue.Receipt
	for _, one := range s {
		receipts = append(receipts, q.answer(one))
	}
	return receipts, q.err
}

func (q *fakeQueue) Takes(string, string) bool { return true }

func (q *fakeQueue) Get(_ context.Context, key, id string) (queue.Message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.scope = []string{key, id}
	return q.message, q.err
}

func (q *fakeQueue) List(_ context.Context, f queue.Filter, limit int, cursor string) (queue.Page, error) {
	q.filter, q.limit, q.cursor = f, limit, cursor
	return q.page, q.err
}

func (q *fakeQueue) Retry(_ context.Context, key, id string) (queue.Message, error) {
	q.scope = []string{key, id}
	return q.message, q.err
}

func (q *fakeQueue) RetryMatching(_ context.Context, f queue.Filter, limit int, cursor string) (queue.Bulk, error) {
	q.did, q.filter, q.limit, q.cursor = "retry", f, limit, cursor
	return queue.Bulk{Matched: q.retried, Changed: q.retried, Next: q.next}, q.err
}

func (q *fakeQueue) Resend(_ context.Context, key string, r queue.Resend) (queue.Receipt, error) {
	q.did, q.scope, q.resend = "resend", []string{key, r.ID}, r
	if q.err != nil {
		return queue.Receipt{}, q.err
	}
	if err := cmp.Or(r.Reserve(q.message.Size), r.Judge(q.message, mailer.Content{Data: q.content})); err != nil {
		return queue.Receipt{}, err
	}
	q.got = append(q.got, queue.Submission{Key: key})
	return queue.Receipt{Message: queue.Message{ID: "id-9"}, Replayed: r.IdempotencyKey == "again"}, q.err
}

func (q *fakeQueue) CancelMatching(_ context.Context, f queue.Filter, limit int, cursor string) (queue.Bulk, error) {
	q.did, q.filter, q.limit, q.cursor = "cancel", f, limit, cursor
	return queue.Bulk{Matched: q.retried, Changed: q.retried, Next: q.next}, q.err
}

func (q *fakeQueue) Count(_ context.Context, f queue.Filter, cursor string) (int, string, error) {
	q.did, q.filter, q.cursor = "count", f, cursor
	return q.retried, q.next, q.err
}

func (q *fakeQueue) Cancel(_ context.Context, key, id string) (queue.Message, error) {
	q.scope = []string{key, id}
	return q.message, q.err
}

func (q *fakeQueue) Stats(_ context.Context, key string) (queue.Stats, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.scope = []string{key}
	q.asked++
	return q.stats, q.err
}

func (q *fakeQueue) Week(_ context.Context, key string) ([]queue.Bucket, error) {
	q.scope = append(q.scope, "week of "+key)
	return q.week, q.err
}

func (q *fakeQueue) Reschedule(_ context.Context, key, id string, _ time.Time) (queue.Message, error) {
	q.scope = []string{key, id}
	return q.message, q.err
}

func (q *fakeQueue) Content(_ context.Context, key, id string) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.scope = []string{key, id}
	return q.content, q.err
}

// submissions are what reached the queue.
func (q *fakeQueue) submissions() []queue.Submission {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.got
}

// judged makes a receipt in which each recipient ended as its failure says; nil
// means delivered.
func judged(states []queue.State, failures ...*mailer.Failure) func(queue.Submission) queue.Receipt {
	return func(s queue.Submission) queue.Receipt {
		m := queue.Message{ID: "id-1", MessageID: s.Content.MessageID, Envelope: s.Envelope}
		attempt := mailer.Attempt{Relay: "main", Rung: mailer.Rung{Port: 2525}}
		for i, path := range s.Envelope.ForwardPaths {
			result := mailer.Result{ForwardPath: path, Failure: failures[i]}
			if failures[i] == nil {
				result.Reply = mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued as 42"}
			}
			m.Recipients = append(m.Recipients, queue.Recipient{ForwardPath: path, State: states[i], Result: result})
			attempt.Results = append(attempt.Results, result)
		}
		m.Attempts = []mailer.Attempt{attempt}
		return queue.Receipt{Message: m}
	}
}

func refusal(class mailer.Class, code int, text string) *mailer.Failure {
	return &mailer.Failure{
		Class: class, Stage: mailer.StageRcpt, Relay: "main", Port: 2525, Text: "no answer",
		Reply: mailer.Reply{Code: code, Text: text},
	}
}

const testKey = "s3cret-of-shop"

// newTestServer has one key, named shop, and a durable queue, unless change
// says otherwise. It serves every provider's API.
func newTestServer(t testing.TB, q *fakeQueue, change func(*Options)) *Server {
	t.Helper()
	o := Options{Submitter: q, Compat: compatAPIs(), Keys: []keys.Entry{{Name: "shop", Secret: testKey}, {Name: "blog", Secret: "other"}}}
	if q.durable {
		o.Ledger = q
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compatAPIs are those named, or all of them.
func compatAPIs(names ...string) []*compat.API {
	chosen, err := all.Choose(names)
	if err != nil {
		panic(err)
	}
	return chosen
}

// newRequest is a POST of JSON with the shop's key; fields are "Name: value".
func newRequest(method, target, body string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r.Body = http.NoBody
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	r.Header.Set("Content-Type", "application/json")
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if r.Header.Del(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	return r
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func serve(s http.Handler, r *http.Request) answer {
	body := keepBody(r)
	sent := r.Clone(r.Context())
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	a := answer{w.Code, w.Header(), w.Body.Bytes()}
	contract.hold(sent, body, a)
	return a
}

// read decodes an answer's body.
func read[T any](t testing.TB, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("answer is not JSON: %v\n%s", err, a.body)
	}
	return v
}

// logTo returns a logger whose lines can be read.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serveLocally serves on a loopback port.
func serveLocally(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// listen serves on a loopback port until the test ends.
func listen(t testing.TB, s *Server) string {
	t.Helper()
	addr := serveLocally(t, s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown() = %v", err)
		}
		if err := <-s.Done(); err != nil {
			t.Errorf("Done() = %v", err)
		}
	})
	return addr
}
