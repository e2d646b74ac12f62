package weblogin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Limits of the server that waits for the browser. A code may have some kilobytes,
// all of it in the first line of the request.
const (
	maxConnections = 32
	maxHeader      = 64 << 10 // octets
	headerTimeout  = 5 * time.Second
	pageTimeout    = 2 * time.Minute // for a page to be written, after the token endpoint has answered
)

// MaxPasted is the length of the longest text that [Browser.Paste] takes, in octets.
const MaxPasted = maxHeader

// Browser waits for the answer to one request. Its methods may be called at any time.
type Browser struct {
	// URL is the address where the person logs in.
	URL string
	// RedirectURI is the address to which the browser comes back. It has no path.
	RedirectURI string

	proof   proof
	server  *http.Server
	answers chan answer  // the first that counts
	visits  sync.RWMutex // held for reading until the last page is written
	ended   chan struct{}
	end     sync.Once
	page    Page // shown once ended is closed
}

// answer is what came back: a grant or an error.
type answer struct {
	grant Grant
	err   error
}

// Listen begins to wait for the browser on both loopback addresses. A port that is
// taken is a syscall.EADDRINUSE. The context does not end the waiting: see
// [Browser.End].
func Listen(ctx context.Context, r Request) (*Browser, error) {
	return listenWith(ctx, r, new(net.ListenConfig).Listen)
}

func listenWith(ctx context.Context, r Request, l listen) (*Browser, error) {
	listeners, err := l.loopback(ctx, r.Port)
	if err != nil {
		return nil, err
	}
	host, port := r.RedirectHost, strconv.Itoa(portOf(listeners[0]))
	if net.ParseIP(host) != nil { // this machine may have only the other one
		host = listeners[0].Addr().(*net.TCPAddr).IP.String()
	}
	b := &Browser{
		RedirectURI: "http://" + net.JoinHostPort(host, port), proof: newProof(),
		answers: make(chan answer, 1), ended: make(chan struct{}), page: notCompleted,
	}
	if b.URL, err = r.authorizeURL(b.RedirectURI, b.proof); err != nil {
		closeAll(listeners)
		return nil, err
	}
	b.server = &http.Server{
		Handler:           onlyHosts(port, http.HandlerFunc(b.answered)),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: pageTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0), // what strangers send is no news
	}
	b.server.SetKeepAlivesEnabled(false)
	for _, one := range listeners {
		go func() { _ = b.server.Serve(netutil.LimitListener(one, maxConnections)) }()
	}
	return b, nil
}

// onlyHosts refuses requests to other names than the loopback's: such a name was made
// to lead here by a foreign page (DNS rebinding).
func onlyHosts(port string, next http.Handler) http.Handler {
	hosts := []string{"localhost:" + port, "127.0.0.1:" + port, "[::1]:" + port}
	if port == "80" { // which browsers leave out
		hosts = append(hosts, "localhost", "127.0.0.1", "[::1]")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(hosts, strings.ToLower(r.Host)) {
			http.Error(w, "not served under this name", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answered takes the browser that comes back. Whatever is not the answer to this
// request gets an error, and the waiting goes on.
func (b *Browser) answered(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET is served here", http.StatusMethodNotAllowed)
		return
	}
	b.visits.RLock() // before the answer is handed on: the end may follow at once
	defer b.visits.RUnlock()
	err := b.offer(r.URL.Query(), true)
	if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused {
		Page{"Nothing was changed", sentence(err)}.write(w, http.StatusBadRequest)
		return
	}
	select {
	case <-b.ended:
		b.page.write(w, http.StatusOK)
	case <-r.Context().Done():
	}
}

// offer hands an answer on, a refusal only where refusals count. Of several answers the
// first counts; a browser may come twice.
func (b *Browser) offer(parameters url.Values, refusals bool) error {
	code, err := b.proof.codeIn(parameters)
	if _, refused := errors.AsType[*RefusedError](err); err != nil && (!refused || !refusals) {
		return err
	}
	select {
	case b.answers <- answer{Grant{Code: code, Verifier: b.proof.verifier, RedirectURI: b.RedirectURI}, err}:
	default:
	}
	return err
}

// Paste takes the address at which the browser ended, from its address bar, where it
// cannot come back by itself. The error says what is wrong with the text, or is a
// [*RefusedError]; in both cases another text may be pasted.
func (b *Browser) Paste(text string) error {
	text = strings.Trim(strings.TrimSpace(text), `"'<>`)
	if len(text) > MaxPasted {
		return errors.New("this is too long to be the address")
	}
	if host := hostOf(text); host != "" && host == hostOf(b.URL) {
		return fmt.Errorf("this is an address of the login itself: paste the one at its end, which begins with %s/", b.RedirectURI)
	}
	_, query, ok := strings.Cut(text, "?")
	if !ok {
		return fmt.Errorf("this is not the address at the end of the login: it begins with %s/?", b.RedirectURI)
	}
	query, _, _ = strings.Cut(query, "#")
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return errNoAnswer
	}
	return b.offer(parameters, false)
}

// hostOf returns host and port.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// Await returns the grant, once the browser has come back or an address was pasted. The
// error is a [*RefusedError] that the browser brought, or that of ctx.
func (b *Browser) Await(ctx context.Context) (Grant, error) {
	select {
	case a := <-b.answers:
		return a.grant, a.err
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	}
}

// End shows the page to the browser that came back, and stops listening. Only the first
// call counts. Without a title the page says that the login was not completed.
func (b *Browser) End(p Page) {
	b.end.Do(func() {
		if p.Title != "" {
			b.page = p
		}
		close(b.ended)
		b.visits.Lock() // connections that browsers open ahead would not let Shutdown end
		defer b.visits.Unlock()
		_ = b.server.Close()
	})
}

// sentence is an error as a sentence of its own.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
