package weblogin

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var request = Request{
	AuthorizeURL: "https://login.example.com/authorize?policy=mail", ClientID: "id",
	Scopes: []string{"mail", "openid"}, Params: map[string]string{"prompt": "consent"}, RedirectHost: "localhost",
}

func start(t *testing.T, r Request) *Browser {
	t.Helper()
	b, err := Listen(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.End(Page{}) })
	return b
}

// query returns the parameters of the address where the person logs in.
func query(t *testing.T, b *Browser) url.Values {
	t.Helper()
	u, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// visited is the answer to a request.
type visited struct {
	status int
	header http.Header
	body   string
}

// visit makes the request and returns the answer.
func visit(t *testing.T, method, address, host string) visited {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Error(err)
		return visited{}
	}
	r.Host = host
	// A stranger's answer that counts would wait for the end.
	w, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		t.Error(err)
		return visited{}
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Error(err)
	}
	return visited{w.StatusCode, w.Header, string(body)}
}

// comeBack makes the request of a browser, which waits for the end.
func comeBack(t *testing.T, address, host string) <-chan visited {
	t.Helper()
	answer := make(chan visited, 1)
	go func() { answer <- visit(t, http.MethodGet, address, host) }()
	return answer
}

func TestRequest(t *testing.T) {
	b := start(t, request)
	q := query(t, b)
	for name, want := range map[string]string{
		"policy": "mail", "prompt": "consent", "response_type": "code", "client_id": "id", "scope": "mail openid",
		"redirect_uri": b.RedirectURI, "code_challenge_method": "S256",
	} {
		if got := q.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	other := query(t, start(t, request))
	for _, name := range []string{"state", "code_challenge"} {
		if got := q.Get(name); len(got) != 43 || got == other.Get(name) {
			t.Errorf("%s = %q and %q, want two of 43 characters that differ", name, got, other.Get(name))
		}
	}
	if !strings.HasPrefix(b.URL, "https://login.example.com/authorize?") || !strings.HasPrefix(b.RedirectURI, "http://localhost:") {
		t.Errorf("URL %s, redirect %s", b.URL, b.RedirectURI)
	}
}

// A server of one's own may have no scopes.
func TestRequestWithoutScopes(t *testing.T) {
	r := request
	r.Scopes = nil
	if q := query(t, start(t, r)); q.Has("scope") {
		t.Errorf("the scope is %q, want none", q.Get("scope"))
	}
}

// Browsers leave out port 80, which is that of http.
func TestOnlyHosts(t *testing.T) {
	for _, c := range []struct {
		port, host string
		want       int
	}{
		{"80", "localhost", 200},
		{"80", "LOCALHOST:80", 200},
		{"80", "[::1]", 200},
		{"80", "127.0.0.1", 200},
		{"80", "evil.example.com", 403},
		{"8400", "localhost:8400", 200},
		{"8400", "localhost", 403},
		{"8400", "localhost:80", 403},
		{"8400", "127.0.0.1.example.com:8400", 403},
		{"8400", "", 403},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		onlyHosts(c.port, http.NotFoundHandler()).ServeHTTP(w, r)
		if got := w.Code; got != c.want && (got != http.StatusNotFound || c.want != 200) {
			t.Errorf("port %s, Host %q: %d, want %d", c.port, c.host, got, c.want)
		}
	}
}

// The browser may come back over IPv4 or IPv6. Its page waits for the end, and says it.
func TestBrowserComesBack(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			if l, err := net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
				t.Skipf("no %s here: %v", host, err)
			} else {
				l.Close()
			}
			b := start(t, request)
			_, port, _ := strings.Cut(strings.TrimPrefix(b.RedirectURI, "http://"), ":")
			q := query(t, b)
			address := "http://" + net.JoinHostPort(host, port) + "/?code=c1&state=" + q.Get("state")
			page := comeBack(t, address, "LOCALHOST:"+port)
			g, err := b.Await(t.Context())
			if err != nil || g.Code != "c1" || g.RedirectURI != b.RedirectURI {
				t.Fatalf("Await() = %+v, %v", g, err)
			}
			sum := sha256.Sum256([]byte(g.Verifier))
			if got := base64.RawURLEncoding.EncodeToString(sum[:]); got != q.Get("code_challenge") {
				t.Errorf("the verifier's S256 is %s, the challenge %s", got, q.Get("code_challenge"))
			}
			b.End(Page{"Logged in", "As <ana> & co."})
			got := <-page
			if got.status != http.StatusOK || got.header.Get("Cache-Control") != "no-store" || got.header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("GET = %d %v", got.status, got.header)
			}
			for _, want := range []string{"<h1>Logged in</h1>", "As &lt;ana&gt; &amp; co.", "can be closed"} {
				if !strings.Contains(got.body, want) {
					t.Errorf("the page is\n%s\nwant %q", got.body, want)
				}
			}
			if _, err := net.Dial("tcp", net.JoinHostPort(host, port)); err == nil {
				t.Error("the port is open after the end")
			}
		})
	}
}

// Whatever strangers send, the login goes on, and succeeds with the right answer.
func TestBrowserStrangers(t *testing.T) {
	b := start(t, request)
	state := query(t, b).Get("state")
	_, port, _ := strings.Cut(strings.TrimPrefix(b.RedirectURI, "http://"), ":")
	for _, c := range []struct {
		method, target, host string
		status               int
		say                  string
	}{
		{"GET", "/", "", 400, "it has no code"},
		{"GET", "/favicon.ico", "", 404, ""},
		{"GET", "/?state=" + state, "", 400, "it has no code"},
		{"GET", "/?code=x", "", 400, "its state differs"},
		{"GET", "/?code=x&state=", "", 400, "its state differs"},
		{"GET", "/?code=x&state=" + state[:42], "", 400, "its state differs"},
		{"GET", "/?code=x&state=" + state + "&state=y", "", 400, "twice"},
		{"GET", "/?code=x&code=y&state=" + state, "", 400, "twice"},
		{"GET", "/?error=access_denied", "", 400, "its state differs"},
		{"GET", "/?error=access_denied&state=x", "", 400, "its state differs"},
		{"GET", "/callback?code=x&state=" + state, "", 404, ""},
		{"POST", "/?code=x&state=" + state, "", 405, ""},
		{"HEAD", "/?code=x&state=" + state, "", 405, ""},
		{"OPTIONS", "/?code=x&state=" + state, "", 405, ""},
		{"GET", "/?code=x&state=" + state, "evil.example", 403, ""},
		{"GET", "/?code=x&state=" + state, "evil.example:" + port, 403, ""},
		{"GET", "/?code=x&state=" + state, "localhost", 403, ""},
		{"GET", "/?code=x&state=" + state, "localhost.evil.example:" + port, 403, ""},
	} {
		got := visit(t, c.method, "http://127.0.0.1:"+port+c.target, c.host)
		if got.status != c.status || !strings.Contains(got.body, c.say) {
			t.Errorf("%s %s at %q = %d %q, want %d %q", c.method, c.target, c.host, got.status, got.body, c.status, c.say)
		}
	}
	// What is no HTTP, or too large.
	for _, sent := range []string{"\x16\x03\x01", "GET /?code=" + strings.Repeat("x", 2*maxHeader) + " HTTP/1.1\r\n\r\n", "GET http:// HTTP/1.1\r\n\r\n"} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, sent)
		conn.Close()
	}
	page := comeBack(t, "http://127.0.0.1:"+port+"/?code=c1&state="+state, "")
	if g, err := b.Await(t.Context()); err != nil || g.Code != "c1" {
		t.Errorf("Await() = %+v, %v, want c1", g, err)
	}
	b.End(Page{})
	if got := <-page; !strings.Contains(got.body, notCompleted.Title) {
		t.Errorf("the page is\n%s\nwant %q", got.body, notCompleted.Title)
	}
}

// An error that comes back with the right state ends the waiting; its text is fit for a
// terminal.
func TestBrowserRefused(t *testing.T) {
	b := start(t, request)
	answer := url.Values{
		"state": {query(t, b).Get("state")}, "error": {"access_denied"},
		"error_description": {"AADSTS65004: declined.\r\nTrace\x1b[31m"},
	}
	page := comeBack(t, b.RedirectURI+"/?"+answer.Encode(), "")
	_, err := b.Await(t.Context())
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || refused.Code != "access_denied" || refused.Description != `AADSTS65004: declined. Trace\x1b[31m` || !slices.Equal(refused.Numbers, []int{65004}) {
		t.Fatalf("Await() = %#v", err)
	}
	b.End(Page{"Not logged in", err.Error()})
	if got := <-page; !strings.Contains(got.body, "access_denied") {
		t.Errorf("the page is %s", got.body)
	}
}

func TestPaste(t *testing.T) {
	b := start(t, request)
	state := query(t, b).Get("state")
	for _, c := range []struct{ text, want string }{
		{"", "begins with " + b.RedirectURI},
		{"c1", "begins with " + b.RedirectURI},
		{b.URL, "of the login itself"},
		{"https://login.example.com/kmsi?x=y", "of the login itself"},
		{b.RedirectURI + "/", "begins with " + b.RedirectURI},
		{b.RedirectURI + "/?code=%zz", "has no code"},
		{b.RedirectURI + "/?session=1", "has no code"},
		{b.RedirectURI + "/?code=x&state=y", "its state differs"},
		{b.RedirectURI + "/?code=x", "its state differs"},
		{b.RedirectURI + "/?code=x&state=" + state[:20], "its state differs"},
		{b.RedirectURI + "/?error=access_denied&error_description=AADSTS65004&state=" + state, "was refused: access_denied: AADSTS65004"},
		{"?code=" + strings.Repeat("x", MaxPasted), "too long"},
	} {
		if err := b.Paste(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Paste(%.80q) = %v, want %q", c.text, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if g, err := b.Await(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Await() = %+v, %v: a wrong text counted", g, err)
	}
}

// The address may come in several forms: as a shell wants it, or as a browser shows it.
func TestPasteForms(t *testing.T) {
	for _, form := range []string{"%s", " '%s' \r\n", `"%s"`, "<%s>", "%s#", "%s&session_state=1-2"} {
		b := start(t, request)
		address := b.RedirectURI + "/?code=c%2F1&state=" + query(t, b).Get("state")
		if err := b.Paste(strings.Replace(form, "%s", address, 1)); err != nil {
			t.Errorf("Paste(%q) = %v", form, err)
			continue
		}
		if g, err := b.Await(t.Context()); err != nil || g.Code != "c/1" {
			t.Errorf("%q: Await() = %+v, %v", form, g, err)
		}
	}
}

// The server may be on this machine, too.
func TestPasteLocal(t *testing.T) {
	local := request
	local.AuthorizeURL, local.RedirectHost = "http://127.0.0.1:1/authorize", "127.0.0.1"
	b := start(t, local)
	if err := b.Paste(b.RedirectURI + "/?code=c1&state=" + query(t, b).Get("state")); err != nil {
		t.Errorf("Paste() = %v", err)
	}
	if err := b.Paste(b.URL); err == nil || !strings.Contains(err.Error(), "of the login itself") {
		t.Errorf("Paste(URL) = %v", err)
	}
}

// The first answer counts; the same browser that comes again does no harm.
func TestBrowserFirstCounts(t *testing.T) {
	b := start(t, request)
	address := b.RedirectURI + "/?state=" + query(t, b).Get("state") + "&code="
	for _, code := range []string{"c1", "c2"} {
		if err := b.Paste(address + code); err != nil {
			t.Fatal(err)
		}
	}
	if g, err := b.Await(t.Context()); err != nil || g.Code != "c1" {
		t.Errorf("Await() = %+v, %v, want c1", g, err)
	}
}

// loopbackOf is a machine without the addresses that fail, on the ports named.
func loopbackOf(failures map[string]error) listen {
	return func(ctx context.Context, network, addr string) (net.Listener, error) {
		host, port, _ := net.SplitHostPort(addr)
		for _, name := range []string{host, addr} {
			if err := failures[name]; err != nil && (name == host || port != "0") {
				return nil, &net.OpError{Op: "listen", Net: network, Err: err}
			}
		}
		return new(net.ListenConfig).Listen(ctx, network, net.JoinHostPort("127.0.0.1", "0"))
	}
}

func TestListen(t *testing.T) {
	missing := error(syscall.EADDRNOTAVAIL)
	for _, c := range []struct {
		name     string
		failures map[string]error
		want     int // listeners
		err      error
	}{
		{"both", nil, 2, nil},
		{"no IPv6", map[string]error{"::1": missing}, 1, nil},
		{"no IPv4", map[string]error{"127.0.0.1": syscall.EAFNOSUPPORT}, 1, nil},
		{"neither", map[string]error{"127.0.0.1": missing, "::1": missing}, 0, missing},
		{"IPv4 taken", map[string]error{"127.0.0.1": syscall.EADDRINUSE}, 0, syscall.EADDRINUSE},
		{"IPv6 taken", map[string]error{"::1": syscall.EADDRINUSE}, 0, syscall.EADDRINUSE},
	} {
		got, err := loopbackOf(c.failures).loopback(t.Context(), 8400)
		if len(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d listeners, %v, want %d, %v", c.name, len(got), err, c.want, c.err)
		}
		closeAll(got)
	}
}

// Where any port will do, one is found that is free on both addresses.
func TestListenSearches(t *testing.T) {
	tries := 0
	l := listen(func(ctx context.Context, network, addr string) (net.Listener, error) {
		if strings.HasPrefix(addr, "[::1]") {
			if tries++; tries < 3 {
				return nil, syscall.EADDRINUSE
			}
		}
		return new(net.ListenConfig).Listen(ctx, network, "127.0.0.1:0")
	})
	got, err := l.loopback(t.Context(), 0)
	if len(got) != 2 || err != nil {
		t.Errorf("%d listeners, %v, want 2", len(got), err)
	}
	closeAll(got)
}

// A port of one's own choice that is taken is an error, and is not half taken.
func TestListenTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer taken.Close()
	r := request
	r.Port = portOf(taken)
	if _, err := Listen(t.Context(), r); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Listen() = %v, want EADDRINUSE", err)
	}
	var first net.Listener
	l := listen(func(ctx context.Context, network, addr string) (net.Listener, error) {
		if first != nil {
			return nil, syscall.EADDRINUSE
		}
		var err error
		first, err = new(net.ListenConfig).Listen(ctx, network, "127.0.0.1:0")
		return first, err
	})
	if _, err := l.loopback(t.Context(), 8400); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("loopback() = %v, want EADDRINUSE", err)
	}
	if _, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the first address stays taken: %v", err)
	}
}
