package smtp

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// Pin is the SHA-256 of a public key, as a certificate has it (RFC 7469 §2.4).
type Pin [sha256.Size]byte

// PinOf returns the pin of the certificate's key.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// String returns the pin as SMTP_TLS_PIN has it, such as sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=.
func (p Pin) String() string { return "sha256/" + base64.StdEncoding.EncodeToString(p[:]) }

// PinError says that a relay has another key than those pinned.
type PinError struct {
	// Seen is the pin of the relay's own certificate.
	Seen Pin
	// OfCertificate says that the fingerprint of that certificate is pinned in place of
	// its key's: both are a SHA-256, and OpenSSL and browsers show the former.
	OfCertificate bool
	// Certificate holds the certificates, and why no authority vouches for them; its Err
	// is nil where one does.
	Certificate *tls.CertificateVerificationError
}

func (e *PinError) Error() string {
	text := "the relay's key is not pinned: it is " + e.Seen.String()
	if e.OfCertificate {
		text = "the fingerprint of the relay's certificate is pinned in place of its key: that is " + e.Seen.String()
	}
	if e.Certificate.Err != nil {
		text += ", and " + e.Certificate.Err.Error()
	}
	return text
}

// Unwrap returns Certificate.
func (e *PinError) Unwrap() error { return e.Certificate }

// verifyPins checks the relay's certificates against the pins. The relay's own key is
// enough: who pins it needs neither an authority, nor the name, nor the dates, as with
// Postfix's level fingerprint and msmtp's tls_fingerprint. The key of an authority counts
// where the certificate verifies by it.
func (o *Options) verifyPins(state tls.ConnectionState) error {
	leaf := state.PeerCertificates[0]
	if slices.Contains(o.Pins, PinOf(leaf)) {
		return nil
	}
	options := x509.VerifyOptions{Roots: o.RootCAs, DNSName: o.ServerName, Intermediates: x509.NewCertPool()}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(options)
	for _, chain := range chains {
		if slices.ContainsFunc(chain, func(cert *x509.Certificate) bool { return slices.Contains(o.Pins, PinOf(cert)) }) {
			return nil
		}
	}
	return &PinError{Seen: PinOf(leaf), OfCertificate: slices.Contains(o.Pins, sha256.Sum256(leaf.Raw)), Certificate: &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}}
}

// clientCertificate gives the relay our certificate, if it asks for one.
func (c *conn) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.certificateAsked = true
	if c.relay.opts.ClientCertificate == nil {
		return &tls.Certificate{}, nil
	}
	return c.relay.opts.ClientCertificate()
}

// clientCertificateAlerts are what a server says of a client's certificate (RFC 8446 §6.2).
var clientCertificateAlerts = []string{
	"certificate required", "bad certificate", "unsupported certificate", "revoked certificate", "expired certificate",
	"unknown certificate", "access denied",
}

// isAboutOurCertificate reports whether the relay has broken TLS off because of our
// certificate, or because we have none. With TLS 1.3 it does so after the handshake.
func isAboutOurCertificate(err error) bool {
	_, alert, found := strings.Cut(err.Error(), "remote error: tls: ")
	return found && slices.ContainsFunc(clientCertificateAlerts, func(text string) bool { return strings.Contains(alert, text) })
}

// ourCertificate is the cause of a connection that the relay ended for that.
func ourCertificate(err error) *cause {
	return &cause{ProblemClientCert, "the relay takes no client without a certificate that it knows", err}
}

// unsentCause returns why a command could not be sent. With TLS 1.3 the relay judges our
// certificate after the handshake, and may have closed the connection by now: its alert,
// which says so, is still to be read.
func (c *conn) unsentCause(err error) *cause {
	if c.certificateAsked {
		if _, alert := c.br.Peek(1); alert != nil && isAboutOurCertificate(alert) {
			return ourCertificate(alert)
		}
	}
	return readCause(err)
}

// SeenPin returns the pin of the relay's key where it is not one of those pinned; empty
// for other failures.
func SeenPin(err error) string {
	if e, ok := errors.AsType[*PinError](err); ok {
		return e.Seen.String()
	}
	return ""
}
