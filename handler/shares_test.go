package handler

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/handler/intake"
)

// clients are connections to one server, in virtual time.
type clients struct {
	t      *testing.T
	server *Server
	conns  chan net.Conn
	group  sync.WaitGroup

	mu       sync.Mutex
	answered map[string][]int // statuses by the name of the client
	took     map[string]time.Duration
}

// withClients runs talk with clients of a server, and waits until they are answered.
func withClients(t *testing.T, change func(*Options), talk func(*clients)) {
	withClientsOf(t, &fakeQueue{durable: true, delay: time.Second}, change, talk)
}

// withClientsOf is withClients with a queue.
func withClientsOf(t *testing.T, q *fakeQueue, change func(*Options), talk func(*clients)) {
	synctest.Test(t, func(t *testing.T) {
		c := &clients{t: t, server: newTestServer(t, q, change), conns: make(chan net.Conn), answered: map[string][]int{}, took: map[string]time.Duration{}}
		l := &pipeListener{conns: c.conns, closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- c.server.http.Serve(l) }()
		talk(c)
		c.group.Wait()
		if err := c.server.http.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err == nil {
			t.Error("the server ended by itself")
		}
		time.Sleep(time.Minute) // the server lingers over connections that it closes
		if n := c.server.budget.Used(); n != 0 {
			t.Errorf("%d octets of the budget are kept after all requests", n)
		}
	})
}

// upload is a body that comes at a pace.
type upload struct {
	name, secret, path, contentType string
	header                          string // further fields
	announced                       int    // -1: chunked
	start                           string // of the body
	octets                          int    // of the body that come
	each                            int    // octets a second
}

// raw is a finished message of so many octets.
func raw(name, secret string, octets, each int) upload {
	return upload{
		name: name, secret: secret, path: "/v1/messages", contentType: "message/rfc822", announced: octets, octets: octets, each: each,
		start: "From: a@example.com\r\nTo: b@example.com\r\n\r\n",
	}
}

// begin sends the request, and the body at its pace until there is an answer.
func (c *clients) begin(u upload) {
	client, server := net.Pipe()
	c.conns <- server
	c.group.Go(func() {
		defer client.Close()
		began := time.Now()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			response, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.answered[u.name] = append(c.answered[u.name], response.StatusCode)
			c.took[u.name] = max(c.took[u.name], time.Since(began))
		}()
		u.send(client)
		<-answered
	})
}

func (u upload) send(w io.Writer) {
	length := fmt.Sprintf("Content-Length: %d\r\n", u.announced)
	if u.announced < 0 {
		length = "Transfer-Encoding: chunked\r\n"
	}
	if u.secret != "" {
		length += "Authorization: Bearer " + u.secret + "\r\n"
	}
	_, err := fmt.Fprintf(w, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n%s%s\r\n", u.path, u.contentType, length, u.header)
	line := strings.Repeat("x", 62) + "\r\n"
	filling := strings.Repeat(line, 1<<14)
	rest := u.start
	for sent, inSecond := 0, 0; sent < u.octets && err == nil; {
		piece := filling
		if rest != "" {
			piece, rest = rest, ""
		}
		n := min(len(piece), u.octets-sent, max(u.each-inSecond, 1))
		if u.announced < 0 {
			_, err = fmt.Fprintf(w, "%x\r\n%s\r\n", n, piece[:n])
		} else {
			_, err = io.WriteString(w, piece[:n])
		}
		sent, inSecond = sent+n, inSecond+n
		if inSecond >= u.each {
			time.Sleep(time.Second)
			inSecond = 0
		}
	}
	if u.announced < 0 && err == nil {
		_, _ = io.WriteString(w, "0\r\n\r\n")
	}
}

func (c *clients) count(name string, status int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.answered[name] {
		if s == status {
			n++
		}
	}
	return n
}

// TestUploadsAtOnce: of many large bodies at once as many get 202 as the budget holds,
// whether their length is announced or not, and the others get 503.
func TestUploadsAtOnce(t *testing.T) {
	for name, announced := range map[string]bool{"announced": true, "chunked": false} {
		t.Run(name, func(t *testing.T) {
			withClients(t, nil, func(c *clients) {
				for range 16 {
					u := raw("upload", testKey, 25<<20-1000, 5<<20)
					if !announced {
						u.announced = -1
					}
					c.begin(u)
				}
				c.group.Wait()
				stored, refused := c.count("upload", 202), c.count("upload", 503)
				if stored < 5 || stored+refused != 16 {
					c.t.Errorf("of 16 uploads of 25 MiB %d got 202 and %d got 503, want 5 and the rest", stored, refused)
				}
			})
		})
	}
}

// TestSlowKey: one key's slow bodies delay another key by two seconds at most.
func TestSlowKey(t *testing.T) {
	withClients(t, nil, func(c *clients) {
		for range 4 {
			u := raw("slow", testKey, 25<<20-1000, 40<<10)
			u.announced = 37 << 20
			c.begin(u)
		}
		time.Sleep(time.Minute)
		for range 2 {
			c.begin(raw("fast", "other", 25<<20-1000, 100<<20))
		}
		time.Sleep(10 * time.Second)
		if got, most := c.count("fast", 202), c.took["fast"]; got != 2 || most > 3*time.Second { // one of which the commit takes
			c.t.Errorf("%d of 2 uploads beside four slow ones got 202 after %v, want 2 after 3s", got, most)
		}
		if n := c.count("slow", 503); n < 1 || n > 3 {
			c.t.Errorf("%d of the 4 slow bodies were cut, want only those over the share", n)
		}
		_ = c.server.http.Close()
	})
}

// TestStrangersBodies: bodies that strangers announce, and do not send, keep no one out.
func TestStrangersBodies(t *testing.T) {
	strangers := map[string]upload{
		"the test token": {name: "stranger", path: "/email", contentType: "application/json", header: "X-Postmark-Server-Token: POSTMARK_API_TEST\r\n", announced: 64 << 10},
		"unsigned body": {
			name: "stranger", path: "/v2/email/outbound-emails", contentType: "application/json", announced: 37 << 20,
			header: "X-Amz-Date: " + time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Format("20060102T150405Z") + "\r\n" +
				"Authorization: AWS4-HMAC-SHA256 Credential=shop/20000101/eu/ses/aws4_request, SignedHeaders=host, Signature=" + strings.Repeat("0", 64) + "\r\n",
		},
	}
	for name, stranger := range strangers {
		for _, octets := range []int{1, 60 << 10} {
			t.Run(fmt.Sprintf("%s, %d octets", name, octets), func(t *testing.T) {
				withClients(t, nil, func(c *clients) {
					stranger.start, stranger.octets, stranger.each = "{", octets, octets+1
					for range 128 {
						c.begin(stranger)
					}
					time.Sleep(time.Second)
					for range 5 {
						c.begin(raw("shop", testKey, 25<<20-1000, 100<<20))
					}
					time.Sleep(5 * time.Second)
					if got, most := c.count("shop", 202), c.took["shop"]; got < 4 || most > 3*time.Second {
						c.t.Errorf("%d of 5 uploads beside strangers got 202 after %v, want at least 4 after 3s", got, most)
					}
					if n := c.count("stranger", 503); octets == 1 && n > 0 {
						c.t.Errorf("%d strangers were cut that hold nothing", n)
					}
					_ = c.server.http.Close()
				})
			})
		}
	}
}

// TestBusyUnsent: a client that asks before it sends a body learns that there is no room
// for it.
func TestBusyUnsent(t *testing.T) {
	withClients(t, nil, func(c *clients) {
		for range 3 {
			u := raw("slow", testKey, 25<<20-1000, 40<<10)
			u.announced = 37 << 20
			c.begin(u)
		}
		time.Sleep(time.Second)
		asks := raw("asks", testKey, 0, 1)
		asks.announced, asks.header = 25<<20, "Expect: 100-continue\r\n"
		c.begin(asks)
		time.Sleep(time.Second)
		if n := c.count("asks", 503); n != 1 {
			c.t.Errorf("answers to a client that asks first = %v, want 503", c.answered["asks"])
		}
		_ = c.server.http.Close()
	})
}

// TestUnreadContent: clients that ask for large messages and do not read the answers keep
// no other key out.
func TestUnreadContent(t *testing.T) {
	m := story()
	m.Size = 25 << 20
	q := &fakeQueue{durable: true, delay: time.Second, message: m, content: make([]byte, m.Size)}
	withClientsOf(t, q, nil, func(c *clients) {
		for range 5 {
			client, server := net.Pipe()
			c.conns <- server
			c.group.Go(func() {
				defer client.Close()
				_, _ = io.WriteString(client, "GET /v1/messages/id-1/content HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+testKey+"\r\n\r\n")
				time.Sleep(time.Minute)
			})
		}
		time.Sleep(time.Second)
		if got := c.server.budget.Used(); got != 5*25<<20 {
			c.t.Errorf("the answers hold %d octets, want 125 MiB", got)
		}
		for range 2 {
			c.begin(raw("other", "other", 25<<20-1000, 100<<20))
		}
		time.Sleep(10 * time.Second)
		if got, most := c.count("other", 202), c.took["other"]; got != 2 || most > 3*time.Second {
			c.t.Errorf("%d of 2 uploads beside answers that are not read got 202 after %v, want 2 after 3s", got, most)
		}
	})
}

// TestWaitHoldsNothing: an answer that waits for a relay holds no memory of its request.
func TestWaitHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, &fakeQueue{durable: true, delay: time.Minute}, nil)
		answered := make(chan answer, 1)
		go func() { answered <- serve(s, newRequest("POST", "/v1/messages", goodMessage, "Prefer: wait=60")) }()
		synctest.Wait()
		if n := s.budget.Used(); n != 0 {
			t.Errorf("a request that waits for the relay holds %d octets", n)
		}
		if a := <-answered; a.status != http.StatusAccepted {
			t.Errorf("answer = %d %s", a.status, text(a))
		}
	})
}

// TestSpareWithoutQueue: where requests deliver their messages themselves, to a relay that
// may hang, one key leaves half of the memory to the others.
func TestSpareWithoutQueue(t *testing.T) {
	s := newTestServer(t, &fakeQueue{}, nil)
	var shares []*intake.Share
	for range 16 {
		share := s.budget.Share()
		share.Prove("shop")
		if share.Grow(16 << 20) {
			shares = append(shares, share)
		}
	}
	if len(shares) != 4 || !otherShare(s).Grow(40<<20) {
		t.Errorf("one key holds %d × 16 MiB of 128 MiB, or another key cannot hold 40 MiB; want half", len(shares))
	}
}
