package config

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"mailsidecar/credentials/credentialstest"
)

// TestOAuth2Words: each mistake is told under the name of the setting that has to be
// changed, and as one problem.
func TestOAuth2Words(t *testing.T) {
	p := credentialstest.New(t)
	secret := write(t, "secret", "hunter2")
	plain := good.with("SMTP_PASSWORD=", "SMTP_HOST=", "SMTP_PROVIDER=microsoft365")
	client := plain.with("SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_TENANT=example.com")
	cert := client.with("SMTP_OAUTH2_CERT_FILE=" + p.Certificate)
	const pasted = "-----BEGIN X-----\nhunter2\n-----END X-----"
	const noID = "SMTP_OAUTH2_CLIENT_ID is not set; set it to the Application (client) ID in the registration of the app, as docs/oauth2.md shows"
	for _, tt := range []struct {
		env  env
		want string
	}{
		// Files.
		{cert.with("SMTP_OAUTH2_KEY_FILE=" + p.Missing), `SMTP_OAUTH2_KEY_FILE names "` + p.Missing + `", which cannot be used: no such file or directory; name the RSA key`},
		{cert.with("SMTP_OAUTH2_KEY_FILE=" + p.Empty), `SMTP_OAUTH2_KEY_FILE names "` + p.Empty + `", which cannot be used: it holds no private key`},
		{client.with("SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey, "SMTP_OAUTH2_KEY_FILE="+p.Certificate), `SMTP_OAUTH2_KEY_FILE names "` + p.Certificate + `", which cannot be used: it holds no private key in PEM form; name the RSA key`},
		{cert.with("SMTP_OAUTH2_KEY_FILE=" + p.EndedCertificate + "x"), "SMTP_OAUTH2_KEY_FILE names"},
		{cert.with("SMTP_OAUTH2_KEY_FILE=" + p.LockedKey), "SMTP_OAUTH2_KEY_FILE names"},
		{cert.with("SMTP_OAUTH2_KEY_FILE="+p.Key, "SMTP_OAUTH2_CERT_FILE="+p.Key), "SMTP_OAUTH2_CERT_FILE names"},
		{cert.with("SMTP_OAUTH2_KEY_FILE="+p.Key, "SMTP_OAUTH2_CERT_FILE="+p.Missing), "SMTP_OAUTH2_CERT_FILE names"},
		{plain.with("SMTP_OAUTH2_SERVICE_ACCOUNT_FILE=" + pasted), "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE holds several lines"},
		{plain.with("SMTP_OAUTH2_ACCESS_TOKEN_FILE=" + pasted), "SMTP_OAUTH2_ACCESS_TOKEN_FILE holds several lines"},
		{client.with("SMTP_OAUTH2_CERT_FILE=" + pasted), "SMTP_OAUTH2_CERT_FILE holds several lines, and wants the name of a file; write the text into a file, and set the name of that"},
		{client.with("SMTP_OAUTH2_ASSERTION_FILE=" + pasted), "SMTP_OAUTH2_ASSERTION_FILE holds several lines"},
		{client.with("SMTP_OAUTH2_CLIENT_SECRET_FILE=" + pasted), "SMTP_OAUTH2_CLIENT_SECRET_FILE holds several lines"},
		{good.with("SMTP_TLS_CA_FILE=" + pasted), "SMTP_TLS_CA_FILE holds several lines"},
		{good.with("MAILSIDECAR_TLS_CERT_FILE="+pasted, "MAILSIDECAR_TLS_KEY_FILE=x"), "MAILSIDECAR_TLS_CERT_FILE holds several lines"},
		{good.with("MAILSIDECAR_API_KEYS=", "MAILSIDECAR_API_KEYS_FILE=a:b\nc:d"), "MAILSIDECAR_API_KEYS_FILE holds several lines"},

		// What is missing.
		{plain.with("SMTP_OAUTH2_TENANT=example.com", "SMTP_OAUTH2_CLIENTID=id"), noID},
		{plain.with("SMTP_OAUTH2_CLIENTID=id"), noID},
		{plain.with("SMTP_OAUTH2_TENANT=example.com"), noID},
		{plain.with("SMTP_OAUTH2_TENANT=example.com", "SMTP_USERNAME="), noID},
		{plain.with("SMTP_OAUTH2_TENANT=example.com", "SMTP_AUTH=xoauth2"), noID},
		{plain.with("SMTP_OAUTH2_WHATEVER=x"), noID},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_TOKEN_URL=https://login.example.com/token"), noID},
		{plain.with("SMTP_OAUTH2_ACCES_TOKEN_FILE=/x"), "SMTP_OAUTH2_ACCESS_TOKEN_FILE is not set, and SMTP_OAUTH2_ACCES_TOKEN_FILE is no setting; write the name as it is here"},
		{plain.with("SMTP_OAUTH2_SERVICE_ACOUNT_FILE=/x"), "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE is not set, and"},
		{plain.with("SMTP_PROVIDER=outlook"), noID},
		{plain.with("SMTP_PROVIDER=outlook", "SMTP_USERNAME="), noID},
		{client.with("SMTP_OAUTH2_CLIENT_ID=", "SMTP_OAUTH2_CLIENT_SECRET=s"), noID},
		{client.with("SMTP_OAUTH2_CLIENT_ID=", "SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey), noID},
		{client.with("SMTP_OAUTH2_CLIENT_ID=", "SMTP_OAUTH2_REFRESH_TOKEN=x"), "SMTP_OAUTH2_CLIENT_ID is not set; set the id of the client that the token was issued to"},
		{good.with("SMTP_PASSWORD="), "SMTP_PASSWORD is not set, but SMTP_USERNAME is"},

		// Tenants and clouds.
		{client.with("SMTP_PROVIDER=gmail", "SMTP_OAUTH2_TENANT=", "SMTP_OAUTH2_CLOUD=us"), "SMTP_OAUTH2_CLOUD is us, and the OAuth2 provider is not microsoft"},
		{client.with("SMTP_OAUTH2_TENANT=a b/c?d"), `SMTP_OAUTH2_TENANT is "a b/c?d", which is neither the id of a directory nor a domain; set "Directory (tenant) ID", a domain of the organization, common, organizations or consumers`},
		{client.with("SMTP_OAUTH2_TENANT=contoso"), `SMTP_OAUTH2_TENANT is "contoso", which is`},
		{client.with("SMTP_OAUTH2_TENANT=example.com/x"), "SMTP_OAUTH2_TENANT is"},

		// Conflicts name what is set.
		{cert.with("SMTP_OAUTH2_CERT_FILE="+p.CertificateAndKey, "SMTP_OAUTH2_CLIENT_SECRET_FILE="+secret), "SMTP_OAUTH2_CERT_FILE is set and so is SMTP_OAUTH2_CLIENT_SECRET_FILE; set"},
		{client.with("SMTP_OAUTH2_ASSERTION_FILE="+p.Assertion, "SMTP_OAUTH2_CLIENT_SECRET_FILE="+secret), "SMTP_OAUTH2_ASSERTION_FILE is set and so is SMTP_OAUTH2_CLIENT_SECRET_FILE; set"},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.ServiceAccount, "SMTP_OAUTH2_CLIENT_SECRET_FILE="+secret), "SMTP_OAUTH2_CLIENT_SECRET_FILE is set beside SMTP_OAUTH2_SERVICE_ACCOUNT_FILE"},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.ServiceAccount, "SMTP_OAUTH2_REFRESH_TOKEN_FILE="+secret), "SMTP_OAUTH2_REFRESH_TOKEN_FILE is set beside SMTP_OAUTH2_SERVICE_ACCOUNT_FILE"},
		{client.with("SMTP_OAUTH2_CLIENT_ID=", "SMTP_OAUTH2_REFRESH_TOKEN_FILE="+secret, "SMTP_OAUTH2_ACCESS_TOKEN=x", "SMTP_OAUTH2_TENANT="), "SMTP_OAUTH2_REFRESH_TOKEN_FILE is set beside an access token"},
		{good.with("SMTP_USERNAME=", "SMTP_PASSWORD=", "SMTP_PASSWORD_FILE="+secret), "SMTP_USERNAME is not set, but SMTP_PASSWORD_FILE is"},
	} {
		setenv(t, tt.env)
		_, warnings, err := Load()
		problems, ok := errors.AsType[*Error](err)
		if !ok || len(problems.Problems) != 1 || !strings.HasPrefix(problems.Problems[0].String(), tt.want) {
			t.Errorf("Load(%q) = %v\nwant one problem: %s", tt.env, err, tt.want)
		}
		if text := strings.Join(warnings, " "); err != nil && strings.Contains(err.Error()+text, "hunter2") {
			t.Errorf("Load(%q) shows a secret: %v", tt.env, err)
		}
	}
}

// TestOAuth2NoEffect: what is set and ignored is told, by the name that is set.
func TestOAuth2NoEffect(t *testing.T) {
	p := credentialstest.New(t)
	secret := write(t, "secret", "hunter2")
	own := good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_REFRESH_TOKEN=rt", "SMTP_OAUTH2_TOKEN_URL=https://login.example.com/token")
	google := good.with("SMTP_PASSWORD=", "SMTP_HOST=", "SMTP_PROVIDER=gmail", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_REFRESH_TOKEN=rt")
	for _, tt := range []struct {
		env  env
		want []string
	}{
		{own, nil},
		{own.with("SMTP_OAUTH2_CLOUD=us", "SMTP_OAUTH2_TENANT=abc"), []string{
			"SMTP_OAUTH2_CLOUD has no effect: the OAuth2 provider is not microsoft", "SMTP_OAUTH2_TENANT has no effect: the OAuth2 provider is not microsoft",
		}},
		{own.with("SMTP_OAUTH2_TOKEN_URL=https://login.microsoftonline.com/t/oauth2/v2.0/token", "SMTP_OAUTH2_TENANT=example.com"), []string{"SMTP_OAUTH2_TENANT has no effect: SMTP_OAUTH2_TOKEN_URL names the directory"}},
		{google.with("SMTP_OAUTH2_TENANT=example.com"), []string{"SMTP_OAUTH2_TENANT has no effect: the OAuth2 provider is not microsoft"}},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_SERVICE_ACCOUNT_FILE="+p.ServiceAccount, "SMTP_OAUTH2_TENANT=example.com"), []string{"SMTP_OAUTH2_TENANT has no effect: the OAuth2 provider is not microsoft"}},
		{google.with("SMTP_PASSWORD_FILE=" + secret), []string{"SMTP_PASSWORD_FILE has no effect, because the login is with OAuth2"}},
		{good.with("SMTP_HOST=", "SMTP_PROVIDER=outlook", "SMTP_PASSWORD=", "SMTP_PASSWORD_FILE="+secret), []string{"SMTP_PASSWORD_FILE is set, but Outlook.com takes OAuth2 only, by the login of a person, and no password: docs/oauth2.md"}},
		{google.with("SMTP_OAUTH2_CLIENT_SECRET=s", "SMTP_OAUTH2_SECRET_EXPIRES=2020-01-31"), []string{"SMTP_OAUTH2_SECRET_EXPIRES is 2020-01-31, so the client secret has ended: make a new one, and set both"}},
		{
			google.with("SMTP_OAUTH2_REFRESH_TOKEN=", "SMTP_OAUTH2_REFRESH_TOKEN_FILE="+secret,
				"SMTP2_PROVIDER=gmail", "SMTP2_USERNAME=a@example.com", "SMTP2_OAUTH2_CLIENT_ID=id", "SMTP2_OAUTH2_REFRESH_TOKEN_FILE="+secret),
			[]string{"SMTP2_OAUTH2_REFRESH_TOKEN_FILE is the same as SMTP_OAUTH2_REFRESH_TOKEN_FILE"},
		},
	} {
		_, warnings := mustLoad(t, tt.env)
		if !slices.EqualFunc(warnings, tt.want, strings.HasPrefix) {
			t.Errorf("Load(%q): warnings %q\nwant %q", tt.env, warnings, tt.want)
		}
	}
}
