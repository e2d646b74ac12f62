package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// Report is the result of [Relay.Check] for one relay: every rung of its ladder, each
// on its own, without sending mail. Durations are in milliseconds.
type Report struct {
	Name string `json:"name"`
	Host string `json:"host"`
	// ServerName is the name that the certificate must carry, where it is not Host.
	ServerName string `json:"server_name,omitempty"`
	// Addresses are the IP addresses that Host resolves to.
	Addresses []string `json:"addresses,omitempty"`
	DNSMillis int64    `json:"dns_ms"`
	// NameServers are those that were asked in vain when Host could not be resolved.
	NameServers []NameServer `json:"name_servers,omitempty"`
	// Failure is set when Host could not be resolved; the rungs are then not tried.
	Failure *CheckFailure `json:"failure,omitempty"`
	Rungs   []RungCheck   `json:"rungs,omitempty"` // in the ladder's order
	// Others are other ports on which relays listen, without a login. They are tried
	// where no rung can take mail before the login.
	Others []RungCheck `json:"other_ports,omitempty"`
	// Sender is the reverse-path that MAIL was tried with; empty where none was.
	Sender string `json:"sender,omitempty"`
	// OK says that a message could be sent now: some rung has no failure, and the
	// credentials and the sender, if there are any, were accepted.
	OK bool `json:"ok"`
}

// NameServer is a DNS server that this machine asks.
type NameServer struct {
	Address string `json:"address"` // IP address; with the port where that is not 53
	// Answers says that it had an answer in time, when it was asked on its own.
	Answers bool `json:"answers"`
}

// RungCheck is how far the check of one rung came.
type RungCheck struct {
	Port int `json:"port"`
	// Mode is "starttls", "tls" (implicit) or "none".
	Mode string `json:"mode"`
	// TCP is the state of the port: "open", "refused", "no_answer" (a firewall drops
	// the packets, or the host is down), or "unreachable" for any other error.
	TCP       string `json:"tcp"`
	TCPMillis int64  `json:"tcp_ms"`
	Address   string `json:"address,omitempty"` // IP address and port that answered
	// Families are IPv4 and IPv6 apart, where the relay has addresses of both.
	Families []FamilyCheck `json:"families,omitempty"`
	Banner   string        `json:"banner,omitempty"`
	// Capabilities are the lines of the last EHLO reply, after TLS where there is any.
	Capabilities []string `json:"capabilities,omitempty"`
	// Mechanisms are the AUTH mechanisms offered there, in upper case.
	Mechanisms []string  `json:"mechanisms,omitempty"`
	TLS        *TLSCheck `json:"tls,omitempty"`
	// Auth is "accepted", "refused", "paused" or "not_tried". One login is enough, and
	// repeated failures lock accounts out, so only the first rung that gets so far is
	// tried; none is without credentials. "paused" is a login that is not tried before
	// NextLogin: Failure is that of the last one, which this check has not made.
	Auth      string    `json:"auth"`
	Mechanism string    `json:"mechanism,omitempty"` // the AUTH mechanism tried
	NextLogin time.Time `json:"next_login_at,omitzero"`
	// Failure is why the rung is of no use; nil when it could take mail.
	Failure *CheckFailure `json:"failure,omitempty"`
	Millis  int64         `json:"ms"` // the whole check of this rung
}

// FamilyCheck is what a port is over one family of addresses.
type FamilyCheck struct {
	Family  string  `json:"family"`            // "IPv4" or "IPv6"
	TCP     string  `json:"tcp"`               // as that of [RungCheck]
	Problem Problem `json:"problem,omitempty"` // empty where it is open
}

// TLSCheck is the TLS session and the certificate of a rung, also of a certificate
// that does not verify.
type TLSCheck struct {
	Version string   `json:"version,omitempty"` // "TLS 1.3"; empty when the handshake failed
	Subject string   `json:"subject,omitempty"`
	Names   []string `json:"names,omitempty"` // DNS names and IP addresses
	Issuer  string   `json:"issuer,omitempty"`
	// Interceptor is the software that has made the certificate in the relay's place.
	Interceptor string `json:"interceptor,omitempty"`
	// Pin is the relay's key as SMTP_TLS_PIN has it.
	Pin       string    `json:"pin,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"` // negative when expired
	// LinkExpired is when the first of the authorities' own certificates ended that the
	// relay sends; zero where none has.
	LinkExpired time.Time `json:"chain_expired_at,omitzero"`
}

// CheckFailure is a [mailer.Failure] for printing.
type CheckFailure struct {
	Stage    string  `json:"stage"` // Stage.String
	Class    string  `json:"class"` // Class.String
	Problem  Problem `json:"problem"`
	Code     int     `json:"reply_code,omitempty"`
	Enhanced string  `json:"enhanced_code,omitempty"`
	// Text is the relay's own words where there is a code, else ours.
	Text string `json:"text"`
	// Cause is why a login failed beyond that: what the relay says of an OAuth2 token,
	// or why none could be fetched. Empty where there is no more to say.
	Cause string `json:"cause,omitempty"`
	// Err is the failure's, for [errors.As]; may be nil.
	Err error `json:"-"`
}

// checkFailureJSON is a [CheckFailure] with the old name of the reply code.
type checkFailureJSON struct {
	plainFailure
	OldCode int `json:"code,omitempty"` // deprecated
}

type plainFailure CheckFailure

// MarshalJSON writes the reply code by its old name, "code", too.
func (f CheckFailure) MarshalJSON() ([]byte, error) {
	return json.Marshal(checkFailureJSON{plainFailure(f), f.Code})
}

// UnmarshalJSON takes the reply code by either name.
func (f *CheckFailure) UnmarshalJSON(data []byte) error {
	var read checkFailureJSON
	err := json.Unmarshal(data, &read)
	*f = CheckFailure(read.plainFailure)
	f.Code = cmp.Or(f.Code, read.OldCode)
	return err
}

// Check tries every rung on its own, all at the same time and without a race, and
// logs in on the first that could take mail. There it says MAIL with the reverse-path that
// mail of the sender would have, unless there is none, and RSET. It sends no mail, and does not change which
// rung deliveries use.
//
// A name server and a port have [Timeouts.Connect] to answer. A rung that has
// connected has the other time-outs, and until ctx ends.
func (r *Relay) Check(ctx context.Context, sender string) Report {
	report := Report{Name: r.opts.Name, Host: r.opts.Host}
	if r.opts.ServerName != r.opts.Host {
		report.ServerName = r.opts.ServerName
	}
	if !r.enter() {
		report.Failure = checkFailure(&mailer.Failure{Stage: mailer.StageConnect, Text: "shutting down"})
		return report
	}
	defer r.work.Done()
	begin := time.Now()
	var f *mailer.Failure
	report.Addresses, report.NameServers, f = r.resolve(ctx)
	report.DNSMillis = time.Since(begin).Milliseconds()
	if f != nil {
		report.Failure = checkFailure(f)
		return report
	}
	k := newCheckup(r, report.Addresses, cmp.Or(r.opts.ReturnPath, r.opts.ForceFrom.Email, sender))
	k.run(ctx)
	report.Rungs, report.Others = k.checks, k.otherChecks()
	if k.sender != "" && k.senderTried {
		report.Sender = k.sender
	}
	report.OK = slices.ContainsFunc(report.Rungs, func(c RungCheck) bool {
		return c.Failure == nil && (!r.opts.authenticates() || c.Auth == authAccepted)
	}) && (!k.senderTried || k.senderAccepted)
	return report
}

// The values of RungCheck.Auth.
const (
	authAccepted = "accepted"
	authRefused  = "refused"
	authPaused   = "paused"
	authNotTried = "not_tried"
)

// The values of RungCheck.TCP.
const (
	tcpOpen        = "open"
	tcpRefused     = "refused"
	tcpNoAnswer    = "no_answer"
	tcpUnreachable = "unreachable"
)

func tcpState(p Problem) string {
	switch p {
	case "", ProblemDropped:
		return tcpOpen
	case ProblemRefused:
		return tcpRefused
	case ProblemNoAnswer:
		return tcpNoAnswer
	default:
		return tcpUnreachable
	}
}

// tlsCheck describes the session, or the certificate that did not verify. It returns
// nil when there was neither.
func tlsCheck(c *conn, f *mailer.Failure) *TLSCheck {
	if c.tls != nil {
		check := certificateCheck(c.tls.PeerCertificates)
		check.Version = tls.VersionName(c.tls.Version)
		return check
	}
	if f != nil {
		if e, ok := errors.AsType[*tls.CertificateVerificationError](f.Err); ok && len(e.UnverifiedCertificates) > 0 {
			return unverifiedCheck(e.UnverifiedCertificates)
		}
	}
	return nil
}

func certificateCheck(chain []*x509.Certificate) *TLSCheck {
	cert := chain[0]
	check := &TLSCheck{
		Subject: mailer.Printable(cert.Subject.String(), maxReplyText), Issuer: mailer.Printable(cert.Issuer.String(), maxReplyText),
		Pin: PinOf(cert).String(), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, DaysLeft: int(math.Floor(time.Until(cert.NotAfter).Hours() / 24)),
	}
	for _, name := range cert.DNSNames {
		check.Names = append(check.Names, mailer.Printable(name, maxReplyText))
	}
	for _, ip := range cert.IPAddresses {
		check.Names = append(check.Names, ip.String())
	}
	return check
}

func unverifiedCheck(chain []*x509.Certificate) *TLSCheck {
	check := certificateCheck(chain)
	check.Interceptor = interceptorOf(chain)
	for _, cert := range chain[1:] {
		if time.Now().After(cert.NotAfter) && (check.LinkExpired.IsZero() || cert.NotAfter.Before(check.LinkExpired)) {
			check.LinkExpired = cert.NotAfter
		}
	}
	return check
}

// RungOf is what a failed delivery shows of the rung that failed.
func RungOf(f *mailer.Failure) RungCheck {
	rung := mailer.Rung{Port: f.Port, Implicit: relays.ImplicitTLS(f.Port)} // as far as is known
	check := RungCheck{Port: f.Port, Mode: rung.Mode(), TCP: tcpOpen, Auth: authNotTried, TLS: tlsCheck(&conn{}, f), Failure: checkFailure(f)}
	if f.Stage == mailer.StageConnect {
		check.TCP = tcpState(check.Failure.Problem)
	}
	return check
}

func checkFailure(f *mailer.Failure) *CheckFailure {
	return &CheckFailure{
		Stage: f.Stage.String(), Class: f.Class.String(), Problem: ProblemOf(f),
		Code: f.Reply.Code, Enhanced: f.Reply.Enhanced, Text: cmp.Or(f.Reply.Text, f.Text), Cause: LoginCause(f), Err: f.Err,
	}
}
