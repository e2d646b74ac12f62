package certs

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// leafValidity is less than the limit of the strictest clients (398 days).
	leafValidity = 90 * 24 * time.Hour
	leafRenewal  = 30 * 24 * time.Hour // before the end
	maxLeaves    = 64
)

// Issuer makes a certificate for each name by which clients know this server, so
// that an operator does not have to list them. They live in memory only.
type Issuer struct {
	ca *Authority

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// NewIssuer returns an issuer whose certificates ca signs.
func NewIssuer(ca *Authority) *Issuer { return &Issuer{ca: ca} }

// GetCertificate is for the field of that name in [tls.Config].
func (i *Issuer) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	local := net.IP(nil)
	if name == "" && hello.Conn != nil {
		// A client that connects to an address sends no name.
		if addr, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			local, name = addr.IP, addr.IP.String()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if leaf := i.leaves[name]; leaf != nil && time.Until(leaf.Leaf.NotAfter) > leafRenewal {
		return leaf, nil
	}
	leaf, err := i.issue(name, local)
	if err != nil {
		return nil, err
	}
	if i.leaves == nil || len(i.leaves) >= maxLeaves {
		i.leaves = map[string]*tls.Certificate{} // drops names that are not used any more
	}
	i.leaves[name] = leaf
	return leaf, nil
}

// isDNSName reports whether name is one in lower case, of labels of up to 63 letters,
// digits, hyphens and underscores (RFC 1123 §2.1).
func isDNSName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notInLabel) {
			return false
		}
	}
	return true
}

func notInLabel(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-'
}

func (i *Issuer) issue(name string, local net.IP) (*tls.Certificate, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "mailsidecar"},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafValidity),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	switch {
	case local != nil:
		template.IPAddresses = append(template.IPAddresses, local)
	case isDNSName(name):
		template.DNSNames = append(template.DNSNames, name)
	default:
		return nil, errors.New("the client asks for a name that is none")
	}
	cert, key, err := signCertificate(template, i.ca)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}
