package ui

import (
	"crypto/hmac"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	cookieName = "mailsidecar"
	// sessionTime is how long a person stays signed in.
	sessionTime = 12 * time.Hour
	// tokenField is the field of a form with the token that only our pages know.
	tokenField = "csrf"
)

// A session is a cookie, and nothing is kept of it here: NAME.EXPIRY.MAC, where the MAC is
// made with the digest of the key's secret. A secret that is changed ends its sessions, and
// instances with the same keys know each other's.

func (u *UI) newSession(key string, now time.Time) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(key)) + "." + strconv.FormatInt(now.Add(sessionTime).Unix(), 10)
	return text + "." + u.mac(key, "session "+text)
}

func (u *UI) mac(key, text string) string {
	return base64.RawURLEncoding.EncodeToString(u.door.MAC(key, text))
}

// whose returns the key of a session.
func (u *UI) whose(session string, now time.Time) (key string, ok bool) {
	end := strings.LastIndexByte(session, '.')
	if end < 0 || len(session) > 300 {
		return "", false
	}
	text, mac := session[:end], session[end+1:]
	encoded, expiry, _ := strings.Cut(text, ".")
	name, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(name) == 0 {
		return "", false
	}
	until, err := strconv.ParseInt(expiry, 10, 64)
	if err != nil || now.Unix() >= until || until > now.Add(sessionTime+time.Hour).Unix() {
		return "", false
	}
	given, err := base64.RawURLEncoding.Strict().DecodeString(mac)
	want := u.door.MAC(string(name), "session "+text)
	if err != nil || want == nil || !hmac.Equal(given, want) {
		return "", false
	}
	return string(name), true
}

// session is the cookie of the request that is good, with its key.
func (u *UI) session(r *http.Request) (session, key string, ok bool) {
	for _, c := range r.CookiesNamed(cookieName) {
		if key, ok := u.whose(c.Value, time.Now()); ok {
			return c.Value, key, true
		}
	}
	return "", "", false
}

func (u *UI) setCookie(w http.ResponseWriter, r *http.Request, value string) {
	c := &http.Cookie{ //nolint:gosec // over HTTP it cannot be Secure
		Name: cookieName, Value: value, Path: u.prefix + "/ui/", MaxAge: int(sessionTime / time.Second),
		// A visitor who forges X-Forwarded-Proto only keeps the cookie from himself.
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overHTTPS(r),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

func overHTTPS(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

// token is what the forms of this session have: no other site can know it.
func (u *UI) token(key, session string) string { return u.mac(key, "form "+session) }

func (v *visit) rightToken() bool {
	return hmac.Equal([]byte(v.r.PostForm.Get(tokenField)), []byte(v.csrf))
}

// guesses bounds how many wrong keys come from an address.
type guesses struct {
	mu   sync.Mutex
	left map[origin]guess
}

// origin is where a guess comes from. Behind a proxy it is two: the visitor, and the proxy.
type origin struct{ proxy, visitor netip.Prefix }

// through is the proxy of a visitor; ok says that there is one.
func (o origin) through() (proxy origin, ok bool) {
	return origin{proxy: o.proxy}, o.proxy.IsValid() && o.visitor.IsValid()
}

type guess struct {
	n     int
	since time.Time
}

const (
	// maxGuesses is how many wrong keys an address may try within guessTime.
	maxGuesses = 20
	guessTime  = time.Minute
	// maxProxied is the same for all visitors of a proxy together, who may make up addresses
	// where the proxy passes on what they say of themselves.
	maxProxied = 200
	// maxGuessers bounds the memory: over it the oldest are forgotten.
	maxGuessers = 1000
)

// wait says how long the address must wait; zero: it may try.
func (g *guesses) wait(from origin, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.left[from]; a.n >= maxGuesses {
		return max(a.since.Add(guessTime).Sub(now), 0)
	}
	if proxy, ok := from.through(); ok && g.left[proxy].n >= maxProxied {
		return max(g.left[proxy].since.Add(guessTime).Sub(now), 0)
	}
	return 0
}

func (g *guesses) wrong(from origin, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == nil {
		g.left = map[origin]guess{}
	}
	if proxy, ok := from.through(); ok {
		g.add(proxy, now)
	}
	g.add(from, now)
}

func (g *guesses) add(from origin, now time.Time) {
	a := g.left[from]
	if now.Sub(a.since) >= guessTime {
		a = guess{since: now}
	}
	a.n++
	g.left[from] = a
	if len(g.left) > maxGuessers {
		g.forget(now)
	}
}

// forget drops those whose time is over, else the one who began first.
func (g *guesses) forget(now time.Time) {
	var first origin
	for from, a := range g.left {
		if now.Sub(a.since) >= guessTime {
			delete(g.left, from)
		} else if b, ok := g.left[first]; !ok || a.since.Before(b.since) {
			first = from
		}
	}
	if len(g.left) > maxGuessers {
		delete(g.left, first)
	}
}

// guesser is where the request comes from. A proxy on this host or on a private network tells
// its visitor at the end of X-Forwarded-For: without that, whoever guesses behind it would keep
// everybody else out.
func guesser(r *http.Request) origin {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return origin{}
	}
	peer := from.Addr().Unmap()
	told := r.Header.Values("X-Forwarded-For")
	if len(told) == 0 || !peer.IsLoopback() && !peer.IsPrivate() {
		return origin{visitor: network(peer)}
	}
	last := told[len(told)-1]
	visitor, err := netip.ParseAddr(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]))
	if err != nil {
		return origin{visitor: network(peer)}
	}
	return origin{proxy: network(peer), visitor: network(visitor)}
}

// network is an address; of IPv6 the part that one customer has.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

type signIn struct {
	Error string
	Next  string // page to go to
}

// nextPage is the page behind the sign-in: one of ours, or the overview.
func nextPage(given string) string {
	if strings.HasPrefix(given, "/ui/") && !strings.ContainsAny(given, "\\\r\n") && !strings.HasPrefix(given, "/ui/sign-") && len(given) < 2000 {
		return given
	}
	return "/ui/"
}

// askKey shows the page to sign in, in place of the one that was asked for.
func (v *visit) askKey(status int, s signIn) {
	v.show(status, "sign-in.html", page{Title: "Sign in", Data: s})
}

// getSignIn serves GET /ui/sign-in.
func (v *visit) getSignIn() error {
	if v.signedIn {
		v.redirect("/ui/")
		return nil
	}
	v.askKey(http.StatusOK, signIn{Next: nextPage(v.r.URL.Query().Get("next"))})
	return nil
}

// postSignIn serves POST /ui/sign-in. It has no token, for nobody is signed in yet: the
// server refuses forms of other sites.
func (v *visit) postSignIn() error {
	form := v.r.PostForm
	next := nextPage(form.Get("next"))
	if v.ui.door.Keyless() {
		v.redirect(next)
		return nil
	}
	from, now := guesser(v.r), time.Now()
	if wait := v.ui.guesses.wait(from, now); wait > 0 {
		v.w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		v.askKey(http.StatusTooManyRequests, signIn{Next: next, Error: "Too many wrong keys came from your address. Try again in " + inWords(wait) + "."})
		return nil
	}
	key, ok := v.ui.door.Find(strings.TrimSpace(form.Get("key")))
	if !ok {
		v.ui.guesses.wrong(from, now)
		what := "This key is not known here. The keys are in MAILSIDECAR_API_KEYS, as name:secret. Enter the secret alone, without the name."
		if strings.TrimSpace(form.Get("key")) == "" {
			what = "Enter the secret of an API key."
		}
		v.askKey(http.StatusForbidden, signIn{Next: next, Error: what})
		return nil
	}
	v.ui.setCookie(v.w, v.r, v.ui.newSession(key, now))
	v.redirect(next)
	return nil
}

// postSignOut serves POST /ui/sign-out.
func (v *visit) postSignOut() error {
	v.ui.setCookie(v.w, v.r, "")
	v.redirect("/ui/sign-in")
	return nil
}
