package dkim_test

import (
	"bytes"
	"crypto/dsa" //nolint:staticcheck // a key that is refused
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
	"mailsidecar/mailer/relaytest"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func newRSA(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaOf(t *testing.T, key []byte) *rsa.PrivateKey {
	t.Helper()
	b, _ := pem.Decode(key)
	parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.(*rsa.PrivateKey)
}

func TestParsePrivateKey(t *testing.T) {
	long := rsaOf(t, dkimtest.RSA(t))
	for name, c := range map[string]struct {
		file  []byte
		want  string
		weak  bool
		first string // of the record
	}{
		"PKCS #8":         {dkimtest.RSA(t), "rsa-sha256", false, "v=DKIM1; k=rsa; p=MIIBIjAN"},
		"PKCS #1":         {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(long)), "rsa-sha256", false, "v=DKIM1; k=rsa; p=MIIBIjAN"},
		"short":           {dkimtest.WeakRSA(t), "rsa-sha256", true, "v=DKIM1; k=rsa; p=MIGfMA0G"},
		"Ed25519":         {dkimtest.Ed25519(t), "ed25519-sha256", false, "v=DKIM1; k=ed25519; p="},
		"text before":     {append([]byte("Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n"), dkimtest.RSA(t)...), "rsa-sha256", false, "v=DKIM1; k=rsa; p=MIIBIjAN"},
		"with public":     {append(block("PUBLIC KEY", []byte("x")), dkimtest.Ed25519(t)...), "ed25519-sha256", false, "v=DKIM1; k=ed25519; p="},
		"Windows":         {bytes.ReplaceAll(dkimtest.RSA(t), []byte("\n"), []byte("\r\n")), "rsa-sha256", false, "v=DKIM1; k=rsa; p=MIIBIjAN"},
		"byte order mark": {append([]byte("\ufeff"), dkimtest.RSA(t)...), "rsa-sha256", false, "v=DKIM1; k=rsa; p=MIIBIjAN"},
	} {
		key, err := dkim.ParsePrivateKey(c.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if key.Algorithm() != c.want || key.Weak() != c.weak || !strings.HasPrefix(key.Record(), c.first) {
			t.Errorf("%s: ParsePrivateKey = %s, weak %v, %s", name, key.Algorithm(), key.Weak(), key.Record())
		}
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	const newKey, nameKey = "make a key with mailsidecar dkim new", "name the file with the private key"
	ecKey := "its key is neither RSA nor Ed25519, and DKIM knows no other"
	for name, c := range map[string]struct {
		file         []byte
		what, remedy string
	}{
		"nothing":       {nil, "it holds no key in PEM form", newKey},
		"text":          {[]byte("secret"), "it holds no key in PEM form", newKey},
		"half":          {dkimtest.RSA(t)[:400], "it holds no key in PEM form", newKey},
		"public":        {block("PUBLIC KEY", public), "it holds a public key, and no private one", nameKey},
		"RSA public":    {block("RSA PUBLIC KEY", public), "it holds a public key, and no private one", nameKey},
		"certificate":   {relaytest.AuthorityPEM(), "it holds a certificate, and no private key", nameKey},
		"encrypted":     {block("ENCRYPTED PRIVATE KEY", []byte("x")), "its key has a passphrase", "write it without one: openssl pkey -in KEY -out KEY.plain"},
		"encrypted old": {[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"), "its key has a passphrase", "write it without one: openssl pkey -in KEY -out KEY.plain"},
		"EC":            {append(block("EC PARAMETERS", []byte("x")), block("EC PRIVATE KEY", sec1)...), ecKey, newKey},
		"EC PKCS #8":    {pkcs8(t, ec), ecKey, newKey},
		"X25519":        {pkcs8(t, x25519), ecKey, newKey},
		"DSA":           {block("DSA PRIVATE KEY", make([]byte, dsa.L1024N160)), ecKey, newKey},
		"SSH":           {block("OPENSSH PRIVATE KEY", []byte("x")), "its key is one for SSH", newKey},
		"damaged":       {block("PRIVATE KEY", []byte("x")), "its key is damaged, or of no kind that DKIM knows", newKey},
		"damaged RSA":   {block("RSA PRIVATE KEY", []byte("x")), "its key is damaged, or of no kind that DKIM knows", newKey},
		"other":         {block("PGP PRIVATE KEY BLOCK", []byte("x")), "it holds no private key", nameKey},
		"too short":     {pkcs8(t, weakRSA(t)), "its RSA key has 512 bits, and verifiers take 1024 to 4096", newKey},
	} {
		_, err := dkim.ParsePrivateKey(c.file)
		bad, ok := errors.AsType[*dkim.Error](err)
		if !ok || bad.What != c.what || bad.Remedy != c.remedy {
			t.Errorf("%s: ParsePrivateKey = %#v, want %s; %s", name, err, c.what, c.remedy)
		}
	}
}

// weakRSA is a key of 512 bits, which Go makes no more.
func weakRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	return newRSA(t, 512)
}

func TestReadEntry(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(file, dkimtest.Ed25519(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"example.com:s1:" + file:                 "s1._domainkey.example.com",
		" Example.COM. : S1 : " + file:           "s1._domainkey.example.com",
		"bücher.example:a.b-c:" + file:           "a.b-c._domainkey.xn--bcher-kva.example",
		"":                                       "has no domain at its beginning",
		"[127.0.0.1]:s:" + file:                  "has no domain at its beginning",
		"a b.example:s:" + file:                  "has no domain at its beginning",
		"example.com":                            "has no selector: that is of letters, digits and hyphens, with dots between them",
		"example.com:a_b:" + file:                "has no selector: that is of letters, digits and hyphens, with dots between them",
		"example.com:-a:" + file:                 "has no selector: that is of letters, digits and hyphens, with dots between them",
		"example.com:" + file:                    "has no selector: that is of letters, digits and hyphens, with dots between them",
		"example.com:s":                          "names no file",
		"example.com:s:" + dir:                   "names " + dir + ", which cannot be used: it is a directory",
		"example.com:s:" + dir + "/none":         "names " + dir + "/none, which cannot be used: no such file or directory",
		"example.com:s:MIIEvQIBADANBgkqhkiG9w0B": "names a file (not shown: it is no absolute path, and may be the secret itself), which cannot be used: no such file or directory",
		"example.com:" + strings.Repeat("a.", 125) + "a:" + file: "has a domain and a selector that are too long together",
	} {
		e, err := dkim.ReadEntry(text)
		got := e.Name()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("ReadEntry(%q) = %s, want %s", text, got, want)
		}
	}
	if dkim.IsOpen(file) {
		t.Error("a file for its owner alone is open")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if !dkim.IsOpen(file) || dkim.IsOpen(dir+"/none") {
		t.Error("a file for everybody is not open, or one that is not there")
	}
}

// FuzzParsePrivateKey: a file is refused, or holds a key that signs; no error quotes it.
func FuzzParsePrivateKey(f *testing.F) {
	f.Add(dkimtest.RSA(f))
	f.Add(dkimtest.Ed25519(f))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := dkim.ParsePrivateKey(data)
		if err != nil {
			if bad, ok := errors.AsType[*dkim.Error](err); !ok || bad.What == "" || bad.Remedy == "" {
				t.Errorf("ParsePrivateKey = %v", err)
			}
			return
		}
		entries := []dkim.Entry{{Domain: "example.com", Selector: "s", Key: key}}
		if _, err := dkimtest.Verify(signed(t, dkim.NewSigner(entries), messages["plain"]), entries); err != nil {
			t.Errorf("the key does not sign: %v", err)
		}
	})
}
