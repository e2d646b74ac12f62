package dispatch

import (
	"testing"
	"time"
)

// TestSuspectsAndClock: suspects and others do not wait for a clock that was set while
// they took turns.
func TestSuspectsAndClock(t *testing.T) {
	const day = 24 * time.Hour
	for name, set := range map[string]time.Duration{"back": -day, "forward": day} {
		d, now := New(Options{Relays: []string{"relay"}, Workers: 1, MaxMemory: 1 << 20}), time.Unix(1e9, 0)
		d.Route("relay", []int{0})
		d.Start(now)
		var jobs []*Job
		for _, id := range []string{"a", "b"} {
			jobs = append(jobs, &Job{ID: id, Route: "relay", Lane: Lane{Key: "app"}, Alone: true, Expires: now.Add(5 * day)})
		}
		if o := d.Claimed(jobs, now); len(o.Begin) != 1 || o.Begin[0] != jobs[0] {
			t.Fatalf("%s: Begin = %v, want the first suspect", name, o.Begin)
		}
		if set > 0 {
			now = now.Add(set)
		}
		d.Done(jobs[0], now)
		if set < 0 {
			now = now.Add(set)
			d.Shift(set)
		}
		if _, o := d.Tick(now.Add(time.Minute)); len(o.Begin) != 1 || o.Begin[0] != jobs[1] {
			t.Errorf("%s: Begin = %v, want the second suspect", name, o.Begin)
		}
	}
}
