package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// story is a message that was deferred on one relay and waits.
func story() queue.Message {
	at := time.Date(2030, 1, 31, 9, 0, 0, 0, time.FixedZone("", 3600))
	failure := refusal(mailer.ClassTransient, 450, "busy")
	result := mailer.Result{ForwardPath: "ana@example.org", Failure: failure}
	return queue.Message{
		ID: "id-1", Key: "shop", MessageID: "<1@example.com>", Sender: "shop@example.com", Subject: "Hi", Size: 1834,
		Envelope: mailer.Envelope{ReversePath: "bounce@example.com", ForwardPaths: []string{"ana@example.org"}}, Created: at,
		Recipients: []queue.Recipient{{ForwardPath: "ana@example.org", State: queue.Deferred, Result: result, NextAttempt: at.Add(time.Minute)}},
		Attempts: []mailer.Attempt{{
			Relay: "main", Rung: mailer.Rung{Port: 2525}, TLS: "TLS 1.3", Auth: "PLAIN", Started: at, Duration: 412 * time.Millisecond,
			Ladder: []mailer.RungReport{
				{Rung: mailer.Rung{Port: 465, Implicit: true}, Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "refused"}},
				{Rung: mailer.Rung{Port: 2525}, Won: true},
			},
			Results: []mailer.Result{result},
		}},
	}
}

func TestGetMessage(t *testing.T) {
	q := &fakeQueue{durable: true, message: story()}
	q.message.EarlierAttempts = 12
	response := serve(newTestServer(t, q, nil), newRequest("GET", "/v1/messages/id-1", ""))
	got := read[api.Message](t, response)
	if response.status != 200 || !slices.Equal(q.scope, []string{"shop", "id-1"}) {
		t.Errorf("answer = %d, asked for %v, want the key's own", response.status, q.scope)
	}
	if got.Status != string(queue.StatusDeferred) || got.Envelope.ReversePath != "bounce@example.com" || got.Size != 1834 || got.EarlierAttempts != 12 || got.CreatedAt.Location() != time.UTC {
		t.Errorf("message = %+v", got)
	}
	wantOutcome := api.Outcome{Kind: "deferred", Class: "transient", Stage: "rcpt", ReplyCode: 450, EnhancedCode: "4.4.2", Text: "busy"}
	if r := got.Recipients[0]; r.Outcome != wantOutcome || r.Relay != "main" || r.Port != 2525 || r.NextAttemptAt.Minute() != 1 {
		t.Errorf("recipient = %+v, want %+v", r, wantOutcome)
	}
	a := got.Attempts[0]
	if a.Relay != "main" || a.Port != 2525 || a.TLS != "TLS 1.3" || a.Auth != "PLAIN" || a.DurationMS != 412 || a.Results[0].Outcome != wantOutcome {
		t.Errorf("attempt = %+v", a)
	}
	if want := []api.Rung{{Port: 465, Mode: "tls", Stage: "connect", Text: "refused"}, {Port: 2525, Mode: "starttls", Won: true}}; !slices.Equal(a.Ladder, want) {
		t.Errorf("ladder = %+v, want %+v", a.Ladder, want)
	}
}

// TestGetKept: a message says how long its content is kept, and which setting says so.
func TestGetKept(t *testing.T) {
	until := time.Date(2030, 2, 7, 8, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		states []queue.State
		kept   queue.Kept
		want   api.Kept
	}{
		{[]queue.State{queue.Delivered, queue.Deferred}, queue.Kept{}, api.Kept{Kept: true}},
		{[]queue.State{queue.Delivered, queue.Delivered}, queue.Kept{Gone: true}, api.Kept{Setting: api.KeepsDelivered}},
		{[]queue.State{queue.Canceled}, queue.Kept{Until: until}, api.Kept{Kept: true, Until: until, Setting: api.KeepsDelivered}},
		{[]queue.State{queue.Delivered, queue.Bounced}, queue.Kept{Until: until}, api.Kept{Kept: true, Until: until, Setting: api.KeepsFailed}},
		{[]queue.State{queue.Expired}, queue.Kept{Until: until}, api.Kept{Kept: true, Until: until, Setting: api.KeepsFailed}},
	} {
		q := &fakeQueue{durable: true, message: story()}
		q.message.Kept, q.message.Recipients = tc.kept, nil
		for _, state := range tc.states {
			q.message.Recipients = append(q.message.Recipients, queue.Recipient{ForwardPath: "ana@example.org", State: state})
		}
		got := read[api.Message](t, serve(newTestServer(t, q, nil), newRequest("GET", "/v1/messages/id-1", ""))).Content
		if got == nil || *got != tc.want {
			t.Errorf("%v, %+v: content = %+v, want %+v", tc.states, tc.kept, got, tc.want)
		}
	}
}

func TestGetMessages(t *testing.T) {
	back := time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)
	q := &fakeQueue{durable: true, page: queue.Page{Messages: []queue.Message{story()}, Next: "c2", SearchedBackTo: back}}
	s := newTestServer(t, q, nil)
	target := "/v1/messages?status=failed&recipient=Ana%20%3Cana@ex%C3%A4mple.org%3E&sender=shop@example.com&tag=order:10:42&message_id=%3C1@example.com%3E&since=2030-01-01T00:00:00Z&until=2030-02-01T00:00:00Z&limit=7&cursor=c1"
	got := read[api.Page](t, serve(s, newRequest("GET", target, "")))
	if len(got.Messages) != 1 || got.Next != "c2" || got.SearchedBackTo != back {
		t.Errorf("page = %+v", got)
	}
	want := queue.Filter{
		Key: "shop", Status: queue.StatusFailed, Recipient: "ana@xn--exmple-cua.org", Sender: "shop@example.com", MessageID: "<1@example.com>", TagName: "order", TagValue: "10:42",
		Since: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC),
	}
	if q.filter != want || q.limit != 7 || q.cursor != "c1" {
		t.Errorf("List(%+v, %d, %q), want %+v, 7, c1", q.filter, q.limit, q.cursor, want)
	}
	serve(s, newRequest("GET", "/v1/messages", "", "Authorization: Bearer other"))
	if q.filter != (queue.Filter{Key: "blog"}) || q.limit != api.DefaultPage || q.cursor != "" {
		t.Errorf("List(%+v, %d, %q), want the other key's, %d", q.filter, q.limit, q.cursor, api.DefaultPage)
	}
}

// TestFilterByReason: messages are selected by why they failed, in a list and for a retry.
func TestFilterByReason(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	want := queue.Filter{Key: "shop", Relay: "smtp.example.com", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "<*> unknown"}
	for _, r := range []*http.Request{
		newRequest("GET", "/v1/messages?relay=smtp.example.com&reply_code=550&enhanced_code=5.1.1&text=%3D%3C*%3E+unknown", ""),
		newRequest("POST", "/v1/messages/retry", `{"relay":"smtp.example.com","reply_code":550,"enhanced_code":"5.1.1","text":"=<*> unknown"}`),
	} {
		q.filter = queue.Filter{}
		if a := serve(s, r); a.status != http.StatusOK || q.filter != want {
			t.Errorf("%s = %d %s with %+v, want %+v", r.Method, a.status, text(a), q.filter, want)
		}
	}
	for _, tc := range []struct {
		path, body, did, answer string
		filter                  queue.Filter
		limit                   int
		cursor                  string
	}{
		{"retry", `{"relay":"x","limit":10000,"cursor":"c1"}`, "retry", `"retried":17,"matched":17,"next":"c2"`, queue.Filter{Key: "shop", Relay: "x"}, 10_000, "c1"},
		{"cancel", `{"relay":"x","limit":1,"cursor":"c1"}`, "cancel", `"canceled":17,"matched":17,"next":"c2"`, queue.Filter{Key: "shop", Relay: "x"}, 1, "c1"},
		{"cancel", `{"status":"queued"}`, "cancel", `"canceled":17`, queue.Filter{Key: "shop", Status: queue.StatusQueued}, 0, ""},
		{"retry", `{"relay":"x","dry_run":true,"cursor":"c1"}`, "count", `{"matching":17,"next":"c2"}`, queue.Filter{Key: "shop", Relay: "x"}.Retryable(), 0, "c1"},
		{"cancel", `{"relay":"x","dry_run":true}`, "count", `{"matching":17,"next":"c2"}`, queue.Filter{Key: "shop", Relay: "x"}.Cancelable(), 0, ""},
	} {
		*q = fakeQueue{durable: true, retried: 17, next: "c2"}
		a := serve(s, newRequest("POST", "/v1/messages/"+tc.path, tc.body))
		if a.status != http.StatusOK || q.did != tc.did || q.filter != tc.filter || q.limit != tc.limit || q.cursor != tc.cursor || !strings.Contains(strings.ReplaceAll(text(a), `": `, `":`), tc.answer) {
			t.Errorf("%s %s = %d %s, asked %s %+v, %d, %q", tc.path, tc.body, a.status, text(a), q.did, q.filter, q.limit, q.cursor)
		}
	}
	for body, say := range map[string]string{
		`{}`: "Name at least one of status, id,", `{"dry_run":true}`: "Name at least one", `{"limit":5}`: "Name at least one", `{"relay":"x","limit":10001}`: "limit",
		`{"relay":"x","limit":-1}`: "limit", `{"key":"blog"}`: "admin", `{"filter":"x"}`: "filter", `{"id":"x"}`: "first 4 or more",
	} {
		for _, path := range []string{"retry", "cancel"} {
			q.did = ""
			if a := serve(s, newRequest("POST", "/v1/messages/"+path, body)); a.status < 400 || q.did != "" || !strings.Contains(text(a), say) {
				t.Errorf("%s %s = %d %s, want a refusal with %q", path, body, a.status, text(a), say)
			}
		}
	}
	for text, want := range map[string]string{
		"unknown": "*unknown*", "*no such*": "*no such*", "no such * user": "*no such * user*", "=User unknown": "User unknown", "=*unknown": "*unknown", "==": "=", "*=x": "*=x*", "*": "**",
	} {
		if f, bad := readFilter(api.Filter{Text: text}, "shop"); f.Text != want || len(bad) > 0 {
			t.Errorf("readFilter(text %q) looks for %q, %v, want %q", text, f.Text, bad, want)
		}
	}
	if f, bad := readFilter(api.Filter{Text: "="}, "shop"); f.Text != "" || !f.NoText || !f.ByReply() || len(bad) > 0 {
		t.Errorf("readFilter of an empty whole text = %+v, %v, want replies without a text", f, bad)
	}
	// The store would look for what is before a NUL alone, and find more.
	for _, r := range []*http.Request{newRequest("GET", "/v1/messages?text=%00unknown", ""), newRequest("POST", "/v1/messages/cancel", `{"text":"\u0000unknown"}`)} {
		if a := serve(s, r); a.status != http.StatusBadRequest || !strings.Contains(text(a), "may have no NUL") {
			t.Errorf("a text with a NUL: %d %s", a.status, text(a))
		}
	}
	long := strings.Repeat("x", maxFilterText+1)
	for field, r := range map[string]*http.Request{
		"reply_code": newRequest("GET", "/v1/messages?reply_code=250", ""), "reply_code ": newRequest("GET", "/v1/messages?reply_code=x", ""),
		"text": newRequest("GET", "/v1/messages?text="+long, ""), "text ": newRequest("POST", "/v1/messages/retry", `{"text":"`+long+`"}`),
	} {
		if a := serve(s, r); a.status != http.StatusBadRequest || !strings.Contains(strings.ReplaceAll(text(a), `": "`, `":"`), `"field":"`+strings.TrimSpace(field)+`"`) {
			t.Errorf("%s %s = %d %s, want 400 about %s", r.Method, r.URL.Path, a.status, text(a), field)
		}
	}
}

// TestFilterByRecipient: domain, state of a recipient and id select messages, beside every
// other filter; each is refused where it cannot be meant.
func TestFilterByRecipient(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	want := queue.Filter{
		Key: "shop", State: queue.Bounced, ID: "01a2f", Domain: "xn--exmple-cua.org", RecipientState: queue.Deferred, Recipient: "a@Example.org", Sender: "b@example.com",
		ReplyCode: 450, TagName: "order",
	}
	for _, r := range []*http.Request{
		newRequest("GET", "/v1/messages?status=bounced&id=01A2F&domain=ex%C3%A4mple.org&recipient_state=deferred&recipient=a@Example.org&sender=b@example.com&reply_code=450&tag=order", ""),
		newRequest("POST", "/v1/messages/retry", `{"status":"bounced","id":"01a2f","domain":"exämple.org","recipient_state":"deferred","recipient":"a@Example.org","sender":"b@example.com","reply_code":450,"tag":"order"}`),
	} {
		q.filter = queue.Filter{}
		if a := serve(s, r); a.status != http.StatusOK || q.filter != want {
			t.Errorf("%s = %d %s with %+v, want %+v", r.Method, a.status, text(a), q.filter, want)
		}
	}
	for query, field := range map[string]string{
		"id=01a": "id", "id=xyzw": "id", "domain=a@example.org": "domain", "domain=%40example.org": "domain", "domain=a..b": "domain", "domain=*.org": "domain",
		"since=03/04/2030": "since", "until=2030-02-30": "until", "until=yesterday": "until", "recipient_state=failed": "recipient_state", "recipient_state=Bounced": "recipient_state",
	} {
		if a := serve(s, newRequest("GET", "/v1/messages?"+query, "")); a.status != http.StatusBadRequest || !strings.Contains(strings.ReplaceAll(text(a), `": "`, `":"`), `"field":"`+field+`"`) {
			t.Errorf("GET /v1/messages?%s = %d %s, want 400 about %s", query, a.status, text(a), field)
		}
	}
}

// TestFilterBySubject: words of the subject select messages, in lists, counts and commands; none selects nothing.
func TestFilterBySubject(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	want := queue.Filter{Key: "shop", Subject: "Größe 1042"}
	for _, r := range []*http.Request{
		newRequest("GET", "/v1/messages?"+api.Filter{Subject: want.Subject}.Query().Encode(), ""),
		newRequest("GET", "/v1/messages/count?subject=Gr%C3%B6%C3%9Fe+1042", ""),
		newRequest("POST", "/v1/messages/retry", `{"subject":"Größe 1042"}`),
		newRequest("POST", "/v1/messages/cancel", `{"subject":"Größe 1042","limit":1}`),
	} {
		q.filter = queue.Filter{}
		if a := serve(s, r); a.status != http.StatusOK || q.filter != want {
			t.Errorf("%s %s = %d %s with %+v, want %+v", r.Method, r.URL.Path, a.status, text(a), q.filter, want)
		}
	}
	for _, words := range []string{" ", "\u00a0\t", strings.Repeat("x", 257), "a b c d e f g h i j k l m n o p q r s t u", "a\x00b", "\xff"} {
		q.limit = 0
		target := "/v1/messages?" + url.Values{"subject": {words}}.Encode()
		if a := serve(s, newRequest("GET", target, "")); a.status != http.StatusBadRequest || !strings.Contains(text(a), `"subject"`) || q.limit != 0 {
			t.Errorf("GET %s = %d %s, want 400 about the subject", target, a.status, text(a))
		}
	}
	if a := serve(s, newRequest("POST", "/v1/messages/cancel", `{"subject":" "}`)); a.status != http.StatusBadRequest {
		t.Errorf("cancel of subjects without a word = %d %s, want 400", a.status, text(a))
	}
}

// TestFilterByDate: a date is that whole day in UTC.
func TestFilterByDate(t *testing.T) {
	q := &fakeQueue{durable: true}
	serve(newTestServer(t, q, nil), newRequest("GET", "/v1/messages?since=2030-01-30&until=2030-01-31", ""))
	if want := (queue.Filter{Key: "shop", Since: time.Date(2030, 1, 30, 0, 0, 0, 0, time.UTC), Until: time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC)}); q.filter != want {
		t.Errorf("filter = %+v, want %+v", q.filter, want)
	}
}

func TestRetryAndCancel(t *testing.T) {
	q := &fakeQueue{durable: true, message: story(), retried: 17, content: []byte("From: a\r\n")}
	s := newTestServer(t, q, nil)
	for _, tc := range []struct{ method, target string }{{"POST", "/v1/messages/id-2/retry"}, {"DELETE", "/v1/messages/id-2"}} {
		response := serve(s, newRequest(tc.method, tc.target, ""))
		if got := read[api.Receipt](t, response); response.status != 200 || got.ID != "id-1" || !slices.Equal(q.scope, []string{"shop", "id-2"}) {
			t.Errorf("%s %s = %d %+v, scope %v", tc.method, tc.target, response.status, got, q.scope)
		}
	}
	response := serve(s, newRequest("POST", "/v1/messages/retry", `{"status":"failed"}`))
	if got := read[map[string]int](t, response); got["retried"] != 17 || q.filter != (queue.Filter{Key: "shop", Status: queue.StatusFailed}) {
		t.Errorf("retry by filter = %v of %+v", got, q.filter)
	}
	q.next = "failed.c2"
	response = serve(s, newRequest("POST", "/v1/messages/retry", `{"status":"failed","cursor":"failed.c1"}`))
	if got := read[api.Retried](t, response); got.Next != "failed.c2" || q.cursor != "failed.c1" || q.filter != (queue.Filter{Key: "shop", Status: queue.StatusFailed}) {
		t.Errorf("retry by filter that goes on = %+v of %+v from %q", got, q.filter, q.cursor)
	}
	response = serve(s, newRequest("GET", "/v1/messages/id-3/content", ""))
	if b := response.body; string(b) != "From: a\r\n" || response.header.Get("Content-Type") != "message/rfc822" || q.scope[1] != "id-3" {
		t.Errorf("content = %q, %v", b, response.header)
	}
}

// TestContentBudget: a message that is asked for takes its share of the memory for
// requests under way.
func TestContentBudget(t *testing.T) {
	m := story()
	m.Size = 1 << 20
	s := newTestServer(t, &fakeQueue{durable: true, message: m, content: make([]byte, m.Size)}, func(o *Options) { o.MaxInFlight = 1 << 20 })
	others := otherShare(s)
	others.Grow(1)
	response := serve(s, newRequest("GET", "/v1/messages/id-1/content", ""))
	if p := read[api.Problem](t, response); p.Code != api.CodeBusy {
		t.Errorf("content with the budget in use = %+v, want busy", p)
	}
	others.Close()
	if got := serve(s, newRequest("GET", "/v1/messages/id-1/content", "")); got.status != 200 || len(got.body) != 1<<20 {
		t.Errorf("content = %d, %d octets, want 200, 1 MiB", got.status, len(got.body))
	}
	if !otherShare(s).Grow(1 << 20) {
		t.Error("the request kept its share of the budget after it was answered")
	}
}

// TestAnswerBudget: a long answer takes its share of the memory for requests under way,
// and a short one needs none.
func TestAnswerBudget(t *testing.T) {
	long := story()
	long.Recipients = slices.Repeat(long.Recipients, 100)
	many := story()
	many.Attempts[0].Results = slices.Repeat(many.Attempts[0].Results, 100)
	for name, c := range map[string]struct {
		messages []queue.Message
		needs    bool
	}{
		"a message": {[]queue.Message{story()}, false}, "many recipients": {[]queue.Message{long}, true},
		"many results": {[]queue.Message{many}, true}, "many messages": {slices.Repeat([]queue.Message{story()}, 100), true},
	} {
		q := &fakeQueue{durable: true, message: c.messages[0], page: queue.Page{Messages: c.messages}}
		s := newTestServer(t, q, func(o *Options) { o.MaxInFlight = 1 << 20 })
		targets := []string{"/v1/messages"}
		if len(c.messages) == 1 {
			targets = append(targets, "/v1/messages/id-1")
		}
		for _, target := range targets {
			others := otherShare(s)
			others.Grow(1 << 20)
			if got := serve(s, newRequest("GET", target, "")); (got.status == 503) != c.needs {
				t.Errorf("%s: GET %s with the budget in use = %d, want 503: %v", name, target, got.status, c.needs)
			}
			others.Close()
			if got := serve(s, newRequest("GET", target, "")); got.status != 200 {
				t.Errorf("%s: GET %s = %d, want 200", name, target, got.status)
			}
			if used := s.budget.Used(); used != 0 {
				t.Errorf("%s: GET %s keeps %d octets of the budget", name, target, used)
			}
		}
	}
}

// fakeRelays counts its checks, which take a second.
type fakeRelays struct {
	mu            sync.Mutex
	checks        int
	running, most int
	sender        string // of the last check
}

func (r *fakeRelays) Status() []RelayStatus {
	ladder := []mailer.Rung{{Port: 587}, {Port: 465, Implicit: true}}
	return []RelayStatus{
		{
			Name: "a", Host: "a.example", Ladder: ladder, Serving: ladder[1], Senders: []string{"example.com"},
			Connections:        smtp.Connections{Open: 3, Limit: 4, Max: 8, Waiting: 5, Reason: "messages waited"},
			Turns:              smtp.Turns{Rate: units.Rate{Messages: 20, Per: time.Minute}, Waiting: 3, Next: nextTurn, Used: 7},
			CertificateExpires: nextTurn, LastDelivery: nextTurn.In(time.FixedZone("", 3600)),
		},
		{
			Name: "b", PausedUntil: time.Now().Add(time.Minute), Failure: refusal(mailer.ClassRelay, 535, "no"),
			Logins: smtp.LoginState{Refused: 2, Next: nextTurn, Failure: refusal(mailer.ClassRelay, 535, "no")},
			Advice: []api.Advice{{Ports: []int{587}, Found: "the relay refused the login.", Do: "Log in again."}},
			OAuth2: &api.OAuth2{Account: "jo@example.com", TokenExpires: nextTurn, LoginExpires: nextTurn, Error: "no", Retry: nextTurn, Warnings: []string{"login_expires"}},
		},
		{Name: "c", Failure: refusal(mailer.ClassRelay, 0, "")},
		{Name: "d"},
	}
}

func (r *fakeRelays) Check(ctx context.Context, sender string) []RelayReport {
	r.mu.Lock()
	r.checks++
	r.running++
	r.most = max(r.most, r.running)
	r.sender = sender
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.running--
	}()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return []RelayReport{{Report: smtp.Report{Name: "a", OK: true}}, {Report: smtp.Report{Name: "b"}}}
}

var nextTurn = time.Date(2026, 11, 22, 8, 30, 0, 0, time.UTC)

func TestGetRelays(t *testing.T) {
	s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Relays = &fakeRelays{} })
	got := read[api.Relays](t, serve(s, newRequest("GET", "/v1/relays", ""))).Relays
	for i, want := range []string{"up", "paused", "failing", "unknown"} {
		if got[i].Status != want || (got[i].Failure != nil) != (i == 1 || i == 2) {
			t.Errorf("relay %d = %+v, want %s", i, got[i], want)
		}
	}
	if want := []api.RelayRung{{Port: 587, Mode: "starttls"}, {Port: 465, Mode: "tls", Serving: true}}; !slices.Equal(got[0].Ladder, want) {
		t.Errorf("ladder = %+v, want %+v", got[0].Ladder, want)
	}
	if c, want := got[0].Connections, (api.Connections{Open: 3, Limit: 4, Max: 8, Waiting: 5, Reason: "messages waited"}); c != want {
		t.Errorf("connections = %+v, want %+v", c, want)
	}
	if r := got[0].Rate; r == nil || r.Used == nil || *r.Used != 7 {
		t.Fatalf("rate = %+v, want 7 used", r)
	}
	if got[0].CertificateExpires != nextTurn || got[0].LastDelivery != nextTurn || !got[1].CertificateExpires.IsZero() || !got[1].LastDelivery.IsZero() {
		t.Errorf("relays = %+v, want a certificate and a delivery of the first", got)
	}
	if r, want := got[0].Rate, (api.Rate{Messages: 20, Per: "1m0s", Waiting: 3, Next: nextTurn, Used: got[0].Rate.Used}); *r != want || got[1].Rate != nil {
		t.Errorf("rates = %+v, %+v; want %+v and none", r, got[1].Rate, want)
	}
	if f := got[1].Failure; f.ReplyCode != 535 || f.Kind != "" || got[1].PausedUntil.IsZero() {
		t.Errorf("paused relay = %+v, %+v", got[1], f)
	}
	if l := got[1].Login; l == nil || l.Refused != 2 || l.Failure.ReplyCode != 535 || l.Failure.Kind != "" || !l.Next.Equal(nextTurn) {
		t.Errorf("login at the paused relay = %+v, want 2 refused, and the next", l)
	}
	if got[0].Login != nil {
		t.Errorf("login at a relay that is up = %+v, want none", got[0].Login)
	}
}

func TestCheckIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relays := &fakeRelays{}
		s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Relays = relays })
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				response := serve(s, newRequest("POST", "/v1/relays/check", ""))
				if got := read[checkBody](t, response); response.status != 200 || !got.OK || len(got.Relays) != 2 {
					t.Errorf("check = %d %+v", response.status, got)
				}
			})
		}
		wg.Wait()
		if relays.checks != 1 {
			t.Errorf("%d checks for requests at the same time, want 1", relays.checks)
		}
		wg.Go(func() {
			if got := serve(s, newRequest("POST", "/v1/relays/check", "")).status; got != 503 {
				t.Errorf("check while shutting down = %d, want 503", got)
			}
		})
		synctest.Wait()
		if err := s.Shutdown(t.Context()); err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		wg.Wait()
	})
}

// TestChecksTakeTurns: checks for different senders never ask a relay at the same time, and
// those of one key keep no other key waiting.
func TestChecksTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relays := &fakeRelays{}
		s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Relays = relays })
		var wg sync.WaitGroup
		var done, busy atomic.Int32
		for i := range 30 {
			wg.Go(func() {
				switch got := serve(s, newRequest("POST", fmt.Sprintf("/v1/relays/check?from=a%d@example.com", i), "")).status; got {
				case 200:
					done.Add(1)
				case 503:
					busy.Add(1)
				default:
					t.Errorf("check = %d, want 200 or 503", got)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		r := newRequest("POST", "/v1/relays/check?from=b@example.com", "")
		r.Header.Set("Authorization", "Bearer other")
		if got, took := serve(s, r).status, time.Since(began); got != 200 || took > 2*time.Second {
			t.Errorf("check of another key = %d after %v, want 200 after 2 s at most", got, took)
		}
		wg.Wait()
		if relays.most != 1 || done.Load() != 1 || busy.Load() != 29 {
			t.Errorf("%d checks at once, %d done and %d busy, want 1, 1 and 29", relays.most, done.Load(), busy.Load())
		}
		if got := serve(s, newRequest("POST", "/v1/relays/check?from=c@example.com", "")).status; got != 200 {
			t.Errorf("check in the end = %d, want 200", got)
		}
	})
}

// The parameter from names the sender that a check tries, as far as the key may use it.
func TestCheckFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relays := &fakeRelays{}
		s := newTestServer(t, &fakeQueue{}, func(o *Options) {
			o.Relays, o.Keys = relays, []keys.Entry{{Name: "shop", Secret: testKey, Senders: []string{"example.com"}}}
		})
		for _, tc := range []struct {
			query, sender string
			status        int
		}{
			{"", "", 200},
			{"?from=", "", 200},
			{"?from=Shop+%3Cshop%40example.com%3E", "shop@example.com", 200},
			{"?from=shop", "", 400},
			{"?from=a%40example.com%0D%0ARSET", "", 400},
			{"?from=a%40other.example", "", 403},
			{"?FROM=shop%40example.com", "", 400},
			{"?from=shop%40example.com&from=a%40example.com", "", 400},
			{"?from=shop%40example.com&relay=1", "", 400},
			{"?from=shop%40example.com;x", "", 400},
		} {
			relays.sender = ""
			if got := serve(s, newRequest("POST", "/v1/relays/check"+tc.query, "")); got.status != tc.status || relays.sender != tc.sender {
				t.Errorf("check%s = %d with the sender %q, want %d with %q", tc.query, got.status, relays.sender, tc.status, tc.sender)
			}
		}
	})
}

// TestCountTakesNoLimit: a limit would be of no effect, and is refused as what a route does not know.
func TestCountTakesNoLimit(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	if a := serve(s, newRequest("GET", "/v1/messages/count?limit=5", "")); a.status != 400 || !strings.Contains(text(a), "is not a parameter of this route") {
		t.Errorf("count with a limit = %d %s, want a refusal", a.status, text(a))
	}
	if a := serve(s, newRequest("GET", "/v1/messages/count?sender=a@example.org", "")); a.status != 200 {
		t.Errorf("count = %d %s", a.status, text(a))
	}
}
