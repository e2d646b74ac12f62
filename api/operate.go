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

// Events answers GET /v1/events: what happened to the server and its relays, the newest first, a
// hundred at most.
type Events struct {
	// Since is when this instance started: it has no earlier events.
	Since  time.Time `json:"since"`
	Events []Event   `json:"events"`
}

// Event is one thing that happened.
type Event struct {
	At    time.Time `json:"at"`
	Kind  string    `json:"kind"`            // one of the Event constants
	Level string    `json:"level"`           // info, warning or error
	Relay string    `json:"relay,omitempty"` // which it is about; empty: none
	Text  string    `json:"text"`            // a sentence for people, without mail addresses
}

// The levels of an event.
const (
	EventInfo    = "info"
	EventWarning = "warning"
	EventError   = "error"
)

// The kinds of events.
const (
	EventStarted      = "started"
	EventStopping     = "stopping"
	EventQueue        = "queue"         // what the last run or another instance left
	EventRelayFailing = "relay_failing" // it cannot be used
	EventRelayUsable  = "relay_usable"  // it can be used again
	EventRelayPaused  = "relay_paused"  // for its trouble, or by an operator
	EventRelayResumed = "relay_resumed"
	EventPort         = "port"        // another port serves
	EventLogin        = "login"       // OAuth2 logins and tokens
	EventCertificate  = "certificate" // renewed, or not
	EventDKIM         = "dkim"
	EventDrain        = "drain"       // it began or ended
	EventRefusing     = "refusing"    // there is no room for new mail
	EventStore        = "store"       // the store or its database fails, or works again
	EventConnections  = "connections" // none can be accepted
)
