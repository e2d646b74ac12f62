package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// micros is how a time is stored: NULL when it is zero.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func fromMicros(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// blob is how an id is stored; false when it is none.
func blob(id string) ([]byte, bool) {
	u, err := uuid.Parse(id)
	return u[:], err == nil && len(id) == 36
}

func fromBlob(b []byte) (string, error) {
	u, err := uuid.FromBytes(b)
	return u.String(), err
}

// laneText is how a lane is stored, so that lanes sort as they are served: the
// priority as a digit, 0 for high, and the key.
func laneText(l queue.Lane) string {
	return string(rune('1'-l.Priority)) + l.Key
}

func laneOf(text string) (queue.Lane, error) {
	if text == "" || text[0] < '0' || text[0] > '2' {
		return queue.Lane{}, fmt.Errorf("%w: lane %q", queue.ErrCorrupt, text)
	}
	return queue.Lane{Priority: mailer.Priority('1' - int(text[0])), Key: text[1:]}, nil
}

// storedResult is a mailer.Result as JSON. Names, not numbers, so that the file
// can be read without this program and outlives a change of the constants.
type storedResult struct {
	To       string         `json:"to,omitempty"`
	Code     int            `json:"code,omitempty"`
	Enhanced string         `json:"enhanced,omitempty"`
	Text     string         `json:"text,omitempty"`
	Failure  *storedFailure `json:"failure,omitempty"`
}

type storedFailure struct {
	Class    string `json:"class"`
	Stage    string `json:"stage"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Reply    string `json:"reply,omitempty"`
	Relay    string `json:"relay,omitempty"`
	Port     int    `json:"port,omitempty"`
	Text     string `json:"text,omitempty"`
}

type storedRung struct {
	Port     int            `json:"port"`
	Mode     string         `json:"mode"`
	Won      bool           `json:"won,omitempty"`
	Duration int64          `json:"us"`
	Failure  *storedFailure `json:"failure,omitempty"`
}

func packFailure(f *mailer.Failure) *storedFailure {
	if f == nil {
		return nil
	}
	return &storedFailure{
		Class: f.Class.String(), Stage: f.Stage.String(), Code: f.Reply.Code, Enhanced: f.Reply.Enhanced,
		Reply: f.Reply.Text, Relay: f.Relay, Port: f.Port, Text: f.Text,
	}
}

func (f *storedFailure) unpack() *mailer.Failure {
	if f == nil {
		return nil
	}
	return &mailer.Failure{
		Class: classNamed(f.Class), Stage: stageNamed(f.Stage), Relay: f.Relay, Port: f.Port, Text: f.Text,
		Reply: mailer.Reply{Code: f.Code, Enhanced: f.Enhanced, Text: f.Reply},
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

func packResult(r mailer.Result) storedResult {
	return storedResult{Code: r.Reply.Code, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text, Failure: packFailure(r.Failure)}
}

func (s storedResult) unpack() mailer.Result {
	return mailer.Result{
		ForwardPath: s.To, Failure: s.Failure.unpack(),
		Reply: mailer.Reply{Code: s.Code, Enhanced: s.Enhanced, Text: s.Text},
	}
}

func packResults(results []mailer.Result) []storedResult {
	packed := make([]storedResult, len(results))
	for i, r := range results {
		packed[i] = packResult(r)
		packed[i].To = r.ForwardPath
	}
	return packed
}

func packLadder(ladder []mailer.RungReport) any {
	if len(ladder) == 0 {
		return nil
	}
	packed := make([]storedRung, len(ladder))
	for i, r := range ladder {
		packed[i] = storedRung{r.Rung.Port, modeOf(r.Rung), r.Won, r.Duration.Microseconds(), packFailure(r.Failure)}
	}
	return packed
}

func unpackLadder(packed []storedRung) []mailer.RungReport {
	var ladder []mailer.RungReport
	for _, r := range packed {
		ladder = append(ladder, mailer.RungReport{
			Rung: rungOf(r.Port, r.Mode), Won: r.Won, Failure: r.Failure.unpack(),
			Duration: time.Duration(r.Duration) * time.Microsecond,
		})
	}
	return ladder
}

// modeOf is the rung's mode; empty when there was no rung.
func modeOf(r mailer.Rung) string {
	if r == (mailer.Rung{}) {
		return ""
	}
	return r.Mode()
}

func rungOf(port int, mode string) mailer.Rung {
	return mailer.Rung{Port: port, Implicit: mode == "tls", Clear: mode == "none"}
}

// toJSON is how structured values are stored: NULL when v is nil.
func toJSON(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode for the store: %w", err)
	}
	return string(b), nil
}

func fromJSON(s sql.NullString, into any) error {
	if !s.Valid {
		return nil
	}
	if err := json.Unmarshal([]byte(s.String), into); err != nil {
		return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	return nil
}
