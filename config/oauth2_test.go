package config

import (
	"errors"
	"strings"
	"testing"

	"mailsidecar/credentials/credentialstest"
)

func TestOAuth2Grants(t *testing.T) {
	p := credentialstest.New(t)
	base := good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_PROVIDER=microsoft365", "SMTP_HOST=", "SMTP_OAUTH2_TENANT=example.com")
	google := good.with("SMTP_PASSWORD=", "SMTP_PROVIDER=gmail", "SMTP_HOST=")
	for _, tt := range []struct {
		env      env
		grant    Grant
		login    bool
		warnings int
		tokenURL string
	}{
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_SECRET_EXPIRES=2999-01-31", "SMTP_OAUTH2_CLIENT_AUTH=basic"), GrantClient, false, 0, "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_SECRET_EXPIRES=2020-01-31"), GrantClient, false, 1, "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_OAUTH2_CERT_FILE="+p.Certificate, "SMTP_OAUTH2_KEY_FILE="+p.Key), GrantClient, false, 0, "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey, "SMTP_OAUTH2_CLOUD=US"), GrantClient, false, 0, "https://login.microsoftonline.us/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.EndedCertificate), GrantClient, false, 1, "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_OAUTH2_ASSERTION_FILE="+p.Assertion, "SMTP_OAUTH2_CLOUD=cn"), GrantClient, false, 0, "https://login.partner.microsoftonline.cn/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey, "SMTP_OAUTH2_REFRESH_TOKEN=rt"), GrantLogin, false, 0, "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"},
		{base.with("SMTP_USERNAME="), GrantLogin, true, 0, "https://login.microsoftonline.com/example.com/oauth2/v2.0/token"},
		{google.with("SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_USERNAME="), GrantLogin, true, 0, "https://oauth2.googleapis.com/token"},
		{google.with("SMTP_OAUTH2_SERVICE_ACCOUNT_FILE=" + p.ServiceAccount), GrantServiceAccount, false, 0, "https://oauth2.googleapis.com/token"},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.ServiceAccount), GrantServiceAccount, false, 0, "https://oauth2.googleapis.com/token"},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_TOKEN_URL=https://login.example.com/t", "SMTP_OAUTH2_AUTHORIZE_URL=https://login.example.com/a"), GrantLogin, true, 0, "https://login.example.com/t"},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_TOKEN_URL=https://login.example.com/t"), GrantClient, false, 0, "https://login.example.com/t"},
	} {
		c, warnings := mustLoad(t, tt.env)
		o := c.Relays[0].OAuth2
		if o.Grant() != tt.grant || o.NeedsLogin() != tt.login || o.TokenURL != tt.tokenURL || len(warnings) != tt.warnings {
			t.Errorf("OAuth2 of %q: grant %d, needs a login %v, %s, warnings %q\nwant %d, %v, %s, %d", tt.env, o.Grant(), o.NeedsLogin(), o.TokenURL, warnings, tt.grant, tt.login, tt.tokenURL, tt.warnings)
		}
	}
	if c, _ := mustLoad(t, base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_CLOUD=us")); c.Relays[0].Host != "smtp.office365.us" {
		t.Errorf("host in the cloud us = %s", c.Relays[0].Host)
	}
}

func TestOAuth2Problems(t *testing.T) {
	p := credentialstest.New(t)
	base := good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_PROVIDER=microsoft", "SMTP_OAUTH2_TENANT=example.com")
	for _, tt := range []struct {
		env  env
		want []string // each in a problem of its own
	}{
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_CLOUD=de"), []string{"SMTP_OAUTH2_CLOUD has no value we know; set one of us, cn"}},
		{base.with("SMTP_OAUTH2_REFRESH_TOKEN=rt", "SMTP_OAUTH2_PROVIDER=google", "SMTP_OAUTH2_CLOUD=us"), []string{"SMTP_OAUTH2_CLOUD is us, and the OAuth2 provider is not microsoft"}},
		{base.with("SMTP_OAUTH2_REFRESH_TOKEN=rt", "SMTP_OAUTH2_CLOUD=us", "SMTP_HOST=smtp.office365.com"), []string{"SMTP_OAUTH2_CLOUD does not fit SMTP_HOST: smtp.office365.com takes tokens of another cloud; set SMTP_HOST=smtp.office365.us"}},
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_CLIENT_AUTH=jwt"), []string{"SMTP_OAUTH2_CLIENT_AUTH has no value we know; set one of post, basic"}},
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_SECRET_EXPIRES=next year"), []string{`SMTP_OAUTH2_SECRET_EXPIRES is "next year", which is no day; write it as 2027-11-30`}},
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_TENANT=Common"), []string{"SMTP_OAUTH2_TENANT is common, which gives no token to an app without a person; set the directory's id or domain"}},
		{base.with("SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey, "SMTP_OAUTH2_TENANT="), []string{"SMTP_OAUTH2_TENANT is not set, and without a refresh token Microsoft needs it"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.Text), []string{"which cannot be used: it holds no certificate in PEM form; name a certificate"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.Missing), []string{"missing\", which cannot be used: no such file or directory; name a certificate"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.Certificate), []string{"which cannot be used: it holds no private key in PEM form; name a certificate"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.EllipticCertificate), []string{"its key is no RSA key of 2048 bits or more"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.OtherCertificate), []string{"its key does not belong to the certificate"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=" + p.LockedKey), []string{"its key has a passphrase"}},
		{base.with("SMTP_OAUTH2_CERT_FILE=/dev/zero"), []string{"which cannot be used: it is over 65536 octets long"}},
		{base.with("SMTP_OAUTH2_KEY_FILE=" + p.Key), []string{"SMTP_OAUTH2_KEY_FILE is set without SMTP_OAUTH2_CERT_FILE"}},
		{base.with("SMTP_OAUTH2_ASSERTION_FILE=" + p.Empty), []string{"which cannot be used: it is empty, and should hold a JWT; name the file"}},
		{base.with("SMTP_OAUTH2_ASSERTION_FILE=" + p.Text), []string{"which cannot be used: it holds no JWT"}},
		{base.with("SMTP_OAUTH2_ASSERTION_FILE="+p.Assertion, "SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey), []string{"SMTP_OAUTH2_ASSERTION_FILE is set and so is SMTP_OAUTH2_CERT_FILE; set only one of them"}},
		{base.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey), []string{"SMTP_OAUTH2_CERT_FILE is set and so is SMTP_OAUTH2_CLIENT_SECRET; set only one of them"}},
		{base.with("SMTP_OAUTH2_PROVIDER=google", "SMTP_OAUTH2_ASSERTION_FILE="+p.Assertion), []string{"SMTP_OAUTH2_PROVIDER is google, which takes no certificate"}},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.UserAccount), []string{`it is no key of a service account: its "type" is another`}},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.Key), []string{"it is no JSON key of a Google service account"}},
		{good.with("SMTP_PASSWORD=", "SMTP_USERNAME=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.ServiceAccount), []string{"SMTP_USERNAME is not set, and OAuth2 needs one"}},
		{base.with("SMTP_OAUTH2_SERVICE_ACCOUNT_FILE=" + p.ServiceAccount), []string{"SMTP_OAUTH2_CLIENT_ID is set beside SMTP_OAUTH2_SERVICE_ACCOUNT_FILE", "and the OAuth2 provider is microsoft"}},
		{base.with("MAILSIDECAR_QUEUE=none", "MAILSIDECAR_DATA_DIR="), []string{"SMTP_OAUTH2_REFRESH_TOKEN is not set, and without MAILSIDECAR_DATA_DIR mailsidecar login has no place for one"}},
		{base.with("SMTP_OAUTH2_CLOUD=x", "SMTP_OAUTH2_CERT_FILE="+p.Text, "SMTP_OAUTH2_ASSERTION_FILE="+p.Empty, "SMTP_OAUTH2_SECRET_EXPIRES=x"), []string{
			"SMTP_OAUTH2_CLOUD has", "SMTP_OAUTH2_CERT_FILE names", "SMTP_OAUTH2_ASSERTION_FILE is set", "SMTP_OAUTH2_SECRET_EXPIRES is",
		}},
	} {
		setenv(t, tt.env)
		_, _, err := Load()
		problems, ok := errors.AsType[*Error](err)
		if !ok || len(problems.Problems) != len(tt.want) {
			t.Errorf("Load(%q) = %v, want %d problems", tt.env, err, len(tt.want))
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("Load(%q) = %v\nwant %q", tt.env, err, w)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a file was quoted: %v", err)
		}
	}
}

// TestSharedRefreshToken: one refresh token in two relays is allowed, with a warning
// that does not show it.
func TestSharedRefreshToken(t *testing.T) {
	base := good.with("SMTP_PASSWORD=", "SMTP_PROVIDER=microsoft365", "SMTP_HOST=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_REFRESH_TOKEN=hunter2",
		"SMTP2_PROVIDER=microsoft365", "SMTP2_USERNAME=b@example.com", "SMTP2_OAUTH2_CLIENT_ID=id")
	for token, want := range map[string]int{"": 0, "other": 0, "hunter2": 1} {
		_, warnings := mustLoad(t, base.with("SMTP2_OAUTH2_REFRESH_TOKEN="+token))
		if len(warnings) != want {
			t.Errorf("with %q: warnings %q, want %d", token, warnings, want)
		}
		for _, w := range warnings {
			if strings.Contains(w, "hunter2") || !strings.HasPrefix(w, "SMTP2_OAUTH2_REFRESH_TOKEN is the same as SMTP_OAUTH2_REFRESH_TOKEN:") || !strings.HasSuffix(w, "mailsidecar login --relay 2") {
				t.Errorf("warning %q", w)
			}
		}
	}
}

func TestIsDirectoryID(t *testing.T) {
	for id, want := range map[string]bool{
		"72f988bf-86f1-41af-91ab-2d7cd011db47":  true,
		"72F988BF-86F1-41AF-91AB-2D7CD011DB47":  true,
		"72f988bf-86f1-41af-91ab-2d7cd011db4":   false,
		"72f988bf-86f1-41af-91ab-2d7cd011db477": false,
		"72f988bf-86f1-41af-91ab02d7cd011db47":  false,
		"72f988bf-86f1-41af-91a-b2d7cd011db47":  false,
		"72f988bg-86f1-41af-91ab-2d7cd011db47":  false,
		"72f988b-f86f1-41af-91ab-2d7cd011db47":  false,
		"72f988bé-86f1-41af-91ab-2d7cd011db4":   false,
		"":                                      false,
	} {
		if got := isDirectoryID(id); got != want {
			t.Errorf("isDirectoryID(%q) = %v, want %v", id, got, want)
		}
	}
}
