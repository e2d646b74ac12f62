// Package credentialstest makes the files of OAuth2 clients, for tests: good ones, and
// some that cannot be used.
package credentialstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Files are paths of files in a directory of the test.
type Files struct {
	PublicKey *rsa.PublicKey // of the client and of the service account

	Certificate, Key, CertificateAndKey string
	EndedCertificate                    string // and its key
	EllipticCertificate                 string // and its key, which is no RSA key
	OtherCertificate                    string // and a key of another one
	LockedKey                           string // a certificate and a key with a passphrase

	Assertion      string
	ServiceAccount string // bot@project.iam.gserviceaccount.com, client id 1042, key-1
	UserAccount    string // Google's file of a person

	Empty, Text string // Text holds "hunter2"
	Missing     string
}

// keys are made once: an RSA key takes its time.
var keys = sync.OnceValue(func() (k struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
},
) {
	k.rsa = must(rsa.GenerateKey(rand.Reader, 2048))
	k.ec = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return k
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// New writes the files.
func New(t testing.TB) Files {
	t.Helper()
	dir, k := t.TempDir(), keys()
	write := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		if err := os.WriteFile(path, all, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := certificate(k.rsa, &k.rsa.PublicKey, 24*time.Hour)
	elliptic := certificate(k.ec, &k.ec.PublicKey, 24*time.Hour)
	key := privateKey(k.rsa)
	return Files{
		PublicKey:   &k.rsa.PublicKey,
		Certificate: write("cert.pem", cert), Key: write("key.pem", key), CertificateAndKey: write("both.pem", key, cert),
		EndedCertificate:    write("ended.pem", certificate(k.rsa, &k.rsa.PublicKey, -time.Hour), key),
		EllipticCertificate: write("elliptic.pem", elliptic, privateKey(k.ec)),
		OtherCertificate:    write("other.pem", elliptic, key),
		LockedKey:           write("locked.pem", cert, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("hunter2")})),
		Assertion:           write("assertion", []byte("aa.bb.cc\n")),
		ServiceAccount:      write("service.json", account("service_account", key)), UserAccount: write("user.json", account("authorized_user", key)),
		Empty: write("empty", []byte(" \n")), Text: write("text", []byte("hunter2")), Missing: filepath.Join(dir, "missing"),
	}
}

func certificate(key, public any, ends time.Duration) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(ends),
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, public, key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func privateKey(key any) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
}

func account(kind string, key []byte) []byte {
	return must(json.Marshal(map[string]string{
		"type": kind, "client_email": "bot@project.iam.gserviceaccount.com", "client_id": "1042",
		"private_key_id": "key-1", "private_key": string(key), "token_uri": "https://oauth2.googleapis.com/token",
	}))
}
