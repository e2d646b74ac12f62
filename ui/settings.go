package ui

import (
	"net/http"

	"mailsidecar/api"
)

type settingsPage struct {
	Problem string
	Given   []api.Setting // what somebody has set
	Default []api.Setting
}

// getSettings serves GET /ui/settings.
func (v *visit) getSettings() error {
	var p settingsPage
	var all api.Settings
	if err := v.get("/v1/settings", nil, &all); err != nil {
		p.Problem = explain(err)
	}
	for _, s := range all.Settings {
		if s.Source == api.SourceDefault {
			p.Default = append(p.Default, s)
		} else {
			p.Given = append(p.Given, s)
		}
	}
	v.show(http.StatusOK, "settings.html", page{Title: "Settings", Nav: "settings", Data: p})
	return nil
}
