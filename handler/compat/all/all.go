// Package all lists the providers' APIs that can be served; each has a folder beside
// this one. Their names also stand in config/compat.go, which cannot import this
// package: a test in service compares the two.
package all

import (
	"fmt"
	"slices"
	"strings"

	"mailsidecar/handler/compat"
	"mailsidecar/handler/compat/brevo"
	"mailsidecar/handler/compat/mailersend"
	"mailsidecar/handler/compat/mailgun"
	"mailsidecar/handler/compat/postmark"
	"mailsidecar/handler/compat/resend"
	"mailsidecar/handler/compat/sendgrid"
	"mailsidecar/handler/compat/ses"
)

// apis are in the order of the documentation. A new one is added here.
var apis = []*compat.API{mailgun.API, postmark.API, resend.API, sendgrid.API, ses.API, mailersend.API, brevo.API}

// Names are the names that [Choose] knows, in the order of the documentation.
func Names() []string {
	var names []string
	for _, a := range apis {
		names = append(names, a.Name)
	}
	return names
}

// Choose returns the APIs named; nil names choose all of them.
func Choose(names []string) ([]*compat.API, error) {
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("unknown provider %q", name)
		}
	}
	var chosen []*compat.API
	for _, a := range apis {
		if names == nil || slices.Contains(names, a.Name) {
			chosen = append(chosen, a)
		}
	}
	if len(chosen) > 0 {
		chosen = append(chosen, v3NotFound(chosen))
	}
	return chosen, nil
}

// v3NotFound answers unknown paths under /v3/, where several providers have routes: the
// path does not tell whose client asked. Each of these clients finds the field that it
// reads in the answer.
func v3NotFound(chosen []*compat.API) *compat.API {
	supported := []string{}
	for _, a := range chosen {
		for _, r := range a.Routes {
			if strings.HasPrefix(r.Path, "/v3/") {
				supported = append(supported, r.Verb()+" "+r.Path)
			}
		}
	}
	return &compat.API{
		Title: "the APIs under /v3", Supported: supported,
		Owns: func(path string) bool { return strings.HasPrefix(path, "/v3/") },
		Answer: func(p compat.Problem) (int, any) {
			type item struct {
				Message string `json:"message"`
			}
			return p.Status, struct {
				Message string `json:"message"`
				Errors  []item `json:"errors"`
			}{p.Text, []item{{p.Text}}}
		},
	}
}
