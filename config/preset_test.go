package config

import (
	"slices"
	"strings"
	"testing"

	"mailsidecar/relays"
)

func TestPresets(t *testing.T) {
	tests := []struct {
		provider, host, ports, username string
		recipients                      int
	}{
		{"gmail", "smtp.gmail.com", "587,465", "", 100},
		{"google-workspace", "smtp-relay.gmail.com", "587,465", "", 100},
		{"microsoft365", "smtp.office365.com", "587", "", 100},
		{"outlook", "smtp-mail.outlook.com", "587", "", 100},
		{"yahoo", "smtp.mail.yahoo.com", "587,465", "", 100},
		{"icloud", "smtp.mail.me.com", "587", "", 100},
		{"zoho", "smtp.zoho.com", "587,465", "", 100},
		{"mailersend", "smtp.mailersend.net", "587,2525", "", 100},
		{"sendgrid", "smtp.sendgrid.net", "587,2525,465", "apikey", 100},
		{"mailgun", "smtp.mailgun.org", "587,2525,465", "", 100},
		{"postmark", "smtp.postmarkapp.com", "587,2525", "", 50},
		{"ses:eu-west-1", "email-smtp.eu-west-1.amazonaws.com", "587,2587,465,2465", "", 50},
		{"brevo", "smtp-relay.brevo.com", "587,2525,465", "", 100},
		{"smtp2go", "mail.smtp2go.com", "587,2525,8025,465,8465,443", "", 100},
		{"mailjet", "in-v3.mailjet.com", "587,2525,588,465,80", "", 50},
		{"resend", "smtp.resend.com", "587,2587,465,2465", "resend", 100},
		{"sparkpost", "smtp.sparkpostmail.com", "587,2525", "SMTP_Injection", 100},
		{"elasticemail", "smtp.elasticemail.com", "587,2525,465", "", 100},
	}
	for _, test := range tests {
		e := good.with("SMTP_HOST=", "SMTP_PROVIDER="+test.provider)
		if test.username != "" {
			e = e.with("SMTP_USERNAME=")
		} else {
			test.username = "shop"
		}
		c, _ := mustLoad(t, e)
		r := c.Relays[0]
		if r.Host != test.host || r.Ports.String() != test.ports || r.Username != test.username || r.MaxRecipients != test.recipients || r.Advice == "" {
			t.Errorf("SMTP_PROVIDER=%s = %+v, want %+v", test.provider, r, test)
		}
		if name, _, _ := strings.Cut(test.provider, ":"); r.Provider != name {
			t.Errorf("SMTP_PROVIDER=%s = provider %s, want %s", test.provider, r.Provider, name)
		}
	}
}

// TestEveryPresetIsRead: each relay of the table, with each of its regions and by each of
// its aliases, fills in settings that are valid, and no warning comes of it.
func TestEveryPresetIsRead(t *testing.T) {
	for _, p := range relays.Presets() {
		providers := append([]string{p.Name}, p.Aliases...)
		if p.Regional() {
			for i := range providers {
				providers[i] += ":eu-west-1"
			}
		}
		for _, r := range p.Regions {
			providers = append(append(providers, p.Name+":"+r.Name), r.Aliases...)
		}
		for _, provider := range providers {
			c, warnings := mustLoad(t, base(p).with("SMTP_PROVIDER="+provider))
			r := c.Relays[0]
			if r.Provider != p.Name || r.Host == "" || r.Ports.String() != portsText(p.Ports.Value) || r.Rate != p.Rate.Value || r.Advice != p.Advice.Value {
				t.Errorf("SMTP_PROVIDER=%s = %+v, want what the table has: %+v", provider, r, p)
			}
			for _, w := range warnings {
				if !p.TokensOnly.Value && len(p.Regions) > 0 {
					t.Errorf("SMTP_PROVIDER=%s: %s", provider, w)
				}
			}
		}
	}
}

// base is the environment for a preset, without what the preset fills in.
func base(p relays.Preset) env {
	e := good.with("SMTP_HOST=")
	if p.User.Kind == relays.UserWord {
		e = e.with("SMTP_USERNAME=")
	}
	return e
}

// TestUnknownRegion: a region that the table does not have is used as it is, and told.
func TestUnknownRegion(t *testing.T) {
	c, warnings := mustLoad(t, good.with("SMTP_HOST=", "SMTP_PROVIDER=ses:mx-central-1"))
	want := "SMTP_PROVIDER names the region mx-central-1, which is not in our list: its host should be email-smtp.mx-central-1.amazonaws.com"
	if c.Relays[0].Host != "email-smtp.mx-central-1.amazonaws.com" || !slices.Contains(warnings, want) {
		t.Errorf("ses:mx-central-1 = %s, warnings %q, want %q", c.Relays[0].Host, warnings, want)
	}
	c, warnings = mustLoad(t, good.with("SMTP_HOST=email-smtp.example.com", "SMTP_PROVIDER=ses:mx-central-1"))
	if c.Relays[0].Host != "email-smtp.example.com" || len(warnings) > 0 {
		t.Errorf("ses:mx-central-1 with a host = %s, warnings %q", c.Relays[0].Host, warnings)
	}
}

// TestPresetLimits: where a relay is known to limit connections, its preset does.
func TestPresetLimits(t *testing.T) {
	tests := []struct {
		provider        string
		conns, messages int
	}{
		{"gmail", 8, 100},
		{"microsoft365", 3, 100},
		{"outlook", 3, 100},
		{"yahoo", 8, 20},
	}
	for _, test := range tests {
		c, _ := mustLoad(t, good.with("SMTP_HOST=", "SMTP_PROVIDER="+test.provider))
		if r := c.Relays[0]; r.MaxConnections != test.conns || r.MessagesPerConnection != test.messages {
			t.Errorf("SMTP_PROVIDER=%s = %d connections, %d messages, want %d, %d",
				test.provider, r.MaxConnections, r.MessagesPerConnection, test.conns, test.messages)
		}
	}
	c, _ := mustLoad(t, good.with("SMTP_HOST=", "SMTP_PROVIDER=microsoft365", "SMTP_MAX_CONNECTIONS=2"))
	if got := c.Relays[0].MaxConnections; got != 2 {
		t.Errorf("SMTP_MAX_CONNECTIONS=2 with a preset = %d", got)
	}
}

func TestPresetYieldsToWhatIsSet(t *testing.T) {
	c, _ := mustLoad(t, good.with("SMTP_PROVIDER=postmark", "SMTP_HOST=smtp-broadcasts.postmarkapp.com", "SMTP_PORT=2525", "SMTP_MAX_RECIPIENTS=100"))
	r := c.Relays[0]
	if r.Host != "smtp-broadcasts.postmarkapp.com" || r.Ports.String() != "2525" || r.MaxRecipients != 100 || r.Username != "shop" {
		t.Errorf("the preset won over the environment: %+v", r)
	}
	c, _ = mustLoad(t, good.with("SMTP_PROVIDER=ses", "SMTP_HOST=email-smtp.us-east-1.amazonaws.com"))
	if r = c.Relays[0]; r.Host != "email-smtp.us-east-1.amazonaws.com" || r.Ports.String() != "587,2587,465,2465" {
		t.Errorf("ses with a host = %+v", r)
	}
	c, _ = mustLoad(t, good.with("SMTP_PROVIDER=sendgrid", "SMTP_USERNAME=", "SMTP_PASSWORD=", "SMTP_AUTH=none"))
	if r = c.Relays[0]; r.Username != "" {
		t.Errorf("AUTH none has user name %q", r.Username)
	}
}

func TestOAuth2(t *testing.T) {
	base := good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id")
	tests := []struct {
		env              env
		provider         string
		tokenURL, scopes string
	}{
		{base.with("SMTP_PROVIDER=gmail", "SMTP_OAUTH2_REFRESH_TOKEN=rt"), "google", "https://oauth2.googleapis.com/token", "https://mail.google.com/"},
		{base.with("SMTP_OAUTH2_PROVIDER=Google", "SMTP_OAUTH2_REFRESH_TOKEN=rt", "SMTP_OAUTH2_SCOPES=a, b"), "google", "https://oauth2.googleapis.com/token", "a,b"},
		{base.with("SMTP_PROVIDER=microsoft365", "SMTP_OAUTH2_REFRESH_TOKEN=rt"), "microsoft", "https://login.microsoftonline.com/common/oauth2/v2.0/token", "https://outlook.office.com/SMTP.Send,offline_access"},
		{base.with("SMTP_PROVIDER=outlook", "SMTP_OAUTH2_CLIENT_SECRET=cs", "SMTP_OAUTH2_TENANT=example.com"), "microsoft", "https://login.microsoftonline.com/example.com/oauth2/v2.0/token", "https://outlook.office365.com/.default"},
		{base.with("SMTP_PROVIDER=gmail", "SMTP_OAUTH2_REFRESH_TOKEN=rt", "SMTP_OAUTH2_TOKEN_URL=http://127.0.0.1:1/token"), "", "http://127.0.0.1:1/token", ""},
	}
	for _, test := range tests {
		c, warnings := mustLoad(t, test.env)
		o := c.Relays[0].OAuth2
		if o.Provider != test.provider || o.TokenURL != test.tokenURL || o.Scopes.String() != test.scopes || !o.Configured() || len(warnings) > 0 {
			t.Errorf("OAuth2 of %q = %s %s %s, warnings %q\nwant %s %s %s", test.env, o.Provider, o.TokenURL, o.Scopes, warnings, test.provider, test.tokenURL, test.scopes)
		}
	}
	c, _ := mustLoad(t, good.with("SMTP_PASSWORD=", "SMTP_AUTH=xoauth2", "SMTP_OAUTH2_ACCESS_TOKEN=ya29"))
	if o := c.Relays[0].OAuth2; !o.Configured() || o.Fetched() {
		t.Errorf("an access token alone = configured %v, fetched %v", o.Configured(), o.Fetched())
	}
}
