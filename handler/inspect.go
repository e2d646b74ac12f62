package handler

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/units"
)

// getKeys serves GET /v1/keys.
func (s *Server) getKeys(c echo.Context) error {
	b := api.Keys{Since: inUTC(s.started), Keys: []api.Key{}}
	for _, k := range s.keys.Report(c.Request().Context()) {
		key := api.Key{Name: k.Name, Roles: k.Roles.Names(), Senders: k.Senders, LastUsed: inUTC(k.LastUsed), Rate: newKeyRate(k.Rate)}
		if key.Rate != nil && k.Used >= 0 {
			key.Rate.Used = &k.Used
		}
		b.Keys = append(b.Keys, key)
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

func newKeyRate(r units.Rate) *api.KeyRate {
	if r.Messages <= 0 {
		return nil
	}
	return &api.KeyRate{Messages: r.Messages, Per: r.Per.String()}
}

// getSettings serves GET /v1/settings.
func (s *Server) getSettings(c echo.Context) error {
	return writeJSON(c, http.StatusOK, intake.TypeJSON, api.Settings{Settings: s.settings()})
}

// getEvents serves GET /v1/events.
func (s *Server) getEvents(c echo.Context) error {
	return writeJSON(c, http.StatusOK, intake.TypeJSON, s.events())
}
