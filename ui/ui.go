// Package ui is the dashboard: pages for people, at /ui/.
//
// A page is what the native API answers, in HTML: each makes a few requests to the API as its
// visitor, decodes the types of package api, and renders a template. So roles, limits and
// errors are the API's, and what a page shows a script can have, too.
//
// The pages work without JavaScript. They load nothing from elsewhere, and have neither
// scripts nor styles inline: the Content-Security-Policy forbids both.
package ui

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Options are what the pages need besides the [Door].
type Options struct {
	// Prefix is what a reverse proxy has in front of /ui/, such as /mail; empty for nothing.
	Prefix  string
	Version string       // of the product, shown to visitors with a key
	Logger  *slog.Logger // nil discards
}

// UI serves the pages.
type UI struct {
	door    Door
	prefix  string
	version string
	log     *slog.Logger
	guesses guesses
	turns   chan struct{}
	shares  shares
	exports exports
	pages   func() *pages         // made when the first page is asked for
	mux     func() *http.ServeMux // likewise
}

const (
	// pageTime limits the work on one page.
	pageTime = 5 * time.Second
	// maxPages is how many pages are made at once for one key, and maxAllPages for all: others
	// come to theirs while the store is slow for the searches of one. It bounds their memory.
	maxPages    = 4
	maxAllPages = maxPages + 2
	// maxForm and maxSignIn are the octets of a form.
	maxForm   = 32 << 10
	maxSignIn = 4 << 10
)

// New returns the pages. They cost next to nothing until one is asked for.
func New(door Door, o Options) *UI {
	u := &UI{door: door, prefix: o.Prefix, version: o.Version, log: o.Logger, turns: make(chan struct{}, maxAllPages)}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	u.pages, u.mux = sync.OnceValue(u.newPages), sync.OnceValue(u.newMux)
	return u
}

// access is who may see a page.
type access int

const (
	anybody access = iota // signed in or not
	signedIn
	reader // with the role read
	sender // with the role send
	mender // with both
	admin
)

// route is one page, or one thing that a form does. A POST needs the token of the session.
type route struct {
	pattern string // of http.ServeMux
	access  access
	serve   func(*visit) error
}

// routes are all pages. GET serves HEAD, too.
var routes = []route{
	{"GET /ui/{$}", signedIn, (*visit).getOverview},
	{"GET /ui/messages", reader, (*visit).getMessages},
	{"POST /ui/messages/actions", reader, (*visit).postActions},
	{"POST /ui/messages/export", reader, (*visit).postExport},
	{"GET /ui/messages/{id}", reader, (*visit).getMessage},
	{"GET /ui/messages/{id}/html", reader, (*visit).getMessageHTML},
	{"GET /ui/messages/{id}/text", reader, (*visit).getMessageText},
	{"GET /ui/messages/{id}/source", reader, (*visit).getMessageSource},
	{"GET /ui/messages/{id}/eml", reader, (*visit).getMessageFile},
	{"GET /ui/messages/{id}/part/{n}", reader, (*visit).getMessagePart},
	{"POST /ui/messages/{id}/retry", mender, (*visit).postRetry},
	{"POST /ui/messages/{id}/cancel", mender, (*visit).postCancel},
	{"POST /ui/messages/{id}/resend", mender, (*visit).postResend},
	{"GET /ui/relays", signedIn, (*visit).getRelays},
	{"POST /ui/relays/{name}/check", signedIn, (*visit).postRelayCheck},
	{"POST /ui/relays/{name}/pause", admin, (*visit).postRelayPause},
	{"POST /ui/relays/{name}/resume", admin, (*visit).postRelayResume},
	{"POST /ui/drain", admin, (*visit).postDrain},
	{"GET /ui/keys", admin, (*visit).getKeys},
	{"GET /ui/send", sender, (*visit).getSend},
	{"POST /ui/send", sender, (*visit).postSend},
	{"GET /ui/settings", admin, (*visit).getSettings},
	{"GET " + signInPath, anybody, (*visit).getSignIn},
	{"POST " + signInPath, anybody, (*visit).postSignIn},
	{"POST /ui/sign-out", signedIn, (*visit).postSignOut},
}

const signInPath = "/ui/sign-in"

func (u *UI) newMux() *http.ServeMux {
	m := http.NewServeMux()
	for _, r := range routes {
		m.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) { u.serve(w, req, r) })
	}
	m.HandleFunc("GET /ui/static/{name}", u.serveStatic)
	m.HandleFunc("/ui/", func(w http.ResponseWriter, req *http.Request) {
		u.serve(w, req, route{access: signedIn, serve: (*visit).notFound})
	})
	return m
}

// ServeHTTP answers a visit. Paths begin with /ui, also behind a prefix.
func (u *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if r.URL.Path == "/ui" {
		u.door.Stranger(r)
		http.Redirect(w, r, u.prefix+"/ui/", http.StatusSeeOther)
		return
	}
	u.mux().ServeHTTP(w, r)
}

// policy lets pages load our own style, script and pictures, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// visit is one request of a person's browser.
type visit struct {
	ui  *UI
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context //nolint:containedctx // of this request: it ends after pageTime

	signedIn                  bool
	key                       string // name; empty on a server without keys
	maySend, mayRead, isAdmin bool
	csrf                      string
	calls                     int
	endTurn, cancel           func()
	facts                     facts
}

func (v *visit) has(a access) bool {
	switch a {
	case reader:
		return v.mayRead
	case sender:
		return v.maySend
	case mender:
		return v.maySend && v.mayRead
	case admin:
		return v.isAdmin
	default:
		return true
	}
}

// serve answers one visit of a page.
func (u *UI) serve(w http.ResponseWriter, r *http.Request, at route) {
	if r.Method != http.MethodPost {
		r.Body = http.NoBody // nothing reads it: it could be of any size
	}
	v := &visit{ui: u, w: w, r: r, ctx: r.Context(), endTurn: func() {}, cancel: func() {}}
	refusal := v.enter(at)
	if refusal == nil && r.Method == http.MethodPost {
		refusal = v.readForm(at)
	}
	defer func() {
		v.endTurn()
		v.cancel()
	}()
	if !v.begin() && refusal == nil {
		refusal = errBusy
	}
	if refusal != nil {
		v.refuse(refusal)
		return
	}
	if err := at.serve(v); err != nil {
		v.fail(err)
	}
}

// refusalError is why a visit is refused before the API is asked.
type refusalError struct {
	status int
	text   string
}

func (e *refusalError) Error() string { return e.text }

var (
	errNotSignedIn = &refusalError{http.StatusUnauthorized, ""}
	errBusy        = &refusalError{http.StatusServiceUnavailable, "Many pages are being made just now. Try again in a moment."}
)

// enter finds out whose the visit is, and whether it may come here.
func (v *visit) enter(at route) *refusalError {
	session := ""
	if v.ui.door.Keyless() {
		v.signedIn = true
	} else {
		session, v.key, v.signedIn = v.ui.session(v.r)
	}
	if !v.signedIn {
		v.ui.door.Stranger(v.r)
		if at.access == anybody {
			return nil
		}
		return errNotSignedIn
	}
	if p := v.ui.door.Enter(v.r, v.key); p != nil {
		return &refusalError{p.Status, p.Detail}
	}
	v.maySend, v.mayRead, v.isAdmin = v.ui.door.Roles(v.key)
	v.csrf = v.ui.token(v.key, session)
	if !v.has(at.access) {
		return &refusalError{http.StatusForbidden, "The key " + v.key + " may not use this page. MAILSIDECAR_KEY_ROLES says what a key may do."}
	}
	return nil
}

// readForm reads a form, and judges its token.
func (v *visit) readForm(at route) *refusalError {
	limit := int64(maxForm)
	if at.access == anybody {
		limit = maxSignIn
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, limit)
	if err := v.r.ParseForm(); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return &refusalError{http.StatusRequestEntityTooLarge, "The form is too large: it may have 32 KB."}
		}
		return &refusalError{http.StatusBadRequest, "The form did not arrive as a whole. Go back and send it again."}
	}
	if at.access != anybody && !v.rightToken() {
		return &refusalError{http.StatusForbidden, "Nothing was changed: the form is of another session, or of the time before a restart. Go back, load the page again, and send the form again."}
	}
	return nil
}

// begin starts the time for making a page, in its turn. A form that has waited for a relay,
// outside of its turn, begins again.
func (v *visit) begin() bool {
	ok := v.takeTurn()
	v.cancel()
	v.ctx, v.cancel = context.WithTimeout(v.r.Context(), pageTime)
	return ok
}

// pause lets others have their turn while the visit waits for a relay, for so long at most.
func (v *visit) pause(limit time.Duration) {
	v.endTurn()
	v.cancel()
	v.ctx, v.cancel = context.WithTimeout(v.r.Context(), limit)
}

// takeTurn waits until there is room for one more page.
func (v *visit) takeTurn() bool {
	late := time.NewTimer(pageTime)
	defer late.Stop()
	share := v.ui.shares.of(v.key)
	if share != nil {
		select {
		case share <- struct{}{}:
		case <-late.C:
			return false
		case <-v.r.Context().Done():
			return false
		}
	}
	end := func() {
		if share != nil {
			<-share
		}
	}
	select {
	case v.ui.turns <- struct{}{}:
		v.endTurn = sync.OnceFunc(func() {
			<-v.ui.turns
			end()
		})
		return true
	case <-late.C:
	case <-v.r.Context().Done():
	}
	end()
	return false
}

// shares bounds the turns of each key, of which there are as many as are configured.
type shares struct {
	mu    sync.Mutex
	ofKey map[string]chan struct{}
}

// of is the share of the key with that name; nil for strangers, and on a server without keys.
func (s *shares) of(key string) chan struct{} {
	if key == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	share := s.ofKey[key]
	if share == nil {
		if s.ofKey == nil {
			s.ofKey = map[string]chan struct{}{}
		}
		share = make(chan struct{}, maxPages)
		s.ofKey[key] = share
	}
	return share
}

// refuse answers a visit that may not go on.
func (v *visit) refuse(e *refusalError) {
	if e != errNotSignedIn {
		v.showError(e.status, e.text)
		return
	}
	if v.r.Header.Get("Sec-Fetch-Site") == "cross-site" && v.r.Method == http.MethodGet {
		// A link from elsewhere, as in a chat: the browser kept the cookie to itself, and
		// sends it when the page asks again.
		v.show(http.StatusOK, "again.html", page{Title: "mailsidecar"})
		return
	}
	next := "/ui/"
	if v.r.Method == http.MethodGet {
		next = nextPage(v.r.URL.RequestURI())
	}
	v.askKey(http.StatusUnauthorized, signIn{Next: next})
}

// fail answers with a page that says what went wrong.
func (v *visit) fail(err error) {
	status, text := http.StatusInternalServerError, "The server could not make this page. Its log has the cause."
	if e, ok := errors.AsType[*answerError](err); ok {
		status, text = e.Status, e.Error()
	} else if r, ok := errors.AsType[*refusalError](err); ok {
		status, text = r.status, r.text
	} else if errors.Is(err, context.DeadlineExceeded) {
		status, text = http.StatusServiceUnavailable, "The store does not answer. Try again in a moment."
	} else {
		v.ui.log.Error("page failed", "path", v.r.URL.Path, "error", err)
	}
	v.showError(status, text)
}

func (v *visit) notFound() error {
	return &refusalError{http.StatusNotFound, "There is no such page."}
}

// redirect sends the browser to another page, whose path begins with /ui/.
func (v *visit) redirect(path string) {
	http.Redirect(v.w, v.r, v.ui.prefix+path, http.StatusSeeOther)
}
