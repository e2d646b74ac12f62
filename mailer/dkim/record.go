package dkim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// Record is the text of the TXT record with the public key (RFC 6376 §3.6.1).
func (k PrivateKey) Record() string {
	return "v=DKIM1; k=" + k.keyType + "; p=" + base64.StdEncoding.EncodeToString(k.public())
}

// public is the public key as records have it: of RSA its SubjectPublicKeyInfo, of Ed25519
// its 32 octets (RFC 8463 §4.1).
func (k PrivateKey) public() []byte {
	if key, ok := k.signer.Public().(ed25519.PublicKey); ok {
		return key
	}
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		panic(err) // no RSA key fails
	}
	return der
}

// maxString is the length of one string of a TXT record, in octets (RFC 1035 §3.3.14).
const maxString = 255

// ZoneText is a record as a zone file has it: in quotes, in strings of 255 octets at most.
func ZoneText(record string) string {
	var parts []string
	for part := range slices.Chunk([]byte(record), maxString) {
		parts = append(parts, `"`+string(part)+`"`)
	}
	return strings.Join(parts, " ")
}

// record is a published record.
type record struct {
	keyType string // of k=; rsa where there is none
	public  []byte // nil where the key is revoked
	testing bool   // t=y: verifiers are to ignore it
	refuses string // the tag that excludes our signatures; empty for none
}

// Errors of [parseRecord].
var (
	errNoRecord = errors.New("it is no DKIM record")
	errTwice    = errors.New("it has a tag twice")
	errNoKey    = errors.New("it has no tag p=")
	errBase64   = errors.New("its tag p= is no base64")
)

// parseRecord reads the text of a TXT record (RFC 6376 §3.6.1).
func parseRecord(text string) (record, error) {
	tags := map[string]string{}
	for tag := range strings.SplitSeq(text, ";") {
		name, value, found := strings.Cut(tag, "=")
		name = strings.Trim(name, blanks)
		switch _, twice := tags[name]; {
		case !found && name == "":
			continue
		case !found:
			return record{}, errNoRecord
		case twice:
			return record{}, errTwice
		}
		tags[name] = strings.Trim(value, blanks)
	}
	r := record{keyType: "rsa", refuses: refusing(tags)}
	if k, ok := tags["k"]; ok {
		r.keyType = strings.ToLower(k)
	}
	key, ok := tags["p"]
	if v, versioned := tags["v"]; versioned && v != "DKIM1" || !versioned && !ok {
		return r, errNoRecord
	}
	r.testing = slices.Contains(listOf(tags["t"]), "y")
	if !ok {
		return r, errNoKey
	}
	if key = removeBlanks(key); key == "" {
		return r, nil
	}
	var err error
	if r.public, err = base64.StdEncoding.DecodeString(key); err != nil || len(r.public) == 0 {
		return r, errBase64
	}
	return r, nil
}

// refusing is the tag that excludes signatures with SHA-256 over mail.
func refusing(tags map[string]string) string {
	if h, ok := tags["h"]; ok && !slices.Contains(listOf(h), "sha256") {
		return "h=" + h
	}
	if s, ok := tags["s"]; ok && !slices.Contains(listOf(s), "*") && !slices.Contains(listOf(s), "email") {
		return "s=" + s
	}
	return ""
}

// listOf are the members of a tag's value that colons separate.
func listOf(value string) []string {
	var list []string
	for member := range strings.SplitSeq(value, ":") {
		list = append(list, strings.ToLower(strings.Trim(member, blanks)))
	}
	return list
}

// holds reports whether the record has the public key. That of RSA may also be in the form
// of PKCS #1 (RFC 6376 erratum 3017).
func (r record) holds(k PrivateKey) bool {
	if key, ok := k.signer.Public().(*rsa.PublicKey); ok && bytes.Equal(r.public, x509.MarshalPKCS1PublicKey(key)) {
		return true
	}
	return bytes.Equal(r.public, k.public())
}
