package sim

import (
	"bytes"
	"encoding/json"
	"time"

	"mailsidecar/sim/chance"
)

// record is how a file keeps a world, with the requests of its clients: a later change of
// what a seed makes does not change it.
type record struct {
	Found string // what was found with it
	World *World
}

// bubbleBegins is when time begins in a bubble, see package synctest.
var bubbleBegins = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Record returns the world as a file keeps it.
func Record(w *World, found string) ([]byte, error) {
	kept := *w
	kept.Drafts = map[int]*Draft{}
	for _, a := range w.Actions {
		switch a.Kind {
		default:
			kept.keep(w, a.Of, a.Of)
		case Submit:
			kept.keep(w, a.ID, a.ID)
		case Repeat, Other:
			kept.keep(w, a.Of, a.ID)
		case RetryAll, CancelAll, Pause, Drain, Stop, Crash, DiskFull, FailStore, SetClock, Suspend, CutOff, LoseBeats, Hang:
		}
	}
	return json.Marshal(record{found, &kept})
}

// keep notes the request of an action.
func (w *World) keep(of *World, submit, action int) {
	other := of.action(action).Kind == Other
	w.Drafts[action] = of.draft(submit, action, other, bubbleBegins.Add(of.action(submit).At))
}

// Recorded returns the world that a file keeps, and what was found with it.
func Recorded(data []byte) (w *World, found string, err error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, "", err
	}
	r.World.chance = chance.New(r.World.Seed)
	return r.World, r.Found, nil
}
