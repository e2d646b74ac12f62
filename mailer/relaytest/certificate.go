package relaytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"sync"
	"time"
)

// Host is the name that a good certificate is for, beside "localhost" and the
// loopback addresses.
const Host = "relay.test"

// Certificate is the kind of certificate that a relay shows.
type Certificate int

const (
	Good Certificate = iota
	Expired
	WrongName
	UnknownCA
)

// The times fit the real clock and that of testing/synctest, which begins with
// the year 2000.
var (
	longAgo = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	ago     = time.Date(1995, 1, 1, 0, 0, 0, 0, time.UTC)
	farOff  = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// ca is made at its first use, so that the repository holds no key.
var ca = sync.OnceValue(func() authority { return newAuthority("relaytest") })

// RootCAs holds the authority that signs the certificates.
func RootCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca().cert)
	return pool
}

// AuthorityPEM returns that authority in PEM form, for a process that reads a file.
func AuthorityPEM() []byte { return certificatePEM(ca().cert.Raw) }

// KeyAndChainPEM returns a good certificate in PEM form, for a server that reads a
// file: the private key (PKCS #8), the certificate and the authority's.
func KeyAndChainPEM() ([]byte, error) {
	cert := certificates[Good]()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return slices.Concat(key, certificatePEM(cert.Leaf.Raw), AuthorityPEM()), nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newAuthority(name string) authority {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name + " CA"},
		NotBefore: longAgo, NotAfter: farOff,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey()
	return authority{sign(template, template, key, key), key}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

var certificates = map[Certificate]func() tls.Certificate{
	Good:      sync.OnceValue(func() tls.Certificate { return issue(ca(), Host, farOff) }),
	Expired:   sync.OnceValue(func() tls.Certificate { return issue(ca(), Host, ago) }),
	WrongName: sync.OnceValue(func() tls.Certificate { return issue(ca(), "other.test", farOff) }),
	UnknownCA: sync.OnceValue(func() tls.Certificate { return issue(newAuthority("unknown"), Host, farOff) }),
}

func issue(by authority, name string, notAfter time.Time) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: longAgo, NotAfter: notAfter, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name == Host {
		template.DNSNames = append(template.DNSNames, "localhost")
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	key := newKey()
	cert := sign(template, by.cert, key, by.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (c Certificate) config(maxVersion uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificates[c]()}, MaxVersion: maxVersion}
}

// ServerConfig returns the TLS configuration of another server with a good
// certificate.
func ServerConfig() *tls.Config { return Good.config(0) }
