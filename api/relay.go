package api

import "time"

// Relays answers GET /v1/relays, in order of preference.
type Relays struct {
	Relays []Relay `json:"relays"`
}

// The statuses of a relay.
const (
	RelayUp      = "up"
	RelayUnknown = "unknown" // no connection was made yet
	RelayFailing = "failing"
	RelayPaused  = "paused" // the queue leaves it alone until PausedUntil
)

// Relay is what is known of one relay, without asking it.
type Relay struct {
	Name        string      `json:"name"`
	Host        string      `json:"host"`
	Status      string      `json:"status"` // one of the Relay constants
	Ladder      []RelayRung `json:"ladder"` // in order of preference
	Senders     []string    `json:"senders,omitempty"`
	PausedUntil time.Time   `json:"paused_until,omitzero"`
	// PausedByOperator says that a person keeps mail from it; nil otherwise.
	PausedByOperator *RelayPause `json:"paused_by_operator,omitempty"`
	// Failure is why it is failing or paused; nil otherwise. It has no Kind.
	Failure     *Outcome    `json:"failure,omitempty"`
	Advice      []Advice    `json:"advice,omitempty"` // none: nothing is wrong
	Connections Connections `json:"connections"`
	// FailingSince is when the first of its failures was seen; zero where it can be used, or nothing
	// was tried lately.
	FailingSince time.Time `json:"failing_since,omitzero"`
	// CertificateExpires is when the certificate ends that the port in use showed last; zero where
	// it showed none within 12 hours.
	CertificateExpires time.Time `json:"certificate_expires_at,omitzero"`
	// LastDelivery is when the relay last took mail; zero where it has not since the start of this instance.
	LastDelivery time.Time `json:"last_delivery_at,omitzero"`
	Rate         *Rate     `json:"rate,omitempty"`   // nil: the relay has none
	Login        *Login    `json:"login,omitempty"`  // nil: the last one was accepted, or there was none
	OAuth2       *OAuth2   `json:"oauth2,omitempty"` // nil: the relay does not use it
}

// Advice is one thing that was found out about a relay, and what to do about it, in
// sentences for the operator.
type Advice struct {
	Ports []int  `json:"ports,omitempty"` // none: the relay as a whole
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // empty: nothing has to be done
}

// RelayRung is one port of a relay.
type RelayRung struct {
	Port    int    `json:"port"`
	Mode    string `json:"mode"`    // starttls, tls (implicit) or none
	Serving bool   `json:"serving"` // in use
}

// Connections says how many connections a relay has, and why no more.
type Connections struct {
	Open    int    `json:"open"`
	Limit   int    `json:"limit"`   // of this moment, up to Max
	Max     int    `json:"max"`     // as configured
	Waiting int    `json:"waiting"` // messages that wait for a connection
	Reason  string `json:"reason"`  // why Limit is what it is
}

// Login says why a relay gets no new connections: the last login failed. Open ones
// go on.
type Login struct {
	Refused int       `json:"refused"`          // in a row
	Next    time.Time `json:"next_at,omitzero"` // zero: at once
	Failure Outcome   `json:"failure"`          // of the last login. It has no Kind
}

// OAuth2 says how the access tokens of a relay fare. Times are in UTC, and zero where
// they are not known.
type OAuth2 struct {
	Account            string    `json:"account,omitempty"` // of the person who logged in, where one did
	TokenExpires       time.Time `json:"token_expires_at,omitzero"`
	LoginExpires       time.Time `json:"login_expires_at,omitzero"`
	SecretExpires      time.Time `json:"secret_expires_at,omitzero"`
	CertificateExpires time.Time `json:"certificate_expires_at,omitzero"`
	// Error is why the last request for a token failed; empty when it succeeded. Mail
	// goes on as long as the token in use is good.
	Error string    `json:"error,omitempty"`
	Retry time.Time `json:"retry_at,omitzero"` // when the server is asked again after that
	// Warnings are login_expires, secret_expires, certificate_expires, clock_differs or
	// login_not_stored. The relay's advice has sentences for them.
	Warnings []string `json:"warnings,omitempty"`
}

// Rate says why mail waits though the relay is up.
type Rate struct {
	Messages int    `json:"messages"` // that may be sent
	Per      string `json:"per"`      // in this time, such as "1m0s"
	// Used is how many were sent within that time, or are about to be; nil where it is not known: instances
	// share the rate, and this one has not asked within that time.
	Used    *int      `json:"used,omitempty"`
	Waiting int       `json:"waiting"` // messages that wait for a turn
	Next    time.Time `json:"next,omitzero"`
}
