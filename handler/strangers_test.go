package handler

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// busy counts how many are at work at once, each of which takes a while.
type busy struct{ now, most atomic.Int64 }

func (b *busy) work(took time.Duration) {
	n := b.now.Add(1)
	if n > b.most.Load() {
		b.most.Store(n)
	}
	time.Sleep(took)
	b.now.Add(-1)
}

// slowWriter takes a while to write an answer, and slowLog to write a line.
type slowWriter struct {
	*httptest.ResponseRecorder
	busy *busy
	took time.Duration
}

func (w slowWriter) Write(p []byte) (int, error) {
	w.busy.work(w.took)
	return w.ResponseRecorder.Write(p)
}

type slowLog struct {
	slog.Handler
	busy *busy
	took time.Duration
}

func (l slowLog) Enabled(context.Context, slog.Level) bool { return true }

func (l slowLog) Handle(context.Context, slog.Record) error {
	l.busy.work(l.took)
	return nil
}

// TestStrangersTakeTurns: the answers to requests without a valid key are made one at a
// time and logged, however many there are, but for those whose client does not read. None of them waits
// for very long. Those with a key wait for no other.
func TestStrangersTakeTurns(t *testing.T) {
	const together = 300
	for name, c := range map[string]struct {
		path, key string
		took      time.Duration
		logged    time.Duration
		most      int64
		all       time.Duration
	}{
		"no such route": {"/nothing", "", time.Millisecond / 2, time.Millisecond / 2, 1, together * time.Millisecond},
		"liveness":      {"/livez", "", time.Millisecond / 2, time.Millisecond / 2, 1, together * time.Millisecond},
		"readiness":     {"/readyz", "", time.Millisecond / 2, time.Millisecond / 2, 1, together * time.Millisecond},
		"no key":        {"/v1/messages", "", time.Millisecond / 2, time.Millisecond / 2, 1, together * time.Millisecond},
		"wrong key":     {"/v1/messages", "Bearer x", time.Millisecond / 2, time.Millisecond / 2, 1, together * time.Millisecond},
		"key":           {"/v1/messages/none", "Bearer " + testKey, time.Millisecond / 2, time.Millisecond / 2, together, time.Millisecond},
		"slow client":   {"/nothing", "", time.Minute, 0, together, time.Minute + min((together-1)*strangersTurn, strangersWait)},
	} {
		synctest.Test(t, func(t *testing.T) {
			var b busy
			s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) {
				o.Logger = slog.New(slowLog{slog.DiscardHandler, &b, c.logged})
			})
			var all sync.WaitGroup
			began := time.Now()
			for range together {
				all.Go(func() {
					r := httptest.NewRequest(http.MethodGet, c.path, http.NoBody)
					if c.key != "" {
						r.Header.Set("Authorization", c.key)
					}
					s.ServeHTTP(slowWriter{httptest.NewRecorder(), &b, c.took}, r)
				})
			}
			all.Wait()
			if took := time.Since(began); b.most.Load() != c.most || took != c.all {
				t.Errorf("%s: %d answers at once in %v, want %d in %v", name, b.most.Load(), took, c.most, c.all)
			}
		})
	}
}
