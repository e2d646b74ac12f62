package queue

import (
	"errors"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestRelayNote: of all instances one probes, when the pause is over or a person wants it; one that is not heard
// of makes way, later each time.
func TestRelayNote(t *testing.T) {
	now := time.Now()
	at := func(after time.Duration) time.Time { return now.Add(after) }
	n := &relayNote{Failures: 2, Since: now.UnixMicro(), Until: at(10 * time.Second).UnixMicro(), By: "a"}
	for _, step := range []struct {
		who   string
		asked bool
		after time.Duration
		want  bool
	}{
		{"a", false, 5 * time.Second, false},
		{"b", false, 10 * time.Second, true},
		{"a", false, 10 * time.Second, false},
		{"a", true, 10 * time.Second, false},
		{"b", false, 39 * time.Second, true}, // a second one of its own
		{"a", false, 68 * time.Second, false},
		{"a", false, 70 * time.Second, true},
		{"c", false, 129 * time.Second, false},
		{"c", false, 131 * time.Second, true}, // a minute later
	} {
		if got := n.begin(step.who, step.asked, at(step.after)); got != step.want {
			t.Errorf("after %v %s may probe: %v, want %v", step.after, step.who, got, step.want)
		}
	}
	n = &relayNote{Failures: 1, Until: at(time.Hour).UnixMicro()}
	if n.begin("a", false, now) || !n.begin("a", true, now) {
		t.Error("a person's wish does not let a probe pass, or it needs none")
	}
	met := &relayNote{Failures: 2, Since: at(time.Minute).UnixMicro(), Until: at(time.Minute).UnixMicro(), By: "b"}
	if got := n.merge("b", met); got.Until != at(time.Hour).UnixMicro() || got.Failures != 2 || got.Probe != "a" {
		t.Errorf("what began before the pause makes it %+v", got)
	}
	if got := n.merge("a", met); got != met {
		t.Errorf("what the probe met makes it %+v, want that", got)
	}
	c := clocks{here: now.Add(-5 * time.Minute), there: now}
	f := &mailer.Failure{
		Class: mailer.ClassRelay, Stage: mailer.StageAuth, Relay: "one", Port: 587, Text: "text", Until: at(time.Hour).UTC().Truncate(time.Microsecond),
		Reply: mailer.Reply{Code: 535, Enhanced: "5.7.8", Text: "no"}, Passes: true, Cause: "cause", Remedy: "remedy",
		Err: &mailer.LoginError{Next: at(time.Minute).UTC().Truncate(time.Microsecond)},
	}
	got := packFailure(f, c).unpack("one", c)
	login, _ := errors.AsType[*mailer.LoginError](got.Err)
	if login == nil || login.Next.Sub(at(time.Minute)).Abs() > time.Millisecond || got.Until.Sub(f.Until).Abs() > time.Millisecond {
		t.Errorf("failure = %+v, want %+v", got, f)
	}
	got.Err, got.Until, f.Err, f.Until = nil, time.Time{}, nil, time.Time{}
	if *got != *f {
		t.Errorf("failure = %+v, want %+v", got, f)
	}
}
