package api

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHint: a client that cannot trust the server, or speaks another scheme, is told which
// setting to change.
func TestHint(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	for _, tc := range []struct {
		name, base string
		trust      *tls.Config
		want       string
	}{
		{"unknown authority", secure.URL, nil, "MAILSIDECAR_TLS_CA_FILE must name a file"},
		{"another authority", secure.URL, &tls.Config{RootCAs: x509.NewCertPool()}, "MAILSIDECAR_TLS_CA_FILE must name a file"},
		{"another name", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), &tls.Config{RootCAs: pool}, "MAILSIDECAR_URL must have a name"},
		{"HTTP", strings.Replace(plain.URL, "http:", "https:", 1), nil, "MAILSIDECAR_URL must begin with http://"},
		{"nothing", "http://127.0.0.1:1", nil, "is it running?"},
	} {
		c := newTestClient(t, tc.base, "")
		c.HTTP.Transport = &http.Transport{TLSClientConfig: tc.trust}
		_, err := c.Do(t.Context(), http.MethodGet, "/readyz", nil, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}

// TestText: what is shown of an answer is one line, and not long.
func TestText(t *testing.T) {
	plain := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
	for _, tc := range []struct {
		header     http.Header
		body, want string
	}{
		{plain, "use https://\n", "use https://"},
		{plain, "a\r\nb\x1b[1m\x9b\xff", "a  b [1m"},
		{plain, strings.Repeat("é", 200), strings.Repeat("é", 150)},
		{http.Header{"Content-Type": {"text/html"}}, "<p>", ""},
		{nil, "x", ""},
	} {
		if got := (Answer{Header: tc.header, Body: []byte(tc.body)}).Text(); got != tc.want {
			t.Errorf("Text() of %q = %q, want %q", tc.body, got, tc.want)
		}
	}
}
