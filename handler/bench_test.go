package handler

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"mailsidecar/queue"
)

// BenchmarkPostMessage is what a request costs from its header to the queue and
// back to the answer, its log line included.
func BenchmarkPostMessage(b *testing.B) {
	attached := func(size int) string {
		content := base64.StdEncoding.EncodeToString(make([]byte, size))
		return message(`"attachments":[{"filename":"a.bin","content":"` + content + `"}]`)
	}
	for name, body := range map[string]string{
		"13kB":  benchMessage(b),
		"1MiB":  attached(1 << 20),
		"18MiB": attached(18 << 20),
	} {
		b.Run(name, func(b *testing.B) {
			q := benchQueue{&fakeQueue{durable: true}}
			s := newTestServer(b, q.fakeQueue, func(o *Options) { o.Submitter, o.Logger = q, logTo(io.Discard) })
			r := newRequest("POST", "/v1/messages", body)
			w := discardWriter{http.Header{}, new(int)}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				r.Body = io.NopCloser(strings.NewReader(body))
				clear(w.header)
				if s.ServeHTTP(w, r); *w.status != http.StatusAccepted {
					b.Fatalf("status = %d, want 202", *w.status)
				}
			}
		})
	}
}

// benchMessage is like the message of bench/: 2.5 kB of text and 10 kB of HTML,
// with the escapes that most JSON writers make.
func benchMessage(b *testing.B) string {
	prose := func(size int) string {
		const line = "Thank you for your order. Größe und Menge finden Sie in der Übersicht; it ships within two days.\n"
		return strings.Repeat(line, size/len(line)+1)
	}
	text, err := json.Marshal(map[string]any{
		"from": "Shop <shop@example.com>", "to": []string{"Ana <ana@example.org>"},
		"subject": "Your order has been received – thank you", "text": prose(2500),
		"html":    "<p>" + strings.ReplaceAll(prose(10_000), "\n", "</p>\n<p>") + "</p>\n",
		"headers": map[string]string{"X-Order": "1042"},
	})
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// benchQueue takes messages as fast as it can be, and forgets them.
type benchQueue struct{ *fakeQueue }

func (q benchQueue) Submit(_ context.Context, s queue.Submission) (queue.Receipt, error) {
	return q.answer(s), nil
}

// discardWriter keeps of an answer its status.
type discardWriter struct {
	header http.Header
	status *int
}

func (w discardWriter) Header() http.Header         { return w.header }
func (w discardWriter) WriteHeader(status int)      { *w.status = status }
func (w discardWriter) Write(p []byte) (int, error) { return len(p), nil }
