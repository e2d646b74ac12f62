package api

import "time"

// Keys answers GET /v1/keys: the API keys, in the order of the configuration. There are no
// secrets in it.
type Keys struct {
	// Since is when this instance started: since then it knows when a key was used.
	Since time.Time `json:"since"`
	Keys  []Key     `json:"keys"`
}

// Key is one API key.
type Key struct {
	Name    string   `json:"name"`              // empty for the requests to a server without keys
	Roles   []string `json:"roles"`             // send, read, or admin, which includes both
	Senders []string `json:"senders,omitempty"` // none: any
	Rate    *KeyRate `json:"rate,omitempty"`    // nil: it has none
	// LastUsed is when a request last came with the key, at this instance; zero: never since
	// its start.
	LastUsed time.Time `json:"last_used_at,omitzero"`
}

// KeyRate is how many messages a key may submit.
type KeyRate struct {
	Messages int    `json:"messages"`
	Per      string `json:"per"` // such as "1m0s"
	// Used is how many of Messages are used up; more than these after a large batch. Nil where
	// it is not known: instances share the rate in a database that did not answer.
	Used *int `json:"used,omitempty"`
}

// Settings answers GET /v1/settings: the settings in force that have a value, in the order of
// the documentation.
type Settings struct {
	Settings []Setting `json:"settings"`
}

// Setting is one variable of the configuration.
type Setting struct {
	Name   string `json:"name"`   // such as SMTP_HOST
	Value  string `json:"value"`  // that of a secret is [redacted]
	Source string `json:"source"` // one of the Source constants
	About  string `json:"about"`  // what the setting is
}

// Where a setting comes from.
const (
	SourceDefault  = "default"
	SourceVariable = "variable" // of the environment
	SourceFile     = "file"     // that a variable with _FILE names
	SourceProvider = "provider" // the preset that SMTP_PROVIDER names
)
