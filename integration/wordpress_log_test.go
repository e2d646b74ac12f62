package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"mailsidecar/api"
	"mailsidecar/api/apitest"
	"mailsidecar/integration/postfix"
	"mailsidecar/integration/wordpress"
)

// asAdmin is the start of a script that works as the site's administrator in wp-admin.
const asAdmin = `define('WP_ADMIN', true);` + wordpress.Load + `
	require ABSPATH . 'wp-admin/includes/admin.php';
	wp_set_current_user(1);
	set_current_screen('dashboard');
	function page($query) { parse_str($query, $get); $_GET = wp_slash($get); ob_start(); Mailsidecar\render_tools_page(); return ob_get_clean(); }
	function notice() { ob_start(); Mailsidecar\render_notice(); return ob_get_clean(); }
	function widget() { ob_start(); Mailsidecar\render_dashboard_widget(); return ob_get_clean(); }
	function forget() { delete_site_transient('mailsidecar_state'); }
	forget();
`

// adminPage renders the page under Tools with a query, without a word in PHP's log.
func (s *shop) adminPage(t *testing.T, env map[string]string, query string) string {
	t.Helper()
	out, log := s.Run(t, env, asAdmin+`echo page(`+quote(query)+`);`)
	if log != "" {
		t.Errorf("PHP's log after the page with %q: %s", query, log)
	}
	return out
}

// byPath returns a handler with an answer of the server's own for each path. Others are 404.
func byPath(answers map[string]string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderOwn, "1")
		if answer, ok := answers[r.URL.Path]; ok {
			_, _ = io.WriteString(w, answer)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":"not_found","title":"x","detail":"There is nothing here."}`)
	}
}

const calmStats = `{"statuses":{"delivered":9},"hour":{"delivered":142},"relays":[{"name":"a","status":"up"}]}`

// testWPLog: the log shows this site's mail, searches, and pages by cursor.
func testWPLog(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	s.mustSend(t, "", quote(to)+`, 'Your order <1042> & "more"', 'x'`)
	s.relay.Await(t, to, 1)
	s.mail(t, s.env, "", `'unknown@example.org', '<b>Refused</b>', 'x'`)
	s.mail(t, s.env, "", quote(postfix.Busy)+`, 'Later', 'x'`)
	for _, test := range []struct {
		query     string
		want, not []string
	}{
		{"", []string{"Your order &lt;1042&gt; &amp; &quot;more&quot;", to, "Delivered", "&lt;b&gt;Refused&lt;/b&gt;", "550 5.1.1", "Failed", "Later", "Deferred", "sent in the last hour"}, []string{"<b>Refused", testKey}},
		{"s=" + to, []string{"Mail to " + to, "1042"}, []string{"Refused"}},
		{"s=@nowhere.example", []string{"Mail to addresses at nowhere.example", "No message matches"}, []string{"Refused"}},
		{"s=MORE+1042", []string{"words in its subject: MORE 1042", "Your order"}, []string{"&gt;Refused"}},
		{"s=%3Cb%3Erefused", []string{"&lt;b&gt;Refused"}, []string{"Your order"}},
		{"status=failed", []string{"Refused"}, []string{"1042", ">Later<"}},
		{"status=waiting", []string{">Later<"}, []string{"1042", "Refused"}},
		{"since=2030-01-01", []string{"No message matches"}, []string{"1042"}},
		{"until=2030-01-01", []string{"1042"}, nil},
		{"since=never", []string{"since", "never"}, []string{"1042"}},
		{"cursor=x", []string{"cursor"}, nil},
		{"mail=01980000-0000-7000-8000-000000000000", []string{"notice-error"}, nil},
		{"mail=../../v1/relays", []string{"notice-error"}, []string{"ladder"}},
	} {
		page := s.adminPage(t, s.env, test.query)
		for _, want := range test.want {
			if !strings.Contains(page, want) {
				t.Errorf("the log with %q lacks %q:\n%s", test.query, want, page)
			}
		}
		for _, not := range test.not {
			if strings.Contains(page, not) {
				t.Errorf("the log with %q has %q", test.query, not)
			}
		}
	}
	id := s.messageID(t, "unknown@example.org")
	page := s.adminPage(t, s.env, "mail="+id)
	for _, want := range []string{"550 5.1.1", "What to do: ", "shop@example.com", "Attempts", "TLS 1.3", "Try again", "Send to another address", id} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of a message lacks %q:\n%s", want, page)
		}
	}

	if !strings.Contains(page, "It is kept until ") || !strings.Contains(page, "MAILSIDECAR_RETENTION") {
		t.Errorf("the page of a message that failed does not say how long its content is kept:\n%s", page)
	}
	if page = s.adminPage(t, s.env, "mail="+s.messageID(t, to)+"&do=resend"); !strings.Contains(page, "It is gone,") || !strings.Contains(page, "MAILSIDECAR_KEEP_BODIES") || strings.Contains(page, "Send to another address") {
		t.Errorf("the page of a delivered message does not say that its content is gone, or offers to send it again:\n%s", page)
	}
	out, _ := s.Run(t, s.env, asAdmin+`echo json_encode(array_values(array_intersect(wp_removable_query_args(), ['page', 'tab', 'mail', 'do', 'to', 'again', 's', 'status', 'since', 'until', 'cursor'])));`)
	if out != "[]" {
		t.Errorf("WordPress takes %s out of the address of the page", out)
	}
	fake := newFakeServer(t, byPath(map[string]string{"/v1/stats": calmStats, "/readyz": "ok", "/v1/messages": `{"messages":[{"id":"1","subject":"One"}],"next":"c+/2","searched_back_to":"2030-01-31T08:00:00Z"}`}))
	page = s.adminPage(t, s.plugin(fake.URL), "s=two+words&status=failed&since=2030-01-31&until=2030-01-31&cursor=c1")
	if want := "142 sent in the last hour, none waits."; !strings.Contains(page, want) {
		t.Errorf("the log lacks %q", want)
	}
	if got := fake.requests[0].URL.Query(); got.Get("subject") != "two words" || got.Get("status") != "failed" || got.Get("since") != "2030-01-31T00:00:00Z" || got.Get("until") != "2030-02-01T00:00:00Z" || got.Get("cursor") != "c1" || got.Get("limit") != "20" {
		t.Errorf("the page asked for %v", got)
	}
	if !strings.Contains(page, "cursor=c%2B%2F2") || !strings.Contains(page, "Searched back to January 31, 2030") || !strings.Contains(page, "Newest") {
		t.Errorf("the page has no link to the next one, or does not say how far it searched:\n%s", page)
	}
}

// messageID is the id of the newest message to a recipient.
func (s *shop) messageID(t *testing.T, recipient string) string {
	t.Helper()
	out, log := s.Run(t, s.env, wordpress.Load+`echo Mailsidecar\ask_log(['recipient' => `+quote(recipient)+`], '', 1)['messages'][0]['id'] ?? '';`)
	if out == "" {
		t.Fatalf("there is no message to %s\n%s", recipient, log)
	}
	return out
}

// testWPLogTrouble: each way in which the server does not answer is told plainly, with what
// to do, and the page does not wait for long.
func testWPLogTrouble(t *testing.T, s *shop) {
	release := make(chan struct{})
	slow := newFakeServer(t, func(int, http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	problem := func(answer string) map[string]string { return s.plugin(newFakeServer(t, answering(answer)).URL) }
	for _, test := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"down", s.plugin("http://" + freeAddr(t)), []string{"This site cannot reach mailsidecar at http://", "What to do: See whether mailsidecar runs"}},
		{"wrong key", with(s.env, "MAILSIDECAR_API_KEY", "wrong"), []string{"The API key is missing or wrong.", "MAILSIDECAR_API_KEYS"}},
		{"role", problem(`403 - {"code":"role_required","title":"x","detail":"This request needs the role read, and the key shop has the role send only (MAILSIDECAR_KEY_ROLES)."}`), []string{"needs the role read", "What to do: On the server, give the key that role in MAILSIDECAR_KEY_ROLES"}},
		{"error", problem(`500 - {"code":"internal","title":"x","detail":"Something broke <b>here</b>."}`), []string{"Something broke &lt;b&gt;here&lt;/b&gt;.", "What to do: The log of the server says more."}},
		{"no queue", problem(`422 - {"code":"queue_required","title":"x","detail":"x"}`), []string{"MAILSIDECAR_QUEUE=none"}},
		{"too many searches", problem(`503 1 {"code":"too_many_searches","title":"x","detail":"Others search."}`), []string{"Others search.", `type="search"`}},
		{"no search by subject", problem(`400 - {"code":"invalid_parameter","title":"x","detail":"There is no parameter subject."}`), []string{"no parameter subject", "a newer mailsidecar also finds words of the subject"}},
		{"not configured", map[string]string{"X": "1"}, []string{"MAILSIDECAR_URL is not set"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			page := s.adminPage(t, test.env, "s=order")
			for _, want := range test.want {
				if !strings.Contains(page, want) {
					t.Errorf("the log lacks %q:\n%s", want, page)
				}
			}
			if strings.Contains(page, testKey) {
				t.Error("the log shows the key")
			}
		})
	}
	t.Run("slow", func(t *testing.T) {
		for name, options := range map[string][]string{"ext-curl": nil, "streams": noCurl} {
			out, log := s.Run(t, s.plugin(slow.URL), asAdmin+`
				$n = 0; add_action('http_api_debug', function ($response, $context, $class, $args) use (&$n) { $n++; if ($args['timeout'] > 6) echo 'too long'; }, 10, 4);
				$page = page(''); echo "$n request\n$page";`, options...)
			if !strings.HasPrefix(out, "1 request") || !strings.Contains(out, "cannot reach mailsidecar at "+slow.URL) || !strings.Contains(out, "firewall") || log != "" {
				t.Errorf("%s: the log of a server that does not answer = %s, %s", name, out, log)
			}
		}
	})
	for name, impostor := range apitest.Impostors() {
		t.Run("impostor/"+name, func(t *testing.T) {
			server := httptest.NewServer(impostor)
			t.Cleanup(server.Close)
			out, log := s.Run(t, s.plugin(server.URL), asAdmin+`echo page(''), page('mail=1'), notice(), Mailsidecar\change_message('1', 'retry')['found'];`)
			if n := strings.Count(out, server.URL); n < 4 || log != "" {
				t.Errorf("log, message, notice and retry name the address %d times, want 4 times at least:\n%s\n%s", n, out, log)
			}
		})
	}
}

const markup = `"'></bdi><script>alert(1)</script><img src=x onerror=alert(1)>&lt;b&gt;`

// fill puts text into every string below v, and something into everything else.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*api.Problem]() {
			return // A problem has results, which have problems.
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(value, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Now().Add(-time.Hour).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	default:
		panic("an answer has a member of the kind " + v.Kind().String())
	}
}

// filled is an answer with text in every string.
func filled[T any](t *testing.T, text string, edit func(*T)) string {
	t.Helper()
	var answer T
	fill(reflect.ValueOf(&answer).Elem(), text)
	edit(&answer)
	return mustJSON(t, answer)
}

// testWPMarkup: whatever an app, a relay or an address brings is text on every page.
func testWPMarkup(t *testing.T, s *shop) {
	message := func(m *api.Message) { m.Recipients[0].State, m.Recipients[0].ReplyCode = api.StateDeferred, 450 }
	answers := map[string]string{
		"/v1/messages": filled(t, markup, func(p *api.Page) { message(&p.Messages[0]) }),
		"/v1/stats": filled(t, markup, func(p *api.Stats) {
			p.Relays[0].Status, p.Statuses = api.RelayPaused, map[string]int64{"deferred": 2, markup: 1}
		}),
		"/v1/relays": filled(t, markup, func(p *api.Relays) { p.Relays[0].Status = api.RelayPaused }),
		"/readyz":    "ok",
	}
	one := filled(t, markup, message)
	var refuse atomic.Bool
	fake := newFakeServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if refuse.Load() {
			answering("500 - "+filled(t, markup, func(*api.Problem) {}))(n, w, r)
			return
		}
		if _, ok := answers[r.URL.Path]; !ok {
			w.Header().Set(api.HeaderOwn, "1")
			_, _ = io.WriteString(w, one)
			return
		}
		byPath(answers)(n, w, r)
	})
	query := url.Values{"s": {markup}, "status": {markup}, "since": {markup}, "until": {markup}, "cursor": {markup}, "to": {markup}, "again": {markup}}
	message1 := url.Values{"mail": {markup}, "to": {markup}, "again": {markup}}
	script := asAdmin + `
		echo page(` + quote(query.Encode()) + `), page('');
		foreach (['', 'retry', 'resend', 'cancel', 'other'] as $do) echo page(` + quote(message1.Encode()) + ` . "&do=$do");
		echo notice(), widget(), page('tab=settings');
		set_transient('mailsidecar_done_1', Mailsidecar\change_message('x', 'resend', ` + quote(markup) + `)); echo page('mail=1');
		set_transient('mailsidecar_test_1', ['sent' => true, 'error' => '', 'answer' => ['body' => json_decode(` + quote(one) + `, true)]]); echo page('tab=settings');`
	for _, refused := range []bool{false, true} {
		refuse.Store(refused)
		out, log := s.Run(t, s.plugin(fake.URL), script)
		if log != "" {
			t.Errorf("PHP's log: %s", log)
		}
		if n := strings.Count(html.UnescapeString(out), "<script>alert(1)"); n < 10 {
			t.Fatalf("the pages show the markup %d times: the test does not see what it should", n)
		}
		wantNoMarkup(t, out)
	}
}

// wantNoMarkup fails where a page has an element or attribute that the markup would make.
func wantNoMarkup(t *testing.T, page string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for node := range root.Descendants() {
		if node.Type != html.ElementNode {
			continue
		}
		if slices.Contains([]string{"script", "img", "iframe", "b"}, node.Data) {
			t.Errorf("the page has <%s>, which came with an answer", node.Data)
		}
		for _, attr := range node.Attr {
			if strings.HasPrefix(attr.Key, "on") || strings.HasPrefix(strings.TrimSpace(attr.Val), "javascript:") || strings.ContainsAny(attr.Key, `<>"'`) {
				t.Errorf("<%s> has the attribute %s=%q", node.Data, attr.Key, attr.Val)
			}
		}
	}
}

// testWPOddAnswers: JSON of another form than the server's makes no warning and no error.
func testWPOddAnswers(t *testing.T, s *shop) {
	odd := []string{`"x"`, `3`, `[]`, `{}`, `null`, `[1,"a",null,[],{"id":[],"subject":{},"status":[],"recipients":[1,{"email":[],"state":{},"reply_code":"x"}],"waits":3,"attempts":[{"ladder":1,"results":[[]]}],"created_at":{},"resent_as":[[]],"size":"x"}]`}
	for _, value := range odd {
		fake := newFakeServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set(api.HeaderOwn, "1")
			fmt.Fprintf(w, `{"id":%[1]s,"messages":%[1]s,"next":%[1]s,"searched_back_to":%[1]s,"statuses":%[1]s,"hour":%[1]s,"oldest_due":%[1]s,"keys":%[1]s,"key":%[1]s,
				"replies":%[1]s,"relays":%[1]s,"subject":%[1]s,"recipients":%[1]s,"waits":%[1]s,"attempts":%[1]s,"resent_as":%[1]s,"size":%[1]s,"created_at":%[1]s}`, value)
		})
		_, log := s.Run(t, s.plugin(fake.URL), asAdmin+`page(''); page('mail=1'); notice(); widget(); page('tab=settings'); foreach (['retry', 'resend', 'cancel'] as $do) Mailsidecar\change_message('1', $do);`)
		if log != "" {
			t.Errorf("PHP's log with %s in every place: %s", value, log)
		}
	}
}

// testWPActions goes through the forms as the administrator does: retry, resend, cancel.
func testWPActions(t *testing.T, s *shop) {
	s.mail(t, s.env, "", `'unknown@example.org', 'Actions', 'x'`)
	s.mail(t, s.env, "", quote(postfix.Busy)+`, 'Actions later', 'x'`)
	refused, waiting := s.messageID(t, "unknown@example.org"), s.messageID(t, postfix.Busy)
	s.Run(t, s.env, wordpress.Load+`wp_insert_user(['user_login' => 'author', 'user_pass' => 'author', 'user_email' => 'author@example.org', 'role' => 'editor']);`)
	site := s.Serve(t, s.env)
	admin := s.logIn(t, site, wordpress.Admin, wordpress.AdminPassword)
	hidden := regexp.MustCompile(`name="(\w+)" value="([^"]*)"`)
	form := func(id, action string) url.Values {
		t.Helper()
		_, page := admin.get(t, "/wp-admin/tools.php?page=mailsidecar&mail="+id+"&do="+action)
		_, page, found := strings.Cut(page, `class="card"`)
		if !found {
			t.Fatalf("no form to %s the message", action)
		}
		page, _, _ = strings.Cut(page, "</form>")
		values := url.Values{}
		for _, field := range hidden.FindAllStringSubmatch(page, -1) {
			values.Set(field[1], field[2])
		}
		return values
	}
	post := func(b browser, values url.Values) (int, string) {
		t.Helper()
		resp, err := b.PostForm(site+"/wp-admin/admin-post.php", values)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(page)
	}
	want := func(values url.Values, text string) {
		t.Helper()
		if status, page := post(admin, values); status != http.StatusOK || !strings.Contains(page, text) {
			t.Errorf("%v leads to %d without %q:\n%s", values, status, text, page)
		}
	}

	to := s.relay.Recipient(t)
	resend := form(refused, "resend")
	resend.Set("to", to)
	want(resend, "The message is sent to "+to)
	want(resend, "The message is sent to "+to) // the same form twice, by a double click
	again := form(refused, "resend")
	again.Set("to", to)
	want(again, "Send another copy")
	again.Set("again", "1")
	want(again, "The message is sent to "+to)
	if got := s.relay.Await(t, to, 2); len(got) != 2 {
		t.Errorf("%d copies arrived, want 2", len(got))
	}
	percent := form(refused, "resend")
	percent.Set("to", "percent%41@example.org")
	want(percent, "The message is sent to percent%41@example.org")
	wrong := form(refused, "resend")
	wrong.Set("to", `no"<address`)
	want(wrong, "notice-error")
	want(form(waiting, "retry"), "notice-success")
	want(form(waiting, "cancel"), "The message is canceled.")
	if status, page := admin.get(t, "/wp-admin/tools.php?page=mailsidecar&mail="+waiting+"&do=cancel"); status != http.StatusOK || strings.Contains(page, `class="card"`) {
		t.Error("a message that is canceled has a form to cancel it")
	}

	without := form(refused, "resend")
	without.Set("to", to)
	without.Set("_wpnonce", "0000000000")
	if status, _ := post(admin, without); status != http.StatusForbidden {
		t.Errorf("a form without a nonce = %d, want 403", status)
	}
	// Somebody with a nonce of their own, as another plugin's fault might give one away.
	s.Write(t, "wordpress/wp-content/mu-plugins/nonce.php", `<?php add_action('admin_init', function () { if (isset($_GET['nonce_of'])) exit(wp_create_nonce($_GET['nonce_of'])); });`)
	defer s.Write(t, "wordpress/wp-content/mu-plugins/nonce.php", "<?php")
	editor := s.logIn(t, site, "author", "author")
	for action, values := range map[string]url.Values{"mailsidecar_message": without, "mailsidecar_test": {"action": {"mailsidecar_test"}, "to": {to}}} {
		_, nonce := editor.get(t, "/wp-admin/profile.php?nonce_of="+action)
		values.Set("_wpnonce", nonce)
		if status, page := post(editor, values); status != http.StatusForbidden || !strings.Contains(page, "You are not allowed to do this.") {
			t.Errorf("%s of an editor with a nonce = %d, want 403", action, status)
		}
	}
	if status, _ := post(admin, url.Values{"action": {"mailsidecar_message"}, "_wpnonce": form(refused, "retry")["_wpnonce"]}); status != http.StatusBadRequest {
		t.Errorf("a form without a message = %d, want 400", status)
	}
	if n := len(s.relay.Mailbox(t, to)); n != 2 {
		t.Errorf("%d copies arrived, want 2", n)
	}
}

// testWPNotice: the notice appears while mail waits or fails, with cause and remedy, to those
// who may manage options.
func testWPNotice(t *testing.T, s *shop) {
	relay := func(status string) string {
		return `"relays":[{"name":"smtp.example.net","status":"` + status + `","advice":[{"found":"the relay refuses the password: 535 5.7.8 <b>wrong</b>","do":"set SMTP_PASSWORD."}]}]`
	}
	for _, test := range []struct {
		name, stats string
		want        []string // none: no notice
	}{
		{"flows", calmStats, nil},
		{"some wait", `{"statuses":{"deferred":3},"hour":{"delivered":9,"deferred":2,"bounced":1},` + relay("up") + `}`, nil},
		{"one of two relays paused", `{"statuses":{},"hour":{"delivered":9},"relays":[{"name":"a","status":"paused"},{"name":"b","status":"up"}]}`, nil},
		{"paused", `{"statuses":{"queued":7,"deferred":30},"hour":{},` + relay("paused") + `}`, []string{"notice-error", "Mail waits: no relay can be used, and 37 messages wait.", "smtp.example.net: the relay refuses the password: 535 5.7.8 &lt;b&gt;wrong&lt;/b&gt;.", "What to do: Set SMTP_PASSWORD."}},
		{"by an operator", `{"statuses":{},"hour":{},"relays":[{"name":"a","status":"paused","paused_until":"2030-01-31T08:00:00Z","paused_by_operator":{"since":"2030-01-31T07:00:00Z","reason":"moving"}}]}`, []string{"An operator of the server keeps mail from a (moving).", "January 31, 2030"}},
		{"waits", `{"statuses":{"deferred":1},"oldest_due":"` + ago(3*time.Hour) + `","hour":{},` + relay("up") + `,"replies":[{"reply_code":450,"text":"busy"}]}`, []string{"notice-warning", "Mail waits: 1 message waits, one of them for 3 h.", "The relay says: 450 busy"}},
		{"nothing taken", `{"statuses":{"deferred":4},"hour":{"deferred":8},` + relay("up") + `}`, []string{"Mail waits: nothing was sent in the last hour, and 4 messages wait."}},
		{"refused", `{"statuses":{"failed":5},"hour":{"delivered":1,"bounced":5},` + relay("up") + `,"replies":[{"reply_code":550,"enhanced_code":"5.7.1","text":"<i>not you</i>"}]}`, []string{"relays took 1 and refused 5.", "Mostly with: 550 5.7.1 &lt;i&gt;not you&lt;/i&gt;"}},
		{"held", `{"statuses":{"held":2},"hour":{"delivered":1},` + relay("up") + `}`, []string{"2 messages wait for you to decide."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := newFakeServer(t, byPath(map[string]string{"/v1/stats": test.stats, "/readyz": "ok"}))
			out, log := s.Run(t, s.plugin(fake.URL), asAdmin+`
				$notice = notice(); $widget = widget();
				add_meta_box('x', 'x', 'x'); require_once ABSPATH . 'wp-admin/includes/dashboard.php'; do_action('wp_dashboard_setup');
				$there = (int) isset($GLOBALS['wp_meta_boxes']['dashboard']['normal']['core']['mailsidecar']);
				set_current_screen('tools_page_mailsidecar'); $own = notice();
				wp_set_current_user(wp_insert_user(['user_login' => uniqid(), 'user_pass' => 'x', 'user_email' => uniqid() . '@example.org', 'role' => 'editor']));
				set_current_screen('dashboard');
				echo json_encode([$notice, $widget, $own . notice(), $there]);`)
			var got []any
			if err := json.Unmarshal([]byte(out), &got); err != nil || log != "" {
				t.Fatalf("%q, %v\n%s", out, err, log)
			}
			notice, widget := fmt.Sprint(got[0]), fmt.Sprint(got[1])
			if (notice != "") != (test.want != nil) {
				t.Errorf("notice = %q", notice)
			}
			for _, want := range test.want {
				if !strings.Contains(notice, want) {
					t.Errorf("notice = %q, want %q", notice, want)
				}
			}
			if widget == "" || got[2] != "" || got[3] != 1.0 {
				t.Errorf("widget %q, on the dashboard %v; on the plugin's own page and for an editor: %q", widget, got[3], got[2])
			}
			wantNoMarkup(t, notice+widget)
		})
	}
	t.Run("a key that may only send", func(t *testing.T) {
		server := serve(t, withKey(stored(t, s.relay, s.relay.Submission)).with(environment{"MAILSIDECAR_KEY_ROLES": "wordpress:send"}))
		out, log := s.Run(t, s.plugin(server.url), asAdmin+`echo notice(), '|', widget(), page('');`)
		for _, want := range []string{"Mail flows. This key may not see the numbers.", "needs the role read", "MAILSIDECAR_KEY_ROLES"} {
			if !strings.Contains(out, want) || !strings.HasPrefix(out, "|") || log != "" {
				t.Errorf("notice, widget and log = %s, %s, want no notice, and %q", out, log, want)
			}
		}
	})
	t.Run("drained", func(t *testing.T) {
		fake := newFakeServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				answering("503 - not ready: draining")(n, w, r)
				return
			}
			byPath(map[string]string{"/v1/stats": calmStats})(n, w, r)
		})
		if out, _ := s.Run(t, s.plugin(fake.URL), asAdmin+`echo notice();`); !strings.Contains(out, "New mail is refused.") || !strings.Contains(out, "draining") {
			t.Errorf("notice = %q, want that new mail is refused", out)
		}
	})
	t.Run("an admin's key", func(t *testing.T) {
		fake := newFakeServer(t, byPath(map[string]string{"/v1/stats": `{"statuses":{},"hour":{},"relays":[],"keys":[{"name":"a"},{"name":"b"}]}`, "/readyz": "ok", "/v1/messages": `{"messages":[]}`}))
		if page := s.adminPage(t, s.plugin(fake.URL), ""); !strings.Contains(page, "This key has the role admin") {
			t.Errorf("the log does not say that it shows the mail of all apps:\n%s", page)
		}
	})
}

// testWPNoticeSeldom: many pages ask once a minute, and once in five minutes after a failure;
// a page never waits for more than two seconds.
func testWPNoticeSeldom(t *testing.T, s *shop) {
	const clock = `$requests = []; add_action('http_api_debug', function ($r, $c, $class, $args, $url) use (&$requests) { $requests[] = parse_url($url, PHP_URL_PATH) . ' ' . $args['timeout']; }, 10, 5);
		function left() { return get_site_transient('mailsidecar_state')['until'] - time(); }
		function later($seconds) { $kept = get_site_transient('mailsidecar_state'); $kept['until'] -= $seconds; set_site_transient('mailsidecar_state', $kept, 3600); }`
	calm := newFakeServer(t, byPath(map[string]string{"/v1/stats": calmStats, "/readyz": "ok"}))
	out, log := s.Run(t, s.plugin(calm.URL), asAdmin+clock+`
		for ($i = 0; $i < 20; $i++) { notice(); widget(); }
		$left = left(); later(30); notice(); $before = count($requests); later(31); notice(); echo $left > 60 || $left < 30 ? "asks again after $left s " : '', $before, ' ', json_encode($requests, JSON_UNESCAPED_SLASHES);`)
	if want := `2 ["/v1/stats 1","/readyz 1","/v1/stats 1","/readyz 1"]`; out != want || log != "" {
		t.Errorf("requests of 20 pages, and after a minute = %s, %s, want %s", out, log, want)
	}
	release := make(chan struct{})
	defer close(release)
	slow := newFakeServer(t, func(int, http.ResponseWriter, *http.Request) { <-release })
	for name, options := range map[string][]string{"ext-curl": nil, "streams": noCurl} {
		out, log = s.Run(t, s.plugin(slow.URL), asAdmin+clock+`
			for ($i = 0; $i < 20; $i++) { $notice = notice(); }
			$left = left(); later(200); notice(); $before = count($requests); later(101); notice(); echo $left > 300 || $left < 230 ? "asks again after $left s " : '', $before, json_encode($requests, JSON_UNESCAPED_SLASHES), $notice;`, options...)
		if !strings.HasPrefix(out, `1["/v1/stats 1","/v1/stats 1"]<div class="notice notice-error">`) || !strings.Contains(out, "No mail can be sent.") || log != "" {
			t.Errorf("%s: with a server that does not answer, requests and notice = %s, %s", name, out, log)
		}
	}
	out, _ = s.Run(t, s.plugin(calm.URL), asAdmin+clock+`notice(); putenv('MAILSIDECAR_API_KEY=another'); notice(); notice(); echo count($requests);`)
	if out != "4" {
		t.Errorf("requests with one key and then another = %s, want 4: what was known of the first does not count", out)
	}
	// While one page asks, another one shows what was known.
	out, _ = s.Run(t, s.plugin(calm.URL), asAdmin+`widget(); $kept = get_site_transient('mailsidecar_state'); $kept['until'] = 0; set_site_transient('mailsidecar_state', $kept, 3600);
		add_filter('pre_http_request', function () { echo widget(); return new WP_Error('x', 'x'); }); Mailsidecar\state();`)
	if !strings.Contains(out, "142 sent in the last hour") {
		t.Errorf("while it is asked, the widget shows %q, want what was known", out)
	}
}

// testWPLogCommand: the commands of WP-CLI for the log.
func testWPLogCommand(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	s.mail(t, s.env, "", `'unknown@example.org', 'Commands', 'x'`)
	id := s.messageID(t, "unknown@example.org")
	run := func(command string) string {
		t.Helper()
		out, log := s.Run(t, s.env, wpCLI+`call_user_func(WP_CLI::$commands['mailsidecar `+command+`);`)
		if log != "" {
			t.Errorf("PHP's log after %s: %s", command, log)
		}
		return out
	}
	for command, want := range map[string]string{
		`log'], [], ['search' => 'unknown@example.org', 'limit' => '1']`: "table [{\"id\":\"" + id,
		`log'], [], ['status' => 'failed', 'format' => 'json']`:          `json [{"id":"`,
		`log'], [], ['format' => 'ids', 'limit' => '1']`:                 id,
		`log'], ['` + id + `'], []`:                                      "550 5.1.1",
		`log'], ['nothing'], []`:                                         "Error: ",
		`log'], [], ['status' => 'lost']`:                                "Error: --status is one of waiting, queued",
		`resend'], ['` + id + `'], ['to' => '` + to + `']`:               "Send the message to " + to + "? [y/n]",
		`cancel'], ['` + id + `'], []`:                                   "[y/n]",
		`cancel'], ['` + id + `'], ['yes' => true]`:                      "Error: ",
		`retry'], ['` + id + `'], []`:                                    "Success: ",
	} {
		if out := run(command); !strings.Contains(out, want) {
			t.Errorf("wp mailsidecar %s = %q, want %q", command, out, want)
		}
	}
	resend := `resend'], ['` + id + `'], ['to' => '` + to + `', 'yes' => true`
	if out := run(resend + `]`); !strings.HasPrefix(out, "Success: The message is sent to "+to) {
		t.Errorf("wp mailsidecar resend = %q, want success", out)
	}
	if out := run(resend + `]`); !strings.HasPrefix(out, "Error: ") || !strings.Contains(out, "--again") {
		t.Errorf("wp mailsidecar resend of what was sent there = %q, want an error", out)
	}
	if out := run(resend + `, 'again' => true]`); !strings.HasPrefix(out, "Success: ") {
		t.Errorf("wp mailsidecar resend --again = %q, want success", out)
	}
	s.relay.Await(t, to, 2)
	fake := newFakeServer(t, byPath(map[string]string{"/v1/messages": filled(t, "\x1b]0;title\x07\u009b31m", func(p *api.Page) { p.Next = "c2" })}))
	out, _ := s.Run(t, s.plugin(fake.URL), wpCLI+`call_user_func(WP_CLI::$commands['mailsidecar log'], [], []);`)
	if strings.ContainsAny(out, "\x1b\x07\u009b") || strings.Contains(out, `\u001b`) || strings.Contains(out, `\u009b`) || !strings.Contains(out, "--cursor=c2") {
		t.Errorf("wp mailsidecar log = %q, want no controls of a terminal, and where to go on", out)
	}
}

// testWPVisitors: on visitors' pages none of the plugin's hooks runs, nothing is asked, and
// no option is loaded for it.
func testWPVisitors(t *testing.T, s *shop) {
	s.Write(t, "wordpress/wp-content/mu-plugins/spy.php", `<?php
		function spy_note($what) { file_put_contents(dirname(ABSPATH) . '/spy.log', "$_SERVER[REQUEST_URI]: $what\n", FILE_APPEND); }
		add_action('muplugins_loaded', function () {
			$found = 0;
			foreach ($GLOBALS['wp_filter'] as $hook => $list) {
				foreach ($list->callbacks as $priority => $callbacks) {
					foreach ($callbacks as $id => $callback) {
						$run = $callback['function'];
						if (is_string($run) && 0 === strpos($run, 'Mailsidecar\\')) {
							$found++;
							$list->callbacks[$priority][$id]['function'] = function (...$arguments) use ($run, $hook) { spy_note("$hook runs $run"); return $run(...$arguments); };
						}
					}
				}
			}
			if ($found < 10) spy_note("only $found hooks are watched");
		});
		add_action('http_api_debug', function ($r, $c, $class, $args, $url) { spy_note("request to $url"); }, 10, 5);`)
	defer s.Write(t, "wordpress/wp-content/mu-plugins/spy.php", "<?php")
	site := s.Serve(t, s.env)
	admin := s.logIn(t, site, wordpress.Admin, wordpress.AdminPassword)
	for _, path := range []string{"/wp-admin/index.php", "/wp-admin/tools.php?page=mailsidecar"} {
		if status, page := admin.get(t, path); status != http.StatusOK || !strings.Contains(page, "sent in the last hour") {
			t.Errorf("%s = %d without the sentence", path, status)
		}
	}
	seen := func() string {
		t.Helper()
		out, _ := s.Run(t, nil, `echo is_readable(SITE . '/spy.log') ? file_get_contents(SITE . '/spy.log') : ''; file_put_contents(SITE . '/spy.log', '');`)
		return out
	}
	if log := seen(); !strings.Contains(log, "wp_dashboard_setup runs Mailsidecar") || !strings.Contains(log, "request to "+s.server.url) || strings.Contains(log, "only ") {
		t.Fatalf("on pages of wp-admin the spy saw %q: it does not see what it should", log)
	}
	visitor := browser{&http.Client{Timeout: time.Minute}, site}
	for _, path := range []string{"/", "/?p=1", "/?s=x", "/?feed=rss2", "/?rest_route=/", "/nowhere", "/wp-login.php", "/wp-admin/admin-ajax.php?action=x", "/wp-sitemap.xml"} {
		visitor.get(t, path)
		admin.get(t, path)
	}
	if log := seen(); log != "" {
		t.Errorf("on visitors' pages the plugin does something:\n%s", log)
	}
	out, _ := s.Run(t, s.env, wordpress.Load+`echo json_encode($wpdb->get_results("SELECT option_name, autoload FROM $wpdb->options WHERE option_name LIKE '%mailsidecar%'"));
		echo count(preg_grep('/mailsidecar/', array_keys(wp_load_alloptions(true))));`)
	if !strings.Contains(out, "mailsidecar_state") || !strings.HasSuffix(out, "]0") {
		t.Errorf("options = %s, want some, and none that is loaded on every page", out)
	}
}
