package handler

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
)

// TestSigned: by every door, what is stored is signed, and carries no Bcc.
func TestSigned(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	l := letter{
		from: party{"Größe", "shop@example.com"}, to: []party{{"Ana", "ana@example.org"}}, bcc: []party{{"", "eve@example.net"}},
		subject: "Größe", text: "Hi  ü \n.\n\n\n", html: "<p>Hi ü</p>",
	}
	for name, send := range everyDoor() {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, func(o *Options) { o.Signer = dkim.NewSigner(entries) })
		if err := send(l, t, s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sub, _ := one(t, q)
		if domains, err := dkimtest.Verify(sub.Content.Data, entries); err != nil || !slices.Equal(domains, []string{"example.com", "example.com"}) || sub.Content.EightBit {
			t.Errorf("%s: the verifier says %q, %v, 8-bit %v\n%s", name, domains, err, sub.Content.EightBit, sub.Content.Data)
		}
		if bytes.Contains(sub.Content.Data, []byte("eve@example.net")) || !slices.Contains(sub.Envelope.ForwardPaths, "eve@example.net") {
			t.Errorf("%s: Bcc stands in it, or gets nothing", name)
		}
	}
}

// TestSignedOnce: a finished message that has a signature keeps it, and gets no other.
func TestSignedOnce(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, func(o *Options) { o.Signer = dkim.NewSigner(entries) })
	const message = "DKIM-Signature: v=1; d=example.com; h=from; b=x\r\nFrom: shop@example.com\r\nDate: Sat, 01 Jan 2000 00:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nTo: ana@example.org\r\n\r\nHi\r\n"
	if a := serve(s, newRequest("POST", "/v1/messages", message, "Content-Type: message/rfc822")); a.status != 202 {
		t.Fatalf("it is answered with %d %s", a.status, a.body)
	}
	if sub, _ := one(t, q); string(sub.Content.Data) != message {
		t.Errorf("it is stored as %q", sub.Content.Data)
	}
}

// TestSignedSize: the signature counts towards the size of a message.
func TestSignedSize(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	text := fmt.Sprintf(`{"from":"shop@example.com","to":"ana@example.org","text":%q}`, strings.Repeat("x", 700))
	for signs, want := range map[bool]int{false: 202, true: 413} {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, func(o *Options) {
			if o.MaxMessageSize = 1500; signs {
				o.Signer = dkim.NewSigner(entries)
			}
		})
		if a := serve(s, newRequest("POST", "/v1/messages", text)); a.status != want {
			t.Errorf("signed %v, it is answered with %d %s, want %d", signs, a.status, a.body, want)
		}
	}
}
