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
	"testing"
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
