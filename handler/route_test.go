package handler

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
	store "mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// noRelayFor are relays of which the shop's key may use one, that takes mail of another
// sender only. Without the key the first one takes any.
func noRelayFor(first, second *queuetest.Relay) queue.Routes {
	return queue.Routes{
		{Relay: first},
		{Relay: second, Senders: []string{"news.example.com"}, Keys: map[string]int{"shop": 1}},
	}
}

// ownForms has, for each API, what its clients read from a refusal.
var ownForms = map[string][]string{
	"mailgun": {"message"}, "mime": {"message"}, "postmark": {"ErrorCode", "Message"}, "resend": {"statusCode", "name", "message"}, "sendgrid": {"errors"},
	"ses": {"message"}, "ses raw": {"message"}, "mailersend": {"message"}, "brevo": {"code", "message"},
}

// TestNoRelayTakesTheSender: where none of the relays that a key may use takes mail of the
// sender, each door refuses the message in its own form, with and without a queue. Nothing
// is stored, and no relay is asked.
func TestNoRelayTakesTheSender(t *testing.T) {
	for _, kept := range []string{"memory", "none"} {
		for door, enter := range everyDoor() {
			if door == "batch" && kept == "none" {
				continue // needs a queue
			}
			t.Run(kept+" "+door, func(t *testing.T) {
				first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept)
				routes := noRelayFor(first, second)
				o := Options{Compat: compatAPIs(), Keys: []keys.Entry{{Name: "shop", Secret: testKey}}, Submitter: queue.NewDirect(routes, nil)}
				var q *queuetest.Queue
				if kept == "memory" {
					q = queuetest.Start(t, store.New(store.Options{}), func(o *queue.Options) { o.Routes = routes })
					o.Submitter, o.Ledger = q.Durable, q.Durable
				}
				s, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				err = enter(letter{from: party{Email: "shop@example.com"}, to: []party{{Email: "ana@example.org"}}, subject: "Hi", text: "Hello"}, t, s)
				if err == nil || !strings.Contains(err.Error(), "No relay takes mail of this sender") {
					t.Errorf("the answer is %v, want a refusal that says why", err)
				}
				status, body, _ := strings.Cut(errText(err), " ")
				var fields map[string]any
				if form := ownForms[door]; form != nil {
					if err := json.Unmarshal([]byte(body), &fields); err != nil {
						t.Errorf("%s %s is no JSON: %v", status, body, err)
					}
					for _, name := range form {
						if fields[name] == nil {
							t.Errorf("%s %s has no %q", status, body, name)
						}
					}
				}
				if q != nil {
					if page, err := q.List(t.Context(), queue.Filter{Key: queue.AnyKey}, 10, ""); err != nil || len(page.Messages) != 0 {
						t.Errorf("stored: %+v, %v", page.Messages, err)
					}
				}
				if n := len(first.Attempts()) + len(second.Attempts()); n != 0 {
					t.Errorf("%d attempts at relays, want none", n)
				}
			})
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestProviderBatchWithoutRelay: so it is with the batches of providers that have a result
// for each message.
func TestProviderBatchWithoutRelay(t *testing.T) {
	for name, tt := range map[string]struct{ path, header, value, item, good, bad string }{
		"postmark": {
			"/email/batch", "X-Postmark-Server-Token", testKey,
			`{"From":"%s","To":"ana@example.org","Subject":"Hi","TextBody":"Hello"}`, `"ErrorCode":0`, `No relay takes mail of this sender`,
		},
		"resend": {
			"/emails/batch", "X-Batch-Validation", "permissive",
			`{"from":"%s","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`, `"id":`, `"index":`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept)
			q := queuetest.Start(t, store.New(store.Options{}), func(o *queue.Options) { o.Routes = noRelayFor(first, second) })
			s, err := New(Options{Submitter: q.Durable, Ledger: q.Durable, Compat: compatAPIs(), Keys: []keys.Entry{{Name: "shop", Secret: testKey}}})
			if err != nil {
				t.Fatal(err)
			}
			var items []string
			for _, from := range []string{"shop@example.com", "a@news.example.com", "b@other.example"} {
				items = append(items, fmt.Sprintf(tt.item, from))
			}
			r := newRequest(http.MethodPost, tt.path, "["+strings.Join(items, ",")+"]")
			r.Header.Set(tt.header, tt.value)
			a := serve(s, r)
			if body := string(a.body); a.status != http.StatusOK || strings.Count(body, tt.good) != 1 || strings.Count(body, tt.bad) != 2 {
				t.Errorf("a batch of which one message has a relay = %d %s", a.status, a.body)
			}
			if page, err := q.List(t.Context(), queue.Filter{Key: "shop"}, 10, ""); err != nil || len(page.Messages) != 1 {
				t.Errorf("%d messages are stored, %v, want one", len(page.Messages), err)
			}
		})
	}
}

// TestBatchRepeatedWithoutRelay: a repeat of a batch that was stored is answered as before,
// though no relay takes one of its messages any more.
func TestBatchRepeatedWithoutRelay(t *testing.T) {
	for name, tt := range map[string]struct{ path, validation, batch, item string }{
		"native": {"/v1/messages/batch", "", `{"messages":[%s]}`, `{"from":"%s","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`},
		"resend": {"/emails/batch", "permissive", `[%s]`, `{"from":"%s","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`},
	} {
		t.Run(name, func(t *testing.T) {
			kept := store.New(store.Options{})
			post := func(routes queue.Routes, reopened queue.Store) answer {
				q := queuetest.Start(t, reopened, func(o *queue.Options) { o.Routes = routes })
				defer func() { _ = q.End() }()
				s, err := New(Options{Submitter: q.Durable, Ledger: q.Durable, Compat: compatAPIs(), Keys: []keys.Entry{{Name: "shop", Secret: testKey}}})
				if err != nil {
					t.Fatal(err)
				}
				var items []string
				for _, from := range []string{"shop@example.com", "a@news.example.com"} {
					items = append(items, fmt.Sprintf(tt.item, from))
				}
				r := newRequest(http.MethodPost, tt.path, fmt.Sprintf(tt.batch, strings.Join(items, ",")))
				r.Header.Set("Idempotency-Key", "once")
				if tt.validation != "" {
					r.Header.Set("X-Batch-Validation", tt.validation)
				}
				return serve(s, r)
			}
			first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept)
			a := post(queue.Routes{{Relay: first}}, kept)
			b := post(noRelayFor(first, second), kept.Reopen())
			if a.status >= 300 || b.status != a.status || strings.Count(string(b.body), `"id":"`) != 2 || strings.Contains(string(b.body), "No relay") {
				t.Errorf("stored: %d %s\nrepeated: %d %s", a.status, a.body, b.status, b.body)
			}
		})
	}
}

// TestBatchWithoutRelay: a message of a batch that no relay takes is refused in its place,
// and the others are stored.
func TestBatchWithoutRelay(t *testing.T) {
	first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", func(int, string) *mailer.Failure { return nil })
	q := queuetest.Start(t, store.New(store.Options{}), func(o *queue.Options) { o.Routes = noRelayFor(first, second) })
	s, err := New(Options{Submitter: q.Durable, Ledger: q.Durable, Keys: []keys.Entry{{Name: "shop", Secret: testKey}}})
	if err != nil {
		t.Fatal(err)
	}
	message := func(from string) object {
		return object{"from": from, "to": []string{"ana@example.org"}, "subject": "Hi", "text": "Hello"}
	}
	post := func(idempotency string, from ...string) answer {
		var all []object
		for _, f := range from {
			all = append(all, message(f))
		}
		r := newRequest(http.MethodPost, "/v1/messages/batch", string(encode(t, object{"messages": all})))
		r.Header.Set("Idempotency-Key", idempotency)
		return serve(s, r)
	}
	for range 2 { // the second time it is a repeat
		a := post("mixed", "shop@example.com", "a@news.example.com", "b@other.example")
		if a.status != http.StatusAccepted || !strings.Contains(string(a.body), `"stored":1,"refused":2`) || strings.Count(string(a.body), `"sender_not_allowed"`) != 2 {
			t.Errorf("a batch of which one message has a relay = %d %s", a.status, a.body)
		}
	}
	if a := post("none", "shop@example.com", "b@other.example"); a.status != http.StatusUnprocessableEntity || strings.Count(string(a.body), `"sender_not_allowed"`) != 2 {
		t.Errorf("a batch of which none has a relay = %d %s", a.status, a.body)
	}
	if page, err := q.List(t.Context(), queue.Filter{Key: "shop"}, 10, ""); err != nil || len(page.Messages) != 1 {
		t.Errorf("%d messages are stored, %v, want one", len(page.Messages), err)
	}
}
