package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/service/certs"
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

// TestSelfSigned: a client that trusts the authority reaches the server by any name, over
// HTTP/1.1, though it offers HTTP/2, and over nothing older than TLS 1.2.
func TestSelfSigned(t *testing.T) {
	c := serviceWith(t, "none", 1)
	c.Service.TLS, c.Service.TLSAddr, c.Service.DataDir = "self-signed", "127.0.0.1:0", filepath.Join(t.TempDir(), "data")
	s, stop := start(t, c)
	ca, err := certs.OpenAuthority(c.Service.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mailsidecar", "localhost", "Mail.internal.example", "127.0.0.1", "[::1]"} {
		resp, err := httpsClient(t, ca.PEM(), s.tlsAddr, nil).Get("https://" + name + "/readyz")
		if err != nil {
			t.Errorf("GET https://%s/readyz: %v", name, err)
			continue
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK || resp.Proto != "HTTP/1.1" {
			t.Errorf("GET https://%s/readyz = %d by %s, want 200 by HTTP/1.1", name, resp.StatusCode, resp.Proto)
		}
	}
	resp, err := httpsClient(t, ca.PEM(), s.tlsAddr, nil).Post("https://localhost/v1/messages", "application/json", strings.NewReader(smallMessage))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("POST without a relay = %d, want 503", resp.StatusCode)
	}
	old := httpsClient(t, ca.PEM(), s.tlsAddr, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 })
	if resp, err := old.Get("https://localhost/readyz"); err == nil {
		resp.Body.Close()
		t.Error("TLS 1.1 is spoken")
	}
	other, err := certs.NewAuthority("another")
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := httpsClient(t, other.PEM(), s.tlsAddr, nil).Get("https://localhost/readyz"); err == nil {
		resp.Body.Close()
		t.Error("another authority signs for the server")
	}
	if resp, err := http.Get("http://" + s.tlsAddr.String() + "/readyz"); err != nil {
		t.Errorf("HTTP where HTTPS is served: %v, want an answer", err)
	} else if resp.Body.Close(); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("HTTP where HTTPS is served = %d, want 421", resp.StatusCode)
	}
	if resp, err := http.Get(s.URL() + "/readyz"); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestNewTLS: a certificate that cannot be read is a fault of the configuration.
func TestNewTLS(t *testing.T) {
	c := serviceWith(t, "none", 1)
	dir := t.TempDir()
	c.Service.TLSCertFile, c.Service.TLSKeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	_, err := newTLS(c.Service, quiet())
	if e, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(e.Setting, "MAILSIDECAR_TLS_CERT_FILE") || !strings.Contains(err.Error(), "tls.crt: no such file") {
		t.Errorf("newTLS without files = %v", err)
	}
}
