package handler

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
)

// scriptedRelay accepts a recipient unless its address says otherwise.
type scriptedRelay struct{}

func (scriptedRelay) Name() string { return "main" }

func (scriptedRelay) Deliver(_ context.Context, env mailer.Envelope, _ mailer.Content) mailer.Attempt {
	a := mailer.Attempt{Relay: "main", Rung: mailer.Rung{Port: 2525}, Started: time.Now()}
	for _, path := range env.ForwardPaths {
		r := mailer.Result{ForwardPath: path, Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued"}}
		switch user, _, _ := strings.Cut(path, "@"); user {
		case "unknown":
			r.Failure = refusal(mailer.ClassPermanent, 550, "no such user")
		case "busy":
			r.Failure = refusal(mailer.ClassTransient, 450, "busy")
		}
		if r.Failure != nil {
			r.Reply = r.Failure.Reply
		}
		a.Results = append(a.Results, r)
	}
	return a
}

// newDurable serves over the real queue, with its store in a file.
func newDurable(t *testing.T) *Server {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "queue.db"), MinFreeDisk: 1})
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.New(queue.Options{Store: store, Routes: queue.Routes{{Relay: scriptedRelay{}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := q.Run(ctx); err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := store.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	s, err := New(Options{Submitter: q, Ledger: q, Keys: []keys.Entry{{Name: "shop", Secret: testKey}, {Name: "blog", Secret: "other"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func to(address string) string {
	return `{"from":"shop@example.com","to":"` + address + `","text":"x","tags":{"to":"` + strings.Split(address, "@")[0] + `"}}`
}

// TestOverTheRealQueue follows messages through every route.
func TestOverTheRealQueue(t *testing.T) {
	s := newDurable(t)
	ids := map[string]string{}
	for address, want := range map[string]int{"ana@example.org": 200, "busy@example.org": 202, "unknown@example.org": 422} {
		a := serve(s, newRequest("POST", "/v1/messages", to(address), "Prefer: wait=10"))
		got := read[struct {
			ID         string          `json:"id"`
			Recipients []api.Recipient `json:"recipients"`
		}](t, a)
		if a.status != want || len(got.Recipients) != 1 || got.Recipients[0].Relay != "main" || got.Recipients[0].ReplyCode == 0 {
			t.Errorf("to %s = %d %s, want %d with the relay's reply", address, a.status, a.body, want)
		}
		ids[address] = got.ID
	}
	scheduled := read[api.Receipt](t, serve(s, newRequest("POST", "/v1/messages", strings.Replace(to("later@example.org"), "{", `{"send_at":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`",`, 1), "Prefer: wait=10"))).ID

	busy := "/v1/messages/" + ids["busy@example.org"]
	story := read[api.Message](t, serve(s, newRequest("GET", busy, "")))
	if story.Status != string(queue.StatusDeferred) || len(story.Attempts) != 1 || story.Attempts[0].Results[0].ReplyCode != 450 || story.Recipients[0].NextAttemptAt.IsZero() {
		t.Errorf("story = %+v", story)
	}
	if a := serve(s, newRequest("GET", busy, "", "Authorization: Bearer other")); a.status != 404 {
		t.Errorf("another key's message = %d, want 404", a.status)
	}
	if a := serve(s, newRequest("GET", busy+"/content", "")); a.status != 200 || !bytes.Contains(a.body, []byte("busy@example.org")) {
		t.Errorf("content = %d %s", a.status, a.body)
	}
	for query, want := range map[string]int{"": 4, "?status=failed": 1, "?recipient=ana@example.org": 1, "?tag=to:busy": 1, "?tag=to": 4, "?sender=nobody@example.com": 0} {
		if got := read[api.Page](t, serve(s, newRequest("GET", "/v1/messages"+query, ""))).Messages; len(got) != want {
			t.Errorf("GET /v1/messages%s has %d messages, want %d", query, len(got), want)
		}
	}
	first := read[api.Page](t, serve(s, newRequest("GET", "/v1/messages?limit=3", "")))
	if rest := read[api.Page](t, serve(s, newRequest("GET", "/v1/messages?limit=3&cursor="+first.Next, ""))); len(first.Messages) != 3 || len(rest.Messages) != 1 || rest.Next != "" {
		t.Errorf("pages of 3 have %d and %d messages, then %q", len(first.Messages), len(rest.Messages), rest.Next)
	}
	for _, tc := range []struct {
		method, target, body string
		want                 int
	}{
		{"POST", "/v1/messages/" + ids["unknown@example.org"] + "/retry", "", 200},
		{"POST", "/v1/messages/" + ids["ana@example.org"] + "/retry", "", 409},
		{"GET", "/v1/messages/" + ids["ana@example.org"] + "/content", "", 410},
		{"POST", "/v1/messages/retry", `{"tag":"to:busy"}`, 200},
		{"DELETE", "/v1/messages/" + scheduled, "", 200},
		{"DELETE", "/v1/messages/" + scheduled, "", 409},
		{"DELETE", "/v1/messages/no-such-id", "", 404},
		{"GET", "/v1/messages?cursor=x", "", 400},
	} {
		if a := serve(s, newRequest(tc.method, tc.target, tc.body)); a.status != tc.want {
			t.Errorf("%s %s = %d %s, want %d", tc.method, tc.target, a.status, a.body, tc.want)
		}
	}
}

// TestRepeatOverTheRealQueue: the same key gets the same message, whichever way
// the request is written.
func TestRepeatOverTheRealQueue(t *testing.T) {
	s := newDurable(t)
	batch := `{"messages":[` + to("ana@example.org") + `,{"to":"nobody"},` + to("bob@example.org") + `]}`
	for _, tc := range []struct{ name, target, body, other string }{
		{"message", "/v1/messages", to("ana@example.org"), to("bob@example.org")},
		{"batch", "/v1/messages/batch", batch, strings.Replace(batch, "nobody", "somebody", 1)},
	} {
		key := "Idempotency-Key: " + tc.name
		first := serve(s, newRequest("POST", tc.target, tc.body, key))
		repeat := serve(s, newRequest("POST", tc.target, " "+tc.body, `Idempotency-Key: "`+tc.name+`"`))
		if first.status != 202 || repeat.status != 202 || first.header.Get("Idempotency-Replayed") != "" || repeat.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: %d %v, repeated %d %v", tc.name, first.status, first.header, repeat.status, repeat.header)
		}
		if got, want := idsIn(repeat.body), idsIn(first.body); got != want || want == "" {
			t.Errorf("%s: ids of the repeat = %s, want %s", tc.name, got, want)
		}
		if p := read[api.Problem](t, serve(s, newRequest("POST", tc.target, tc.other, key))); p.Code != api.CodeIdempotencyReused {
			t.Errorf("%s: another request with the key = %s, want %s", tc.name, p.Code, api.CodeIdempotencyReused)
		}
		if a := serve(s, newRequest("POST", tc.target, tc.other, key, "Authorization: Bearer other")); a.status != 202 || a.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: the same idempotency key of another API key = %d %s, want a new message", tc.name, a.status, a.body)
		}
	}
}

// idsIn are the values of the members named id, joined.
func idsIn(body []byte) string {
	var ids []string
	for _, part := range strings.Split(string(body), `"id":"`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}
