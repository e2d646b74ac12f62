package relays

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
		{"smtp.office365.us", "microsoft365"},
		{"smtp.partner.outlook.cn", "microsoft365"},
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

// TestPortsAreDocumented: the table of docs/ports.md has each preset with its ports,
// by the TLS mode that they imply.
func TestPortsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/ports.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range presets {
		label := "`" + p.Name + "`"
		if p.Regional() {
			label = "`" + p.Name + ":REGION`"
		}
		starttls, implicit := documentedPorts(string(page), label)
		for _, port := range p.Ports {
			ports := starttls
			if slices.Contains([]int{443, 465, 2465, 8465}, port) {
				ports = implicit
			}
			if !slices.Contains(ports, strconv.Itoa(port)) {
				t.Errorf("docs/ports.md does not have port %d of %s: %v STARTTLS, %v implicit TLS", port, p.Name, starttls, implicit)
			}
		}
	}
}

var portNumber = regexp.MustCompile(`\d+`)

// documentedPorts reads the row of the page whose second column has label.
func documentedPorts(page, label string) (starttls, implicit []string) {
	for line := range strings.Lines(page) {
		columns := strings.Split(line, "|")
		if len(columns) > 4 && strings.Contains(columns[2], label) {
			return portNumber.FindAllString(columns[3], -1), portNumber.FindAllString(columns[4], -1)
		}
	}
	return nil, nil
}

func TestPresetsNameIssuers(t *testing.T) {
	for _, p := range presets {
		if _, ok := IssuerNamed(p.OAuth2, ""); p.OAuth2 != "" && !ok {
			t.Errorf("preset %s names the unknown issuer %q", p.Name, p.OAuth2)
		}
	}
}
