package handler

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// TestResend: who may send a message again, to whom, and in whose place.
func TestResend(t *testing.T) {
	q := &fakeQueue{durable: true, message: story()}
	s := newTestServer(t, q, nil)
	r := serve(s, newRequest("POST", "/v1/messages/id-1/resend", `{"to":"Ana <new@ex\u00e4mple.org>","instead_of":"ANA@example.org"}`, "Idempotency-Key: again"))
	if got := read[api.Receipt](t, r); r.status != 202 || got.ID != "id-9" || r.header.Get("Location") != "/v1/messages/id-9" || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("answer = %d %v %s", r.status, r.header, text(r))
	}
	if q.resend.To != "new@xn--exmple-cua.org" || q.resend.ID != "id-1" || q.scope[0] != "shop" || q.resend.IdempotencyKey != "again" || q.resend.Fingerprint == ([32]byte{}) {
		t.Errorf("asked for %+v of %v", q.resend, q.scope)
	}
	for body, say := range map[string]string{
		`{}`: "is required", `{"to":"x"}`: `"to"`, `{"to":"a@example.org, b@example.org"}`: "not a list",
		`{"to":"a@example.org","cc":"x"}`: "cc", `{"to":"a@example.org\r\nX: y"}`: "CR",
	} {
		q.did = ""
		if a := serve(s, newRequest("POST", "/v1/messages/id-1/resend", body)); a.status < 400 || q.did != "" || !strings.Contains(text(a), say) {
			t.Errorf("resend %s = %d %s, want a refusal with %q", body, a.status, text(a), say)
		}
	}
	for say, err := range map[string]error{
		"is no recipient of the message": queue.ErrNotRecipient, "is delivered: leave out instead_of": &queue.InsteadError{State: queue.Delivered},
		"is held, and may still get it":                 &queue.InsteadError{State: queue.Held, TakenBy: "main"},
		"is expired, but the relay main may have taken": &queue.InsteadError{State: queue.Expired, TakenBy: "main"},
	} {
		q.err = err
		a := serve(s, newRequest("POST", "/v1/messages/id-1/resend", `{"to":"a@example.org","instead_of":"d@example.org"}`))
		if q.resend.InsteadOf != "d@example.org" || a.status != 409 && a.status != 400 || !strings.Contains(text(a), say) {
			t.Errorf("resend instead of %s = %d %s, want a refusal with %q", q.resend.InsteadOf, a.status, text(a), say)
		}
	}
	q.err = nil
	plain, again := [32]byte{}, [32]byte{}
	for body, fingerprint := range map[string]*[32]byte{`{"to":"a@example.org"}`: &plain, `{"to":"a@example.org","again":true}`: &again} {
		if serve(s, newRequest("POST", "/v1/messages/id-1/resend", body, "Idempotency-Key: k")); q.resend.Again != (fingerprint == &again) {
			t.Errorf("resend %s asked with again %t", body, q.resend.Again)
		}
		*fingerprint = q.resend.Fingerprint
	}
	if plain == again {
		t.Error("a resend with again is the same request as one without")
	}
	for say, err := range map[string]error{
		"was sent to that address before, as id-8, where it is delivered.":         &queue.ResentError{ID: "id-8", State: queue.Delivered},
		"That address is a recipient of the message itself, where it is deferred.": &queue.ResentError{ID: "id-1", State: queue.Deferred, Own: true},
	} {
		q.err = err
		if a := serve(s, newRequest("POST", "/v1/messages/id-1/resend", `{"to":"a@example.org"}`)); a.status != 409 || !strings.Contains(text(a), say) || !strings.Contains(text(a), "already_resent") {
			t.Errorf("a second resend = %d %s, want 409 and %q", a.status, text(a), say)
		}
	}
	q.err = queue.ErrContentGone
	if a := serve(s, newRequest("POST", "/v1/messages/id-1/resend", `{"to":"a@example.org"}`)); a.status != 410 && a.status != 404 {
		t.Errorf("resend of what is gone = %d %s", a.status, text(a))
	} else if !strings.Contains(text(a), "MAILSIDECAR_KEEP_BODIES") {
		t.Errorf("resend of what is gone says %s, want the setting", text(a))
	}
}

// TestResendSenders: a key that may send from some addresses sends nothing again that is from others, by what
// its From says, and uses its rate for what is sent alone.
func TestResendSenders(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, func(o *Options) {
		o.Keys = []keys.Entry{{Name: "shop", Secret: testKey, Senders: []string{"example.com"}, Rate: units.Rate{Messages: 2, Per: time.Hour}}}
		o.ForceFrom = "Relay <relay@forced.example>"
	})
	for _, tc := range []struct {
		from   string
		status int
	}{
		{"From: a@example.com, boss@example.net", 403},
		{"From: \"boss@example.net\" <a@example.com>", 422},
		{"Subject: x\r\nfrom:\r\n a@example.com,\r\n boss@example.net", 403},
		{"From: a@example.com\r\nFrom: boss@example.net", 422},
		{"From: a@example.com\r\nFrom : boss@example.net", 422},
		{"Subject: x", 422},
		{"From: \"boss@example.net\" <relay@forced.example>", 403},
		{"Subject: x\r\nFrom: Ana\r\n <a@example.com>\r\nTo: boss@example.net", 202},
		{"From: Relay <relay@forced.example>", 202},
		{"From: a@example.com", 429},
	} {
		q.message = queue.Message{ID: "id-1", Sender: "a@example.com"}
		q.content = []byte(tc.from + "\r\n\r\nFrom: boss@example.net\r\n")
		if a := serve(s, newRequest("POST", "/v1/messages/id-1/resend", `{"to":"x@example.org"}`)); a.status != tc.status {
			t.Errorf("resend of %q = %d %s, want %d", tc.from, a.status, text(a), tc.status)
		}
	}
}
