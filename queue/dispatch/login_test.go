package dispatch

import (
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestRetryMakesNoPauseLonger: a probe that a person asks for may fail as often as it likes: the relay's pauses
// are as long as they would be without, and so are the rests of a reverse-path. A refused login counts.
func TestRetryMakesNoPauseLonger(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fails := func(class mailer.Class, stage mailer.Stage) mailer.Attempt {
		return mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{Class: class, Stage: stage}}}}
	}
	for _, tt := range []struct {
		name    string
		attempt mailer.Attempt
		longer  bool
	}{
		{"dead", fails(mailer.ClassRelay, mailer.StageConnect), false},
		{"refuses mail", fails(mailer.ClassRelay, mailer.StageMail), false},
		{"login", fails(mailer.ClassRelay, mailer.StageAuth), true},
	} {
		after := func(retries int) (until time.Time, failures int) {
			h, now := &health{name: "relay"}, begin
			for n := range 4 { // pauses of themselves
				now = latest(now, h.pause.until)
				j := &Job{ID: "m"}
				h.begin(j, now)
				h.report(j, tt.attempt, now, 0.5)
				if n < 3 {
					continue
				}
				for range retries {
					now = now.Add(100 * time.Millisecond)
					if h.pause.ask(h.unpausedAt(now)); h.pause.until.After(now) {
						continue
					}
					h.begin(j, now)
					h.report(j, tt.attempt, now, 0.5)
				}
			}
			if !h.shown().Since.Equal(begin) {
				t.Errorf("%s: paused since %v, want since the first failure", tt.name, h.shown().Since.Sub(begin))
			}
			return h.pause.until, h.pause.failures
		}
		until, failures := after(0)
		gotUntil, got := after(10)
		if !gotUntil.Equal(until) || got != failures {
			t.Errorf("%s: after retries paused until %v, %d failures, want %v, %d", tt.name, gotUntil.Sub(begin), got, until.Sub(begin), failures)
		}
		// What is over when the probe fails goes on as long as it was.
		h := &health{name: "relay"}
		j := &Job{ID: "m"}
		h.report(j, tt.attempt, begin, 0.5)
		length := h.pause.until.Sub(begin)
		h.pause.ask(h.unpausedAt(begin.Add(time.Millisecond)))
		now := begin.Add(length + time.Second) // it hung
		h.begin(j, now)
		h.report(j, tt.attempt, now, 0.5)
		if longer := h.pause.until.Sub(now) > length; longer != tt.longer {
			t.Errorf("%s: a probe that a person asked for makes a pause of %v one of %v", tt.name, length, h.pause.until.Sub(now))
		}
	}
}

// TestLoginPause: the relay's client says when the next login may be, and a person
// who wants it now does not change that.
func TestLoginPause(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	refused := func(err error) mailer.Attempt {
		return mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{
			Class: mailer.ClassRelay, Stage: mailer.StageAuth, Reply: mailer.Reply{Code: 535}, Err: err,
		}}}}
	}
	next := now.Add(7*time.Minute + 1)
	rounded := now.Add(7*time.Minute + time.Microsecond)
	tests := []struct {
		name     string
		attempts []mailer.Attempt
		want     time.Time // the end of the pause
		unpaused time.Time
	}{
		{"may be tried at once", []mailer.Attempt{refused(&mailer.LoginError{Tried: true})}, now.Add(time.Second), now},
		{"not before", []mailer.Attempt{refused(&mailer.LoginError{Next: next, Tried: true})}, rounded, rounded},
		{"not tried", []mailer.Attempt{refused(&mailer.LoginError{Next: next})}, rounded, rounded},
		{"later, from one that began before", []mailer.Attempt{refused(&mailer.LoginError{Tried: true}), refused(&mailer.LoginError{Next: next, Tried: true})}, rounded, now},
		{"unknown", []mailer.Attempt{refused(nil)}, now.Add(time.Minute), now},
	}
	for _, tt := range tests {
		h := health{name: "relay"}
		for _, a := range tt.attempts {
			h.report(&Job{}, a, now, 0.5)
		}
		if !h.pause.until.Equal(tt.want) {
			t.Errorf("%s: paused until %v, want %v", tt.name, h.pause.until.Sub(now), tt.want.Sub(now))
		}
		if got := h.unpausedAt(now); !got.Equal(tt.unpaused) {
			t.Errorf("%s: unpaused at %v, want %v", tt.name, got.Sub(now), tt.unpaused.Sub(now))
		}
	}
	f := refused(&mailer.LoginError{Next: next, Tried: true}).Results[0].Failure
	if NotAsked(f) || !NotAsked(refused(&mailer.LoginError{Next: next}).Results[0].Failure) || NotAsked(nil) {
		t.Error("NotAsked does not follow LoginError.Tried")
	}
}
