package ui

import "net/http"

// getRelays serves GET /ui/relays.
func (v *visit) getRelays() error {
	v.show(http.StatusOK, "relays.html", page{Title: "Relays", Nav: "relays"})
	return nil
}

func (v *visit) postRelayCheck() error { return v.notFound() }

func (v *visit) postRelayPause() error { return v.notFound() }

func (v *visit) postRelayResume() error { return v.notFound() }

func (v *visit) postDrain() error { return v.notFound() }
