package resend

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/compat/compattest"
	"mailsidecar/queue"
)

const good = `{"from":"shop@example.com","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`

// request is a request to path, or to the usual one, with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/emails"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+compattest.ShopSecret)
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", compattest.With(good, `"from":"x","to":["a@example.org","b"],"cc":"c","bcc":["d@example.org, e"],"reply_to":"f\r\ng"`)},
		{"", compattest.With(good, `"from":"a@example.com, b@example.com"`)},
		{"", compattest.With(good, `"to":[]`)},
		{"", compattest.With(good, `"subject":""`)},
		{"", compattest.With(good, `"text":""`)},
		{"", compattest.With(good, `"from":""`)},
		{"", compattest.With(good, `"subject":"a\r\nb"`)},
		{"", compattest.With(good, `"headers":{"X A":"b"}`)},
		{"", compattest.With(good, `"headers":{"Bcc":"b","Reply-To":"x"}`)},
		{"", compattest.With(good, `"headers":{"Date":"today"}`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a"}]`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a","content":"aGk="},{"filename":"a\rb","content":"aGk="}]`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a","content":"aGk=","content_type":"x"}]`)},
		{"", compattest.With(good, `"attachments":[{"content":"aGk="}]`)},
		{"", compattest.With(good, `"attachments":[{"path":"x"}],"template":1`)},
		{"", compattest.With(good, `"scheduled_at":"tomorrow"`)},
		{"", compattest.With(good, `"scheduled_at":"2100-01-01T00:00:00Z"`)},
		{"", compattest.With(good, `"reply_to":"a\r\nb","scheduled_at":"2100-01-01T00:00:00Z"`)},
		{"", compattest.With(good, `"new":1`)},
		{"/emails/batch", "[]"},
		{"/emails/batch", "x"},
		{"/emails/batch", `[{"from":"x"}]`},
		{"/emails/batch", `[{"from":"shop@example.com","to":"ana@example.org","subject":"x","text":"x"},{"from":1}]`},
		{"/emails/batch", `[{"from":"shop@example.com","to":"ana@example.org","subject":"x","text":"x"}]`},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}

// TestIdempotency: the key reaches the queue, and what it says is told in
// Resend's words.
func TestIdempotency(t *testing.T) {
	for _, tc := range []struct {
		key    string
		err    error
		status int
		name   string
	}{
		{"order-1042", nil, 200, ""},
		{"order-1042", queue.ErrIdempotencyMismatch, 409, "invalid_idempotent_request"},
		{"order-1042", queue.ErrIdempotencyInProgress, 409, "concurrent_idempotent_requests"},
		{strings.Repeat("x", 257), nil, 400, "invalid_idempotency_key"},
	} {
		desk := compattest.Desk{Err: tc.err}
		var sums [][32]byte
		for _, body := range []string{good, strings.ReplaceAll(good, ",", ", ")} {
			r := request("", body)
			r.Header.Set("Idempotency-Key", tc.key)
			response := desk.Serve(t, API, r)
			var f fault
			if err := json.Unmarshal(response.Body.Bytes(), &f); err != nil || response.Code != tc.status || f.Name != tc.name {
				t.Errorf("%.20s, %v = %d %+v, %v, want %d %s", tc.key, tc.err, response.Code, f, err, tc.status, tc.name)
			}
		}
		for _, sub := range desk.Submitted {
			sums = append(sums, sub.Fingerprint)
			if sub.IdempotencyKey != tc.key {
				t.Errorf("IdempotencyKey = %q, want %q", sub.IdempotencyKey, tc.key)
			}
		}
		if len(sums) == 2 && (sums[0] != sums[1] || sums[0] == [32]byte{}) {
			t.Errorf("white space changes the fingerprint, or there is none: %x", sums)
		}
	}
}
