package smtp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestBreaker: when logins may be tried that are all refused, all undecided, or mixed.
// A letter is a login and its result: r refused, u undecided, a accepted. After it
// stands when the next may begin, from the first one on, in seconds.
func TestBreaker(t *testing.T) {
	const minute, quarter = 60, 15 * 60
	type step struct {
		result loginResult
		next   int
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"refused", []step{
			{refused, 0},
			{refused, minute},
			{refused, 2 * minute},
			{refused, 3 * minute},
			{refused, 3*minute + quarter},
			{refused, 3*minute + 2*quarter},
		}},
		{"undecided", []step{
			{undecided, 10}, {undecided, 30}, {undecided, 70}, {undecided, 150}, {undecided, 310}, {undecided, 610}, {undecided, 910},
		}},
		{"undecided after refusals", []step{{refused, 0}, {refused, minute}, {undecided, 2 * minute}, {undecided, 3 * minute}}},
		{"refused after undecided", []step{{undecided, 10}, {refused, 10}, {undecided, 20}, {refused, 20 + minute}}},
		{"accepted", []step{{refused, 0}, {refused, minute}, {accepted, minute}, {refused, minute}, {refused, 2 * minute}}},
	}
	for _, tt := range tests {
		begin := time.Unix(1e9, 0)
		b, at := breaker{most: 2}, begin
		for i, s := range tt.steps {
			if got := b.begin(at); got != granted {
				t.Fatalf("%s: begin %d at %v = %d, want granted", tt.name, i, at.Sub(begin), got)
			}
			b.end(s.result, b.failed, at)
			next := begin.Add(time.Duration(s.next) * time.Second)
			if next.After(at) {
				if got := b.begin(next.Add(-time.Nanosecond)); got != tooEarly {
					t.Fatalf("%s: begin before %v = %d, want tooEarly", tt.name, next.Sub(begin), got)
				}
			}
			at = next
		}
	}
}

// TestBreakerUnderWay: a login under way may be refused, so it counts.
func TestBreakerUnderWay(t *testing.T) {
	now := time.Unix(1e9, 0)
	b := breaker{most: 2}
	for i, want := range []permission{granted, granted, mustWait} {
		if got := b.begin(now); got != want {
			t.Errorf("begin %d = %d, want %d", i, got, want)
		}
	}
	b.end(refused, 0, now)
	if got := b.begin(now); got != mustWait {
		t.Errorf("begin with one refused and one under way = %d, want mustWait", got)
	}
}

// TestBreakerOrder: of two logins under way together one fails. How the other one ends,
// and which ends first, does not let the next one begin earlier.
func TestBreakerOrder(t *testing.T) {
	for _, results := range [][]loginResult{{accepted, undecided}, {undecided, accepted}} {
		now := time.Unix(1e9, 0)
		b := breaker{most: 2}
		b.begin(now)
		b.begin(now)
		for _, r := range results {
			b.end(r, 0, now)
		}
		if got := b.begin(now.Add(undecidedPause - 1)); got != tooEarly {
			t.Errorf("%v: begin before the pause is over = %d, want tooEarly", results, got)
		}
		now = now.Add(undecidedPause)
		if got := b.begin(now); got != granted {
			t.Errorf("%v: begin after the pause = %d, want granted", results, got)
		}
		b.end(accepted, b.failed, now)
		for i, want := range []permission{granted, granted} {
			if got := b.begin(now); got != want {
				t.Errorf("%v: begin %d after one was accepted = %d, want %d", results, i, got, want)
			}
		}
	}
}

// TestBreakerChanged: a token that changed by itself need not wait, but for the last
// of its kind.
func TestBreakerChanged(t *testing.T) {
	now := time.Unix(1e9, 0)
	b := breaker{most: 1}
	for range manyRefusals {
		b.begin(now)
		b.end(refused, b.failed, now)
		now = laterOf(now, b.next)
	}
	now = now.Add(-longRefusalPause + time.Second)
	if b.begin(now) != tooEarly || !b.beginChanged(now) {
		t.Fatal("a changed token has to wait as the old one does")
	}
	if b.beginChanged(now) {
		t.Error("a changed token is tried beside another login")
	}
	b.end(refused, b.failed, now)
	if b.beginChanged(now.Add(refusalPause - 1)) {
		t.Error("a second changed token is tried within a minute")
	}
	if !b.beginChanged(now.Add(refusalPause)) {
		t.Error("a second changed token is not tried after a minute")
	}
}

// TestBreakerLimit: whatever the order in which logins are asked for and end, no
// window has more logins than the rule allows.
func TestBreakerLimit(t *testing.T) {
	tests := []struct {
		name    string
		results []loginResult
		limits  map[time.Duration]int
	}{
		{"all refused", []loginResult{refused}, map[time.Duration]int{time.Minute: 2, 15 * time.Minute: 5, time.Hour: 8, 24 * time.Hour: 100}},
		{"some undecided", []loginResult{refused, undecided}, map[time.Duration]int{time.Minute: 4, 15 * time.Minute: 11, time.Hour: 20, 24 * time.Hour: 300}},
	}
	for _, tt := range tests {
		for seed := range uint64(200) {
			begun := hammer(rand.New(rand.NewPCG(seed, 1)), tt.results)
			for window, limit := range tt.limits {
				if n := mostWithin(begun, window); n > limit {
					t.Fatalf("%s, seed %d: %d logins within %v, want %d at most", tt.name, seed, n, window, limit)
				}
			}
		}
	}
}

// hammer asks a breaker for logins in any order, and returns when they began.
func hammer(random *rand.Rand, results []loginResult) (begun []time.Time) {
	b, now := breaker{most: freeRefusals}, time.Unix(1e9, 0)
	for range 400 {
		switch random.IntN(4) {
		case 0, 1:
			if b.begin(now) == granted {
				begun = append(begun, now)
			}
		case 2:
			if b.inProgress > 0 {
				b.end(results[random.IntN(len(results))], b.failed, now)
			}
		case 3:
			now = now.Add(time.Duration(random.Int64N(int64(10 * time.Second << random.IntN(7)))))
		}
	}
	return begun
}

// mostWithin returns the greatest number of times within any window, the end of
// which does not belong to it.
func mostWithin(times []time.Time, window time.Duration) int {
	most, first := 0, 0
	for i, at := range times {
		for !times[first].Add(window).After(at) {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}
