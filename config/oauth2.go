package config

import (
	"net/url"
	"strings"

	"mailsidecar/netaddr"
	"mailsidecar/relays"
)

// OAuth2 says where the access token for XOAUTH2 comes from: it is given, or
// stands in a file, or is fetched from TokenURL with the refresh token, or
// without one with the client's own credentials.
type OAuth2 struct {
	AccessToken     Secret `env:"ACCESS_TOKEN" twin:"no" desc:"Access token for XOAUTH2." note:"Expires within hours: for tests."`
	AccessTokenFile string `env:"ACCESS_TOKEN_FILE" desc:"File with the access token, read again for each login." note:"For a token that another program renews."`
	Provider        string `env:"PROVIDER" oneof:"google microsoft" desc:"google or microsoft: fills in token URL and scopes." unset:"by the relay's provider"`
	Tenant          string `env:"TENANT" desc:"Microsoft's directory (tenant) id or domain." unset:"common" note:"Needed where there is no refresh token."`
	ClientID        string `env:"CLIENT_ID" desc:"Client (application) id."`
	ClientSecret    Secret `env:"CLIENT_SECRET" desc:"Client secret." note:"Public clients have none."`
	RefreshToken    Secret `env:"REFRESH_TOKEN" desc:"Refresh token." unset:"client credentials (Microsoft)"`
	TokenURL        string `env:"TOKEN_URL" desc:"Token endpoint, https." unset:"the OAuth2 provider's"`
	Scopes          List   `env:"SCOPES" desc:"Scopes to ask for, separated by commas." unset:"the OAuth2 provider's for SMTP"`
}

// Configured says that there is a source of tokens.
func (o OAuth2) Configured() bool {
	return o.AccessToken.IsSet() || o.AccessTokenFile != "" || o.Fetched()
}

// Fetched says that tokens are to be fetched from TokenURL.
func (o OAuth2) Fetched() bool {
	return o.ClientID != "" || o.ClientSecret.IsSet() || o.RefreshToken.IsSet()
}

// checkOAuth2 fills in what OAUTH2_PROVIDER stands for and checks that a token
// can be had in one way.
func (r *reader) checkOAuth2(relay *Relay) {
	o := &relay.OAuth2
	if o.AccessToken.IsSet() && o.AccessTokenFile != "" {
		r.problem(relay.Variable("OAUTH2_ACCESS_TOKEN_FILE"), "is set and so is "+relay.Variable("OAUTH2_ACCESS_TOKEN"), "set only one of them")
	}
	if o.AccessTokenFile != "" {
		if _, err := readAll(o.AccessTokenFile); err != nil {
			r.warn("%s names %s, which cannot be read now: %s; it is tried again for each login",
				relay.Variable("OAUTH2_ACCESS_TOKEN_FILE"), shownPath(o.AccessTokenFile), reason(err))
		}
	}
	if !o.Fetched() {
		for _, suffix := range []string{"OAUTH2_PROVIDER", "OAUTH2_TENANT", "OAUTH2_TOKEN_URL", "OAUTH2_SCOPES"} {
			if relay.sets(r, suffix) {
				r.warn("%s has no effect without %s", relay.Variable(suffix), relay.Variable("OAUTH2_CLIENT_ID"))
			}
		}
		return
	}
	if o.AccessToken.IsSet() || o.AccessTokenFile != "" {
		r.problem(relay.Variable("OAUTH2_CLIENT_ID"), "is set beside an access token", "set the access token or what fetches one, not both")
	}
	if o.ClientID == "" {
		r.problem(relay.Variable("OAUTH2_CLIENT_ID"), "is not set", "set the id of the client that the token was issued to")
	}
	r.applyIssuer(relay)
	r.checkTokenURL(relay)
	if !o.RefreshToken.IsSet() && !r.failed[relay.Variable("OAUTH2_REFRESH_TOKEN")] {
		r.checkClientCredentials(relay)
	}
}

func (r *reader) checkClientCredentials(relay *Relay) {
	o := relay.OAuth2
	switch {
	case o.Provider == google:
		r.problem(relay.Variable("OAUTH2_REFRESH_TOKEN"), "is not set, and Google gives no mail token without one", "set it or "+relay.Variable("OAUTH2_REFRESH_TOKEN_FILE"))
	case !o.ClientSecret.IsSet() && !r.failed[relay.Variable("OAUTH2_CLIENT_SECRET")]:
		r.problem(relay.Variable("OAUTH2_REFRESH_TOKEN"), "is not set, and neither is "+relay.Variable("OAUTH2_CLIENT_SECRET"), "set one of them")
	case o.Provider == microsoft && !relay.sets(r, "OAUTH2_TENANT") && !relay.sets(r, "OAUTH2_TOKEN_URL"):
		r.problem(relay.Variable("OAUTH2_TENANT"), "is not set, and without a refresh token Microsoft needs it", "set the directory's id or domain")
	}
}

func (r *reader) checkTokenURL(relay *Relay) {
	name := relay.Variable("OAUTH2_TOKEN_URL")
	if relay.OAuth2.TokenURL == "" {
		if !r.failed[relay.Variable("OAUTH2_PROVIDER")] {
			r.problem(name, "is not set", "set it, or set "+relay.Variable("OAUTH2_PROVIDER")+" to google or microsoft")
		}
		return
	}
	u, err := url.Parse(relay.OAuth2.TokenURL)
	secure := err == nil && (u.Scheme == "https" || u.Scheme == "http" && netaddr.IsLoopback(u.Hostname()))
	if !secure || u.Host == "" || u.User != nil {
		r.problem(name, "is no https URL", "set one such as https://login.example.com/oauth2/token, without user name or password")
	}
}

// applyIssuer fills in the endpoint and the scopes for sending by SMTP.
func (r *reader) applyIssuer(relay *Relay) {
	o := relay.OAuth2
	issuer, ok := relays.IssuerNamed(o.Provider, "")
	if !ok {
		return
	}
	scopes := issuer.Scopes
	if !o.RefreshToken.IsSet() && issuer.ClientScopes != nil {
		scopes = issuer.ClientScopes
	}
	r.fill(relay, map[string]string{ // an endpoint, no credentials
		"OAUTH2_TOKEN_URL": issuer.TokenURL(o.Tenant),
		"OAUTH2_SCOPES":    strings.Join(scopes, ","),
	})
}
