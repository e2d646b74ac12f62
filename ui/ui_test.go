package ui

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"mailsidecar/api"
)

// TestTemplates: all templates are well-formed, and every value stands where it can be escaped.
func TestTemplates(t *testing.T) {
	if p := New(nil, Options{}).newPages(); p.err != nil {
		t.Fatal(p.err)
	}
}

// pagePaths are the pages that anybody may look at.
var pagePaths = []string{"/ui/", "/ui/relays", "/ui/keys", "/ui/send", "/ui/settings", "/ui/messages", "/ui/nothing"}

// TestRoles: what a key may not see is left out, and its address is refused.
func TestRoles(t *testing.T) {
	for key, refused := range map[string][]string{
		"ops": nil, "shop": {"/ui/keys", "/ui/settings"}, "monitor": {"/ui/keys", "/ui/settings", "/ui/send"}, "app": {"/ui/keys", "/ui/settings", "/ui/messages"},
	} {
		d := newFake()
		b := newBrowser(t, d, key)
		first := b.get("/ui/").Body.String()
		for _, path := range pagePaths[:len(pagePaths)-1] {
			is := false
			for _, r := range refused {
				is = is || r == path
			}
			w := b.get(path)
			if (w.Code == 403) != is || !is && w.Code != 200 {
				t.Errorf("%s sees %s: %d", key, path, w.Code)
			}
			if linked := strings.Contains(first, `href="`+path+`"`); linked == is {
				t.Errorf("%s: a link to %s = %v", key, path, linked)
			}
		}
		admin := key == "ops"
		relays := b.get("/ui/relays").Body.String()
		if strings.Contains(relays, "/pause") != admin || strings.Contains(relays, `action="/ui/drain"`) != admin {
			t.Errorf("%s: buttons to pause and drain are there = %v", key, !admin)
		}
		if strings.Contains(first, "What happened lately") != admin {
			t.Errorf("%s: events are there = %v", key, !admin)
		}
		if strings.Contains(first, "Retry these") != (key == "ops" || key == "shop") {
			t.Errorf("%s: Retry these is there, or is not", key)
		}
		for _, asked := range d.asked {
			if key == "app" && strings.Contains(asked, "/v1/stats") || !admin && (strings.Contains(asked, "/v1/drain") || strings.Contains(asked, "/v1/events")) {
				t.Errorf("%s asked for %s, which it may not see", key, asked)
			}
		}
	}
}

// TestErrorsStayInTheirBox: where one part fails, the others are shown.
func TestErrorsStayInTheirBox(t *testing.T) {
	away := api.Problem{Status: 503, Code: api.CodeQueueUnavailable, Title: "Queue unavailable", Detail: "The database of the queue does not answer."}
	for _, path := range []string{"GET /v1/stats", "GET /v1/relays", "GET /v1/drain", "GET /v1/keys", "GET /v1/settings", "GET /v1/events"} {
		d := newFake()
		d.answers[path] = away
		b := newBrowser(t, d, "ops")
		for _, page := range pagePaths[:5] {
			if w := b.get(page); w.Code != 200 {
				t.Errorf("%s fails: %s = %d", path, page, w.Code)
			}
		}
	}
	d := newFake()
	d.answers["GET /v1/stats"] = away
	if got := newBrowser(t, d, "ops").get("/ui/").Body.String(); !strings.Contains(got, "What waits is not known: The database of the queue does not answer.") || !strings.Contains(got, "relay.example.com") {
		t.Errorf("without numbers: %s", got)
	}
	d.answers["GET /v1/stats"] = api.Problem{Status: 422, Code: api.CodeQueueRequired}
	if got := newBrowser(t, d, "ops").get("/ui/").Body.String(); !strings.Contains(got, "MAILSIDECAR_QUEUE=none") || strings.Contains(got, "not known") {
		t.Errorf("without a queue: %s", got)
	}
	d.busy = &api.Problem{Status: 503, Detail: "Too many requests are under way with this key."}
	if w := newBrowser(t, d, "ops").get("/ui/"); w.Code != 503 {
		t.Errorf("a key with too many requests = %d", w.Code)
	}
}

// TestHangingStore: a page is there after its time, and pages that wait keep no others out for
// longer.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake()
		d.answers["GET /v1/stats"] = time.Hour
		b := newBrowser(t, d, "ops")
		began := time.Now()
		w := b.get("/ui/")
		if took := time.Since(began); took > pageTime || w.Code != 200 || !strings.Contains(w.Body.String(), "does not answer") {
			t.Errorf("after %v: %d %s", took, w.Code, w.Body)
		}
		codes := make(chan int, 100)
		for range 3 * maxPages {
			go func() { codes <- b.get("/ui/").Code }()
		}
		refused := 0
		for range 3 * maxPages {
			if <-codes == http.StatusServiceUnavailable {
				refused++
			}
		}
		if refused == 0 || refused > 2*maxPages {
			t.Errorf("%d of %d pages were refused", refused, 3*maxPages)
		}
	})
}

// TestEmpty: a new server says what to do.
func TestEmpty(t *testing.T) {
	d := newFake()
	d.answers["GET /v1/stats"] = api.Stats{Statuses: map[string]int64{}}
	d.answers["GET /v1/relays"] = api.Relays{Relays: []api.Relay{}}
	b := newBrowser(t, d, "ops")
	if got := b.get("/ui/").Body.String(); !strings.Contains(got, "curl http://example.com/v1/messages") || !strings.Contains(got, "Send a test") || strings.Contains(got, "Why mail fails") {
		t.Errorf("overview without a message: %s", got)
	}
	if got := b.get("/ui/relays").Body.String(); !strings.Contains(got, "SMTP_HOST") {
		t.Errorf("without a relay: %s", got)
	}
}

func TestSentence(t *testing.T) {
	up := api.Relay{Name: "one", Status: api.RelayUp}
	refuses := api.Relay{Name: "smtp.example.com", Status: api.RelayPaused, Advice: []api.Advice{{Found: "the relay refused the password"}}}
	refusesSince := refuses
	refusesSince.FailingSince = time.Date(2001, 2, 3, 14, 2, 0, 0, time.UTC)
	paused := api.Relay{Name: "two", Status: api.RelayPaused, PausedByOperator: &api.RelayPause{Since: time.Now(), Reason: "moves"}}
	slow := api.Relay{Name: "slow", Status: api.RelayUp, Rate: &api.Rate{Messages: 30, Per: "1m0s", Waiting: 3}}
	slowest := api.Relay{Name: "slow", Status: api.RelayUp, Rate: &api.Rate{Messages: 1, Per: "1m0s", Waiting: 3}}
	now := time.Now()
	stats := func(waiting, delivered, bounced, held int64, late time.Duration) *api.Stats {
		s := &api.Stats{Statuses: map[string]int64{api.StatusQueued: waiting, api.StatusHeld: held}}
		s.Hour.Delivered, s.Hour.Bounced = delivered, bounced
		if late > 0 {
			s.OldestDue = now.Add(-late)
		}
		return s
	}
	u := New(newFake(), Options{Prefix: "/mail"})
	for _, tc := range []struct {
		stats  *api.Stats
		relays []api.Relay
		state  string
		text   string
		to     string
	}{
		{stats(1, 142, 2, 0, 4*time.Second), []api.Relay{up}, flows, "Mail flows: 142 sent in the last hour, and none waits longer than 4 s.", ""},
		{stats(0, 0, 0, 0, 0), []api.Relay{up}, flows, "Mail flows: nothing was sent in the last hour, and nothing waits.", ""},
		{stats(2, 1, 0, 0, 0), []api.Relay{up}, flows, "Mail flows: 1 sent in the last hour, and 2 messages wait for a later time.", ""},
		{stats(37, 0, 0, 0, time.Hour), []api.Relay{refuses}, waits, "Mail waits: the relay smtp.example.com does not work: the relay refused the password; 37 messages wait.", "/mail/ui/relays"},
		{stats(0, 0, 0, 0, 0), []api.Relay{refuses}, waits, "Mail waits: the relay smtp.example.com does not work: the relay refused the password.", "/mail/ui/relays"},
		{stats(37, 0, 0, 0, time.Hour), []api.Relay{refusesSince}, waits, "Mail waits: the relay smtp.example.com has not worked since 3 Feb 14:02: the relay refused the password; 37 messages wait.", "/mail/ui/relays"},
		{stats(1, 0, 0, 0, 0), []api.Relay{paused}, waits, "Mail waits: an operator paused the relay two at ", "/mail/ui/relays"},
		{stats(1, 9, 0, 0, time.Minute), []api.Relay{up, refuses}, waits, "Mail flows: 9 sent in the last hour, and none waits longer than 1 min. But the relay smtp.example.com does not work: the relay refused the password.", "/mail/ui/relays"},
		{stats(1, 9, 0, 0, time.Hour), []api.Relay{up, refuses}, waits, "Some mail waits, for 1 h: the relay smtp.example.com does not work", "/mail/ui/relays"},
		{stats(5, 9, 0, 0, time.Hour), []api.Relay{up}, waits, "Mail waits: of 5 messages the first has been due for 1 h.", "/mail/ui/messages?q=status%3Awaiting"},
		{stats(5, 9, 0, 0, time.Hour), []api.Relay{slow}, waits, "Mail waits for its turn: slow may have 30 messages in a minute", "/mail/ui/messages?q=status%3Awaiting"},
		{stats(0, 2, 12, 0, 0), []api.Relay{up}, fails, "Mail fails: relays refused 12 recipients in the last hour, and took 2.", "/mail/ui/#why"},
		{stats(0, 2, 0, 3, 0), []api.Relay{up}, flows, "Mail flows: 2 sent in the last hour, and nothing waits. 3 messages are held until a person decides.", "/mail/ui/messages?q=status%3Aheld"},
		{stats(0, 2, 0, 3, 0), []api.Relay{up, refuses}, waits, "Mail flows: 2 sent in the last hour, and nothing waits. But the relay smtp.example.com does not work: the relay refused the password.", "/mail/ui/relays"},
		{stats(5, 9, 0, 0, time.Hour), []api.Relay{slowest}, waits, "Mail waits for its turn: slow may have 1 message in a minute", "/mail/ui/messages?q=status%3Awaiting"},
		{nil, []api.Relay{up}, flows, "The relays can be used.", ""},
	} {
		v := &visit{ui: u}
		if got := v.judge(tc.stats, tc.relays, now); got.State != tc.state || !strings.HasPrefix(got.Text, tc.text) || string(got.To) != tc.to || (got.To != "") != (got.What != "") {
			t.Errorf("judge() = %+v, want %s %q to %q", *got, tc.state, tc.text, tc.to)
		}
	}
	d := newFake()
	d.answers["GET /v1/drain"] = api.Drain{Draining: true, Since: now, Due: 212}
	if got := newBrowser(t, d, "ops").get("/ui/send").Body.String(); !strings.Contains(got, "New mail is refused since") || !strings.Contains(got, "212 recipients are left to deliver") || !strings.Contains(got, "/ui/relays#drain") {
		t.Errorf("while draining: %s", got)
	}
}

// TestRelayForms: what the buttons ask for, and what the page says of it.
func TestRelayForms(t *testing.T) {
	d := newFake()
	for _, path := range []string{"POST /v1/relays/relay.example.com%23ops/pause", "POST /v1/relays/relay.example.com%23ops/resume", "POST /v1/drain", "DELETE /v1/drain"} {
		d.answers[path] = struct{}{}
	}
	b := newBrowser(t, d, "ops")
	for _, tc := range []struct {
		path, done, asks string
		fields           []string
	}{
		{"/ui/relays/relay.example.com%23ops/pause", "paused", `ops POST /v1/relays/relay.example.com%23ops/pause {"for":"2h","reason":"moves"}`, []string{"for", "2 h", "reason", " moves "}},
		{"/ui/relays/relay.example.com%23ops/resume", "resumed", "ops POST /v1/relays/relay.example.com%23ops/resume", nil},
		{"/ui/drain", "drained", "ops POST /v1/drain", nil},
		{"/ui/drain", "undrained", "ops DELETE /v1/drain", []string{"end", "1"}},
	} {
		w := b.post(tc.path, tc.fields...)
		asked := d.posted()
		if w.Code != 303 || w.Header().Get("Location") != "/ui/relays?done="+tc.done || asked[len(asked)-1] != tc.asks {
			t.Errorf("%s = %d to %s, asked for %q, want %q", tc.path, w.Code, w.Header().Get("Location"), asked, tc.asks)
		}
		if got := b.get("/ui/relays?done=" + tc.done).Body.String(); !strings.Contains(got, notices[tc.done]) {
			t.Errorf("done=%s says nothing", tc.done)
		}
	}
	d.answers["POST /v1/relays/relay.example.com/pause"] = api.Problem{Status: 400, Code: api.CodeInvalidParameter, Errors: []api.FieldError{{Field: "for", Message: "must be from 1s to 366d"}}}
	if w := b.post("/ui/relays/relay.example.com/pause", "for", "9y"); w.Code != 422 || !strings.Contains(w.Body.String(), "The relay is not paused. for must be from 1s to 366d.") {
		t.Errorf("a bad time = %d %s", w.Code, w.Body)
	}
	if w := b.post("/ui/relays/none/resume"); w.Code != 404 {
		t.Errorf("an unknown relay = %d", w.Code)
	}
	if n := len(newFakePosts(t, "shop", "/ui/relays/relay.example.com/pause", "/ui/drain")); n > 0 {
		t.Error("a key that is no admin paused or drained")
	}
}

func newFakePosts(t *testing.T, key string, paths ...string) []string {
	d := newFake()
	b := newBrowser(t, d, key)
	for _, path := range paths {
		if w := b.post(path); w.Code != 403 {
			t.Errorf("%s as %s = %d, want 403", path, key, w.Code)
		}
	}
	return d.posted()
}

// TestRelayCheck: the table and the advice are in place, and other pages go on while it lasts.
func TestRelayCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake()
		d.answers["POST /v1/relays/check"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(40 * time.Second):
			case <-r.Context().Done():
				return
			}
			_, _ = w.Write([]byte(`{"ok":true,"relays":[{"name":"relay.example.com","ok":true,"rungs":[{"port":587,"mode":"starttls","tcp":"no_answer","auth":"not_tried","failure":{"text":"no answer in 10 s"}},{"port":2525,"mode":"starttls","tcp":"open","tcp_ms":12,"tls":{"version":"TLS 1.3"},"auth":"accepted","mechanism":"PLAIN"}],"advice":[{"ports":[587],"found":"your host blocks port 587","do":"nothing has to be done"}]}]}`))
		})
		b := newBrowser(t, d, "shop")
		answers := make(chan *httptest.ResponseRecorder, 10)
		for range maxPages {
			go func() { answers <- b.post("/ui/relays/relay.example.com/check") }()
		}
		time.Sleep(time.Second)
		began := time.Now()
		if w := b.get("/ui/"); w.Code != 200 || time.Since(began) > 0 {
			t.Errorf("a page during checks: %d after %v", w.Code, time.Since(began))
		}
		for range maxPages {
			got := <-answers
			for _, want := range []string{"no answer in 10 s", "open, 12 ms", "TLS 1.3", "accepted (PLAIN)", "your host blocks port 587", "mail can be sent", "Mail flows"} {
				if !strings.Contains(got.Body.String(), want) {
					t.Errorf("the check (%d) lacks %q: %s", got.Code, want, got.Body)
				}
			}
		}
	})
}

// TestSendTest: the form leads to the message, also to one that the relay refused, and says
// what is wrong with a field.
func TestSendTest(t *testing.T) {
	const id = "018f2f6e-0000-7000-8000-000000000001"
	d := newFake()
	d.answers["POST /v1/messages"] = api.Receipt{ID: id}
	d.answers["GET /v1/messages/"+id] = api.Message{ID: id}
	b := newBrowser(t, d, "shop")
	w := b.post("/ui/send", "to", " ana@example.org", "subject", "Hi", "text", "<b>Hello</b>", "as", "html", "once", "abc")
	if w.Code != 303 || w.Header().Get("Location") != "/ui/messages/"+id {
		t.Errorf("sent: %d to %s", w.Code, w.Header().Get("Location"))
	}
	if got, want := d.posted()[0], `shop POST /v1/messages {"to":["ana@example.org"],"subject":"Hi","html":"\u003cb\u003eHello\u003c/b\u003e","tags":{"test":"dashboard"},"priority":"high"}`; got != want {
		t.Errorf("asked for\n%s, want\n%s", got, want)
	}
	d.answers["POST /v1/messages"] = api.Problem{Status: 422, Code: api.CodeRejected, ID: id, Detail: "550 no such user"}
	if w := b.post("/ui/send", "to", "x@example.org"); w.Code != 303 || w.Header().Get("Location") != "/ui/messages/"+id {
		t.Errorf("refused by the relay: %d to %s", w.Code, w.Header().Get("Location"))
	}
	d.answers["POST /v1/messages"] = api.Problem{Status: 422, Code: api.CodeInvalidMessage, Detail: "The message has 1 mistake.", Errors: []api.FieldError{{Field: "to[0]", Message: "is no address"}}}
	if w := b.post("/ui/send", "to", `"><script>x`, "text", "</textarea>x"); w.Code != 422 || !strings.Contains(w.Body.String(), "Is no address.") || !strings.Contains(w.Body.String(), `value="&#34;&gt;&lt;script&gt;x"`) || !strings.Contains(w.Body.String(), "&lt;/textarea&gt;x</textarea>") {
		t.Errorf("no address: %d %s", w.Code, w.Body)
	}
	app := newBrowser(t, d, "app") // may not read: there is no page of its message
	for status, done := range map[string]string{api.StatusDelivered: "sent", api.StatusPartial: "sent", api.StatusQueued: "stored", api.StatusDeferred: "stored", api.StatusHeld: "stored"} {
		d.answers["POST /v1/messages"] = api.Receipt{ID: id, Status: status}
		if w := app.post("/ui/send", "to", "x@example.org"); w.Code != 303 || w.Header().Get("Location") != "/ui/send?done="+done {
			t.Errorf("%s, by a key that may not read: %d to %s", status, w.Code, w.Header().Get("Location"))
		}
	}
}

// TestOne: pages speak of one thing, and of many.
func TestOne(t *testing.T) {
	d := newFake()
	relays := d.answers["GET /v1/relays"].(api.Relays).Relays
	relays[0].Login = &api.Login{Refused: 1, Failure: api.Outcome{Text: "no"}}
	relays[0].Connections.Waiting, relays[0].Rate = 1, &api.Rate{Messages: 1, Per: "1h0m0s", Waiting: 1}
	b := newBrowser(t, d, "ops")
	wantTexts(t, "one", b.get("/ui/relays").Body.String(), "1 recipient is due now, 3 wait for a later time.", "1 message in an hour; 1 waits for a turn", "1 message waits for one", "refused once")
	wantTexts(t, "the relay", b.get("/ui/").Body.String(), "1 message waits for one", ", 1 waits for a turn")
	d.answers["GET /v1/drain"] = api.Drain{Draining: true, Due: 2, Later: 1, Held: 1}
	wantTexts(t, "a drain", b.get("/ui/relays").Body.String(), "2 recipients are due, 1 waits for a later time", "and 1 message is held.")
}

// TestStatic: the files beside the pages can be kept, and there are no others.
func TestStatic(t *testing.T) {
	b := newBrowser(t, newFake(), "")
	for path, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		if w := b.get("/ui/static/" + path + "?v=1"); w.Code != 200 || w.Header().Get("Content-Type") != kind || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s = %d %v", path, w.Code, w.Header())
		}
	}
	for _, path := range []string{"/ui/static/none.css", "/ui/static/..%2ftemplates%2fkeys.html", "/ui/static/"} {
		if w := b.get(path); w.Code == 200 {
			t.Errorf("%s = 200", path)
		}
	}
}

// nasty has what must not get into a page as it is.
const nasty = `"><script src=//evil.example></script>'<b onclick=x()>` + "&amp;{{.}}\u202e\x00\x1b[2J"

// fill sets every string of a value to nasty text, and gives lists and pointers content.
func fill(v reflect.Value, depth int) {
	if depth > 8 {
		return
	}
	switch v.Kind() { //nolint:exhaustive // the others have no text
	case reflect.String:
		v.SetString(nasty)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, item := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(item, depth+1)
		v.SetMapIndex(key, item)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Now().Add(-time.Hour)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	}
}

func nastyOf[T any]() T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), 0)
	return v
}

// TestPagesEscape: whatever stands in an answer of the API, it stays text.
func TestPagesEscape(t *testing.T) {
	d := newFake()
	d.answers = map[string]any{
		"GET /v1/stats": nastyOf[api.Stats](), "GET /v1/relays": nastyOf[api.Relays](), "GET /v1/drain": nastyOf[api.Drain](), "GET /v1/keys": nastyOf[api.Keys](),
		"GET /v1/settings": nastyOf[api.Settings](), "GET /v1/events": nastyOf[api.Events](), "GET /v1/messages": nastyOf[api.Page](), "GET /v1/messages/x": nastyOf[api.Message](), "GET /v1/messages/count": nastyOf[api.Matching](),
		"POST /v1/relays/check": map[string]any{"relays": []checkReport{nastyOf[checkReport]()}},
	}
	for _, broken := range []bool{false, true} {
		if broken {
			for path := range d.answers {
				p := nastyOf[api.Problem]()
				p.Status, p.Code = 500, api.CodeInternal
				d.answers[path] = p
			}
		}
		b := newBrowser(t, d, "ops")
		for _, path := range append([]string{"/ui/messages/x", "/ui/messages?q=%22%3E%3Cscript%3E"}, pagePaths...) {
			checkPage(t, path, b.get(path).Body.String())
		}
		checkPage(t, "check", b.post("/ui/relays/x/check").Body.String())
		checkPage(t, "send", b.post("/ui/send", "to", nasty, "from", nasty, "subject", nasty, "text", nasty).Body.String())
	}
	out := newBrowser(t, d, "")
	checkPage(t, "sign-in", out.post("/ui/sign-in", "key", nasty, "next", "/ui/"+nasty).Body.String())
}

// checkPage parses a page, and looks for what only an unescaped value can bring. It is also held
// against the rules of all pages: one h1, labels, no inline anything.
func checkPage(t *testing.T, name, page string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(page, "\x00\x1b") {
		t.Errorf("%s has control characters", name)
	}
	headings, ids, labelled := 0, map[string]bool{}, map[string]bool{}
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && n.Data == "label" {
			labelled[attribute(n, "for")] = true
		}
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "h1":
			headings++
		case "script":
			if !strings.HasPrefix(attribute(n, "src"), "/ui/static/") || n.FirstChild != nil {
				t.Errorf("%s has the script %q", name, attribute(n, "src"))
			}
		case "style", "object", "embed", "base", "b":
			if n.Data != "b" || attribute(n, "onclick") != "" {
				t.Errorf("%s has a %s", name, n.Data)
			}
		case "input", "select", "textarea":
			kind := attribute(n, "type")
			if kind != "hidden" && !labelled[attribute(n, "id")] && n.Parent.Data != "label" && attribute(n, "aria-label") == "" {
				t.Errorf("%s: the field %s has no label", name, attribute(n, "name"))
			}
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on") || a.Key == "style":
				t.Errorf("%s: %s has the attribute %s", name, n.Data, a.Key)
			case a.Key == "href" && !strings.HasPrefix(a.Val, "/ui/") && a.Val != "#main", a.Key == "src" && !strings.HasPrefix(a.Val, "/ui/"), a.Key == "action" && !strings.HasPrefix(a.Val, "/ui/"):
				t.Errorf("%s: %s leads to %q", name, n.Data, a.Val)
			case a.Key == "id" && ids[a.Val] && !strings.Contains(a.Val, "script"):
				t.Errorf("%s: the id %s is there twice", name, a.Val)
			case a.Key == "id":
				ids[a.Val] = true
			}
		}
	}
	if headings != 1 {
		t.Errorf("%s has %d h1", name, headings)
	}
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func TestWords(t *testing.T) {
	now := time.Unix(1e9, 0)
	for d, want := range map[time.Duration]string{0: "just now", -2 * time.Second: "just now", 40 * time.Second: "40 s ago", 61 * time.Second: "1 min ago", 5*time.Hour + 7*time.Minute: "5 h 7 min ago", 30 * time.Hour: "30 h ago", 50 * time.Hour: "2 days ago", -3 * time.Hour: "in 3 h"} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1500: "2 KB", 999_600: "1.0 MB", 25 << 20: "26.2 MB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	if got := cut("äöü", 2); got != "äö…" {
		t.Errorf("cut() = %q", got)
	}
}

// TestRetryThese: the button of a reply means the messages of that reply and no others, also
// where a relay's text is odd.
func TestRetryThese(t *testing.T) {
	for _, f := range []api.StatsFilter{
		{Relay: "relay.example.com", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "=<*>: no such user"},
		{Relay: "a b:c", Text: "="},
		{Text: `=say "no": \ back`},
		{Relay: `"`, ReplyCode: 452, Text: "=from:x status:failed (or) -not"},
		{Text: "=ärger 😀 \u202e"},
	} {
		search := replySearch(f)
		got := parseSearch(search, time.Now())
		want := api.Filter{Relay: f.Relay, ReplyCode: f.ReplyCode, EnhancedCode: f.EnhancedCode, Text: f.Text}
		if len(got.Faults) > 0 || got.Filter != want {
			t.Errorf("%q means %+v (%q), want %+v", search, got.Filter, got.Faults, want)
		}
	}
	if got := replySearch(api.StatsFilter{Text: "=" + strings.Repeat("x", 5000)}); got != "" {
		t.Errorf("a search of %d octets, which the page would refuse", len(got))
	}
	page := newBrowser(t, newFake(), "ops").get("/ui/").Body.String()
	if !strings.Contains(page, `name="q" value="relay:relay.example.com code:550`) {
		t.Errorf("the button has no search: %s", page)
	}
}

// TestCharts: what is drawn stands in a table, too, and all of it is counted there once.
func TestCharts(t *testing.T) {
	d := newFake()
	page := newBrowser(t, d, "shop").get("/ui/").Body.String()
	for _, want := range []string{"The last 24 hours", "The last 7 days", "<polyline", "As a table"} {
		if !strings.Contains(page, want) {
			t.Errorf("the overview lacks %q", want)
		}
	}
	if !slices.Contains(d.asked, "shop GET /v1/stats?days=7") {
		t.Errorf("asked for %q", d.asked)
	}
	buckets := make([]api.StatsBucket, 300)
	var want chartRow
	for i := range buckets {
		buckets[i] = api.StatsBucket{At: time.Unix(int64(i)*600, 0), StatsCounts: api.StatsCounts{Accepted: int64(i), Delivered: int64(i % 50), Deferred: int64(i % 3), Bounced: int64(i % 7)}}
		if i >= 300-mostBars {
			want.add(chartRow{Accepted: int64(i), Delivered: int64(i % 50), Deferred: int64(i % 3), Bounced: int64(i % 7)})
		}
	}
	c := newChart("x", "X", buckets, 10*time.Minute, 6, "15:04", nil)
	var sum chartRow
	for _, r := range c.Rows {
		sum.add(r)
	}
	if sum != want || c.Total != want || len(c.Bars) != mostBars || len(c.Rows) != (mostBars+5)/6 {
		t.Errorf("%d bars, %d rows of %+v, total %+v, want %+v", len(c.Bars), len(c.Rows), sum, c.Total, want)
	}
	for _, b := range c.Bars {
		for _, h := range []string{b.DeliveredH, b.DeferredH, b.BouncedH} {
			if strings.HasPrefix(h, "-") || strings.Contains(h, "NaN") {
				t.Fatalf("a bar is %s high", h)
			}
		}
	}
	if c := newChart("x", "X", make([]api.StatsBucket, 9), time.Hour, 6, "15:04", nil); len(c.Bars) > 0 || c.Summary != "Nothing happened." {
		t.Errorf("without anything: %+v", c)
	}
}

// TestPrefix: behind a reverse proxy every address begins with what stands there.
func TestPrefix(t *testing.T) {
	b := newBrowser(t, newFake(), "ops")
	b.ui = New(newFake(), Options{Prefix: "/mail"})
	for _, path := range append(slices.Clone(pagePaths), "/ui/sign-in") {
		w := b.get(path)
		doc, err := html.Parse(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			for _, a := range n.Attr {
				if (a.Key == "href" || a.Key == "src" || a.Key == "action") && !strings.HasPrefix(a.Val, "/mail/ui/") && a.Val != "#main" {
					t.Errorf("%s: %s leads to %q", path, n.Data, a.Val)
				}
			}
		}
	}
	if w := b.post("/ui/sign-out"); w.Header().Get("Location") != "/mail/ui/sign-in" || !strings.Contains(w.Header().Get("Set-Cookie"), "Path=/mail/ui/;") {
		t.Errorf("signed out: %v", w.Header())
	}
}
