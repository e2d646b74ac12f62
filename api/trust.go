package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
)

// hint is what to do about a request that got no answer, for the reason err.
func hint(err error) string {
	var certificate x509.CertificateInvalidError
	var untrusted x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &untrusted):
		return "MAILSIDECAR_TLS_CA_FILE must name a file with the certificate of the authority; mailsidecar ca prints that of MAILSIDECAR_TLS=self-signed"
	case errors.As(err, &name):
		return "MAILSIDECAR_URL must have a name that is in the server's certificate"
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return "the server needs a new certificate, or a clock is wrong"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "MAILSIDECAR_URL must begin with http:// for this port, or have the port of MAILSIDECAR_TLS_ADDR"
	default:
		return "is it running? MAILSIDECAR_URL says where"
	}
}

// maxText limits what is shown of an answer, in octets.
const maxText = 300

// Text is the answer in plain text, in one line without control characters and cut to 300
// octets; empty where it is of another type. The server answers so before it knows that
// the client speaks HTTP.
func (a Answer) Text() string {
	if !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		return ""
	}
	text := strings.ToValidUTF8(string(a.Body[:min(len(a.Body), maxText)]), "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text))
}
