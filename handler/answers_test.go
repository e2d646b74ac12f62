package handler

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/api"
	"mailsidecar/handler/compat/compattest"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
)

// The files testdata/answers/*.txt hold what is answered, octet by octet:
// clients depend on the names of the members, and on which are left out.

// exchangeCase is a request to a server of its own.
type exchangeCase struct {
	name    string
	queue   *fakeQueue
	change  func(*Options)
	request *http.Request
}

// answerHeaders are the fields of an answer that a golden file shows.
var answerHeaders = []string{
	"Content-Type", "Location", "Retry-After", "Idempotency-Replayed", "Preference-Applied", "Www-Authenticate", "Accept",
	"X-Message-Id", "X-Amzn-Errortype",
}

func (tc exchangeCase) write(t *testing.T, b *strings.Builder) {
	q := tc.queue
	if q == nil {
		q = &fakeQueue{durable: true, receipt: pinnedReceipt}
	}
	tc.request.Header.Set("X-Request-Id", "golden")
	a := serve(newTestServer(t, q, tc.change), tc.request)
	if got := a.header.Get(api.HeaderOwn); got != "1" {
		t.Errorf("%s: the header %s is %q, want 1 in every answer", tc.name, api.HeaderOwn, got)
	}
	fmt.Fprintf(b, "# %s\n%d\n", tc.name, a.status)
	for _, name := range answerHeaders {
		for _, value := range a.header.Values(name) {
			fmt.Fprintf(b, "%s: %s\n", name, value)
		}
	}
	fmt.Fprintf(b, "%s\n", indented(a.body))
}

// madeID is an id that differs from run to run.
var madeID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// indented writes each member on a line of its own, in the order of the answer.
func indented(body []byte) []byte {
	v := jsontext.Value(body)
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		return body
	}
	return append(v, '\n')
}

func pinnedReceipt(s queue.Submission) queue.Receipt {
	m := fullStory()
	m.Recipients = nil
	for _, path := range s.Envelope.ForwardPaths {
		m.Recipients = append(m.Recipients, queue.Recipient{ForwardPath: path, State: queue.Queued})
	}
	return queue.Receipt{Message: m}
}

// fullStory has every member that a message can have, and every outcome.
func fullStory() queue.Message {
	m := story()
	at := m.Created
	m.Tags, m.SendAt, m.Expires = map[string]string{"order": "1042", "list": "news"}, at.Add(time.Hour), at.Add(120*time.Hour)
	m.Envelope.Priority = mailer.PriorityBulk
	delivered := mailer.Result{ForwardPath: "bob@example.org", Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued as 42"}}
	bounced := mailer.Result{ForwardPath: "eve@example.org", Failure: refusal(mailer.ClassPermanent, 550, "no <such> user \xff")}
	lost := mailer.Result{ForwardPath: "kim@example.org", Failure: refusal(mailer.ClassUncertain, 0, "")}
	for state, r := range map[queue.State]mailer.Result{queue.Delivered: delivered, queue.Bounced: bounced, queue.Held: lost} {
		m.Recipients = append(m.Recipients, queue.Recipient{ForwardPath: r.ForwardPath, State: state, Result: r})
		m.Envelope.ForwardPaths = append(m.Envelope.ForwardPaths, r.ForwardPath)
		m.Attempts[0].Results = append(m.Attempts[0].Results, r)
	}
	slices.SortFunc(m.Recipients, func(a, b queue.Recipient) int { return strings.Compare(a.ForwardPath, b.ForwardPath) })
	slices.Sort(m.Envelope.ForwardPaths)
	slices.SortFunc(m.Attempts[0].Results, func(a, b mailer.Result) int { return strings.Compare(a.ForwardPath, b.ForwardPath) })
	m.Attempts = append(m.Attempts, mailer.Attempt{Relay: "spare"})
	return m
}

// ending returns a message all of whose recipients came to this.
func ending(state queue.State, class mailer.Class) func(queue.Submission) queue.Receipt {
	return func(s queue.Submission) queue.Receipt {
		r := judged([]queue.State{state}, refusal(class, 451, "the relay's words"))(s)
		r.Message.MessageID = "<1@example.com>"
		return r
	}
}

func TestNativeAnswers(t *testing.T) {
	checkAnswers(t, "native", nativeExchanges)
}

// TestProblemAnswers pins what is said of each code.
func TestProblemAnswers(t *testing.T) {
	checkAnswers(t, "problems", func() (cases []exchangeCase) {
		for _, c := range problem.Codes() {
			cases = append(cases, exchangeCase{string(c), answering(problem.New(c, "")), nil, newRequest("POST", "/v1/messages", goodMessage)})
		}
		return cases
	})
}

func TestCompatAnswers(t *testing.T) {
	for name := range apis {
		checkAnswers(t, name, func() []exchangeCase { return providerExchanges(name) })
	}
}

// checkAnswers compares the answers to the requests that exchanges makes with a golden
// file. It is always 2000-01-01 then: some answers say how far off a time is, and some
// requests are signed with the time.
func checkAnswers(t *testing.T, name string, exchanges func() []exchangeCase) {
	t.Helper()
	var written strings.Builder
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range exchanges() {
			tc.write(t, &written)
		}
	})
	answers := madeID.ReplaceAllString(written.String(), "(id)")
	path := filepath.Join("testdata", "answers", name+".txt")
	if *compattest.Update {
		if err := os.WriteFile(path, []byte(answers), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, wanted := strings.Split(answers, "\n# "), strings.Split(string(want), "\n# ")
	for i, answer := range got {
		if i >= len(wanted) || answer != wanted[i] {
			t.Errorf("%s: answer %d is\n%s\nwant\n%s", path, i, answer, wanted[min(i, len(wanted)-1)])
		}
	}
	if len(got) != len(wanted) {
		t.Errorf("%s has %d answers, want %d", path, len(wanted), len(got))
	}
}

func nativeExchanges() []exchangeCase {
	post := func(body string, fields ...string) *http.Request {
		return newRequest("POST", "/v1/messages", body, fields...)
	}
	batch := func(items string) *http.Request {
		return newRequest("POST", "/v1/messages/batch", `{"messages":[`+items+`]}`)
	}
	durable := func(state queue.State, class mailer.Class) *fakeQueue {
		return &fakeQueue{durable: true, receipt: ending(state, class)}
	}
	full := func() *fakeQueue {
		return &fakeQueue{durable: true, message: fullStory(), page: queue.Page{Messages: []queue.Message{fullStory(), {ID: "id-2"}}, Next: "c2"}, retried: 17}
	}
	withRelays := func(o *Options) { o.Relays = pinnedRelays{} }
	return []exchangeCase{
		{"stored", nil, nil, post(goodMessage)},
		{"waited for, queued", nil, nil, post(goodMessage, "Prefer: wait=3")},
		{"waited for, delivered", &fakeQueue{durable: true, receipt: func(queue.Submission) queue.Receipt {
			m := fullStory()
			m.Recipients = m.Recipients[1:2]
			return queue.Receipt{Message: m, Replayed: true}
		}}, nil, post(goodMessage, "Prefer: wait=3", "Idempotency-Key: x")},
		{"waited for, bounced", durable(queue.Bounced, mailer.ClassPermanent), nil, post(goodMessage, "Prefer: wait=3")},
		{"waited for, expired", durable(queue.Expired, mailer.ClassTransient), nil, post(goodMessage, "Prefer: wait=3")},
		{"waited for, expired and uncertain", durable(queue.Expired, mailer.ClassUncertain), nil, post(goodMessage, "Prefer: wait=3")},
		{"waited for, canceled", durable(queue.Canceled, mailer.ClassTransient), nil, post(goodMessage, "Prefer: wait=3")},
		{"no queue, delivered", &fakeQueue{receipt: func(queue.Submission) queue.Receipt { return queue.Receipt{Message: fullStory()} }}, nil, post(goodMessage)},
		{"no queue, refused", &fakeQueue{receipt: ending(queue.Bounced, mailer.ClassPermanent)}, nil, post(goodMessage)},
		{"no queue, uncertain", &fakeQueue{receipt: ending(queue.Deferred, mailer.ClassUncertain)}, nil, post(goodMessage)},
		{"batch", nil, nil, batch(goodMessage + `,{"from":"x"},{"to":1},` + goodMessage)},
		{"batch of which nothing is right", nil, nil, batch(`{"from":"x"}`)},
		{"list", full(), nil, newRequest("GET", "/v1/messages", "")},
		{"empty list", stored(), nil, newRequest("GET", "/v1/messages", "")},
		{"message", full(), nil, newRequest("GET", "/v1/messages/id-1", "")},
		{"retry", full(), nil, newRequest("POST", "/v1/messages/id-1/retry", "")},
		{"cancel", full(), nil, newRequest("DELETE", "/v1/messages/id-1", "")},
		{"retry those that match", full(), nil, newRequest("POST", "/v1/messages/retry", `{"status":"failed"}`)},
		{"cancel those that match", full(), nil, newRequest("POST", "/v1/messages/cancel", `{"status":"queued","limit":17}`)},
		{"count those that would be retried", full(), nil, newRequest("POST", "/v1/messages/retry", `{"status":"failed","dry_run":true}`)},
		{"count", full(), nil, newRequest("GET", "/v1/messages/count?domain=example.org", "")},
		{"resend", full(), nil, newRequest("POST", "/v1/messages/id-1/resend", `{"to":"new@example.org"}`)},
		{"relays", nil, withRelays, newRequest("GET", "/v1/relays", "")},
		{"check of the relays", nil, withRelays, newRequest("POST", "/v1/relays/check", "")},
		{"wrong fields", nil, nil, post(wrongMessage)},
		{"wrong fields of a form", nil, nil, post(form("x", "name=from\nx", "name=to[]\na@example.org", "name=to[]\nb", "name=cc\nc\r\nd"), "Content-Type: multipart/form-data; boundary=x")},
		{"finished, wrong envelope", nil, nil, post("", "Content-Type: message/rfc822", "Envelope-From: x", "Envelope-To: a@example.org, y", "Envelope-Priority: z")},
		{"finished, wrong fields", nil, nil, post("From: shop\r\nTo: a@example.org, b\r\nCc: ü@x@y\r\n\r\nx", "Content-Type: message/rfc822")},
		{"finished, no recipient", nil, nil, post("From: shop@example.com\r\n\r\nx", "Content-Type: message/rfc822")},
		{"finished, no header", nil, nil, post("Hello", "Content-Type: message/rfc822")},
	}
}

// wrongMessage has something wrong in every field that a problem can name.
const wrongMessage = `{"from":{"email":"shop"},"to":["ana@example.org","x",{"email":"y"},{"name":"Ana"},{"email":"z@example.org","name":"a\nb"}],"cc":"c","bcc":{"email":"d"},
	"reply_to":["e","f\r\ng"],"subject":"a\r\nb","headers":{"X A":"1","Bcc":"x","Date":"today","X-B":"1\n2","Message-ID":"m"},
	"attachments":[{"filename":"a"},{"filename":"a\rb","content":"YQ==","content_type":"x","content_id":"y z"},{"content":"YQ=="}],
	"return_path":"r","tags":{"a b":"1","c":"\n"},"send_at":"tomorrow","expires_in":"x","priority":"urgent"}`

// pinnedRelays are those of fakeRelays, at a fixed time.
type pinnedRelays struct{}

func (pinnedRelays) Status() []RelayStatus {
	all := (&fakeRelays{}).Status()
	all[1].PausedUntil = time.Date(2030, 1, 31, 9, 0, 0, 0, time.FixedZone("", 3600))
	return all
}

func (pinnedRelays) Check(context.Context, string) []RelayReport {
	return []RelayReport{{Report: smtp.Report{Name: "a", OK: true, Addresses: []string{"192.0.2.1"}, Rungs: []smtp.RungCheck{{
		Port: 587, Mode: "starttls", TCP: "open", Address: "192.0.2.1:587", Auth: "paused", Mechanism: "PLAIN", NextLogin: nextTurn,
		TLS:     &smtp.TLSCheck{Version: "TLS 1.3", NotAfter: nextTurn, DaysLeft: 7},
		Failure: &smtp.CheckFailure{Stage: "auth", Class: "relay", Problem: "x", Code: 535, Enhanced: "5.7.8", Text: "no"},
	}}}, Advice: []api.Advice{{Ports: []int{587}, Found: "the relay refused the login."}}}, {Report: smtp.Report{Name: "b"}}}
}

// providerExchanges are good requests, those that every provider refuses in its
// own words, and those with something wrong in each field.
func providerExchanges(name string) []exchangeCase {
	api := apis[name]
	request := func(path, body string) *http.Request {
		r := api.request(name, strings.NewReader(body))
		if path != "" {
			r.URL.Path = path
			authorize(r, name, testKey) // where the path is signed
		}
		return r
	}
	cases := []exchangeCase{{"good", nil, nil, request("", api.body)}}
	for _, tc := range providerAnswers() {
		if tc.again {
			continue
		}
		r := request("", api.body)
		if tc.edit != nil {
			tc.edit(r, name)
		}
		cases = append(cases, exchangeCase{tc.name, tc.queue, tc.change, r})
	}
	for i, path := range otherPaths[name] {
		cases = append(cases, exchangeCase{fmt.Sprintf("path %d: %s", i, path), nil, nil, httptest.NewRequest(http.MethodGet, path, nil)})
	}
	return cases
}

var otherPaths = map[string][]string{
	"mailgun": {"/v3/x/messages", "/v3/x/messages.mime", "/v3/x/events"}, "postmark": {"/email/bulk", "/email/x"}, "resend": {"/emails/1/cancel"},
	"sendgrid": {"/v3/mail/batch"}, "ses": {"/v2/email/identities"}, "mailersend": {"/v1/email/x", "/v1/bulk-email/1"}, "brevo": {"/v3/smtp/x"},
}
