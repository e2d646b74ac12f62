package token

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// TestProxyRefuses: the answer of an HTTP proxy that lets no connection pass is an error
// of its own, and not that of the endpoint.
func TestProxyRefuses(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusBadGateway} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		defer proxy.Close()
		at, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		transport := defaultTransport.Clone()
		transport.Proxy = http.ProxyURL(at)
		e := Endpoint{TokenURL: "https://login.example.com/token", Client: Client{ID: "id", Secret: "secret"}, Transport: transport}
		_, err = e.ClientCredentials(t.Context(), nil)
		if refused, ok := errors.AsType[*ProxyError](err); !ok || refused.Status != status || KindOf(err) != KindPassing {
			t.Errorf("ClientCredentials() through a proxy that answers %d = %v, want a ProxyError", status, err)
		}
	}
}
