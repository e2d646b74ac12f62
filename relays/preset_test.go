package relays

import (
	"slices"
	"strings"
	"testing"
)

// TestPresetsAreWhole: each file of the table says what a preset needs, and no name and
// no host stands for two relays.
func TestPresetsAreWhole(t *testing.T) {
	names, hosts := map[string]string{}, map[string]string{}
	for _, p := range Presets() {
		if p.Name != plainName(p.Name) && p.Name != strings.ToLower(p.Name) || p.Title == "" || p.Advice.Value == "" || strings.HasSuffix(p.Advice.Value, ".") {
			t.Errorf("%q has no name in lower case, no title, or no advice without a full stop", p.Name)
		}
		if (p.Host == "") != p.Regional() || p.Regional() && strings.Count(p.Pattern, "REGION") != 1 || !strings.HasPrefix(p.Docs, "https://") {
			t.Errorf("%s has host %q, pattern %q and documentation %q", p.Name, p.Host, p.Pattern, p.Docs)
		}
		for name := range p.names() {
			if other, ok := names[plainName(name)]; ok {
				t.Errorf("%s and %s are both called %s", other, p.Name, name)
			}
			names[plainName(name)] = p.Name
		}
		for host := range p.hosts() {
			if other, ok := hosts[host]; ok && other != p.Name || host != normalHost(host) || !strings.Contains(host, ".") {
				t.Errorf("host %q of %s is no host name in lower case, or is one of %s, too", host, p.Name, other)
			}
			hosts[host] = p.Name
		}
		if got, ok := PresetNamed(p.Name); !ok || got.Title != p.Title {
			t.Errorf("PresetNamed(%s) = %+v, %v", p.Name, got, ok)
		}
	}
	if p, ok := PresetNamed("gmial"); ok {
		t.Errorf("PresetNamed(gmial) = %+v, want none", p)
	}
}

// TestPresetValuesAreSound: a value that changes what we do is within what the settings
// allow, and a text for people reads as one.
func TestPresetValuesAreSound(t *testing.T) {
	for _, p := range Presets() {
		if n := len(p.Ports.Value); n == 0 || n > 16 || !slices.Contains([]int{587, 465}, p.Ports.Value[0]) {
			t.Errorf("%s has the ladder %v", p.Name, p.Ports.Value)
		}
		for i, port := range slices.Concat(p.Ports.Value, p.MorePorts.Value) {
			if port < 1 || port > 65535 || slices.Contains(slices.Concat(p.Ports.Value, p.MorePorts.Value)[:i], port) {
				t.Errorf("%s has port %d twice, or it is no port", p.Name, port)
			}
		}
		for name, n := range map[string]int{"recipients": p.Recipients.Value, "connections": p.Connections.Value, "messages_per_connection": p.MessagesPerConnection.Value} {
			if n < 0 || n > 10_000 {
				t.Errorf("%s has %s %d", p.Name, name, n)
			}
		}
		if p.Size.Known() && p.Size.Value < 1<<20 || p.Idle.Known() && p.Idle.Value <= 0 || p.Rate.Known() && p.Rate.Value.Messages < 1 {
			t.Errorf("%s has size %s, idle time %s, rate %s", p.Name, p.Size.Value, p.Idle.Value, p.Rate.Value)
		}
		if (p.User.Kind == UserWord) != (p.User.Word != "") || p.User != (User{}) && !slices.Contains([]UserKind{UserWord, UserAddress, UserGiven}, p.User.Kind) {
			t.Errorf("%s has the user %+v", p.Name, p.User)
		}
		if from := p.From; from.Known() && (!slices.Contains([]From{FromOwn, FromDomain, FromVerified, FromRewritten, FromAny}, from.Value) || from.Note == "") {
			t.Errorf("%s has the requirement %+v", p.Name, from)
		}
		for _, mechanism := range p.Auth.Value {
			if !slices.Contains([]string{"plain", "login", "cram-md5", "xoauth2", "oauthbearer"}, mechanism) {
				t.Errorf("%s has the mechanism %q", p.Name, mechanism)
			}
		}
	}
}

func TestPresetFor(t *testing.T) {
	tests := []struct {
		host, want string
		exact      bool // one of the relay's own hosts
	}{
		{"smtp.gmail.com", "gmail", true},
		{"SMTP-Relay.gmail.com.", "google-workspace", true},
		{"smtp-broadcasts.postmarkapp.com", "postmark", true},
		{"smtp-other.postmarkapp.com", "postmark", false},
		{"email-smtp.eu-west-1.amazonaws.com", "ses", true},
		{"email-smtp.mx-central-1.amazonaws.com", "ses", true},
		{"email-smtp-fips.us-east-1.amazonaws.com", "ses", false},
		{"ec2-192-0-2-1.compute-1.amazonaws.com", "", false},
		{"smtp.email.eu-frankfurt-1.oci.oraclecloud.com", "oracle", true},
		{"smtp.email.a.b.oci.oraclecloud.com", "oracle", false},
		{"smtp.office365.us", "microsoft365", true},
		{"smtp.partner.outlook.cn", "microsoft365", true},
		{"smtppro.zoho.com.au", "zoho", true},
		{"mail.example.com.au", "", false},
		{"smtp.yandex.ru", "yandex", true},
		{"vps-0123.vps.ovh.net", "", false},
		{"smtp.example.com", "", false},
		{"192.0.2.1", "", false},
		{"com", "", false},
		{"", "", false},
	}
	for _, tt := range tests {
		if p, ok := PresetFor(tt.host); p.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("PresetFor(%s) = %q, %v, want %q", tt.host, p.Name, ok, tt.want)
		}
		if p, ok := PresetAt(tt.host); ok != tt.exact || ok && p.Name != tt.want {
			t.Errorf("PresetAt(%s) = %q, %v, want %v", tt.host, p.Name, ok, tt.exact)
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

func TestPresetsNameIssuers(t *testing.T) {
	for _, p := range Presets() {
		if _, ok := IssuerNamed(p.OAuth2.Value, ""); p.OAuth2.Value != "" && !ok {
			t.Errorf("preset %s names the unknown issuer %q", p.Name, p.OAuth2)
		}
	}
}

// BenchmarkPresetFor is what each refusal pays to find the relay's own rules: no memory.
func BenchmarkPresetFor(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		PresetFor("mail.example.com")
	}
}
