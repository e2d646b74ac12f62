package ui

import "net/http"

// getKeys serves GET /ui/keys.
func (v *visit) getKeys() error {
	v.show(http.StatusOK, "keys.html", page{Title: "Keys", Nav: "keys"})
	return nil
}
