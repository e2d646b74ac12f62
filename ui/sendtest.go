package ui

import "net/http"

// getSend serves GET /ui/send.
func (v *visit) getSend() error {
	v.show(http.StatusOK, "send.html", page{Title: "Send a test", Nav: "send"})
	return nil
}

func (v *visit) postSend() error { return v.notFound() }
