package ses

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mailsidecar/handler/compat/compattest"
)

const good = `{"FromEmailAddress":"shop@example.com","Destination":{"ToAddresses":["ana@example.org"]},"Content":{"Simple":{"Subject":{"Data":"Hi"},"Body":{"Text":{"Data":"Hello"}}}}}`

// request is a request to path, or to the usual one, signed with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/v2/email/outbound-emails"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	compattest.SignRequest(r, "shop", compattest.ShopSecret, time.Now())
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", compattest.With(good, `"FromEmailAddress":"x","Destination":{"ToAddresses":["a@example.org","b"],"CcAddresses":["c"],"BccAddresses":["d\r\ne"]},"ReplyToAddresses":["f"],"FeedbackForwardingEmailAddress":"g"`)},
		{"", compattest.With(good, `"FeedbackForwardingEmailAddress":"g"`)},
		{"", compattest.With(good, `"FromEmailAddress":""`)},
		{"", compattest.With(good, `"Destination":{}`)},
		{"", compattest.With(good, `"Content":{}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Subject":{"Data":"a\r\nb"},"Body":{"Text":{"Data":"x"}}}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Subject":{"Data":"x"}}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Body":{"Text":{"Data":"x"}},"Headers":[{"Name":"X A","Value":"b"}]}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Body":{"Text":{"Data":"x"}},"Headers":[{"Name":"Bcc","Value":"b"}]}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Body":{"Text":{"Data":"x"}},"Headers":[{"Name":"Date","Value":"b"}]}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Body":{"Text":{"Data":"x"}},"Attachments":[{"FileName":"a"}]}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Body":{"Text":{"Data":"x"}},"Attachments":[{"FileName":"a\rb","RawContent":"aGk=","ContentType":"x"}]}}`)},
		{"", compattest.With(good, `"Content":{"Simple":{"Body":{"Text":{"Data":"x"}},"Attachments":[{"RawContent":"aGk="}]}}`)},
		{"", compattest.With(good, `"Content":{"Raw":{"Data":"aGk="},"Simple":{"Body":{"Text":{"Data":"x"}}}}`)},
		{"", compattest.With(good, `"Content":{"Raw":{"Data":"aGk="}}`)},
		{"", compattest.With(good, `"FromEmailAddress":"x","Content":{"Raw":{"Data":"RnJvbTogYUBleGFtcGxlLmNvbQ0KDQp4"}},"Destination":{"ToAddresses":["y"]}`)},
		{"", compattest.With(good, `"Content":{"Raw":{"Data":"RnJvbTogYUBleGFtcGxlLmNvbQ0KDQp4"}},"Destination":{}`)},
		{"", compattest.With(good, `"Content":{"Raw":{"Data":"RnJvbTogYQ0KDQp4"}}`)},
		{"", compattest.With(good, `"Content":{"Template":{"TemplateName":"x"}}`)},
		{"", compattest.With(good, `"New":1`)},
		{"", compattest.With(good, `"Destination":1`)},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}

// TestRaw: the envelope is the request's, else the message's own.
func TestRaw(t *testing.T) {
	raw := base64.StdEncoding.EncodeToString([]byte("From: shop@example.com\r\nTo: ana@example.org\r\nBcc: eve@example.org\r\n\r\nHi\r\n"))
	for members, want := range map[string]string{
		`"Destination":{"ToAddresses":["Bob <bob@example.org>","c@example.org"]},"FromEmailAddress":"Bounce <b@example.com>"`: "b@example.com [bob@example.org c@example.org]",
		`"Destination":null,"FromEmailAddress":""`: "shop@example.com [ana@example.org eve@example.org]",
	} {
		var desk compattest.Desk
		r := desk.Serve(t, API, request("", compattest.With(good, `"Content":{"Raw":{"Data":"`+raw+`"}},`+members)))
		if r.Code != 200 {
			t.Errorf("%s = %d %s", members, r.Code, r.Body)
			continue
		}
		sub, header := desk.One(t)
		if got := fmt.Sprint(sub.Envelope.ReversePath, " ", sub.Envelope.ForwardPaths); got != want || header["Bcc"] != nil {
			t.Errorf("%s: envelope = %s, want %s; Bcc = %v", members, got, want, header["Bcc"])
		}
	}
}
