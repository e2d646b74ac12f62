package dispatch

import (
	"testing"
	"time"

	"mailsidecar/mailer"
)

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
