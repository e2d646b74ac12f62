package brevo

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mailsidecar/handler/compat/compattest"
)

const good = `{"sender":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","textContent":"Hello"}`

// request is a request to path, or to the usual one, with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/v3/smtp/email"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Api-Key", compattest.ShopSecret)
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", compattest.With(good, `"sender":{"email":"x"},"to":[{"email":"a@example.org"},{"email":"b"}],"cc":[{"email":"c"}],"bcc":[{"email":"d","name":"a\nb"}],"replyTo":{"email":"e"}`)},
		{"", compattest.With(good, `"sender":{}`)},
		{"", compattest.With(good, `"sender":{"id":1}`)},
		{"", compattest.With(good, `"to":[]`)},
		{"", compattest.With(good, `"subject":""`)},
		{"", compattest.With(good, `"textContent":""`)},
		{"", compattest.With(good, `"subject":"a\r\nb"`)},
		{"", compattest.With(good, `"to":[{"email":"x"}]`)},
		{"", compattest.With(good, `"cc":[{"email":"a@example.org"},{"email":"x"}]`)},
		{"", compattest.With(good, `"replyTo":{"email":"x"}`)},
		{"", compattest.With(good, `"headers":{"X A":"b"}`)},
		{"", compattest.With(good, `"headers":{"Bcc":"b"}`)},
		{"", compattest.With(good, `"headers":{"Date":"b"}`)},
		{"", compattest.With(good, `"headers":{"X-Sib-Sandbox":"x"}`)},
		{"", compattest.With(good, `"headers":{"X-Sib-Sandbox":"drop"}`)},
		{"", compattest.With(good, `"headers":{"idempotencyKey":"ü"}`)},
		{"", compattest.With(good, `"attachment":[{"name":"a"}]`)},
		{"", compattest.With(good, `"attachment":[{"name":"a","content":"aGk="},{"name":"a\rb","content":"aGk="}]`)},
		{"", compattest.With(good, `"attachment":[{"content":"aGk="}]`)},
		{"", compattest.With(good, `"messageVersions":[{"to":[{"email":"a@example.org"}]}]`)},
		{"", compattest.With(good, `"to":null,"messageVersions":[{"to":[{"email":"a@example.org"}]},{"to":[{"email":"x"}]}]`)},
		{"", compattest.With(good, `"to":null,"messageVersions":[{"to":[{"email":"a@example.org"}]},{"to":[]}]`)},
		{"", compattest.With(good, `"to":null,"messageVersions":[{"to":[{"email":"a@example.org"}]}]`)},
		{"", compattest.With(good, `"scheduledAt":"tomorrow"`)},
		{"", compattest.With(good, `"scheduledAt":"2100-01-01T00:00:00Z"`)},
		{"", compattest.With(good, `"templateId":1,"htmlUrl":"x"`)},
		{"", compattest.With(good, `"new":1`)},
		{"", compattest.With(good, `"to":1`)},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}

// TestVersionHeaders: a version's own fields replace those of all versions.
func TestVersionHeaders(t *testing.T) {
	var desk compattest.Desk
	r := desk.Serve(t, API, request("", compattest.With(good, `"to":null,"headers":{"X-A":"all","X-B":"all"},
		"messageVersions":[{"to":[{"email":"a@example.org"}],"headers":{"x-a":"own"}}]`)))
	if _, header := desk.One(t); header.Get("X-A") != "own" || header.Get("X-B") != "all" {
		t.Errorf("answer = %d %s, header = %v", r.Code, r.Body, header)
	}
	r = desk.Serve(t, API, request("", compattest.With(good, `"to":null,
		"messageVersions":[{"to":[{"email":"a@example.org"}],"headers":{"X-Sib-Sandbox":"drop"}}]`)))
	if r.Code != http.StatusBadRequest || !strings.Contains(r.Body.String(), "messageVersions.0.headers.X-Sib-Sandbox") {
		t.Errorf("a version's own sandbox = %d %s, want it refused", r.Code, r.Body)
	}
}
