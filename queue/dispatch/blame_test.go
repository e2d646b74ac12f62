package dispatch

import (
	"fmt"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestProbeOfRest: when a relay rests, the probe is a message that has not met what it
// rests for, first of another reverse-path, then to another recipient, then of another
// key, wherever it stands in line.
func TestProbeOfRest(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	job := func(id, key, from, to string) *Job {
		return &Job{ID: id, Route: "one", Lane: Lane{Key: key}, Size: 1000, ReversePath: from, Recipients: []string{to}, Expires: now.Add(time.Hour)}
	}
	failed := job("1", "app", "a", "x")
	candidates := []*Job{
		failed, job("4", "app", "a", "x"), job("5", "other", "a", "x"), job("6", "app", "a", "y"), job("7", "other", "a", "y"),
		job("8", "app", "b", "x"), job("9", "app", "b", "y"), job("10", "other", "b", "y"),
	}
	for last := 1; last <= len(candidates); last++ {
		d := New(Options{Relays: []string{"relay"}, Workers: 4, MaxMemory: 1 << 20})
		d.Route("one", []int{0})
		d.Start(now)
		met := []*Job{failed, job("2", "app", "a", "x"), job("3", "app", "a2", "x")}
		d.Claimed(met, now)
		for _, j := range met {
			d.Report(0, j, attempt(refused, now), now, 0.5)
			d.Done(j, now)
		}
		if p := d.Pauses(); len(p) != 1 || p[0].Until.Sub(now) != time.Second {
			t.Fatalf("pauses = %+v, want one for a second", p)
		}
		o := d.Claimed(candidates[:last], now.Add(2*time.Second))
		if len(o.Begin) != 1 || o.Begin[0] != candidates[last-1] || len(o.Release) != last-1 {
			t.Errorf("of the first %d, %v begins, want the last", last, o.Begin)
		}
	}
}

// TestBlameIsBounded: what is remembered of a relay is, however many messages of
// however many reverse-paths meet it.
func TestBlameIsBounded(t *testing.T) {
	h := health{name: "relay"}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	to := make([]string, 1000)
	for i := range 10_000 {
		j := &Job{ID: fmt.Sprint(i), ReversePath: fmt.Sprint("from", i/5), Recipients: to}
		h.report(j, attempt(refused, now), now, 0.5)
	}
	b := &h.blame
	resting := 0
	for _, s := range b.senders {
		if s.pause.failures > 0 {
			resting++
		}
	}
	if len(b.met) != maxMet || len(b.row) != quickRests || len(b.senders) != maxSenders || b.resting != resting || len(b.met[0].to) != maxMetTo {
		t.Errorf("%d messages are remembered, %d in a row, and %d reverse-paths, of which %d rest, not %d",
			len(b.met), len(b.row), len(b.senders), resting, b.resting)
	}
	if b.sender("from1999") == nil || b.sender("from0") != nil {
		t.Error("what met it least recently is not what is forgotten")
	}
	h.report(&Job{ID: "x", ReversePath: "from1999"}, attempt(delivered, now), now, 0.5)
	if b.sender("from1999") != nil || len(b.row) > 0 || h.pause.failures > 0 {
		t.Error("a success does not end the rests")
	}
}

// TestAcceptedIsSuccess: a message that was accepted for one recipient before the
// connection broke blames nothing.
func TestAcceptedIsSuccess(t *testing.T) {
	h := health{name: "relay"}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	half := attempt(broken, now)
	half.Results = append([]mailer.Result{{}}, half.Results...)
	for i := range 5 {
		h.report(&Job{ID: fmt.Sprint(i)}, half, now, 0.5)
	}
	if h.pause.failures > 0 || len(h.blame.senders) > 0 {
		t.Errorf("the relay rests, or a reverse-path does: %+v", h)
	}
}
