// Package relay is the relay of the simulation: it speaks SMTP, misbehaves by
// probability at each stage, and notes what it took and what it said of whom.
package relay

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"mailsidecar/sim/chance"
)

// Stage is where in the dialogue the relay is.
type Stage int

// The stages, in their order.
const (
	Greeting Stage = iota
	Hello
	Auth
	Mail
	Rcpt
	Data
	Dot
	Stages
)

var stageNames = [Stages]string{"greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "content"}

func (s Stage) String() string { return stageNames[s] }

// MarshalText is the stage's name.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads it.
func (s *Stage) UnmarshalText(text []byte) error { return named((*int)(s), stageNames[:], text) }

// Fault is a way to misbehave.
type Fault int

// The faults. Each may happen at each stage.
const (
	Refuse     Fault = iota // 5yz
	Defer                   // 4yz
	Less                    // 4yz that asks for less at a time
	Bye                     // 421, and the end of the connection
	Drop                    // the end of the connection, and no reply
	Hang                    // no reply any more
	Freeze                  // a half-open connection: it is as good as gone, and no end sees it
	Slow                    // the reply comes after seconds or minutes
	Wrong                   // a reply that does not belong there
	Extra                   // a second reply, which answers no command
	LostBehind              // at the final dot: the message is taken, and the reply lost
	HungBehind              // at the final dot: the message is taken, and no reply comes
	Late                    // at the final dot: taken, and the reply comes after the client's patience
	Faults
)

var faultNames = [Faults]string{"refuse", "defer", "less", "421", "drop", "hang", "freeze", "slow", "wrong", "extra", "lost behind", "hung behind", "late"}

func (f Fault) String() string { return faultNames[f] }

// MarshalText is the fault's name.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads it.
func (f *Fault) UnmarshalText(text []byte) error { return named((*int)(f), faultNames[:], text) }

// named sets n to the place of the text in the list.
func named(n *int, list []string, text []byte) error {
	if *n = slices.Index(list, string(text)); *n < 0 {
		return fmt.Errorf("%q is none of %q", text, list)
	}
	return nil
}

// Odds are the probabilities of each fault at each stage. The zero value behaves well.
type Odds [Stages][Faults]float64

// MarshalJSON names those that are not zero.
func (o Odds) MarshalJSON() ([]byte, error) {
	all := map[Stage]map[Fault]float64{}
	for stage := range Stages {
		for fault := range Faults {
			if p := o[stage][fault]; p > 0 {
				if all[stage] == nil {
					all[stage] = map[Fault]float64{}
				}
				all[stage][fault] = p
			}
		}
	}
	return json.Marshal(all)
}

// UnmarshalJSON reads them.
func (o *Odds) UnmarshalJSON(data []byte) error {
	var all map[Stage]map[Fault]float64
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for stage, faults := range all {
		for fault, p := range faults {
			o[stage][fault] = p
		}
	}
	return nil
}

// Draw draws odds: most are zero, so that most worlds lack most faults. rough is how many
// are not.
func Draw(c chance.Chance, rough float64) (o Odds) {
	for stage := range Stages {
		for fault := range Faults {
			at := c.N(int(stage)).N(int(fault))
			if fault >= LostBehind && stage != Dot || !at.Of("any").Happens(rough) {
				continue
			}
			o[stage][fault] = chance.Pick(at.Of("odds"), 0.02, 0.1, 0.1, 0.3)
		}
	}
	return o
}

// Strays says that replies may come which answer no command, or not the one before.
func (o *Odds) Strays() bool {
	for _, faults := range o {
		if faults[Wrong]+faults[Extra] > 0 {
			return true
		}
	}
	return false
}

// pick returns the fault that happens, or Faults for none.
func (o *Odds) pick(stage Stage, c chance.Chance) Fault {
	x := c.Of("fault").Float()
	for fault, p := range o[stage] {
		if x -= p; x < 0 {
			return Fault(fault)
		}
	}
	return Faults
}

// Span is a time in the history, from its beginning.
type Span struct{ From, To time.Duration }

func (s Span) holds(at time.Duration) bool { return at >= s.From && at < s.To }
