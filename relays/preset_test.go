package relays

import (
	"slices"
	"testing"
)

func TestPresetsAreWhole(t *testing.T) {
	var names []string
	for _, p := range Presets() {
		if p.Name == "" || p.Advice == "" || len(p.Ports) == 0 || (p.Host == "") != p.Regional() {
			t.Errorf("preset %+v has no name, advice, port or host", p)
		}
		if slices.Contains(names, p.Name) {
			t.Errorf("there are two presets named %s", p.Name)
		}
		names = append(names, p.Name)
		if got, ok := PresetNamed(p.Name); !ok || got.Advice != p.Advice {
			t.Errorf("PresetNamed(%s) = %+v, %v", p.Name, got, ok)
		}
	}
	if p, ok := PresetNamed("gmial"); ok {
		t.Errorf("PresetNamed(gmial) = %+v, want none", p)
	}
}

func TestPresetFor(t *testing.T) {
	tests := []struct{ host, want string }{
		{"smtp.gmail.com", "gmail"},
		{"SMTP-Relay.gmail.com.", "google-workspace"},
		{"smtp-broadcasts.postmarkapp.com", "postmark"},
		{"email-smtp.eu-west-1.amazonaws.com", "ses"},
		{"smtp.example.com", ""},
		{"192.0.2.1", ""},
		{"com", ""},
	}
	for _, tt := range tests {
		if p, ok := PresetFor(tt.host); p.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("PresetFor(%s) = %q, %v, want %q", tt.host, p.Name, ok, tt.want)
		}
	}
}

func TestInRegion(t *testing.T) {
	ses, _ := PresetNamed("ses")
	if got, want := ses.InRegion("eu-west-1").Host, "email-smtp.eu-west-1.amazonaws.com"; got != want {
		t.Errorf("InRegion(eu-west-1) = %s, want %s", got, want)
	}
	gmail, _ := PresetNamed("gmail")
	if got := gmail.InRegion("eu-west-1"); got.Host != gmail.Host {
		t.Errorf("InRegion(eu-west-1) of gmail = %s, want %s", got.Host, gmail.Host)
	}
}
