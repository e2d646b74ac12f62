package ui

import "net/http"

// getOverview serves GET /ui/.
func (v *visit) getOverview() error {
	v.show(http.StatusOK, "overview.html", page{Title: "Overview", Nav: "overview"})
	return nil
}
