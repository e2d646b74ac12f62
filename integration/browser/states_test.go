package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"mailsidecar/api"
	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// TestEmpty is a server that has seen no mail, and asks for no key.
func TestEmpty(t *testing.T) {
	t.Parallel()
	s := serve(t, newRelay(t, nil))
	p := open(t, s, everyday)
	for name, path := range map[string]string{"overview": "/ui/", "messages": "/ui/messages", "relays": "/ui/relays", "send": "/ui/send"} {
		p.visit(path)
		p.await("main h1")
		p.picture("empty-" + name)
		p.check(name)
	}
}

// TestRelayDown is a server whose relay cannot be reached: every page says that mail waits,
// and why.
func TestRelayDown(t *testing.T) {
	t.Parallel()
	s := serve(t, relaySettings(t, machine.FreePort(t)).withKeys())
	id := s.send(t, s.admin, api.Request{To: []string{"ana@example.org"}, Subject: "Your order 1041"})
	s.settle(t, id, api.StatusDeferred)
	p := open(t, s, look{phone, true, true})
	p.signIn(adminSecret)
	for name, path := range map[string]string{"overview": "/ui/", "messages": "/ui/messages", "message": "/ui/messages/" + id, "relays": "/ui/relays"} {
		p.visit(path)
		p.says("Mail waits")
		p.picture("down-" + name)
		p.check(name)
	}
}

// TestWrongPassword is a server whose password the relay refuses.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	s := serve(t, newRelay(t, nil).with(settings{"SMTP_PASSWORD": "wrong"}))
	id := s.send(t, s.admin, api.Request{To: []string{"ana@example.org"}, Subject: "Your order 1041"})
	s.settle(t, id, api.StatusDeferred)
	p := open(t, s, everyday)
	p.visit("/ui/")
	p.says("Mail waits")
	p.says("refuse")
	p.picture("password-overview")
	p.check("overview")
	p.visit("/ui/messages/" + id)
	p.picture("password-message")
	p.check("message")
}

// hostile are texts that would do harm in a page that did not escape them. Each sets a name
// that the test looks for, or asks another server.
func hostile(elsewhere string) []string {
	return []string{
		`"><img src=x onerror="window.harm=1">`, `'><script>window.harm=2</script>`, `</title><svg onload=window.harm=3>`,
		`javascript:window.harm=4`, `{{7*7}}<iframe srcdoc="<script>parent.harm=5</script>">`, `<a href="` + elsewhere + `/link">x</a><link rel=stylesheet href=` + elsewhere + `/style>`,
		"\u202e<b>right to left</b>", strings.Repeat("longword", 40), `</textarea></select></details><h1>harm</h1>`,
	}
}

// TestHostileMail sends mail with harmful texts wherever an app or a relay can put any, and opens every
// page that shows it.
func TestHostileMail(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	s := serve(t, newRelay(t, relaytest.Script{
		"RCPT TO:<refused@": `550 5.1.1 <script>window.harm=6</script> "><img src=` + elsewhere.URL + `/reply onerror=window.harm=7>`,
	}).withKeys())
	var ids []string
	for i, text := range hostile(elsewhere.URL) {
		ids = append(ids, s.send(t, s.admin, api.Request{
			From: fmt.Sprintf("%q <shop@example.com>", strings.ReplaceAll(strings.ReplaceAll(text, `\`, ""), `"`, `'`)),
			To:   []string{fmt.Sprintf(`"<script>window.harm=8</script>" <refused@n%d.example.org>`, i)}, Subject: text,
			Text: text, HTML: "<h1>Hello</h1>" + text + `<script>top.harm=9;window.harm=9</script><img src="` + elsewhere.URL + `/pixel"><style>@import url(` + elsewhere.URL + `/import);</style><form action="` + elsewhere.URL + `/form"><input name=a autofocus onfocus="window.harm=10"></form><meta http-equiv=refresh content="0;url=` + elsewhere.URL + `/refresh">`,
			Tags:        map[string]string{"note": text[:min(len(text), 200)]},
			Attachments: []api.Attachment{{Filename: `<img src=x onerror=window.harm=11>.html`, Content: []byte("<script>window.harm=12</script>"), ContentType: "text/html"}},
		}))
	}
	for _, id := range ids {
		s.settle(t, id, api.StatusFailed)
	}
	for _, l := range []look{everyday, {phone, true, false}} {
		t.Run(l.String(), func(t *testing.T) {
			p := open(t, s, l)
			p.signIn(adminSecret)
			paths := []string{"/ui/", "/ui/messages", "/ui/messages?q=" + `%22%3E%3Cimg+src%3Dx+onerror%3Dwindow.harm%3D13%3E`, "/ui/relays", "/ui/keys"}
			for _, id := range ids {
				paths = append(paths, "/ui/messages/"+id)
			}
			for _, path := range paths {
				p.visit(path)
				p.await("main h1")
				if harm := evaluate[string](p, `String(window.harm)`); harm != "undefined" {
					t.Errorf("%s: a text ran as a script: %s", path, harm)
				}
				if n := evaluate[int](p, `[...document.querySelectorAll("main img, main script, main svg[onload], h1")].filter(e => e.textContent.trim() === "harm" || e.getAttribute("src") === "x").length`); n > 0 {
					t.Errorf("%s: %d texts became elements", path, n)
				}
				p.check(path)
			}
			p.picture("hostile-" + l.String())
		})
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("another server was asked %d times", n)
	}
}

// TestManyWait is a server with 100,000 messages that wait, which the pages show as fast as few.
func TestManyWait(t *testing.T) {
	if testing.Short() {
		t.Skip("it submits 100,000 messages")
	}
	t.Parallel()
	s := serve(t, relaySettings(t, machine.FreePort(t)).with(settings{"MAILSIDECAR_QUEUE_MAX_MESSAGES": "200000"}))
	s.batch(t, s.admin, 100_000, func(i int) api.Request {
		return api.Request{To: []string{fmt.Sprintf("reader%d@example.org", i)}, Subject: fmt.Sprintf("News of week %d", i%52), Text: "x", Priority: "bulk"}
	})
	p := open(t, s, everyday)
	for name, path := range map[string]string{"overview": "/ui/", "messages": "/ui/messages", "search": "/ui/messages?q=reader77%40example.org"} {
		p.visit(path)
		p.await("main h1")
		p.picture("many-" + name)
		p.check(name)
	}
}
