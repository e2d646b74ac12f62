package ui

import "net/http"

// getMessage serves GET /ui/messages/ID.
func (v *visit) getMessage() error {
	v.show(http.StatusOK, "message.html", page{Title: "Message", Nav: "messages", Data: v.r.PathValue("id")})
	return nil
}
