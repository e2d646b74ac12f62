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
	NotYetValid
	SelfSigned
	Intercepted   // by antivirus software, in the good one's name
	Chained       // by an intermediate authority, with its certificate
	Incomplete    // the same without the intermediate authority's
	ChainExpired  // the intermediate authority's has expired
	Stranger      // for another name, by an unknown authority
	IssuedByOwner // by an unknown authority, which is sent, too
	Nameless      // no name but a Common Name
	ClientOnly    // not for servers
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
	cert, key, err := PairPEM(certificates[Good]())
	return slices.Concat(key, cert, AuthorityPEM()), err
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newAuthority(name string) authority { return newAuthorityNamed(name + " CA") }

func newAuthorityNamed(name string) authority {
	template := authorityTemplate(name)
	key := newKey()
	return authority{sign(template, template, key, key), key}
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: longAgo, NotAfter: farOff,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
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
	NotYetValid: sync.OnceValue(func() tls.Certificate {
		return issueAs(ca(), Host, farOff, func(c *x509.Certificate) { c.NotBefore = farOff.AddDate(0, -1, 0) })
	}),
	SelfSigned: sync.OnceValue(selfSigned),
	Intercepted: sync.OnceValue(func() tls.Certificate {
		return issue(newAuthorityNamed("Avast Web/Mail Shield Root"), Host, farOff)
	}),
	Chained:      sync.OnceValue(func() tls.Certificate { return chain(farOff, true) }),
	Incomplete:   sync.OnceValue(func() tls.Certificate { return chain(farOff, false) }),
	ChainExpired: sync.OnceValue(func() tls.Certificate { return chain(ago, true) }),
	Stranger:     sync.OnceValue(func() tls.Certificate { return issue(newAuthority("stranger"), "mail.stranger.test", farOff) }),
	IssuedByOwner: sync.OnceValue(func() tls.Certificate {
		owner := newAuthority("owner")
		c := issue(owner, Host, farOff)
		c.Certificate = append(c.Certificate, owner.cert.Raw)
		return c
	}),
	Nameless: sync.OnceValue(func() tls.Certificate {
		return issueAs(ca(), Host, farOff, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil })
	}),
	ClientOnly: sync.OnceValue(func() tls.Certificate {
		return issueAs(ca(), Host, farOff, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	}),
}

// chain returns a certificate of an intermediate authority that ends at the time given.
func chain(notAfter time.Time, whole bool) tls.Certificate {
	template := authorityTemplate("relaytest Intermediate CA")
	template.SerialNumber, template.NotAfter = big.NewInt(3), notAfter
	key := newKey()
	middle := authority{sign(template, ca().cert, key, ca().key), key}
	c := issue(middle, Host, farOff)
	if whole {
		c.Certificate = append(c.Certificate, middle.cert.Raw)
	}
	return c
}

// selfSigned returns a certificate by no authority.
func selfSigned() tls.Certificate {
	key := newKey()
	template := serverTemplate(Host, farOff)
	cert := sign(template, template, key, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func issue(by authority, name string, notAfter time.Time) tls.Certificate {
	return issueAs(by, name, notAfter, func(*x509.Certificate) {})
}

func issueAs(by authority, name string, notAfter time.Time, change func(*x509.Certificate)) tls.Certificate {
	template := serverTemplate(name, notAfter)
	change(template)
	key := newKey()
	cert := sign(template, by.cert, key, by.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func serverTemplate(name string, notAfter time.Time) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: longAgo, NotAfter: notAfter, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name == Host {
		template.DNSNames = append(template.DNSNames, "localhost")
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return template
}

func (c Certificate) config(maxVersion uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificates[c]()}, MaxVersion: maxVersion}
}

// Leaf returns the certificate itself.
func (c Certificate) Leaf() *x509.Certificate { return certificates[c]().Leaf }

// Pair returns the certificate with its key.
func (c Certificate) Pair() tls.Certificate { return certificates[c]() }

// Client returns the certificate of a client, which the authority of [RootCAs] has signed.
var Client = sync.OnceValue(NewClient)

// NewClient returns another such certificate, with a key of its own.
func NewClient() tls.Certificate {
	return issueAs(ca(), "client.test", farOff, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
}

// PairPEM returns a certificate and its key (PKCS #8), each in PEM form.
func PairPEM(pair tls.Certificate) (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return certificatePEM(pair.Certificate[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Authority returns the certificate of the authority in [RootCAs].
func Authority() *x509.Certificate { return ca().cert }

// ServerConfig returns the TLS configuration of another server with a good
// certificate.
func ServerConfig() *tls.Config { return Good.config(0) }
