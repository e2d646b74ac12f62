package handler

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat/compattest"
)

// TestConnections: however many connections strangers open, and whatever they leave
// unfinished, a client with a key is answered.
func TestConnections(t *testing.T) {
	for name, octets := range map[string]string{
		"nothing sent": "", "half a header": "GET /livez HTTP/1.1\r\nHost: x\r\nA:", "idle": "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
		"no body": "POST /email HTTP/1.1\r\nHost: x\r\nX-Postmark-Server-Token: POSTMARK_API_TEST\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxConnections = 16 })
			addr := listen(t, s)
			for range 40 {
				conn, _ := dial(t, addr)
				send(t, conn, octets)
			}
			conn, r := dial(t, addr)
			send(t, conn, post+"Content-Length: "+strconv.Itoa(len(goodMessage))+"\r\n\r\n"+goodMessage)
			if got := readAnswer(t, r).status; got != http.StatusAccepted {
				t.Errorf("a client with a key got %d, want 202", got)
			}
		})
	}
}

// TestConnectionsOfKey: one key cannot have all of the connections.
func TestConnectionsOfKey(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, func(o *Options) { o.MaxConnections = 16 })
	addr := listen(t, s)
	defer close(q.block)
	message := "Content-Length: " + strconv.Itoa(len(goodMessage)) + "\r\n\r\n" + goodMessage
	for range 8 {
		conn, _ := dial(t, addr)
		send(t, conn, post+message)
	}
	for len(q.submissions()) < 8 {
		time.Sleep(time.Millisecond)
	}
	for _, tc := range []struct {
		name, header string
		want         int
	}{
		{"the same key", "POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\n", 503},
		{"the same key in another API", "POST /email HTTP/1.1\r\nHost: x\r\nX-Postmark-Server-Token: " + testKey + "\r\n", 503},
		{"another key", "GET /openapi.yaml HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer other\r\n", 200},
	} {
		conn, r := dial(t, addr)
		send(t, conn, tc.header+"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		if a := readAnswer(t, r); a.status != tc.want {
			t.Errorf("%s = %d %s, want %d", tc.name, a.status, a.body, tc.want)
		}
	}
}

// TestHeaderBehindProxies: a request has room for a cookie of 8 KiB, a token and what
// several proxies add, on every route.
func TestHeaderBehindProxies(t *testing.T) {
	fields := []string{"Cookie: " + strings.Repeat("name=value; ", 8<<10/12), "X-Token: " + strings.Repeat("x", 1200)}
	for _, name := range strings.Fields(`Accept Accept-Encoding Accept-Language Baggage Cdn-Loop Cf-Connecting-Ip Cf-Ipcountry Cf-Ray Dnt
		Forwarded Priority Referer Sentry-Trace Traceparent Tracestate User-Agent Via X-Amz-Cf-Id X-Amzn-Trace-Id X-B3-Spanid X-B3-Traceid
		X-Correlation-Id X-Envoy-Attempt-Count X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-Real-Ip X-Request-Start`) {
		fields = append(fields, name+": a value such as a proxy writes, 40 octets")
	}
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for _, target := range []string{"POST /v1/messages", "POST /v1/messages/batch", "POST /email", "POST /emails", "GET /v1/messages", "GET /livez", "GET /nothing"} {
		method, path, _ := strings.Cut(target, " ")
		if a := serve(s, newRequest(method, path, goodMessage, fields...)); a.status == 431 {
			t.Errorf("%s = %d %s", target, a.status, a.body)
		}
	}
}

// TestLargeHeader: only a request for a finished message with a key has a large header.
func TestLargeHeader(t *testing.T) {
	field := func(octets int) string { return "X-Large: " + strings.Repeat("x", octets) }
	for _, tc := range []struct {
		name, method, target, field string
		want                        int
	}{
		{"usual", "POST", "/v1/messages", "X: y", 202},
		{"proxy", "GET", "/livez", field(8 << 10), 200},
		{"large", "GET", "/livez", field(16 << 10), 431},
		{"path", "GET", "/" + strings.Repeat("x", 16<<10), "", 431},
		{"large, list", "GET", "/v1/messages", field(16 << 10), 431},
		{"large, batch", "POST", "/v1/messages/batch", field(16 << 10), 431},
		{"large, another API", "POST", "/email", field(16 << 10), 431},
		{"envelope", "POST", "/v1/messages", field(200 << 10), 202},
		{"envelope without a key", "POST", "/v1/messages", "Authorization: Bearer " + strings.Repeat("x", 16<<10), 401},
	} {
		s := newTestServer(t, &fakeQueue{durable: true}, nil)
		if a := serve(s, newRequest(tc.method, tc.target, goodMessage, tc.field)); a.status != tc.want {
			t.Errorf("%s = %d %s, want %d", tc.name, a.status, a.body, tc.want)
		} else if tc.want == 431 && !strings.Contains(string(a.body), "16 KiB") {
			t.Errorf("%s says %s", tc.name, a.body)
		}
	}
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxInFlight = 256 << 10 })
	share := otherShare(s)
	if !share.Grow(64 << 10) {
		t.Fatal("no room in an empty budget")
	}
	defer share.Close()
	for octets, want := range map[int]int{1 << 10: 202, 250 << 10: 503} {
		if a := serve(s, newRequest("POST", "/v1/messages", goodMessage, field(octets))); a.status != want {
			t.Errorf("a header of %d octets, with 192 KiB of memory left = %d %s, want %d", octets, a.status, a.body, want)
		}
	}
	many := newRequest("GET", "/livez", "")
	for i := range 130 {
		many.Header.Set(fmt.Sprint("X-", i), "")
	}
	if a := serve(newTestServer(t, &fakeQueue{}, nil), many); read[api.Problem](t, a).Code != api.CodeHeaderTooLarge {
		t.Errorf("130 fields = %d %s, want 431", a.status, a.body)
	}
}

// TestNamesAreNotTold: whether a key has the name makes no difference to a client without
// its secret: not in the answer, and not in whether it may send the body.
func TestNamesAreNotTold(t *testing.T) {
	addr := listen(t, newTestServer(t, &fakeQueue{durable: true}, nil))
	doors := map[string]func(name string) *http.Request{
		"native": func(name string) *http.Request {
			return newRequest("POST", "/v1/messages", goodMessage, "Authorization: Bearer "+name+":wrong")
		},
		"mailgun, name as user": func(name string) *http.Request {
			r := apis["mailgun"].request("mailgun", strings.NewReader(apis["mailgun"].body))
			r.SetBasicAuth(name, "wrong")
			return r
		},
		"ses without hash": func(name string) *http.Request {
			r := apis["ses"].request("ses", strings.NewReader(apis["ses"].body))
			r.Header.Del("X-Amz-Content-Sha256")
			compattest.Sign(r, name, "wrong", strings.Repeat("0", 64), "content-type", "host", "x-amz-date")
			return r
		},
		"ses without hash, gzip": func(name string) *http.Request {
			r := apis["ses"].request("ses", strings.NewReader(apis["ses"].body))
			r.Header.Del("X-Amz-Content-Sha256")
			r.Header.Set("Content-Encoding", "gzip")
			compattest.Sign(r, name, "wrong", strings.Repeat("0", 64), "content-type", "host", "x-amz-date")
			return r
		},
		"ses unsigned payload": func(name string) *http.Request {
			r := apis["ses"].request("ses", strings.NewReader(apis["ses"].body))
			r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
			compattest.Sign(r, name, "wrong", "UNSIGNED-PAYLOAD", "content-type", "host", "x-amz-date")
			return r
		},
		"ses": func(name string) *http.Request {
			r := apis["ses"].request("ses", strings.NewReader(apis["ses"].body))
			compattest.SignRequest(r, name, "wrong", time.Now())
			return r
		},
	}
	for provider, a := range apis {
		if provider == "ses" {
			continue
		}
		doors[provider] = func(name string) *http.Request {
			r := a.request(provider, strings.NewReader(a.body))
			authorize(r, provider, name+":wrong")
			return r
		}
	}
	for door, request := range doors {
		known, unknown := expecting(t, addr, request("shop")), expecting(t, addr, request("nobody"))
		if known != unknown || !regexp.MustCompile(`HTTP/1.1 (401|403|415)`).MatchString(known) {
			t.Errorf("%s answers to a key's name\n%s\nand to another\n%s", door, known, unknown)
		}
	}
}

// expecting is all that the server says to a request of a client that waits for 100
// Continue, but for what differs each time.
func expecting(t *testing.T, addr string, r *http.Request) string {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	conn, answers := dial(t, addr)
	var head strings.Builder
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n", r.URL.Path, r.Host, len(body))
	if err := r.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	send(t, conn, head.String()+"\r\n")
	said, err := answers.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(said, "HTTP/1.1 100") {
		send(t, conn, string(body))
	}
	rest, err := io.ReadAll(answers)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^(Date|X-Request-Id): .*$|"request_id":"[^"]*"`).ReplaceAllString(said+string(rest), "")
}
