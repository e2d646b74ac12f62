package api

import "time"

// Stats answers GET /v1/stats: of the messages of one key, or of all.
type Stats struct {
	// Key is the name of the API key whose mail the numbers are of; empty where they are of all
	// mail.
	Key string `json:"key,omitzero"`
	// Counting says that the numbers may be wrong by a little: they are being counted anew,
	// after a crash or an upgrade.
	Counting bool `json:"counting"`
	// Statuses are numbers of messages, as far as retention keeps them.
	Statuses map[string]int64 `json:"statuses"`
	// OldestDue is since when the recipient waits that has been due for the longest; zero
	// where nothing is due.
	OldestDue time.Time  `json:"oldest_due,omitzero"`
	Hour      StatsSince `json:"hour"`
	Day       StatsSince `json:"day"`
	// Buckets divide Day; each is ten minutes long.
	Buckets []StatsBucket `json:"buckets"`
	// Hours are the last seven days, hour by hour, with the present hour; only where the request
	// has days=7.
	Hours  []StatsBucket `json:"hours,omitempty"`
	Keys   []StatsKey    `json:"keys"`
	Relays []StatsRelay  `json:"relays"`
	// Replies are why mail failed within the day, the most frequent first: 50 at most.
	Replies []StatsReply `json:"replies"`
}

// StatsCounts are what happened within some time.
type StatsCounts struct {
	Messages int64 `json:"messages"` // accepted
	Accepted int64 `json:"accepted"` // recipients of these
	// The others count what relays said of recipients, try by try.
	Delivered int64 `json:"delivered"`
	Deferred  int64 `json:"deferred"`
	Bounced   int64 `json:"bounced"`
	Uncertain int64 `json:"uncertain"`
}

// StatsSince is what happened since a time.
type StatsSince struct {
	Since time.Time `json:"since"`
	StatsCounts
}

// StatsBucket is what happened within ten minutes, or an hour, from At on.
type StatsBucket struct {
	At time.Time `json:"at"`
	StatsCounts
}

// StatsKey are the numbers of one API key; its name is empty on a server without keys.
type StatsKey struct {
	Name      string           `json:"name"`
	Statuses  map[string]int64 `json:"statuses"`
	OldestDue time.Time        `json:"oldest_due,omitzero"`
	Hour      StatsCounts      `json:"hour"`
	Day       StatsCounts      `json:"day"`
}

// StatsRelay are the numbers of one relay, and how it is.
type StatsRelay struct {
	Name string `json:"name"`
	// Status is one of the Relay constants; empty where it is not configured any more.
	Status      string    `json:"status,omitempty"`
	PausedUntil time.Time `json:"paused_until,omitzero"`
	// PausedByOperator says that a person keeps mail from it; nil otherwise.
	PausedByOperator *RelayPause `json:"paused_by_operator,omitempty"`
	// Advice says what is wrong with it and what to do; empty when nothing is.
	Advice []Advice    `json:"advice,omitempty"`
	Hour   StatsCounts `json:"hour"`
	Day    StatsCounts `json:"day"`
}

// StatsReply is a reason for which recipients were not delivered.
type StatsReply struct {
	Relay        string `json:"relay"`
	Class        string `json:"class"`
	ReplyCode    int    `json:"reply_code,omitzero"` // zero: there was no reply, or several
	EnhancedCode string `json:"enhanced_code,omitempty"`
	// Text is the reply's, with a * for each part that differs from mail to mail.
	Text  string    `json:"text"`
	Count int64     `json:"count"` // tries of a recipient
	First time.Time `json:"first_at"`
	Last  time.Time `json:"last_at"`
	// Filter selects the messages with a recipient that it is the last failure of.
	Filter StatsFilter `json:"filter"`
}

// StatsFilter is the part of a [Filter] that selects by why recipients were not delivered.
type StatsFilter struct {
	Relay        string `json:"relay,omitempty"`
	ReplyCode    int    `json:"reply_code,omitzero"`
	EnhancedCode string `json:"enhanced_code,omitempty"`
	Text         string `json:"text"`
}
