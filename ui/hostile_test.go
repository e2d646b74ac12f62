package ui

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestBodyOfGet: a page that is asked for has no body to read. A form with a file was kept in
// memory and in a file, of any size, from strangers too.
func TestBodyOfGet(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, path := range []string{"/ui/sign-in", "/ui/", "/ui/messages", "/ui/none"} {
		var body bytes.Buffer
		m := multipart.NewWriter(&body)
		file, err := m.CreateFormFile("x", "x")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = file.Write(make([]byte, 40<<20))
		_ = m.Close()
		r := httptest.NewRequest(http.MethodGet, path, &body)
		r.Header.Set("Content-Type", m.FormDataContentType())
		before := body.Len()
		newBrowser(t, newFake(), "").do(r)
		if read := before - body.Len(); read > 0 {
			t.Errorf("GET %s has read %d octets of a body", path, read)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

// TestPanicWithinRead: the API answers a long request beside the page's own goroutine, where
// nothing else would catch a panic: it ended the process.
func TestPanicWithinRead(t *testing.T) {
	d := newFake()
	d.answers["GET /v1/messages/a"] = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") })
	if w := newBrowser(t, d, "ops").get("/ui/messages/a"); w.Code != 500 {
		t.Errorf("a page whose request panics = %d, want 500", w.Code)
	}
	d.answers["GET /v1/messages/a"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"id":`)
		panic("x")
	})
	if w := newBrowser(t, d, "ops").get("/ui/messages/a"); w.Code != 500 {
		t.Errorf("a page whose answer breaks off = %d, want 500", w.Code)
	}
	// The other way round: the page panics, and the answer's goroutine must end all the same.
	ended := make(chan struct{})
	d.answers["GET /v1/messages/a"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		_, _ = w.Write(make([]byte, 1<<20))
	})
	func() {
		defer func() { _ = recover() }()
		v := &visit{ui: New(d, Options{}), ctx: t.Context(), r: httptest.NewRequest(http.MethodGet, "/", http.NoBody), key: "ops"}
		_ = v.read("/v1/messages/a", func(int, http.Header, io.Reader) error { panic("x") })
	}()
	<-ended
}

// TestPicturesAreBounded: what is kept of pictures that the HTML may show has a bound for all of
// them together; a message of 25 MB held them all.
func TestPicturesAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("Content-Type: multipart/related; boundary=b\n\n")
	for i := range maxPreviewParts - 1 {
		fmt.Fprintf(&text, "--b\nContent-Type: image/png\nContent-Id: <%d>\n\n%s\n", i, strings.Repeat("x", maxInlinePicture-10))
	}
	text.WriteString("--b--\n")
	p := &preview{}
	r := partReader{each: p.part}
	if err := r.message(strings.NewReader(crlf(text.String()))); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, a := range p.Attachments {
		kept += len(a.picture)
	}
	if len(p.Attachments) != maxPreviewParts-1 || kept > maxInlineAll || kept == 0 {
		t.Errorf("%d octets of %d pictures are kept, want at most %d", kept, len(p.Attachments), maxInlineAll)
	}
}

// TestGuessingBehindProxy: who guesses behind a reverse proxy does not keep the others out, and
// cannot guess on with addresses that he makes up.
func TestGuessingBehindProxy(t *testing.T) {
	b := newBrowser(t, newFake(), "")
	try := func(from, told, key string) int {
		r := httptest.NewRequest(http.MethodPost, "/ui/sign-in", strings.NewReader("key="+key))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = from
		r.Header.Set("X-Forwarded-For", told)
		return b.do(r).Code
	}
	const proxy = "172.17.0.2:4"
	for i := range maxGuesses + 1 {
		// What the visitor says of himself stands before what the proxy knows.
		try(proxy, fmt.Sprintf("198.51.100.%d, 203.0.113.5", i), "wrong")
		try("192.0.2.9:1", fmt.Sprintf("198.51.100.%d", i), "wrong")
	}
	for _, c := range []struct {
		from, told string
		want       int
	}{
		{proxy, "203.0.113.5", 429},
		{proxy, "203.0.113.6", 303},
		{proxy, "2001:db8::1", 303},
		{proxy, "203.0.113.5, 203.0.113.6", 303},
		{proxy, "unknown", 303},
		{"192.0.2.9:7", "203.0.113.77", 429}, // no proxy of ours: its word does not count
		{"203.0.113.5:1", "", 303},
	} {
		if got := try(c.from, c.told, "ops-secret"); got != c.want {
			t.Errorf("the right key from %s for %q = %d, want %d", c.from, c.told, got, c.want)
		}
	}
	let := 0
	for i := range 300 {
		if try("127.0.0.1:4", fmt.Sprintf("10.9.%d.%d", i/250, i%250), "wrong") == 403 {
			let++
		}
	}
	if let != maxProxied {
		t.Errorf("%d keys were tried with addresses that are made up, want %d", let, maxProxied)
	}
}

// TestOneKeyLeavesRoom: pages of one key that the store is slow for keep no other key out.
func TestOneKeyLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake()
		d.answers["GET /v1/messages/a"] = time.Hour
		u := New(d, Options{})
		visitor := func(key string) *browser { return &browser{t: t, ui: u, cookie: u.newSession(key, time.Now())} }
		var all sync.WaitGroup
		for range 5 * maxPages {
			all.Go(func() { visitor("shop").get("/ui/messages/a") })
		}
		synctest.Wait()
		begun := time.Now()
		if w := visitor("ops").get("/ui/relays"); w.Code != 200 || time.Since(begun) > 0 {
			t.Errorf("the page of another key = %d after %v, want it at once", w.Code, time.Since(begun))
		}
		if w := visitor("").get("/ui/sign-in"); w.Code != 200 || time.Since(begun) > 0 {
			t.Errorf("the page to sign in = %d after %v, want it at once", w.Code, time.Since(begun))
		}
		all.Wait()
		if n := len(u.turns) + len(u.shares.of("shop")); n != 0 {
			t.Errorf("%d turns have not ended", n)
		}
	})
}

// TestOneKeyLeavesAnExport: a key that reads its exports slowly keeps no other key's out.
func TestOneKeyLeavesAnExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake()
		d.answers["GET /v1/messages"] = time.Hour
		u := New(d, Options{})
		export := func(key string) *httptest.ResponseRecorder {
			session := u.newSession(key, time.Now())
			b := &browser{t: t, ui: u, cookie: session, csrf: u.token(key, session)}
			return b.post("/ui/messages/export", "format", "csv", "scope", "all", "filter", "status=failed")
		}
		var all sync.WaitGroup
		all.Go(func() { export("shop") })
		synctest.Wait()
		if w := export("shop"); w.Code != 503 || !strings.Contains(w.Body.String(), "of this key") {
			t.Errorf("a second export of the same key = %d %s", w.Code, w.Body)
		}
		all.Go(func() { export("ops") })
		synctest.Wait()
		u.exports.mu.Lock()
		n := u.exports.number
		u.exports.mu.Unlock()
		if n != 2 {
			t.Errorf("%d exports are being made, want 2: one of each key", n)
		}
		all.Wait()
		if n := u.exports.number + len(u.exports.ofKey); n != 0 {
			t.Errorf("%d exports have not ended", n)
		}
	})
}
