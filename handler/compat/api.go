// Package compat is what the APIs of hosted providers have in common: an app keeps its
// provider's SDK and changes the base URL. Each API has a folder of its own below this
// one, which turns a request into messages, and receipts and problems into the
// provider's answers. Keys, limits, composing and submitting are the same for all.
package compat

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
)

// HeaderMessageID is where several providers answer with the id of a message.
const HeaderMessageID = "X-Message-Id"

// API is the API of a hosted provider, as its own clients speak it.
type API struct {
	Name   string // as in MAILSIDECAR_COMPAT
	Title  string
	Routes []Route
	// Supported says what is served, such as "POST /emails", where Routes do not.
	Supported []string
	// Owns reports whether a path is the provider's, with any method: its clients
	// understand only its own answers, also to mistakes.
	Owns func(path string) bool
	// Secret takes the API key out of a request's header; empty when it is not
	// there. Nil: every route authenticates by itself.
	Secret func(http.Header) string
	// Signed says that requests are signed with the keys' secrets, which must be
	// kept for that.
	Signed bool
	// TestSecret is a key with which every client may have a request judged, and
	// nothing is sent; empty if the provider has no such key.
	TestSecret string
	// Challenge is what a 401 asks for (RFC 9110 §11.6.1), if anything.
	Challenge string
	// Answer is how a problem is put to the provider's clients.
	Answer func(Problem) (status int, body any)
	// Requests are the types of its requests, for the documentation.
	Requests []RequestDoc
}

// Route is a path, whose parts in braces match any one segment, and what a request
// there does. Its PathValue has these parts.
type Route struct {
	Method string // empty: POST
	Path   string // such as "/v3/{domain}/messages"
	// Refuses says that the request is answered with why it is not served.
	Refuses bool
	// Roles are what a key needs; zero means that it may send.
	Roles keys.Role
	Serve func(*Exchange) error
}

// Verb is the route's method.
func (r Route) Verb() string { return cmp.Or(r.Method, http.MethodPost) }

// What a key needs for routes that send nothing.
const (
	Read = keys.Read // to look at messages
	Mend = keys.Mend // to change or cancel them
)

// roles are what a key needs to use the route.
func (r Route) roles() keys.Role { return cmp.Or(r.Roles, keys.Send) }

// NotServed is the detail for a request that no route serves.
func (a *API) NotServed(r *http.Request) string {
	text := fmt.Sprintf("%s %s is not supported here.", problem.Cut(r.Method), problem.Cut(SentPath(r)))
	if supported := a.supported(); len(supported) > 0 {
		text += fmt.Sprintf(" What is supported of %s: %s.", a.Title, strings.Join(supported, ", "))
	}
	return text
}

// supported are the requests that are served.
func (a *API) supported() []string {
	if a.Supported != nil {
		return a.Supported
	}
	var all []string
	for _, r := range a.Routes {
		if !r.Refuses {
			all = append(all, r.Verb()+" "+r.Path)
		}
	}
	return all
}

// SentPath is the path of a request as the client sent it, escaped.
func SentPath(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		u = r.URL
	}
	return u.EscapedPath()
}

// RequestDoc is a request in the documentation.
type RequestDoc struct {
	Path   string
	Fields any // a value of its type, or []FormField
}

// FormField is what is known of a form's field. A name that ends in * stands for
// every name that begins so.
type FormField struct {
	Name      string
	Treatment Treatment
	Note      string
}

// Problem is a problem on its way to a provider's client.
type Problem struct {
	*problem.Error
	// Status is the native API's, but for what the providers agree on: 400 for
	// what is wrong in a request, 503 where the relay may take it later, and 409
	// where it may have taken it.
	Status int
	Text   string      // the detail, never empty
	Header http.Header // of the answer
}

// NewProblem puts a problem as the providers agree on. header is the answer's.
func NewProblem(p *problem.Error, header http.Header) Problem {
	status := p.Status()
	switch status {
	case http.StatusGatewayTimeout:
		// Many SDKs repeat a request that is answered with 5xx. After the relay's
		// answer was lost that could make two messages of one.
		status = http.StatusConflict
	case http.StatusUnprocessableEntity, http.StatusConflict, http.StatusRequestTimeout:
		status = http.StatusBadRequest
	case http.StatusBadGateway:
		status = http.StatusServiceUnavailable
	}
	return Problem{Error: p, Status: status, Text: p.Body("").Detail, Header: header}
}

// WriteProblem answers with a problem in the provider's form.
func (a *API) WriteProblem(w http.ResponseWriter, e *problem.Error) error {
	if e.Code == api.CodeUnauthorized && a.Challenge != "" {
		w.Header().Set("Www-Authenticate", a.Challenge)
	}
	status, body := a.Answer(NewProblem(e, w.Header()))
	return problem.WriteJSON(w, status, intake.TypeJSON, body)
}

// Under makes an owns of paths and everything below them.
func Under(paths ...string) func(string) bool {
	return func(path string) bool {
		return slices.ContainsFunc(paths, func(p string) bool {
			rest, found := strings.CutPrefix(path, p)
			return found && (rest == "" || rest[0] == '/')
		})
	}
}

// Bearer is the key in an Authorization field (RFC 6750 §2.1).
func Bearer(h http.Header) string {
	scheme, secret, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}
