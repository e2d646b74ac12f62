package dkim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// Kinds of keys that [Generate] makes.
const (
	RSA     = "rsa"
	Ed25519 = "ed25519"
)

// Generate makes a key of that kind, RSA of 2048 bits, and returns it with its file, PKCS #8
// in PEM form.
func Generate(kind string) (PrivateKey, []byte, error) {
	var key any
	var err error
	switch kind {
	case RSA:
		key, err = rsa.GenerateKey(rand.Reader, GoodRSA)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("no kind of key is called %s", kind)
	}
	if err != nil {
		return PrivateKey{}, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return PrivateKey{}, nil, err
	}
	file := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	private, err := ParsePrivateKey(file)
	return private, file, err
}
