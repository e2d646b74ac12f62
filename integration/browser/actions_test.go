package browser_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"mailsidecar/api"
	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// eachWay runs a test with JavaScript and without, on a server of its own.
func eachWay(t *testing.T, test func(t *testing.T, l look)) {
	t.Parallel()
	for _, l := range []look{everyday, {phone, false, false}} {
		t.Run(l.String(), func(t *testing.T) { test(t, l) })
	}
}

// fill types a text into the field of that name.
func (p *tab) fill(name, text string) {
	p.t.Helper()
	field := `main [name="` + name + `"]`
	p.await(field)
	evaluate[int](p, `(document.querySelector('`+field+`').value = "", 0)`)
	p.do(chromedp.SendKeys(chromedp.CSS(field), text))
}

// TestSignIn signs in with a wrong key, with the right one, and out again.
func TestSignIn(t *testing.T) {
	eachWay(t, func(t *testing.T, l look) {
		s := serve(t, newRelay(t, nil).withKeys())
		p := open(t, s, l)
		p.visit("/ui/relays")
		p.do(chromedp.SendKeys(chromedp.CSS("#key"), "wrong"), chromedp.Submit(chromedp.CSS("#key")))
		p.says("not known")
		p.check("wrong key")
		p.do(chromedp.SendKeys(chromedp.CSS("#key"), shopSecret), chromedp.Submit(chromedp.CSS("#key")))
		p.await("header.top")
		if where := evaluate[string](p, "location.pathname"); where != "/ui/relays" {
			t.Errorf("signed in at %s, want the page that was asked for, /ui/relays", where)
		}
		if strings.Contains(p.text(), "Drain") {
			t.Error("a key that is not an operator's is shown the drain")
		}
		p.visit("/ui/settings")
		p.says("may not use this page")
		p.check("forbidden page")
		p.do(chromedp.Click(chromedp.CSS("form.who button")), chromedp.WaitReady(chromedp.CSS("#key")))
		p.visit("/ui/")
		p.await("#key")
		p.quiet("signed out")
	})
}

// TestOperate pauses a relay, resumes it, checks its ports, and drains the server.
func TestOperate(t *testing.T) {
	eachWay(t, func(t *testing.T, l look) {
		s := serve(t, newRelay(t, nil).withKeys())
		p := open(t, s, l)
		p.signIn(adminSecret)
		p.visit("/ui/relays")
		p.press("Pause…")
		p.fill("for", "2h")
		p.fill("reason", "the relay moves")
		p.press("Pause this relay")
		p.says("the relay moves")
		p.check("paused")
		var relays api.Relays
		call(t, s.admin, http.MethodGet, "/v1/relays", nil, &relays, http.StatusOK)
		if relays.Relays[0].PausedByOperator == nil {
			t.Fatal("the relay is not paused")
		}
		id := s.send(t, s.admin, api.Request{To: []string{"ana@example.org"}, Subject: "Your order 1041"})
		p.visit("/ui/")
		p.says("Mail waits")
		p.visit("/ui/relays")
		p.press("Resume")
		s.settle(t, id, api.StatusDelivered)
		p.says("Pause…")
		p.press("Check ports")
		p.says("mail can be sent")
		p.picture("check-" + l.String())
		p.check("port check")
		p.press("Drain…")
		p.press("Refuse new mail")
		p.says("End the drain")
		p.check("drained")
		p.press("End the drain")
		p.says("Drain…")
		p.quiet("operated")
	})
}

// TestSendTest sends a test mail that arrives, and one that is refused.
func TestSendTest(t *testing.T) {
	eachWay(t, func(t *testing.T, l look) {
		s := serve(t, newRelay(t, nil).withKeys())
		p := open(t, s, l)
		p.signIn(shopSecret)
		p.visit("/ui/send")
		p.fill("to", "nobody")
		p.press("Send")
		p.await("[aria-invalid=true]")
		p.check("bad address")
		p.fill("to", "ana@example.org")
		p.press("Send")
		p.says("delivered")
		p.check("sent")
		p.visit("/ui/send")
		p.fill("to", "gone@example.net")
		p.press("Send")
		p.says("5.1.1")
		p.picture("refused-" + l.String())
		p.check("refused")
	})
}

// TestMendMail finds failed mail, retries it, sends it to another address, and cancels what waits.
func TestMendMail(t *testing.T) {
	eachWay(t, func(t *testing.T, l look) {
		s := serve(t, newRelay(t, relaytest.Script{"RCPT TO:<once@": "550 5.7.1 Not today then 550 5.7.1 Not today then 550 5.7.1 Not today then default"}).withKeys())
		var once []string
		for range 3 {
			once = append(once, s.send(t, s.client(t, shopSecret), api.Request{To: []string{"once@example.com"}, Subject: "Your password"}))
		}
		_, failed, waits := s.mixedMail(t)
		p := open(t, s, l)
		p.signIn(adminSecret)

		p.visit("/ui/messages?q=once%40example.com")
		p.says("all 3 that match")
		p.picture("search-" + l.String())
		p.check("search")
		p.do(chromedp.Click(chromedp.CSS("[name=scope][value=all]")))
		p.press("Retry …")
		p.says("3 messages")
		p.check("asked")
		p.press("Retry up to 3 messages")
		for _, id := range once {
			s.settle(t, id, api.StatusDelivered)
		}
		p.says("Retried: 3")
		p.picture("retried-" + l.String())
		p.check("retried")

		p.visit("/ui/messages/" + failed)
		p.says("5.1.1")
		p.press("Send to another address …")
		p.fill("to", "bo@example.org")
		p.press("Send")
		p.says("Sends again")
		p.check("sent to another address")

		p.visit("/ui/messages/" + waits)
		p.press("Cancel …")
		p.press("Cancel 1 message")
		s.settle(t, waits, api.StatusPartial)
		p.says("canceled")
		p.check("canceled")
	})
}

// TestRefreshes leaves the overview open: it says by itself that mail waits.
func TestRefreshes(t *testing.T) {
	t.Parallel()
	s := serve(t, relaySettings(t, machine.FreePort(t)))
	p := open(t, s, everyday)
	p.visit("/ui/")
	p.says("Mail flows")
	s.settle(t, s.send(t, s.admin, api.Request{To: []string{"ana@example.org"}, Subject: "Your order 1041"}), api.StatusDeferred)
	p.says("Mail waits")
	p.check("refreshed")
}
