package keys

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mailsidecar/units"
)

// walker is an instance that shares a key's rate.
type walker struct {
	who    string
	number int64
	stock  int
	sent   time.Duration
	asking *walkAsk
}

type walkAsk struct {
	of     *walker
	ask    bucketAsk
	sent   time.Duration
	made   bool
	waited bool
	held   int
	ok     bool
}

// TestBucketNote: in whatever order changes of the note are asked for, made and answered, and whoever dies,
// the instances let in no more than one would.
func TestBucketNote(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 2))
		rate := units.Rate{Messages: []int{2, 32, 64}[random.IntN(3)], Per: []time.Duration{20 * time.Second, time.Minute, 10 * time.Minute}[random.IntN(3)]}
		var now time.Duration
		clock := func() time.Time { return time.Unix(1_000_000_000, 0).Add(now) }
		var note []byte
		var flying []*walkAsk
		var let []time.Duration
		born := 0
		birth := func() *walker { born++; return &walker{who: fmt.Sprint(born)} }
		list := []*walker{birth(), birth()}
		for range 500 {
			i := random.IntN(len(list))
			w := list[i]
			switch what := random.IntN(20); {
			case what < 8 && w.asking == nil && w.stock > 0 && w.sent+stockTrust > now:
				w.stock--
				let = append(let, now)
			case what < 10 && w.asking == nil:
				w.number++
				a := &walkAsk{of: w, sent: now, waited: true, ask: bucketAsk{who: w.who, number: w.number, n: 1 + random.IntN(max(1, rate.Messages/4)), keep: w.stock}}
				if random.IntN(8) == 0 {
					a.ask.back, a.ask.n = true, 0
				}
				w.asking, flying = a, append(flying, a)
			case what < 17 && len(flying) > 0:
				n := random.IntN(len(flying))
				a := flying[n]
				if a.waited && now-a.sent > noteTime { // it has given up
					a.waited, a.of.asking = false, nil
					if a.ask.back {
						a.of.stock = 0
					}
				}
				if !a.made {
					b := readBucketNote(note)
					a.held, _, a.ok = b.change(rate, a.ask, clock())
					a.made, note = true, b.bytes()
					continue
				}
				flying = slices.Delete(flying, n, n+1)
				if !a.waited {
					continue
				}
				a.of.asking, a.of.stock, a.of.sent = nil, a.held, a.sent
				for range a.ask.n {
					if a.ok {
						let = append(let, now)
					}
				}
			case what == 17 && random.IntN(5) == 0:
				list[i] = birth()
			default:
				now += []time.Duration{0, 0, 0, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, time.Second, 7 * time.Second, 14 * time.Second, rate.Per}[random.IntN(10)]
			}
		}
		each := rate.Per / time.Duration(rate.Messages)
		full := time.Duration(0)
		for n, at := range let {
			// An answer is heard up to noteTime after its change was made.
			if full = max(full, at-noteTime) + each; full-at > rate.Per+time.Millisecond {
				t.Fatalf("walk %d: message %d of %d is more than %v lets in", seed, n, len(let), rate)
			}
		}
	}
}
