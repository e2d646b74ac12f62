// Package dkimtest makes keys for tests of DKIM, and verifies signatures with a library
// that the product does not use.
package dkimtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	own "mailsidecar/mailer/dkim"
)

// Keys are made at their first use, so that the repository holds none.
var (
	rsaKey  = sync.OnceValues(func() ([]byte, error) { return newRSA(2048) })
	weakRSA = sync.OnceValues(func() ([]byte, error) { return newRSA(1024) })
)

func newRSA(bits int) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// RSA returns an RSA key of 2048 bits in PEM form, the same one on each call.
func RSA(t testing.TB) []byte {
	t.Helper()
	return must(t)(rsaKey())
}

// WeakRSA returns an RSA key of 1024 bits in PEM form, the same one on each call.
func WeakRSA(t testing.TB) []byte {
	t.Helper()
	return must(t)(weakRSA())
}

func must(t testing.TB) func([]byte, error) []byte {
	return func(key []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
}

// Ed25519 returns an Ed25519 key in PEM form, the same one on each call.
func Ed25519(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Entry returns a key of a domain.
func Entry(t testing.TB, domain, selector string, key []byte) own.Entry {
	t.Helper()
	private, err := own.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return own.Entry{Domain: domain, Selector: selector, Key: private}
}

// Entries returns an RSA key and an Ed25519 key of a domain, under the selectors rsa and
// ed.
func Entries(t testing.TB, domain string) []own.Entry {
	t.Helper()
	return []own.Entry{Entry(t, domain, "rsa", RSA(t)), Entry(t, domain, "ed", Ed25519(t))}
}

// Records answers a question for the TXT records of a name, from the keys themselves.
func Records(entries []own.Entry) func(name string) ([]string, error) {
	return func(name string) ([]string, error) {
		for _, e := range entries {
			if e.Name() == name {
				return []string{e.Key.Record()}, nil
			}
		}
		return nil, fmt.Errorf("no record %s", name)
	}
}

// Verify returns the domains of the message's valid signatures, in their order. A
// signature that is not valid is an error.
func Verify(data []byte, entries []own.Entry) ([]string, error) {
	all, err := dkim.VerifyWithOptions(bytes.NewReader(data), &dkim.VerifyOptions{LookupTXT: Records(entries)})
	if err != nil {
		return nil, err
	}
	var domains []string
	for _, v := range all {
		if v.Err != nil {
			return domains, fmt.Errorf("the signature of %s: %w", v.Domain, v.Err)
		}
		domains = append(domains, v.Domain)
	}
	return domains, nil
}
