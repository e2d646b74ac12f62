package mailersend

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mailsidecar/handler/compat/compattest"
)

const good = `{"from":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","text":"Hello"}`

// request is a request to path, or to the usual one, with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/v1/email"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+compattest.ShopSecret)
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", compattest.With(good, `"from":{"email":"x"},"to":[{"email":"a@example.org"},{"email":"b"}],"cc":[{"email":"c"}],"bcc":[{"email":"d","name":"a\nb"}],"reply_to":{"email":"e"}`)},
		{"", compattest.With(good, `"from":{"email":""},"to":[],"subject":"","text":""`)},
		{"", compattest.With(good, `"subject":"a\r\nb"`)},
		{"", compattest.With(good, `"headers":[{"name":"X A","value":"b"},{"name":"Bcc","value":"b"}]`)},
		{"", compattest.With(good, `"headers":[{"name":"Date","value":"b"}]`)},
		{"", compattest.With(good, `"in_reply_to":"ü"`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a"}]`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a","content":"aGk="},{"filename":"a\rb","content":"aGk=","type":"x","id":"y","disposition":"inline"}]`)},
		{"", compattest.With(good, `"attachments":[{"content":"aGk=","type":"x"}]`)},
		{"", compattest.With(good, `"to":[{"email":"a@example.org"},{"email":"x"}],"personalization":[{"email":"x","data":{"a":1}}]`)},
		{"", compattest.With(good, `"to":[{"email":"a@example.org"},{"email":"x@example.org"}],"cc":[{"email":"y@example.org"}],"personalization":[{"email":"x","data":{"a":1}}]`)},
		{"", compattest.With(good, `"text":"{% if %}","personalization":[{"email":"x","data":{"a":1}}]`)},
		{"", compattest.With(good, `"send_at":4102444800`)},
		{"", compattest.With(good, `"template_id":"x","rcptTo":[1]`)},
		{"", compattest.With(good, `"new":1`)},
		{"", compattest.With(good, `"to":1`)},
		{"/v1/bulk-email", "[]"},
		{"/v1/bulk-email", "x"},
		{"/v1/bulk-email", `[{"from":1}]`},
		{"/v1/bulk-email", `[{"from":{"email":"x"},"to":[{"email":"y"}],"subject":"a","text":"x"}]`},
		{"/v1/bulk-email", `[{"from":{"email":"shop@example.com"},"to":[],"subject":"a","text":"x"}]`},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}

// TestContentType: an empty answer has one, as Anymail for Django
// expects.
func TestContentType(t *testing.T) {
	r := new(compattest.Desk).Serve(t, API, request("", good))
	if got := r.Header().Get("Content-Type"); got == "" || r.Body.Len() > 0 {
		t.Errorf("Content-Type = %q with %q, want one and no body", got, r.Body)
	}
}
