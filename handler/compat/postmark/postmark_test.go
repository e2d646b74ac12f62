package postmark

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/compat/compattest"
)

const good = `{"From":"shop@example.com","To":"ana@example.org","Subject":"Hi","TextBody":"Hello"}`

// request is a request to path, or to the usual one, with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/email"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Postmark-Server-Token", compattest.ShopSecret)
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", compattest.With(good, `"From":"x","To":"a@example.org, b","Cc":"c","Bcc":"d\r\ne","ReplyTo":"f"`)},
		{"", compattest.With(good, `"From":"a@example.com, b@example.com"`)},
		{"", compattest.With(good, `"To":""`)},
		{"", compattest.With(good, `"TextBody":""`)},
		{"", compattest.With(good, `"Subject":"a\r\nb"`)},
		{"", compattest.With(good, `"Headers":[{"Name":"X A","Value":"b"},{"Name":"Bcc","Value":"x"},{"Name":"Date","Value":"today"}]`)},
		{"", compattest.With(good, `"Headers":[{"Name":"Message-ID","Value":"today"}]`)},
		{"", compattest.With(good, `"Headers":[{"Name":"Bcc","Value":"x"},{"Name":"Reply-To","Value":"x"}]`)},
		{"", compattest.With(good, `"Attachments":[{"Name":"a"}]`)},
		{"", compattest.With(good, `"Attachments":[{"Name":"a","Content":"aGk="},{"Name":"a\rb","Content":"aGk="}]`)},
		{"", compattest.With(good, `"Attachments":[{"Name":"a","Content":"aGk="},{"Name":"b","Content":"aGk=","ContentType":"x"}]`)},
		{"", compattest.With(good, `"Attachments":[{"Content":"aGk="}]`)},
		{"", compattest.With(good, `"Attachments":[{"Name":"a","Content":"!"}]`)},
		{"", compattest.With(good, `"TemplateId":1,"TemplateModel":{"a":1}`)},
		{"", compattest.With(good, `"New":1`)},
		{"", compattest.With(good, `"To":1`)},
		{"/email/withTemplate", good},
		{"/email/batch", "[]"},
		{"/email/batch", "x"},
		{"/email/batch", compattest.With(good, `"a":1`)},
		{"/email/batch", `[{"From":1},{"From":"x"},{"From":"shop@example.com","To":"ana@example.org","TextBody":"x"}]`},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}

// TestTestToken: anybody may have a request judged.
func TestTestToken(t *testing.T) {
	var desk compattest.Desk
	for body, want := range map[string]int{
		good:                              200,
		compattest.With(good, `"To":"x"`): 422,
		compattest.With(good, `"TextBody":"`+strings.Repeat("x", maxTest)+`"`): 413,
	} {
		r := request("", body)
		r.Header.Set("X-Postmark-Server-Token", testToken)
		if got := desk.Serve(t, API, r).Code; got != want {
			t.Errorf("POST %.80s… with the test token = %d, want %d", body, got, want)
		}
	}
	if len(desk.Submitted) > 0 {
		t.Error("a test was sent")
	}
}

// TestBatch: each message has its result, and the right ones are sent.
func TestBatch(t *testing.T) {
	batch := "[" + good + `,{"From":1},` + compattest.With(good, `"To":"x"`) + "," + good + "]"
	for direct, commits := range map[bool]int{false: 1, true: 2} {
		desk := compattest.Desk{Direct: direct}
		var results []fault
		if err := json.Unmarshal(desk.Serve(t, API, request("/email/batch", batch)).Body.Bytes(), &results); err != nil {
			t.Fatal(err)
		}
		want := []int{0, wrongJSON, invalid, 0}
		for i, result := range results {
			if result.ErrorCode != want[i] {
				t.Errorf("direct %v: result %d = %+v, want %d", direct, i, result, want[i])
			}
		}
		if len(results) != 4 || len(desk.Submitted) != 2 || desk.Commits != commits {
			t.Errorf("direct %v: %d results, %d submissions, %d commits, want %d", direct, len(results), len(desk.Submitted), desk.Commits, commits)
		}
	}
}
