package handler

import (
	"github.com/labstack/echo/v4"

	"mailsidecar/handler/intake"
)

// maxSmallBody is in octets.
const maxSmallBody = 64 << 10

// readSmall reads a JSON body of a few fields.
func (s *Server) readSmall(c echo.Context, into any) error {
	if _, _, err := intake.PlainMediaType(c.Request().Header, intake.TypeJSON); err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	b, err := intake.Open(c.Response().Writer, c.Request(), maxSmallBody, share, s.bodyTimeout)
	if err != nil {
		return err
	}
	data, err := b.All()
	if err != nil {
		return err
	}
	return intake.Decode(data, into, "")
}
