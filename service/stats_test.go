package service

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer/relaytest"
)

// TestStatsFilters: the filter that the numbers have for a reply selects just the messages of that reply, while
// its text, or a part of it, also finds those that say more.
func TestStatsFilters(t *testing.T) {
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{
		"RCPT": "550 5.1.1 User unknown then 550 5.1.1 User unknown in the table then 550 5.1.1 No such User unknown then 554 5.1.1 User unknown then 550 5.1.1",
	})
	c := serviceWith(t, "sqlite", relay.Listen(t))
	c.Relays[0].TLS = "none"
	s, stop := start(t, c)
	defer stop() //nolint:errcheck // what it has done is looked at
	for range 5 {
		if a, err := post(s, http.Header{"Prefer": {"wait=10"}}); err != nil || a.Status != http.StatusUnprocessableEntity {
			t.Fatalf("post = %d %s, %v", a.Status, a.Body, err)
		}
	}
	client, err := api.New(s.URL(), "", "test", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string, body, v any) {
		t.Helper()
		header, data := http.Header{}, []byte(nil)
		if body != nil {
			header.Set("Content-Type", "application/json")
			if data, err = json.Marshal(body); err != nil {
				t.Fatal(err)
			}
		}
		a, err := client.Do(t.Context(), method, path, header, data)
		if err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, v) != nil {
			t.Fatalf("%s %s = %d %s, %v", method, path, a.Status, a.Body, err)
		}
	}
	var stats api.Stats
	ask(http.MethodGet, "/v1/stats", nil, &stats)
	if len(stats.Replies) != 5 {
		t.Fatalf("replies = %+v, want five", stats.Replies)
	}
	for _, r := range stats.Replies {
		f := r.Filter
		query := url.Values{"relay": {f.Relay}, "reply_code": {strconv.Itoa(f.ReplyCode)}, "enhanced_code": {f.EnhancedCode}, "text": {f.Text}}
		var listed api.Page
		ask(http.MethodGet, "/v1/messages?"+query.Encode(), nil, &listed)
		var counted, retried, canceled api.Matching
		ask(http.MethodGet, "/v1/messages/count?"+query.Encode(), nil, &counted)
		bulk := api.Bulk{Filter: api.Filter{Relay: f.Relay, ReplyCode: f.ReplyCode, EnhancedCode: f.EnhancedCode, Text: f.Text}, DryRun: true}
		ask(http.MethodPost, "/v1/messages/retry", bulk, &retried)
		ask(http.MethodPost, "/v1/messages/cancel", bulk, &canceled)
		if len(listed.Messages) != 1 || counted.Matching != 1 || retried.Matching != 1 || canceled.Matching != 0 || listed.Messages[0].Recipients[0].Text != r.Text {
			t.Errorf("the filter %+v of %q selects %d, counts %d, %d to retry, %d to cancel, want the one", f, r.Text, len(listed.Messages), counted.Matching, retried.Matching, canceled.Matching)
		}
	}
	for text, want := range map[string]int{"user unknown": 4, "UNKNOWN": 4, "in the": 1, "no*unknown": 1, "=User unknown": 2, "=unknown": 0, "table*no": 0, "=": 1, "=*": 5, "*": 5} {
		var counted api.Matching
		if ask(http.MethodGet, "/v1/messages/count?"+url.Values{"text": {text}}.Encode(), nil, &counted); counted.Matching != want {
			t.Errorf("text %q matches %d, want %d", text, counted.Matching, want)
		}
	}
}
