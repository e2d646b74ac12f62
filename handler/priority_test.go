package handler

import (
	"net/http"
	"testing"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

const bulkByItself = `{"from":"shop@example.com","to":"a@example.org","text":"x","headers":{"Precedence":"list"}`

// TestPriority: the request's word counts, else the message's own Precedence.
func TestPriority(t *testing.T) {
	const raw = "From: shop@example.com\r\nTo: a@example.org\r\n"
	parts := []string{"name=from\nshop@example.com", "name=to\na@example.org", "name=text\nx"}
	const asForm, asRFC822 = "Content-Type: multipart/form-data; boundary=x", "Content-Type: message/rfc822"
	for _, tc := range []struct {
		name, path, body string
		fields           []string
		want             mailer.Priority
	}{
		{"none", "/v1/messages", goodMessage, nil, mailer.PriorityNormal},
		{"high", "/v1/messages", message(`"priority":"high"`), nil, mailer.PriorityHigh},
		{"bulk", "/v1/messages", message(`"priority":"bulk"`), nil, mailer.PriorityBulk},
		{"Precedence", "/v1/messages", bulkByItself + "}", nil, mailer.PriorityBulk},
		{"normal over Precedence", "/v1/messages", bulkByItself + `,"priority":"normal"}`, nil, mailer.PriorityNormal},
		{"form", "/v1/messages", form("x", append(parts, "name=priority\nhigh")...), []string{asForm}, mailer.PriorityHigh},
		{"finished", "/v1/messages", raw + "\r\nx", []string{asRFC822, "Envelope-Priority: bulk"}, mailer.PriorityBulk},
		{"finished, Precedence", "/v1/messages", raw + "Precedence: junk\r\n\r\nx", []string{asRFC822}, mailer.PriorityBulk},
		{"finished, both", "/v1/messages", raw + "Precedence: junk\r\n\r\nx", []string{asRFC822, "Envelope-Priority: high"}, mailer.PriorityHigh},
		{"batch", "/v1/messages/batch", `{"messages":[` + message(`"priority":"high"`) + `]}`, nil, mailer.PriorityHigh},
	} {
		for _, durable := range []bool{true, false} {
			if !durable && tc.path != "/v1/messages" {
				continue
			}
			q := &fakeQueue{durable: durable}
			response := serve(newTestServer(t, q, nil), newRequest("POST", tc.path, tc.body, tc.fields...))
			subs := q.submissions()
			if len(subs) != 1 || subs[0].Envelope.Priority != tc.want {
				t.Errorf("%s, durable %v: %d, submissions %+v, want priority %s", tc.name, durable, response.status, subs, tc.want)
			}
		}
	}
}

func TestBadPriority(t *testing.T) {
	for _, tc := range []struct {
		name, path, body, field string
		fields                  []string
	}{
		{"unknown", "/v1/messages", message(`"priority":"urgent"`), "priority", nil},
		{"wrong case", "/v1/messages", message(`"priority":"High"`), "priority", nil},
		{"unknown in a header", "/v1/messages", "From: a@b\r\n\r\nx", "Envelope-Priority", []string{"Content-Type: message/rfc822", "Envelope-Priority: 1"}},
		{"two in the header", "/v1/messages", "From: a@b\r\n\r\nx", "Envelope-Priority", []string{"Content-Type: message/rfc822", "Envelope-Priority: high, bulk"}},
	} {
		q := &fakeQueue{durable: true}
		response := serve(newTestServer(t, q, nil), newRequest("POST", tc.path, tc.body, tc.fields...))
		p := read[api.Problem](t, response)
		if response.status != http.StatusUnprocessableEntity || len(p.Errors) != 1 || p.Errors[0].Field != tc.field || len(q.submissions()) > 0 {
			t.Errorf("%s: %d %+v, want 422 for %s", tc.name, response.status, p, tc.field)
		}
	}
	b := serve(newTestServer(t, &fakeQueue{durable: true}, nil), newRequest("POST", "/v1/messages/batch", `{"messages":[`+message(`"priority":"x"`)+`]}`))
	if p := read[api.Problem](t, b); len(p.Results) != 1 || p.Results[0].Problem == nil || p.Results[0].Problem.Errors[0].Field != "messages[0].priority" {
		t.Errorf("batch: %d %+v, want the path messages[0].priority", b.status, p)
	}
}

// TestPriorityOfProviders: what a provider keeps apart from transactional mail
// is bulk.
func TestPriorityOfProviders(t *testing.T) {
	for _, tc := range []struct {
		provider, more string
		want           mailer.Priority
	}{
		{"postmark", `"MessageStream":"outbound"`, mailer.PriorityNormal},
		{"postmark", `"MessageStream":null`, mailer.PriorityNormal},
		{"postmark", `"MessageStream":"broadcast"`, mailer.PriorityBulk},
		{"postmark", `"MessageStream":"broadcasts"`, mailer.PriorityBulk},
		{"mailersend", `"precedence_bulk":false`, mailer.PriorityNormal},
		{"mailersend", `"precedence_bulk":true`, mailer.PriorityBulk},
	} {
		q := &fakeQueue{durable: true}
		s := newTestServer(t, q, func(o *Options) { o.Compat = compatAPIs(tc.provider) })
		response := try(t, s, tc.provider, with(tc.provider, tc.more))
		if subs := q.submissions(); len(subs) != 1 || subs[0].Envelope.Priority != tc.want {
			t.Errorf("%s with %s: %d, submissions %+v, want priority %s", tc.provider, tc.more, response.status, subs, tc.want)
		}
	}
}

func TestPriorityIsShown(t *testing.T) {
	for p, want := range map[mailer.Priority]string{mailer.PriorityHigh: "high", mailer.PriorityNormal: "normal", mailer.PriorityBulk: "bulk"} {
		if got := newMessage(queue.Message{Envelope: mailer.Envelope{Priority: p}}).Priority; got != want {
			t.Errorf("priority shown = %q, want %q", got, want)
		}
	}
}

// TestPriorityInFingerprint: another priority is another request, and none
// leaves the fingerprint as it was.
func TestPriorityInFingerprint(t *testing.T) {
	sum := func(m messageRequest) [32]byte {
		f := intake.NewFingerprint("k", "POST /v1/messages")
		(&m).digest(f)
		return f.Sum()
	}
	plain, high, bulk := sum(messageRequest{}), sum(messageRequest{Priority: "high"}), sum(messageRequest{Priority: "bulk"})
	if plain == high || high == bulk {
		t.Error("fingerprints do not tell priorities apart")
	}
}
