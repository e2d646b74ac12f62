package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestIssuer(t *testing.T) {
	ca, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{ca: ca}
	issue := func(name string) (*tls.Certificate, error) {
		return i.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	}
	first, err := issue("mailsidecar")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := issue("MAILSIDECAR."); err != nil || again != first {
		t.Errorf("the same name gets another certificate, %v", err)
	}
	first.Leaf.NotAfter = time.Now().Add(leafRenewal - time.Minute)
	if again, err := issue("mailsidecar"); err != nil || again == first {
		t.Errorf("a certificate that ends soon is not renewed, %v", err)
	}
	for _, name := range []string{"", "a b", "*.example.com", "-a", "a..b", strings.Repeat("a.", 200) + "a", "a\x00"} {
		if _, err := issue(name); err == nil {
			t.Errorf("certificate for %q", name)
		}
	}
	for n := range 3 * maxLeaves {
		if _, err := issue("n" + string(rune('a'+n%26)) + string(rune('a'+n/26))); err != nil {
			t.Fatal(err)
		}
	}
	if len(i.leaves) > maxLeaves {
		t.Errorf("%d certificates are kept, want %d at most", len(i.leaves), maxLeaves)
	}
}

// TestAuthority: the first process makes it, it stays, and only its owner can read the
// key.
func TestAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var wg sync.WaitGroup
	made := make([]*Authority, 4)
	for n := range made {
		wg.Go(func() {
			var err error
			if made[n], err = OpenAuthority(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	path := filepath.Join(dir, authorityFile)
	for _, a := range made {
		if a == nil || string(a.PEM()) != string(made[0].PEM()) {
			t.Fatal("two authorities were made")
		}
	}
	if strings.Contains(string(made[0].PEM()), "PRIVATE") {
		t.Error("the key is printed")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v, want one", len(entries), err)
	}
	for name, data := range map[string][]byte{"garbage": []byte("x"), "certificate alone": made[0].PEM(), "no authority": leafPEM(t, made[0])} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: OpenAuthority() = %v, want what to do", name, err)
		}
	}
}

// leafPEM is a server's certificate with its key.
func leafPEM(t *testing.T, ca *Authority) []byte {
	t.Helper()
	leaf, err := (&Issuer{ca: ca}).issue("mail.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}

// TestFiles: a renewed pair serves without a restart, and a broken or
// half-written one does not.
func TestFiles(t *testing.T) {
	ca, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := leafPEM(t, ca), append(leafPEM(t, ca), '\n') // of another size, however coarse the clock
	write(certFile, first)
	write(keyFile, first)
	f, err := OpenFiles(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serves := func(what string, want []byte) {
		t.Helper()
		f.looked = time.Time{}
		got, err := f.GetCertificate(nil)
		if block, _ := pem.Decode(want); err != nil || string(got.Certificate[0]) != string(block.Bytes) {
			t.Errorf("%s: another certificate serves, %v", what, err)
		}
	}
	serves("first", first)
	write(f.certFile, second)
	serves("certificate without its key", first)
	write(f.keyFile, second)
	serves("second", second)
	write(f.certFile, []byte("broken"))
	serves("broken", second)
	if err := os.Remove(f.certFile); err != nil {
		t.Fatal(err)
	}
	serves("removed", second)
	write(f.certFile, first)
	write(f.keyFile, first)
	serves("first again", first)
}
