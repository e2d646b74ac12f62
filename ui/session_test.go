package ui

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignIn(t *testing.T) {
	d := newFake()
	b := newBrowser(t, d, "")
	if w := b.get("/ui/relays?x=1"); w.Code != 401 || !strings.Contains(w.Body.String(), `name="next" value="/ui/relays?x=1"`) || strings.Contains(w.Body.String(), "1.2.3") {
		t.Errorf("without a key: %d %s, want the page to sign in, that knows where to go", w.Code, w.Body)
	}
	w := b.post("/ui/sign-in", "key", " ops-secret\n", "next", "/ui/relays?x=1")
	if w.Code != 303 || w.Header().Get("Location") != "/ui/relays?x=1" {
		t.Fatalf("sign in = %d to %q", w.Code, w.Header().Get("Location"))
	}
	cookie := w.Result().Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/ui/" || cookie.MaxAge != 12*3600 || cookie.Secure {
		t.Errorf("cookie = %v", cookie)
	}
	if strings.Contains(cookie.Value, "ops-secret") {
		t.Error("the secret is in the cookie")
	}
	b.cookie = cookie.Value
	if w := b.get("/ui/relays"); w.Code != 200 || !strings.Contains(w.Body.String(), "key <bdi>ops</bdi> (admin)") {
		t.Errorf("signed in: %d %s", w.Code, w.Body)
	}
	b.csrf = b.ui.token("ops", b.cookie)
	if w := b.post("/ui/sign-out"); w.Code != 303 || w.Result().Cookies()[0].MaxAge != -1 {
		t.Errorf("sign out = %d %v", w.Code, w.Header())
	}
	for key, want := range map[string]string{"wrong": "not known here", "": "Enter the secret", "ops:ops-secret": "without the name"} {
		if w := b.post("/ui/sign-in", "key", key); w.Code != 403 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("key %q = %d, want a page with %q", key, w.Code, want)
		}
	}
	for next, want := range map[string]string{"//evil.example/": "/ui/", "https://evil.example/": "/ui/", "/ui/../v1/x": "/ui/../v1/x", "/ui/\\evil": "/ui/", "/ui/a\r\nX: y": "/ui/", "/ui/sign-out": "/ui/", "": "/ui/"} {
		if got := nextPage(next); got != want {
			t.Errorf("nextPage(%q) = %q, want %q", next, got, want)
		}
	}
}

// TestCookieIsSecure: over HTTPS, seen here or told by a proxy, it does not leave HTTPS.
func TestCookieIsSecure(t *testing.T) {
	for _, over := range []string{"https://x", "proxy"} {
		b := newBrowser(t, newFake(), "")
		r := httptest.NewRequest(http.MethodPost, strings.TrimPrefix(over, "proxy")+"/ui/sign-in", strings.NewReader("key=ops-secret"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if over == "proxy" {
			r.Header.Set("X-Forwarded-Proto", "https")
		}
		if w := b.do(r); !strings.Contains(w.Header().Get("Set-Cookie"), "; Secure") {
			t.Errorf("%s: Set-Cookie = %q", over, w.Header().Get("Set-Cookie"))
		}
	}
}

// TestForgedCookies: only what the server has made, for that key and that time, is a session.
func TestForgedCookies(t *testing.T) {
	d := newFake()
	u := New(d, Options{})
	now := time.Now()
	good := u.newSession("shop", now)
	if key, ok := u.whose(good, now); !ok || key != "shop" {
		t.Fatalf("whose(good) = %q, %v", key, ok)
	}
	name := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	parts := strings.Split(good, ".")
	later := strconv.FormatInt(now.Add(24*time.Hour).Unix(), 10)
	far := name("shop") + "." + later
	for what, forged := range map[string]string{
		"another key": name("ops") + "." + parts[1] + "." + parts[2], "a later end": parts[0] + "." + later + "." + parts[2], "no MAC": parts[0] + "." + parts[1] + ".",
		"an unknown key": name("nobody") + "." + parts[1] + "." + u.mac("nobody", "session "+name("nobody")+"."+parts[1]), "no key": "." + parts[1] + "." + parts[2], "empty": "", "dots": "...", "long": strings.Repeat("a", 5000) + good,
		"a form's token": parts[0] + "." + parts[1] + "." + u.mac("shop", "form "+parts[0]+"."+parts[1]), "an end too far": far + "." + u.mac("shop", "session "+far), "more behind": good + "A", "padding": good + "=",
		"a name twice": parts[0] + "." + parts[0] + "." + parts[1] + "." + parts[2],
	} {
		if key, ok := u.whose(forged, now); ok {
			t.Errorf("%s is taken for a session of %q", what, key)
		}
	}
	if _, ok := u.whose(good, now.Add(sessionTime)); ok {
		t.Error("a session does not end")
	}
	d.keys["shop"] = "changed"
	if _, ok := u.whose(good, now); ok {
		t.Error("a session goes on when the secret has changed")
	}
}

func FuzzWhose(f *testing.F) {
	u := New(newFake(), Options{})
	f.Add(u.newSession("ops", time.Unix(1e9, 0)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, session string) {
		if key, ok := u.whose(session, time.Unix(2e9, 0)); ok {
			t.Errorf("%q is a session of %q", session, key)
		}
	})
}

// TestEveryFormNeedsToken: every POST of the route table is refused without the token of its
// session, and changes nothing.
func TestEveryFormNeedsToken(t *testing.T) {
	for _, keyless := range []bool{false, true} {
		d := newFake()
		key := "ops"
		if keyless {
			d.keys, d.roles, key = nil, nil, ""
		}
		b := newBrowser(t, d, key)
		other := newBrowser(t, newFake(), "shop").csrf
		forms := 0
		for _, r := range routes {
			method, path, _ := strings.Cut(r.pattern, " ")
			if method != "POST" || r.access == anybody {
				continue
			}
			forms++
			path = strings.NewReplacer("{name}", "relay.example.com", "{id}", "018f2f6e-0000-7000-8000-000000000001").Replace(path)
			for _, token := range []string{"", "x", other, b.csrf + "x"} {
				r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(url.Values{tokenField: {token}}.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if w := b.do(r); w.Code != 403 {
					t.Errorf("POST %s with the token %q = %d, want 403", path, token, w.Code)
				}
			}
			if w := b.do(httptest.NewRequest(http.MethodPost, path+"?"+tokenField+"="+url.QueryEscape(b.csrf), http.NoBody)); w.Code != 403 {
				t.Errorf("POST %s with the token in its address = %d, want 403", path, w.Code)
			}
		}
		if asked := d.posted(); len(asked) > 0 || forms < 5 {
			t.Errorf("%d forms without a token asked for %q", forms, asked)
		}
	}
}

// TestWrongKeys: they slow down by address, the others go on, and what is remembered is bounded.
func TestWrongKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, newFake(), "")
		try := func(from, key string) int {
			r := httptest.NewRequest(http.MethodPost, "/ui/sign-in", strings.NewReader("key="+key))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.RemoteAddr = from
			return b.do(r).Code
		}
		for range maxGuesses {
			if got := try("203.0.113.5:1", "wrong"); got != 403 {
				t.Fatalf("a wrong key = %d, want 403", got)
			}
		}
		for from, want := range map[string]int{"203.0.113.5:9": 429, "203.0.113.6:1": 303, "[2001:db8::1]:1": 303} {
			if got := try(from, "ops-secret"); got != want {
				t.Errorf("the right key from %s = %d, want %d", from, got, want)
			}
		}
		time.Sleep(guessTime)
		if got := try("203.0.113.5:9", "ops-secret"); got != 303 {
			t.Errorf("after a minute = %d, want 303", got)
		}
		for i := range 3 * maxGuessers {
			try("10."+strconv.Itoa(i/250)+".0."+strconv.Itoa(i%250)+":1", "wrong")
		}
		if n := len(b.ui.guesses.left); n > maxGuessers {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

// TestLinkFromElsewhere: the browser keeps the cookie to itself when another site leads here,
// and asks again.
func TestLinkFromElsewhere(t *testing.T) {
	b := newBrowser(t, newFake(), "")
	r := httptest.NewRequest(http.MethodGet, "/ui/relays", http.NoBody)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if w := b.do(r); w.Code != 200 || !strings.Contains(w.Body.String(), `http-equiv="refresh"`) {
		t.Errorf("a link from elsewhere = %d %s", w.Code, w.Body)
	}
}
