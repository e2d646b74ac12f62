package queue

import (
	"testing"
	"time"

	"mailsidecar/mailer"
)

func TestRetryDelay(t *testing.T) {
	tests := []struct {
		tries  int
		random float64
		want   time.Duration
	}{
		{1, 0.5, time.Minute},
		{1, 0, 52500 * time.Millisecond},
		{2, 0.5, 2 * time.Minute},
		{6, 0.5, 32 * time.Minute},
		{7, 0.5, time.Hour},
		{1000, 0.5, time.Hour},
		{1000, 1, time.Hour + time.Hour/8},
	}
	for _, c := range tests {
		if got := retry.Delay(c.tries, c.random); got != c.want {
			t.Errorf("retry.Delay(%d, %v) = %v, want %v", c.tries, c.random, got, c.want)
		}
	}
}

func TestNextTry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		delay, rest time.Duration
		want        time.Duration
		ok          bool
	}{
		{time.Minute, time.Hour, time.Minute, true},
		{0, time.Second, 0, true},
		{time.Hour, time.Hour, 54 * time.Minute, true},
		{time.Minute, 20 * time.Second, 18 * time.Second, true},
		{time.Minute, 10 * time.Second, 0, false},
		{0, 0, 0, false},
		{time.Minute, -time.Hour, 0, false},
	}
	for _, c := range tests {
		got, ok := nextTry(now, now.Add(c.rest), c.delay)
		if ok != c.ok || ok && got.Sub(now) != c.want {
			t.Errorf("nextTry(rest %v, delay %v) = %v, %v, want %v, %v", c.rest, c.delay, got.Sub(now), ok, c.want, c.ok)
		}
	}
}

func failure(class mailer.Class, stage mailer.Stage, code int) *mailer.Failure {
	return &mailer.Failure{Class: class, Stage: stage, Reply: mailer.Reply{Code: code}}
}

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := now.Add(5 * 24 * time.Hour)
	pushedBack := failure(mailer.ClassTransient, mailer.StageMail, 450)
	pushedBack.Err = mailer.ErrPushedBack
	tests := []struct {
		name    string
		failure *mailer.Failure
		hold    bool
		expires time.Time
		want    Change
	}{
		{"accepted", nil, false, later, Change{State: Delivered, Tries: 2}},
		{"refused", failure(mailer.ClassPermanent, mailer.StageRcpt, 550), false, later, Change{State: Bounced, Tries: 2}},
		{"4yz", failure(mailer.ClassTransient, mailer.StageRcpt, 450), false, later, Change{State: Deferred, Next: now.Add(4 * time.Minute), Tries: 3}},
		{"relay", failure(mailer.ClassRelay, mailer.StageConnect, 0), false, later, Change{State: Deferred, Next: now, Tries: 2}},
		{"421", failure(mailer.ClassTransient, mailer.StageMail, 421), false, later, Change{State: Deferred, Next: now.Add(4 * time.Minute), Tries: 3}},
		{"421 as greeting", failure(mailer.ClassTransient, mailer.StageGreeting, 421), false, later, Change{State: Deferred, Next: now.Add(4 * time.Second), Tries: 2}},
		{"pushed back", pushedBack, false, later, Change{State: Deferred, Next: now.Add(4 * time.Second), Tries: 2}},
		{"broken dialogue", failure(mailer.ClassTransient, mailer.StageData, 0), false, later, Change{State: Deferred, Next: now.Add(4 * time.Minute), Tries: 3}},
		{"uncertain", failure(mailer.ClassUncertain, mailer.StageContent, 0), false, later, Change{State: Deferred, Next: now.Add(4 * time.Minute), Tries: 3, Route: "=one"}},
		{"uncertain, hold", failure(mailer.ClassUncertain, mailer.StageContent, 0), true, later, Change{State: Held, Tries: 2, Route: "=one"}},
		{"4yz too late", failure(mailer.ClassTransient, mailer.StageRcpt, 450), false, now.Add(time.Second), Change{State: Expired, Tries: 3}},
		{"relay too late", failure(mailer.ClassRelay, mailer.StageConnect, 0), false, now, Change{State: Expired, Tries: 2}},
	}
	for _, c := range tests {
		const path = "a@example.org"
		w := Work{Expires: c.expires, Recipients: []Leased{{ForwardPath: path, State: Deferred, Tries: 2, Attempts: 4}}}
		d := decision{now: now, hold: c.hold, random: func() float64 { return 0.5 }}
		c.want.ForwardPath = path
		got, _ := d.decide(w, []mailer.Attempt{{Relay: "one", Results: []mailer.Result{{ForwardPath: path, Failure: c.failure}}}})
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: decide = %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestDecideOnSeveralRelays: a relay that may mean the message is not asked again
// sooner because the next one was not reached.
func TestDecideOnSeveralRelays(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := decision{now: now, random: func() float64 { return 0.5 }}
	w := Work{Expires: now.Add(time.Hour), Recipients: []Leased{{ForwardPath: "a@example.org", State: Queued}}}
	var attempts []mailer.Attempt
	for _, f := range []*mailer.Failure{failure(mailer.ClassTransient, mailer.StageMail, 501), failure(mailer.ClassRelay, mailer.StageConnect, 0)} {
		attempts = append(attempts, mailer.Attempt{Results: []mailer.Result{{ForwardPath: "a@example.org", Failure: f}}})
	}
	got, _ := d.decide(w, attempts)
	if want := (Change{ForwardPath: "a@example.org", State: Deferred, Next: now.Add(time.Minute), Tries: 1}); got[0] != want {
		t.Errorf("decide = %+v, want %+v", got[0], want)
	}
}

func TestNewID(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	id := NewID(at)
	if first := FirstID(at); id[14] != '7' || id[:13] != first[:13] || id <= first || id >= FirstID(at.Add(time.Millisecond)) {
		t.Errorf("NewID(%v) = %s, want a UUID of version 7 with that time", at, id)
	}
	if next := NewID(at.Add(time.Microsecond)); next <= id {
		t.Errorf("NewID a microsecond later = %s, want it after %s", next, id)
	}
	if first := FirstID(time.Time{}); first >= NewID(time.Unix(0, 0)) {
		t.Errorf("FirstID(year 1) = %s, want it before the ids of all messages", first)
	}
	if NewID(at) == id {
		t.Errorf("NewID(%v) gave %s twice", at, id)
	}
}
