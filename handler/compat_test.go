package handler

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/compat/compattest"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// apiOf is a provider's route with a good request for it.
type apiOf struct {
	path, contentType, body string
	status                  int
}

const formBody = "from=shop%40example.com&to=ana%40example.org&subject=Hi&text=Hello"

var apis = map[string]apiOf{
	"mailgun":    {"/v3/mg.example.com/messages", "application/x-www-form-urlencoded", formBody, 200},
	"postmark":   {"/email", intake.TypeJSON, `{"From":"shop@example.com","To":"ana@example.org","Subject":"Hi","TextBody":"Hello"}`, 200},
	"resend":     {"/emails", intake.TypeJSON, `{"from":"shop@example.com","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`, 200},
	"sendgrid":   {"/v3/mail/send", intake.TypeJSON, `{"personalizations":[{"to":[{"email":"ana@example.org"}]}],"from":{"email":"shop@example.com"},"subject":"Hi","content":[{"type":"text/plain","value":"Hello"}]}`, 202},
	"ses":        {"/v2/email/outbound-emails", intake.TypeJSON, `{"FromEmailAddress":"shop@example.com","Destination":{"ToAddresses":["ana@example.org"]},"Content":{"Simple":{"Subject":{"Data":"Hi"},"Body":{"Text":{"Data":"Hello"}}}}}`, 200},
	"mailersend": {"/v1/email", intake.TypeJSON, `{"from":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","text":"Hello"}`, 202},
	"brevo":      {"/v3/smtp/email", intake.TypeJSON, `{"sender":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","textContent":"Hello"}`, 201},
}

// request makes a request with the shop's key, as that provider's
// clients send it.
func (a apiOf) request(provider string, body io.Reader) *http.Request {
	r := httptest.NewRequest(http.MethodPost, a.path, body)
	r.Header.Set("Content-Type", a.contentType)
	authorize(r, provider, testKey)
	return r
}

func authorize(r *http.Request, provider, secret string) {
	switch provider {
	case "mailgun":
		r.SetBasicAuth("api", secret)
	case "postmark":
		r.Header.Set("X-Postmark-Server-Token", secret)
	case "brevo":
		r.Header.Set("Api-Key", secret)
	case "ses":
		compattest.SignRequest(r, "shop", secret, time.Now())
	default:
		r.Header.Set("Authorization", "Bearer "+secret)
	}
}

// try sends a body to a provider's route.
func try(t *testing.T, s *Server, provider, body string) answer {
	t.Helper()
	return serve(s, apis[provider].request(provider, strings.NewReader(body)))
}

func text(a answer) string { return strings.TrimSpace(string(a.body)) }

// one is the only message that reached the queue, with its header.
func one(t *testing.T, q *fakeQueue) (queue.Submission, mail.Header) {
	t.Helper()
	got := q.submissions()
	if len(got) != 1 {
		t.Fatalf("%d messages reached the queue, want 1", len(got))
	}
	m, err := mail.ReadMessage(bytes.NewReader(got[0].Content.Data))
	if err != nil {
		t.Fatal(err)
	}
	return got[0], m.Header
}

// TestProviderAnswers: a good request and every kind of bad one, in the form
// that each provider's clients read.
func TestProviderAnswers(t *testing.T) {
	for name, api := range apis {
		t.Run(name, func(t *testing.T) {
			for _, tc := range providerAnswers() {
				q := tc.queue
				if q == nil {
					q = &fakeQueue{durable: true}
				}
				s := newTestServer(t, q, tc.change)
				r := api.request(name, strings.NewReader(api.body))
				if tc.edit != nil {
					tc.edit(r, name)
				}
				response := serve(s, r)
				if tc.again {
					response = serve(s, api.request(name, strings.NewReader(api.body)))
				}
				tc.check(t, name, response)
			}
		})
	}
}

type providerAnswer struct {
	name   string
	queue  *fakeQueue
	change func(*Options)
	edit   func(r *http.Request, provider string)
	again  bool
	// status by provider; others stands for those not named.
	status map[string]int
	others int
}

func providerAnswers() []providerAnswer {
	edit := func(f func(*http.Request)) func(*http.Request, string) {
		return func(r *http.Request, _ string) { f(r) }
	}
	return []providerAnswer{
		{name: "no key", edit: edit(func(r *http.Request) { r.Header = http.Header{"Content-Type": r.Header["Content-Type"]} }), others: 401, status: map[string]int{"ses": 403}},
		{name: "wrong key", edit: func(r *http.Request, p string) { authorize(r, p, "wrong") }, others: 401, status: map[string]int{"ses": 403, "resend": 403}},
		{name: "method", edit: edit(func(r *http.Request) { r.Method = http.MethodGet }), others: 405},
		{name: "content type", edit: edit(func(r *http.Request) { r.Header.Set("Content-Type", "text/css") }), others: 415, status: map[string]int{"ses": 403}},
		{name: "encoding", edit: edit(func(r *http.Request) { r.Header.Set("Content-Encoding", "br") }), others: 415},
		{name: "broken gzip", edit: edit(func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }), others: 415},
		{name: "announced too large", edit: edit(func(r *http.Request) { r.ContentLength = 1 << 40 }), others: 413},
		{name: "message too large", change: func(o *Options) { o.MaxMessageSize = 180 }, others: 413},
		{
			name: "rate", change: func(o *Options) {
				o.Keys = []keys.Entry{{Name: "shop", Secret: testKey, Rate: units.Rate{Messages: 1, Per: time.Minute}}}
			}, again: true, others: 429,
		},
		{
			name: "sender", change: func(o *Options) {
				o.Keys = []keys.Entry{{Name: "shop", Secret: testKey, Senders: []string{"other.example"}}}
			},
			others: 403, status: map[string]int{"postmark": 422, "ses": 400},
		},
		{name: "bad body", edit: edit(func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("%zz=1{")) }), others: 400, status: map[string]int{"postmark": 422, "mailersend": 422, "ses": 403}},
		{name: "queue full", queue: answering(queue.ErrFull), others: 503, status: map[string]int{"resend": 500}},
		{name: "internal", queue: answering(errors.New("a secret")), others: 500},
		{name: "refused", queue: failed(mailer.ClassPermanent), others: 400, status: map[string]int{"postmark": 422, "mailersend": 422, "resend": 422}},
		{name: "relay busy", queue: failed(mailer.ClassTransient), others: 503, status: map[string]int{"resend": 500}},
		{name: "no relay", queue: failed(mailer.ClassRelay), others: 503, status: map[string]int{"resend": 500}},
		{name: "uncertain", queue: failed(mailer.ClassUncertain), others: 409, status: map[string]int{"brevo": 422}},
		{name: "foreign page", edit: edit(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }), others: 403, status: map[string]int{"postmark": 422}},
		{name: "foreign host", change: func(o *Options) { o.Keys = nil }, edit: edit(func(r *http.Request) { r.Host = "evil.example" }), others: 403, status: map[string]int{"postmark": 422}},
	}
}

func (tc *providerAnswer) check(t *testing.T, provider string, r answer) {
	t.Helper()
	want := tc.others
	if status, ok := tc.status[provider]; ok {
		want = status
	}
	body := text(r)
	if r.status != want {
		t.Errorf("%s: answer = %d %s, want %d", tc.name, r.status, body, want)
	}
	if got := r.header.Get("Content-Type"); got != intake.TypeJSON {
		t.Errorf("%s: Content-Type = %q, want exactly %q", tc.name, got, intake.TypeJSON)
	}
	if want == http.StatusMethodNotAllowed && r.header.Get("Allow") == "" {
		t.Errorf("%s: no Allow", tc.name)
	}
	if (want == http.StatusTooManyRequests || want == http.StatusServiceUnavailable) && r.header.Get("Retry-After") == "" {
		t.Errorf("%s: no Retry-After", tc.name)
	}
	if strings.Contains(body, "a secret") {
		t.Errorf("%s: answer tells the cause: %s", tc.name, body)
	}
	checkShape(t, provider, tc.name, r, body)
}

// checkShape reads a problem as the provider's clients do.
func checkShape(t *testing.T, provider, name string, r answer, body string) {
	t.Helper()
	var v struct {
		Message    string `json:"message"`
		PMMessage  string `json:"Message"`
		ErrorCode  *int   `json:"ErrorCode"`
		StatusCode int    `json:"statusCode"`
		Name       string `json:"name"`
		Code       string `json:"code"`
		Errors     any    `json:"errors"`
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Errorf("%s: %v in %s", name, err, body)
	}
	good := v.Message != ""
	switch provider {
	case "postmark":
		good = v.PMMessage != "" && v.ErrorCode != nil && *v.ErrorCode != 0
	case "resend":
		good = good && v.StatusCode == r.status && slices.Contains(resendNames, v.Name)
	case "sendgrid":
		list, ok := v.Errors.([]any)
		good = ok && len(list) > 0
	case "brevo":
		good = good && v.Code != ""
	case "ses":
		good = good && r.header.Get("X-Amzn-Errortype") != ""
	case "mailersend":
		_, ok := v.Errors.(map[string]any)
		good = good && ok == (r.status == http.StatusUnprocessableEntity)
	}
	if !good {
		t.Errorf("%s: %s is not %s's form", name, body, provider)
	}
}

// resendNames are all that resend-php takes for errors.
var resendNames = strings.Fields(`application_error concurrent_idempotent_requests daily_quota_exceeded internal_server_error
	invalid_access invalid_api_key invalid_attachment invalid_from_address invalid_idempotency_key invalid_idempotent_request
	invalid_parameter invalid_region method_not_allowed missing_api_key missing_required_field monthly_quota_exceeded not_found
	rate_limit_exceeded restricted_api_key security_error validation_error`)

func TestProviderAccepts(t *testing.T) {
	for name, api := range apis {
		for _, durable := range []bool{true, false} {
			q := &fakeQueue{durable: durable, receipt: judged([]queue.State{queue.Delivered}, nil)}
			s := newTestServer(t, q, nil)
			r := try(t, s, name, api.body)
			if body := text(r); r.status != api.status {
				t.Errorf("%s: answer = %d %s, want %d", name, r.status, body, api.status)
			}
			sub, header := one(t, q)
			if sub.Key != "shop" || sub.Sender != "shop@example.com" || sub.Envelope.ReversePath != "shop@example.com" ||
				!slices.Equal(sub.Envelope.ForwardPaths, []string{"ana@example.org"}) || header.Get("Subject") != "Hi" {
				t.Errorf("%s: %s submitted %+v %v", name, sub.Key, sub.Envelope, header)
			}
		}
	}
}

// TestProviderTransport: chunked bodies, compressed ones, and bombs.
func TestProviderTransport(t *testing.T) {
	zipped := func(body io.Reader) io.Reader {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := io.Copy(w, body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	for name, api := range apis {
		if name == "ses" {
			continue // signs the octets that it sends
		}
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, small)
		r := api.request(name, zipped(strings.NewReader(api.body)))
		r.ContentLength = -1
		r.Header.Set("Content-Encoding", "gzip")
		if got := serve(s, r).status; got != api.status {
			t.Errorf("%s: compressed body = %d, want %d", name, got, api.status)
		}
		one(t, q)
		r = api.request(name, zipped(io.LimitReader(zeros{}, 10<<20)))
		r.Header.Set("Content-Encoding", "gzip")
		if got := serve(s, r).status; got != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: 10 MiB in a small archive = %d, want 413", name, got)
		}
		if !otherShare(s).Grow(1 << 40) {
			t.Errorf("%s: memory is not given back", name)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestProviderPaths: below a provider's paths everything is answered in its
// form, and elsewhere nothing is.
func TestProviderPaths(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for path, want := range map[string]string{
		"/email/withTemplate": "postmark", "/email/x": "postmark", "/emails/1/cancel": "resend", "/v3/mail/batch": "sendgrid",
		"/v3/smtp/x": "brevo", "/v1/email/x": "mailersend", "/v1/bulk-email/1": "mailersend", "/v2/email/identities": "ses",
	} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
		r.Header.Set("Content-Type", intake.TypeJSON)
		authorize(r, want, testKey)
		response := serve(s, r)
		checkShape(t, want, path, response, text(response))
	}
	for _, path := range []string{"/v3/domains", "/v3/x/events"} {
		r := serve(s, newRequest("GET", path, ""))
		body := text(r)
		if r.status != 404 || !strings.HasPrefix(body, `{"message":`) || !strings.Contains(body, `"errors":[{"message":`) {
			t.Errorf("GET %s = %d %s, want a form that all of /v3 can read", path, r.status, body)
		}
	}
	for _, path := range []string{"/emailx", "/v1/messages/1/2", "/v3"} {
		r := serve(s, newRequest("GET", path, ""))
		if got := r.header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("GET %s has %q, want problem+json", path, got)
		}
	}
}

// TestProviderSlashes: a base URL that ends in a slash works with every provider; ids that
// are empty still are.
func TestProviderSlashes(t *testing.T) {
	for name, api := range apis {
		at := strings.LastIndex(api.path, "/")
		for _, path := range []string{"/" + api.path, "//" + api.path, api.path + "/", api.path[:at] + "/" + api.path[at:], "/" + api.path + "//"} {
			for _, signed := range []string{path, api.path} { // as SDKs of Amazon's sign it
				q := &fakeQueue{durable: true}
				r := httptest.NewRequest(http.MethodPost, "http://example.com"+path, strings.NewReader(api.body))
				r.RequestURI, r.URL.Path = path, signed
				r.Header.Set("Content-Type", api.contentType)
				authorize(r, name, testKey)
				r.URL.Path = path
				if got := serve(newTestServer(t, q, nil), r); got.status != api.status || len(q.submissions()) != 1 {
					t.Errorf("%s: POST %s = %d %s, want %d", name, path, got.status, text(got), api.status)
				}
			}
		}
	}
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for target, want := range map[string]int{
		"GET //v1/messages": 200, "GET /v1/messages/": 404, "DELETE /v1/messages/": 404, "GET //v1//messages": 404,
		"GET /emails/": 405, "POST /emails//cancel": 405,
	} {
		method, path, _ := strings.Cut(target, " ")
		r := newRequest(method, "/", "")
		r.RequestURI, r.URL.Path = path, path
		if got := serve(s, r).status; got != want {
			t.Errorf("%s = %d, want %d", target, got, want)
		}
	}
}

// TestEscapedSlash: a slash that is written %2F separates nothing, whatever else is in the
// path: it makes an unknown path, or is a part of an id.
func TestEscapedSlash(t *testing.T) {
	for _, target := range []string{
		"POST //emails/1%2fcancel", "POST /emails/1%2Fcancel/", "POST /emails/1%2fcancel", "POST /emails//1%2F/cancel", "GET /emails/%2f1/", "GET //%2femails/1",
		"GET //v1/messages/1%2Fcontent", "GET /%2fv1/messages", "GET //v1%2fmessages", "POST //v1/messages/1%2fretry", "DELETE //v1/messages/%2f1",
	} {
		method, path, _ := strings.Cut(target, " ")
		q := &fakeQueue{durable: true}
		r := newRequest(method, path, "")
		if u, err := url.ParseRequestURI(path); err != nil {
			t.Fatal(err)
		} else {
			r.RequestURI, r.URL = path, u
		}
		got := serve(newTestServer(t, q, nil), r)
		inID := len(q.scope) == 2 && strings.Contains(strings.ToLower(q.scope[1]), "%2f")
		if got.status != 404 && got.status != 405 && !inID {
			t.Errorf("%s = %d %s for %q, want 404 or 405, or an id with the slash", target, got.status, text(got), q.scope)
		}
	}
}

// TestProviderNotServed: what is not served is named with its method and path, in the
// provider's own form, beside what is.
func TestProviderNotServed(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for name, api := range apis {
		pattern := strings.Replace(api.path, "mg.example.com", "{domain}", 1)
		for _, target := range []string{"GET " + api.path, "PUT " + api.path + "/", "DELETE //" + api.path[1:] + "/x/y", "PURGE " + api.path + "/%C3%BC"} {
			method, path, _ := strings.Cut(target, " ")
			r := httptest.NewRequest(method, "http://example.com"+path, nil)
			r.RequestURI = path + "?q=secret"
			authorize(r, name, testKey)
			got := serve(s, r)
			body := text(got)
			if got.status != 404 && got.status != 405 {
				t.Errorf("%s: %s = %d %s, want 404 or 405", name, target, got.status, body)
			}
			// Below /v3 an unknown path may be of several providers.
			if name != "mailgun" || got.status == 405 {
				checkShape(t, name, target, got, body)
			}
			if !strings.Contains(body, target+" is not supported here") || !strings.Contains(body, "POST "+pattern) || strings.Contains(body, "secret") {
				t.Errorf("%s: %s = %s, want its method and path and %s", name, target, body, pattern)
			}
		}
	}
	got := serve(s, newRequest("PUT", "/v1/messages?q=secret", ""))
	if body := text(got); got.status != 405 || !strings.Contains(body, "PUT /v1/messages is not") || strings.Contains(body, "secret") {
		t.Errorf("PUT /v1/messages = %d %s, want method and path", got.status, body)
	}
}

func TestProvidersNarrowed(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, func(o *Options) { o.Compat = compatAPIs("resend") })
	for name, api := range apis {
		want := http.StatusNotFound
		if name == "resend" {
			want = api.status
		}
		if got := try(t, s, name, api.body).status; got != want {
			t.Errorf("%s = %d with resend alone, want %d", name, got, want)
		}
	}
	if k, _ := s.keys.Signer("shop"); k != nil {
		t.Error("the keys are kept in plain without SES")
	}
}

// providerCase is a request, and what must come of it.
type providerCase struct {
	name, provider, body string
	// status of the answer; 0 means the provider's success.
	status int
	// answer has these parts.
	answer []string
	// check looks at the only message that reached the queue; nil: none did.
	check func(t *testing.T, sub queue.Submission, header mail.Header)
}

func (tc providerCase) run(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	r := try(t, s, tc.provider, tc.body)
	body := text(r)
	want := tc.status
	if want == 0 {
		want = apis[tc.provider].status
	}
	if r.status != want {
		t.Fatalf("answer = %d %s, want %d", r.status, body, want)
	}
	for _, part := range tc.answer {
		if !strings.Contains(body, part) {
			t.Errorf("answer = %s, want %s in it", body, part)
		}
	}
	if tc.check != nil {
		sub, header := one(t, q)
		tc.check(t, sub, header)
	} else if len(q.submissions()) > 0 {
		t.Error("a request that sends nothing reached the queue")
	}
}

func runCases(t *testing.T, cases []providerCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.provider+" "+tc.name, tc.run)
	}
}

// with puts members into a provider's good request, in front of its own, which
// lose those of the same name.
func with(provider, members string) string {
	var own, more map[string]any
	if err := json.Unmarshal([]byte(apis[provider].body), &own); err != nil {
		panic(err)
	}
	if err := json.Unmarshal([]byte("{"+members+"}"), &more); err != nil {
		panic(fmt.Sprintf("%v in %s", err, members))
	}
	for name, value := range more {
		own[name] = value
	}
	b, err := json.Marshal(own, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func fine(*testing.T, queue.Submission, mail.Header) {}

// TestProvidersTolerate: what clients send for what is absent.
func TestProvidersTolerate(t *testing.T) {
	runCases(t, []providerCase{
		{name: "empty values of Laravel", provider: "resend", check: fine, body: with("resend", `"headers":[],"cc":[],"bcc":null,"reply_to":[],"html":null,"attachments":[],"tags":{}`)},
		{name: "empty values of Symfony", provider: "postmark", check: fine, body: with("postmark", `"Cc":"","Bcc":"","HtmlBody":null,"Headers":[],"Metadata":[],"Attachments":""`)},
		{name: "empty values of Go", provider: "mailersend", check: fine, body: with("mailersend", `"reply_to":{"name":"","email":""},"personalization":null,"variables":null,"template_id":"","send_at":0,"settings":null`)},
		{name: "empty values of PHP", provider: "mailersend", check: fine, body: with("mailersend", `"to":[{"email":"ana@example.org","name":null}],"attachments":[{"content":"aGk=","filename":"a.txt","disposition":null,"id":null}]`)},
		{name: "empty values", provider: "sendgrid", check: fine, body: with("sendgrid", `"headers":[],"mail_settings":[],"reply_to":{},"asm":null,"attachments":{},"categories":""`)},
		{name: "what is switched off", provider: "sendgrid", check: fine, body: with("sendgrid", `"mail_settings":{"bcc":{"enable":false,"email":""},"sandbox_mode":{"enable":false}}`)},
		{name: "empty values", provider: "brevo", check: fine, body: with("brevo", `"headers":[],"params":[],"cc":null,"replyTo":[],"attachment":null,"templateId":0`)},
		{name: "case of names", provider: "postmark", check: fine, body: strings.Replace(apis["postmark"].body, "TextBody", "textbody", 1)},
		{name: "one address for a list", provider: "resend", check: fine, body: with("resend", `"to":"ana@example.org","cc":"Bob <bob@example.org>, c@example.org"`)},
		{name: "list for an object", provider: "resend", status: 422, answer: []string{"headers"}, body: with("resend", `"headers":["x"]`)},
		{name: "object for a list", provider: "sendgrid", status: 400, answer: []string{`"field":"attachments"`}, body: with("sendgrid", `"attachments":{"a":1}`)},
		{name: "unknown field", provider: "sendgrid", status: 400, answer: []string{`"field":"sendAt"`}, body: with("sendgrid", `"sendAt":1`)},
		{name: "doubled field", provider: "resend", status: 400, body: `{"subject":"a","subject":"b"}`},
		{name: "syntax", provider: "postmark", status: 422, answer: []string{`"ErrorCode":402`}, body: `{"From":`},
	})
}

// TestProvidersReadAddresses as frameworks write them.
func TestProvidersReadAddresses(t *testing.T) {
	from := func(want string) func(*testing.T, queue.Submission, mail.Header) {
		return func(t *testing.T, _ queue.Submission, h mail.Header) {
			if a, err := mail.ParseAddress(h.Get("From")); err != nil || a.String() != want {
				t.Errorf("From = %q (%v), want %s", h.Get("From"), err, want)
			}
		}
	}
	runCases(t, []providerCase{
		{name: "name without quotes", provider: "resend", check: from(`"Shop, Inc." <shop@example.com>`), body: with("resend", `"from":"Shop, Inc. <shop@example.com>"`)},
		{name: "encoded name", provider: "postmark", check: from(`=?utf-8?q?M=C3=BCller?= <shop@example.com>`), body: with("postmark", `"From":"=?utf-8?Q?M=C3=BCller?= <shop@example.com>"`)},
		{name: "list in disguise", provider: "resend", status: 422, body: with("resend", `"to":"Doe, John <a@example.org>, B <b@example.org>"`)},
		{name: "line break", provider: "resend", status: 422, body: with("resend", `"to":"a@example.org\r\nBcc: b@example.org"`)},
		{name: "index", provider: "sendgrid", status: 400, answer: []string{`"field":"personalizations.0.cc.1.email"`}, body: with("sendgrid", `"personalizations":[{"to":[{"email":"a@example.org"}],"cc":[{"email":"b@example.org"},{"email":"x"}]}]`)},
		{name: "index", provider: "mailersend", status: 422, answer: []string{`"to.1.email":[`}, body: with("mailersend", `"to":[{"email":"a@example.org"},{"email":"x"}]`)},
		{name: "word", provider: "mailgun", status: 400, answer: []string{`"to parameter is not a valid address. please check documentation"`}, body: strings.Replace(formBody, "ana%40", "ana", 1)},
		{name: "missing", provider: "mailgun", status: 400, answer: []string{`"to parameter is missing"`}, body: "from=a%40example.com&text=x"},
		{name: "missing", provider: "resend", status: 422, answer: []string{`"missing_required_field"`, "`to`"}, body: with("resend", `"to":[]`)},
		{name: "missing", provider: "brevo", status: 400, answer: []string{`"missing_parameter"`}, body: with("brevo", `"to":[]`)},
	})
}

// TestProvidersUnfold: folded encoded-words pass, and a line break that could
// begin another field does not, wherever it comes from.
func TestProvidersUnfold(t *testing.T) {
	const folded = `" =?utf-8?Q?=E4=BD=A0?=\r\n =?utf-8?Q?=E5=A5=BD?="`
	subject := func(t *testing.T, _ queue.Submission, h mail.Header) {
		got, err := new(mime.WordDecoder).DecodeHeader(h.Get("X-Title"))
		if err != nil || got != "你好" {
			t.Errorf("X-Title = %q, %v, want 你好", got, err)
		}
	}
	runCases(t, []providerCase{
		{name: "folded", provider: "resend", check: subject, body: with("resend", `"headers":{"X-Title":`+folded+`}`)},
		{name: "folded", provider: "postmark", check: subject, body: with("postmark", `"Headers":[{"Name":"X-Title","Value":`+folded+`}]`)},
		{name: "header", provider: "resend", status: 422, body: with("resend", `"headers":{"X-A":"b\r\nBcc: c@example.org"}`)},
		{name: "header name", provider: "resend", status: 422, body: with("resend", `"headers":{"X-A\r\nBcc":"c@example.org"}`)},
		{name: "subject", provider: "mailgun", status: 400, body: formBody + "&subject="[:0] + "&h:X-A=a%0D%0ABcc:%20b%40example.org"},
		{name: "file name", provider: "resend", status: 422, body: with("resend", `"attachments":[{"filename":"a\r\nb","content":"aGk="}]`)},
		{name: "after substitution", provider: "sendgrid", status: 400, answer: []string{`"field":"subject"`}, body: with("sendgrid", `"subject":"Hi {{n}}","personalizations":[{"to":[{"email":"a@example.org"}],"substitutions":{"{{n}}":"x\r\nBcc: b@example.org"}}]`)},
		{name: "after substitution", provider: "brevo", status: 400, body: with("brevo", `"subject":"Hi {{params.n}}","params":{"n":"x\nBcc: b@example.org"}`)},
		{name: "after substitution", provider: "mailersend", status: 422, body: with("mailersend", `"subject":"Hi {{ n }}","personalization":[{"email":"ana@example.org","data":{"n":"x\r\ny"}}]`)},
	})
}

// TestProvidersHeader: fields that stand elsewhere in the request, too.
func TestProvidersHeader(t *testing.T) {
	has := func(name, want string) func(*testing.T, queue.Submission, mail.Header) {
		return func(t *testing.T, _ queue.Submission, h mail.Header) {
			if got := strings.Join(h[name], "|"); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
	}
	runCases(t, []providerCase{
		{name: "Reply-To alone", provider: "resend", check: has("Reply-To", "Help <help@example.com>"), body: with("resend", `"headers":{"Reply-To":"Help <help@example.com>"}`)},
		{name: "Reply-To twice", provider: "resend", check: has("Reply-To", "a@example.com"), body: with("resend", `"reply_to":"a@example.com","headers":{"Reply-To":"b@example.com"}`)},
		{name: "Sender", provider: "mailgun", check: has("Sender", "Office <office@example.com>"), body: formBody + "&h:Sender=Office+%3Coffice%40example.com%3E"},
		{name: "Content-Type", provider: "resend", check: has("X-A", "b"), body: with("resend", `"headers":{"Content-Type":"x","MIME-Version":"2","Return-Path":"x","X-A":"b"}`)},
		{name: "References without brackets", provider: "mailersend", check: has("References", "<a@x> <b@y> <c@z>"), body: with("mailersend", `"references":["a@x"," b@y  <c@z>"],"in_reply_to":"b@y"`)},
		{name: "In-Reply-To without brackets", provider: "mailersend", check: has("In-Reply-To", "<b@y>"), body: with("mailersend", `"in_reply_to":" b@y"`)},
		{name: "In-Reply-To of no id", provider: "mailersend", check: has("In-Reply-To", "your mail of <b@y> today"), body: with("mailersend", `"in_reply_to":"your mail of <b@y> today"`)},
		{name: "References", provider: "mailersend", check: has("References", "<a@x> <b@y>"), body: with("mailersend", `"references":["<a@x>","<b@y>"],"in_reply_to":"<b@y>"`)},
		{name: "Precedence", provider: "mailersend", check: has("Precedence", "bulk"), body: with("mailersend", `"precedence_bulk":true`)},
		{name: "overridden", provider: "sendgrid", check: has("X-A", "2"), body: with("sendgrid", `"headers":{"X-A":"1"},"personalizations":[{"to":[{"email":"a@example.org"}],"headers":{"x-a":"2"}}]`)},
		{name: "Bcc", provider: "resend", status: 422, body: with("resend", `"headers":{"Bcc":"spy@example.org"}`)},
	})
}

// TestProvidersAttach: three encodings of content, content ids and types.
func TestProvidersAttach(t *testing.T) {
	content := func(want string, inline bool) func(*testing.T, queue.Submission, mail.Header) {
		return func(t *testing.T, sub queue.Submission, _ mail.Header) {
			if !bytes.Contains(sub.Content.Data, []byte(base64.StdEncoding.EncodeToString([]byte(want)))) {
				t.Errorf("%q is not attached:\n%s", want, sub.Content.Data)
			}
			if got := bytes.Contains(sub.Content.Data, []byte("Content-Disposition: inline")); got != inline {
				t.Errorf("inline = %v, want %v:\n%s", got, inline, sub.Content.Data)
			}
		}
	}
	resendFile := func(content, more string) string {
		return with("resend", `"html":"<img src='cid:logo'>","attachments":[{"filename":"a.png","content":`+content+more+`}]`)
	}
	runCases(t, []providerCase{
		{name: "base64", provider: "resend", check: content("hello", false), body: resendFile(`"aGVs\r\nbG8="`, "")},
		{name: "Buffer", provider: "resend", check: content("hello", false), body: resendFile(`{"type":"Buffer","data":[104,101,108,108,111]}`, "")},
		{name: "numbers", provider: "resend", check: content("hello", false), body: resendFile(`[104,101,108,108,111]`, "")},
		{name: "octet out of range", provider: "resend", status: 422, answer: []string{"invalid_attachment"}, body: resendFile(`[256]`, "")},
		{name: "fraction", provider: "resend", status: 422, body: resendFile(`[1.5]`, "")},
		{name: "another object", provider: "resend", status: 422, body: resendFile(`{"type":"File","data":[1]}`, "")},
		{name: "truncated base64", provider: "resend", status: 422, body: resendFile(`"aGVsbG8"`, "")},
		{name: "no content", provider: "resend", status: 422, body: resendFile(`null`, "")},
		{name: "referred to", provider: "resend", check: content("hello", true), body: resendFile(`"aGVsbG8="`, `,"content_id":"logo"`)},
		{name: "not referred to", provider: "resend", check: content("hello", false), body: resendFile(`"aGVsbG8="`, `,"content_id":"other"`)},
		{name: "id on every file", provider: "postmark", check: content("hello", false), body: with("postmark", `"Attachments":[{"Name":"März 1.pdf","Content":"aGVsbG8=","ContentType":"application/pdf","ContentId":"März 1.pdf"}]`)},
		{name: "cid:", provider: "postmark", check: content("hello", true), body: with("postmark", `"HtmlBody":"x","Attachments":[{"Name":"a.png","Content":"aGVsbG8=","ContentType":"image/png","ContentID":"cid:a.png"}]`)},
		{name: "contentId", provider: "sendgrid", check: content("hello", true), body: with("sendgrid", `"content":[{"type":"text/html","value":"<p>"}],"attachments":[{"content":"aGVsbG8=","filename":"a.png","contentId":"a","disposition":"inline"}]`)},
		{name: "bad base64", provider: "sendgrid", status: 400, answer: []string{`"field":"attachments.0.content"`}, body: with("sendgrid", `"attachments":[{"content":"!","filename":"a.png"}]`)},
		{name: "bad base64", provider: "mailersend", status: 422, answer: []string{`"attachments.0.content":[`}, body: with("mailersend", `"attachments":[{"content":"!","filename":"a.png"}]`)},
		{name: "URL", provider: "resend", status: 422, answer: []string{"invalid_attachment", "path"}, body: with("resend", `"attachments":[{"path":"http://169.254.169.254/","filename":"a"}]`)},
		{name: "URL", provider: "brevo", status: 400, answer: []string{"attachment.0.url"}, body: with("brevo", `"attachment":[{"url":"http://169.254.169.254/","name":"a"}]`)},
		{name: "type by name", provider: "mailersend", body: with("mailersend", `"attachments":[{"content":"aGVsbG8=","filename":"a.pdf"}]`), check: func(t *testing.T, sub queue.Submission, _ mail.Header) {
			if !bytes.Contains(sub.Content.Data, []byte("Content-Type: application/pdf")) {
				t.Errorf("no application/pdf:\n%s", sub.Content.Data)
			}
		}},
		{name: "name as id", provider: "brevo", body: with("brevo", `"htmlContent":"<img src=\"cid:mein logo.png\">","attachment":[{"content":"aGVsbG8=","name":"mein logo.png"}]`), check: func(t *testing.T, sub queue.Submission, _ mail.Header) {
			const id = "e97d1835c91d1b97abb35ff3@inline" // a digest of the name
			if !bytes.Contains(sub.Content.Data, []byte("Content-Id: <"+id+">")) || !bytes.Contains(sub.Content.Data, []byte("cid:"+id)) {
				t.Errorf("no content id that may stand in a message:\n%s", sub.Content.Data)
			}
		}},
	})
}

// TestProvidersRefuse what would change who gets what and when.
func TestProvidersRefuse(t *testing.T) {
	future := strconv.FormatInt(time.Now().Add(80*time.Hour).Unix(), 10)
	runCases(t, []providerCase{
		{name: "template", provider: "sendgrid", status: 400, answer: []string{`"field":"template_id"`}, body: with("sendgrid", `"template_id":"d-1"`)},
		{name: "template", provider: "resend", status: 422, body: with("resend", `"template":{"id":"x"}`)},
		{name: "template", provider: "mailersend", status: 422, answer: []string{`"template_id":[`}, body: with("mailersend", `"template_id":"x"`)},
		{name: "template", provider: "brevo", status: 400, body: with("brevo", `"templateId":1`)},
		{name: "template", provider: "mailgun", status: 400, body: formBody + "&template=x"},
		{name: "template", provider: "ses", status: 400, body: with("ses", `"Content":{"Template":{"TemplateName":"x"}}`)},
		{name: "optimized time", provider: "mailgun", status: 400, body: formBody + "&o:deliverytime-optimize-period=24h"},
		{name: "unknown parameter", provider: "mailgun", status: 400, body: formBody + "&o:new=1"},
		{name: "two subjects", provider: "mailgun", status: 400, body: formBody + "&subject=b"},
		{name: "too far ahead", provider: "sendgrid", status: 400, answer: []string{`"field":"send_at"`}, body: with("sendgrid", `"send_at":`+future)},
		{name: "too far ahead", provider: "mailersend", status: 422, answer: []string{`"send_at":[`}, body: with("mailersend", `"send_at":"`+future+`"`)},
		{name: "time in words", provider: "resend", status: 422, body: with("resend", `"scheduled_at":"tomorrow at noon"`)},
		{name: "other content", provider: "sendgrid", status: 400, answer: []string{`"field":"content.0.type"`}, body: with("sendgrid", `"content":[{"type":"text/x-amp-html","value":"x"}]`)},
		{name: "empty content", provider: "sendgrid", status: 400, answer: []string{`"field":"content.0.value"`}, body: with("sendgrid", `"content":[{"type":"text/plain","value":""}]`)},
		{name: "no subject", provider: "sendgrid", status: 400, answer: []string{`"field":"subject"`}, body: with("sendgrid", `"subject":""`)},
		{name: "no personalization", provider: "sendgrid", status: 400, answer: []string{"at least one personalization"}, body: with("sendgrid", `"personalizations":[]`)},
		{name: "address twice", provider: "sendgrid", status: 400, answer: []string{"unique between to, cc, and bcc"}, body: with("sendgrid", `"personalizations":[{"to":[{"email":"a@example.org"}],"bcc":[{"email":"A@example.org"}]}]`)},
		{name: "hidden copy", provider: "sendgrid", status: 400, answer: []string{`"field":"mail_settings.bcc.enable"`}, body: with("sendgrid", `"mail_settings":{"bcc":{"enable":true,"email":"spy@example.org"}}`)},
		{name: "1001 recipients", provider: "sendgrid", status: 400, answer: []string{"limit of 1000"}, body: with("sendgrid", `"personalizations":[{"to":[`+repeatPeople(1001)+`]}]`)},
		{name: "recipient", provider: "postmark", status: 422, answer: []string{`"Message":"The 'Cc' address is not valid: `}, body: with("postmark", `"Cc":"x"`)},
		{name: "51 recipients", provider: "postmark", status: 422, answer: []string{`"ErrorCode":300`}, body: with("postmark", `"To":"`+repeatAddresses(51)+`"`)},
		{name: "51 recipients", provider: "mailersend", status: 422, answer: []string{`"to":[`}, body: with("mailersend", `"to":[`+repeatPeople(51)+`]`)},
		{name: "51 recipients", provider: "resend", status: 422, body: with("resend", `"to":"`+repeatAddresses(51)+`"`)},
		{name: "1001 recipients", provider: "mailgun", status: 400, body: strings.Replace(formBody, "ana%40example.org", repeatAddresses(1001), 1)},
		{name: "conditions", provider: "mailersend", status: 422, answer: []string{`"text":[`}, body: with("mailersend", `"text":"{% if a %}","personalization":[{"email":"ana@example.org","data":{"a":1}}]`)},
		{name: "personal copies", provider: "mailersend", status: 422, body: with("mailersend", `"to":[`+repeatPeople(2)+`],"cc":[{"email":"c@example.org"}],"personalization":[{"email":"ana@example.org","data":{"a":1}}]`)},
		{name: "sandbox", provider: "sendgrid", status: 200, body: with("sendgrid", `"mail_settings":{"sandbox_mode":{"enable":true}}`)},
		{name: "sandbox of what is wrong", provider: "sendgrid", status: 400, body: with("sendgrid", `"from":{"email":"x"},"mail_settings":{"sandbox_mode":{"enable":true}}`)},
		{name: "sandbox", provider: "brevo", body: with("brevo", `"headers":{"X-Sib-Sandbox":"drop"}`)},
		{name: "test mode", provider: "mailgun", answer: []string{"Queued. Thank you."}, body: formBody + "&o:testmode=yes"},
	})
}

func repeatPeople(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"email":"r%d@example.org"}`, i)
	}
	return strings.Join(list, ",")
}

func repeatAddresses(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("r%d@example.org", i)
	}
	return strings.Join(list, ",")
}

// TestProvidersSchedule: what is past goes at once, what is to come waits, and
// without a queue nothing can wait.
func TestProvidersSchedule(t *testing.T) {
	soon := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	bodies := map[string]func(at time.Time) string{
		"sendgrid":   func(at time.Time) string { return with("sendgrid", fmt.Sprintf(`"send_at":%d`, at.Unix())) },
		"mailersend": func(at time.Time) string { return with("mailersend", fmt.Sprintf(`"send_at":"%d"`, at.Unix())) },
		"resend":     func(at time.Time) string { return with("resend", `"scheduled_at":"`+at.Format(time.RFC3339)+`"`) },
		"brevo":      func(at time.Time) string { return with("brevo", `"scheduledAt":"`+at.Format(time.RFC3339)+`"`) },
		"mailgun": func(at time.Time) string {
			return formBody + "&o:deliverytime=" + strings.ReplaceAll(at.Format("Mon, 02 Jan 2006 15:04:05 -0700"), "+", "%2B")
		},
	}
	for name, body := range bodies {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, nil)
		for i, at := range []time.Time{soon, soon.Add(-24 * time.Hour)} {
			if r := try(t, s, name, body(at)); r.status != apis[name].status {
				t.Errorf("%s: at %v = %d %s", name, at, r.status, text(r))
				continue
			}
			want := []time.Time{soon, {}}[i]
			if got := q.submissions()[i].SendAt; !got.Equal(want) {
				t.Errorf("%s: at %v is sent at %v, want %v", name, at, got, want)
			}
			wantDate(t, name, q.submissions()[i], want)
		}
		none := &fakeQueue{receipt: judged([]queue.State{queue.Delivered}, nil)}
		if r := try(t, newTestServer(t, none, nil), name, body(soon)); r.status < 400 || r.status >= 500 || len(none.got) > 0 {
			t.Errorf("%s: later without a queue = %d", name, r.status)
		}
	}
}

// TestScheduleForms: a schedule is taken in the forms that the provider's text names, and
// refused in others with its field.
func TestScheduleForms(t *testing.T) {
	at := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	forms := map[string]string{
		"RFC 3339": at.Format(time.RFC3339), "with milliseconds": at.Format("2006-01-02T15:04:05.000Z07:00"), "with a zone": at.In(time.FixedZone("", 7200)).Format(time.RFC3339),
		"in lower case": strings.ToLower(at.Format(time.RFC3339)), "with a blank": at.Format("2006-01-02 15:04:05Z07:00"), "zone without colon": at.In(time.FixedZone("", 7200)).Format("2006-01-02T15:04:05-0700"),
		"from now on": "in 2 hours", "seconds": strconv.FormatInt(at.Unix(), 10), "RFC 2822": at.Format(time.RFC1123Z), "words": "tomorrow at noon", "a day": at.Format(time.DateOnly), "no zone": at.Format("2006-01-02T15:04:05"),
	}
	strict := []string{"RFC 3339", "with milliseconds", "with a zone", "in lower case"}
	for name, tt := range map[string]struct {
		field string
		body  func(text string) string
		taken []string
	}{
		"brevo":      {"scheduledAt", func(text string) string { return with("brevo", `"scheduledAt":"`+text+`"`) }, strict},
		"resend":     {"scheduled_at", func(text string) string { return with("resend", `"scheduled_at":"`+text+`"`) }, append(strict, "with a blank", "zone without colon", "from now on")},
		"sendgrid":   {"send_at", func(text string) string { return with("sendgrid", `"send_at":"`+text+`"`) }, []string{"seconds"}},
		"mailersend": {"send_at", func(text string) string { return with("mailersend", `"send_at":"`+text+`"`) }, []string{"seconds"}},
		"mailgun":    {"o:deliverytime", func(text string) string { return formBody + "&o:deliverytime=" + url.QueryEscape(text) }, []string{"RFC 2822", "seconds"}},
	} {
		for form, text := range forms {
			q := &fakeQueue{durable: true}
			r := try(t, newTestServer(t, q, nil), name, tt.body(text))
			taken := r.status == apis[name].status
			switch got := q.submissions(); {
			case taken != slices.Contains(tt.taken, form):
				t.Errorf("%s: %s %q = %d %s, want it taken: %v", name, form, text, r.status, r.body, !taken)
			case taken && got[0].SendAt.Sub(at).Abs() > 5*time.Second:
				t.Errorf("%s: %s %q is sent at %v, want %v", name, form, text, got[0].SendAt, at)
			case !taken && !strings.Contains(string(r.body), tt.field):
				t.Errorf("%s: %s %q = %s, want %s named", name, form, text, r.body, tt.field)
			}
		}
	}
}

// TestProvidersTag: tags and metadata are kept where messages can be found by
// them.
func TestProvidersTag(t *testing.T) {
	tags := func(want map[string]string) func(*testing.T, queue.Submission, mail.Header) {
		return func(t *testing.T, sub queue.Submission, _ mail.Header) {
			if fmt.Sprint(sub.Tags) != fmt.Sprint(want) {
				t.Errorf("tags = %v, want %v", sub.Tags, want)
			}
		}
	}
	runCases(t, []providerCase{
		{name: "tags", provider: "sendgrid", check: tags(map[string]string{"order": "order", "n": "42"}), body: with("sendgrid", `"categories":["order"],"custom_args":{"n":"41"},"personalizations":[{"to":[{"email":"a@example.org"}],"custom_args":{"n":42}}]`)},
		{name: "tags", provider: "postmark", check: tags(map[string]string{"Your_order": "Your order", "n": "42"}), body: with("postmark", `"Tag":"Your order","Metadata":{"n":"42"}`)},
		{name: "tags", provider: "resend", check: tags(map[string]string{"n": "42"}), body: with("resend", `"tags":[{"name":"n","value":"42"}]`)},
		{name: "tags", provider: "mailgun", check: tags(map[string]string{"a": "a", "b": "b", "n": "42"}), body: formBody + "&o:tag=a&o:tag=b&v:n=42"},
		{name: "tags", provider: "mailersend", check: tags(map[string]string{"a": "a"}), body: with("mailersend", `"tags":["a"]`)},
		{name: "tags", provider: "brevo", check: tags(map[string]string{"a": "a"}), body: with("brevo", `"tags":["a"]`)},
		{name: "tags", provider: "ses", check: tags(map[string]string{"n": "42"}), body: with("ses", `"EmailTags":[{"Name":"n","Value":"42"}]`)},
	})
}

// TestProvidersSubstitute: literally, once, and a message for each recipient.
func TestProvidersSubstitute(t *testing.T) {
	for _, tc := range []struct{ provider, body, want string }{
		{
			"sendgrid", with("sendgrid", `"subject":"-n- -name- [s]","sections":{"S":"$&"},"personalizations":[
			{"to":[{"email":"a@example.org"}],"substitutions":{"-n-":"1","-name-":"-n-","[s]":"S"}},{"to":[{"email":"b@example.org"}],"subject":"own"}]`),
			"a@example.org: 1 -n- $&; b@example.org: own",
		},
		{"mailgun", formBody + "&to=B+%3Cb%40example.org%3E&recipient-variables=" + strings.ReplaceAll(`{"ana@example.org":{"n":1},"b@example.org":{"n":"%recipient%"}}`, "%", "%25") +
			"&h:X-A=%25recipient.n%25", "ana@example.org: Hi; b@example.org: Hi"},
		{
			"mailersend", with("mailersend", `"subject":"{{n}} {{ o.i }} {{ x }} {$v}","to":[{"email":"a@example.org"},{"email":"b@example.org"}],
			"personalization":[{"email":"a@example.org","data":{"n":"$1","o":{"i":7}}}],"variables":[{"email":"B@example.org","substitutions":[{"var":"v","value":"old"}]}]`),
			"a@example.org: $1 7 {{ x }} {$v}; b@example.org: {{n}} {{ o.i }} {{ x }} old",
		},
		{
			"brevo", with("brevo", `"to":null,"subject":"{{params.n}} {{ params.m }}","params":{"n":"all","m":"M"},
			"messageVersions":[{"to":[{"email":"a@example.org"}],"params":{"n":"A"}},{"to":[{"email":"b@example.org"}]}]`),
			"a@example.org: A M; b@example.org: all M",
		},
		{"mailgun", formBody + "&to=b%40example.org&recipient-variables={}", "ana@example.org: Hi; b@example.org: Hi"},
	} {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, nil)
		r := try(t, s, tc.provider, tc.body)
		if r.status != apis[tc.provider].status {
			t.Errorf("%s = %d %s", tc.provider, r.status, text(r))
		}
		var got []string
		for _, sub := range q.submissions() {
			got = append(got, strings.Join(sub.Envelope.ForwardPaths, ",")+": "+sub.Subject)
		}
		if strings.Join(got, "; ") != tc.want || !q.batch {
			t.Errorf("%s sent %q, want %q in one commit", tc.provider, strings.Join(got, "; "), tc.want)
		}
		none := &fakeQueue{}
		if r := try(t, newTestServer(t, none, nil), tc.provider, tc.body); r.status < 400 || len(none.got) > 0 {
			t.Errorf("%s: several messages without a queue = %d", tc.provider, r.status)
		}
	}
}

// TestProvidersBound: a small request cannot make a large one of itself.
func TestProvidersBound(t *testing.T) {
	large := strings.Repeat("x", 100<<10)
	names := func(name string) string { return strings.Repeat(name, 20_000) }
	members := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"X-%d":"v"`, i)
		}
		return "{" + strings.Join(list, ",") + "}"
	}
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	file := `{"filename":"a","content":"aGk="},`
	for _, tc := range []struct {
		name, provider, body string
		status               int
	}{
		{"value", "sendgrid", with("sendgrid", `"content":[{"type":"text/html","value":"`+names("-a-")+`"}],"personalizations":[{"to":[{"email":"a@example.org"}],"substitutions":{"-a-":"`+large+`"}}]`), 413},
		{"section", "sendgrid", with("sendgrid", `"sections":{"S":"`+large+`"},"personalizations":[{"to":[{"email":"a@example.org"}],"substitutions":{"-a-":"`+names("S")+`"}}]`), 413},
		{"value", "mailersend", with("mailersend", `"text":"`+names("{{a}}")+`","personalization":[{"email":"ana@example.org","data":{"a":"`+large+`"}}]`), 413},
		{"value", "brevo", with("brevo", `"textContent":"`+names("{{params.a}}")+`","params":{"a":"`+large+`"}`), 413},
		{"value", "mailgun", strings.Replace(formBody, "text=Hello", "text="+names("%25recipient.a%25"), 1) + `&recipient-variables={"ana@example.org":{"a":"` + large + `"}}`, 413},
		{"header fields", "sendgrid", with("sendgrid", `"headers":`+members(1001)), 400},
		{"deep names", "brevo", with("brevo", `"params":`+deep(2000)), 400},
		{"values", "brevo", with("brevo", `"params":`+members(10_002)), 400},
		{"files", "resend", with("resend", `"attachments":[`+strings.TrimSuffix(strings.Repeat(file, 501), ",")+`]`), 422},
	} {
		q := &fakeQueue{durable: true}
		srv := newTestServer(t, q, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := try(t, srv, tc.provider, tc.body)
		runtime.ReadMemStats(&after)
		if a.status != tc.status || len(q.got) > 0 {
			t.Errorf("%s: %s = %d %.200s, want %d", tc.provider, tc.name, a.status, a.body, tc.status)
		}
		// Written out, each of these is 2 GB.
		if used := after.TotalAlloc - before.TotalAlloc; used > 400<<20 {
			t.Errorf("%s: %s allocated %d bytes for a body of %d", tc.provider, tc.name, used, len(tc.body))
		}
	}
}

// postmarkResult is that of one message of a batch; code 0 is success.
type postmarkResult struct {
	ErrorCode int
	Message   string
}

// TestPostmarkBatchFailed: a message that the relay did not take is no success
// in the results, whatever the reason.
func TestPostmarkBatchFailed(t *testing.T) {
	for class, want := range map[mailer.Class]int{
		mailer.ClassPermanent: 300, mailer.ClassTransient: 100, mailer.ClassUncertain: 100,
	} {
		r := apis["postmark"].request("postmark", strings.NewReader("["+apis["postmark"].body+"]"))
		r.URL.Path = "/email/batch"
		results := read[[]postmarkResult](t, serve(newTestServer(t, failed(class), nil), r))
		if len(results) != 1 || results[0].ErrorCode != want || results[0].Message == "" {
			t.Errorf("batch after a failure of class %v = %+v, want code %d", class, results, want)
		}
	}
}

// refusesSecond takes the first message only.
type refusesSecond struct {
	*fakeQueue
	calls int
}

func (q *refusesSecond) Submit(ctx context.Context, s queue.Submission) (queue.Receipt, error) {
	if q.calls++; q.calls > 1 {
		return queue.Receipt{}, queue.ErrNoRoute
	}
	return q.fakeQueue.Submit(ctx, s)
}

// TestPostmarkBatchLog: the access log has the id of the last message that has one.
func TestPostmarkBatchLog(t *testing.T) {
	var log bytes.Buffer
	q := &refusesSecond{fakeQueue: &fakeQueue{receipt: judged([]queue.State{queue.Delivered}, nil)}}
	s := newTestServer(t, q.fakeQueue, func(o *Options) { o.Logger, o.Submitter = logTo(&log), q })
	good := apis["postmark"].body
	r := apis["postmark"].request("postmark", strings.NewReader("["+good+","+good+"]"))
	r.URL.Path = "/email/batch"
	results := read[[]postmarkResult](t, serve(s, r))
	if len(results) != 2 || results[0].ErrorCode != 0 || results[1].ErrorCode == 0 {
		t.Errorf("results = %+v, want the first a success", results)
	}
	if want := `"id":"id-1"`; !strings.Contains(log.String(), want) {
		t.Errorf("log = %s, want %s in it", log.String(), want)
	}
}

// TestProviderStops: a request that goes on too long is given up.
func TestProviderStops(t *testing.T) {
	q := &fakeQueue{durable: true, block: make(chan struct{})}
	s := newTestServer(t, q, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := apis["resend"].request("resend", strings.NewReader(apis["resend"].body)).WithContext(ctx)
	if got := serve(s, r).status; got != 500 {
		t.Errorf("a client that went away is answered with %d", got)
	}
}
