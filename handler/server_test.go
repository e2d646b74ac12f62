package handler

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
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
	if response.Close {
		response.Header.Set("Connection", "close") // ReadResponse takes it out
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
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
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

// pipeListener hands out one connection in memory, so that time can be virtual.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// overPipe runs talk with a connection to the server, in virtual time.
func overPipe(t *testing.T, q *fakeQueue, talk func(*testing.T, net.Conn, *bufio.Reader)) {
	withServer(t, q, func(t *testing.T, _ *Server, conn net.Conn, r *bufio.Reader) { talk(t, conn, r) })
}

// withServer is overPipe for a test that needs the server, too.
func withServer(t *testing.T, q *fakeQueue, talk func(*testing.T, *Server, net.Conn, *bufio.Reader)) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, q, nil)
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.http.Serve(l) }()
		client, server := net.Pipe()
		l.conns <- server
		talk(t, s, client, bufio.NewReader(client))
		if err := errors.Join(client.Close(), s.http.Close()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func send(t *testing.T, conn net.Conn, octets string) {
	t.Helper()
	if _, err := io.WriteString(conn, octets); err != nil {
		t.Fatal(err)
	}
}

// TestSlowBody: a body that stops coming is given up after the time-out, and
// nothing of it reaches the queue.
func TestSlowBody(t *testing.T) {
	q := &fakeQueue{durable: true}
	overPipe(t, q, func(t *testing.T, conn net.Conn, r *bufio.Reader) {
		started := time.Now()
		send(t, conn, post+"Content-Length: 100\r\n\r\n{")
		a := readAnswer(t, r)
		if p := read[api.Problem](t, a); a.status != 408 || p.Code != api.CodeBodyTimeout || time.Since(started) != 30*time.Second {
			t.Errorf("answer = %d %s after %v, want 408 body_timeout after 30s", a.status, p.Code, time.Since(started))
		}
		if a.header.Get("Connection") != "close" {
			t.Error("the connection is kept")
		}
	})
	if len(q.got) > 0 {
		t.Error("half a body reached the queue")
	}
}

// TestSteadyBody: a body that keeps coming may take longer than the time-out,
// yet not for ever.
func TestSteadyBody(t *testing.T) {
	body := strings.Repeat(" ", 4<<20) + goodMessage
	for _, tc := range []struct {
		rate int // octets per second
		want int
	}{{64 << 10, 202}, {16 << 10, 408}} {
		overPipe(t, &fakeQueue{durable: true}, func(t *testing.T, conn net.Conn, r *bufio.Reader) {
			var wg sync.WaitGroup
			wg.Go(func() {
				rest := body
				_, err := io.WriteString(conn, post+"Content-Length: "+strconv.Itoa(len(body))+"\r\n\r\n")
				for len(rest) > 0 && err == nil {
					n := min(tc.rate, len(rest))
					_, err = io.WriteString(conn, rest[:n])
					rest = rest[n:]
					time.Sleep(time.Second)
				}
			})
			if got := readAnswer(t, r).status; got != tc.want {
				t.Errorf("body of 4 MiB at %d octets/s = %d, want %d", tc.rate, got, tc.want)
			}
			wg.Wait()
		})
	}
}

// TestAnswerOutlivesReadTimeout: no time-out for reading the request may end an
// answer that waits for the relay.
func TestAnswerOutlivesReadTimeout(t *testing.T) {
	for _, size := range []int{len(goodMessage), 1 << 18} { // there, the deadline was to be set anew
		q := &fakeQueue{durable: true, delay: 85 * time.Second}
		overPipe(t, q, func(t *testing.T, conn net.Conn, r *bufio.Reader) {
			send(t, conn, post+"Prefer: wait=60\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\n"+goodMessage+strings.Repeat(" ", size-len(goodMessage)))
			if a := readAnswer(t, r); a.status != 202 {
				t.Errorf("answer after 85 s = %d %s, want 202", a.status, a.body)
			}
		})
	}
}

// TestClientThatDoesNotRead is let go after the write time-out.
func TestClientThatDoesNotRead(t *testing.T) {
	q := &fakeQueue{durable: true, content: bytes.Repeat([]byte("x"), 1<<20)}
	overPipe(t, q, func(t *testing.T, conn net.Conn, _ *bufio.Reader) {
		send(t, conn, "GET /v1/messages/1/content HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
		time.Sleep(writeTimeout + time.Second)
		if n, err := io.Copy(io.Discard, conn); err != nil || n >= 1<<20 {
			t.Errorf("read %d octets, %v after the write time-out, want the answer to be cut", n, err)
		}
	})
}

func TestShutdown(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, nil)
	addr := serveLocally(t, s)
	conn, r := dial(t, addr)
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

// TestShutdownUnused: a connection that a client opened in reserve does not hold
// up the stop.
func TestShutdownUnused(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	addr := serveLocally(t, s)
	dial(t, addr)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // Go's own patience is 5 s
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown() = %v, want nil", err)
	}
}

func TestShutdownCuts(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, nil)
	addr := serveLocally(t, s)
	conn, _ := dial(t, addr)
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

func TestServeWithoutKeys(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, ":0": false, "0.0.0.0:0": false} {
		s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Keys = nil })
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue // no IPv6 here
		}
		if err := s.Serve(l); (err == nil) != want {
			t.Errorf("Serve(%q) = %v, want it to work: %v", addr, err, want)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestHealth(t *testing.T) {
	var ready error
	s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Ready = func() error { return ready } })
	away := fmt.Errorf("%w: dial db.example.com", queue.ErrUnavailable)
	refused := fmt.Errorf("%w: %w", queue.ErrUnavailable, &queue.StoreError{Err: errors.New("password authentication failed")})
	for _, tc := range []struct {
		ready  error
		target string
		want   int
		body   string
	}{
		{queue.ErrDraining, "/livez", 200, "ok\n"},
		{queue.ErrDraining, "/readyz", 503, "not ready: it is drained, until mailsidecar drain --end\n"},
		{queue.ErrShuttingDown, "/readyz", 503, "not ready: it stops\n"},
		{errors.New("secret"), "/readyz", 503, "not ready\n"},
		{refused, "/readyz", 503, "not ready: the database of the queue cannot be used, and the log has the remedy\n"},
		{nil, "/readyz", 200, "ok\n"},
		{away, "/readyz", 503, "not ready: the database of the queue does not answer\n"},
	} {
		ready = tc.ready
		r := newRequest("GET", tc.target, "", "Authorization: ")
		if got := serve(s, r); got.status != tc.want || string(got.body) != tc.body {
			t.Errorf("GET %s, ready %v = %d %q, want %d %q", tc.target, tc.ready, got.status, got.body, tc.want, tc.body)
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
	serve(s, newRequest("GET", "/v1/nothing/ana@example.org", ""))
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, want 4:\n%s", len(lines), log.String())
	}
	for _, secret := range []string{"ana@", "shop@", testKey} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, log.String())
		}
	}
	for i, want := range []string{`"request_id":"mine-1","method":"POST","route":"/v1/messages","status":202,`, `"key":"shop"`, `"code":"invalid_message"`, `"code":"not_found"`} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d = %s, want %s in it", i, lines[i], want)
		}
	}
}

// The log has the id of a message that was asked for, although nothing is stored.
func TestAccessLogWithoutQueue(t *testing.T) {
	var log bytes.Buffer
	s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Logger = logTo(&log) })
	serve(s, newRequest("GET", "/v1/messages/0198", ""))
	if want := `"code":"queue_required","id":"0198"`; !strings.Contains(log.String(), want) {
		t.Errorf("line = %s, want %s in it", log.String(), want)
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
