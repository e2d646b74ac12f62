package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// This file is a small certificate authority: its key stays in the data
// directory, and it signs for nobody but this server.

const (
	authorityFile     = "ca-with-key.pem"
	authorityValidity = 10 * 365 * 24 * time.Hour
	// leafValidity is under what the strictest clients accept (398 days).
	leafValidity = 90 * 24 * time.Hour
	leafRenewal  = 30 * 24 * time.Hour // before the end
	maxLeaves    = 64
	clockSkew    = time.Hour
)

// authority signs the server's certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// openAuthority reads the authority of a data directory, or makes one.
func openAuthority(dir string) (*authority, error) {
	path := filepath.Join(dir, authorityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createAuthority(dir, path); err == nil {
			data, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, err
	}
	a, err := parseAuthority(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to get a new one, which clients must then trust", path, err)
	}
	return a, nil
}

func parseAuthority(data []byte) (*authority, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	switch {
	case !ok || !pair.Leaf.IsCA:
		return nil, errors.New("not an authority that mailsidecar made")
	case time.Now().After(pair.Leaf.NotAfter):
		return nil, fmt.Errorf("the authority expired on %s", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &authority{pair.Leaf, key}, nil
}

// createAuthority writes certificate and key into one file that is there as a
// whole or not at all: of two processes that start together, one makes it.
func createAuthority(dir, path string) error {
	data, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, authorityFile+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// newAuthority returns a new authority in PEM form.
func newAuthority() ([]byte, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "mailsidecar " + now.UTC().Format(time.DateOnly)},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, key, err := signCertificate(template, nil)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// signCertificate makes a key and signs the template for it; without a parent,
// with the key itself.
func signCertificate(template *x509.Certificate, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// pem is the authority's certificate, without its key.
func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issuer makes a certificate for each name by which clients know this server:
// nobody has to list them. They live in memory only.
type issuer struct {
	ca *authority

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// certificate implements [tls.Config.GetCertificate].
func (i *issuer) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
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
		i.leaves = map[string]*tls.Certificate{} // names that nobody uses go, too
	}
	i.leaves[name] = leaf
	return leaf, nil
}

var dnsName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

func (i *issuer) issue(name string, local net.IP) (*tls.Certificate, error) {
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
	case len(name) <= 253 && dnsName.MatchString(name):
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
