package api

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newTestClient(t *testing.T, base, key string) *Client {
	t.Helper()
	c, err := New(base, key, "1.2.3", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Retry-After", "0")
		w.Header().Set(HeaderOwn, "1")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, strings.Join([]string{
			r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.UserAgent(), r.Header.Get("Prefer"), string(body),
		}, " "))
	}))
	defer server.Close()
	for _, tt := range []struct{ base, key, want string }{
		{server.URL, "secret", "POST /v1/messages?limit=1 Bearer secret mailsidecar/1.2.3 wait=3 text"},
		{server.URL + "/mail/", "", "POST /mail/v1/messages?limit=1  mailsidecar/1.2.3 wait=3 text"},
	} {
		c := newTestClient(t, tt.base, tt.key)
		got, err := c.Do(t.Context(), http.MethodPost, "/v1/messages?limit=1", http.Header{"Prefer": {"wait=3"}}, []byte("text"))
		if err != nil || got.Status != http.StatusTeapot || got.Header.Get("Retry-After") != "0" || string(got.Body) != tt.want {
			t.Errorf("Do to %s = %d %q, %v, want 418 %q", tt.base, got.Status, got.Body, err, tt.want)
		}
		if c.HasKey() != (tt.key != "") {
			t.Errorf("HasKey() = %t with key %q", c.HasKey(), tt.key)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for base, connected := range map[string]bool{cut.URL: true, "http://user:pass@" + closed.Addr().String(): false} {
		_, err := newTestClient(t, base, "secret").Do(t.Context(), http.MethodPost, "/v1/messages", nil, nil)
		var none *NoAnswerError
		if !errors.As(err, &none) || none.Connected != connected {
			t.Fatalf("Do to %s = %v, want NoAnswerError with Connected %t", base, err, connected)
		}
		if text := err.Error(); strings.Contains(text, "pass") || strings.Contains(text, "secret") || !strings.Contains(text, none.Server) {
			t.Errorf("error = %q, want the server's address and no secret", text)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, base := range []string{"", "127.0.0.1:8587", "ftp://a", "http://", "http://%zz"} {
		if _, err := New(base, "", "", 0); err == nil || !strings.Contains(err.Error(), "MAILSIDECAR_URL") {
			t.Errorf("New(%q) = %v, want an error that names MAILSIDECAR_URL", base, err)
		}
	}
}

func TestTrust(t *testing.T) {
	if got, err := Trust(""); got != nil || err != nil {
		t.Errorf("Trust of nothing = %v, %v, want nil", got, err)
	}
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + "x"} {
		if _, err := Trust(file); err == nil || !strings.Contains(err.Error(), "MAILSIDECAR_TLS_CA_FILE") {
			t.Errorf("Trust(%s) = %v, want an error that names MAILSIDECAR_TLS_CA_FILE", file, err)
		}
	}
}
