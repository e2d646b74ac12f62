package ui

import "net/http"

// getSettings serves GET /ui/settings.
func (v *visit) getSettings() error {
	v.show(http.StatusOK, "settings.html", page{Title: "Settings", Nav: "settings"})
	return nil
}
