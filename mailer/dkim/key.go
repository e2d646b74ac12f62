// Package dkim signs messages for relays that do not (RFC 6376), with RSA keys
// (rsa-sha256) and Ed25519 keys (RFC 8463).
//
// It promises that a signature depends on the octets of the message, the keys and one
// time alone: what is signed again for a form that a relay needs has the same octets on
// every attempt. It takes time in proportion to the message, and its memory is a few
// kilobytes beside it.
//
// The signing is code of our own. The library that the tests verify with
// (github.com/emersion/go-msgauth) writes the time of each call into the signature, and
// its time grows with the square of a folded field: 28 s for a field of 320 KB.
package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"

	"mailsidecar/files"
)

// Limits of RSA keys, in bits (RFC 8301 §3.2): verifiers refuse shorter ones, and need
// not know longer ones.
const (
	minRSA = 1024
	maxRSA = 4096
	// GoodRSA is the length that signers should use at least.
	GoodRSA = 2048
)

// maxKeyFile limits a file with a key, in octets.
const maxKeyFile = 64 << 10

// PrivateKey is a key that signs. It does not print: behind the pointer, fmt shows nothing
// of it.
type PrivateKey struct{ *privateKey }

type privateKey struct {
	signer    crypto.Signer
	algorithm string // of the tag a=
	keyType   string // of the record's tag k=
	bits      int
}

// Error is an entry or a key that cannot be used. It quotes nothing of a key.
type Error struct {
	What   string // such as "it holds a certificate, and no private key"
	Remedy string // what to do, as a command
}

func (e *Error) Error() string { return e.What }

// Commands that mend a key.
const (
	newKey  = "make a key with mailsidecar dkim new"
	nameKey = "name the file with the private key"
)

// ReadPrivateKey reads a file of at most 64 KiB with a private key in PEM form: PKCS #8,
// or PKCS #1 for RSA. The error is a [*Error], or that of the file.
func ReadPrivateKey(path string) (PrivateKey, error) {
	data, err := files.Read(path, maxKeyFile)
	if err != nil {
		return PrivateKey{}, err
	}
	return ParsePrivateKey(data)
}

// ParsePrivateKey reads the first private key in data, which is in PEM form. The error is a
// [*Error].
func ParsePrivateKey(data []byte) (PrivateKey, error) {
	var problem *Error
	for rest := bytes.TrimPrefix(data, []byte("\ufeff")); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := parseBlock(block)
		if err == nil {
			return key, nil
		}
		// The parameters before an EC key and the certificate before a key are not to blame.
		if problem == nil || !isPrivate(problem) {
			problem = err
		}
	}
	if problem == nil {
		problem = &Error{"it holds no key in PEM form", newKey}
	}
	return PrivateKey{}, problem
}

// isPrivate reports whether the problem is one of a private key.
func isPrivate(e *Error) bool { return e.Remedy != nameKey }

// parseBlock reads a block with a private key.
func parseBlock(block *pem.Block) (PrivateKey, *Error) {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return PrivateKey{}, &Error{"its key has a passphrase", "write it without one: openssl pkey -in KEY -out KEY.plain"}
	case block.Type == "RSA PRIVATE KEY":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return PrivateKey{}, damaged()
		}
		return newPrivateKey(key)
	case block.Type == "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return PrivateKey{}, damaged()
		}
		return newPrivateKey(key)
	case block.Type == "EC PRIVATE KEY" || block.Type == "DSA PRIVATE KEY":
		return PrivateKey{}, wrongType()
	case block.Type == "OPENSSH PRIVATE KEY":
		return PrivateKey{}, &Error{"its key is one for SSH", newKey}
	case block.Type == "CERTIFICATE":
		return PrivateKey{}, &Error{"it holds a certificate, and no private key", nameKey}
	case block.Type == "PUBLIC KEY" || block.Type == "RSA PUBLIC KEY":
		return PrivateKey{}, &Error{"it holds a public key, and no private one", nameKey}
	default:
		return PrivateKey{}, &Error{"it holds no private key", nameKey}
	}
}

func damaged() *Error {
	return &Error{"its key is damaged, or of no kind that DKIM knows", newKey}
}

func wrongType() *Error {
	return &Error{"its key is neither RSA nor Ed25519, and DKIM knows no other", newKey}
}

// newPrivateKey takes a parsed key.
func newPrivateKey(parsed any) (PrivateKey, *Error) {
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		bits := key.N.BitLen()
		if bits < minRSA || bits > maxRSA {
			return PrivateKey{}, &Error{fmt.Sprintf("its RSA key has %d bits, and verifiers take %d to %d", bits, minRSA, maxRSA), newKey}
		}
		return PrivateKey{&privateKey{key, "rsa-sha256", "rsa", bits}}, nil
	case ed25519.PrivateKey:
		return PrivateKey{&privateKey{key, "ed25519-sha256", "ed25519", 256}}, nil
	default:
		return PrivateKey{}, wrongType()
	}
}

// Algorithm is the name of the signatures' algorithm: rsa-sha256 or ed25519-sha256.
func (k PrivateKey) Algorithm() string { return k.algorithm }

// Weak reports whether it is an RSA key of less than 2048 bits.
func (k PrivateKey) Weak() bool { return k.keyType == "rsa" && k.bits < GoodRSA }

// Bits is the length of the key.
func (k PrivateKey) Bits() int { return k.bits }

// sign signs a SHA-256 digest. Both algorithms give the same octets each time.
func (k PrivateKey) sign(digest []byte) ([]byte, error) {
	if key, ok := k.signer.(*rsa.PrivateKey); ok {
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest)
	}
	return k.signer.Sign(nil, digest, crypto.Hash(0))
}

// verify reports whether the key made the signature.
func (k PrivateKey) verify(digest, signature []byte) bool {
	switch public := k.signer.Public().(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(public, digest, signature)
	default:
		return false
	}
}

// signatureSize is the length of a signature in base64, in octets.
func (k PrivateKey) signatureSize() int {
	if k.keyType == "rsa" {
		return base64.StdEncoding.EncodedLen((k.bits + 7) / 8)
	}
	return base64.StdEncoding.EncodedLen(ed25519.SignatureSize)
}
