package handler

import (
	"net/http"
	"net/mail"
	"strings"
	"testing"

	"mailsidecar/handler/keys"
)

// forceFrom makes a server replace every sender.
func forceFrom(o *Options) { o.ForceFrom = "Relay <relay@example.net>" }

// sendingDoors are all ways in, each with a message from shop@example.com.
func sendingDoors() map[string]func() *http.Request {
	all := map[string]func() *http.Request{
		"JSON": func() *http.Request { return newRequest("POST", "/v1/messages", goodMessage) },
		"form": func() *http.Request {
			return newRequest("POST", "/v1/messages", "--x\r\nContent-Disposition: form-data; name=from\r\n\r\nshop@example.com\r\n"+partBefore+
				"Content-Disposition: form-data; name=text\r\n\r\nHi\r\n--x--\r\n", "Content-Type: multipart/form-data; boundary=x")
		},
		"finished": func() *http.Request {
			return newRequest("POST", "/v1/messages", "From: shop@example.com\r\nSender: www-data@web.test\r\nTo: ana@example.org\r\n\r\nHi\r\n",
				"Content-Type: message/rfc822", "Envelope-From: bounces@example.com")
		},
		"batch": func() *http.Request {
			return newRequest("POST", "/v1/messages/batch", `{"messages":[`+goodMessage+`]}`)
		},
	}
	for name, a := range apis {
		all[name] = func() *http.Request { return a.request(name, strings.NewReader(a.body)) }
	}
	return all
}

// TestForceFrom: in every door the forced sender takes the place of the caller's, in the
// message and in the envelope.
func TestForceFrom(t *testing.T) {
	for name, request := range sendingDoors() {
		q := &fakeQueue{durable: true}
		if a := serve(newTestServer(t, q, forceFrom), request()); a.status >= 300 {
			t.Errorf("%s = %d %s", name, a.status, a.body)
			continue
		}
		sub, header := one(t, q)
		from, err := mail.ParseAddress(header.Get("From"))
		if err != nil || from.Address != "relay@example.net" || from.Name != "Relay" && from.Name != "Shop" {
			t.Errorf("%s: From is %s", name, header.Get("From"))
		}
		if replyTo := header.Get("Reply-To"); !strings.Contains(replyTo, "shop@example.com") || header.Get("Sender") != "" {
			t.Errorf("%s: Reply-To is %q, Sender %q", name, replyTo, header.Get("Sender"))
		}
		if sub.Envelope.ReversePath != "relay@example.net" || sub.Sender != "relay@example.net" {
			t.Errorf("%s: reverse-path %s, sender %s", name, sub.Envelope.ReversePath, sub.Sender)
		}
	}
}

// TestForceFromKeySenders: what a key may send from is judged by what the caller sent.
func TestForceFromKeySenders(t *testing.T) {
	for sender, want := range map[string]bool{"example.com": true, "relay@example.net": false} {
		for name, request := range sendingDoors() {
			q := &fakeQueue{durable: true}
			s := newTestServer(t, q, func(o *Options) {
				forceFrom(o)
				o.Keys = []keys.Entry{{Name: "shop", Secret: testKey, Senders: []string{sender}}}
			})
			a := serve(s, request())
			if got := len(q.submissions()) == 1; got != want {
				t.Errorf("%s with a key for %s = %d %s", name, sender, a.status, a.body)
			}
		}
	}
}

// TestForceFromSigned: a signed message is refused with the setting to change.
func TestForceFromSigned(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, forceFrom)
	message := "DKIM-Signature: v=1; h=from; b=x\r\nFrom: shop@example.com\r\nTo: ana@example.org\r\n\r\nHi\r\n"
	a := serve(s, newRequest("POST", "/v1/messages", message, "Content-Type: message/rfc822"))
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(string(a.body), "MAILSIDECAR_FORCE_FROM") {
		t.Errorf("a signed message = %d %s, want 422 with the setting", a.status, a.body)
	}
	if len(q.submissions()) > 0 {
		t.Error("a signed message was changed")
	}
}

// TestForceFromDefault: the forced sender is the default where there is no other.
func TestForceFromDefault(t *testing.T) {
	for _, tc := range []struct{ from, want, replyTo string }{
		{"", `Relay <relay@example.net>`, ""},
		{"Shop <shop@example.com>", `Shop <relay@example.net>`, "Shop <shop@example.com>"},
	} {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, func(o *Options) {
			forceFrom(o)
			o.From = tc.from
		})
		if a := serve(s, newRequest("POST", "/v1/messages", `{"to":"ana@example.org","text":"x"}`)); a.status != http.StatusAccepted {
			t.Errorf("without from = %d %s", a.status, a.body)
			continue
		}
		if _, header := one(t, q); header.Get("From") != tc.want || header.Get("Reply-To") != tc.replyTo {
			t.Errorf("with MAILSIDECAR_FROM=%q: From %q, Reply-To %q, want %q and %q", tc.from, header.Get("From"), header.Get("Reply-To"), tc.want, tc.replyTo)
		}
	}
}

// TestForceFromFingerprint: a repeated request is recognised by what the caller sent,
// whatever the setting is by then.
func TestForceFromFingerprint(t *testing.T) {
	var sums [][32]byte
	for _, change := range []func(*Options){nil, forceFrom} {
		for _, from := range []string{"a@example.com", "b@example.com"} {
			q := &fakeQueue{durable: true}
			body := strings.Replace(goodMessage, "shop@example.com", from, 1)
			if a := serve(newTestServer(t, q, change), newRequest("POST", "/v1/messages", body, "Idempotency-Key: 1")); a.status != http.StatusAccepted {
				t.Fatalf("%d %s", a.status, a.body)
			}
			sums = append(sums, q.submissions()[0].Fingerprint)
		}
	}
	if sums[0] != sums[2] || sums[1] != sums[3] || sums[2] == sums[3] {
		t.Errorf("fingerprints %x", sums)
	}
}

// TestForceFromBad: a forced sender that is no address ends the start.
func TestForceFromBad(t *testing.T) {
	if _, err := New(Options{Submitter: &fakeQueue{}, ForceFrom: "nobody"}); err == nil {
		t.Error("New() takes a forced sender that is no address")
	}
}
