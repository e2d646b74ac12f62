package handler

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/queue"
)

// post is the beginning of a request, as it is sent.
const post = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer " + testKey + "\r\n"

// dialogue sends octets to a listening server and returns its answer, without a
// 100 Continue before it. With half, nothing more is sent.
func dialogue(t *testing.T, s *Server, send string, half bool) answer {
	t.Helper()
	conn, r := dial(t, listen(t, s))
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	if half {
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	return readAnswer(t, r)
}

func readAnswer(t *testing.T, r *bufio.Reader) answer {
	t.Helper()
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("answer cut off: %v", err)
	}
	return answer{response.StatusCode, response.Header, body}
}

func dial(t *testing.T, addr string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), bufio.NewReader(conn)
}

// TestContinue: a client that asks before it sends its body is refused without
// being told to go on, and told to go on otherwise.
func TestContinue(t *testing.T) {
	for _, tc := range []struct {
		name, send string
		want       string
	}{
		{"no key", "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n", "HTTP/1.1 401"},
		{"body too large", post + "Content-Length: 99999999999\r\n", "HTTP/1.1 413"},
		{"content type", strings.Replace(post, "application/json", "text/css", 1) + "Content-Length: 10\r\n", "HTTP/1.1 415"},
		{"envelope", strings.Replace(post, "application/json", "message/rfc822", 1) + "Envelope-To: x\r\nContent-Length: 10\r\n", "HTTP/1.1 422"},
		{"good", post + "Content-Length: 10\r\n", "HTTP/1.1 100"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, r := dial(t, listen(t, newTestServer(t, &fakeQueue{}, nil)))
			if _, err := io.WriteString(conn, tc.send+"Expect: 100-continue\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, tc.want) {
				t.Errorf("answer = %q, %v, want %s", line, err, tc.want)
			}
		})
	}
}

// TestAnswerOutlivesReadTimeout: the time-out for reading the request must not
// end an answer that waits for the relay.
func TestAnswerOutlivesReadTimeout(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, func(o *Options) { o.BodyTimeout = 50 * time.Millisecond })
	s.http.ReadTimeout = 50 * time.Millisecond
	time.AfterFunc(200*time.Millisecond, func() { close(q.block) })
	response := dialogue(t, s, post+"Content-Length: "+strconv.Itoa(len(goodMessage))+"\r\n\r\n"+goodMessage, false)
	if response.status != 202 {
		t.Errorf("answer = %d, want 202", response.status)
	}
}

// TestBodyAtItsOwnPace: a body that keeps coming may take longer than the
// time-out.
func TestBodyAtItsOwnPace(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.BodyTimeout = 500 * time.Millisecond })
	conn, r := dial(t, listen(t, s))
	filler := strings.Repeat(" ", 600<<10)
	if _, err := io.WriteString(conn, post+"Content-Length: "+strconv.Itoa(len(goodMessage)+len(filler))+"\r\n\r\n"+filler); err != nil {
		t.Fatal(err)
	}
	time.Sleep(700 * time.Millisecond)
	if _, err := io.WriteString(conn, goodMessage); err != nil {
		t.Fatal(err)
	}
	if got := readAnswer(t, r).status; got != 202 {
		t.Errorf("answer = %d, want 202", got)
	}
}

func TestShutdown(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, nil)
	addr, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, r := dial(t, addr.String())
	if _, err := io.WriteString(conn, post+"Content-Length: "+strconv.Itoa(len(goodMessage))+"\r\n\r\n"+goodMessage); err != nil {
		t.Fatal(err)
	}
	for len(q.submissions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	if err := <-s.Done(); err != nil {
		t.Errorf("Done() = %v, want nil", err)
	}
	close(q.block)
	if got := readAnswer(t, r).status; got != 202 {
		t.Errorf("request under way = %d, want 202", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
}

func TestShutdownCuts(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, nil)
	addr, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := dial(t, addr.String())
	if _, err := io.WriteString(conn, post+"Content-Length: "+strconv.Itoa(len(goodMessage))+"\r\n\r\n"+goodMessage); err != nil {
		t.Fatal(err)
	}
	for len(q.submissions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err == nil {
		t.Error("Shutdown() = nil with a request under way, want an error")
	}
}

func TestListenWithoutKeys(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, ":0": false, "0.0.0.0:0": false} {
		s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Keys = nil })
		_, err := s.Listen(t.Context(), addr)
		if err != nil && strings.Contains(err.Error(), "cannot assign requested address") {
			continue // no IPv6 here
		}
		if got := err == nil; got != want {
			t.Errorf("Listen(%q) = %v, want it to work: %v", addr, err, want)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestHealth(t *testing.T) {
	ready := false
	s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Ready = func() bool { return ready } })
	for _, tc := range []struct {
		ready  bool
		target string
		want   int
	}{{false, "/livez", 200}, {false, "/readyz", 503}, {true, "/readyz", 200}} {
		ready = tc.ready
		r := newRequest("GET", tc.target, "", "Authorization: ")
		if got := serve(s, r).status; got != tc.want {
			t.Errorf("GET %s, ready %v = %d, want %d", tc.target, tc.ready, got, tc.want)
		}
	}
}

// TestAccessLog: one line for each request, with neither an address nor a key
// in it.
func TestAccessLog(t *testing.T) {
	var log bytes.Buffer
	s := newTestServer(t, &fakeQueue{durable: true, message: queue.Message{}}, func(o *Options) { o.Logger = logTo(&log) })
	serve(s, newRequest("POST", "/v1/messages", goodMessage, "X-Request-Id: mine-1"))
	serve(s, newRequest("GET", "/v1/messages?recipient=ana@example.org", ""))
	serve(s, newRequest("POST", "/v1/messages", `{"to":"ana@example.org"}`))
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), log.String())
	}
	for _, secret := range []string{"ana@", "shop@", testKey} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, log.String())
		}
	}
	for i, want := range []string{`"request_id":"mine-1","method":"POST","route":"/v1/messages","status":202,`, `"key":"shop"`, `"code":"invalid_message"`} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d = %s, want %s in it", i, lines[i], want)
		}
	}
}

func TestRequestID(t *testing.T) {
	for given, kept := range map[string]bool{"a-b_c.1": true, "": false, "a b": false, "a\"b": false, strings.Repeat("x", 129): false, strings.Repeat("x", 128): true} {
		got := requestID(given)
		if (got == given) != kept || got == "" {
			t.Errorf("requestID(%q) = %q, want it kept: %v", given, got, kept)
		}
	}
}
