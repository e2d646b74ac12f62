package relays

import (
	"errors"
	"strings"
	"testing"
)

func TestProviderNamed(t *testing.T) {
	for _, tt := range []struct{ text, name, host string }{
		{"gmail", "gmail", "smtp.gmail.com"},
		{"GMail", "gmail", "smtp.gmail.com"},
		{" google ", "gmail", "smtp.gmail.com"},
		{"office365", "microsoft365", "smtp.office365.com"},
		{"M365", "microsoft365", "smtp.office365.com"},
		{"Microsoft 365", "microsoft365", "smtp.office365.com"},
		{"amazon_ses:eu-west-1", "ses", "email-smtp.eu-west-1.amazonaws.com"},
		{"aws: EU-West-1", "ses", "email-smtp.eu-west-1.amazonaws.com"},
		{"ses:mx-central-1", "ses", "email-smtp.mx-central-1.amazonaws.com"},
		{"ses", "ses", ""},
		{"workspace", "google-workspace", "smtp-relay.gmail.com"},
		{"twilio-sendgrid", "sendgrid", "smtp.sendgrid.net"},
		{"sendinblue", "brevo", "smtp-relay.brevo.com"},
		{"zoho", "zoho", "smtp.zoho.com"},
		{"zoho:eu", "zoho", "smtp.zoho.eu"},
		{"zoho:", "zoho", "smtp.zoho.com"},
		{"zoho:eu-pro", "zoho", "smtppro.zoho.eu"},
		{"smtp2go:eu", "smtp2go", "mail-eu.smtp2go.com"},
		{"mailgun:eu", "mailgun", "smtp.eu.mailgun.org"},
		{"mailgun-eu", "mailgun", "smtp.eu.mailgun.org"},
		{"sparkpost:eu", "sparkpost", "smtp.eu.sparkpostmail.com"},
		{"postmark:broadcast", "postmark", "smtp-broadcasts.postmarkapp.com"},
		{"oracle:eu-frankfurt-1", "oracle", "smtp.email.eu-frankfurt-1.oci.oraclecloud.com"},
		{"126", "netease", "smtp.126.com"},
		{"163", "netease", "smtp.163.com"},
	} {
		p, err := ProviderNamed(tt.text)
		if err != nil || p.Name != tt.name || p.Host != tt.host || p.Guessed != (tt.text == "ses:mx-central-1" || tt.name == "oracle") {
			t.Errorf("ProviderNamed(%q) = %s at %q, guessed %v, %v, want %s at %q", tt.text, p.Name, p.Host, p.Guessed, err, tt.name, tt.host)
		}
	}
}

func TestProviderUnknown(t *testing.T) {
	for _, tt := range []struct{ text, relay, near string }{
		{"gmial", "", "gmail"},
		{"micro", "", "microsoft365,microsoft365-hve"},
		{"sendgird", "", "sendgrid"},
		{"sengrid", "", "sendgrid"},
		{"postmrak", "", "postmark"},
		{"no such relay at all", "", ""},
		{"", "", ""},
		{":eu", "", ""},
		{"x", "", ""},
		{"mailgun-eu:us", "", "mailgun"},
		{"zoho-eu", "", "zoho:eu"},
		{"Zoho.EU", "", "zoho:eu"},
		{"zoho_eu-pro", "", "zoho:eu-pro"},
		{"gmail.com", "", "gmail"},
		{"smtp.gmail.com", "", "gmail"},
		{"sendgrid.com", "", "sendgrid"},
		{"smtp.sendgrid.net", "", "sendgrid"},
		{"gmail:eu", "gmail", ""},
		{"mailgun:asia", "mailgun", "mailgun:us,mailgun:eu"},
		{"ses:eu west", "ses", "ses:us-east-1"},
		{"ses:../etc", "ses", "ses:us-east-1"},
		{"ses:-", "ses", "ses:us-east-1"},
		{"oracle:a.b", "oracle", ""},
	} {
		p, err := ProviderNamed(tt.text)
		e, ok := errors.AsType[*NameError](err)
		if !ok || e.Preset.Name != tt.relay || !strings.HasPrefix(strings.Join(e.Near, ","), tt.near) || tt.near == "" && len(e.Near) > 0 {
			t.Errorf("ProviderNamed(%q) = %s, %+v, want an error about %q with %s", tt.text, p.Name, err, tt.relay, tt.near)
		}
	}
}

// FuzzProviderNamed: whatever stands there, the answer is a relay with a host that is
// safe to look up, or an error with few suggestions that are all names.
func FuzzProviderNamed(f *testing.F) {
	for _, text := range []string{"gmail", "zoho:eu", "ses:eu-west-1", "ses:", "ses:a.b", "mailgun-eu", "gmial", ":", "\xff:\xff", "oracle:\r\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ProviderNamed(text)
		if err == nil {
			if p.Name == "" || strings.Trim(p.Host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
				t.Errorf("ProviderNamed(%q) = %s at %q", text, p.Name, p.Host)
			}
			return
		}
		e, ok := errors.AsType[*NameError](err)
		if !ok || e.Preset.Name == "" && len(e.Near) > maxNear {
			t.Fatalf("ProviderNamed(%q) = %v", text, err)
		}
		for _, name := range e.Near {
			if _, err := ProviderNamed(name); err != nil {
				t.Errorf("ProviderNamed(%q) suggests %s: %v", text, name, err)
			}
		}
	})
}

func TestNamesNearAreFew(t *testing.T) {
	if got := namesNear("mail"); len(got) != maxNear {
		t.Errorf("namesNear(mail) = %v, want %d names", got, maxNear)
	}
	if got := namesNear(strings.Repeat("a", 1000)); got != nil {
		t.Errorf("namesNear of a thousand letters = %v, want none", got)
	}
}
