package alerts

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const hidden = "S3cr3t0fTheWebhook12345"

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// TestAnswers: what each answer of a service means, and that no error shows the secret, though
// the answer does.
func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		status  int
		header  string // of Retry-After
		body    string
		what    string
		refused bool
		after   time.Duration
	}{
		{200, "", "", "", false, 0},
		{202, "", "", "", false, 0},
		{204, "", "", "", false, 0},
		{301, "", "", "the answer was 301 Moved Permanently: it redirects to another address, which is not followed", true, 0},
		{307, "", "", "the answer was 307 Temporary Redirect: it redirects to another address, which is not followed", true, 0},
		{400, "", "chat not found", "the answer was 400 Bad Request (chat not found)", true, 0},
		{401, "", hidden + "\nis wrong", `the answer was 401 Unauthorized ([redacted]\x0ais wrong)`, true, 0},
		{403, "", "", "the answer was 403 Forbidden", true, 0},
		{404, "", "no_service", "the answer was 404 Not Found (no_service)", true, 0},
		{410, "", "", "the answer was 410 Gone", true, 0},
		{429, "7", "", "the answer was 429 Too Many Requests", false, 7 * time.Second},
		{429, "", `{"retry_after": 1.5}`, `the answer was 429 Too Many Requests ({"retry_after": 1.5})`, false, 1500 * time.Millisecond},
		{429, "", `{"parameters": {"retry_after": 9}}`, `the answer was 429 Too Many Requests ({"parameters": {"retry_after": 9}})`, false, 9 * time.Second},
		{429, "99999999", "", "the answer was 429 Too Many Requests", false, time.Hour},
		{429, "-5", `{"retry_after": -3}`, `the answer was 429 Too Many Requests ({"retry_after": -3})`, false, 0},
		{429, "Wed, 21 Oct 2015 07:28:00 GMT", "", "the answer was 429 Too Many Requests", false, 0},
		{500, "", "", "the answer was 500 Internal Server Error", false, 0},
		{503, "60", "", "the answer was 503 Service Unavailable", false, time.Minute},
		{599, "", strings.Repeat("x", 1<<20), "the answer was 599 (" + strings.Repeat("x", maxSaid) + ")", false, 0},
	} {
		followed := false
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/other" {
				followed = true
				return
			}
			if test.header != "" {
				w.Header().Set("Retry-After", test.header)
			}
			if test.status/100 == 3 {
				w.Header().Set("Location", "/other")
			}
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
		}))
		c := NewClient(ClientOptions{AllowPrivate: true, Proxy: noProxy})
		err := c.Send(t.Context(), must(t, "json+"+s.URL+"/"+hidden), Message{State: Test})
		s.Close()
		if test.what == "" {
			if err != nil {
				t.Errorf("%d: Send = %v, want success", test.status, err)
			}
			continue
		}
		e, ok := errors.AsType[*SendError](err)
		if !ok || e.What != test.what || e.Refused != test.refused || e.RetryAfter != test.after || followed {
			t.Errorf("%d: Send = %+v, followed %t, want %q, refused %t, after %v", test.status, err, followed, test.what, test.refused, test.after)
		}
		if strings.Contains(err.Error(), hidden) {
			t.Errorf("%d: %v shows the secret", test.status, err)
		}
	}
}

// TestPrivateAddresses: the address that is dialled counts, whatever name led there.
func TestPrivateAddresses(t *testing.T) {
	asked := 0
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ })
	clear, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer clear.Close()
	defer secure.Close()
	_, clearPort, _ := net.SplitHostPort(clear.Listener.Addr().String())
	_, securePort, _ := net.SplitHostPort(secure.Listener.Addr().String())
	for _, test := range []struct {
		url   string
		allow bool
		want  string
	}{
		{"http://127.0.0.1:" + clearPort, false, errPrivate.Error()},
		{"http://localhost:" + clearPort, false, errPrivate.Error()},
		{"https://127.0.0.1:" + securePort, false, errPrivate.Error()},
		{"https://localhost:" + securePort, false, errPrivate.Error()},
		{"https://[::ffff:127.0.0.1]:" + securePort, false, errPrivate.Error()},
		{"https://169.254.169.254/latest", false, errPrivate.Error()},
		{"https://10.0.0.1", false, errPrivate.Error()},
		{"https://[fd00::1]", false, errPrivate.Error()},
		{"https://0.0.0.0:" + securePort, false, errPrivate.Error()},
		{"http://8.8.8.8", true, errClear.Error()},
		{"http://127.0.0.1:" + clearPort, true, ""},
		{"https://127.0.0.1:" + securePort, true, "has a certificate that is not trusted"},
	} {
		c := NewClient(ClientOptions{AllowPrivate: test.allow, Proxy: noProxy})
		before := asked
		err := c.Send(t.Context(), must(t, "json+"+test.url+"/"+hidden), Message{State: Test})
		switch {
		case test.want == "":
			if err != nil || asked != before+1 {
				t.Errorf("%s: Send = %v, want success", test.url, err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want) || asked != before || strings.Contains(err.Error(), hidden):
			t.Errorf("%s: Send = %v, asked %d times, want %q and no request", test.url, err, asked-before, test.want)
		}
	}
}

// TestProxy: behind a proxy only what stands in the URL can be judged, and nothing goes there
// without TLS.
func TestProxy(t *testing.T) {
	var connects []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connects = append(connects, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(ClientOptions{Proxy: func(*http.Request) (*url.URL, error) { return at, nil }})
	for _, test := range []struct{ url, want string }{
		{"https://hooks.example.com", "the proxy answered 407"},
		{"http://hooks.example.com", errByProxy.Error()},
		{"https://127.0.0.1", errPrivate.Error()},
		{"https://localhost", errPrivate.Error()},
		{"https://192.168.0.1", errPrivate.Error()},
	} {
		err := c.Send(t.Context(), must(t, "json+"+test.url+"/"+hidden), Message{State: Test})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Send = %v, want %q", test.url, err, test.want)
		}
	}
	if len(connects) != 1 || connects[0] != "CONNECT hooks.example.com:443" {
		t.Errorf("the proxy was asked %q, want one CONNECT", connects)
	}
}

// TestLogins: a user and a password, or a token, go into a header field.
func TestLogins(t *testing.T) {
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	c := NewClient(ClientOptions{AllowPrivate: true, Proxy: noProxy, UserAgent: "mailsidecar/1"})
	for login, want := range map[string]string{"": "", "u:p@": "Basic dTpw", ":tk_x@": "Bearer tk_x"} {
		if err := c.Send(t.Context(), must(t, "ntfy+http://"+login+host+"/topic"), Message{State: Test}); err != nil {
			t.Fatal(err)
		}
		if got.Get("Authorization") != want || got.Get("User-Agent") != "mailsidecar/1" || got.Get("Content-Type") != "application/json" {
			t.Errorf("with %q the header is %v, want Authorization %q", login, got, want)
		}
	}
}

// TestUnreachable: no answer is explained, without the secret.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := NewClient(ClientOptions{AllowPrivate: true, Proxy: noProxy})
	err = c.Send(t.Context(), must(t, "json+http://"+addr+"/"+hidden), Message{State: Test})
	e, ok := errors.AsType[*SendError](err)
	if !ok || e.Refused || !strings.Contains(e.What, "cannot be reached") || e.Remedy == "" || strings.Contains(err.Error(), hidden) {
		t.Errorf("Send to a closed port = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Send(ctx, must(t, "json+http://"+addr+"/"), Message{State: Test}); err == nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a context that has ended = %v", err)
	}
}

func TestHeartbeatRequests(t *testing.T) {
	for _, test := range []struct{ url, trouble, want string }{
		{"https://hc-ping.com/uuid", "", "GET https://hc-ping.com/uuid "},
		{"https://hc-ping.com/uuid", "Mail waits.", "POST https://hc-ping.com/uuid/fail Mail waits."},
		{"https://hc-ping.com/uuid/", "Mail waits.", "POST https://hc-ping.com/uuid/fail Mail waits."},
		{"https://hc.example.com/ping/key/slug?create=1", "a\r\nb", `POST https://hc.example.com/ping/key/slug/fail?create=1 a\x0d\x0ab`},
		{"https://kuma.example.com/api/push/tok?status=up&msg=OK&ping=", "", "GET https://kuma.example.com/api/push/tok?msg=OK&ping=&status=up "},
		{"https://kuma.example.com/api/push/tok?status=up&msg=OK&ping=", "Mail & more", "GET https://kuma.example.com/api/push/tok?msg=Mail+%26+more&ping=&status=down "},
	} {
		h, err := ParseHeartbeat(test.url)
		if err != nil {
			t.Fatal(err)
		}
		r, err := h.request(t.Context(), test.trouble)
		if err != nil {
			t.Fatal(err)
		}
		body := []byte{}
		if r.Body != nil {
			body, _ = io.ReadAll(r.Body)
		}
		if got := r.Method + " " + r.URL.String() + " " + string(body); got != test.want {
			t.Errorf("request(%s, %q) = %q, want %q", test.url, test.trouble, got, test.want)
		}
	}
	for text, want := range map[string]string{
		hidden: "is no https URL", "ftp://" + hidden: "is no https URL", "https://u:" + hidden + "@h/": "has a user name or password",
		"https:///" + hidden: "is no URL", "https://h/#" + hidden: "has a # in it, and what follows would not be sent",
	} {
		_, err := ParseHeartbeat(text)
		if bad, ok := errors.AsType[*InvalidError](err); !ok || bad.What != want || strings.Contains(err.Error(), hidden) || strings.Contains(bad.Remedy, "slack") {
			t.Errorf("ParseHeartbeat(%q) = %v, want %q", text, err, want)
		}
	}
}
