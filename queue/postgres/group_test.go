//go:build linux

package postgres

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestGather: a writer whose last group had several requests waits a moment for as many, and no longer. It does not wait
// after a request that came alone, nor when the store is closed.
func TestGather(t *testing.T) {
	const limit = time.Millisecond
	for name, test := range map[string]struct {
		last  int
		comes []time.Duration // when requests come
		close time.Duration   // when the store is closed; zero: never
		want  time.Duration   // how long it waits
	}{
		"the last one was alone":          {1, nil, 0, 0},
		"as many come at once":            {3, []time.Duration{0, 0, 0}, 0, 0},
		"as many come in time":            {3, []time.Duration{10 * limit, 10*limit + limit/4, 10*limit + limit/2}, 0, 10*limit + limit/2},
		"fewer come":                      {3, []time.Duration{10 * limit}, 0, 11 * limit},
		"the others come too late":        {3, []time.Duration{10 * limit, 20 * limit, 20 * limit}, 0, 11 * limit},
		"the store is closed":             {3, nil, 5 * limit, 5 * limit},
		"the store is closed in the wait": {3, []time.Duration{5 * limit}, 5*limit + limit/4, 5*limit + limit/4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &inserts{}
				in.wake = sync.NewCond(&in.mu)
				began := time.Now()
				var others sync.WaitGroup
				for _, after := range test.comes {
					if after == 0 {
						_ = in.add(&insertion{})
						continue
					}
					others.Go(func() {
						time.Sleep(after)
						_ = in.add(&insertion{})
					})
				}
				if test.close > 0 {
					others.Go(func() {
						time.Sleep(test.close)
						in.close()
					})
				}
				in.gather(test.last, limit)
				if took := time.Since(began); took != test.want {
					t.Errorf("it waited for %v, want %v", took, test.want)
				}
				others.Wait()
			})
		})
	}
	t.Run("the other writer takes what came", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			in := &inserts{}
			in.wake = sync.NewCond(&in.mu)
			_ = in.add(&insertion{})
			began := time.Now()
			go func() {
				time.Sleep(limit / 2)
				in.mu.Lock()
				in.take()
				in.mu.Unlock()
				time.Sleep(10 * limit)
				_ = in.add(&insertion{})
			}()
			in.gather(2, limit)
			if took, want := time.Since(began), limit/2+10*limit+limit; took != want {
				t.Errorf("it waited for %v, want %v", took, want)
			}
		})
	})
}
