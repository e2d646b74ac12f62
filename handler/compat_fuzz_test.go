package handler

import (
	"bytes"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// FuzzProviders: whatever comes to a provider's route is answered in its form,
// is never the server's fault, and what is taken is a message that names no
// other recipient than the envelope and no line that was smuggled in.
func FuzzProviders(f *testing.F) {
	names := slices.Sorted(maps.Keys(apis))
	for i, name := range names {
		f.Add(uint8(i), []byte(apis[name].body))
	}
	at := func(name string) uint8 { return uint8(slices.Index(names, name)) }
	f.Add(at("sendgrid"), []byte(with("sendgrid", `"sections":{"":"x"},"personalizations":[{"to":[{"email":"a@example.org"}],"substitutions":{"":"x","H":"\r\nX-Smuggled: 1"}}]`)))
	f.Add(at("resend"), []byte(with("resend", `"attachments":[{"filename":"a","content":{"type":"Buffer","data":[1,2]},"content_id":"<cid:é>"}],"html":"cid:é"`)))
	f.Add(at("postmark"), []byte(with("postmark", `"Headers":[{"Name":"X-A","Value":"\r\n X-Smuggled: 1"}]`)))
	f.Add(at("mailgun"), []byte(formBody+`&recipient-variables={"ana@example.org":{"a":[1,{"b":2}]}}&h:X-A=%0D%0A+X-Smuggled:+1`))
	f.Add(at("mailgun"), []byte(multipartBody))
	f.Add(at("brevo"), []byte(with("brevo", `"params":{"a":{"b":[1]}},"subject":"{{params.a.b.0}}"`)))
	f.Add(at("mailersend"), []byte(with("mailersend", `"personalization":[{"email":"ana@example.org","data":{"a":1}}],"text":"{{a}}{$a}"`)))
	f.Add(at("ses"), []byte(with("ses", `"Content":{"Raw":{"Data":"RnJvbTogYUBiLmMKVG86IGRAZS5mCgpIaQo="}}`)))
	f.Fuzz(func(t *testing.T, n uint8, body []byte) {
		name := names[int(n)%len(names)]
		q := &fakeQueue{durable: true}
		r := apis[name].request(name, bytes.NewReader(body))
		if name == "mailgun" && bytes.HasPrefix(body, []byte("--x\r\n")) {
			r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		}
		a := serve(newTestServer(t, q, nil), r)
		if a.status >= 500 {
			t.Errorf("answer = %d %s", a.status, a.body)
		}
		if v := jsontext.Value(bytes.TrimSpace(a.body)); len(v) > 0 && !v.IsValid() {
			t.Errorf("answer is no JSON: %s", a.body)
		}
		for _, sub := range q.submissions() {
			m, err := mail.ReadMessage(bytes.NewReader(sub.Content.Data))
			if err != nil {
				t.Fatalf("%v in\n%s", err, sub.Content.Data)
			}
			if m.Header["X-Smuggled"] != nil && !finishedMessage(name) || m.Header["Bcc"] != nil {
				t.Errorf("header = %v", m.Header)
			}
			if len(sub.Envelope.ForwardPaths) == 0 || strings.ContainsAny(strings.Join(sub.Envelope.ForwardPaths, ""), "\r\n<>") {
				t.Errorf("envelope = %+v", sub.Envelope)
			}
		}
	})
}

// finishedMessage: the client writes the header section itself.
func finishedMessage(provider string) bool { return provider == "ses" }

// multipartBody is a form with files.
const multipartBody = "--x\r\nContent-Disposition: form-data; name=\"from\"\r\n\r\nshop@example.com\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\nana@example.org\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"attachment[0]\"; filename=\"a.pdf\"\r\nContent-Type: application/pdf\r\n\r\nPDF\r\n--x--\r\n"
