package handler

import (
	"encoding/base64"
	"strings"
	"testing"
)

// BenchmarkPostMessage is what a request costs until it is handed to the queue.
func BenchmarkPostMessage(b *testing.B) {
	attached := func(size int) string {
		content := base64.StdEncoding.EncodeToString(make([]byte, size))
		return message(`"attachments":[{"filename":"a.bin","content":"` + content + `"}]`)
	}
	for name, body := range map[string]string{
		"10KB":  message(`"subject":"Hi","html":"` + strings.Repeat("Hello world ", 850) + `"`),
		"1MiB":  attached(1 << 20),
		"18MiB": attached(18 << 20),
	} {
		b.Run(name, func(b *testing.B) {
			q := &fakeQueue{durable: true}
			s := newTestServer(b, q, nil)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if a := serve(s, newRequest("POST", "/v1/messages", body)); a.status != 202 {
					b.Fatalf("answer = %d %s", a.status, a.body)
				}
				q.got = nil
			}
		})
	}
}
