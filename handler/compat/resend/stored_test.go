package resend

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/compat/compattest"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// storedMessage is a message of the shop whose recipients are in these states.
func storedMessage(states ...queue.State) queue.Message {
	m := queue.Message{
		ID: "id-1", Key: "shop", MessageID: "<1@example.com>", Sender: "shop@example.com", Subject: "Hi", Created: compattest.Created,
		Tags: map[string]string{"order": "7"}, Envelope: mailer.Envelope{ReversePath: "shop@example.com"},
	}
	for i, state := range states {
		path := fmt.Sprintf("u%d@example.org", i)
		m.Envelope.ForwardPaths = append(m.Envelope.ForwardPaths, path)
		m.Recipients = append(m.Recipients, queue.Recipient{ForwardPath: path, State: state})
	}
	return m
}

func ask(t *testing.T, d *compattest.Desk, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := request(path, body)
	r.Method = method
	return d.Serve(t, API, r)
}

// TestLastEvent: each status of a message is told in a word of Resend's.
func TestLastEvent(t *testing.T) {
	words := []string{"bounced", "canceled", "delivered", "delivery_delayed", "failed", "queued", "scheduled"}
	for _, tt := range []struct {
		states []queue.State
		sendAt time.Time
		want   string
	}{
		{[]queue.State{queue.Queued}, time.Time{}, "queued"},
		{[]queue.State{queue.Queued}, time.Now().Add(-time.Hour), "queued"},
		{[]queue.State{queue.Queued}, time.Now().Add(time.Hour), "scheduled"},
		{[]queue.State{queue.Deferred, queue.Delivered}, time.Time{}, "delivery_delayed"},
		{[]queue.State{queue.Held}, time.Time{}, "delivery_delayed"},
		{[]queue.State{queue.Delivered, queue.Delivered}, time.Time{}, "delivered"},
		{[]queue.State{queue.Delivered, queue.Canceled}, time.Time{}, "delivered"},
		{[]queue.State{queue.Delivered, queue.Bounced}, time.Time{}, "bounced"},
		{[]queue.State{queue.Delivered, queue.Expired}, time.Time{}, "failed"},
		{[]queue.State{queue.Bounced, queue.Expired}, time.Time{}, "bounced"},
		{[]queue.State{queue.Expired, queue.Canceled}, time.Time{}, "failed"},
		{[]queue.State{queue.Canceled}, time.Now().Add(time.Hour), "canceled"},
	} {
		m := storedMessage(tt.states...)
		m.SendAt = tt.sendAt
		if got := lastEvent(m, time.Now()); got != tt.want || !slices.Contains(words, got) {
			t.Errorf("lastEvent(%v, send_at %v) = %s, want %s", tt.states, tt.sendAt, got, tt.want)
		}
	}
}

// TestGet: the message is told with all the members that Resend's clients read.
func TestGet(t *testing.T) {
	d := &compattest.Desk{Stored: storedMessage(queue.Queued, queue.Queued)}
	d.Stored.SendAt = compattest.Created.Add(time.Hour)
	w := ask(t, d, http.MethodGet, "/emails/id-1", "")
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("GET = %d %s", w.Code, w.Body)
	}
	for name, want := range map[string]any{
		"object": "email", "id": "id-1", "message_id": "<1@example.com>", "from": "shop@example.com", "to": []any{"u0@example.org", "u1@example.org"},
		"subject": "Hi", "created_at": "2030-01-31T08:00:00.000000+00:00", "scheduled_at": "2030-01-31T09:00:00.000000+00:00", "last_event": "scheduled",
		"cc": nil, "bcc": nil, "reply_to": nil, "html": nil, "text": nil, "tags": []any{map[string]any{"name": "order", "value": "7"}},
	} {
		value, there := got[name]
		if !there || fmt.Sprint(value) != fmt.Sprint(want) {
			t.Errorf("%s = %v, want %v", name, value, want)
		}
	}
}

// TestChangeStored: what was sent here can be given another time and be canceled while
// that is possible; else the answer says why not, in Resend's form.
func TestChangeStored(t *testing.T) {
	later := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	body := `{"scheduled_at":"` + later.Format(time.RFC3339) + `"}`
	for _, tt := range []struct {
		name               string
		desk               compattest.Desk
		method, path, body string
		status             int
		answer             string
	}{
		{"update", compattest.Desk{Scheduled: true}, "PATCH", "/emails/id-1", body, 200, `{"object":"email","id":"id-1"}`},
		{"update to the past", compattest.Desk{Scheduled: true}, "PATCH", "/emails/id-1", `{"scheduled_at":"2020-01-01T00:00:00Z"}`, 200, `"id":"id-1"`},
		{"update of what was sent", compattest.Desk{}, "PATCH", "/emails/id-1", body, 422, "does not wait for its time any more"},
		{"no time", compattest.Desk{Scheduled: true}, "PATCH", "/emails/id-1", `{}`, 422, "Missing `scheduled_at` field."},
		{"a wrong time", compattest.Desk{Scheduled: true}, "PATCH", "/emails/id-1", `{"scheduled_at":"noon"}`, 422, "Invalid `scheduled_at` field"},
		{"too far ahead", compattest.Desk{Scheduled: true}, "PATCH", "/emails/id-1", `{"scheduled_at":"in 9 weeks"}`, 422, "Invalid `scheduled_at` field"},
		{"another field", compattest.Desk{Scheduled: true}, "PATCH", "/emails/id-1", `{"subject":"x"}`, 400, "validation_error"},
		{"cancel", compattest.Desk{}, "POST", "/emails/id-1/cancel", "", 200, `{"object":"email","id":"id-1"}`},
		{"cancel while it is tried", compattest.Desk{Tried: true}, "POST", "/emails/id-1/cancel", "", 422, "is being sent"},
		{"another message", compattest.Desk{}, "GET", "/emails/id-2", "", 404, "not_found"},
		{"update of another message", compattest.Desk{}, "PATCH", "/emails/id-2", body, 404, "not_found"},
		{"cancel of another message", compattest.Desk{}, "POST", "/emails/id-2/cancel", "", 404, "not_found"},
		{"without a queue", compattest.Desk{Direct: true}, "GET", "/emails/id-1", "", 422, "validation_error"},
	} {
		tt.desk.Stored = storedMessage(queue.Queued)
		w := ask(t, &tt.desk, tt.method, tt.path, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s = %d %s, want %d with %s", tt.name, w.Code, w.Body, tt.status, tt.answer)
		}
		if got := tt.desk.Stored.SendAt; tt.name == "update" && !got.Equal(later) || tt.name == "update to the past" && !got.IsZero() {
			t.Errorf("%s: it is sent at %v", tt.name, got)
		}
	}
	partly := &compattest.Desk{Stored: storedMessage(queue.Deferred, queue.Delivered)}
	if w := ask(t, partly, "POST", "/emails/id-1/cancel", ""); w.Code != 422 || !strings.Contains(w.Body.String(), "What still waits of the email is canceled") {
		t.Errorf("cancel of what some have = %d %s, want 422 and that the others are canceled", w.Code, w.Body)
	}
	if w := ask(t, partly, "POST", "/emails/id-1/cancel", ""); w.Code != 422 || !strings.Contains(w.Body.String(), "no recipient waits") {
		t.Errorf("cancel again = %d %s, want 422 and that no recipient waits", w.Code, w.Body)
	}
	for state, want := range map[queue.State]int{queue.Delivered: 422, queue.Bounced: 422, queue.Canceled: 200} {
		d := &compattest.Desk{Stored: storedMessage(state)}
		if w := ask(t, d, "POST", "/emails/id-1/cancel", ""); w.Code != want {
			t.Errorf("cancel of %s = %d %s, want %d", state, w.Code, w.Body, want)
		}
	}
	foreign := &compattest.Desk{Stored: storedMessage(queue.Queued)}
	foreign.Stored.Key = "blog"
	if w := ask(t, foreign, "GET", "/emails/id-1", ""); w.Code != 404 {
		t.Errorf("GET of another key's message = %d %s, want 404", w.Code, w.Body)
	}
}
