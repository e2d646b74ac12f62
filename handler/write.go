package handler

import (
	"strconv"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// writeProblem is echo's error handler.
func (s *Server) writeProblem(err error, c echo.Context) {
	r := request(c)
	p := problem.For(err)
	r.code = p.Code
	if p.Code == api.CodeInternal || p.Code == api.CodeQueueUnavailable {
		s.log.Error("request failed", "request_id", r.id, "route", c.Path(), "error", err)
	}
	if c.Response().Committed {
		return
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
	case api.CodeBodyTimeout, api.CodeBodyTooLarge, api.CodeIncompleteBody:
		// The rest of the body is not worth reading.
		c.Response().Header().Set("Connection", "close")
	default:
	}
	if a := s.compatOf(c.Request().URL.Path); a != nil {
		err = a.WriteProblem(c.Response(), p)
	} else {
		err = writeJSON(c, p.Status(), "application/problem+json", p.Body(r.id))
	}
	if err != nil {
		s.log.Debug("answer not written", "request_id", r.id, "error", err)
	}
}

// writeJSON answers with v.
func writeJSON(c echo.Context, status int, contentType string, v any) error {
	return problem.WriteJSON(c.Response(), status, contentType, v)
}
