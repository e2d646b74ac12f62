package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/units"
)

// notes keeps notes, with a clock of its own.
type notes struct {
	mu     sync.Mutex
	values map[string][]byte
	calls  int
	random *rand.Rand // nil: each answer takes a millisecond
	hangs  bool
}

func (b *notes) change(ctx context.Context, kind, name string, change func([]byte, time.Time) []byte) error {
	b.mu.Lock()
	b.calls++
	before, after, lost, hangs := time.Millisecond, time.Duration(0), 0, b.hangs
	if b.random != nil {
		before, after = time.Duration(b.random.Int64N(int64(noteTime)*2/3)), time.Duration(b.random.Int64N(int64(noteTime)*2/3))
		lost = b.random.IntN(10)
	}
	b.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(before)
		b.mu.Lock()
		b.values[kind+name] = change(b.values[kind+name], time.Now().Add(-4*time.Minute))
		b.mu.Unlock()
		time.Sleep(after)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if lost == 1 {
		return errors.New("lost")
	}
	return nil
}

func sharedKeys(t *testing.T, n int, b *notes, rate units.Rate) (list []*Key) {
	for range n {
		r, err := NewRing([]Entry{{Name: "shop", Secret: "secret", Rate: rate}}, false)
		if err != nil {
			t.Fatal(err)
		}
		r.Share(b.change)
		k, err := r.Find("secret")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, k)
	}
	return list
}

// checkBucket: at no time there were more messages than a bucket of the rate lets in.
func checkBucket(t *testing.T, seed uint64, rate units.Rate, times []time.Time) {
	t.Helper()
	slices.SortFunc(times, time.Time.Compare)
	var full time.Time
	each := rate.Per / time.Duration(rate.Messages)
	for i, at := range times {
		if full.Before(at) {
			full = at
		}
		if full = full.Add(each); full.Sub(at) > rate.Per+time.Duration(i)*time.Microsecond {
			t.Fatalf("seed %d: message %d of %d is more than %v lets in", seed, i, len(times), rate)
		}
	}
}

// TestShareRates: instances let in what one would, never more, though answers are late or lost. Far below the
// rate they rarely ask, and a client that waits as it was told gets in.
func TestShareRates(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 8))
			rate := units.Rate{Messages: []int{1, 5, 40, 1000}[random.IntN(4)], Per: []time.Duration{time.Second, time.Minute, time.Hour}[random.IntN(3)]}
			b := &notes{values: map[string][]byte{}}
			if seed%2 == 1 {
				b.random = rand.New(rand.NewPCG(seed, 9))
			}
			var mu sync.Mutex
			var times []time.Time
			var all sync.WaitGroup
			runs := 3 * rate.Per
			each := rate.Per / time.Duration(rate.Messages)
			for _, k := range sharedKeys(t, 3, b, rate) {
				own := random.Uint64()
				for range 2 {
					all.Go(func() {
						random := rand.New(rand.NewPCG(own, 1))
						for end := time.Now().Add(runs); time.Now().Before(end); {
							err := k.Charge(1)
							now := time.Now()
							switch p := problem.For(err); {
							case err == nil:
								mu.Lock()
								times = append(times, now)
								mu.Unlock()
								if random.IntN(50) == 0 {
									time.Sleep(time.Duration(random.Int64N(int64(rate.Per))))
								}
							case p.Code == api.CodeRateLimited:
								if p.RetryAfter < 1 || time.Duration(p.RetryAfter)*time.Second > max(rate.Per, time.Second)+2*time.Second {
									t.Errorf("Retry-After %d with %v", p.RetryAfter, rate)
								}
								time.Sleep(min(time.Duration(p.RetryAfter)*time.Second, each+time.Millisecond))
							default:
								time.Sleep(each)
							}
						}
					})
				}
			}
			all.Wait()
			time.Sleep(time.Minute) // what was held is given back
			checkBucket(t, seed, rate, times)
			if b.random == nil && len(times) < rate.Messages {
				t.Errorf("seed %d: %d messages in three periods of %v, which allow at least three times as many", seed, len(times), rate)
			}
		})
	}
}

// TestShareRatesSeldomAsk: far below the rate most requests need no answer from the database; what one instance holds is
// given back, and a burst of the whole rate gets in at another one.
func TestShareRatesSeldomAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := units.Rate{Messages: 1000, Per: time.Hour}
		b := &notes{values: map[string][]byte{}}
		list := sharedKeys(t, 2, b, rate)
		for range 300 {
			if err := list[0].Charge(1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		b.mu.Lock()
		calls := b.calls
		b.mu.Unlock()
		if calls > 30 {
			t.Errorf("the database was asked %d times for 300 requests", calls)
		}
		time.Sleep(time.Hour)
		for n := range 1000 {
			if err := list[1].Charge(1); err != nil {
				t.Fatalf("message %d of a burst: %v", n, err)
			}
		}
		err := list[1].Charge(1)
		p := problem.For(err)
		if err == nil || p.RetryAfter < 1 || p.RetryAfter > 4 {
			t.Fatalf("one more than the rate: %v, Retry-After %d, want 3.6 s", err, p.RetryAfter)
		}
		time.Sleep(time.Duration(p.RetryAfter) * time.Second)
		if err := list[0].Charge(1); err != nil {
			t.Errorf("after Retry-After: %v", err)
		}
		b.mu.Lock()
		b.hangs = true
		b.mu.Unlock()
		began := time.Now()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if p := problem.For(list[0].Charge(9)); p == nil || p.Code != api.CodeQueueUnavailable {
					t.Errorf("while the database hangs: %v, want %s", p, api.CodeQueueUnavailable)
				}
			})
		}
		all.Wait()
		// Another 1.5 s may pass until a message is stored.
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("the answers took %v, want 0.5 s at most", took)
		}
	})
}
