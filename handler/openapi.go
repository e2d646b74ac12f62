package handler

import (
	_ "embed"
	"net/http"

	"github.com/labstack/echo/v4"
)

// openAPI describes the native API. A test holds it against every request and
// answer of the other tests.
//
//go:embed openapi.yaml
var openAPI []byte

// getOpenAPI serves GET /openapi.yaml (RFC 9512 registers the type).
func (s *Server) getOpenAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", openAPI)
}
