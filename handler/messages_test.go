package handler

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// form is the good message as a form, between boundaries.
func form(boundary string, parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		head, content, _ := strings.Cut(p, "\n")
		b.WriteString("--" + boundary + "\r\nContent-Disposition: form-data; " + strings.ReplaceAll(head, "|", "\r\n") + "\r\n\r\n" + content + "\r\n")
	}
	return b.String() + "--" + boundary + "--\r\n"
}

func decodeFormOf(s *Server, in []byte) (messageRequest, error) {
	share := otherShare(s)
	defer share.Close()
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(in))
	b, err := intake.Open(httptest.NewRecorder(), r, s.maxBody(), share, s.bodyTimeout)
	if err != nil {
		return messageRequest{}, err
	}
	return s.decodeForm(b, "x")
}

func TestPostJSON(t *testing.T) {
	q := &fakeQueue{durable: true}
	sendAt := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", message(
		`"cc":["ANA@example.org","bob@example.org"],"tags":{"order":"1042"},"send_at":"`+sendAt.Format(time.RFC3339)+`","expires_in":"1d12h","return_path":"bounce@example.com"`)))
	got := read[api.Receipt](t, response)
	if response.status != 202 || response.header.Get("Location") != "/v1/messages/id-1" || got.ID != "id-1" || got.Status != string(queue.StatusQueued) {
		t.Errorf("answer = %d %v %+v", response.status, response.header, got)
	}
	if response.header.Get("Preference-Applied") != "" || got.Recipients[0].Kind != "" {
		t.Errorf("an answer that did not wait has %q and outcome %q", response.header.Get("Preference-Applied"), got.Recipients[0].Outcome)
	}
	sub := q.submissions()[0]
	if sub.Key != "shop" || sub.Sender != "shop@example.com" || sub.Tags["order"] != "1042" || sub.ExpiresIn != 36*time.Hour || sub.Wait != 0 {
		t.Errorf("submission = %+v", sub)
	}
	if !sub.SendAt.Equal(sendAt) {
		t.Errorf("SendAt = %v, want %v", sub.SendAt, sendAt)
	}
	if sub.Envelope.ReversePath != "bounce@example.com" || !bytes.Contains(sub.Content.Data, []byte("From: ")) {
		t.Errorf("envelope = %+v, content %q", sub.Envelope, sub.Content.Data)
	}
}

func TestDefaultSender(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, func(o *Options) { o.From = "Shop <shop@example.net>" })
	for body, want := range map[string]string{`{"to":"a@example.org","text":"x"}`: "shop@example.net", goodMessage: "shop@example.com"} {
		q.got = nil
		if got := serve(s, newRequest("POST", "/v1/messages", body)).status; got != 202 || q.got[0].Sender != want {
			t.Errorf("%s = %d, sender %q, want %q", body, got, q.got[0].Sender, want)
		}
	}
	if _, err := New(Options{Submitter: q, From: "nobody"}); err == nil {
		t.Error("New() with an invalid From = nil, want an error")
	}
}

func TestPostForm(t *testing.T) {
	q := &fakeQueue{durable: true}
	body := form("x", "name=from\nShop <shop@example.com>", "name=to\nana@example.org", "name=\"to[]\"\nbob@example.org", "name=\"cc[7]\"\ncleo@example.org",
		"name=subject\nGrüße", "name=text; filename=body.txt\nHello", "name=html\n<img src=\"cid:logo.png\">", "name=\"headers[X-Order]\"\n1042", `name=tags`+"\n"+`{"order":"1042"}`,
		"name=inline; filename=logo.png|Content-Type: image/png\n\x89PNG", "name=attachments; filename*=utf-8''%C3%A4.bin|Content-Type: application/octet-stream\n\x00\x01\xff")
	response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", body, "Content-Type: multipart/form-data; boundary=x"))
	if response.status != 202 {
		t.Fatalf("answer = %d %+v", response.status, read[api.Problem](t, response))
	}
	sub := q.submissions()[0]
	if want := []string{"ana@example.org", "bob@example.org", "cleo@example.org"}; !slices.Equal(sub.Envelope.ForwardPaths, want) {
		t.Errorf("ForwardPaths = %v, want %v", sub.Envelope.ForwardPaths, want)
	}
	for _, want := range []string{"X-Order: 1042", "Content-ID: <logo.png>", base64.StdEncoding.EncodeToString([]byte("\x00\x01\xff"))} {
		if !strings.Contains(strings.ToLower(string(sub.Content.Data)), strings.ToLower(want)) {
			t.Errorf("%q is not in\n%s", want, sub.Content.Data)
		}
	}
	if sub.Tags["order"] != "1042" || sub.Subject != "Grüße" {
		t.Errorf("tags %v, subject %q", sub.Tags, sub.Subject)
	}
}

func TestBadForms(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxRecipients = 1 })
	for _, tc := range []struct {
		name  string
		parts []string
		code  api.Code
		field string
	}{
		{"unknown", []string{"name=prio\n1"}, api.CodeUnknownField, "prio"},
		{"wrong case", []string{"name=To\na"}, api.CodeUnknownField, "To"},
		{"list of a single", []string{"name=\"subject[]\"\na"}, api.CodeUnknownField, "subject[]"},
		{"twice", []string{"name=subject\na", "name=subject\nb"}, api.CodeDuplicateField, "subject"},
		{"header twice", []string{"name=\"headers[X-A]\"\na", "name=\"headers[X-A]\"\nb"}, api.CodeDuplicateField, "headers.X-A"},
		{"JSON, then member", []string{"name=headers\n{\"X-A\":\"1\"}", "name=\"headers[X-B]\"\nb"}, api.CodeDuplicateField, "headers"},
		{"member, then JSON", []string{"name=\"tags[a]\"\nb", "name=tags\n{\"x\":\"1\"}"}, api.CodeDuplicateField, "tags"},
		{"JSON of another type", []string{"name=headers\n{\"X-A\":1}"}, api.CodeWrongType, "headers.X-A"},
		{"no JSON", []string{"name=tags\n5"}, api.CodeWrongType, "tags"},
		{"file without a name", []string{"name=attachments\nx"}, api.CodeWrongType, "attachments"},
		{"no name", []string{"filename=x\nx"}, api.CodeMalformedForm, ""},
		{"invalid UTF-8", []string{"name=subject\n\xff"}, api.CodeMalformedForm, "subject"},
		{"charset", []string{"name=subject|Content-Type: text/plain; charset=latin1\na"}, api.CodeContentType, "subject"},
		{"encoding", []string{"name=attachments; filename=a|Content-Transfer-Encoding: base64\nYQ=="}, api.CodeMalformedForm, "attachments"},
		{"too many parts", slices.Repeat([]string{"name=to\na"}, formOverhead+2), api.CodeMalformedForm, ""},
	} {
		_, err := decodeFormOf(s, []byte(form("x", tc.parts...)))
		if err == nil {
			t.Errorf("%s: decodeForm() = nil, want %s", tc.name, tc.code)
			continue
		}
		p := problem.For(err)
		if p.Code != tc.code || tc.field != "" && (len(p.Fields) == 0 || p.Fields[0].Field != tc.field) {
			t.Errorf("%s: decodeForm() = %s %+v, want %s %s", tc.name, p.Code, p.Fields, tc.code, tc.field)
		}
	}
}

func TestPostFinished(t *testing.T) {
	const raw = "From: Shop <shop@example.com>\r\nTo: ana@example.org\r\nBcc: bob@example.org\r\nSubject: Hi\r\nDate: Thu, 31 Jan 2030 08:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nHello\r\n"
	for _, tc := range []struct {
		name   string
		fields []string
		want   mailer.Envelope
	}{
		{"its own", nil, mailer.Envelope{ReversePath: "shop@example.com", ForwardPaths: []string{"ana@example.org", "bob@example.org"}}},
		{"in the header", []string{"Envelope-From: bounce@example.com", "Envelope-To: x@example.org, y@example.org"}, mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: []string{"x@example.org", "y@example.org"}}},
		{"null reverse-path", []string{"Envelope-From: <>", "Envelope-To: x@example.org"}, mailer.Envelope{ForwardPaths: []string{"x@example.org"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := &fakeQueue{durable: true}
			r := newRequest("POST", "/v1/messages", raw, append(tc.fields, "Content-Type: message/rfc822")...)
			if response := serve(newTestServer(t, q, nil), r); response.status != 202 {
				t.Fatalf("answer = %d %+v", response.status, read[api.Problem](t, response))
			}
			sub := q.submissions()[0]
			if sub.Envelope.ReversePath != tc.want.ReversePath || !slices.Equal(sub.Envelope.ForwardPaths, tc.want.ForwardPaths) {
				t.Errorf("envelope = %+v, want %+v", sub.Envelope, tc.want)
			}
			if sub.Content.MessageID != "<1@example.com>" || bytes.Contains(sub.Content.Data, []byte("Bcc")) || sub.Sender != "shop@example.com" {
				t.Errorf("content = %q, sender %q", sub.Content.Data, sub.Sender)
			}
		})
	}
}

// TestVerdict: without a queue the answer is the relay's.
func TestVerdict(t *testing.T) {
	q := &fakeQueue{receipt: judged([]queue.State{queue.Delivered, queue.Bounced}, nil, refusal(mailer.ClassPermanent, 550, "no such user"))}
	response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", twoRecipients, "Prefer: wait=5"))
	got := read[api.Receipt](t, response)
	want := []api.Recipient{
		{Email: "ana@example.org", State: "delivered", Outcome: api.Outcome{Kind: "delivered", ReplyCode: 250, EnhancedCode: "2.0.0", Text: "queued as 42"}, Relay: "main", Port: 2525},
		{Email: "bob@example.org", State: "bounced", Outcome: api.Outcome{Kind: "bounced", Class: "permanent", Stage: "rcpt", ReplyCode: 550, EnhancedCode: "5.0.0", Text: "no such user"}, Relay: "main", Port: 2525},
	}
	if response.status != 200 || got.Status != string(queue.StatusPartial) || !slices.Equal(got.Recipients, want) {
		t.Errorf("answer = %d %+v, want 200 %+v", response.status, got, want)
	}
	if response.header.Get("Location") != "" || response.header.Get("Preference-Applied") != "" || q.submissions()[0].Wait != 0 {
		t.Errorf("header = %v: nothing is stored, and no wait applies", response.header)
	}
}

func TestPreferWait(t *testing.T) {
	deferred := refusal(mailer.ClassTransient, 450, "busy")
	uncertain := refusal(mailer.ClassUncertain, 0, "")
	for _, tc := range []struct {
		prefer   string
		state    queue.State
		failure  *mailer.Failure
		wait     time.Duration
		status   int
		replayed bool
	}{
		{"wait=10", queue.Delivered, nil, 10 * time.Second, 200, false},
		{"wait=10", queue.Delivered, nil, 10 * time.Second, 200, true},
		{"wait=10", queue.Deferred, deferred, 10 * time.Second, 202, false},
		{"wait=10", queue.Held, uncertain, 10 * time.Second, 202, false},
		{"wait=10", queue.Queued, nil, 10 * time.Second, 202, false},
		{"wait=600", queue.Delivered, nil, time.Minute, 200, false},
		{"respond-async, Wait = 5;x=y, wait=7", queue.Delivered, nil, 5 * time.Second, 200, false},
		{`wait="5"`, queue.Delivered, nil, 5 * time.Second, 200, false},
		{"wait=soon", queue.Delivered, nil, 0, 202, false},
		{"wait=-1", queue.Delivered, nil, 0, 202, false},
		{"wait=0", queue.Delivered, nil, 0, 202, false},
		{"", queue.Delivered, nil, 0, 202, true},
	} {
		receipt := judged([]queue.State{tc.state}, tc.failure)
		q := &fakeQueue{durable: true, receipt: func(s queue.Submission) queue.Receipt {
			r := receipt(s)
			r.Replayed = tc.replayed
			return r
		}}
		response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", goodMessage, "Prefer: "+tc.prefer))
		if got := q.submissions()[0].Wait; response.status != tc.status || got != tc.wait {
			t.Errorf("Prefer: %s, %s = %d, wait %v, want %d, %v", tc.prefer, tc.state, response.status, got, tc.status, tc.wait)
		}
		if got := response.header.Get("Preference-Applied"); (got != "") != (tc.wait > 0) || tc.wait == time.Minute && got != "wait=60" {
			t.Errorf("Prefer: %s: Preference-Applied = %q", tc.prefer, got)
		}
		if got := response.header.Get("Idempotency-Replayed"); (got == "true") != tc.replayed {
			t.Errorf("Idempotency-Replayed = %q, want it: %v", got, tc.replayed)
		}
	}
}

// TestFingerprint: what counts in a repeat is what the request says, not how it
// is written.
func TestFingerprint(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	digest := func(key, body string, fields ...string) (string, [32]byte) {
		t.Helper()
		q.got = nil
		response := serve(s, newRequest("POST", "/v1/messages", body, append(fields, "Idempotency-Key: "+key)...))
		if response.status != 202 {
			t.Fatalf("%s: %d %+v", body, response.status, read[api.Problem](t, response))
		}
		return q.got[0].IdempotencyKey, q.got[0].Fingerprint
	}
	key, first := digest("x", goodMessage)
	if key != "x" || first == [32]byte{} {
		t.Fatalf("key %q, fingerprint %x", key, first)
	}
	asForm := func(boundary string) string {
		return form(boundary, "name=text\nHello", "name=from\nShop <shop@example.com>", "name=to\nana@example.org", "name=subject\nHi")
	}
	const formType = "Content-Type: multipart/form-data; boundary="
	for name, same := range map[string][]string{
		"quoted key":       {`"x"`, goodMessage},
		"white space":      {"x", " " + strings.ReplaceAll(goodMessage, ",\"", " ,\n\"")},
		"escapes":          {"x", strings.ReplaceAll(goodMessage, "Hello", `\u0048ello`)},
		"form":             {"x", asForm("aaa"), formType + "aaa"},
		"another boundary": {"x", asForm("bbb"), formType + "bbb"},
	} {
		if key, got := digest(same[0], same[1], same[2:]...); key != "x" || got != first {
			t.Errorf("%s: key %q, another fingerprint: %v", name, key, got != first)
		}
	}
	const raw, rfc822 = "From: a@example.com\r\nTo: b@example.com\r\n\r\nx\r\n", "Content-Type: message/rfc822"
	seen := map[[32]byte]string{first: "first"}
	for name, other := range map[string][]string{
		"subject":       {strings.ReplaceAll(goodMessage, "Hi", "Ho")},
		"recipient":     {strings.ReplaceAll(goodMessage, "ana@", "bob@")},
		"cc instead":    {strings.ReplaceAll(goodMessage, `"to"`, `"cc"`)},
		"tags":          {message(`"tags":{"a":"1"}`)},
		"headers":       {message(`"headers":{"a":"1"}`)},
		"header order":  {message(`"headers":{"b":"2","a":"1"}`)},
		"header order2": {message(`"headers":{"a":"1","b":"2"}`)},
		"attachment":    {message(`"attachments":[{"filename":"a","content":"YQ=="}]`)},
		"finished":      {raw, rfc822},
		"envelope":      {raw, rfc822, "Envelope-To: c@example.com"},
		"reverse-path":  {raw, rfc822, "Envelope-From: <>"},
	} {
		_, got := digest("x", other[0], other[1:]...)
		if twin, ok := seen[got]; ok {
			t.Errorf("%s has the fingerprint of %s", name, twin)
		}
		seen[got] = name
	}
	_, one := digest("x", message(`"tags":{"a":"1","b":"2"}`))
	if _, two := digest("x", message(`"tags":{"b":"2","a":"1"}`)); one != two {
		t.Error("the order of tags counts")
	}
}

func TestBudget(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxInFlight = 1 << 20 })
	large := message(`"html":"` + strings.Repeat("x", 2<<20) + `"`)
	if got := serve(s, newRequest("POST", "/v1/messages", large)).status; got != 202 {
		t.Errorf("a request larger than the budget, alone = %d, want 202", got)
	}
	held := otherShare(s)
	held.Grow(100 << 10)
	for _, length := range []int64{int64(len(large)), -1} {
		r := newRequest("POST", "/v1/messages", large)
		r.ContentLength = length
		response := serve(s, r)
		if p := read[api.Problem](t, response); p.Code != api.CodeBusy || response.header.Get("Retry-After") != "1" {
			t.Errorf("Content-Length %d with the budget in use = %+v, want busy", length, p)
		}
	}
	held.Close()
	if !otherShare(s).Grow(1 << 20) {
		t.Error("requests kept a share of the budget after they were answered")
	}
}

func TestPostBatch(t *testing.T) {
	q := &fakeQueue{durable: true}
	body := `{"messages":[` + goodMessage + `,{"to":["nobody"],"text":"x","from":"a@example.com"},{"prio":1},` + goodMessage + `,` + message(`"subject":"a\nb"`) + `]}`
	response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages/batch", body, "Idempotency-Key: k"))
	type result struct {
		ID      string       `json:"id"`
		Problem *api.Problem `json:"problem"`
	}
	got := read[struct {
		Stored  int      `json:"stored"`
		Refused int      `json:"refused"`
		Results []result `json:"results"`
	}](t, response)
	if response.status != 202 || got.Stored != 2 || got.Refused != 3 || len(got.Results) != 5 {
		t.Fatalf("answer = %d %+v", response.status, got)
	}
	for i, want := range []string{"", "messages[1].to[0]", "messages[2].prio", "", "messages[4].subject"} {
		r := got.Results[i]
		if want == "" && (r.ID != "id-1" || r.Problem != nil) {
			t.Errorf("results[%d] = %+v, want a message", i, r)
		}
		if want != "" && (r.ID != "" || r.Problem == nil || r.Problem.Errors[0].Field != want) {
			t.Errorf("results[%d] = %+v, want a problem with %s", i, r, want)
		}
	}
	subs := q.submissions()
	if !q.batch || len(subs) != 2 || subs[0].IdempotencyKey != "k" || subs[1].IdempotencyKey != "k" || subs[0].Fingerprint != subs[1].Fingerprint || subs[0].Fingerprint == [32]byte{} {
		t.Errorf("submissions = %+v", subs)
	}
}

func TestBadBatches(t *testing.T) {
	for body, want := range map[string]api.Code{
		``: api.CodeMalformedJSON, `{`: api.CodeMalformedJSON, `{"messages":[`: api.CodeMalformedJSON, `{"messages":[{}`: api.CodeMalformedJSON,
		`{"messages":[{"to":1,}]}`: api.CodeMalformedJSON, `{"messages":[]}x`: api.CodeMalformedJSON, `{"messages":[]}{}`: api.CodeMalformedJSON,
		`[]`: api.CodeWrongType, `null`: api.CodeWrongType, `{"messages":{}}`: api.CodeWrongType, `{"messages":null}`: api.CodeWrongType, `{}`: api.CodeInvalidBatch,
		`{"Messages":[]}`: api.CodeUnknownField, `{"messages":[],"messages":[]}`: api.CodeDuplicateField,
		`{"messages":[{"to":"a","to":"b"}]}`: api.CodeDuplicateField, `{"messages":[5]}`: api.CodeInvalidBatch, `{"messages":[null]}`: api.CodeInvalidBatch,
		"{\"messages\":[{\"subject\":\"\xff\"}]}": api.CodeMalformedJSON, `x`: api.CodeMalformedJSON, `{"messages":x}`: api.CodeMalformedJSON, `{5:1}`: api.CodeMalformedJSON,
	} {
		q := &fakeQueue{durable: true}
		response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages/batch", body))
		if got := read[api.Problem](t, response); got.Code != want || q.batch {
			t.Errorf("batch %s = %d %s, stored %v, want %s", body, response.status, got.Code, q.batch, want)
		}
	}
}
