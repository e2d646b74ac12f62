package handler

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
)

const (
	headerRequestID = "X-Request-Id"
	contextKey      = "request"
)

// requestInfo is what is known of a request besides the request itself.
type requestInfo struct {
	id      string
	key     *keys.Key // nil without keys, and before it is known
	code    api.Code  // of the problem it is answered with
	message string    // id of the message it made
	endTurn func()    // of strangers; nil where it took none
}

// request returns what logAndGuard keeps of the request.
func request(c echo.Context) *requestInfo {
	r, ok := c.Get(contextKey).(*requestInfo)
	if !ok {
		return &requestInfo{}
	}
	return r
}

// logAndGuard prepares, guards and logs every request. It runs before the router, so
// that it sees unknown paths, too.
func (s *Server) logAndGuard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		started := time.Now()
		r := &requestInfo{id: requestID(c.Request().Header.Get(headerRequestID))}
		c.Set(contextKey, r)
		s.tidyPath(c)
		s.prepare(c, r)
		defer endStrangersTurn(c)
		defer func() {
			took := time.Since(started)
			s.logAccess(c, r, took)
			if inside(c.Request()) == nil { // the visit counts
				s.count(c, r, took)
			}
		}()
		if err := s.guard(c, next); err != nil {
			if r.key == nil && !s.keys.Empty() {
				s.takeStrangersTurn(c)
			}
			c.Error(err)
		}
		return nil
	}
}

// prepare sets the answer's common header fields, and lets the write deadline
// begin with the answer.
func (s *Server) prepare(c echo.Context, r *requestInfo) {
	h := c.Response().Header()
	h.Set(api.HeaderOwn, "1")
	h.Set(headerRequestID, r.id)
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set(echo.HeaderCacheControl, "no-store")
	rc := http.NewResponseController(c.Response().Writer)
	c.Response().Before(func() { _ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) })
}

// guard refuses foreign web pages and turns a panic into an error.
func (s *Server) guard(c echo.Context, next echo.HandlerFunc) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if s.meter != nil {
				s.meter.Panicked()
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := s.crossSites.Check(c.Request()); err != nil {
		return problem.New(api.CodeCrossOrigin, "")
	}
	if headerSize(c.Request()) > maxSmallHeader && !takesEnvelope(c.Request()) {
		return problem.New(api.CodeHeaderTooLarge, "A header may have 16 KiB, with 128 octets for each field. Only POST /v1/messages takes a larger one, for Envelope-To.")
	}
	return next(c)
}

// requestID keeps a caller's id of 1 to 128 plain characters, else makes one.
func requestID(given string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:+/="
	if n := len(given); n > 0 && n <= 128 && strings.Trim(given, plain) == "" {
		return given
	}
	id, err := uuid.NewV7()
	if err != nil {
		return ""
	}
	return id.String()
}

// refreshes says that a page, which is open in a browser, looks for news, or reads them.
func refreshes(r *http.Request) bool {
	return r.Method == http.MethodGet && (inside(r) != nil || r.Header.Get("Mailsidecar-Refresh") != "")
}

// logAccess writes the request's one line. There is no address of mail in it,
// hence the route's pattern and not its path and query, and of the key its name
// only.
func (s *Server) logAccess(c echo.Context, r *requestInfo, took time.Duration) {
	level := slog.LevelInfo
	if strings.HasPrefix(c.Path(), "/livez") || strings.HasPrefix(c.Path(), "/readyz") || c.Path() == "/healthz/flow" || refreshes(c.Request()) {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("request_id", r.id), slog.String("method", c.Request().Method), slog.String("route", c.Path()),
		slog.Int("status", c.Response().Status), slog.Duration("duration", took), slog.String("key", r.key.Name()),
	}
	if r.code != "" {
		attrs = append(attrs, slog.String("code", string(r.code)))
	}
	if r.message != "" {
		attrs = append(attrs, slog.String("id", r.message))
	}
	s.log.LogAttrs(c.Request().Context(), level, "request", attrs...)
}
