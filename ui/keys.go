package ui

import (
	"net/http"
	"strings"
	"time"

	"mailsidecar/api"
)

type keysPage struct {
	Problem string
	Since   time.Time
	Keys    []keyView
}

// keyView is a key with its numbers.
type keyView struct {
	api.Key
	Role    string
	Waiting int64
	Stats   api.StatsKey
}

// getKeys serves GET /ui/keys.
func (v *visit) getKeys() error {
	var p keysPage
	var known api.Keys
	if err := v.get("/v1/keys", nil, &known); err != nil {
		p.Problem = explain(err)
	}
	p.Since = known.Since
	s, _ := v.stats()
	for _, k := range known.Keys {
		view := keyView{Key: k, Role: strings.Join(k.Roles, ", ")}
		if s != nil {
			for _, n := range s.Keys {
				if n.Name == k.Name {
					view.Stats, view.Waiting = n, n.Statuses[api.StatusQueued]+n.Statuses[api.StatusDeferred]
				}
			}
		}
		p.Keys = append(p.Keys, view)
	}
	v.show(http.StatusOK, "keys.html", page{Title: "Keys", Nav: "keys", Data: p})
	return nil
}
