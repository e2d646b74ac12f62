package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"mailsidecar/alerts"
)

// maxAlerts limits the URLs of MAILSIDECAR_ALERTS: each has a goroutine.
const maxAlerts = 20

// alertNames are the variables that checkAlerts judges.
var alertNames = []string{"ALERTS", "ALERTS_ALLOW_PRIVATE", "ALERTS_MAX_AGE", "HEARTBEAT_URL"}

// LoadAlerts reads where alerts and the heartbeat go, and nothing else. Warnings and error
// are as in [Load].
func LoadAlerts() (Service, []string, error) {
	r := newReader(os.Getenv, os.Environ())
	var s Service
	r.read(servicePrefix, &s)
	r.problems = slices.DeleteFunc(r.problems, func(p Problem) bool {
		return !slices.ContainsFunc(alertNames, func(name string) bool { return strings.TrimSuffix(p.Name, "_FILE") == serviceName(name) })
	})
	r.warnings = nil
	r.checkAlerts(&s)
	r.warnUnknown()
	return s, r.warnings, r.err()
}

// checkAlerts reads the URLs. Each one that is wrong is a problem of its own, and no problem
// shows any of it.
func (r *reader) checkAlerts(s *Service) {
	name := r.sourceName("ALERTS")
	urls := alerts.Split(s.Alerts.Reveal())
	switch {
	case r.failed[serviceName("ALERTS")]:
	case len(urls) > maxAlerts:
		r.problem(name, fmt.Sprintf("has %d URLs", len(urls)), fmt.Sprintf("set %d at most", maxAlerts))
	case len(urls) == 0 && s.Alerts.IsSet():
		r.problem(name, "holds no URL", "write one, or leave it out")
	default:
		for i, text := range urls {
			if bad := r.addAlert(s, text); bad != nil {
				r.problem(name+" (entry "+strconv.Itoa(i+1)+")", bad.What, bad.Remedy)
			}
		}
		alerts.Number(s.AlertTargets)
	}
	if s.HeartbeatURL.IsSet() && !r.failed[serviceName("HEARTBEAT_URL")] {
		h, err := alerts.ParseHeartbeat(strings.TrimSpace(s.HeartbeatURL.Reveal()))
		bad, _ := errors.AsType[*alerts.InvalidError](err)
		if bad == nil && h.Cleartext() {
			bad = r.refuseCleartext(s)
		}
		if bad != nil {
			r.problem(r.sourceName("HEARTBEAT_URL"), bad.What, bad.Remedy)
			return
		}
		s.Heartbeat = h
	}
}

// sourceName is the variable that the secret came from: its own or its _FILE twin.
func (r *reader) sourceName(suffix string) string {
	name := serviceName(suffix)
	if r.sources[name] == FromFile {
		name += "_FILE"
	}
	return name
}

// addAlert reads one URL.
func (r *reader) addAlert(s *Service, text string) *alerts.InvalidError {
	t, err := alerts.Parse(text)
	if bad, ok := errors.AsType[*alerts.InvalidError](err); ok {
		return bad
	}
	if t.Cleartext() {
		if bad := r.refuseCleartext(s); bad != nil {
			return bad
		}
	}
	if i := slices.IndexFunc(s.AlertTargets, t.Same); i >= 0 {
		return &alerts.InvalidError{What: "leads to the same place as an entry before it", Remedy: "take it out"}
	}
	s.AlertTargets = append(s.AlertTargets, t)
	return nil
}

// refuseCleartext refuses http, but for private addresses. Where it cannot be read whether these are allowed,
// that is told, and nothing that follows from it.
func (r *reader) refuseCleartext(s *Service) *alerts.InvalidError {
	if s.AlertsAllowPrivate || r.failed[serviceName("ALERTS_ALLOW_PRIVATE")] {
		return nil
	}
	return &alerts.InvalidError{What: "is an http URL, and what it holds would cross the network in clear text", Remedy: "write https, or set " + serviceName("ALERTS_ALLOW_PRIVATE") + "=true for a server in a private network"}
}
