package dispatch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func anyOf(int) bool { return true }

// TestSharesOrder: the messages of relays are mixed, not sent in blocks.
func TestSharesOrder(t *testing.T) {
	for _, tt := range []struct {
		weights []int
		want    []int
	}{
		{[]int{1, 1}, []int{0, 1, 0, 1}},
		{[]int{5, 1, 1}, []int{0, 0, 1, 0, 2, 0, 0}},
		{[]int{1, 3}, []int{1, 0, 1, 1, 1, 0, 1, 1}},
		{[]int{0, 2, 0}, []int{1, 1, 1}},
		{[]int{0, 0}, []int{-1, -1}},
		{nil, []int{-1}},
	} {
		s, got := NewShares(tt.weights), []int{}
		for range tt.want {
			i := s.Next(anyOf)
			if got = append(got, i); i >= 0 {
				s.Deal(i, anyOf)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("weights %v: %v, want %v", tt.weights, got, tt.want)
		}
	}
}

// TestSharesAreExact: after each round, of as many messages as the sum of the weights, each
// relay has had its weight of them, and at no time is it off by one message for each relay.
func TestSharesAreExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for round := range 200 {
		weights := make([]int, 1+random.IntN(9))
		sum := 0
		for i := range weights {
			weights[i] = 1 + random.IntN(50)
			if round%50 == 0 {
				weights[i] = []int{1, 1000}[i%2] // as far apart as the setting allows
			}
			sum += weights[i]
		}
		s, got := NewShares(weights), make([]int, len(weights))
		for n := 1; n <= 3*sum; n++ {
			i := s.Next(anyOf)
			s.Deal(i, anyOf)
			got[i]++
			for r, w := range weights {
				if off := got[r]*sum - n*w; off > len(weights)*sum || off < -len(weights)*sum || n%sum == 0 && off != 0 {
					t.Fatalf("weights %v: relay %d has %d of %d messages", weights, r, got[r], n)
				}
			}
		}
	}
}

// TestSharesOfSome: relays that take no mail for a while miss their share, and the others
// have it in their proportion; nobody makes up for it later, and nobody starves.
func TestSharesOfSome(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	for range 200 {
		weights := make([]int, 2+random.IntN(5))
		for i := range weights {
			weights[i] = 1 + random.IntN(9)
		}
		s := NewShares(weights)
		total := 0
		for _, w := range weights {
			total += w
		}
		for range 20 {
			open := make([]bool, len(weights))
			open[random.IntN(len(weights))] = true
			sum := 0
			for i, w := range weights {
				if open[i] = open[i] || random.IntN(2) == 0; open[i] {
					sum += w
				}
			}
			may := func(i int) bool { return open[i] }
			rounds := 1 + random.IntN(200)
			got := make([]int, len(weights))
			for range rounds * sum {
				i := s.Next(may)
				s.Deal(i, may)
				got[i]++
			}
			credit := 0
			for i, w := range weights {
				want := 0
				if open[i] {
					want = rounds * w
				}
				if off := got[i] - want; off > 2*len(weights) || off < -2*len(weights) {
					t.Fatalf("weights %v, open %v, %d rounds: %v, relay %d is off by %d", weights, open, rounds, got, i, off)
				}
				if credit += s.credit[i]; s.credit[i] > len(weights)*total || s.credit[i] < -len(weights)*total {
					t.Fatalf("weights %v: credit %v grows", weights, s.credit)
				}
			}
			if credit != 0 {
				t.Fatalf("weights %v: credit %v does not sum up to zero", weights, s.credit)
			}
		}
	}
}

// dealer is a dispatcher with relays of these weights and one route to all of them.
func dealer(now time.Time, workers int, weights ...int) *Dispatcher {
	o := Options{Weights: weights, Workers: workers, MaxMemory: 1 << 30}
	var all []int
	for i := range weights {
		o.Relays = append(o.Relays, fmt.Sprint("relay", i))
		all = append(all, i)
	}
	d := New(o)
	d.Route("all", all)
	d.Start(now)
	return d
}

// submit brings a message into memory and returns what begins.
func submit(d *Dispatcher, id string, now time.Time) []*Job {
	j := &Job{ID: id, Route: "all", Lane: Lane{Key: "app"}, Size: 1, Fresh: true, Expires: now.Add(time.Hour)}
	if !d.Reserve(j, now) {
		return nil
	}
	return d.Stored([]*Job{j}, now).Begin
}

// TestWeights: a route's mail goes to its relays by their weights, at once to the others
// while one is paused, is at its rate or has no worker free, and to those without a weight
// only when none of the others takes any.
func TestWeights(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	count := func(d *Dispatcher, n int) []int {
		got := make([]int, len(d.relays))
		for i := range n {
			jobs := submit(d, fmt.Sprint(i), now)
			if len(jobs) != 1 {
				t.Fatalf("%d deliveries begin, want one", len(jobs))
			}
			order, why := d.Chosen(jobs[0])
			if want := map[bool]string{true: WhyWeight, false: "failover: relay0 paused, relay1 paused"}[d.groups[0].shares.Weighted(order[0])]; why != want {
				t.Errorf("why = %q, want %q", why, want)
			}
			got[order[0]]++
			d.Done(jobs[0], now)
		}
		return got
	}
	want := func(what string, got []int, want ...int) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	d := dealer(now, 2, 1, 3, 0)
	want("all open", count(d, 400), 100, 300, 0)
	d.relays[1].pause.fail(now.Add(time.Hour), now, nil)
	want("the second paused", count(d, 40), 40, 0, 0)
	d.relays[0].pause.fail(now.Add(time.Hour), now, nil)
	want("both paused", count(d, 40), 0, 0, 40)
	d.relays[1].resume()
	d.relays[0].resume()
	want("open again", count(d, 400), 100, 300, 0)
	for at := range levels {
		d.relays[0].restsUntil[at] = now.Add(time.Minute)
	}
	want("the first at its rate", count(d, 40), 0, 40, 0)

	// Deliveries that hang at one take no mail from the other.
	d = dealer(now, 2, 1, 1)
	hang := map[int]int{}
	for i := range 6 {
		for _, j := range submit(d, fmt.Sprint(i), now) {
			order, _ := d.Chosen(j)
			if hang[order[0]]++; order[0] == 1 {
				d.Done(j, now)
			}
		}
	}
	if hang[0] != 2 && hang[0] != 3 || hang[0]+hang[1] != 6 {
		t.Errorf("deliveries that begin while the first relay hangs: %v, want two or three there and the others at the second", hang)
	}
}
