package handler

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
)

// Meter counts requests. Its methods return at once, and any number of goroutines may call
// them at the same time.
type Meter interface {
	// Answered counts a request. Its route is a pattern, such as /v1/messages/:id, or
	// "other" where none serves the request; an unusual method is "other", too. key is the
	// name of the key that it has proven, and code that of the problem in the answer; either
	// may be empty.
	Answered(route, method string, status int, key string, code api.Code, took time.Duration)
	// Panicked counts a request whose handler panicked.
	Panicked()
}

const otherRequest = "other"

// methods are those that have a name in the numbers.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true, http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

// patterns returns the paths of all routes.
func patterns(e *echo.Echo) map[string]bool {
	all := map[string]bool{}
	for _, r := range e.Routes() {
		all[r.Path] = true
	}
	return all
}

// count counts a request that is answered.
func (s *Server) count(c echo.Context, r *requestInfo, took time.Duration) {
	if s.meter == nil {
		return
	}
	route, method := c.Path(), c.Request().Method
	if !s.patterns[route] {
		route = otherRequest
	}
	if !methods[method] {
		method = otherRequest
	}
	s.meter.Answered(route, method, c.Response().Status, r.key.Name(), r.code, took)
}
