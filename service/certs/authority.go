// Package certs has the certificates that servers of this program present: those
// of an authority of its own, and those in files that an operator renews.
package certs

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
	"os"
	"path/filepath"
	"time"

	"mailsidecar/files"
)

const (
	authorityFile     = "ca-with-key.pem"
	authorityValidity = 10 * 365 * 24 * time.Hour
	clockSkew         = time.Hour
)

// Authority is a small certificate authority. It signs for this program alone,
// and its key stays in memory or in the data directory.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that lives in memory only. name is the common
// name of its certificate.
func NewAuthority(name string) (*Authority, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, key, err := signCertificate(template, nil)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

// OpenAuthority reads the authority of a data directory, or makes one there.
func OpenAuthority(dir string) (*Authority, error) {
	path := filepath.Join(dir, authorityFile)
	data, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createAuthority(dir, path); err == nil {
			data, err = readRegular(path)
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

// readRegular reads a file, or one that a link leads to. It does not wait for a named pipe.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch _, linkErr := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist) && linkErr == nil:
		return nil, fmt.Errorf("%s: a symbolic link that leads nowhere; remove it, or create what it names", path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: no regular file; remove it to get a new authority, which clients must then trust", path)
	}
	return files.Read(path, maxFile)
}

func parseAuthority(data []byte) (*Authority, error) {
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
	return &Authority{pair.Leaf, key}, nil
}

// createAuthority writes certificate and key into one file, which is there as a
// whole or not at all. Of two processes that start together, one makes it.
func createAuthority(dir, path string) error {
	a, err := NewAuthority("mailsidecar " + time.Now().UTC().Format(time.DateOnly))
	if err != nil {
		return err
	}
	data, err := a.withKey()
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

// PEM is the authority's certificate in PEM form, without its key.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool is for clients that trust this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// withKey is certificate and key in PEM form.
func (a *Authority) withKey() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return append(a.PEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// signCertificate makes a key and signs the template for it; without a parent,
// with the key itself.
func signCertificate(template *x509.Certificate, parent *Authority) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent = &Authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
