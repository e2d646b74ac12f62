package handler

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fields yields header fields without end, and counts the octets.
type fields struct {
	format string
	rest   string
	count  int
	octets int
}

func (f *fields) Read(p []byte) (int, error) {
	for ; len(f.rest) < len(p); f.count++ {
		f.rest += fmt.Sprintf(f.format, f.count)
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	f.octets += n
	return n, nil
}

const partBefore = "--x\r\nContent-Disposition: form-data; name=to\r\n\r\na@b.cc\r\n--x\r\n"

// TestPartHeaderIsBounded: of a part's header that does not end, little is read. What is
// read stays in memory as long as the client likes, and takes far more than its octets.
func TestPartHeaderIsBounded(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	const most = 32 << 10
	for _, path := range []string{"/v1/messages", apis["mailgun"].path} {
		for name, format := range map[string]string{
			"fields": "a%d:\r\n", "one field": "a%.0d", "folded field": " a%d\r\n", "bare line feeds": "a%d:\n", "long fields": "a%d: " + strings.Repeat("x", 900) + "\r\n",
		} {
			header := &fields{format: format, rest: partBefore + "X: "}
			r := formRequest(path, "multipart/form-data; boundary=x", "")
			r.Body, r.ContentLength = io.NopCloser(header), -1
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "header of a part is too large") {
				t.Errorf("%s, %s = %d %s, want 400 and that the header of a part is too large", path, name, w.Code, w.Body)
			}
			if header.octets > most {
				t.Errorf("%s, %s: %d octets were read, want at most %d", path, name, header.octets, most)
			}
		}
	}
}

// TestPartsOfManyLines: lines of files and texts do not count as those of a part's header,
// and neither do those of many parts.
func TestPartsOfManyLines(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for name, parts := range map[string]string{
		"lines":     strings.Repeat("--x\r\nContent-Disposition: form-data; name=attachments; filename=a.txt\r\nContent-Type: text/plain\r\n\r\n"+strings.Repeat("\n", 50_000)+"\r\n", 3),
		"parts":     strings.Repeat("--x\r\nContent-Disposition: form-data; name=to\r\n\r\na@b.cc\r\n", 900),
		"long name": "--x\r\nContent-Disposition: form-data; name=attachments; filename=\"" + strings.Repeat("a", 900) + ".txt\"\r\n\r\n\n\n\r\n",
	} {
		before := strings.TrimSuffix(partBefore, "--x\r\n") + "--x\r\nContent-Disposition: form-data; name=from\r\n\r\na@b.cc\r\n--x\r\nContent-Disposition: form-data; name=text\r\n\r\nHi\r\n"
		w := httptest.NewRecorder()
		s.ServeHTTP(w, formRequest("/v1/messages", "multipart/form-data; boundary=x", before+parts+"--x--\r\n"))
		if w.Code != http.StatusAccepted {
			t.Errorf("%s = %d %s, want 202", name, w.Code, w.Body)
		}
	}
}

func formRequest(path, contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if r.SetBasicAuth("api", testKey); path == "/v1/messages" {
		authorize(r, "native", testKey)
	}
	return r
}
