package handler

import (
	"github.com/labstack/echo/v4"

	"mailsidecar/handler/keys"
)

// authenticate serves a route for keys that have these roles. It looks at the header only,
// and answers before the body is read.
func (s *Server) authenticate(roles keys.Role, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		k, err := s.findKey(c)
		if err != nil {
			return err
		}
		request(c).key = k
		if inside(c.Request()) == nil { // else the visit has entered
			if err := k.Enter(c.Request().Context()); err != nil {
				return err
			}
		}
		if s.version != "" { // strangers must not learn it
			c.Response().Header().Set(echo.HeaderServer, "mailsidecar/"+s.version)
		}
		if err := k.Require(roles); err != nil {
			return err
		}
		return next(c)
	}
}

func (s *Server) findKey(c echo.Context) (*keys.Key, error) {
	if k := inside(c.Request()); k != nil {
		return k, nil
	}
	if s.keys.Empty() {
		return s.keys.Keyless(c.Request())
	}
	return s.keys.Bearer(c.Request().Header)
}
