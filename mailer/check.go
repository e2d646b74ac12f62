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

// Problem names the cause of a failure, as far as it can be told, so that
// advice can be given for it.
type Problem string

const (
	ProblemName            Problem = "name_not_found"         // DNS has no address for the host
	ProblemRefused         Problem = "refused"                // nothing listens there, or a firewall rejects
	ProblemNoAnswer        Problem = "no_answer"              // packets are dropped: a blocked port, or a dead host
	ProblemUnreachable     Problem = "unreachable"            // no route, or another network error
	ProblemSilent          Problem = "silent"                 // connected, but a reply never came
	ProblemDropped         Problem = "dropped"                // the relay closed the connection
	ProblemTLSMode         Problem = "wrong_tls_mode"         // implicit TLS where STARTTLS is spoken, or the reverse
	ProblemNoSTARTTLS      Problem = "starttls_not_offered"   // or stripped on the way
	ProblemTLS             Problem = "tls_failed"             // no common version or cipher, or an alert
	ProblemExpired         Problem = "certificate_expired"    // or not valid yet: a wrong clock on either side
	ProblemWrongName       Problem = "certificate_wrong_name" // SMTP_HOST is not in the certificate
	ProblemUnknownCA       Problem = "certificate_unknown_ca" // self-signed, private CA, or an intercepting proxy
	ProblemCertificate     Problem = "certificate_not_valid"  // anything else about the certificate
	ProblemNoMechanism     Problem = "no_common_mechanism"    // AUTH mechanisms of the relay and ours do not meet
	ProblemCredentials     Problem = "credentials_refused"    // wrong user name or password
	ProblemAppPassword     Problem = "app_password_needed"    // the account has two-step verification
	ProblemOAuth2          Problem = "oauth2_needed"          // the provider no longer takes passwords
	ProblemToken           Problem = "token_not_available"    // the OAuth2 token could not be fetched
	ProblemAuthUnavailable Problem = "auth_unavailable"       // 4yz to AUTH: try again later
	ProblemCleartext       Problem = "clear_text_refused"     // SMTP_TLS=none on a public address
	ProblemNotSMTP         Problem = "not_smtp"               // what answers does not speak SMTP
	ProblemOther           Problem = "other"
)
