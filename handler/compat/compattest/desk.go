// Package compattest serves one provider's API to its tests, without a server: at a
// desk that remembers the messages submitted to it.
package compattest

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
)

// The desk knows the keys shop and blog.
const (
	ShopSecret = "s3cret-of-shop"
	BlogSecret = "other"
)

// What the desk's receipts say of every message.
const (
	ID        = "id-1"
	MessageID = "<1@example.com>"
)

// Created is when every message of the desk was accepted.
var Created = time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)

// Desk accepts every message.
type Desk struct {
	Direct  bool  // nothing is stored
	Refused error // of Accept
	Err     error // of Submit

	// Stored is the only message that is stored. Scheduled says that it waits for its
	// time, and Tried that it is being tried.
	Stored    queue.Message
	Scheduled bool
	Tried     bool

	Submitted []queue.Submission
	Commits   int // calls of Submit that succeeded
}

var _ compat.Desk = (*Desk)(nil)

// Stores is false for a direct desk.
func (d *Desk) Stores() bool { return !d.Direct }

// Idempotency returns the request's key.
func (d *Desk) Idempotency(h http.Header) (string, error) { return intake.IdempotencyKey(h) }

// Open opens the request's body.
func (d *Desk) Open(w http.ResponseWriter, r *http.Request, limit int64, share *intake.Share) (*intake.Body, error) {
	return intake.Open(w, r, limit, share, time.Minute)
}

// UntilStopped returns ctx: the desk does not stop.
func (d *Desk) UntilStopped(ctx context.Context) context.Context { return ctx }

// CheckSize has no limit.
func (d *Desk) CheckSize(int) error { return nil }

// Accept has no limits but Refused.
func (d *Desk) Accept(sub queue.Submission, m compose.Composed, _ *keys.Key) (queue.Submission, error) {
	sub.Envelope, sub.Content, sub.Sender, sub.Subject = m.Envelope, m.Content, m.Sender, m.Subject
	return sub, d.Refused
}

// Takes is true of every sender.
func (d *Desk) Takes(string, string) bool { return true }

// Submit remembers the messages, of which every recipient is delivered.
func (d *Desk) Submit(_ context.Context, subs []queue.Submission) ([]queue.Message, error) {
	d.Submitted = append(d.Submitted, subs...)
	if d.Err != nil {
		return nil, d.Err
	}
	d.Commits++
	messages := make([]queue.Message, len(subs))
	for i, s := range subs {
		messages[i] = queue.Message{ID: ID, MessageID: MessageID, Created: Created, Envelope: s.Envelope}
		for _, path := range s.Envelope.ForwardPaths {
			messages[i].Recipients = append(messages[i].Recipients, queue.Recipient{ForwardPath: path, State: queue.Delivered})
		}
	}
	return messages, nil
}

// Get returns the message that is stored.
func (d *Desk) Get(_ context.Context, key, id string) (queue.Message, error) {
	if d.Direct {
		return queue.Message{}, queue.ErrQueueRequired
	}
	if id == "" || id != d.Stored.ID || key != d.Stored.Key {
		return queue.Message{}, queue.ErrNotFound
	}
	return d.Stored, nil
}

// Reschedule changes the message that is stored, if it is scheduled.
func (d *Desk) Reschedule(ctx context.Context, key, id string, at time.Time) (queue.Message, error) {
	if _, err := d.Get(ctx, key, id); err != nil {
		return queue.Message{}, err
	}
	if !d.Scheduled {
		return queue.Message{}, queue.ErrNotScheduled
	}
	d.Stored.SendAt = at
	return d.Stored, nil
}

// Cancel cancels the message that is stored, unless it is being tried.
func (d *Desk) Cancel(ctx context.Context, key, id string) (queue.Message, error) {
	if _, err := d.Get(ctx, key, id); err != nil {
		return queue.Message{}, err
	}
	ended := false
	for i := range d.Stored.Recipients {
		if r := &d.Stored.Recipients[i]; !r.State.Final() {
			ended = true
			if !d.Tried {
				r.State = queue.Canceled
			}
		}
	}
	if !ended {
		return queue.Message{}, queue.ErrNothingToCancel
	}
	return d.Stored, nil
}

// Serve answers a request to the API.
func (d *Desk) Serve(t testing.TB, a *compat.API, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	ring, err := keys.NewRing([]keys.Entry{{Name: "shop", Secret: ShopSecret}, {Name: "blog", Secret: BlogSecret}}, a.Signed)
	if err != nil {
		t.Fatal(err)
	}
	host := compat.Host{
		Desk: d, Keys: ring, Budget: intake.NewBudget(64<<20, 32<<20, 1000),
		MaxBody: 32 << 20, Log: slog.New(slog.DiscardHandler),
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, err error) {
		if err == nil {
			return
		}
		if err := a.WriteProblem(w, problem.For(err)); err != nil {
			t.Error(err)
		}
	}
	for _, route := range a.Routes {
		mux.HandleFunc(route.Verb()+" "+route.Path, func(w http.ResponseWriter, r *http.Request) {
			x := host.Begin(a, w, r, "test")
			defer x.Close()
			answer(w, x.Serve(route))
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer(w, problem.New(api.CodeNotFound, "")) })
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// One returns the only message that was submitted, with its header.
func (d *Desk) One(t testing.TB) (queue.Submission, mail.Header) {
	t.Helper()
	if len(d.Submitted) != 1 {
		t.Fatalf("%d messages were submitted, want 1", len(d.Submitted))
	}
	m, err := mail.ReadMessage(bytes.NewReader(d.Submitted[0].Content.Data))
	if err != nil {
		t.Fatal(err)
	}
	return d.Submitted[0], m.Header
}
