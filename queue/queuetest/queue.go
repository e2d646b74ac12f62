package queuetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// Queue is a queue that runs on a store.
type Queue struct {
	*queue.Durable
	// Options are what it runs with.
	Options queue.Options
	t       *testing.T
	skew    atomic.Int64
	cancel  context.CancelFunc
	done    chan error
	ending  sync.Once
	ended   error
}

// Start runs a queue on the store until the test ends. Any sender's mail goes to
// the relays. edit may change the options; nil changes none.
func Start(t *testing.T, store queue.Store, edit func(*queue.Options), relays ...*Relay) *Queue {
	t.Helper()
	q := &Queue{t: t, done: make(chan error, 1), Options: queue.Options{Store: store}}
	q.Options.Now = func() time.Time { return time.Now().Add(time.Duration(q.skew.Load())) }
	for _, r := range relays {
		q.Options.Routes = append(q.Options.Routes, queue.Route{Relay: r})
	}
	if edit != nil {
		edit(&q.Options)
	}
	d, err := queue.New(q.Options)
	if err != nil {
		t.Fatalf("New = %v", err)
	}
	q.Durable = d
	var ctx context.Context
	ctx, q.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { q.done <- d.Run(ctx) }()
	for len(q.done) == 0 {
		if err := d.Ready(ctx); err == nil || errors.Is(err, queue.ErrClosed) { // it may have crashed
			break
		}
		time.Sleep(time.Millisecond)
	}
	t.Cleanup(func() { _ = q.End() })
	return q
}

// End stops the queue, closes its store, and returns the first error of these.
func (q *Queue) End() error {
	q.ending.Do(func() {
		q.cancel()
		q.ended = errors.Join(<-q.done, q.Options.Store.Close())
	})
	return q.ended
}

// Skew sets by how much the queue's clock is off.
func (q *Queue) Skew(by time.Duration) { q.skew.Store(int64(by)) }

// Submission is a message with that content, from shop@example.com, by the key
// app.
func Submission(data string, to ...string) queue.Submission {
	return queue.Submission{
		Key: "app", Sender: "shop@example.com", Subject: "Hello", Tags: map[string]string{"n": "1"},
		Envelope: mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: to},
		Content:  mailer.Content{Data: []byte(data), MessageID: "<1@example.com>"},
	}
}

// MustSubmit submits, and fails the test when the message is not accepted.
func (q *Queue) MustSubmit(s queue.Submission) queue.Receipt {
	q.t.Helper()
	receipt, err := q.Submit(q.t.Context(), s)
	if err != nil {
		q.t.Fatalf("Submit = %v", err)
	}
	return receipt
}

// Message returns a message of the key app.
func (q *Queue) Message(id string) queue.Message {
	q.t.Helper()
	m, err := q.Get(q.t.Context(), "app", id)
	if err != nil {
		q.t.Fatalf("Get = %v", err)
	}
	return m
}

// WantStatus returns a message of the key app, whose status must be that.
func (q *Queue) WantStatus(id string, want queue.Status) queue.Message {
	q.t.Helper()
	m := q.Message(id)
	if m.Status() != want {
		q.t.Errorf("status = %s, want %s; attempts %d", m.Status(), want, len(m.Attempts))
	}
	return m
}

// SettleDown waits until nothing goes on in a synctest bubble.
func SettleDown() {
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}
