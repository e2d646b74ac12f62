package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// Problem names the cause of a failure, as far as it is known, so that there can be
// advice for it.
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

// ProblemOf returns the cause of a failure; [ProblemOther] where it is not known.
func ProblemOf(f *mailer.Failure) Problem {
	if c, ok := errors.AsType[*cause](f.Err); ok {
		return c.problem
	}
	if f.Stage == mailer.StageAuth {
		return authProblem(f.Reply)
	}
	return ProblemOther
}

// authProblem returns why a login was refused.
func authProblem(r mailer.Reply) Problem {
	switch {
	case r.Code/100 == 4:
		return ProblemAuthUnavailable
	case relays.WantsOAuth2(r):
		return ProblemOAuth2
	case relays.WantsAppPassword(r):
		return ProblemAppPassword
	default:
		return ProblemCredentials
	}
}

// dialCause returns why there is no TCP connection.
func dialCause(err error) *cause {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return &cause{ProblemName, "the relay's host name does not exist", err}
		}
		return &cause{ProblemName, "the relay's host name could not be looked up", err}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &cause{ProblemRefused, "connection refused", err}
	case isTimeout(err):
		return &cause{ProblemNoAnswer, "no answer: the port is blocked or the relay is down", err}
	default:
		return &cause{ProblemUnreachable, "the relay cannot be reached", err}
	}
}

// readCause returns why there is no reply.
func readCause(err error) *cause {
	switch {
	case errors.Is(err, errReplyMalformed):
		return &cause{ProblemNotSMTP, "what answers does not speak SMTP", err}
	case isTimeout(err):
		return &cause{ProblemSilent, "the relay did not answer in time", err}
	default:
		return &cause{ProblemDropped, "the relay closed the connection", err}
	}
}

// tlsCause returns why there is no verified TLS session.
func tlsCause(err error) *cause {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &cause{ProblemTLSMode, "wrong TLS mode: what answers does not speak TLS here", err}
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if time.Now().Before(invalid.Cert.NotBefore) {
			return &cause{ProblemExpired, "the certificate is not valid yet", err}
		}
		return &cause{ProblemExpired, "the certificate has expired", err}
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return &cause{ProblemWrongName, "the certificate is for another name", err}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &cause{ProblemUnknownCA, "the certificate is signed by an unknown authority", err}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &cause{ProblemCertificate, "the certificate is not valid", err}
	}
	switch {
	case isTimeout(err):
		return &cause{ProblemSilent, "the relay did not answer the TLS handshake in time", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
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
