package alerts

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// firstRetry is when a message that did not arrive is sent again; the wait doubles up
	// to longestRetry. What was refused is sent again after firstRefusedRetry, up to
	// longestRefusedRetry: most likely a person has to change the setting.
	firstRetry          = 10 * time.Second
	longestRetry        = 10 * time.Minute
	firstRefusedRetry   = 5 * time.Minute
	longestRefusedRetry = time.Hour
	// logAgain is how often the log says that a target cannot be reached.
	logAgain = time.Hour
)

// NotifierOptions are for [NewNotifier].
type NotifierOptions struct {
	Targets  []Target
	Client   *Client
	Instance string // which server the messages come from
	Logger   *slog.Logger
}

// Notifier tells each target what is wrong.
type Notifier struct {
	workers []*worker
}

// NewNotifier returns a notifier that sends nothing before [Notifier.Run].
func NewNotifier(o NotifierOptions) *Notifier {
	n := &Notifier{}
	for _, t := range o.Targets {
		n.workers = append(n.workers, &worker{
			target: t, client: o.Client, instance: o.Instance, log: o.Logger.With("target", t), wake: make(chan struct{}, 1),
		})
	}
	return n
}

// Look takes all that is wrong at this moment. It waits for nothing. Call it every few
// seconds: what is to be sent later is sent then.
func (n *Notifier) Look(present []Condition) {
	for _, w := range n.workers {
		w.mu.Lock()
		w.book.Look(time.Now(), present)
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Run sends until ctx ends.
func (n *Notifier) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range n.workers {
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
}

// worker sends to one target, one message after the other.
type worker struct {
	target   Target
	client   *Client
	instance string
	log      *slog.Logger
	wake     chan struct{}

	mu   sync.Mutex
	book Book

	// Of run alone.
	failures int       // in a row
	next     time.Time // nothing is sent before
	logged   time.Time // when the log last said that nothing arrives; zero: it does
}

func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		for ctx.Err() == nil && !time.Now().Before(w.next) && w.sendNext(ctx) {
		}
	}
}

// sendNext sends the message that matters most now, and reports whether it did.
func (w *worker) sendNext(ctx context.Context) bool {
	w.mu.Lock()
	m, ok := w.book.Next(time.Now())
	w.mu.Unlock()
	if !ok {
		return false
	}
	m.Instance = w.instance
	if err := w.client.Send(ctx, w.target, m); err != nil {
		if ctx.Err() == nil {
			w.failed(m, err)
		}
		return false
	}
	w.mu.Lock()
	w.book.Told(m, time.Now())
	w.mu.Unlock()
	w.failures, w.logged = 0, time.Time{}
	w.log.Info("alert sent", "state", string(m.State), "kind", string(m.Kind), "subject", m.Subject)
	return true
}

// failed sets when to try again. What is sent then is what is wrong then.
func (w *worker) failed(m Message, err error) {
	now := time.Now()
	wait := backOff(w.failures, firstRetry, longestRetry)
	e, ok := errors.AsType[*SendError](err)
	if ok {
		if e.Refused {
			wait = backOff(w.failures, firstRefusedRetry, longestRefusedRetry)
		}
		wait = max(wait, e.RetryAfter)
	}
	w.failures++
	w.next = now.Add(wait)
	if !w.logged.IsZero() && now.Sub(w.logged) < logAgain {
		return
	}
	w.logged = now
	attrs := []any{"state", string(m.State), "kind", string(m.Kind), "subject", m.Subject, "next_attempt", w.next}
	if ok {
		attrs = append(attrs, "cause", e.What, "do", e.Remedy)
	}
	w.log.Error("alert not sent", attrs...)
}

// backOff doubles the first wait with each failure.
func backOff(failures int, first, longest time.Duration) time.Duration {
	return min(first<<min(failures, 16), longest)
}
