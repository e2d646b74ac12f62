package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// Problem names the cause of a failure, as far as it is known, so that there can be
// advice for it.
type Problem string

const (
	ProblemName            Problem = "name_not_found"               // DNS has no address for the host
	ProblemNameFailed      Problem = "name_server_failed"           // the resolver answers with an error, or refuses
	ProblemNameSilent      Problem = "name_server_silent"           // the resolver does not answer
	ProblemRefused         Problem = "refused"                      // nothing listens there, or a firewall rejects
	ProblemNoAnswer        Problem = "no_answer"                    // packets are dropped: a blocked port, or a dead host
	ProblemRejected        Problem = "rejected"                     // a router or firewall says that the host cannot be reached, or may not be
	ProblemUnreachable     Problem = "unreachable"                  // no route, or another network error
	ProblemBarred          Problem = "barred"                       // the system forbids this process to connect
	ProblemSilent          Problem = "silent"                       // connected, but a reply never came
	ProblemDropped         Problem = "dropped"                      // the relay closed the connection
	ProblemTurnedAway      Problem = "turned_away"                  // 5yz in place of a greeting
	ProblemBusy            Problem = "busy"                         // 4yz before the login, or to MAIL: try again later
	ProblemHelo            Problem = "helo_refused"                 // 5yz to EHLO
	ProblemTLSMode         Problem = "wrong_tls_mode"               // implicit TLS where STARTTLS is spoken, or the reverse
	ProblemNoSTARTTLS      Problem = "starttls_not_offered"         // or stripped on the way
	ProblemSTARTTLSRefused Problem = "starttls_refused"             // offered, and refused
	ProblemTLS             Problem = "tls_failed"                   // no common version or cipher, or an alert
	ProblemIntercepted     Problem = "intercepted"                  // by the issuer: antivirus software, or a firewall
	ProblemExpired         Problem = "certificate_expired"          // or the clock is ahead
	ProblemNotYetValid     Problem = "certificate_not_yet_valid"    // most likely a wrong clock
	ProblemWrongName       Problem = "certificate_wrong_name"       // SMTP_HOST is not in the certificate
	ProblemSelfSigned      Problem = "certificate_self_signed"      // by no authority
	ProblemNoIntermediate  Problem = "certificate_chain_incomplete" // the relay does not send the authority's own certificate
	ProblemUnknownCA       Problem = "certificate_unknown_ca"       // private CA, or an intercepting proxy
	ProblemNoAuthorities   Problem = "no_authorities"               // this machine trusts none
	ProblemCertificate     Problem = "certificate_not_valid"        // anything else about the certificate
	ProblemPin             Problem = "certificate_not_pinned"       // another key than SMTP_TLS_PIN names
	ProblemClientCert      Problem = "client_certificate"           // the relay wants one, or does not take ours
	ProblemNoMechanism     Problem = "no_common_mechanism"          // AUTH mechanisms of the relay and ours do not meet
	ProblemCredentials     Problem = "credentials_refused"          // wrong user name or password
	ProblemAppPassword     Problem = "app_password_needed"          // the account has two-step verification
	ProblemOAuth2          Problem = "oauth2_needed"                // the provider no longer takes passwords
	ProblemLoginNeeded     Problem = "login_needed"                 // the relay says that the session is not logged in
	ProblemSubmissionOff   Problem = "smtp_auth_disabled"           // for the mailbox or all of the customer's: no login gets in
	ProblemForbidden       Problem = "login_forbidden"              // by a rule of the customer's organization
	ProblemBrowser         Problem = "browser_login_needed"         // the account's owner must log in with a browser
	ProblemMechanism       Problem = "mechanism_refused"            // the relay offers it, but does not know it
	ProblemNoLogin         Problem = "login_not_taken"              // 502 or 503 to AUTH: not on this connection
	ProblemToken           Problem = "token_not_available"          // the OAuth2 token could not be fetched
	ProblemTokenDead       Problem = "token_refused"                // the relay says that it expired or was revoked
	ProblemTokenEndsSoon   Problem = "token_ends_soon"              // the relay wants one that lasts longer
	ProblemTokenUnfit      Problem = "token_does_not_fit"           // another resource or mailbox, or no permission
	ProblemTokenScope      Problem = "token_without_right"          // its scope does not cover sending
	ProblemAuthUnavailable Problem = "auth_unavailable"             // 4yz to AUTH: try again later
	ProblemSender          Problem = "sender_refused"               // 5yz to MAIL
	ProblemCleartext       Problem = "clear_text_refused"           // SMTP_TLS=none on a public address
	ProblemNotSMTP         Problem = "not_smtp"                     // what answers does not speak SMTP
	ProblemOther           Problem = "other"
)

// OfName reports whether the relay's name could not be resolved.
func (p Problem) OfName() bool {
	return p == ProblemName || p == ProblemNameFailed || p == ProblemNameSilent
}

// cause is why something failed where no reply says it: the problem, one sentence for
// the caller, and the error for the log.
type cause struct {
	problem Problem
	text    string
	err     error // may be nil
}

func (c *cause) Error() string {
	if c.err == nil {
		return c.text
	}
	return c.text + ": " + mailer.Printable(c.err.Error(), maxReplyText)
}

func (c *cause) Unwrap() error { return c.err }

// loginRefused is the cause of a failure by a reply that refuses the login.
type loginRefused struct {
	word relays.LoginWord
	said *relays.TokenError // nil: no OAuth2 token was shown
}

func (e *loginRefused) Error() string {
	return cmp.Or(e.text(), "the relay refused the login")
}

// text is what the relay says of a token beside its reply; empty where it says nothing.
func (e *loginRefused) text() string {
	if e.said == nil || *e.said == (relays.TokenError{}) {
		return ""
	}
	text := "the relay says of the token:"
	for _, part := range [][2]string{{"status", e.said.Status}, {"schemes", e.said.Schemes}, {"scope", e.said.Scope}} {
		if part[1] != "" {
			text += " " + part[0] + " " + part[1] + ","
		}
	}
	return strings.TrimSuffix(text, ",")
}

// ProblemOf returns the cause of a failure; [ProblemOther] where it is not known.
func ProblemOf(f *mailer.Failure) Problem {
	if c, ok := errors.AsType[*cause](f.Err); ok {
		return c.problem
	}
	if refused, ok := errors.AsType[*loginRefused](f.Err); ok {
		return loginProblems[refused.word]
	}
	switch {
	case f.Stage == mailer.StageAuth:
		return loginProblems[relays.LoginRefusal(f.Reply, nil)]
	case relays.WantsLogin(f.Reply):
		return ProblemLoginNeeded
	case f.Class == mailer.ClassRelay && relays.WantsOAuth2(f.Reply):
		return ProblemOAuth2
	default:
		return refusalOf(f.Stage, f.Reply)
	}
}

// refusalOf returns what a reply before the login means.
func refusalOf(stage mailer.Stage, r mailer.Reply) Problem {
	refused := map[mailer.Stage]Problem{
		mailer.StageGreeting: ProblemTurnedAway, mailer.StageEHLO: ProblemHelo, mailer.StageStartTLS: ProblemSTARTTLSRefused,
	}[stage]
	switch {
	case refused != "" && strings.Contains(strings.ToLower(r.Text), "client certificate"):
		return ProblemClientCert // Postfix says so after the handshake, with 421
	case refused != "" && r.Code/100 == 4:
		return ProblemBusy
	case refused != "" && r.Code != 0:
		return refused
	default:
		return ProblemOther
	}
}

// LoginCause is why a login failed beyond the relay's reply: what the relay says of an
// OAuth2 token, or why none could be fetched. It is empty where there is no more to
// say, and for other failures.
func LoginCause(f *mailer.Failure) string {
	if refused, ok := errors.AsType[*loginRefused](f.Err); ok {
		return refused.text()
	}
	if c, ok := errors.AsType[*cause](f.Err); ok && c.problem == ProblemToken && c.err != nil {
		return WithoutAddresses(c.err)
	}
	return ""
}

// WithoutAddresses is why there is no OAuth2 token, in printable words of limited
// length. Of a failed connection it says only what failed: callers are not told our own
// addresses, nor those of resolver and proxy.
func WithoutAddresses(err error) string {
	text := err.Error()
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		text = "the name " + dns.Name + " could not be looked up"
	} else if op, ok := errors.AsType[*net.OpError](err); ok {
		for inner := op; ok; inner, ok = errors.AsType[*net.OpError](inner.Err) {
			op = inner // that of a proxy holds another one
		}
		text = "the token endpoint cannot be reached: " + op.Err.Error()
	}
	return mailer.Printable(text, maxReplyText)
}

// loginProblems has the problem of each word about a login.
var loginProblems = map[relays.LoginWord]Problem{
	relays.CredentialsWrong:   ProblemCredentials,
	relays.LoginLater:         ProblemAuthUnavailable,
	relays.MechanismRefused:   ProblemMechanism,
	relays.NoLoginHere:        ProblemNoLogin,
	relays.AppPasswordWanted:  ProblemAppPassword,
	relays.TokenWanted:        ProblemOAuth2,
	relays.SubmissionDisabled: ProblemSubmissionOff,
	relays.LoginForbidden:     ProblemForbidden,
	relays.LoginWanted:        ProblemLoginNeeded,
	relays.BrowserWanted:      ProblemBrowser,
	relays.TokenDead:          ProblemTokenDead,
	relays.TokenEndsSoon:      ProblemTokenEndsSoon,
	relays.TokenUnfit:         ProblemTokenUnfit,
	relays.TokenWithoutRight:  ProblemTokenScope,
}

// dialCause returns why there is no TCP connection.
func dialCause(err error) *cause {
	if known, ok := errors.AsType[*cause](err); ok {
		return known
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return nameCause(dns, err)
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &cause{ProblemRefused, "connection refused", err}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN), errors.Is(err, syscall.ENOPROTOOPT):
		return &cause{ProblemRejected, "the way to the relay is closed: a router or firewall rejects the connection, or the host is down", err}
	case errors.Is(err, syscall.ECONNRESET):
		return &cause{ProblemDropped, "the relay closed the connection", err}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &cause{ProblemBarred, "this system forbids the connection", err}
	case isTimeout(err):
		return &cause{ProblemNoAnswer, "no answer: the port is blocked or the relay is down", err}
	case errors.Is(err, syscall.ENETUNREACH):
		return &cause{ProblemUnreachable, "this machine has no route to the relay, or the network cannot be reached", err}
	default:
		return &cause{ProblemUnreachable, "the relay cannot be reached", err}
	}
}

// nameCause returns why there is no address. err holds dns.
func nameCause(dns *net.DNSError, err error) *cause {
	switch {
	case dns.IsNotFound:
		return &cause{ProblemName, "the relay's host name does not exist", err}
	case dns.IsTimeout:
		return &cause{ProblemNameSilent, "the relay's host name could not be looked up: the name server does not answer", err}
	default:
		return &cause{ProblemNameFailed, "the relay's host name could not be looked up: the name server fails", err}
	}
}

// readCause returns why there is no reply.
func readCause(err error) *cause {
	switch {
	case isAboutOurCertificate(err):
		return ourCertificate(err)
	case errors.Is(err, errReplyMalformed):
		return &cause{ProblemNotSMTP, "what answers does not speak SMTP", err}
	case isTimeout(err):
		return &cause{ProblemSilent, "the relay did not answer in time", err}
	default:
		return &cause{ProblemDropped, "the relay closed the connection", err}
	}
}

// tlsCause returns why there is no verified TLS session.
func (o *Options) tlsCause(err error) *cause {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &cause{ProblemTLSMode, "wrong TLS mode: what answers does not speak TLS here", err}
	}
	if pinned, ok := errors.AsType[*PinError](err); ok {
		if pinned.OfCertificate {
			return &cause{ProblemPin, "SMTP_TLS_PIN names the fingerprint of the relay's certificate, and not its key", err}
		}
		return &cause{ProblemPin, "the relay's key is not one of those that SMTP_TLS_PIN names", err}
	}
	if isAboutOurCertificate(err) {
		return ourCertificate(err)
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(e.UnverifiedCertificates) > 0 {
		problem := o.judge(e.UnverifiedCertificates, time.Now())
		return &cause{problem, certificateTexts[problem], err}
	}
	switch {
	case isTimeout(err):
		return &cause{ProblemSilent, "the relay did not answer the TLS handshake in time", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &cause{ProblemDropped, "the relay closed the connection in the TLS handshake", err}
	default:
		return &cause{ProblemTLS, "the TLS handshake failed", err}
	}
}

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
