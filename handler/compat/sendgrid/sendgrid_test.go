package sendgrid

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mailsidecar/handler/compat/compattest"
)

const good = `{"personalizations":[{"to":[{"email":"ana@example.org"}]}],"from":{"email":"shop@example.com"},"subject":"Hi","content":[{"type":"text/plain","value":"Hello"}]}`

// request is a request to path, or to the usual one, with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/v3/mail/send"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+compattest.ShopSecret)
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", compattest.With(good, `"from":{"email":"x"},"reply_to":{"email":"y"}`)},
		{"", compattest.With(good, `"from":{"email":""},"reply_to_list":[{"email":"y"}]`)},
		{"", compattest.With(good, `"reply_to":{"email":"y@example.com"},"reply_to_list":[{"email":"y@example.com"}]`)},
		{"", compattest.With(good, `"personalizations":[{"to":[{"email":"a@example.org"}]},{"to":[{"email":"a@example.org"},{"email":"x"}],"cc":[{"email":"y"}],"bcc":[{"email":"z","name":"a\nb"}],"from":{"email":"w"}}]`)},
		{"", compattest.With(good, `"personalizations":[{"to":[]}]`)},
		{"", compattest.With(good, `"personalizations":[]`)},
		{"", compattest.With(good, `"personalizations":[{"to":[{"email":"a@example.org"},{"email":"A@example.org"}]}]`)},
		{"", compattest.With(good, `"subject":""`)},
		{"", compattest.With(good, `"subject":"a\r\nb"`)},
		{"", compattest.With(good, `"content":[]`)},
		{"", compattest.With(good, `"content":[{"type":"x","value":"y"},{"type":"text/plain","value":""}]`)},
		{"", compattest.With(good, `"content":[{"type":"text/plain","value":"y"},{"type":"text/plain","value":"y"}]`)},
		{"", compattest.With(good, `"headers":{"X A":"b","Bcc":"x","Sender":"y"}`)},
		{"", compattest.With(good, `"headers":{"Message-ID":"b","Date":"x"}`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a"}]`)},
		{"", compattest.With(good, `"attachments":[{"filename":"a","content":"aGk="},{"filename":"a\rb","content":"aGk=","type":"x"}]`)},
		{"", compattest.With(good, `"attachments":[{"content":"aGk=","type":"x"}]`)},
		{"", compattest.With(good, `"send_at":4102444800`)},
		{"", compattest.With(good, `"personalizations":[{"to":[{"email":"a@example.org"}],"send_at":4102444800}]`)},
		{"", compattest.With(good, `"send_at":"x"`)},
		{"", compattest.With(good, `"template_id":"x","mail_settings":{"bcc":{"enable":true}},"new":1`)},
		{"", compattest.With(good, `"template_id":"x","mail_settings":{"bcc":{"enable":true}}`)},
		{"", compattest.With(good, `"mail_settings":{"sandbox_mode":{"enable":true}}`)},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}
