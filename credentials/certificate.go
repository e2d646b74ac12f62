package credentials

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// leastKeySize is that of RSA keys, in bits.
const leastKeySize = 2048

// Certificate is the certificate of a client, with its RSA key.
type Certificate struct {
	leaf *x509.Certificate
	key  *rsa.PrivateKey
}

// ReadCertificate reads certificate and key, both in PEM form; an empty keyFile means
// certFile. The first certificate is the client's. The key must belong to it, have no
// passphrase, and be an RSA key of 2048 bits or more. The error is a [*FileError]. A
// certificate that has ended is none.
func ReadCertificate(certFile, keyFile string) (Certificate, error) {
	pair, err := ReadPair(certFile, keyFile)
	if err != nil {
		return Certificate{}, err
	}
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok || key.N.BitLen() < leastKeySize {
		keyKind := KindKey
		if keyFile == "" {
			keyFile, keyKind = certFile, KindCertificate
		}
		return Certificate{}, unfit(keyFile, keyKind, fmt.Errorf("its key is no RSA key of %d bits or more", leastKeySize))
	}
	return Certificate{pair.Leaf, key}, nil
}

// ReadPair reads a certificate, with its chain, and its private key in PEM form; without
// keyFile, the certificate's file has both. The error is a [*FileError].
func ReadPair(certFile, keyFile string) (tls.Certificate, error) {
	keyKind := KindKey
	if keyFile == "" {
		keyFile, keyKind = certFile, KindCertificate
	}
	certPEM, err := Read(certFile, KindCertificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := Read(keyFile, keyKind)
	if err != nil {
		return tls.Certificate{}, err
	}
	if !holdsPEM(certPEM, "CERTIFICATE") {
		return tls.Certificate{}, unfit(certFile, KindCertificate, errors.New("it holds no certificate in PEM form"))
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, unfit(keyFile, keyKind, pairProblem(keyPEM))
	}
	return pair, nil
}

// pairProblem says why a certificate and a key cannot be used, without quoting them.
func pairProblem(keyPEM []byte) error {
	switch {
	case holdsPEM(keyPEM, "ENCRYPTED PRIVATE KEY"), bytes.Contains(keyPEM, []byte("Proc-Type: 4,ENCRYPTED")):
		return errors.New("its key has a passphrase; write it without one: openssl pkey -in KEY -out KEY.plain")
	case !holdsPEM(keyPEM, "PRIVATE KEY") && !holdsPEM(keyPEM, "RSA PRIVATE KEY") && !holdsPEM(keyPEM, "EC PRIVATE KEY"):
		return errors.New("it holds no private key in PEM form")
	default:
		return errors.New("its key does not belong to the certificate, or one of the two is damaged")
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

// NotAfter is when the certificate ends.
func (c Certificate) NotAfter() time.Time { return c.leaf.NotAfter }

// Thumbprint is the certificate's SHA-256 in base64url, for the field x5t#S256 of a
// JWT (RFC 7515 §4.1.8).
func (c Certificate) Thumbprint() string {
	sum := sha256.Sum256(c.leaf.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// SignPS256 signs a SHA-256 digest with RSASSA-PSS (RFC 7518 §3.5).
func (c Certificate) SignPS256(digest []byte) ([]byte, error) {
	return rsa.SignPSS(rand.Reader, c.key, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}
