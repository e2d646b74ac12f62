package handler

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowWriter counts how many answers are being written, each of which takes a while.
type slowWriter struct {
	*httptest.ResponseRecorder
	writing, most *atomic.Int64
	took          time.Duration
}

func (w slowWriter) Write(p []byte) (int, error) {
	n := w.writing.Add(1)
	if n > w.most.Load() {
		w.most.Store(n)
	}
	time.Sleep(w.took)
	w.writing.Add(-1)
	return w.ResponseRecorder.Write(p)
}

// TestStrangersTakeTurns: the answers to requests without a valid key are made one at a
// time, and none of them waits for long. Those with a key wait for no other.
func TestStrangersTakeTurns(t *testing.T) {
	const together = 5
	for name, c := range map[string]struct {
		path, key string
		took      time.Duration
		most      int64
		all       time.Duration
	}{
		"no such route": {"/nothing", "", time.Millisecond, 1, together * time.Millisecond},
		"liveness":      {"/livez", "", time.Millisecond, 1, together * time.Millisecond},
		"readiness":     {"/readyz", "", time.Millisecond, 1, together * time.Millisecond},
		"no key":        {"/v1/messages", "", time.Millisecond, 1, together * time.Millisecond},
		"wrong key":     {"/v1/messages", "Bearer x", time.Millisecond, 1, together * time.Millisecond},
		"key":           {"/v1/messages/none", "Bearer " + testKey, time.Millisecond, together, time.Millisecond},
		"slow client":   {"/nothing", "", time.Minute, together, time.Minute + strangersTurn},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTestServer(t, &fakeQueue{durable: true}, nil)
			var writing, most atomic.Int64
			var all sync.WaitGroup
			began := time.Now()
			for range together {
				all.Go(func() {
					r := httptest.NewRequest(http.MethodGet, c.path, http.NoBody)
					if c.key != "" {
						r.Header.Set("Authorization", c.key)
					}
					s.ServeHTTP(slowWriter{httptest.NewRecorder(), &writing, &most, c.took}, r)
				})
			}
			all.Wait()
			if took := time.Since(began); most.Load() != c.most || took != c.all {
				t.Errorf("%s: %d answers at once in %v, want %d in %v", name, most.Load(), took, c.most, c.all)
			}
		})
	}
}
