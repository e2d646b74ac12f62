package ui

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"mailsidecar/api"
)

// mailDoor is a server with messages. It notes what pages ask of it.
type mailDoor struct {
	t        *testing.T
	answers  map[string]func(http.ResponseWriter, *http.Request) // by "METHOD /path"
	asked    []string                                            // METHOD path?query body
	readOnly bool
}

func (d *mailDoor) Keyless() bool                            { return true }
func (d *mailDoor) Find(string) (string, bool)               { return "", false }
func (d *mailDoor) MAC(_, text string) []byte                { return []byte("mac of " + text) }
func (d *mailDoor) Roles(string) (send, read, admin bool)    { return !d.readOnly, true, !d.readOnly }
func (d *mailDoor) Stranger(*http.Request)                   {}
func (d *mailDoor) Enter(*http.Request, string) *api.Problem { return nil }

func (d *mailDoor) Serve(w http.ResponseWriter, r *http.Request, _ string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Error(err)
	}
	if !strings.HasPrefix(r.URL.Path, "/v1/stats") && !strings.HasPrefix(r.URL.Path, "/v1/relays") && !strings.HasPrefix(r.URL.Path, "/v1/drain") {
		d.asked = append(d.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	}
	if f := d.answers[r.Method+" "+r.URL.Path]; f != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		f(w, r)
		return
	}
	problemAnswer(404, api.CodeMessageNotFound, "There is no such message.")(w, r)
}

// TestTroubleOnce: what the detail of an error says is not said again for its fields.
func TestTroubleOnce(t *testing.T) {
	u, _ := newMailDoor(t, nil)
	v := &visit{ui: u, ctx: t.Context()}
	p := api.Problem{Title: "A parameter is not valid", Detail: "to: an address needs an @", Code: api.CodeInvalidParameter, Errors: []api.FieldError{{Field: "to", Message: "an address needs an @"}, {Field: "again", Message: "is odd"}}}
	if got := v.troubleOf(&answerError{p}); len(got.Fields) != 1 || got.Fields[0].Field != "again" {
		t.Errorf("troubleOf has the fields %v, want those that the detail does not tell", got.Fields)
	}
	p.Code = api.CodeAlreadyResent
	if got := v.troubleOf(&answerError{p}); len(got.Fields) != 0 {
		t.Errorf("troubleOf has the fields %v of what the page asks", got.Fields)
	}
}

func jsonAnswer(v any) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
}

func problemAnswer(status int, code api.Code, detail string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Problem{Title: "Title", Status: status, Detail: detail, Code: code})
	}
}

func textAnswer(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

type answersOf map[string]func(http.ResponseWriter, *http.Request)

func newMailDoor(t *testing.T, answers answersOf) (*UI, *mailDoor) {
	d := &mailDoor{t: t, answers: map[string]func(http.ResponseWriter, *http.Request){
		"GET /v1/stats": jsonAnswer(api.Stats{Statuses: map[string]int64{"delivered": 3120, "deferred": 2, "failed": 512}}),
	}}
	maps.Copy(d.answers, answers)
	return New(d, Options{Prefix: "/mail"}), d
}

// visitPage asks for a page, or sends a form.
func visitPage(t *testing.T, u *UI, target string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	if form != nil {
		form.Set(tokenField, u.token("", ""))
		r = httptest.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	u.ServeHTTP(w, r)
	return w
}

// textOf is the text of a page, with a blank between elements.
func textOf(t *testing.T, page string) string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func wantTexts(t *testing.T, what, page string, texts ...string) {
	t.Helper()
	got := textOf(t, page)
	for _, text := range texts {
		if not, ok := strings.CutPrefix(text, "!"); ok && strings.Contains(got, not) {
			t.Errorf("%s has %q: %s", what, not, got)
		} else if !ok && !strings.Contains(got, text) {
			t.Errorf("%s has no %q: %s", what, text, got)
		}
	}
}

func hrefs(t *testing.T, page string) (all []string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		for _, a := range n.Attr {
			if slices.Contains(addressesInPages, a.Key) {
				all = append(all, a.Val)
			}
		}
	}
	return all
}

var addressesInPages = []string{"href", "src", "action", "formaction", "data", "poster", "srcset", "ping", "background", "cite"}

func someMessage() api.Message {
	at := time.Date(2026, 11, 29, 15, 4, 5, 0, time.UTC)
	failure := api.Outcome{Kind: "bounced", Class: "permanent", Stage: "rcpt", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "no such user here, and a text that is far longer than a list can show", Found: "It does not exist.", Do: "Correct it."}
	later := api.Outcome{Kind: "deferred", Class: "transient", Stage: "rcpt", ReplyCode: 450, Text: "busy"}
	return api.Message{
		ID: "0198a2f3-7d1e-7c40-9f0e-3b1d6a1f2c55", Status: "deferred", MessageID: "<1@example.com>", Sender: "shop@example.com", Key: "shop", Subject: "Your order",
		Size: 1834, Priority: "normal", Tags: map[string]string{"order": "1042"}, Envelope: api.Envelope{ReversePath: "bounce@example.com", ForwardPaths: []string{"a@example.org", "bad@example.org"}},
		CreatedAt: at, ExpiresAt: at.AddDate(1, 0, 0),
		Recipients: []api.Recipient{
			{Email: "a@example.org", State: "deferred", Outcome: later, Relay: "main", Port: 2525, NextAttemptAt: at.AddDate(0, 6, 0)},
			{Email: "bad@example.org", State: "bounced", Outcome: failure, Relay: "main", Port: 2525},
		},
		ResentAs: []string{"0198a2f3-0000-7c40-9f0e-3b1d6a1f2c55"},
		Waits:    []api.Wait{{Reason: "retry", Recipients: 1, Until: at.AddDate(0, 6, 0), Relay: "main", Found: "450 busy", Do: "Nothing has to be done."}},
		Attempts: []api.Attempt{{
			Relay: "main", Why: "first", Port: 2525, TLS: "TLS 1.3", Auth: "PLAIN", StartedAt: at.Add(time.Second), DurationMS: 412,
			Ladder:  []api.Rung{{Port: 587, Mode: "starttls", Stage: "connect", Text: "no answer", DurationMS: 400}, {Port: 2525, Mode: "starttls", Won: true}},
			Results: []api.Result{{Email: "a@example.org", Outcome: later}, {Email: "bad@example.org", Outcome: failure}},
		}},
		EarlierAttempts: 3,
	}
}

// TestMessagesPage: what the list shows, and where it leads.
func TestMessagesPage(t *testing.T) {
	rows := api.Page{Messages: []api.Message{someMessage()}}
	more := rows
	more.Next = "c2"
	searched := api.Page{Next: "c9", SearchedBackTo: time.Now().Add(-time.Hour)}
	for name, tc := range map[string]struct {
		target string
		answer func(http.ResponseWriter, *http.Request)
		asked  string // of the API; empty: no list is asked for
		texts  []string
		links  []string
	}{
		"all": {
			"/ui/messages", jsonAnswer(rows), "GET /v1/messages?limit=50",
			[]string{"All 3,634", "Waiting 2", "Held 0", "Failed 512", "Sent 3,120", "!Partly", "shop@example.com", "a@example.org +1", "Your order", "deferred", "450 busy", "all 3,634 that match", "Retry", "!Older", "!Newest"},
			[]string{"/mail/ui/messages/0198a2f3-7d1e-7c40-9f0e-3b1d6a1f2c55", "/mail/ui/messages?q=status%3Awaiting"},
		},
		"none": {"/ui/messages", jsonAnswer(api.Page{}), "GET /v1/messages?limit=50", []string{"There are no messages yet.", "!Retry"}, nil},
		"searched": {
			"/ui/messages?q=ana@example.org+status:failed", jsonAnswer(rows), "GET /v1/messages?limit=50&recipient=ana%40example.org&status=failed",
			[]string{"to ana@example.org", "status failed", "the 1 that matches", "!512"},
			[]string{"/mail/ui/messages?q=status%3Afailed", "/mail/ui/messages?q=ana%40example.org", "/mail/ui/messages?q=ana%40example.org+status%3Adelivered"},
		},
		"no match":  {"/ui/messages?q=lost", jsonAnswer(api.Page{}), "GET /v1/messages?limit=50&subject=lost", []string{"No message matches.", "Show all messages"}, nil},
		"fault":     {"/ui/messages?q=colour:red", nil, "", []string{"The search was not made", `"colour:" is no name`, "!No message", "!Retry"}, nil},
		"next page": {"/ui/messages?q=invoice", jsonAnswer(more), "GET /v1/messages?limit=50&subject=invoice", []string{"Older", "!Newer", "all that match"}, []string{"/mail/ui/messages?back=&cursor=c2&q=invoice"}},
		"third page": {
			"/ui/messages?cursor=c3&back=&back=c2", jsonAnswer(more), "GET /v1/messages?cursor=c3&limit=50",
			[]string{"Older", "Newer", "Newest"},
			[]string{"/mail/ui/messages?back=&back=c2&back=c3&cursor=c2", "/mail/ui/messages?back=&cursor=c2", "/mail/ui/messages"},
		},
		"searched back": {
			"/ui/messages?q=invoice", jsonAnswer(searched), "GET /v1/messages?limit=50&subject=invoice",
			[]string{"None of the messages that were looked at so far matches.", "Searched back to 1 h ago", "Search further"},
			[]string{"/mail/ui/messages?back=&cursor=c9&q=invoice"},
		},
		"no turn": {
			"/ui/messages?q=invoice", problemAnswer(503, api.CodeTooManySearches, "Many searches."), "GET /v1/messages?limit=50&subject=invoice",
			[]string{"Many searches.", "All", "!No message"},
			nil,
		},
		"another's key": {"/ui/messages?q=key:other", problemAnswer(403, api.CodeRoleRequired, "The key may not."), "GET /v1/messages?key=other&limit=50", []string{"The key may not.", "MAILSIDECAR_KEY_ROLES"}, nil},
	} {
		u, d := newMailDoor(t, answersOf{"GET /v1/messages": tc.answer})
		w := visitPage(t, u, tc.target, nil)
		if got := strings.Join(d.asked, "\n"); w.Code != 200 || got != tc.asked {
			t.Errorf("%s: %d, asked for %q, want %q", name, w.Code, got, tc.asked)
		}
		wantTexts(t, name, w.Body.String(), tc.texts...)
		links := hrefs(t, w.Body.String())
		for _, l := range tc.links {
			if !slices.Contains(links, l) {
				t.Errorf("%s has no link to %s: %q", name, l, links)
			}
		}
	}
}

// TestRefresh: a page that is open asks again and again for what is cheap, but makes no search, and reads no content.
func TestRefresh(t *testing.T) {
	u, d := newMailDoor(t, answersOf{"GET /v1/messages": jsonAnswer(api.Page{Messages: []api.Message{someMessage()}}), "GET " + messagePath: jsonAnswer(someMessage()), "GET " + messagePath + "/content": textAnswer("a")})
	for target, want := range map[string]string{
		"/ui/messages": "GET /v1/messages?limit=50", "/ui/messages?q=status:waiting": "GET /v1/messages?limit=50&status=waiting", "/ui/messages?q=status:bounced": "",
		"/ui/messages?q=invoice": "", "/ui/messages?cursor=c": "", messageURL: "GET " + messagePath,
	} {
		d.asked = nil
		r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
		r.Header.Set("Mailsidecar-Refresh", "1")
		w := httptest.NewRecorder()
		u.ServeHTTP(w, r)
		if got := strings.Join(d.asked, "\n"); got != want || w.Code != 200 {
			t.Errorf("%s is refreshed by %q, %d, want %q", target, got, w.Code, want)
		}
		if marked := strings.Contains(w.Body.String(), `data-refresh="list"`); marked != (want != "" && target != messageURL) {
			t.Errorf("%s: the list is refreshed: %t", target, marked)
		}
	}
}

// TestLongList: an answer that is larger than a page may hold as a whole is a list all the same.
func TestLongList(t *testing.T) {
	m := someMessage()
	m.Recipients = slices.Repeat(m.Recipients, 500)
	u, _ := newMailDoor(t, answersOf{"GET /v1/messages": jsonAnswer(api.Page{Messages: slices.Repeat([]api.Message{m}, 50)})})
	w := visitPage(t, u, "/ui/messages", nil)
	if n := strings.Count(w.Body.String(), "data-tick>"); w.Code != 200 || n != 50 {
		t.Errorf("a list of 50 messages with 1000 recipients: %d, %d rows", w.Code, n)
	}
}

// TestActions: nothing is changed before it was asked, and then step by step.
func TestActions(t *testing.T) {
	changed := 0
	retry := func(w http.ResponseWriter, r *http.Request) {
		var b api.Bulk
		_ = json.NewDecoder(r.Body).Decode(&b)
		switch {
		case b.DryRun && b.Cursor == "":
			jsonAnswer(api.Matching{Matching: 500, Next: "d1"})(w, r)
		case b.DryRun:
			jsonAnswer(api.Matching{Matching: 12})(w, r)
		case b.Cursor == "":
			changed++
			jsonAnswer(api.Retried{Retried: 499, Matched: 500, Next: "c1"})(w, r)
		default:
			changed++
			jsonAnswer(api.Retried{Retried: 12, Matched: 12, Paused: []api.PausedRelay{{Relay: "main", Found: "It refuses the password.", Do: "Set another."}}})(w, r)
		}
	}
	u, d := newMailDoor(t, answersOf{"POST /v1/messages/retry": retry, "POST /v1/messages/cancel": problemAnswer(503, api.CodeQueueUnavailable, "The disk is full.")})
	ask := visitPage(t, u, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"all"}, "q": {"status:failed after:yesterday"}})
	wantTexts(t, "the question", ask.Body.String(), "Retry up to 512 messages?", "status:failed after:yesterday", "Retry up to 512 messages")
	if changed > 0 || len(d.asked) != 2 {
		t.Fatalf("the question asked for %q", d.asked)
	}
	form := hiddenFields(t, ask.Body.String())
	if filter, _ := url.ParseQuery(form.Get("filter")); filter.Get("status") != "failed" || filter.Get("since") == "" || filter.Get("until") == "" {
		t.Errorf("the filter = %v, want one that means the same at each step", filter)
	}
	for _, q := range []string{"until:2099-01-01", "before:2099-01-01", "status:failed"} { // what comes after the question was not counted
		ask := visitPage(t, u, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"all"}, "q": {q}})
		filter, _ := url.ParseQuery(hiddenFields(t, ask.Body.String()).Get("filter"))
		if until, err := time.Parse(time.RFC3339Nano, filter.Get("until")); err != nil || until.After(time.Now()) {
			t.Errorf("%s: the filter = %v, want none of the messages that are accepted from now on", q, filter)
		}
	}
	step := visitPage(t, u, "/ui/messages/actions", form)
	wantTexts(t, "the first step", step.Body.String(), "Retried 499 of 512", "Go on", "1 of the messages had nothing to retry")
	form = hiddenFields(t, step.Body.String())
	end := visitPage(t, u, "/ui/messages/actions", form)
	wantTexts(t, "the last step", end.Body.String(), "Retried: 511", "It refuses the password.", "Set another.", "Back to the list", "!Go on")
	if changed != 2 {
		t.Errorf("%d steps, want 2", changed)
	}
	for name, tc := range map[string]struct {
		form  url.Values
		texts []string
	}{
		"fails":        {url.Values{"action": {"cancel"}, "scope": {"all"}, "q": {""}}, []string{"The disk is full.", "!Go on"}},
		"fails midway": {url.Values{"action": {"cancel"}, "scope": {"all"}, "confirm": {"yes"}, "filter": {"status=deferred"}, "done": {"3000"}, "total": {"10501"}, "cursor": {"c"}}, []string{"The disk is full.", "Canceled so far: 3,000 of 10,501", "Try again"}},
		"fault":        {url.Values{"action": {"retry"}, "scope": {"all"}, "q": {"colour:red"}}, []string{"Nothing was done", "no name"}},
		"none ticked":  {url.Values{"action": {"retry"}, "scope": {"ticked"}}, []string{"No message is ticked."}},
		"ticked":       {url.Values{"action": {"cancel"}, "scope": {"ticked"}, "id": {"a", "b"}}, []string{"Cancel 2 messages?", "cannot be undone"}},
		"no filter":    {url.Values{"action": {"retry"}, "scope": {"all"}, "confirm": {"yes"}, "filter": {"%zz"}}, []string{"did not arrive"}},
	} {
		w := visitPage(t, u, "/ui/messages/actions", tc.form)
		wantTexts(t, name, w.Body.String(), tc.texts...)
	}
	if w := visitPage(t, u, "/ui/messages/actions", url.Values{"action": {"delete"}}); w.Code != 404 {
		t.Errorf("an action that there is not = %d, want 404", w.Code)
	}
	d.readOnly = true
	if w := visitPage(t, u, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"all"}}); w.Code != 404 || changed != 2 {
		t.Errorf("a retry by a key that may only read = %d, want 404", w.Code)
	}
	if w := visitPage(t, u, "/ui/messages/actions", url.Values{"action": {"export"}, "scope": {"ticked"}, "id": {"a"}}); w.Code != 200 {
		t.Errorf("an export by a key that may only read = %d, want 200", w.Code)
	}
}

// TestTicked: ticked messages are done one by one, and what could not be done is told.
func TestTicked(t *testing.T) {
	answers := answersOf{"POST /v1/messages/b/retry": problemAnswer(409, api.CodeNothingToRetry, "x"), "POST /v1/messages/c/retry": problemAnswer(410, api.CodeContentGone, "Its content is gone.")}
	form := url.Values{"action": {"retry"}, "scope": {"ticked"}, "confirm": {"yes"}, "total": {"50"}}
	for i := range 48 {
		id := fmt.Sprint("m", i)
		answers["POST /v1/messages/"+id+"/retry"] = jsonAnswer(api.Receipt{})
		form.Add("id", id)
	}
	form["id"] = append(form["id"], "b", "c")
	u, d := newMailDoor(t, answers)
	w := visitPage(t, u, "/ui/messages/actions", form)
	wantTexts(t, "ticked", w.Body.String(), "Retried: 48 of 50", "1 of the messages had nothing to retry", "c: Its content is gone.", "Back to the list")
	if len(d.asked) != 50 {
		t.Errorf("asked %d times, want 50", len(d.asked))
	}
	answers["POST /v1/messages/m1/retry"] = problemAnswer(503, api.CodeQueueUnavailable, "The disk is full.")
	u, _ = newMailDoor(t, answers)
	form.Del(tokenField)
	w = visitPage(t, u, "/ui/messages/actions", form)
	wantTexts(t, "a fault", w.Body.String(), "The disk is full.", "Retried so far: 1 of 50", "Try again")
	if got := hiddenFields(t, w.Body.String())["id"]; len(got) != 49 || got[0] != "m1" {
		t.Errorf("ids that are left = %q", got)
	}
}

// hiddenFields are those of the page's form in the main part.
func hiddenFields(t *testing.T, page string) url.Values {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{}
	for n := range root.Descendants() {
		attr := map[string]string{}
		for _, a := range n.Attr {
			attr[a.Key] = a.Val
		}
		if n.Data == "input" && attr["type"] == "hidden" {
			form.Add(attr["name"], attr["value"])
		}
	}
	return form
}

const (
	messageURL  = "/ui/messages/0198a2f3-7d1e-7c40-9f0e-3b1d6a1f2c55"
	messagePath = "/v1/messages/0198a2f3-7d1e-7c40-9f0e-3b1d6a1f2c55"
)

// TestMessagePage: what the page of one message shows.
func TestMessagePage(t *testing.T) {
	answers := answersOf{"GET " + messagePath: jsonAnswer(someMessage()), "GET " + messagePath + "/content": textAnswer(crlf(mixed))}
	u, _ := newMailDoor(t, answers)
	for target, texts := range map[string][]string{
		"": {
			"Your order", "deferred it waits for the next try", "450 busy", "Nothing has to be done.", "shop@example.com bounces to bounce@example.com", "1.8 KB|2 KB", "order = 1042", "<1@example.com>",
			"bad@example.org bounced 550 5.1.1 no such user", "It does not exist.", "What to do: Correct it.", "Accepted from the app, and stored", "key shop", "3 earlier attempts are left out",
			"Given to the relay main", "TLS 1.3 · PLAIN · 412 ms · chosen because: first", "port 587 starttls no: no answer", "port 2525 starttls serves", "Next try", "It expires", "Schön €", "Retry now", "Cancel …", "!In place of",
		},
		"?show=html":                {"nobody learns that you look at it"},
		"?show=headers":             {"Grüße an André"},
		"?show=source":              {"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "The whole source"},
		"?show=attachments":         {"Rechnung ü.pdf application/pdf 5 B", "Nothing has looked for viruses"},
		"?resend=bad%40example.org": {"Send to another address", "In place of", "nobody: one more copy"},
		"?cancel":                   {"Cancel this message?", "Cancel 1 message"},
	} {
		w := visitPage(t, u, messageURL+target, nil)
		if w.Code != 200 {
			t.Errorf("%s = %d", target, w.Code)
		}
		for _, text := range texts {
			if a, b, ok := strings.Cut(text, "|"); ok {
				text = a
				if !strings.Contains(textOf(t, w.Body.String()), a) {
					text = b
				}
			}
			wantTexts(t, "the page with "+target, w.Body.String(), text)
		}
	}
	w := visitPage(t, u, messageURL+"?show=html", nil)
	if !strings.Contains(w.Body.String(), `<iframe class="mail" src="/mail`+messageURL+`/html" sandbox=""`) {
		t.Errorf("no sandboxed frame: %s", w.Body)
	}
	answers["GET "+messagePath+"/content"] = problemAnswer(410, api.CodeContentGone, "x")
	u, _ = newMailDoor(t, answers)
	wantTexts(t, "without content", visitPage(t, u, messageURL, nil).Body.String(), "The content is gone", "MAILSIDECAR_KEEP_BODIES")
	m := someMessage()
	for name, tc := range map[string]struct {
		kept  api.Kept
		texts []string
	}{
		"kept":    {api.Kept{Kept: true, Until: m.CreatedAt, Setting: api.KeepsDelivered}, []string{"Kept until Sun 29 Nov 2026 15:04:05 UTC, as MAILSIDECAR_KEEP_BODIES says.", "Download .eml", "Schön €"}},
		"waits":   {api.Kept{Kept: true}, []string{"Kept while the message waits."}},
		"removed": {api.Kept{Setting: api.KeepsFailed}, []string{"The content is gone; MAILSIDECAR_RETENTION says how long it is kept.", "as long as MAILSIDECAR_RETENTION says", "!Schön", "!Retry now", "!Kept"}},
	} {
		m.Content = &tc.kept
		one, d := newMailDoor(t, answersOf{"GET " + messagePath: jsonAnswer(m), "GET " + messagePath + "/content": textAnswer(crlf(mixed))})
		wantTexts(t, name, visitPage(t, one, messageURL, nil).Body.String(), tc.texts...)
		if asked := slices.Contains(d.asked, "GET "+messagePath+"/content"); asked != tc.kept.Kept {
			t.Errorf("%s: the content was asked for: %t", name, asked)
		}
	}
	if w := visitPage(t, u, "/ui/messages/0000", nil); w.Code != 404 {
		t.Errorf("a message that there is not = %d, want 404", w.Code)
	}
	u, d := newMailDoor(t, answers)
	d.readOnly = true
	wantTexts(t, "for a key that may only read", visitPage(t, u, messageURL+"?resend=x", nil).Body.String(), "!Retry now", "!Cancel", "!another address")
}

// TestMessageCommands: what the buttons do, and how an error is shown beside the message.
func TestMessageCommands(t *testing.T) {
	answers := answersOf{"GET " + messagePath: jsonAnswer(someMessage()), "GET " + messagePath + "/content": textAnswer("a")}
	ok := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		jsonAnswer(api.Receipt{ID: "new"})(w, r)
	}
	for name, tc := range map[string]struct {
		path     string
		form     url.Values
		asks     string
		answer   func(http.ResponseWriter, *http.Request)
		body     string
		status   int
		location string
		texts    []string
	}{
		"retry":        {"/retry", url.Values{}, "POST " + messagePath + "/retry", ok, "", 303, messageURL + "?done=retried", nil},
		"nothing left": {"/retry", url.Values{}, "POST " + messagePath + "/retry", problemAnswer(409, api.CodeNothingToRetry, "There is nothing to retry."), "", 409, "", []string{"There is nothing to retry.", "Your order"}},
		"cancel asks":  {"/cancel", url.Values{}, "", nil, "", 303, messageURL + "?cancel", nil},
		"cancel":       {"/cancel", url.Values{"confirm": {"yes"}}, "DELETE " + messagePath, ok, "", 303, messageURL + "?done=canceled", nil},
		"resend":       {"/resend", url.Values{"to": {" new@example.org "}, "instead_of": {"bad@example.org"}, "token": {"ABC234"}}, "POST " + messagePath + "/resend", ok, `{"to":"new@example.org","instead_of":"bad@example.org"}`, 303, "/ui/messages/new?done=resent", nil},
		"resend once more": {
			"/resend",
			url.Values{"to": {"new@example.org"}, "token": {"ABC"}},
			"POST " + messagePath + "/resend", problemAnswer(409, api.CodeAlreadyResent, "It was sent to that address before."), `{"to":"new@example.org"}`, 409, "",
			[]string{"It was sent to that address before.", "Send it there once more all the same"},
		},
		"resend again":   {"/resend", url.Values{"to": {"new@example.org"}, "again": {"yes"}}, "POST " + messagePath + "/resend", ok, `{"to":"new@example.org","again":true}`, 303, "/ui/messages/new?done=resent", nil},
		"resend to none": {"/resend", url.Values{"to": {"x"}}, "POST " + messagePath + "/resend", problemAnswer(400, api.CodeInvalidParameter, "to is wrong"), `{"to":"x"}`, 400, "", []string{"to is wrong", "!once more all the same"}},
	} {
		all := maps.Clone(answers)
		if tc.asks != "" {
			all[tc.asks] = tc.answer
		}
		u, d := newMailDoor(t, all)
		w := visitPage(t, u, messageURL+tc.path, tc.form)
		location := ""
		if tc.location != "" {
			location = "/mail" + tc.location
		}
		if w.Code != tc.status || w.Header().Get("Location") != location {
			t.Errorf("%s = %d, Location %q, want %d, %q", name, w.Code, w.Header().Get("Location"), tc.status, location)
		}
		wantTexts(t, name, w.Body.String(), tc.texts...)
		if want := strings.TrimSpace(tc.asks + " " + tc.body); tc.asks != "" && (len(d.asked) == 0 || d.asked[0] != want) {
			t.Errorf("%s asked for %q, want %q", name, d.asked, want)
		}
		if tc.asks == "" && len(d.asked) > 0 {
			t.Errorf("%s asked for %q, want nothing", name, d.asked)
		}
	}
}

// TestContentAnswers: what others have written never is a page of ours, nor has it a type that a browser would run.
func TestContentAnswers(t *testing.T) {
	message := strings.NewReplacer("note.txt", "\"=?utf-8?q?a=0D=0ASet-Cookie:_x=E2=80=AEtxt.html?=\"", "Content-Type: text/plain\nContent-Disposition: attachment", "Content-Type: text/html\nContent-Disposition: attachment").Replace(mixed)
	u, _ := newMailDoor(t, answersOf{"GET " + messagePath + "/content": textAnswer(crlf(message))})
	for target, want := range map[string]struct{ kind, policy, disposition, body string }{
		"/html":   {"text/html; charset=utf-8", framePolicy, "", "<!doctype html><p>Schön</p>"},
		"/text":   {"text/plain; charset=utf-8", filePolicy, "", "Schön €"},
		"/source": {"text/plain; charset=utf-8", filePolicy, "", "From: Shop"},
		"/eml":    {"message/rfc822", filePolicy, "attachment; filename=0198a2f3-7d1e-7c40-9f0e-3b1d6a1f2c55.eml", "From: Shop"},
		"/part/4": {"application/octet-stream", filePolicy, "attachment; filename*=utf-8''Rechnung%20%C3%BC.pdf", "%PDF-"},
		"/part/5": {"application/octet-stream", filePolicy, "attachment; filename=\"aSet-Cookie x txt.html\"", "a note"},
	} {
		w := visitPage(t, u, messageURL+target, nil)
		h := w.Header()
		disposition := h.Get("Content-Disposition")
		if target == "/part/5" { // whichever form it has
			if strings.ContainsAny(disposition, "\r\n\u202E:") || !strings.HasPrefix(disposition, "attachment; filename") {
				t.Errorf("Content-Disposition = %q", disposition)
			}
			disposition = want.disposition
		}
		if w.Code != 200 || h.Get("Content-Type") != want.kind || h.Get("Content-Security-Policy") != want.policy || disposition != want.disposition || !strings.HasPrefix(w.Body.String(), want.body) {
			t.Errorf("%s = %d, %q, %.60q", target, w.Code, h, w.Body)
		}
		if !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s is not sandboxed", target)
		}
		if frame := h.Get("X-Frame-Options"); (frame == "SAMEORIGIN") != (target == "/html") {
			t.Errorf("%s has X-Frame-Options %s", target, frame)
		}
	}
	for _, target := range []string{"/part/99", "/part/0", "/part/x", "/part/101"} {
		if w := visitPage(t, u, messageURL+target, nil); w.Code != 404 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			t.Errorf("%s = %d, want 404", target, w.Code)
		}
	}
}

// TestExport: the files of an export.
func TestExport(t *testing.T) {
	m := someMessage()
	gone := m
	gone.ID = "0198a2f3-ffff"
	evil := m
	evil.ID, evil.Subject = "../../x", "=1"
	list := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			jsonAnswer(api.Page{Messages: []api.Message{m, gone}, Next: "c1"})(w, r)
		} else {
			jsonAnswer(api.Page{Messages: []api.Message{evil}})(w, r)
		}
	}
	u, d := newMailDoor(t, answersOf{
		"GET /v1/messages": list, "GET " + messagePath: jsonAnswer(m), "GET " + messagePath + "/content": textAnswer("A: b\r\n\r\nFrom x\r\n"),
		"GET /v1/messages/0198a2f3-ffff/content": problemAnswer(410, api.CodeContentGone, "x"), "GET /v1/messages/0198a2f3-ffff": jsonAnswer(gone), "GET /v1/messages/../../x/content": textAnswer("evil"), "GET /v1/messages/count": jsonAnswer(api.Matching{Matching: 20000}),
	})
	w := visitPage(t, u, "/ui/messages/actions", url.Values{"action": {"export"}, "scope": {"all"}, "q": {"status:failed"}})
	wantTexts(t, "the question", w.Body.String(), "Export 20,000 messages?", "newest 10,000", "MAILSIDECAR_KEEP_BODIES", "Download")
	d.asked = nil
	all := url.Values{"scope": {"all"}, "filter": {"status=failed&until=2026-11-29T00%3A00%3A00Z"}}
	export := func(format string, form url.Values) *httptest.ResponseRecorder {
		form = maps.Clone(form)
		form.Set("format", format)
		return visitPage(t, u, "/ui/messages/export", form)
	}
	w = export("zip", all)
	archive, err := zip.NewReader(bytes.NewReader(w.Body.Bytes()), int64(w.Body.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
	}
	if want := []string{m.ID + ".eml", "x.eml", "LEFT-OUT.txt"}; !reflect.DeepEqual(names, want) || w.Header().Get("Content-Type") != "application/zip" || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment; filename=messages-") {
		t.Errorf("the archive has %q, header %q, want %q", names, w.Header(), want)
	}
	if want := "GET /v1/messages?limit=20&status=failed&until=2026-11-29T00%3A00%3A00Z"; d.asked[0] != want {
		t.Errorf("asked for %q, want %q", d.asked[0], want)
	}
	if got := export("mbox", all).Body.String(); strings.Count(got, "\nFrom bounce@") != 1 || !strings.Contains(got, "\n>From x\n") || !strings.HasSuffix(got, "evil\n\n") {
		t.Errorf("mbox = %q", got)
	}
	lines, err := csv.NewReader(export("csv", all).Body).ReadAll()
	if err != nil || len(lines) != 7 || lines[5][8] != "'=1" {
		t.Errorf("table = %q, %v", lines, err)
	}
	if got := export("csv", url.Values{"scope": {"ticked"}, "id": {m.ID, "lost"}}).Body.String(); strings.Count(got, "\n") != 3 {
		t.Errorf("the table of a ticked message = %q", got)
	}
	if w := export("zip", url.Values{"scope": {"ticked"}, "id": {"0198a2f3-ffff"}}); w.Code != 410 {
		t.Errorf("an export of nothing = %d, want 410", w.Code)
	}
	if w := export("exe", all); w.Code != 400 {
		t.Errorf("an export of another format = %d, want 400", w.Code)
	}
	if w := export("csv", url.Values{"scope": {"all"}, "filter": {"%zz"}}); w.Code != 400 {
		t.Errorf("an export with a wrong filter = %d, want 400", w.Code)
	}
	for _, other := range []string{"a", "b"} {
		if _, refusal := u.exports.enter(other); refusal != nil {
			t.Fatal(refusal)
		}
	}
	if w := export("csv", all); w.Code != 503 {
		t.Errorf("a third export = %d, want 503", w.Code)
	}
}

// TestExportBreaksOff: a file that is not whole must not look as if it was.
func TestExportBreaksOff(t *testing.T) {
	m := someMessage()
	var pages atomic.Int64
	u, _ := newMailDoor(t, answersOf{
		"GET /v1/messages": func(w http.ResponseWriter, r *http.Request) {
			if pages.Add(1) > 1 {
				problemAnswer(503, api.CodeQueueUnavailable, "gone")(w, r)
				return
			}
			jsonAnswer(api.Page{Messages: []api.Message{m}, Next: "c"})(w, r)
		},
		"GET " + messagePath + "/content": textAnswer("A: b\r\n\r\nc"),
	})
	s := httptest.NewServer(u)
	defer s.Close()
	for _, f := range []string{"zip", "csv", "mbox"} {
		pages.Store(0)
		resp, err := http.PostForm(s.URL+"/ui/messages/export", url.Values{"scope": {"all"}, "filter": {"status=failed"}, "format": {f}, tokenField: {u.token("", "")}})
		if err != nil {
			continue
		}
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			t.Errorf("%s ended as if it was whole", f)
		}
	}
}

// blockedWriter is a browser that reads nothing until the answer is cut off.
type blockedWriter struct {
	*httptest.ResponseRecorder
	cut chan error
	err error
}

func (w *blockedWriter) Write(p []byte) (int, error) {
	for range 2 {
		select {
		case err := <-w.cut:
			w.err = errors.Join(w.err, err)
		case <-time.After(10 * time.Second):
			w.err = errors.Join(w.err, errors.New("not cut off"))
		}
	}
	w.cut = make(chan error, 2)
	w.cut <- nil
	w.cut <- nil
	return w.ResponseRecorder.Write(p)
}

// TestSlowBrowser: the server can take back the memory of an answer that a browser does not read.
func TestSlowBrowser(t *testing.T) {
	cut := make(chan error, 2)
	u, _ := newMailDoor(t, answersOf{"GET " + messagePath + "/content": func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		cut <- rc.SetWriteDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(w, "A: b\r\n\r\n")
		go func() { cut <- rc.SetWriteDeadline(time.Unix(1, 0)) }() // as handler/intake does
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}})
	w := &blockedWriter{ResponseRecorder: httptest.NewRecorder(), cut: cut}
	u.ServeHTTP(w, httptest.NewRequest(http.MethodGet, messageURL+"/eml", http.NoBody)) // ends
	if err := w.err; err != nil {
		t.Errorf("SetWriteDeadline = %v", err)
	}
}

const hostile = `"'><x-evil onclick=a onerror=a src=//evil href=javascript:a></title></textarea></script></pre><!--` + "\u202E\x00\r\n\u2028&lt;script&gt;${a}{{.}}"

// fillHostile puts the text into every string of v, and something into every list.
func fillHostile(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		if depth < 6 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fillHostile(v.Index(0), depth+1)
			fillHostile(v.Index(1), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillHostile(key, depth+1)
		fillHostile(value, depth+1)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(time.Now().Add(time.Hour)))
			return
		}
		for i := range v.NumField() {
			fillHostile(v.Field(i), depth+1)
		}
	default:
	}
}

// TestMessagePagesEscape: whatever an app, a relay or an address brings is text, in every place of these pages.
func TestMessagePagesEscape(t *testing.T) {
	var m api.Message
	fillHostile(reflect.ValueOf(&m).Elem(), 0)
	states := m
	for _, s := range []string{"held", "bounced", "expired", "deferred", "queued", "canceled", "delivered"} {
		r := m.Recipients[0]
		r.State = s
		states.Recipients = append(states.Recipients, r)
		r.MayHaveTaken = ""
		states.Recipients = append(states.Recipients, r)
	}
	var problem api.Problem
	fillHostile(reflect.ValueOf(&problem).Elem(), 0)
	var retried api.Retried
	fillHostile(reflect.ValueOf(&retried).Elem(), 0)
	var list api.Page
	fillHostile(reflect.ValueOf(&list).Elem(), 0)
	fails := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_ = json.NewEncoder(w).Encode(problem)
	}
	h := strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(hostile)
	content := "Subject: " + h + "\r\n" + "X-" + "Evil: " + h + "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + hostile + "\r\n--b\r\nContent-Type: application/" + "x; name=\"" + strings.ReplaceAll(h, `"`, `\"`) +
		"\"\r\nContent-Transfer-Encoding: base64\r\n\r\n$$\r\n--b--"
	q := url.QueryEscape
	id := url.PathEscape(hostile)
	for name, tc := range map[string]struct {
		answers answersOf
		target  string
		form    url.Values
	}{
		"list":         {answersOf{"GET /v1/messages": jsonAnswer(list)}, "/ui/messages?q=" + q(`"`+strings.ReplaceAll(strings.ReplaceAll(h, `\`, ""), `"`, "")+`"`) + "&cursor=" + q(hostile) + "&back=" + q(hostile), nil},
		"list fails":   {answersOf{"GET /v1/messages": fails}, "/ui/messages?q=invoice", nil},
		"fault":        {nil, "/ui/messages?q=" + q("status:"+h), nil},
		"fault name":   {nil, "/ui/messages?q=" + q("xx:"+h), nil},
		"message":      {answersOf{"GET /v1/messages/" + hostile: jsonAnswer(states), "GET /v1/messages/" + hostile + "/content": textAnswer(content)}, "/ui/messages/" + id + "?resend=" + q(hostile) + "&cancel", nil},
		"headers":      {answersOf{"GET /v1/messages/x": jsonAnswer(m), "GET /v1/messages/x/content": textAnswer(content)}, "/ui/messages/x?show=headers", nil},
		"source":       {answersOf{"GET /v1/messages/x": jsonAnswer(m), "GET /v1/messages/x/content": textAnswer(content)}, "/ui/messages/x?show=source", nil},
		"attachments":  {answersOf{"GET /v1/messages/x": jsonAnswer(m), "GET /v1/messages/x/content": textAnswer(content)}, "/ui/messages/x?show=attachments", nil},
		"content":      {answersOf{"GET /v1/messages/x": jsonAnswer(m), "GET /v1/messages/x/content": fails}, "/ui/messages/x", nil},
		"no message":   {answersOf{"GET /v1/messages/x": fails}, "/ui/messages/x", nil},
		"retry fails":  {answersOf{"GET /v1/messages/x": jsonAnswer(states), "POST /v1/messages/x/retry": fails}, "/ui/messages/x/retry", url.Values{}},
		"resend fails": {answersOf{"GET /v1/messages/x": jsonAnswer(states), "POST /v1/messages/x/resend": fails}, "/ui/messages/x/resend", url.Values{"to": {hostile}, "instead_of": {hostile}}},
		"ask":          {answersOf{"POST /v1/messages/retry": jsonAnswer(api.Matching{Matching: 3})}, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"all"}, "q": {strings.ReplaceAll(strings.ReplaceAll(`"`+strings.ReplaceAll(h, `"`, "")+`"`, `\`, ""), "\x00", "")}}},
		"ask fails":    {answersOf{"POST /v1/messages/retry": fails}, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"all"}, "q": {"invoice"}}},
		"ask ticked":   {nil, "/ui/messages/actions", url.Values{"action": {"export"}, "scope": {"ticked"}, "id": {hostile[:80]}}},
		"step":         {answersOf{"POST /v1/messages/retry": jsonAnswer(retried)}, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"all"}, "confirm": {"yes"}, "filter": {"status=" + q(hostile)}, "cursor": {hostile}, "done": {hostile}, "q": {h}}},
		"ticked fails": {answersOf{"POST /v1/messages/" + hostile[:80] + "/retry": fails}, "/ui/messages/actions", url.Values{"action": {"retry"}, "scope": {"ticked"}, "confirm": {"yes"}, "id": {hostile[:80]}}},
	} {
		u, _ := newMailDoor(t, tc.answers)
		w := visitPage(t, u, tc.target, tc.form)
		if w.Code >= 300 && w.Code < 400 {
			t.Errorf("%s is a redirect", name)
		}
		wantHarmless(t, name, w)
	}
}

// wantHarmless looks for what the hostile text would be if it was not escaped.
func wantHarmless(t *testing.T, name string, w *httptest.ResponseRecorder) {
	t.Helper()
	page := w.Body.String()
	if !strings.Contains(page, "x-evil") && name != "list fails" {
		t.Errorf("%s does not have the text at all: %.300s", name, textOf(t, page))
	}
	if w.Header().Get("Content-Security-Policy") != policy {
		t.Errorf("%s has the policy %q", name, w.Header().Get("Content-Security-Policy"))
	}
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.CommentNode {
			t.Errorf("%s has a comment: %q", name, n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		if strings.HasPrefix(n.Data, "x-") || n.Data == "script" && n.FirstChild != nil {
			t.Errorf("%s has <%s>", name, n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc" {
				t.Errorf("%s has <%s %s=%q>", name, n.Data, a.Key, a.Val)
			}
			if slices.Contains(addressesInPages, a.Key) && !strings.HasPrefix(a.Val, "/mail/ui/") && !strings.HasPrefix(a.Val, "#") && a.Val != "/mail/ui" {
				t.Errorf("%s leads to %s=%q", name, a.Key, a.Val)
			}
		}
	}
}
