package config

import (
	"slices"
	"testing"
)

// TestHints: a host that is known gets its facts as hints, and keeps its settings.
func TestHints(t *testing.T) {
	for _, tt := range []struct {
		env  env
		want []string
	}{
		{good.with("SMTP_HOST=smtp.office365.com", "SMTP_USERNAME=shop@example.com"), []string{
			"smtp.office365.com is a host of Microsoft 365: SMTP_PROVIDER=microsoft365 in place of SMTP_HOST stands for SMTP_PORTS=587, SMTP_MAX_CONNECTIONS=3, SMTP_RATE=30/m",
		}},
		{good.with("SMTP_HOST=smtp.office365.com", "SMTP_USERNAME=shop@example.com", "SMTP_PORT=587", "SMTP_MAX_CONNECTIONS=2", "SMTP_RATE=10/m"), nil},
		{good.with("SMTP_PROVIDER=microsoft365", "SMTP_HOST=", "SMTP_USERNAME=shop@example.com"), nil},
		{good.with("SMTP_HOST=smtp.sendgrid.net", "SMTP_USERNAME=shop", "SMTP_PORTS=587"), []string{
			"SMTP_USERNAME is not apikey, which is the user name of every account of SendGrid",
		}},
		{good.with("SMTP_HOST=smtp.resend.com", "SMTP_USERNAME=re_secret", "SMTP_PORTS=587"), []string{
			"SMTP_USERNAME is not resend, which is the user name of every account of Resend",
		}},
		{good.with("SMTP_PROVIDER=gmail", "SMTP_HOST=", "SMTP_USERNAME=shop", "SMTP_PORTS=2525,587/starttls"), []string{
			"SMTP_USERNAME is no address, and Gmail takes the full address of the Google account",
			"SMTP_PORTS has 2525, on which Gmail is not known to listen: it listens on 587, 465, 25",
		}},
		{good.with("SMTP_HOST=smtp.zoho.eu", "SMTP_USERNAME=shop@example.com"), []string{
			"smtp.zoho.eu is a host of Zoho Mail: SMTP_PROVIDER=zoho:eu in place of SMTP_HOST stands for SMTP_PORTS=587,465",
		}},
		{good.with("SMTP_HOST=email-smtp.mx-central-1.amazonaws.com"), []string{
			"email-smtp.mx-central-1.amazonaws.com is a host of Amazon SES: SMTP_PROVIDER=ses:mx-central-1 in place of SMTP_HOST stands for SMTP_PORTS=587,2587,465,2465, SMTP_MAX_RECIPIENTS=50",
		}},
		{good.with("SMTP_PROVIDER=gmail", "SMTP_HOST=smtp.sendgrid.net", "SMTP_USERNAME=apikey"), []string{
			"SMTP_HOST is smtp.sendgrid.net, a host of SendGrid, and SMTP_PROVIDER is gmail",
		}},
		{good.with("SMTP2_HOST=smtp.sendgrid.net", "SMTP2_USERNAME=shop", "SMTP2_PASSWORD=secret", "SMTP2_PORTS=587"), []string{
			"SMTP2_USERNAME is not apikey, which is the user name of every account of SendGrid",
		}},
		{good, nil},
	} {
		c, warnings := mustLoad(t, tt.env)
		var got []string
		for _, r := range c.Relays {
			got = append(got, r.Hints...)
		}
		if !slices.Equal(got, tt.want) || len(warnings) > 0 {
			t.Errorf("hints of %q = %q, want %q; warnings %q", tt.env, got, tt.want, warnings)
		}
	}
	c, _ := mustLoad(t, good.with("SMTP_HOST=smtp.office365.com"))
	if r := c.Relays[0]; r.MaxConnections != 8 || r.Rate.Messages != 0 || r.Provider != "" || r.Ports.String() != "587,2525" {
		t.Errorf("a hint changed the settings: %+v", r)
	}
}
