package relays

import (
	"net/url"
	"slices"
	"strings"
)

// Issuer is an OAuth2 authorization server that issues access tokens for SMTP: what
// SMTP_OAUTH2_PROVIDER stands for, in one of its clouds.
//
// One request names the scopes of one resource; openid, profile and offline_access
// may stand beside them.
type Issuer struct {
	Name string // "google" or "microsoft"
	// Cloud is "us" or "cn" for the separate clouds of governments and countries,
	// empty for the one that the world uses.
	Cloud string
	// SMTPHost is the relay that takes its tokens. Personal accounts of Microsoft
	// have another one, see the preset "outlook".
	SMTPHost string
	// Scopes are for a token on behalf of a person: for the login, and again with
	// each refresh token. They include what makes the server issue a refresh token.
	Scopes []string
	// AccountScopes are asked for beside Scopes at a login: with them the server also
	// names the account that logged in.
	AccountScopes []string
	// ClientScopes are asked for with the client's own credentials; nil where the
	// server issues no token for mail that way.
	ClientScopes []string
	// AuthorizeParams are further parameters of the authorization request, for a
	// refresh token at each login or a choice among several accounts.
	AuthorizeParams map[string]string
	// RedirectHost is the host of the address at which the browser comes back to a
	// program on this machine, as it is registered with the client.
	RedirectHost string
	// Tenants reports whether each customer has a directory: the endpoints differ by
	// tenant then.
	Tenants bool
	// SecretOfDesktop reports whether a program on a desktop has a client secret, too.
	SecretOfDesktop bool

	authorizeURL, tokenURL string // with TENANT where Tenants
	deviceURL              string // empty: no device flow for mail
	consentURL             string // empty: administrators consent elsewhere
	jwtAudience            string // of a service account's assertion; empty: no service accounts
}

// commonTenant stands for the directory of whoever logs in, personal accounts
// included. Clients that are registered for a single directory are refused there.
const commonTenant = "common"

var issuers = []Issuer{
	{
		Name: "google", SMTPHost: "smtp.gmail.com",
		Scopes:        []string{"https://mail.google.com/"},
		AccountScopes: []string{"openid", "email"},
		// Without a new consent there is no refresh token at the second login.
		AuthorizeParams: map[string]string{"access_type": "offline", "prompt": "consent"},
		RedirectHost:    "127.0.0.1",
		SecretOfDesktop: true,
		authorizeURL:    "https://accounts.google.com/o/oauth2/v2/auth",
		tokenURL:        "https://oauth2.googleapis.com/token",
		jwtAudience:     "https://oauth2.googleapis.com/token",
	},
	microsoft("", "smtp.office365.com", "login.microsoftonline.com", "outlook.office.com", "outlook.office365.com"),
	microsoft("us", "smtp.office365.us", "login.microsoftonline.us", "outlook.office365.us", "outlook.office365.us"),
	microsoft("cn", "smtp.partner.outlook.cn", "login.partner.microsoftonline.cn", "partner.outlook.cn", "partner.outlook.cn"),
}

// microsoft returns the issuer of one of Microsoft's clouds. Exchange Online is
// personResource where a person logs in, and clientResource for an application.
func microsoft(cloud, smtpHost, login, personResource, clientResource string) Issuer {
	tenant := "https://" + login + "/TENANT"
	return Issuer{
		Name: "microsoft", Cloud: cloud, SMTPHost: smtpHost,
		Scopes:          []string{"https://" + personResource + "/SMTP.Send", "offline_access"},
		AccountScopes:   []string{"openid", "profile"},
		ClientScopes:    []string{"https://" + clientResource + "/.default"},
		AuthorizeParams: map[string]string{"prompt": "select_account"},
		RedirectHost:    "localhost",
		Tenants:         true,
		authorizeURL:    tenant + "/oauth2/v2.0/authorize",
		tokenURL:        tenant + "/oauth2/v2.0/token",
		deviceURL:       tenant + "/oauth2/v2.0/devicecode",
		consentURL:      tenant + "/v2.0/adminconsent",
	}
}

// IssuerNamed returns the issuer of that name in that cloud, both in lower case. ok is
// false when there is none: Google has only the cloud "".
func IssuerNamed(name, cloud string) (issuer Issuer, ok bool) {
	return findIssuer(func(i Issuer) bool { return i.Name == name && i.Cloud == cloud })
}

// IssuerAt returns the issuer whose token endpoint is on the same host as tokenURL.
// It is for words about a refusal: tokenURL may be any text.
func IssuerAt(tokenURL string) (issuer Issuer, ok bool) {
	u, err := url.Parse(tokenURL)
	if err != nil || u.Host == "" {
		return Issuer{}, false
	}
	return findIssuer(func(i Issuer) bool {
		return strings.HasPrefix(i.tokenURL, "https://"+strings.ToLower(u.Hostname())+"/")
	})
}

// CloudOf returns the issuer whose relay is that host: one in another cloud than
// its scopes is refused there.
func CloudOf(host string) (issuer Issuer, ok bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return findIssuer(func(i Issuer) bool { return i.SMTPHost == host })
}

func findIssuer(matches func(Issuer) bool) (Issuer, bool) {
	if i := slices.IndexFunc(issuers, matches); i >= 0 {
		return issuers[i], true
	}
	return Issuer{}, false
}

// AuthorizeURL returns the authorization endpoint (RFC 6749 §3.1), where a person logs
// in with a browser. tenant is the customer's directory, by its id or domain; empty
// means "common". It is ignored without Tenants. That holds for the other endpoints,
// too.
func (i Issuer) AuthorizeURL(tenant string) string { return inTenant(i.authorizeURL, tenant) }

// TokenURL returns the token endpoint (RFC 6749 §3.2). With the client's own
// credentials "common" is refused.
func (i Issuer) TokenURL(tenant string) string { return inTenant(i.tokenURL, tenant) }

// DeviceURL returns the device authorization endpoint (RFC 8628 §3.1); empty where the
// server has none for mail.
func (i Issuer) DeviceURL(tenant string) string { return inTenant(i.deviceURL, tenant) }

// ConsentURL returns the page on which an administrator approves the client with that
// id for everyone; empty where there is no such page. redirect must be registered
// with the client.
func (i Issuer) ConsentURL(tenant, clientID, redirect string) string {
	if i.consentURL == "" {
		return ""
	}
	if tenant == "" || tenant == commonTenant || tenant == "consumers" {
		tenant = "organizations" // administrators are never those of a personal account
	}
	scopes := slices.DeleteFunc(slices.Clone(i.Scopes), func(s string) bool { return s == "offline_access" })
	return inTenant(i.consentURL, tenant) + "?" + url.Values{
		"client_id": {clientID}, "redirect_uri": {redirect}, "scope": {strings.Join(scopes, " ")},
	}.Encode()
}

// JWTAudience returns the audience of the assertion with which a service account asks
// for a token (RFC 7523 §3); empty where the server has no service accounts.
func (i Issuer) JWTAudience() string { return i.jwtAudience }

// inTenant fills the tenant in, as one segment of the path.
func inTenant(endpoint, tenant string) string {
	if tenant == "" {
		tenant = commonTenant
	}
	return strings.Replace(endpoint, "TENANT", url.PathEscape(tenant), 1)
}
