// Package stored has the form in which stores keep what became of attempts, to be
// written as JSON. It has names in place of numbers: what is stored can be read
// without this program, and outlives a change of the constants.
package stored

import (
	"time"

	"mailsidecar/mailer"
)

// Result is a [mailer.Result].
type Result struct {
	To       string   `json:"to,omitempty"`
	Code     int      `json:"code,omitempty"`
	Enhanced string   `json:"enhanced,omitempty"`
	Text     string   `json:"text,omitempty"`
	Failure  *Failure `json:"failure,omitempty"`
}

// Failure is a [mailer.Failure] without the error behind it.
type Failure struct {
	Class    string `json:"class"`
	Stage    string `json:"stage"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Reply    string `json:"reply,omitempty"`
	Relay    string `json:"relay,omitempty"`
	Port     int    `json:"port,omitempty"`
	Text     string `json:"text,omitempty"`
	Cause    string `json:"cause,omitempty"` // of a permanent one only, as Do: else a person sees what is so now
	Do       string `json:"do,omitempty"`
}

// Rung is a [mailer.RungReport].
type Rung struct {
	Port     int      `json:"port"`
	Mode     string   `json:"mode"`
	Won      bool     `json:"won,omitempty"`
	Duration int64    `json:"us"`
	Failure  *Failure `json:"failure,omitempty"`
}

func packFailure(f *mailer.Failure) *Failure {
	if f == nil {
		return nil
	}
	packed := &Failure{
		Class: f.Class.String(), Stage: f.Stage.String(), Code: f.Reply.Code, Enhanced: f.Reply.Enhanced,
		Reply: f.Reply.Text, Relay: f.Relay, Port: f.Port, Text: f.Text,
	}
	if f.Class == mailer.ClassPermanent {
		packed.Cause, packed.Do = f.Cause, f.Remedy
	}
	return packed
}

// Unpack returns the failure that was stored; nil when there was none.
func (f *Failure) Unpack() *mailer.Failure {
	if f == nil {
		return nil
	}
	return &mailer.Failure{
		Class: classNamed(f.Class), Stage: stageNamed(f.Stage), Relay: f.Relay, Port: f.Port, Text: f.Text,
		Reply: mailer.Reply{Code: f.Code, Enhanced: f.Enhanced, Text: f.Reply},
		Cause: f.Cause, Remedy: f.Do,
	}
}

// classNamed returns the class that prints as name; transient when there is
// none, for unknown is transient.
func classNamed(name string) mailer.Class {
	for _, c := range []mailer.Class{mailer.ClassPermanent, mailer.ClassRelay, mailer.ClassUncertain} {
		if c.String() == name {
			return c
		}
	}
	return mailer.ClassTransient
}

func stageNamed(name string) mailer.Stage {
	for s := mailer.StageCompose; s < mailer.StageContent; s++ {
		if s.String() == name {
			return s
		}
	}
	return mailer.StageContent
}

// PackResult returns the stored form without the forward-path, for a place that has
// it beside the result.
func PackResult(r mailer.Result) Result {
	return Result{Code: r.Reply.Code, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text, Failure: packFailure(r.Failure)}
}

// Unpack returns the result that was stored.
func (s Result) Unpack() mailer.Result {
	return mailer.Result{
		ForwardPath: s.To, Failure: s.Failure.Unpack(),
		Reply: mailer.Reply{Code: s.Code, Enhanced: s.Enhanced, Text: s.Text},
	}
}

// PackResults returns the stored form of an attempt's results.
func PackResults(results []mailer.Result) []Result {
	packed := make([]Result, len(results))
	for i, r := range results {
		packed[i] = PackResult(r)
		packed[i].To = r.ForwardPath
	}
	return packed
}

// PackLadder returns the stored form of an attempt's ladder; nil when it is empty.
func PackLadder(ladder []mailer.RungReport) []Rung {
	if len(ladder) == 0 {
		return nil
	}
	packed := make([]Rung, len(ladder))
	for i, r := range ladder {
		packed[i] = Rung{r.Rung.Port, ModeOf(r.Rung), r.Won, r.Duration.Microseconds(), packFailure(r.Failure)}
	}
	return packed
}

// UnpackLadder is the inverse of PackLadder.
func UnpackLadder(packed []Rung) []mailer.RungReport {
	var ladder []mailer.RungReport
	for _, r := range packed {
		ladder = append(ladder, mailer.RungReport{
			Rung: RungOf(r.Port, r.Mode), Won: r.Won, Failure: r.Failure.Unpack(),
			Duration: time.Duration(r.Duration) * time.Microsecond,
		})
	}
	return ladder
}

// ModeOf is the rung's mode; empty when there was no rung.
func ModeOf(r mailer.Rung) string {
	if r == (mailer.Rung{}) {
		return ""
	}
	return r.Mode()
}

// RungOf returns the rung with that port and mode.
func RungOf(port int, mode string) mailer.Rung {
	return mailer.Rung{Port: port, Implicit: mode == "tls", Clear: mode == "none"}
}
