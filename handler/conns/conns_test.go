package conns

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a listener whose connections are in memory, so that time can be virtual.
type memory struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func (l *memory) Addr() net.Addr { return &net.TCPAddr{} }

func (l *memory) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memory) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// server answers over connections of a set. A request to /hold is answered when the test
// ends. The field Key proves that key.
type server struct {
	set  *Set
	l    *memory
	hold chan struct{}
	log  bytes.Buffer
	over func() // see AfterRequest; nil: nothing
}

// run runs the test in virtual time.
func run(t *testing.T, limits Limits, test func(*testing.T, *server)) {
	runOn(t, limits, nil, test)
}

// runOn is run on a port that speaks TLS, with a configuration.
func runOn(t *testing.T, limits Limits, config *tls.Config, test func(*testing.T, *server)) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{l: &memory{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}, hold: make(chan struct{})}
		s.set = New(limits, slog.New(slog.NewTextHandler(&s.log, nil)))
		h := &http.Server{
			Handler: s, ConnState: s.set.Track, ConnContext: Context, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Hour,
			MaxHeaderBytes: s.set.limits.Header, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		}
		served := make(chan error)
		go func() { served <- h.Serve(s.set.Listen(s.l, config)) }()
		test(t, s)
		close(s.hold)
		_ = h.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		time.Sleep(lingerTime + lingerPause) // for what the server does not wait for
	})
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if key := r.Header.Get("Key"); key != "" && !Prove(r.Context(), key) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if s.over != nil {
		AfterRequest(r.Context(), s.over)
	}
	switch r.URL.Path {
	case "/hold":
		<-s.hold
	case "/panic":
		panic(http.ErrAbortHandler)
	}
}

// client is the other end of a connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

// connect opens a connection and sends octets, if there are any. It does not wait until
// they are read.
func (s *server) connect(t *testing.T, octets string) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	s.l.conns <- theirs
	c := &client{Conn: ours, r: bufio.NewReader(ours)}
	t.Cleanup(func() { ours.Close() })
	if octets != "" {
		go func() { _, _ = io.WriteString(ours, octets) }()
	}
	return c
}

// open reports whether the server has not closed the connection, which has no answer to
// read.
func (c *client) open() bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.r.Peek(1)
	return !errors.Is(err, io.EOF)
}

// status is that of the next answer, or 0.
func (c *client) status() int {
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// get is a whole request; begin is the beginning of one.
func get(path, key string) string {
	if key != "" {
		key = "Key: " + key + "\r\n"
	}
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + key + "\r\n"
}

const begin = "GET / HTTP/1.1\r\nHost: x\r\n"

// TestUnfinished: of many connections with an unfinished header the oldest are closed, and
// each new client is answered.
func TestUnfinished(t *testing.T) {
	for name, octets := range map[string]string{"nothing": "", "half a header": begin, "an octet": "G"} {
		run(t, Limits{Open: 100, Unfinished: 10}, func(t *testing.T, s *server) {
			var all []*client
			for range 40 {
				all = append(all, s.connect(t, octets))
				time.Sleep(fresh)
			}
			if got := s.connect(t, get("/", "")).status(); got != http.StatusOK {
				t.Errorf("%s: a new client got %d, want 200", name, got)
			}
			for i, c := range all {
				if want := i > 30; c.open() != want {
					t.Errorf("%s: connection %d of 40 is open: %v, want %v", name, i, !want, want)
				}
			}
		})
	}
}

// TestSlowHeaders: clients that send an octet now and then do not keep a new one out, and
// requests that are sent at once are all answered.
func TestSlowHeaders(t *testing.T) {
	run(t, Limits{Open: 100, Unfinished: 10}, func(t *testing.T, s *server) {
		var slow sync.WaitGroup
		defer slow.Wait()
		for range 30 {
			c := s.connect(t, "")
			defer c.Close()
			slow.Go(func() {
				for next := begin; ; next = "a" {
					if _, err := io.WriteString(c, next); err != nil {
						return
					}
					time.Sleep(fresh / 3)
				}
			})
		}
		var honest sync.WaitGroup
		for range 50 {
			honest.Go(func() {
				if got := s.connect(t, get("/", "")).status(); got != http.StatusOK {
					t.Errorf("a new client got %d, want 200", got)
				}
			})
		}
		honest.Wait()
	})
}

// TestOpen: over the limit of connections the one that matters least is closed.
func TestOpen(t *testing.T) {
	order := []struct{ name, octets string }{
		{"idle, older", get("/", "")},
		{"idle", get("/", "")},
		{"unfinished, older", begin},
		{"unfinished", ""},
		{"idle with a key, older", get("/", "shop")},
		{"idle with a key", get("/", "shop")},
		{"request without a key, older", get("/hold", "")},
		{"request without a key", get("/hold", "")},
	}
	for closed := 1; closed <= len(order); closed++ {
		run(t, Limits{Open: 16}, func(t *testing.T, s *server) {
			all := make([]*client, len(order))
			for _, i := range []int{6, 2, 4, 0, 1, 5, 3, 7} { // the order in which they come does not count
				all[i] = s.connect(t, order[i].octets)
				if i < 2 || i == 4 || i == 5 {
					if got := all[i].status(); got != http.StatusOK {
						t.Fatalf("%s = %d, want 200", order[i].name, got)
					}
				}
				time.Sleep(time.Second)
			}
			var held []*client
			for range 16 - len(order) + closed {
				held = append(held, s.connect(t, get("/hold", fmt.Sprint("key", len(held)))))
				synctest.Wait()
			}
			for i, c := range all {
				if want := i >= closed; c.open() != want {
					t.Errorf("after %d too many: %s is open: %v, want %v", closed, order[i].name, !want, want)
				}
			}
			for i, c := range held {
				if !c.open() {
					t.Errorf("request %d with a key was cut", i)
				}
			}
		})
	}
}

// TestBusyClient: a client that sends one request after the other keeps its connection
// beside any number of requests without a key.
func TestBusyClient(t *testing.T) {
	run(t, Limits{Open: 20}, func(t *testing.T, s *server) {
		busy := s.connect(t, get("/", "shop"))
		if got := busy.status(); got != http.StatusOK {
			t.Fatalf("status %d", got)
		}
		for range 50 {
			for range 5 {
				s.connect(t, get("/hold", ""))
				synctest.Wait()
			}
			if _, err := io.WriteString(busy, get("/", "shop")); err != nil {
				t.Fatal("the connection was closed")
			}
			if got := busy.status(); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
		}
	})
}

// TestShare: the requests of one key leave room for those of others, and requests without
// a key for those with one.
func TestShare(t *testing.T) {
	run(t, Limits{Open: 40}, func(t *testing.T, s *server) {
		for range 60 {
			s.connect(t, get("/hold", ""))
			synctest.Wait()
		}
		for _, tc := range []struct {
			key  string
			held int
		}{{"shop", 20}, {"blog", 10}, {"cron", 5}} {
			for i := range 40 {
				c := s.connect(t, get("/hold", tc.key))
				synctest.Wait()
				if i < tc.held {
					if !c.open() {
						t.Errorf("request %d of %s was cut", i+1, tc.key)
					}
				} else if got := c.status(); got != http.StatusServiceUnavailable {
					t.Errorf("request %d of %s = %d, want 503", i+1, tc.key, got)
				}
			}
		}
		if got := s.connect(t, get("/", "last")).status(); got != http.StatusOK {
			t.Errorf("a new key's request = %d, want 200", got)
		}
	})
}

// TestAfterRequest: a request is over when its answer was sent, or when it never will be.
func TestAfterRequest(t *testing.T) {
	run(t, Limits{}, func(t *testing.T, s *server) {
		over := 0
		s.over = func() { over++ }
		c := s.connect(t, get("/", "")+get("/", "")+get("/panic", ""))
		for i := range 2 {
			if synctest.Wait(); over != i {
				t.Errorf("%d requests are over, with an answer that nobody has read", over-i)
			}
			if status := c.status(); status != http.StatusOK {
				t.Errorf("answer %d = %d, want 200", i, status)
			}
		}
		if synctest.Wait(); over != 3 || c.open() {
			t.Errorf("%d requests are over, want 3 and a closed connection", over)
		}
	})
	over := false
	if AfterRequest(t.Context(), func() { over = true }); !over {
		t.Error("a request without a connection is not over")
	}
}

// TestFields: a header with too many fields is refused, a body with many lines is not.
func TestFields(t *testing.T) {
	post := func(header, body string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
	}
	lines := strings.Repeat("\n", 3000)
	many := strings.Repeat("a:\n", 30)
	for _, tc := range []struct {
		name, octets string
		want         []int
	}{
		{"many lines in the body", post("", lines), []int{200}},
		{"requests one after the other", strings.Repeat(post(many, lines), 3), []int{200, 200, 200}},
		{"too many fields", post(strings.Repeat(many, 4), ""), []int{431}},
		{"too many fields in a second request", post("", lines) + post(strings.Repeat(many, 2000), ""), []int{200, 431}},
		{"too many octets", post("A: "+strings.Repeat("x", 80<<10)+"\r\n", ""), []int{431}},
	} {
		run(t, Limits{Header: 64 << 10, Fields: 100}, func(t *testing.T, s *server) {
			c := s.connect(t, tc.octets)
			for i, want := range tc.want {
				if got := c.status(); got != want {
					t.Errorf("%s: answer %d = %d, want %d", tc.name, i, got, want)
				}
			}
		})
	}
}

// TestBetweenRequests: a client with a key keeps its connection between two requests, when
// all others have only just come.
func TestBetweenRequests(t *testing.T) {
	run(t, Limits{Open: 4, Unfinished: 4}, func(t *testing.T, s *server) {
		honest := s.connect(t, get("/", "shop"))
		if got := honest.status(); got != http.StatusOK {
			t.Fatalf("first request = %d, want 200", got)
		}
		for range 20 {
			s.connect(t, begin)
		}
		go func() { _, _ = io.WriteString(honest, get("/", "shop")) }()
		if got := honest.status(); got != http.StatusOK {
			t.Errorf("second request = %d, want 200", got)
		}
	})
}

// TestLinesBefore: the lines of a body are no reason to refuse the header of the next
// request over the same connection.
func TestLinesBefore(t *testing.T) {
	run(t, Limits{Fields: 100}, func(t *testing.T, s *server) {
		body := strings.Repeat("\n", 20<<10)
		c := s.connect(t, "")
		for i := range 3 {
			go func() {
				_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}()
			if got := c.status(); got != http.StatusOK {
				t.Fatalf("answer %d = %d, want 200", i, got)
			}
			synctest.Wait()
		}
	})
}

// TestScanner: however a header is cut, its end is found where net/http finds it.
func TestScanner(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a: b", "\r\n", "\n", "\r", "x", ":", " ", "\r\r\n"}
	for range 20_000 {
		text := "GET / HTTP/1.1\r\nHost: x\r\n"
		for range rng.IntN(12) {
			text += pieces[rng.IntN(len(pieces))]
		}
		text += "\r\n\r\nbody\n\nmore"
		r := bufio.NewReader(strings.NewReader(text))
		if _, err := http.ReadRequest(r); err != nil {
			continue // it is refused before its end
		}
		want := len(text) - r.Buffered()
		var s scanner
		got, lines := 0, 0
		for rest := text; rest != ""; {
			n := 1 + rng.IntN(len(rest))
			octets, l := s.header([]byte(rest[:n]))
			got, lines, rest = got+octets, lines+l, rest[n:]
		}
		if got != want || lines != strings.Count(text[:want], "\n") {
			t.Fatalf("header of %q ends at %d after %d lines, want %d", text, got, lines, want)
		}
	}
}

// TestExhausted: when the process may open no more files, a connection is closed for the
// next one, and the log says what to do, once a minute.
func TestExhausted(t *testing.T) {
	run(t, Limits{}, func(t *testing.T, s *server) {
		first := s.connect(t, get("/", ""))
		if got := first.status(); got != http.StatusOK {
			t.Fatalf("status %d", got)
		}
		for range 300 {
			s.l.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
			time.Sleep(time.Second / 2)
		}
		if first.open() {
			t.Error("no connection was closed")
		}
		if got := s.connect(t, get("/", "")).status(); got != http.StatusOK {
			t.Errorf("after that = %d, want 200", got)
		}
		if log := s.log.String(); strings.Count(log, "level=ERROR") != 3 || !strings.Contains(log, "LimitNOFILE") {
			t.Errorf("the log of 150 s:\n%s", log)
		}
	})
}
