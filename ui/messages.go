package ui

import "net/http"

// getMessages serves GET /ui/messages.
func (v *visit) getMessages() error {
	v.show(http.StatusOK, "messages.html", page{Title: "Messages", Nav: "messages"})
	return nil
}

// postActions serves POST /ui/messages/actions: what is to be done to many messages.
func (v *visit) postActions() error { return v.notFound() }
