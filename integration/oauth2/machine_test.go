package oauth2_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// The grants without a person. In each the issuer proves for itself what the client
// shows, and the relay asks the issuer whose token it is.

// newMachine is newSidecar where no person logs in.
func newMachine(t *testing.T, i *issuer) *sidecar {
	t.Helper()
	s := newSidecar(t, i, nil)
	delete(s.settings, "SMTP_OAUTH2_AUTHORIZE_URL")
	delete(s.settings, "SMTP_OAUTH2_DEVICE_URL")
	s.settings["SMTP_USERNAME"], s.settings["SMTP_OAUTH2_CLIENT_ID"] = account, "server"
	return s
}

// TestClientSecret: a client's own credentials, sent in the form and in a header.
func TestClientSecret(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{"post", "basic"} {
		_, i := newZitadel(t, nil)
		s := newMachine(t, i)
		s.settings["SMTP_OAUTH2_CLIENT_SECRET"], s.settings["SMTP_OAUTH2_CLIENT_AUTH"] = "server secret/+", auth
		s.wantCheck(t, 0, "XOAUTH2 accepted")
		s.settings["SMTP_OAUTH2_CLIENT_SECRET"] = "wrong"
		s.wantCheck(t, 69, "SMTP_OAUTH2_CLIENT_SECRET")
		if s.stored(t) != nil {
			t.Error("a grant without a person is stored")
		}
	}
}

// makeCertificate returns a key and a certificate of it, and the file with both.
func makeCertificate(t *testing.T) (*rsa.PrivateKey, *x509.Certificate, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM(t, key)...)
	return key, certificate, writeFile(t, "client.pem", text)
}

func keyPEM(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCertificate: the client signs with its certificate's key (PS256).
func TestCertificate(t *testing.T) {
	t.Parallel()
	_, certificate, file := makeCertificate(t)
	_, i := newStrict(t, certificate)
	s := newMachine(t, i)
	s.settings["SMTP_OAUTH2_CERT_FILE"], s.settings["SMTP_OAUTH2_SCOPES"] = file, mailScope
	s.wantCheck(t, 0, "XOAUTH2 accepted")
	_, _, s.settings["SMTP_OAUTH2_CERT_FILE"] = makeCertificate(t)
	s.wantCheck(t, 69, "invalid_client")
}

// TestAssertionFile: another program signs, and keeps the file fresh.
func TestAssertionFile(t *testing.T) {
	t.Parallel()
	key, certificate, _ := makeCertificate(t)
	_, i := newStrict(t, certificate)
	s := newMachine(t, i)
	assertion := func(id, audience string) []byte {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.PS256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		claims, err := json.Marshal(map[string]any{
			"iss": "server", "sub": "server", "aud": audience, "jti": id, "exp": time.Now().Add(time.Hour).Unix(),
		})
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return []byte(text + "\n")
	}
	file := writeFile(t, "assertion", assertion("1", "https://other.example.com"))
	s.settings["SMTP_OAUTH2_ASSERTION_FILE"], s.settings["SMTP_OAUTH2_SCOPES"] = file, mailScope
	s.wantCheck(t, 69, "invalid_client")
	if err := os.WriteFile(file, assertion("2", i.tokenURL), 0o600); err != nil {
		t.Fatal(err)
	}
	s.wantCheck(t, 0, "XOAUTH2 accepted")
}

// TestServiceAccount: a key of an account that may act for a domain's mailboxes.
func TestServiceAccount(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	z, i := newZitadel(t, func(z *zitadel) {
		z.path, z.keys = "/oauth/token", map[string]*rsa.PublicKey{"key-1": &key.PublicKey}
	})
	s := newMachine(t, i)
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": account, "client_id": "1042",
		"private_key_id": "key-1", "private_key": string(keyPEM(t, key)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"PROVIDER", "CLIENT_ID"} {
		delete(s.settings, "SMTP_OAUTH2_"+name)
	}
	s.settings["SMTP_OAUTH2_SCOPES"] = mailScope
	s.settings["SMTP_OAUTH2_SERVICE_ACCOUNT_FILE"] = writeFile(t, "key.json", file)
	s.wantCheck(t, 0, "XOAUTH2 accepted")
	z.keys["key-1"] = nil
	s.wantCheck(t, 69, "The error is")
}
