//go:build !race

package handler

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailsidecar/queue"
)

// repeating is a reader of a text again and again, so that bodies take no memory of the
// test's.
type repeating struct {
	before, unit, after string
	units               int
	at                  int
	rest                string
}

func (r *repeating) Read(p []byte) (int, error) {
	for r.rest == "" {
		switch {
		case r.at == 0:
			r.rest = r.before
		case r.at <= r.units:
			r.rest = r.unit
		case r.at == r.units+1:
			r.rest = r.after
		default:
			return 0, io.EOF
		}
		r.at++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *repeating) size() int64 { return int64(len(r.before) + r.units*len(r.unit) + len(r.after)) }

// flood is many requests at once, each of which becomes something large.
type flood struct {
	name     string
	requests int
	path     string
	kind     string
	body     repeating
	chunked  bool
	stored   int // at least so many get 202
}

func floods() []flood {
	const cyrillic = "Здравствуйте, это письмо. "
	unit := func(text string) string { return strings.Repeat(text, (64<<10)/len(text)) }
	json := func(octets int, text string) repeating {
		u := unit(text)
		return repeating{before: `{"from":"a@example.com","to":"b@example.com","html":"`, unit: u, units: octets / len(u), after: `"}`}
	}
	raw := func(octets int, fields, text string) repeating {
		u := unit(text)
		return repeating{before: "From: a@example.com\r\nTo: b@example.com\r\n" + fields + "\r\n", unit: u, units: octets / len(u), after: "\r\n"}
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.SetBoundary("x")
	_ = w.WriteField("from", "a@example.com")
	_ = w.WriteField("to", "b@example.com")
	_, _ = w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="attachments"; filename="a.bin"`}})
	file := func(octets int) repeating {
		u := unit("0123456789abcdef")
		return repeating{before: form.String(), unit: u, units: octets / len(u), after: "\r\n--x--\r\n"}
	}
	const jsonType, rawType, formType = "application/json", "message/rfc822", "multipart/form-data; boundary=x"
	return []flood{
		{name: "Cyrillic HTML", requests: 64, kind: jsonType, body: json(2<<20, cyrillic), stored: 10},
		{name: "much Cyrillic HTML", requests: 16, kind: jsonType, body: json(8<<20, cyrillic), stored: 3},
		{name: "escaped Cyrillic", requests: 64, kind: jsonType, body: json(3<<20, `\u0434\u0430`), stored: 10},
		{name: "HTML of ASCII", requests: 64, kind: jsonType, body: json(2<<20, "Hello, this is a letter. "), stored: 30},
		{name: "raw with NULs", requests: 16, kind: rawType, body: raw(18<<20, "", "abc\x00def\r\n"), stored: 3},
		{name: "raw with NULs, too large", requests: 16, kind: rawType, body: raw(24<<20, "", "abc\x00def\r\n")},
		{name: "raw with NULs, binary", requests: 16, kind: rawType, body: raw(18<<20, "Content-Type: image/png\r\n", "abc\x00def\r\n"), stored: 3},
		{name: "raw with long lines", requests: 16, kind: rawType, body: raw(20<<20, "Content-Transfer-Encoding: quoted-printable\r\n", strings.Repeat("a", 1000)), stored: 3},
		{name: "raw", requests: 16, kind: rawType, body: raw(24<<20, "", "abcdef\r\n"), stored: 5},
		{name: "raw, chunked", requests: 16, kind: rawType, body: raw(24<<20, "", "abcdef\r\n"), chunked: true, stored: 4},
		{name: "bare line ends", requests: 16, kind: rawType, body: raw(12<<20, "", "a\n"), stored: 4},
		{name: "forms", requests: 16, kind: formType, body: file(18 << 20), stored: 4},
		{name: "forms, chunked", requests: 16, kind: formType, body: file(18 << 20), chunked: true, stored: 4},
		{name: "elements", requests: 32, kind: jsonType, body: repeating{before: `{"from":"a@example.com","to":"b@example.com","attachments":[`, unit: strings.Repeat(`{},`, 1000), units: 20, after: `{}]}`}},
		{name: "batches", requests: 8, path: "/v1/messages/batch", kind: jsonType, stored: 1, body: repeating{
			before: `{"messages":[`, unit: goodMessage + ",", units: 498,
			after: `{"from":"a@example.com","to":"b@example.com","html":"` + strings.Repeat(cyrillic, 20_000) + `"}]}`,
		}},
	}
}

func (f flood) request() *http.Request {
	body := f.body
	path := f.path
	if path == "" {
		path = "/v1/messages"
	}
	r := httptest.NewRequest(http.MethodPost, path, &body)
	if r.ContentLength = body.size(); f.chunked {
		r.ContentLength = -1
	}
	r.Header.Set("Content-Type", f.kind)
	authorize(r, "native", testKey)
	return r
}

// memory is what the process has of the system, in octets, without what it has given
// back.
func memory() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// watchMemory returns a function that ends the watch and returns the most that the
// process had.
func watchMemory() (most func() uint64) {
	var peak atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(200 * time.Microsecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak.Store(max(peak.Load(), memory()))
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-stopped
		return peak.Load()
	}
}

// TestFloodMemory: whatever requests become, all together stay within the memory of
// docs/operating.md: 96 MiB + 2 × MAILSIDECAR_MAX_IN_FLIGHT.
func TestFloodMemory(t *testing.T) {
	const limit = 96<<20 + 2*128<<20
	// As in a process with the defaults.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(limit - 32<<20))
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	for _, f := range floods() {
		t.Run(f.name, func(t *testing.T) {
			q := forgetfulQueue{&fakeQueue{durable: true}}
			s := newTestServer(t, q.fakeQueue, func(o *Options) { o.Submitter, o.Ledger = q, q })
			debug.FreeOSMemory()
			before := memory()
			most := watchMemory()
			var group sync.WaitGroup
			var stored, refused atomic.Int32
			for range f.requests {
				group.Go(func() {
					w := httptest.NewRecorder()
					s.ServeHTTP(w, f.request())
					switch w.Code {
					case http.StatusAccepted:
						stored.Add(1)
					case http.StatusServiceUnavailable:
						refused.Add(1)
					}
				})
			}
			group.Wait()
			peak := most()
			t.Logf("%d of %d stored, %d refused for now, %d MiB, of which %d before", stored.Load(), f.requests, refused.Load(), peak>>20, before>>20)
			if peak > limit {
				t.Errorf("%d requests took %d MiB, want at most %d", f.requests, peak>>20, limit>>20)
			}
			if int(stored.Load()) < f.stored {
				t.Errorf("%d requests were stored, want at least %d", stored.Load(), f.stored)
			}
			if n := s.budget.Used(); n != 0 {
				t.Errorf("%d octets are kept", n)
			}
			runtime.KeepAlive(s)
		})
	}
}

// TestExpansionMemory: what values make of a request's texts counts as its memory.
func TestExpansionMemory(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	s.budget.ShareProcessors(nil) // the other request keeps its turn until it is closed
	var people []string
	for i := range 100 {
		people = append(people, fmt.Sprintf(`{"to":[{"email":"a%d@example.org"}],"substitutions":{"-a-":"b"}}`, i))
	}
	body := `{"personalizations":[` + strings.Join(people, ",") + `],"from":{"email":"a@example.com"},"subject":"x",` +
		`"content":[{"type":"text/plain","value":"` + strings.Repeat("-a-", 10_000) + `"}]}`
	request := func() answer {
		return serve(s, door{name: "sendgrid", path: apis["sendgrid"].path}.request(body, false))
	}
	other := otherShare(s)
	if err := other.Begin(t.Context(), 64<<20-1<<20); err != nil {
		t.Fatal(err)
	}
	if a := request(); a.status != http.StatusServiceUnavailable {
		t.Errorf("100 texts of 10 kB beside a request that makes 63 MiB = %d %s, want 503", a.status, text(a))
	}
	other.Close()
	if a := request(); a.status != http.StatusAccepted {
		t.Errorf("100 texts of 10 kB = %d %s, want 202", a.status, text(a))
	}
}

// forgetfulQueue commits in a moment, and keeps nothing.
type forgetfulQueue struct{ *fakeQueue }

func (q forgetfulQueue) Submit(ctx context.Context, s queue.Submission) (queue.Receipt, error) {
	receipts, err := q.SubmitBatch(ctx, []queue.Submission{s})
	return receipts[0], err
}

func (q forgetfulQueue) SubmitBatch(_ context.Context, subs []queue.Submission) ([]queue.Receipt, error) {
	time.Sleep(5 * time.Millisecond) // as long as a disk takes: others come meanwhile
	receipts := make([]queue.Receipt, len(subs))
	for i, s := range subs {
		receipts[i] = q.answer(s)
	}
	runtime.KeepAlive(subs)
	return receipts, nil
}
