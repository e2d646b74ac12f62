package handler

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
)

// writeProblem is echo's error handler.
func (s *Server) writeProblem(err error, c echo.Context) {
	r := request(c)
	p := problemOf(err)
	r.code = p.Code
	if p.Code == api.CodeInternal || p.Code == api.CodeQueueUnavailable {
		s.log.Error("request failed", "request_id", r.id, "route", c.Path(), "error", err)
	}
	if c.Response().Committed {
		return
	}
	if m := c.Request().Method; errors.Is(err, queue.ErrUnavailable) && (m == http.MethodGet || m == http.MethodHead) {
		p.Detail = "The database of the queue does not answer." // there was nothing to change
	}
	if after := p.RetryAfterSeconds(); after > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(after))
	}
	switch p.Code {
	case api.CodeUnauthorized:
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="mailsidecar"`)
	case api.CodeContentType:
		c.Response().Header().Set("Accept", acceptedTypes)
	case api.CodeContentEncoding:
		c.Response().Header().Set("Accept-Encoding", "identity")
	case api.CodeBodyTimeout, api.CodeBodyTooLarge, api.CodeHeaderTooLarge, api.CodeIncompleteBody:
		// The rest of the body is not worth reading.
		c.Response().Header().Set("Connection", "close")
	default:
	}
	a := s.compatOf(c.Request().URL.Path)
	if isUnrouted(err) {
		p.Detail = notServed(a, c.Request())
	}
	if a != nil {
		err = a.WriteProblem(c.Response(), p)
	} else {
		err = writeJSON(c, p.Status(), "application/problem+json", p.Body(r.id))
	}
	if err != nil {
		s.log.Debug("answer not written", "request_id", r.id, "error", err)
	}
}

// isUnrouted says that no route serves the request.
func isUnrouted(err error) bool {
	return errors.Is(err, echo.ErrNotFound) || errors.Is(err, echo.ErrMethodNotAllowed)
}

// notServed says of a request that no route serves what could be asked instead.
func notServed(a *compat.API, r *http.Request) string {
	if a != nil {
		return a.NotServed(r)
	}
	return fmt.Sprintf("%s %s is not a request of this server: GET /openapi.yaml describes those that are.", problem.Cut(r.Method), problem.Cut(compat.SentPath(r)))
}

// problemOf finds the problem of an error, those of the router included.
func problemOf(err error) *problem.Error {
	switch {
	case errors.Is(err, echo.ErrNotFound):
		return problem.New(api.CodeNotFound, "")
	case errors.Is(err, echo.ErrMethodNotAllowed):
		return problem.New(api.CodeMethodNotAllowed, "")
	default:
		return problem.For(err)
	}
}

// writeJSON answers with v.
func writeJSON(c echo.Context, status int, contentType string, v any) error {
	return problem.WriteJSON(c.Response(), status, contentType, v)
}
