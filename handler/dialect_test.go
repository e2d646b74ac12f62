package handler

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

// serveDialect answers a request that is not as openapi.yaml describes it.
func serveDialect(s http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.Bytes()}
}

// TestDialects: what programs write in place of the JSON that was meant is taken, where
// its meaning is certain.
func TestDialects(t *testing.T) {
	const rest = `"from":"shop@example.com","to":"ana@example.org","subject":"S","text":"x"`
	soon := strings.ToLower(time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	for name, tt := range map[string]struct {
		body  string
		field string
	}{
		"a byte order mark":         {"\ufeff{" + rest + "}", ""},
		"charset utf8":              {"{" + rest + "}", "Content-Type: application/json; charset=utf8"},
		"charset us-ascii":          {"{" + rest + "}", "Content-Type: application/json; charset=US-ASCII"},
		"headers as an empty list":  {`{"headers":[],` + rest + "}", ""},
		"tags as an empty list":     {`{"tags":[ ],` + rest + "}", ""},
		"send_at in lower case":     {`{"send_at":"` + soon + `",` + rest + "}", ""},
		"send_at before 1970":       {`{"send_at":"0000-01-01T00:00:00Z",` + rest + "}", "want: send_at: is before 1970"},
		"headers as a list":         {`{"headers":["x"],` + rest + "}", "want: headers: must be an object"},
		"a list for the whole":      {`["x"]`, "want: : must be an object"},
		"half an emoji":             {`{"headers":{"X-A":"a\ud83d"},` + rest + "}", "want: headers.X-A: has an unpaired surrogate"},
		"half an emoji, other half": {`{"headers":{"X-A":"\ude00 \ud83d"},` + rest + "}", "want: headers.X-A: has an unpaired surrogate"},
		"latin-1":                   {"{" + rest + "}", "Content-Type: application/json; charset=iso-8859-1"},
	} {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, nil)
		if want, refused := strings.CutPrefix(tt.field, "want: "); refused {
			a := serveDialect(s, newRequest("POST", "/v1/messages", tt.body))
			p := read[api.Problem](t, a)
			if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Field+": "+p.Errors[0].Message, want) {
				t.Errorf("%s: answer = %d %s, want %q", name, a.status, a.body, want)
			}
			continue
		}
		var fields []string
		if tt.field != "" {
			fields = append(fields, tt.field)
		}
		a := serveDialect(s, newRequest("POST", "/v1/messages", tt.body, fields...))
		if want := map[bool]int{true: 415, false: 202}[name == "latin-1"]; a.status != want {
			t.Errorf("%s: answer = %d %s, want %d", name, a.status, a.body, want)
		}
	}
}

// TestUnpairedSurrogate: the error names the octet at which the escape begins, counted
// with a byte order mark.
func TestUnpairedSurrogate(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for _, body := range []string{`{"text":"ab\ud83d"}`, `{"text":"ab\uDE00"}`, "\ufeff" + `{"text":"ab\ud83d\u0041"}`} {
		p := read[api.Problem](t, serveDialect(s, newRequest("POST", "/v1/messages", body)))
		want := fmt.Sprintf("unpaired surrogate at octet %d,", strings.IndexByte(body, '\\'))
		if p.Code != api.CodeMalformedJSON || !strings.Contains(p.Detail, want) {
			t.Errorf("POST %s = %s %q, want %q", body, p.Code, p.Detail, want)
		}
	}
}

// TestFormNames: a browser writes a quotation mark in a name as %22.
func TestFormNames(t *testing.T) {
	var b bytes.Buffer
	for name, value := range map[string]string{"from": "shop@example.com", "to": "ana@example.org", "text": "x"} {
		fmt.Fprintf(&b, "--B\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", name, value)
	}
	b.WriteString("--B\r\nContent-Disposition: form-data; name=\"attachments\"; filename=\"5%22 100%.txt\"\r\n\r\nx\r\n--B--\r\n")
	q := &fakeQueue{durable: true}
	a := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", b.String(), "Content-Type: multipart/form-data; boundary=B"))
	if a.status != 202 {
		t.Fatalf("answer = %d %s, want 202", a.status, a.body)
	}
	if data := string(q.got[0].Content.Data); !strings.Contains(data, "filename*=UTF-8''5%22%20100%25.txt") {
		t.Errorf("message = %s\nwant a file named 5\" 100%%.txt", data)
	}
}

// TestSinceBeforeAll: a time before 1970 selects all, in each form that RFC 3339 has.
func TestSinceBeforeAll(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	for _, since := range []string{"1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2030-01-31t08:00:00z"} {
		a := serve(s, newRequest("GET", "/v1/messages?since="+since, ""))
		want, err := time.Parse(time.RFC3339, strings.ToUpper(since))
		if err != nil {
			t.Fatal(err)
		}
		if a.status != 200 || !q.filter.Since.Equal(want) {
			t.Errorf("since=%s = %d, filter %v, want 200 and %v", since, a.status, q.filter.Since, want)
		}
	}
}
