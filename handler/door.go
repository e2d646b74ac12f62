package handler

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
)

// Door is what the pages of people need of the server: whose a visit is, and the native API
// for that visitor, within the process. A key is known by its name here; on a server without
// keys that is empty.
type Door struct {
	server *Server
	// secret takes the place of a key's on a server without keys. It is of this run.
	secret func() []byte
}

func newDoor(s *Server) *Door {
	return &Door{server: s, secret: sync.OnceValue(func() []byte { return []byte(rand.Text()) })}
}

// The values of a request's context. Both are of types that only this package has: no
// request from outside can have them.
type (
	// visitKey has the *visit of a request for a page.
	visitKey struct{}
	// asKey has the *keys.Key of a request that a page makes.
	asKey struct{}
)

// visit is a request for a page.
type visit struct {
	server  *Server
	context echo.Context
}

// addPages serves the pages under /ui/, and where a reverse proxy leaves the prefix in the
// path, also there.
func (s *Server) addPages(e *echo.Echo, pages http.Handler, prefix string) {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost}
	serve := func(c echo.Context) error {
		if s.keys.Empty() {
			if _, err := s.keys.Keyless(c.Request()); err != nil {
				return err
			}
		}
		r := c.Request().WithContext(context.WithValue(c.Request().Context(), visitKey{}, &visit{s, c}))
		if prefix != "" && strings.HasPrefix(r.URL.Path, prefix+"/ui") {
			r.URL.Path = strings.TrimPrefix(r.URL.Path, prefix)
			r.URL.RawPath = strings.TrimPrefix(r.URL.RawPath, prefix)
		}
		pages.ServeHTTP(c.Response(), r)
		return nil
	}
	paths := []string{"/ui", "/ui/*"}
	if prefix != "" {
		paths = append(paths, prefix+"/ui", prefix+"/ui/*")
	}
	for _, path := range paths {
		e.Match(methods, path, serve)
	}
	e.Match([]string{http.MethodGet, http.MethodHead}, "/", func(c echo.Context) error {
		if !wantsPage(c.Request()) {
			return s.getRoot(c)
		}
		s.takeStrangersTurn(c)
		c.Response().Header().Set(echo.HeaderVary, "Accept")
		return c.Redirect(http.StatusSeeOther, prefix+"/ui/")
	})
}

// wantsPage says that a browser asks.
func wantsPage(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/html")
}

// getRoot tells a program where things are. A stranger learns nothing by it.
func (s *Server) getRoot(c echo.Context) error {
	s.takeStrangersTurn(c)
	c.Response().Header().Set(echo.HeaderVary, "Accept")
	return writeJSON(c, http.StatusOK, "application/json", map[string]string{"dashboard": "/ui/", "openapi": "/openapi.yaml", "messages": "/v1/messages"})
}

// Keyless says that the server has no keys: whoever is on this host may do everything.
func (d *Door) Keyless() bool { return d.server.keys.Empty() }

// Find returns the name of the key with that secret.
func (d *Door) Find(secret string) (key string, ok bool) {
	k, err := d.server.keys.Find(secret)
	return k.Name(), err == nil
}

// MAC authenticates text (HMAC-SHA256) with the digest of the key's secret: every instance
// makes the same, and none does once the secret is another one. It is nil where there is no
// such key.
func (d *Door) MAC(key, text string) []byte {
	if d.Keyless() {
		return keys.MAC(d.secret(), text)
	}
	return d.server.keys.Named(key).MAC(text)
}

// Roles are what the key may do.
func (d *Door) Roles(key string) (send, read, admin bool) {
	k := d.server.keys.Named(key)
	return k.Has(keys.Send), k.Has(keys.Read), k.Has(keys.Admin)
}

// Enter says that the visit, whose request came through this server, has proven the key. It
// returns what to tell a visitor who is refused.
func (d *Door) Enter(r *http.Request, key string) *api.Problem {
	k := d.server.keys.Named(key)
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		request(v.context).key = k
	}
	if err := k.Enter(r.Context()); err != nil {
		p := problem.For(err).Body("")
		return &p
	}
	return nil
}

// Stranger says that the visit has proven no key: it waits until it may be answered.
func (d *Door) Stranger(r *http.Request) {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		v.server.takeStrangersTurn(v.context)
	}
}

// Serve answers a request to the native API as that key. The request is one that the pages
// have made, and its context that of the visit.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request, key string) {
	k := d.server.keys.Named(key)
	if k == nil || !strings.HasPrefix(r.URL.Path, "/v1/") {
		http.Error(w, "not a request of the native API by a key", http.StatusNotFound)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), asKey{}, k))
	r.Host = "localhost"
	d.server.echo.ServeHTTP(w, r)
}

// inside returns the key of a request that a page makes; nil for all others.
func inside(r *http.Request) *keys.Key {
	k, _ := r.Context().Value(asKey{}).(*keys.Key)
	return k
}
