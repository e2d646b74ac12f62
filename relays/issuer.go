package relays

import (
	"net/url"
	"slices"
	"strings"
)

// Issuer is an OAuth2 authorization server that issues access tokens for SMTP: what
// SMTP_OAUTH2_PROVIDER stands for.
type Issuer struct {
	Name     string
	tokenURL string // with TENANT where each customer has a directory
	// Scopes are asked for with a refresh token.
	Scopes []string
	// ClientScopes are asked for with the client's own credentials; nil where the
	// server issues no token for mail that way.
	ClientScopes []string
}

var issuers = []Issuer{
	{
		Name: "google", tokenURL: "https://oauth2.googleapis.com/token",
		Scopes: []string{"https://mail.google.com/"},
	},
	{
		Name: "microsoft", tokenURL: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token",
		Scopes:       []string{"https://outlook.office.com/SMTP.Send", "offline_access"},
		ClientScopes: []string{"https://outlook.office365.com/.default"},
	},
}

// IssuerNamed returns the issuer of that name, which is in lower case.
func IssuerNamed(name string) (Issuer, bool) {
	if i := slices.IndexFunc(issuers, func(is Issuer) bool { return is.Name == name }); i >= 0 {
		return issuers[i], true
	}
	return Issuer{}, false
}

// TokenURL returns the token endpoint. tenant is the customer's directory, by its
// id or domain; empty means the one that all share, "common".
func (i Issuer) TokenURL(tenant string) string {
	if tenant == "" {
		tenant = "common"
	}
	return strings.Replace(i.tokenURL, "TENANT", url.PathEscape(tenant), 1)
}
