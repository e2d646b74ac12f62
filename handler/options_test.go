package handler

import (
	"bufio"
	"io"
	"net/http"
	"testing"

	"mailsidecar/api"
)

// TestOptionsOfServer: a request about the server as a whole (RFC 9110 §9.3.7) is answered as
// any other one is, with our header, and logged.
func TestOptionsOfServer(t *testing.T) {
	connect := serveOver(t, "HTTP", newTestServer(t, &fakeQueue{durable: true}, nil))
	c := connect(t)
	if _, err := io.WriteString(c, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := response.Header.Get(api.HeaderOwn); got != "1" || response.StatusCode != http.StatusNotFound {
		t.Errorf("OPTIONS * = %s with %s: %q, want 404 with 1", response.Status, api.HeaderOwn, got)
	}
}
