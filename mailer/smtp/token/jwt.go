package token

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

const (
	// assertionLife is how long an assertion that we sign is good: Microsoft wants 5 to
	// 10 minutes.
	assertionLife = 5 * time.Minute
	// assertionSkew is how much our clock may be ahead of the endpoint's.
	assertionSkew = 30 * time.Second
	// leastKeySize is that of RSA keys, in bits.
	leastKeySize = 2048
)

// Certificate is the certificate of a client, with its key.
type Certificate struct {
	leaf *x509.Certificate
	key  *rsa.PrivateKey
}

// NotAfter is when the certificate ends.
func (c Certificate) NotAfter() time.Time { return c.leaf.NotAfter }

// ReadCertificate reads certificate and key, both in PEM form; an empty keyFile means
// certFile. The first certificate is the client's; the key must be an RSA key and
// belong to it. The error is a [*ClientError].
func ReadCertificate(certFile, keyFile string) (Certificate, error) {
	if keyFile == "" {
		keyFile = certFile
	}
	certPEM, err := readLimited(certFile)
	if err != nil {
		return Certificate{}, &ClientError{certFile, err}
	}
	keyPEM, err := readLimited(keyFile)
	if err != nil {
		return Certificate{}, &ClientError{keyFile, err}
	}
	if !holdsPEM(certPEM, "CERTIFICATE") {
		return Certificate{}, &ClientError{certFile, errors.New("the file holds no certificate in PEM form")}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return Certificate{}, &ClientError{keyFile, pairProblem(keyPEM, err)}
	}
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok || key.N.BitLen() < leastKeySize {
		return Certificate{}, &ClientError{keyFile, fmt.Errorf("the key is no RSA key of %d bits or more", leastKeySize)}
	}
	return Certificate{pair.Leaf, key}, nil
}

// pairProblem says why a certificate and a key cannot be used, without quoting them.
func pairProblem(keyPEM []byte, err error) error {
	switch {
	case holdsPEM(keyPEM, "ENCRYPTED PRIVATE KEY"):
		return errors.New("the key has a passphrase; write it without one: openssl pkey -in KEY -out KEY.plain")
	case !holdsPEM(keyPEM, "PRIVATE KEY") && !holdsPEM(keyPEM, "RSA PRIVATE KEY") && !holdsPEM(keyPEM, "EC PRIVATE KEY"):
		return errors.New("the file holds no private key in PEM form")
	default:
		return err
	}
}

func holdsPEM(data []byte, kind string) bool {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return false
		}
		if block.Type == kind {
			return true
		}
	}
}

// signAssertion returns a JWT by which the client proves that it has the key of its
// certificate (RFC 7523 §3).
func (c Client) signAssertion(audience string) (string, error) {
	cert, err := ReadCertificate(c.CertFile, c.KeyFile)
	if err != nil {
		return "", err
	}
	now := time.Now()
	if now.After(cert.NotAfter()) {
		return "", &ClientError{c.CertFile, fmt.Errorf("the certificate ended on %s; put a new one there, and register it", cert.NotAfter().UTC().Format(time.DateOnly))}
	}
	print := sha256.Sum256(cert.leaf.Raw)
	header := map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(print[:])}
	claims := map[string]any{
		"aud": audience, "iss": c.ID, "sub": c.ID, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-assertionSkew).Unix(), "exp": now.Add(assertionLife).Unix(),
	}
	return signJWT(header, claims, func(digest []byte) ([]byte, error) {
		return rsa.SignPSS(rand.Reader, cert.key, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	})
}

// signJWT makes a JWS in compact form (RFC 7515 §3.1) with SHA-256.
func signJWT(header, claims map[string]any, sign func(digest []byte) ([]byte, error)) (string, error) {
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	b.WriteString(base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body))
	digest := sha256.Sum256(b.Bytes())
	signature, err := sign(digest[:])
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return b.String() + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
