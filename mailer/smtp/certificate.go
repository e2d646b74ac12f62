package smtp

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"strings"
	"time"

	"mailsidecar/relays"
)

// certificateTexts say for callers what is wrong with a certificate.
var certificateTexts = map[Problem]string{
	ProblemIntercepted:    "the connection is intercepted: the certificate is not the relay's",
	ProblemExpired:        "the certificate has expired",
	ProblemNotYetValid:    "the certificate is not valid yet",
	ProblemWrongName:      "the certificate is for another name",
	ProblemSelfSigned:     "the certificate is signed by itself and by no authority",
	ProblemNoIntermediate: "the certificate's chain is incomplete",
	ProblemUnknownCA:      "the certificate is signed by an unknown authority",
	ProblemNoAuthorities:  "no certificate can be verified: this machine trusts no authority",
	ProblemCertificate:    "the certificate is not valid",
}

// judge says what is wrong with a chain that did not verify. The library names the first
// fault that it meets, and for a certificate of a stranger that is often the name.
// Where several things are wrong, the one counts that says most about who answers: an
// interceptor, then the dates, then the authority, and the name last.
func (o *Options) judge(chain []*x509.Certificate, now time.Time) Problem {
	leaf := chain[0]
	trusted := o.trusts(chain, now)
	switch {
	case !trusted && interceptorOf(chain) != "":
		return ProblemIntercepted
	case now.Before(leaf.NotBefore):
		return ProblemNotYetValid
	case now.After(leaf.NotAfter):
		return ProblemExpired
	case !trusted:
		return o.distrusted(chain, now)
	case leaf.VerifyHostname(o.ServerName) != nil:
		return ProblemWrongName
	default:
		return ProblemCertificate
	}
}

// trusts reports whether an authority that is trusted has signed the certificate,
// whatever its name.
func (o *Options) trusts(chain []*x509.Certificate, now time.Time) bool {
	return verify(chain, x509.VerifyOptions{Roots: o.RootCAs, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}) == nil
}

func verify(chain []*x509.Certificate, options x509.VerifyOptions) error {
	options.Intermediates = x509.NewCertPool()
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(options)
	return err
}

// distrusted says why no authority vouches for the chain.
func (o *Options) distrusted(chain []*x509.Certificate, now time.Time) Problem {
	leaf := chain[0]
	switch {
	case signedBy(leaf, leaf):
		return ProblemSelfSigned
	case o.trustsNone():
		return ProblemNoAuthorities
	case slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool { return now.After(c.NotAfter) }):
		return ProblemExpired
	case !slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool { return signedBy(leaf, c) }) && byIntermediate(leaf):
		return ProblemNoIntermediate
	default:
		return ProblemUnknownCA
	}
}

func signedBy(cert, parent *x509.Certificate) bool {
	return string(cert.RawIssuer) == string(parent.RawSubject) &&
		parent.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// trustsNone reports whether the system has no authorities, as small container images
// do.
func (o *Options) trustsNone() bool {
	if o.RootCAs != nil {
		return false
	}
	pool, err := x509.SystemCertPool()
	return err != nil || pool.Equal(x509.NewCertPool())
}

// signedTimestamps is the extension that public authorities put into every certificate
// (RFC 6962 §3.3).
var signedTimestamps = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// byIntermediate reports whether the certificate was probably issued by an intermediate
// authority: by a public one, which says where its own certificate is or is in the
// public logs, or by one whose name says so.
func byIntermediate(cert *x509.Certificate) bool {
	for _, extension := range cert.Extensions {
		if extension.Id.Equal(signedTimestamps) {
			return true
		}
	}
	name := strings.ToLower(cert.Issuer.CommonName)
	return len(cert.IssuingCertificateURL) > 0 || slices.ContainsFunc(intermediateWords, func(word string) bool { return strings.Contains(name, word) })
}

var intermediateWords = []string{"intermediate", "issuing", "subordinate", "sub ca", "sub-ca"}

// interceptorOf returns who has made the chain, if it is software that intercepts
// connections.
func interceptorOf(chain []*x509.Certificate) string {
	for _, cert := range chain {
		if name, ok := relays.Interceptor(cert.Issuer.String()); ok {
			return name
		}
	}
	return ""
}
