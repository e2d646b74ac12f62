package queue

import (
	"encoding/json"
	"errors"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// relayNote is what instances tell one another of a relay in trouble, with the times of the
// store. There is none of a relay that works.
type relayNote struct {
	Failures int          `json:"failures"` // in a row
	Since    int64        `json:"since"`    // microseconds, as all times here
	Until    int64        `json:"until"`
	Reason   *failureNote `json:"reason"`
	By       string       `json:"by"` // the instance that met the last failure
	// Probe is the instance that may ask the relay, until ProbeUntil; empty: none does. Probes is how
	// many before it were not heard of again.
	Probe      string `json:"probe,omitempty"`
	ProbeUntil int64  `json:"probe_until,omitempty"`
	Probes     int    `json:"probes,omitempty"`
}

// failureNote is a [mailer.Failure] as far as it matters for a pause.
type failureNote struct {
	Class    string `json:"class"`
	Stage    string `json:"stage"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Reply    string `json:"reply,omitempty"`
	Port     int    `json:"port,omitempty"`
	Text     string `json:"text,omitempty"`
	Until    int64  `json:"until,omitempty"`
	Passes   bool   `json:"passes,omitempty"`
	Cause    string `json:"cause,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
	Alike    bool   `json:"alike,omitempty"` // unrelated messages were refused with the same words
	Login    bool   `json:"login,omitempty"` // a login was refused
	Next     int64  `json:"next,omitempty"`  // when the next one makes sense
}

func readRelayNote(value []byte) *relayNote {
	n := &relayNote{}
	if len(value) == 0 || json.Unmarshal(value, n) != nil || n.Failures <= 0 {
		return nil
	}
	return n
}

func (n *relayNote) bytes() []byte {
	if n == nil {
		return nil
	}
	b, err := json.Marshal(n)
	if err != nil { // it cannot be
		return nil
	}
	return b
}

// clocks compares this instance's clock with the store's.
type clocks struct{ here, there time.Time }

func (c clocks) toThere(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return c.there.Add(t.Sub(c.here)).UnixMicro()
}

func (c clocks) toHere(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return c.here.Add(time.UnixMicro(micros).Sub(c.there)).UTC().Truncate(time.Microsecond)
}

func packFailure(f *mailer.Failure, c clocks) *failureNote {
	if f == nil {
		return nil
	}
	n := &failureNote{
		Class: f.Class.String(), Stage: f.Stage.String(), Code: f.Reply.Code, Enhanced: f.Reply.Enhanced, Reply: f.Reply.Text,
		Port: f.Port, Text: f.Text, Until: c.toThere(f.Until), Passes: f.Passes, Cause: f.Cause, Remedy: f.Remedy,
		Alike: errors.Is(f.Err, mailer.ErrRefusesMany),
	}
	if login, ok := errors.AsType[*mailer.LoginError](f.Err); ok {
		n.Login, n.Next = true, c.toThere(login.Next)
	}
	return n
}

func (n *failureNote) unpack(relay string, c clocks) *mailer.Failure {
	f := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: relay}
	if n == nil {
		return f
	}
	*f = mailer.Failure{
		Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: relay, Port: n.Port, Text: n.Text,
		Reply: mailer.Reply{Code: n.Code, Enhanced: n.Enhanced, Text: n.Reply},
		Until: c.toHere(n.Until), Passes: n.Passes, Cause: n.Cause, Remedy: n.Remedy,
	}
	for class := mailer.ClassTransient; class <= mailer.ClassUncertain; class++ {
		if class.String() == n.Class {
			f.Class = class
		}
	}
	for stage := mailer.StageCompose; stage <= mailer.StageContent; stage++ {
		if stage.String() == n.Stage {
			f.Stage = stage
		}
	}
	switch {
	case n.Login:
		f.Err = &mailer.LoginError{Next: c.toHere(n.Next)}
	case n.Alike:
		f.Err = mailer.ErrRefusesMany
	}
	return f
}

// probePatience is how long others wait for a probe: longer after each that was not heard of.
var probePatience = dispatch.Backoff{First: 30 * time.Second, Longest: 5 * time.Minute}

// begin says whether an instance may probe the relay, and notes that it does. asked says that a person
// wants it.
func (n *relayNote) begin(who string, asked bool, now time.Time) bool {
	at := now.UnixMicro()
	// Clocks are compared to within the time that an answer takes.
	const slack = 100 * time.Millisecond
	switch {
	case n.Probe != "" && n.Probe != who && n.ProbeUntil > at:
		return false
	case !asked && n.Until > at+slack.Microseconds():
		return false
	case n.Probe != "" && n.ProbeUntil <= at:
		n.Probes++
	}
	n.Probe, n.ProbeUntil = who, now.Add(probePatience.Delay(n.Probes+1, 0.5)).UnixMicro()
	return true
}

// merge adds what an instance has met to what is noted; nil is that the relay works.
func (n *relayNote) merge(who string, met *relayNote) *relayNote {
	switch {
	case n == nil, n.Probe == who: // nobody knew of a pause, or it was the probe
		return met
	default: // it had begun before the pause
		if met.Until > n.Until {
			n.Until, n.Reason, n.By = met.Until, met.Reason, who
		}
		n.Failures = max(n.Failures, met.Failures)
		n.Since = min(n.Since, met.Since)
		return n
	}
}
