package compat_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/compat/all"
	"mailsidecar/handler/compat/compattest"
	"mailsidecar/handler/problem"
)

// whole are requests that are right, with as many fields as go together. In
// TestFieldsOfRequest each of their values is made wrong in its turn.
var whole = []struct{ api, path, body string }{
	{"postmark", "/email", `{"From":"Shop <shop@example.com>","To":"ana@example.org","Cc":"b@example.org","Bcc":"c@example.org","ReplyTo":"r@example.org",
		"Subject":"Hi","TextBody":"Hello","HtmlBody":"<img src='cid:a.png'>","Headers":[` + headerList(`"Name"`, `"Value"`) + `],
		"Attachments":[{"Name":"a.png","Content":"aGk=","ContentType":"image/png","ContentID":"cid:a.png"},{"Name":"b.png","Content":"aGk=","ContentType":"image/png","ContentID":"cid:b.png"}]}`},
	{"postmark", "/email/batch", `[{"From":"shop@example.com","To":"ana@example.org","Subject":"Hi","TextBody":"Hello","Headers":[{"Name":"Reply-To","Value":"r@example.org"},{"Name":"Sender","Value":"s@example.org"}]}]`},
	{"resend", "/emails", `{"from":"Shop <shop@example.com>","to":["ana@example.org","d@example.org"],"cc":"b@example.org","bcc":["c@example.org"],"reply_to":["r@example.org"],
		"subject":"Hi","text":"Hello","html":"<img src='cid:a'><img src='cid:b'>","headers":{` + headerObject + `},"scheduled_at":"in 5 min",
		"attachments":[{"filename":"a.png","content":"aGk=","content_type":"image/png","content_id":"a"},{"filename":"b.png","content":"aGk=","inline_content_id":"b"}]}`},
	{"resend", "/emails/batch", `[{"from":"shop@example.com","to":["ana@example.org"],"subject":"Hi","text":"Hello"},
		{"from":"shop@example.com","to":["ana@example.org"],"subject":"Hi","text":"Hello","headers":{` + headerObject + `}}]`},
	{"sendgrid", "/v3/mail/send", `{"from":{"email":"shop@example.com","name":"Shop"},"reply_to":{"email":"r@example.org","name":"R"},"subject":"Hi","headers":{` + headerObject + `},
		"content":[{"type":"text/plain","value":"Hello"},{"type":"text/html","value":"<img src='cid:a'>"}],"send_at":` + soon + `,
		"personalizations":[{"to":[{"email":"a@example.org","name":"A"}],"cc":[{"email":"b@example.org"}],"bcc":[{"email":"c@example.org"}]},
			{"to":[{"email":"a@example.org"}],"from":{"email":"own@example.com","name":"Own"},"subject":"Own","headers":{"X-B":"b","x-a":"own","Comments":"c"},"send_at":` + soon + `}],
		"attachments":[{"filename":"a.png","content":"aGk=","type":"image/png","content_id":"a","disposition":"inline"},{"filename":"b.png","content":"aGk=","contentId":"b","disposition":"inline"}]}`},
	{"sendgrid", "/v3/mail/send", `{"from":{"email":"shop@example.com"},"subject":"Hi","content":[{"type":"text/plain","value":"Hello"}],"headers":{"X-A":"a"},
		"reply_to_list":[{"email":"r@example.org"},{"email":"q@example.org","name":"Q"}],"personalizations":[{"to":[{"email":"a@example.org"}],"headers":{` + headerObject + `}}]}`},
	{"sendgrid", "/v3/mail/send", `{"from":{"email":"shop@example.com"},"subject":"Hi","content":[{"type":"text/plain","value":"Hello"}],"headers":{` + headerObject + `},"personalizations":[{"to":[{"email":"a@example.org"}]}]}`},
	{"ses", "/v2/email/outbound-emails", `{"FromEmailAddress":"Shop <shop@example.com>","FeedbackForwardingEmailAddress":"f@example.com","ReplyToAddresses":["r@example.org","q@example.org"],
		"Destination":{"ToAddresses":["ana@example.org","d@example.org"],"CcAddresses":["b@example.org"],"BccAddresses":["c@example.org"]},
		"Content":{"Simple":{"Subject":{"Data":"Hi"},"Body":{"Text":{"Data":"Hello"},"Html":{"Data":"<p>"}},"Headers":[` + headerList(`"Name"`, `"Value"`) + `],
		"Attachments":[{"FileName":"a.png","RawContent":"aGk=","ContentType":"image/png","ContentId":"a","ContentDisposition":"INLINE"},{"FileName":"b.png","RawContent":"aGk=","ContentId":"b","ContentDisposition":"INLINE"}]}}}`},
	{"ses", "/v2/email/outbound-emails", `{"FromEmailAddress":"shop@example.com","Destination":{"ToAddresses":["ana@example.org"]},"Content":{"Simple":{"Subject":{"Data":"Hi"},"Body":{"Text":{"Data":"Hello"}},"Headers":[` + headerList(`"Name"`, `"Value"`) + `]}}}`},
	{"ses", "/v2/email/outbound-emails", `{"FromEmailAddress":"shop@example.com","FeedbackForwardingEmailAddress":"f@example.com","Destination":{"ToAddresses":["ana@example.org"],"CcAddresses":["c@example.org"]},"Content":{"Raw":{"Data":"` + finished + `"}}}`},
	{"mailersend", "/v1/email", `{"from":{"email":"shop@example.com","name":"Shop"},"to":[{"email":"ana@example.org","name":"Ana"},{"email":"d@example.org"}],"cc":[{"email":"b@example.org","name":"B"}],"bcc":[{"email":"c@example.org"}],
		"reply_to":{"email":"r@example.org","name":"R"},"subject":"Hi","text":"Hello","html":"<img src='cid:a'>","in_reply_to":"<a@b>","references":["<a@b>","<c@d>"],"list_unsubscribe":"<mailto:u@example.com>",
		"precedence_bulk":true,"send_at":` + soon + `,"headers":[{"name":"X-A","value":"a"},{"name":"Precedence","value":"list"},{"name":"In-Reply-To","value":"<x@y>"},{"name":"X-B","value":"b"}],
		"attachments":[{"filename":"a.png","content":"aGk=","type":"image/png","id":"a","disposition":"inline"},{"filename":"b.png","content":"aGk=","id":"b","disposition":"inline"}]}`},
	{"mailersend", "/v1/email", `{"from":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","text":"Hello","headers":[` + headerList(`"name"`, `"value"`) + `]}`},
	{"mailersend", "/v1/email", `{"from":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"},{"email":"b@example.org"}],"subject":"Hi","text":"Hello","variables":[{"email":"b@example.org","substitutions":[{"var":"v","value":"w"}]}]}`},
	{"mailersend", "/v1/bulk-email", `[{"from":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","text":"Hello"},
		{"from":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","text":"Hello","list_unsubscribe":"<mailto:u@example.com>","headers":[{"name":"X-A","value":"a"},{"name":"Reply-To","value":"r@example.org"}]}]`},
	{"brevo", "/v3/smtp/email", `{"sender":{"email":"shop@example.com","name":"Shop"},"to":[{"email":"ana@example.org","name":"Ana"}],"cc":[{"email":"b@example.org"}],"bcc":[{"email":"c@example.org"}],
		"replyTo":{"email":"r@example.org","name":"R"},"subject":"Hi","textContent":"Hello","htmlContent":"<img src='cid:a.png'>","headers":{` + headerObject + `,"idempotencyKey":"k"},
		"scheduledAt":"` + time.Now().Add(time.Hour).Format(time.RFC3339) + `","attachment":[{"name":"a.png","content":"aGk="},{"name":"b.png","content":"aGk="}]}`},
	{"brevo", "/v3/smtp/email", `{"sender":{"email":"shop@example.com"},"subject":"Hi","textContent":"Hello","headers":{"X-A":"a","Sender":"s@example.org"},"replyTo":{"email":"r@example.org"},
		"messageVersions":[{"to":[{"email":"a@example.org"}]},{"to":[{"email":"a@example.org","name":"A"}],"cc":[{"email":"b@example.org"}],"bcc":[{"email":"c@example.org"}],"replyTo":{"email":"own@example.org","name":"Own"},
			"subject":"Own","textContent":"Own","htmlContent":"<p>","headers":{"x-a":"own","X-B":"b"}}]}`},
	{"brevo", "/v3/smtp/email", `{"sender":{"email":"shop@example.com"},"to":[{"email":"ana@example.org"}],"subject":"Hi","textContent":"Hello","headers":{` + headerObject + `}}`},
}

var soon = strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)

var finished = base64.StdEncoding.EncodeToString([]byte("From: shop@example.com\r\nTo: ana@example.org\r\n\r\nHello\r\n"))

// headers are fields that a message may have once, or in one form.
var headers = []string{
	"X-A", "a", "Date", "Mon, 02 Jan 2006 15:04:05 +0100", "Message-ID", "<a@b>", "In-Reply-To", "<a@b>", "References", "<a@b>",
	"List-Unsubscribe", "<mailto:u@example.com>", "Reply-To", "r@example.org", "Sender", "s@example.org", "X[1]", "b",
}

func headerList(name, value string) string {
	var list []string
	for pair := range slices.Chunk(headers, 2) {
		list = append(list, fmt.Sprintf(`{%s:%q,%s:%q}`, name, pair[0], value, pair[1]))
	}
	return strings.Join(list, ",")
}

var headerObject = func() string {
	var list []string
	for pair := range slices.Chunk(headers, 2) {
		list = append(list, fmt.Sprintf("%q:%q", pair[0], pair[1]))
	}
	return strings.Join(list, ",")
}()

// wrong are values that some fields must not have.
var wrong = []any{
	"a\r\nb", "a\x00b", "x", "ü", "a..@", "a@example.org, b", strings.Repeat("x", 1100), "", nil,
	[]any{},
	[]any{1.0},
	map[string]any{"z": 1.0},
	1.0,
	base64.StdEncoding.EncodeToString([]byte("From: x\n\nx")), base64.StdEncoding.EncodeToString([]byte("From: a@b\nTo: x\n\nx")),
	base64.StdEncoding.EncodeToString([]byte("From: a@example.com\nX: " + strings.Repeat("x", 2000) + "\n\nx")), base64.StdEncoding.EncodeToString([]byte("x")),
}

// wrongNames are names that header fields must not have.
var wrongNames = []string{"X A", "Bcc", "Subject", "ü", strings.Repeat("X", 90)}

// place is where a value is in a request: names and numbers.
type place []any

func (p place) String() string {
	var b strings.Builder
	for _, step := range p {
		if n, ok := step.(int); ok {
			fmt.Fprintf(&b, "[%d]", n)
		} else {
			fmt.Fprintf(&b, ".%s", step)
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}

// eachPlace visits every value in v, and v itself.
func eachPlace(v any, at place, visit func(place)) {
	visit(at)
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			eachPlace(v[name], append(slices.Clone(at), name), visit)
		}
	case []any:
		for i := range v {
			eachPlace(v[i], append(slices.Clone(at), i), visit)
		}
	}
}

// changed returns v with what change makes of the value at a place.
func changed(v any, at place, change func(any) any) any {
	if len(at) == 0 {
		return change(v)
	}
	switch step := at[0].(type) {
	case int:
		list := slices.Clone(v.([]any))
		list[step] = changed(list[step], at[1:], change)
		return list
	default:
		object := maps.Clone(v.(map[string]any))
		object[step.(string)] = changed(object[step.(string)], at[1:], change)
		return object
	}
}

// names says whether the path is one of a value in v.
func names(v any, path string) bool {
	if path = strings.TrimPrefix(path, "."); path == "" {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if rest, found := strings.CutPrefix(path, name); found && (rest == "" || rest[0] == '.' || rest[0] == '[') && names(value, rest) {
				return true
			}
		}
	case []any:
		number, rest, found := strings.Cut(strings.TrimPrefix(path, "["), "]")
		n, err := strconv.Atoi(number)
		return found && err == nil && n < len(v) && names(v[n], rest)
	}
	return false
}

var index = regexp.MustCompile(`\[\d+\]`)

// related says whether one path leads to the other.
func related(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(a, b+"[") || strings.HasPrefix(b, a+".") || strings.HasPrefix(b, a+"[")
}

// watched returns the API and where it puts the problems that it answers with.
func watched(t *testing.T, name string) (*compat.API, *[]compat.Problem) {
	t.Helper()
	chosen, err := all.Choose([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	var problems []compat.Problem
	own := *chosen[0]
	answer := own.Answer
	own.Answer = func(p compat.Problem) (int, any) {
		problems = append(problems, p)
		return answer(p)
	}
	return &own, &problems
}

func authorize(r *http.Request, provider string) {
	switch provider {
	case "mailgun":
		r.SetBasicAuth("api", compattest.ShopSecret)
	case "ses":
		compattest.SignRequest(r, "shop", compattest.ShopSecret, time.Now())
	}
	r.Header.Set("Api-Key", compattest.ShopSecret)
	r.Header.Set("X-Postmark-Server-Token", compattest.ShopSecret)
	if r.Header.Get("Authorization") == "" {
		r.Header.Set("Authorization", "Bearer "+compattest.ShopSecret)
	}
}

// documented are the fields of a provider's requests, without places in lists.
func documented(a *compat.API) map[string]bool {
	names := map[string]bool{}
	for _, d := range a.Requests {
		for _, f := range compattest.Documented(d) {
			names[strings.ReplaceAll(f.Name, "[]", "")] = true
		}
	}
	return names
}

// TestFieldsOfRequest: whatever is wrong in a request, the answer names a field of that
// request, as the request spells it; or one of the provider's that is missing. What has
// a wrong value is named itself, or what it is a part of.
func TestFieldsOfRequest(t *testing.T) {
	for _, w := range whole {
		var request any
		if err := json.Unmarshal([]byte(w.body), &request); err != nil {
			t.Fatalf("%v in %s", err, w.body)
		}
		c := fieldCase{t: t, provider: w.api, path: w.path, said: map[string]bool{}}
		c.api, c.problems = watched(t, w.api)
		c.documented = documented(c.api)
		if n := c.send(request); len(n) > 0 {
			t.Errorf("%s %s = %v, want it accepted", w.api, w.path, n)
		}
		eachPlace(request, nil, func(at place) {
			for _, value := range wrong {
				c.check(changed(request, at, func(any) any { return value }), at, value != "" && value != nil && !isEmptyList(value))
			}
			c.rename(request, at)
		})
		c.refused = errSender
		c.check(request, nil, false)
	}
}

// errSender is what the server says of a sender, with the native field.
var errSender = problem.New(api.CodeSenderNotAllowed, "", problem.At("from", "is not allowed"))

func isEmptyList(v any) bool {
	list, ok := v.([]any)
	return ok && len(list) == 0
}

type fieldCase struct {
	t              *testing.T
	provider, path string
	api            *compat.API
	problems       *[]compat.Problem
	said           map[string]bool
	documented     map[string]bool
	refused        error
}

// errorf reports a path once, for all values with which an answer names it.
func (c *fieldCase) errorf(path, format string, args ...any) {
	if c.said[path] {
		return
	}
	c.said[path] = true
	c.t.Errorf("%s %s: %s", c.provider, c.path, fmt.Sprintf(format, args...))
}

// send returns the fields that the answer names.
func (c *fieldCase) send(request any) (named []api.FieldError) {
	body, err := json.Marshal(request, json.Deterministic(true))
	if err != nil {
		c.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, c.path, strings.NewReader(string(body)))
	r.Header.Set("Content-Type", "application/json")
	authorize(r, c.provider)
	*c.problems = nil
	(&compattest.Desk{Refused: c.refused}).Serve(c.t, c.api, r)
	for _, p := range *c.problems {
		named = append(named, p.Fields...)
		if len(p.Fields) == 0 && p.Code == api.CodeInvalidMessage {
			c.errorf(p.Text, "the answer names no field: %s", p.Text)
		}
	}
	return named
}

// check sends a request in which the value at a place is wrong.
func (c *fieldCase) check(request any, at place, itself bool) {
	itself = itself && !isVariable(at)
	item := c.item(at)
	for _, f := range c.send(request) {
		if f == problem.More {
			continue
		}
		path := item + f.Field
		switch {
		case !names(request, path) && !c.isDocumented(f.Field):
			c.errorf(f.Field, "with another %s the answer names %q (%s), which is not in the request", at, f.Field, f.Message)
		case itself && len(at) > 0 && !related(path, at.String()):
			c.errorf(f.Field, "with a wrong %s the answer names %q (%s)", at, f.Field, f.Message)
		}
	}
}

// isDocumented says whether the provider's requests have such a field.
func (c *fieldCase) isDocumented(path string) bool {
	path = strings.TrimPrefix(index.ReplaceAllString(path, ""), ".")
	person := strings.TrimSuffix(strings.TrimSuffix(path, ".email"), ".name")
	return c.documented[path] || c.documented[person]
}

// item is the path of the message in a batch whose messages are answered one by one.
func (c *fieldCase) item(at place) string {
	if c.path == "/email/batch" && len(at) > 0 {
		return place{at[0]}.String() + "."
	}
	return ""
}

// isVariable says whether the value at a place is put into other fields.
func isVariable(at place) bool {
	return slices.ContainsFunc(at, func(step any) bool { return step == "variables" })
}

// rename gives the header field at a place other names.
func (c *fieldCase) rename(request any, at place) {
	if len(at) < 2 || at[len(at)-2] != "headers" {
		return
	}
	name, ok := at[len(at)-1].(string)
	if !ok {
		return // the name is a value, too
	}
	for _, other := range wrongNames {
		renamed := append(slices.Clone(at[:len(at)-1]), other)
		c.check(changed(request, at[:len(at)-1], func(v any) any {
			object := maps.Clone(v.(map[string]any))
			object[other] = object[name]
			delete(object, name)
			return object
		}), renamed, true)
	}
}

// TestFieldsOfForm is the same for Mailgun's forms.
func TestFieldsOfForm(t *testing.T) {
	own, problems := watched(t, "mailgun")
	message := "From: shop@example.com\nTo: ana@example.org\n\nHello\n"
	base := url.Values{"from": {"shop@example.com"}, "to": {"ana@example.org"}, "cc": {"b@example.org"}, "bcc": {"c@example.org"}, "subject": {"Hi"}, "text": {"Hello"}, "html": {"<p>"}, "o:deliverytime": {soon}}
	for pair := range slices.Chunk(headers, 2) {
		base.Set("h:"+pair[0], pair[1])
	}
	for _, w := range []struct {
		path string
		form url.Values
	}{{"/v3/mg.example.com/messages", base}, {"/v3/mg.example.com/messages.mime", url.Values{"to": {"ana@example.org"}, "MimeMessage": {message}}}} {
		send := func(form url.Values, wrong string, refused error) {
			r := httptest.NewRequest(http.MethodPost, w.path, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			authorize(r, "mailgun")
			*problems = nil
			(&compattest.Desk{Refused: refused}).Serve(t, own, r)
			for _, p := range *problems {
				for _, f := range p.Fields {
					missing := form.Get(f.Field) == "" && documented(own)[f.Field] || f.Field == ""
					if !form.Has(f.Field) && !missing || wrong != "" && f.Field != wrong {
						t.Errorf("%s: with another %s the answer names %q (%s)", w.path, wrong, f.Field, f.Message)
					}
				}
			}
		}
		send(w.form, "", nil)
		if len(*problems) > 0 {
			t.Errorf("%s = %v, want it accepted", w.path, *problems)
		}
		send(w.form, "", errSender)
		for name := range w.form {
			for _, value := range wrong {
				text, ok := value.(string)
				if !ok {
					continue
				}
				other := maps.Clone(w.form)
				other.Set(name, text)
				if text == "" {
					send(other, "", nil)
				} else {
					send(other, name, nil)
				}
			}
		}
		for _, raw := range []string{"x", "From: x\n\nx", "To: a@b.example\n\nx", "From: a@b\nX: a\x00b\n\nx", "From: a@example.com\nX: " + strings.Repeat("x", 2000) + "\n\nx"} {
			if w.form.Has("MimeMessage") {
				send(url.Values{"MimeMessage": {raw}, "to": {"a@example.org"}}, "MimeMessage", nil)
				send(url.Values{"MimeMessage": {raw}}, "", nil)
			}
		}
	}
}
