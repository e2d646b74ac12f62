package api

import "time"

// Pause is the body of POST /v1/relays/{name}/pause, which may be empty.
type Pause struct {
	For    string `json:"for,omitempty"`    // such as "2h"; empty: until it is resumed
	Reason string `json:"reason,omitempty"` // up to MaxReason characters
}

// MaxReason is how many characters the reason for a pause may have.
const MaxReason = 200

// RelayPause says that a person keeps mail from a relay.
type RelayPause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is resumed
	Reason string    `json:"reason,omitempty"`
}

// Drain answers GET, POST and DELETE /v1/drain.
type Drain struct {
	Draining bool      `json:"draining"` // new mail is refused
	Since    time.Time `json:"since,omitzero"`
	// EndedAt is when a person ended the last drain of this run of the server.
	EndedAt time.Time `json:"ended_at,omitzero"`
	Due     int64     `json:"due"`              // recipients that are due, or being tried
	Later   int64     `json:"later"`            // recipients that are due later
	NextAt  time.Time `json:"next_at,omitzero"` // when the first of these is
	Held    int64     `json:"held"`             // messages that wait for a person
}
