package dispatch

import (
	"fmt"
	"testing"
	"time"

	"mailsidecar/mailer"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// refusedUntil is a quota at a stage: the relay takes no mail until then.
func refusedUntil(stage mailer.Stage, until time.Time) mailer.Attempt {
	return mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{
		Class: mailer.ClassRelay, Stage: stage, Reply: mailer.Reply{Code: 550, Enhanced: "5.4.5"}, Until: until,
	}}}}
}

// TestPauseUntil: a relay that names a time is left alone until then, within limits, and
// not for the usual back-off.
func TestPauseUntil(t *testing.T) {
	for _, tt := range []struct{ named, want time.Duration }{
		{5 * time.Minute, 5 * time.Minute},
		{time.Hour, time.Hour},
		{25 * time.Hour, 24 * time.Hour},
		{1000 * time.Hour, 24 * time.Hour},
		{10 * time.Millisecond, time.Second},
		{time.Minute + 1, time.Minute + time.Microsecond},
		{0, time.Second},
		{-time.Hour, time.Second},
	} {
		for _, stage := range []mailer.Stage{mailer.StageGreeting, mailer.StageMail, mailer.StageContent} {
			h := health{name: "relay"}
			v := h.report(&Job{ID: "1"}, refusedUntil(stage, noon.Add(tt.named)), noon, 0.5)
			if got := h.pause.until.Sub(noon); !v.paused || got != tt.want {
				t.Errorf("%s, %v ahead: paused %v for %v, want %v", stage, tt.named, v.paused, got, tt.want)
			}
		}
	}
}

// TestProbesOfQuota: what a probe meets decides how the pause goes on, and nothing else
// does.
func TestProbesOfQuota(t *testing.T) {
	at := func(d time.Duration) time.Time { return noon.Add(d) }
	result := func(f *mailer.Failure) mailer.Attempt { return mailer.Attempt{Results: []mailer.Result{{Failure: f}}} }
	refused := func(stage mailer.Stage, code int) mailer.Attempt {
		return result(&mailer.Failure{Class: mailer.ClassPermanent, Stage: stage, Reply: mailer.Reply{Code: code}})
	}
	down := result(&mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect})
	const open = time.Duration(-1)
	for _, tt := range []struct {
		name  string
		quota mailer.Stage
		met   mailer.Attempt
		want  time.Duration // the pause after it, from the probe on; open: it has ended
	}{
		{"success", mailer.StageMail, result(nil), open},
		{"the same again", mailer.StageMail, refusedUntil(mailer.StageMail, at(2*time.Hour)), time.Hour},
		{"an earlier end", mailer.StageMail, refusedUntil(mailer.StageMail, at(time.Hour+time.Minute)), time.Minute},
		{"a later end", mailer.StageMail, refusedUntil(mailer.StageMail, at(9*time.Hour)), 8 * time.Hour},
		{"no end", mailer.StageMail, refusedUntil(mailer.StageMail, time.Time{}), 2 * time.Second},
		{"not reached", mailer.StageMail, down, time.Second},
		{"it got further", mailer.StageMail, refused(mailer.StageRcpt, 550), open},
		{"it got as far", mailer.StageRcpt, refused(mailer.StageRcpt, 550), 0},
		{"it did not get as far", mailer.StageContent, refused(mailer.StageRcpt, 550), 0},
		{"the connection broke", mailer.StageContent, result(&mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageRcpt}), time.Second},
		{"about its sender", mailer.StageContent, result(&mailer.Failure{
			Class: mailer.ClassTransient, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 421}, Err: mailer.ErrSenderRefused,
		}), 0},
	} {
		h := health{name: "relay"}
		h.report(&Job{ID: "1"}, refusedUntil(tt.quota, at(time.Hour)), noon, 0.5)
		probe := &Job{ID: "2"}
		if h.open(0, at(time.Hour-1)) || !h.open(0, at(time.Hour)) || !h.begin(probe, at(time.Hour)) || h.open(0, at(time.Hour)) {
			t.Fatalf("%s: not one probe after an hour", tt.name)
		}
		h.report(probe, tt.met, at(time.Hour), 0.5)
		got := h.pause.until.Sub(at(time.Hour))
		if h.pause.failures == 0 {
			got = open
		}
		if got != tt.want {
			t.Errorf("%s: paused for %v after the probe, want %v", tt.name, got, tt.want)
		}
	}
}

// TestBeganBeforeQuota: what was under way when the quota was used up neither ends the
// pause nor shortens it; a later end makes it longer.
func TestBeganBeforeQuota(t *testing.T) {
	h := health{name: "relay"}
	h.report(&Job{ID: "1"}, refusedUntil(mailer.StageContent, noon.Add(time.Hour)), noon, 0.5)
	for i, a := range []mailer.Attempt{
		attempt(delivered, noon), attempt(deferred, noon), attempt(inTrouble, noon), attempt(broken, noon),
		refusedUntil(mailer.StageMail, noon.Add(time.Minute)), refusedUntil(mailer.StageMail, time.Time{}),
	} {
		v := h.report(&Job{ID: fmt.Sprint("b", i)}, a, noon, 0.5)
		if got := h.pause.until.Sub(noon); v.paused || v.resumed || got != time.Hour || h.pause.failures != 1 {
			t.Errorf("after %d: %+v, paused for %v, want an hour still", i, v, got)
		}
	}
	v := h.report(&Job{ID: "c"}, refusedUntil(mailer.StageContent, noon.Add(3*time.Hour)), noon, 0.5)
	if got := h.pause.until.Sub(noon); !v.paused || got != 3*time.Hour || !h.reason.Until.Equal(noon.Add(3*time.Hour)) {
		t.Errorf("a later end: %+v, paused for %v, want three hours, and told", v, got)
	}
}

// TestEndOfQuotaByPerson: a person, and a check that goes well, get one probe. A check
// proves that a relay is back that was not reached.
func TestEndOfQuotaByPerson(t *testing.T) {
	for _, end := range []string{"retry", "check"} {
		for quota, wantPaused := range map[bool]bool{true: true, false: end == "retry"} {
			d := New(Options{Relays: []string{"relay"}, Workers: 4, MaxMemory: 1 << 20})
			d.Route("one", []int{0})
			d.Start(noon)
			first := &Job{ID: "1", Route: "one", Size: 1, Expires: noon.Add(100 * time.Hour)}
			d.Claimed([]*Job{first}, noon)
			a := attempt(inTrouble, noon)
			if quota {
				a = refusedUntil(mailer.StageContent, noon.Add(2*time.Hour))
			}
			d.Report(0, first, a, noon, 0.5)
			d.Done(first, noon)
			now := noon.Add(time.Millisecond)
			if end == "retry" {
				d.Unpause("one", now)
			} else {
				d.Resume(0, now)
			}
			if wake := d.Wake(); end == "check" && wake.After(now) {
				t.Errorf("%s, quota %v: the store is looked at in %v, want now", end, quota, wake.Sub(now))
			}
			if paused := len(d.Pauses()) == 1; paused != wantPaused || !d.Open("one", 0, "", now) {
				t.Errorf("%s, quota %v: paused %v, want %v, and open", end, quota, paused, wantPaused)
			}
			var jobs []*Job
			for i := range 5 {
				jobs = append(jobs, &Job{ID: fmt.Sprint("j", i), Route: "one", Size: 1, Expires: noon.Add(100 * time.Hour)})
			}
			if n := len(d.Claimed(jobs, now).Begin); n != map[bool]int{true: 1, false: 4}[wantPaused] {
				t.Errorf("%s, quota %v: %d begin", end, quota, n)
			}
		}
	}
}

// TestClockMovesQuota: a clock that is set back does not make the pause longer.
func TestClockMovesQuota(t *testing.T) {
	d := New(Options{Relays: []string{"relay"}, Workers: 4, MaxMemory: 1 << 20})
	d.relays[0].report(&Job{ID: "1"}, refusedUntil(mailer.StageContent, noon.Add(2*time.Hour)), noon, 0.5)
	d.Shift(-24 * time.Hour)
	if got := d.Pauses()[0].Until; !got.Equal(noon.Add(-22 * time.Hour)) {
		t.Errorf("until = %v, want as long from the new time", got)
	}
}

// alikeAt is what a message of a key and reverse-path gets when it is refused with the
// words that others were refused with.
func alikeAt(h *health, id, key, from string, now time.Time) verdict {
	j := &Job{ID: id, Lane: Lane{Key: key}, ReversePath: from}
	h.begin(j, now)
	return h.report(j, attempt(alike, now), now, 0.5)
}

// TestRefusedAlike: who waits when unrelated messages are refused with the same words.
func TestRefusedAlike(t *testing.T) {
	type message struct{ id, key, from string }
	for _, tt := range []struct {
		name     string
		messages []message
		relay    bool // rests
		senders  int  // rest
	}{
		{"one message", []message{{"1", "a", "x"}}, false, 0},
		{"one message, again and again", []message{{"1", "a", "x"}, {"1", "a", "x"}, {"1", "a", "x"}}, false, 0},
		{"one reverse-path", []message{{"1", "a", "x"}, {"2", "a", "x"}, {"3", "a", "x"}}, false, 1},
		{"one reverse-path of two keys", []message{{"1", "a", "x"}, {"2", "b", "x"}}, false, 1},
		{"all mail is of one key", []message{{"1", "a", "x"}, {"2", "a", "y"}}, true, 0},
		{"two keys, two reverse-paths", []message{{"1", "a", "x"}, {"2", "b", "y"}}, true, 0},
		{"another key has mail, too", []message{{"0", "b", "z"}, {"1", "a", "x"}, {"2", "a", "y"}, {"3", "a", "w"}}, false, 0},
	} {
		h := &health{name: "relay"}
		for _, m := range tt.messages {
			if m.id == "0" {
				j := &Job{ID: m.id, Lane: Lane{Key: m.key}, ReversePath: m.from}
				h.begin(j, noon)
				h.report(j, attempt(delivered, noon), noon, 0.5)
				continue
			}
			alikeAt(h, m.id, m.key, m.from, noon)
		}
		if rests := h.pause.failures > 0; rests != tt.relay || h.blame.resting != tt.senders {
			t.Errorf("%s: the relay rests: %v, want %v; %d reverse-paths do, want %d", tt.name, rests, tt.relay, h.blame.resting, tt.senders)
		}
	}
}

// TestRestOfRefusedAlike: it lasts a minute, doubling to an hour, and any success ends it.
func TestRestOfRefusedAlike(t *testing.T) {
	h, now := &health{name: "relay"}, noon
	alikeAt(h, "0", "a", "x", now)
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		alikeAt(h, fmt.Sprint(i+1), "b", fmt.Sprint(i), now)
		if got := h.pause.until.Sub(now); got != want*time.Minute {
			t.Errorf("rest %d lasts %v, want %v", i+1, got, want*time.Minute)
		}
		now = h.pause.until
	}
	// One that began before, of anyone.
	v := h.report(&Job{ID: "s", ReversePath: "s"}, attempt(delivered, now), now, 0.5)
	if !v.resumed || h.pause.failures > 0 {
		t.Errorf("a success does not end the rest: %+v", v)
	}
	if alikeAt(h, "20", "a", "n", now); h.pause.failures > 0 {
		t.Error("the row goes on after a success")
	}
}

// TestOneSenderHoldsUpNobody: refusals that are about the sender never make the relay rest,
// of however many senders they are.
func TestOneSenderHoldsUpNobody(t *testing.T) {
	h := &health{name: "relay"}
	for i := range 50 {
		for n := range 3 {
			j := &Job{ID: fmt.Sprint(i, n), Lane: Lane{Key: fmt.Sprint(i % 3)}, ReversePath: fmt.Sprint(i)}
			h.begin(j, noon)
			h.report(j, mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{
				Class: mailer.ClassTransient, Stage: mailer.StageData, Reply: mailer.Reply{Code: 421}, Err: mailer.ErrSenderRefused,
			}}}}, noon, 0.5)
		}
	}
	if h.pause.failures > 0 || h.blame.resting != 50 {
		t.Errorf("the relay rests %d times, and %d of 50 reverse-paths, want those alone", h.pause.failures, h.blame.resting)
	}
}

// TestQuotaAgain: where all mail goes to one recipient, or comes from one sender, a quota
// that is used up again pauses the relay again.
func TestQuotaAgain(t *testing.T) {
	for _, tt := range []struct {
		name            string
		takenFrom, to   string // of the mail that is taken in between
		refusedFrom, rt string // of what is refused then
		pauses          bool
	}{
		{"all the same", "a", "x", "a", "x", true},
		{"another recipient", "a", "y", "a", "z", true},
		{"another sender", "b", "x", "c", "x", true},
		{"nothing was taken of the sender", "b", "y", "a", "z", false},
		{"nothing was taken for the recipient", "a", "y", "a", "x", false},
		{"nothing of either", "b", "y", "c", "z", true},
	} {
		h, now := &health{name: "relay"}, noon
		h.report(&Job{ID: "1", ReversePath: "a", Recipients: []string{"x"}}, refusedUntil(mailer.StageContent, now.Add(time.Hour)), now, 0.5)
		now = h.pause.until
		probe := &Job{ID: "2", ReversePath: tt.takenFrom, Recipients: []string{tt.to}}
		h.begin(probe, now)
		h.report(probe, attempt(delivered, now), now, 0.5)
		v := h.report(&Job{ID: "3", ReversePath: tt.refusedFrom, Recipients: []string{tt.rt}}, refusedUntil(mailer.StageContent, now.Add(time.Hour)), now, 0.5)
		if v.paused != tt.pauses || v.ofMessage == tt.pauses {
			t.Errorf("%s: paused %v, of the message %v, want paused %v", tt.name, v.paused, v.ofMessage, tt.pauses)
		}
	}
}

// TestNotAskedIsNoRefusal: a relay that was not asked, because the next login is not yet,
// has refused nothing of the message.
func TestNotAskedIsNoRefusal(t *testing.T) {
	h := &health{name: "relay"}
	notYet := mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{
		Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 535}, Err: &mailer.LoginError{Next: noon.Add(time.Minute)},
	}}}}
	j := &Job{ID: "1", ReversePath: "a", Recipients: []string{"x"}}
	for range 2 {
		if v := h.report(j, notYet, noon, 0.5); !v.paused || v.ofMessage {
			t.Errorf("%+v, want the relay paused", v)
		}
		other := &Job{ID: "2", ReversePath: "b", Recipients: []string{"y"}}
		h.begin(other, noon.Add(time.Minute))
		h.report(other, attempt(delivered, noon), noon.Add(time.Minute), 0.5)
	}
}
