package handler

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// early is a request that is answered before all of its body has come.
type early struct {
	name   string
	status int
	head   string // without the fields of the body, and the empty line
	change func(*Options)
	// asked says that the body is read until it is refused: the client may be told to go on.
	asked bool
	// encoding is the only one in which the body is sent; empty: all.
	encoding string
}

// shopPost begins a request with a key.
func shopPost(contentType string) string {
	return "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + testKey + "\r\nContent-Type: " + contentType + "\r\n"
}

const jsonType = "application/json"

func smallMessages(o *Options) { o.MaxMessageSize = 1 << 20 }

var earlyAnswers = []early{
	{name: "not HTTP", status: 400, head: "POST /v1/messages HTTP/1.1\r\nHost: x\r\nno field\r\n"},
	{name: "no host", status: 400, head: "POST /v1/messages HTTP/1.1\r\n"},
	{name: "no key", status: 401, head: strings.Replace(shopPost(jsonType), "Authorization", "X", 1)},
	{name: "unknown key", status: 401, head: strings.Replace(shopPost(jsonType), testKey, "x", 1)},
	{name: "unknown token of another API", status: 401, head: "POST /email HTTP/1.1\r\nHost: x\r\nX-Postmark-Server-Token: x\r\nContent-Type: application/json\r\n"},
	{name: "foreign page", status: 403, head: shopPost(jsonType) + "Sec-Fetch-Site: cross-site\r\n"},
	{name: "unknown path", status: 404, head: "POST /nothing HTTP/1.1\r\nHost: x\r\n"},
	{name: "method", status: 405, head: strings.Replace(shopPost(jsonType), "POST", "PUT", 1)},
	{name: "slow body", status: 408, head: shopPost(jsonType), asked: true, change: func(o *Options) { o.BodyTimeout = time.Nanosecond }},
	{name: "large body", status: 413, head: shopPost(jsonType), change: smallMessages, encoding: "Content-Length"},
	{name: "large body of unknown length", status: 413, head: shopPost("message/rfc822"), change: smallMessages, asked: true, encoding: "chunked"},
	{name: "content type", status: 415, head: shopPost("text/css")},
	{name: "content encoding", status: 415, head: shopPost(jsonType) + "Content-Encoding: br\r\n"},
	{name: "expectation", status: 417, head: shopPost(jsonType) + "Expect: wonders\r\n"},
	{name: "envelope", status: 422, head: shopPost("message/rfc822") + "Envelope-To: x\r\n"},
	{name: "large header", status: 431, head: shopPost(jsonType) + "X: " + strings.Repeat("x", 400<<10) + "\r\n"},
	{name: "header over what the route takes", status: 431, head: "POST /nothing HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n"},
	{name: "many fields", status: 431, head: shopPost(jsonType) + strings.Repeat("a:\r\n", 4000)},
	{name: "transfer encoding", status: 501, head: shopPost(jsonType) + "Transfer-Encoding: wonders\r\n", encoding: "none"},
	{name: "share of connections", status: 503, head: shopPost(jsonType), change: func(o *Options) { o.MaxConnections = 1 }},
	{name: "version", status: 505, head: "POST / HTTP/3.7\r\nHost: x\r\n"},
}

// TestEarlyAnswer: a client that sends all of a large body before it reads gets the whole
// answer, whatever the answer is. And nothing of the body is taken for a request.
func TestEarlyAnswer(t *testing.T) {
	for _, transport := range []string{"HTTP", "HTTPS"} {
		for _, e := range earlyAnswers {
			for _, encoding := range []string{"Content-Length", "chunked", "none", "Expect"} {
				if !e.sent(encoding) {
					continue
				}
				// The servers stop together, at the end.
				connect := serveOver(t, transport, newTestServer(t, &fakeQueue{durable: true}, e.change))
				t.Run(transport+"/"+e.name+"/"+encoding, func(t *testing.T) {
					t.Parallel()
					e.try(t, connect(t), encoding)
				})
			}
		}
	}
}

// sent reports whether the case is tried with that encoding. With none, what follows the
// header has no length.
func (e *early) sent(encoding string) bool {
	switch {
	case e.encoding != "":
		return encoding == e.encoding
	case encoding == "none":
		return false
	default:
		return encoding != "Expect" || !e.asked && e.status != http.StatusExpectationFailed
	}
}

// getLive is a request. A body that consists of it shows whether some of the body is taken for one.
const getLive = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"

func (e *early) try(t *testing.T, conn net.Conn, encoding string) {
	const pieces = 12 // more than the buffers of both ends hold
	body := strings.Repeat(getLive, 1<<20/len(getLive))
	head := e.head
	switch encoding {
	case "Content-Length", "Expect":
		head += fmt.Sprintf("Content-Length: %d\r\n", pieces*len(body))
	case "chunked":
		head += "Transfer-Encoding: chunked\r\n"
		body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
	}
	if encoding == "Expect" {
		head += "Expect: 100-continue\r\n"
	}
	send(t, conn, head+"\r\n")
	for i := range pieces {
		if _, err := io.WriteString(conn, body); err != nil {
			t.Fatalf("after %d MiB: %v", i, err)
		}
	}
	r := bufio.NewReader(conn)
	a := readAnswer(t, r)
	if a.status != e.status || len(a.body) == 0 && a.status != http.StatusExpectationFailed {
		t.Errorf("answer = %d %s, want %d", a.status, a.body, e.status)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("after the answer: %.80q, %v, want the end", rest, err)
	}
}

// TestBodyIsNoRequest: what follows a refused body is answered, or the connection ends; the
// body itself is never taken for a request.
func TestBodyIsNoRequest(t *testing.T) {
	for name, head := range map[string]string{
		"no key": strings.Replace(shopPost(jsonType), "Authorization", "X", 1), "unknown path": "POST /nothing HTTP/1.1\r\nHost: x\r\n",
		"content type": shopPost("text/css"), "bad JSON": shopPost(jsonType), "bad message": shopPost("message/rfc822"),
	} {
		for octets, kept := range map[int]bool{400: true, 200 << 10: true, 300 << 10: strings.HasPrefix(name, "bad")} {
			for _, chunked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/chunked=%v", name, octets, chunked), func(t *testing.T) {
					body := strings.Repeat(getLive, octets/len(getLive))
					if chunked {
						body = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
					} else {
						body = fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
					}
					conn, r := dial(t, listen(t, newTestServer(t, &fakeQueue{durable: true}, nil)))
					send(t, conn, head+body+strings.Replace(getLive, "GET", "HEAD", 1)+strings.Replace(getLive, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
					if a := readAnswer(t, r); a.status < 400 {
						t.Errorf("first answer = %d %s", a.status, a.body)
					}
					rest, err := io.ReadAll(r)
					if want := map[bool]int{true: 2}[kept]; err != nil || strings.Count(string(rest), "HTTP/1.1 200 OK") != want {
						t.Errorf("after that: %q, %v, want %d answers", rest, err, want)
					}
				})
			}
		}
	}
}

// serveOver serves until the test ends, and returns what connects to the server.
func serveOver(t *testing.T, transport string, s *Server) func(*testing.T) net.Conn {
	t.Helper()
	if transport == "HTTP" {
		addr := listen(t, s)
		return func(t *testing.T) net.Conn {
			conn, _ := dial(t, addr)
			return conn
		}
	}
	addr := listenTLS(t, s)
	return func(t *testing.T) net.Conn {
		conn, _ := dial(t, addr)
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
}

// listenTLS serves HTTPS on a loopback port until the test ends.
func listenTLS(t *testing.T, s *Server) string {
	t.Helper()
	certificate := httptest.NewTLSServer(http.NotFoundHandler())
	defer certificate.Close()
	s.tls = &tls.Config{Certificates: slices.Clone(certificate.TLS.Certificates), NextProtos: []string{"http/1.1"}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeTLS(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-s.Done()); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}
