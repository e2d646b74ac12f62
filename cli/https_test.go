package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// httpsClient trusts the authority and reaches every name at addr.
func httpsClient(t *testing.T, ca []byte, addr net.Addr, edit func(*tls.Config)) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %s", ca)
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr.String())
		},
	}
	if edit != nil {
		edit(transport.TLSClientConfig)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

// TestSelfSigned: who trusts the authority reaches the server by any name, over
// HTTP/2, and over nothing older than TLS 1.2.
func TestSelfSigned(t *testing.T) {
	c := serviceWith(t, "none", 1)
	c.Service.TLS, c.Service.TLSAddr, c.Service.DataDir = "self-signed", "127.0.0.1:0", filepath.Join(t.TempDir(), "data")
	s, stop := start(t, c)
	ca, err := openAuthority(c.Service.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mailsidecar", "localhost", "Mail.internal.example", "127.0.0.1", "[::1]"} {
		resp, err := httpsClient(t, ca.pem(), s.tlsAddr, nil).Get("https://" + name + "/readyz")
		if err != nil {
			t.Errorf("GET https://%s/readyz: %v", name, err)
			continue
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("GET https://%s/readyz = %d by %s, want 200 by HTTP/2", name, resp.StatusCode, resp.Proto)
		}
	}
	resp, err := httpsClient(t, ca.pem(), s.tlsAddr, nil).Post("https://localhost/v1/messages", "application/json", strings.NewReader(smallMessage))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("POST without a relay = %d, want 503", resp.StatusCode)
	}
	old := httpsClient(t, ca.pem(), s.tlsAddr, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 })
	if resp, err := old.Get("https://localhost/readyz"); err == nil {
		resp.Body.Close()
		t.Error("TLS 1.1 is spoken")
	}
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := httpsClient(t, other, s.tlsAddr, nil).Get("https://localhost/readyz"); err == nil {
		resp.Body.Close()
		t.Error("another authority signs for the server")
	}
	if resp, err := http.Get(s.url() + "/readyz"); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestIssuer(t *testing.T) {
	ca, err := openAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{ca: ca}
	issue := func(name string) (*tls.Certificate, error) {
		return i.certificate(&tls.ClientHelloInfo{ServerName: name})
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

// TestAuthority: whoever comes first makes it, it stays, and only its owner can
// read the key.
func TestAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var wg sync.WaitGroup
	made := make([]*authority, 4)
	for n := range made {
		wg.Go(func() {
			var err error
			if made[n], err = openAuthority(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	path := filepath.Join(dir, authorityFile)
	for _, a := range made {
		if a == nil || string(a.pem()) != string(made[0].pem()) {
			t.Fatal("two authorities were made")
		}
	}
	if strings.Contains(string(made[0].pem()), "PRIVATE") {
		t.Error("the key is printed")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v, want one", len(entries), err)
	}
	for name, data := range map[string][]byte{"garbage": []byte("x"), "certificate alone": made[0].pem(), "no authority": leafPEM(t, made[0])} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openAuthority(dir); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: openAuthority() = %v, want what to do", name, err)
		}
	}
}

// leafPEM is a server's certificate with its key.
func leafPEM(t *testing.T, ca *authority) []byte {
	t.Helper()
	leaf, err := (&issuer{ca: ca}).issue("mail.example.com", nil)
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

// TestCertificateFiles: a renewed pair serves without a restart, and a broken or
// half-written one does not.
func TestCertificateFiles(t *testing.T) {
	ca, err := openAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := serviceWith(t, "none", 1)
	dir := t.TempDir()
	c.Service.TLSCertFile, c.Service.TLSKeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := buildTLS(c.Service, quiet()); exitStatus(err) != exitConfig || !strings.Contains(err.Error(), "tls.crt: no such file") {
		t.Errorf("buildTLS without files = %v", err)
	}
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := leafPEM(t, ca), append(leafPEM(t, ca), '\n') // of another size, however coarse the clock
	write(c.Service.TLSCertFile, first)
	write(c.Service.TLSKeyFile, first)
	f := &certificateFiles{certFile: c.Service.TLSCertFile, keyFile: c.Service.TLSKeyFile, log: quiet()}
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	serves := func(what string, want []byte) {
		t.Helper()
		f.looked = time.Time{}
		got, err := f.certificate(nil)
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
