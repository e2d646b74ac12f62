package config

import (
	"slices"
	"strings"
)

// compatAPIs are the hosted providers whose send APIs can be served: those of
// handler/compat/all, in the same order. A test in service compares them.
var compatAPIs = []string{"mailgun", "postmark", "resend", "sendgrid", "ses", "mailersend", "brevo"}

// CompatAPIs are the names in Compat: nil for all of them, empty for none.
func (s Service) CompatAPIs() []string {
	switch {
	case slices.Equal(s.Compat, List{"all"}):
		return nil
	case slices.Equal(s.Compat, List{"none"}):
		return []string{}
	default:
		return s.Compat
	}
}

func (r *reader) checkCompat(s *Service) {
	for i, name := range s.Compat {
		s.Compat[i] = strings.ToLower(name)
		alone := s.Compat[i] == "all" || s.Compat[i] == "none"
		if alone && len(s.Compat) == 1 || slices.Contains(compatAPIs, s.Compat[i]) {
			continue
		}
		r.problem(serviceName("COMPAT"), "does not name providers", "write all, none, or some of "+strings.Join(compatAPIs, ","))
		return
	}
}
