package service

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"mailsidecar/queue"
)

// awayInterval is how often the log has a message about a database that does not answer.
const awayInterval = time.Minute

// seldom is a log that has one message about a database that is away in awayInterval, beside that
// which says that it is away, with the number of those that were left out before. Every request
// and every part of the queue meets such a database, again and again, and has the same to say.
type seldom struct {
	slog.Handler
	told *told
}

// told is when such a message was logged last, and how many were left out since.
type told struct {
	mu   sync.Mutex
	last time.Time
	out  int
}

// logSeldom returns a logger that is [seldom].
func logSeldom(l *slog.Logger) *slog.Logger {
	return slog.New(seldom{l.Handler(), &told{}})
}

// unlimited returns the log below one that is [seldom]: for who limits the message by itself.
func unlimited(l *slog.Logger) *slog.Logger {
	if h, ok := l.Handler().(seldom); ok {
		return slog.New(h.Handler)
	}
	return l
}

func (h seldom) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn || !isAway(r) {
		return h.Handler.Handle(ctx, r)
	}
	left, due := h.told.turn(r.Time)
	if !due {
		return nil
	}
	if left > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", left))
	}
	return h.Handler.Handle(ctx, r)
}

func (h seldom) WithAttrs(attrs []slog.Attr) slog.Handler {
	return seldom{h.Handler.WithAttrs(attrs), h.told}
}

func (h seldom) WithGroup(name string) slog.Handler {
	return seldom{h.Handler.WithGroup(name), h.told}
}

// isAway says that the record has the error of a database that does not answer.
func isAway(r slog.Record) (away bool) {
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		away = ok && errors.Is(err, queue.ErrUnavailable)
		return !away
	})
	return away
}

// turn says whether a message is due, and how many were left out before.
func (t *told) turn(now time.Time) (left int, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.last.IsZero() && now.Sub(t.last).Abs() < awayInterval {
		t.out++
		return 0, false
	}
	left = t.out
	t.last, t.out = now, 0
	return left, true
}
