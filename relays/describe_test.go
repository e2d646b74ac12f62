package relays

import (
	"strings"
	"testing"
)

// TestEveryFactIsSaid: whatever the file of a relay knows is among its lines, each with the
// page that says so.
func TestEveryFactIsSaid(t *testing.T) {
	for _, p := range Presets() {
		lines := append(p.Lines(), p.Warnings()...)
		known := len(factSources(p)) - len(p.Regions)
		if p.TokensOnly.Known() {
			known-- // which is said with OAuth2
		}
		if len(lines)-len(p.Regions) != known {
			t.Errorf("%s has %d lines for %d facts: %+v", p.Name, len(lines)-len(p.Regions), known, lines)
		}
		for _, l := range lines {
			if l.Text == "" || l.Source.URL == "" || strings.HasSuffix(l.Text, ".") || strings.Contains(l.Text, "\n") {
				t.Errorf("%s: %+v has no text, no source, or a full stop", p.Name, l)
			}
		}
	}
}

func TestSettingsToSet(t *testing.T) {
	for _, tt := range []struct{ provider, want string }{
		{"gmail", "PROVIDER=gmail USERNAME= PASSWORD="},
		{"sendgrid", "PROVIDER=sendgrid PASSWORD="},
		{"outlook", "PROVIDER=outlook USERNAME= OAUTH2_CLIENT_ID="},
		{"ses", "PROVIDER=ses:REGION USERNAME= PASSWORD="},
		{"ses:eu-west-1", "PROVIDER=ses:eu-west-1 USERNAME= PASSWORD="},
		{"mailgun-eu", "PROVIDER=mailgun:eu USERNAME= PASSWORD="},
	} {
		p, err := ProviderNamed(tt.provider)
		var got []string
		for _, s := range p.Settings() {
			got = append(got, s.Name+"="+s.Value)
			if s.Value == "" && s.Note == "" {
				t.Errorf("%s: %s has no value, and nothing says which", tt.provider, s.Name)
			}
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("Settings of %s = %q, %v, want %q", tt.provider, got, err, tt.want)
		}
	}
}
