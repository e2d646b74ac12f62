package handler

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/handler/keys"
	"mailsidecar/units"
)

func TestNewRefusesKeys(t *testing.T) {
	for _, entries := range [][]keys.Entry{{{Name: "", Secret: "x"}}, {{Name: "*", Secret: "x"}}, {{Name: "a"}}, {{Name: "a", Secret: "x"}, {Name: "a", Secret: "y"}}} {
		if _, err := New(Options{Submitter: &fakeQueue{}, Keys: entries}); err == nil {
			t.Errorf("New() with keys %v = nil, want an error", entries)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New() without a queue = nil, want an error")
	}
}

// TestWithoutKeys: requests belong to the key without a name.
func TestWithoutKeys(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, func(o *Options) { o.Keys = nil })
	r := newRequest("POST", "http://localhost:8587/v1/messages", goodMessage, "Authorization: ")
	if got := serve(s, r).status; got != 202 || q.submissions()[0].Key != "" {
		t.Errorf("keyless = %d, want 202", got)
	}
}

// TestRefusedUsesNoRate: the rate is charged last, whatever else is wrong.
func TestRefusedUsesNoRate(t *testing.T) {
	s := newTestServer(t, stored(), func(o *Options) {
		o.Keys[0].Rate = units.Rate{Messages: 1, Per: time.Minute}
		o.Keys[0].Senders = []string{"example.com"}
	})
	const batch = "/v1/messages/batch"
	for i, step := range []struct {
		target, body string
		want         int
	}{
		{"/v1/messages", strings.Replace(goodMessage, "example.com", "example.net", 1), 403},
		{"/v1/messages", "{", 400},
		{batch, `{"messages":[{"to":"a@example.com"}]}`, 422},
		{"/v1/messages", goodMessage, 202},
		{"/v1/messages", goodMessage, 429},
		{batch, `{"messages":[` + goodMessage + `]}`, 429},
		{batch, `{"messages":[{"to":"a@example.com"}]}`, 422},
	} {
		if got := serve(s, newRequest("POST", step.target, step.body)); got.status != step.want {
			t.Errorf("request %d, POST %s = %d %s, want %d", i+1, step.target, got.status, text(got), step.want)
		}
	}
}
