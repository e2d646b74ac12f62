package mailer

import "time"

// RelayReport is what Relay.Check found out about one relay: every rung of its
// ladder, each on its own, without sending mail. Durations are in milliseconds.
type RelayReport struct {
	Name string `json:"name"`
	Host string `json:"host"`
	// Addresses are the IP addresses that Host resolves to.
	Addresses []string `json:"addresses,omitempty"`
	DNSMillis int64    `json:"dns_ms"`
	// Failure is set when Host could not be resolved; the rungs are then not tried.
	Failure *CheckFailure `json:"failure,omitempty"`
	Rungs   []RungCheck   `json:"rungs,omitempty"` // in the ladder's order
	// OK says that a message could be sent now: some rung has no failure, and
	// where there are credentials they were accepted.
	OK bool `json:"ok"`
}

// RungCheck is how far one rung was followed.
type RungCheck struct {
	Port int `json:"port"`
	// Mode is "starttls", "tls" (implicit) or "none".
	Mode string `json:"mode"`
	// TCP is what the port does: "open", "refused", "no_answer" (dropped by a
	// firewall, or a dead host), or "unreachable" for any other error.
	TCP       string `json:"tcp"`
	TCPMillis int64  `json:"tcp_ms"`
	Address   string `json:"address,omitempty"` // IP address and port that answered
	Banner    string `json:"banner,omitempty"`
	// Capabilities are the lines of the last EHLO reply, after TLS where there is any.
	Capabilities []string `json:"capabilities,omitempty"`
	// Mechanisms are the AUTH mechanisms offered there, in upper case.
	Mechanisms []string  `json:"mechanisms,omitempty"`
	TLS        *TLSCheck `json:"tls,omitempty"`
	// Auth is "accepted", "refused", or "not_tried": without credentials, when
	// the rung did not get so far, and on all rungs but the first that does,
	// for one login is enough and repeated failures lock accounts out.
	Auth      string `json:"auth"`
	Mechanism string `json:"mechanism,omitempty"` // the AUTH mechanism tried
	// Failure is where the rung stopped; nil when it could take mail.
	Failure *CheckFailure `json:"failure,omitempty"`
	Millis  int64         `json:"ms"` // the whole check of this rung
}

// TLSCheck is the TLS session and the certificate that a rung showed. It is
// filled in for a certificate that does not verify, too.
type TLSCheck struct {
	Version  string    `json:"version,omitempty"` // "TLS 1.3"; empty when the handshake failed
	Subject  string    `json:"subject,omitempty"`
	Names    []string  `json:"names,omitempty"` // DNS names and IP addresses
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"` // negative when expired
}

// CheckFailure is a [Failure] for printing.
type CheckFailure struct {
	Stage    string  `json:"stage"` // Stage.String
	Class    string  `json:"class"` // Class.String
	Problem  Problem `json:"problem"`
	Code     int     `json:"code,omitempty"`
	Enhanced string  `json:"enhanced_code,omitempty"`
	// Text is the relay's own words where there is a code, else ours.
	Text string `json:"text"`
}
