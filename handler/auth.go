package handler

import (
	"github.com/labstack/echo/v4"

	"mailsidecar/handler/keys"
)

// authenticate finds the request's key.
func (s *Server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.keys.Empty() {
			if err := keys.CheckLoopback(c.Request()); err != nil {
				return err
			}
		} else {
			k, err := s.keys.Bearer(c.Request().Header)
			if err != nil {
				return err
			}
			request(c).key = k
		}
		if err := request(c).key.Enter(c.Request().Context()); err != nil {
			return err
		}
		if s.version != "" { // strangers must not learn it
			c.Response().Header().Set(echo.HeaderServer, "mailsidecar/"+s.version)
		}
		return next(c)
	}
}
