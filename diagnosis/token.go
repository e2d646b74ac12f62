package diagnosis

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"mailsidecar/credentials"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/relays"
)

// tokenTexts has the advice for each word of an OAuth2 server, see [adviceText]. $LOGIN
// is the command that logs in again.
var tokenTexts = map[relays.TokenWord]adviceText{
	relays.TokenRefused: {
		"the OAuth2 server refused a token.",
		"Its own words say why. Compare SMTP_OAUTH2_… with the registration of the app.",
	},
	relays.LoginEnded: {
		"the OAuth2 login is not valid any more: it ran out, was revoked, or the password of the account was changed.",
		"Log in again: $LOGIN.",
	},
	relays.LoginOfWebPage: {
		"the OAuth2 login ended after 24 hours, because its redirect is registered for a single-page application.",
		"In the app's registration, list http://localhost under \"Mobile and desktop applications\" and not as a single-page application. Then log in again: $LOGIN.",
	},
	relays.LoginTooOld: {
		"the organization asks for a new login every so many hours, and the last one is older.",
		"Log in again: $LOGIN. To end this for good, have the account exempted from the sign-in frequency, or use client credentials.",
	},
	relays.LoginOfOther: {
		"the refresh token belongs to another client, or was damaged on its way into the settings.",
		"Compare SMTP_OAUTH2_CLIENT_ID with the client that the token was issued to, or log in again: $LOGIN.",
	},
	relays.SecondFactor: {
		"the account needs its second factor now, or has to set one up.",
		"Log in again with a browser: $LOGIN.",
	},
	relays.SessionControl: {
		"Google Workspace limits the length of sessions, and this one has ended.",
		"Log in again: $LOGIN. To end this for good, let an administrator trust the app (Security > Access and data control > API controls), or use a service account.",
	},
	relays.ConditionalBlock: {
		"Conditional Access forbids this login.",
		"Many organizations forbid device codes: log in with a browser instead. Otherwise an administrator has to exempt the account or the app; Entra's sign-in logs name the policy.",
	},
	relays.DefaultsBlock: {
		"the security defaults of the organization forbid this login.",
		"Use client credentials, or ask an administrator to replace security defaults by Conditional Access.",
	},
	relays.ConsentMissing: {
		"the account has not consented to the app.",
		"Log in again and consent: $LOGIN. If the page says \"Need admin approval\", an administrator has to consent for all.",
	},
	relays.ConsentByAdmin: {
		"only an administrator can consent to the app.",
		"Ask one: entra.microsoft.com > Enterprise applications > the app > Permissions > Grant admin consent. Then log in again: $LOGIN.",
	},
	relays.ConsentDeclined: {
		"the login was declined.",
		"Log in again, and accept what the page asks, with every box ticked: $LOGIN.",
	},
	relays.PermissionUnset: {
		"the registration of the app does not list this permission.",
		"Add it in entra.microsoft.com > App registrations > the app > API permissions: SMTP.Send for a person, SMTP.SendAsApp for client credentials. Then grant admin consent.",
	},
	relays.AppBarred: {
		"an administrator or the provider has barred the app.",
		"Ask the administrator of the organization to trust it. An app of another organization may be barred for all: register your own.",
	},
	relays.AccountUnknown: {
		"the account that logs in does not belong to the app's organization.",
		"Log in with an account of that organization, or set SMTP_OAUTH2_TENANT to the account's own. At Google, set the audience of the app to External.",
	},
	relays.AccountNotInApp: {
		"the account is not assigned to the app.",
		"Ask an administrator: entra.microsoft.com > Enterprise applications > the app > Users and groups.",
	},
	relays.AccountDisabled: {
		"the account is disabled or locked.",
		"Ask an administrator of the organization to unlock it.",
	},
	relays.CodeUsed: {
		"the code of this login was used already, or ran out.",
		"Begin again: $LOGIN.",
	},
	relays.ClientUnknown: {
		"the OAuth2 server does not know the client, or its secret is wrong.",
		"Compare SMTP_OAUTH2_CLIENT_ID and SMTP_OAUTH2_CLIENT_SECRET with the registration of the app; it may have been deleted. A few servers want SMTP_OAUTH2_CLIENT_AUTH=basic.",
	},
	relays.ClientInOther: {
		"there is no app with this client id in this directory.",
		"Compare SMTP_OAUTH2_CLIENT_ID with \"Application (client) ID\", not with the object id, and SMTP_OAUTH2_TENANT with \"Directory (tenant) ID\". For a separate cloud, set SMTP_OAUTH2_CLOUD.",
	},
	relays.SecretWrong: {
		"the client secret is wrong.",
		"Set SMTP_OAUTH2_CLIENT_SECRET to the secret's Value, which is shown once, and not to its Secret ID.",
	},
	relays.SecretEnded: {
		"the client secret has run out.",
		"Make a new one in entra.microsoft.com > App registrations > the app > Certificates & secrets, and set SMTP_OAUTH2_CLIENT_SECRET to its Value. A certificate lasts longer.",
	},
	relays.SecretUnwanted: {
		"the app is registered as a public client, and those have no secret.",
		"Remove SMTP_OAUTH2_CLIENT_SECRET, or list the redirect under \"Web\" in the app's registration.",
	},
	relays.SecretMissing: {
		"the app needs a secret or a certificate, and none was sent; or it does not allow public clients.",
		"For a login by a person, set \"Allow public client flows\" to Yes in the app's registration. Otherwise set SMTP_OAUTH2_CLIENT_SECRET, or SMTP_OAUTH2_CERT_FILE.",
	},
	relays.CertificateUnfit: {
		"the app's registration does not have this certificate.",
		"Upload it in entra.microsoft.com > App registrations > the app > Certificates & secrets, or set SMTP_OAUTH2_CERT_FILE and SMTP_OAUTH2_KEY_FILE to the one that is there.",
	},
	relays.FederationUnfit: {
		"no federated credential in the app's registration fits the token of the platform.",
		"Compare issuer, subject and audience of the federated credential (App registrations > the app > Certificates & secrets > Federated credentials)" +
			" with those of the token in SMTP_OAUTH2_ASSERTION_FILE: its fields iss, sub and aud. Each must be the same, letter by letter.",
	},
	relays.AssertionTimes: {
		"the signed request was not valid at this time: most likely this machine's clock is wrong.",
		"Set the clock (date -u shows it). For SMTP_OAUTH2_ASSERTION_FILE, see that its token is renewed.",
	},
	relays.TenantUnknown: {
		"there is no directory with this tenant in this cloud.",
		"Compare SMTP_OAUTH2_TENANT with \"Directory (tenant) ID\" of the app. For a separate cloud, set SMTP_OAUTH2_CLOUD.",
	},
	relays.TenantNeeded: {
		"the app is registered for a single directory, and the login went to all of them.",
		"Set SMTP_OAUTH2_TENANT to \"Directory (tenant) ID\" of the app.",
	},
	relays.AccountKindUnfit: {
		"this kind of account cannot log in there: it is a personal account where work accounts are wanted, or the reverse.",
		"Compare \"Supported account types\" of the app with the account, and SMTP_OAUTH2_TENANT: consumers for personal accounts, the directory's id for work accounts.",
	},
	relays.ResourceUnknown: {
		"the scope names a resource that this directory or cloud does not have.",
		"Leave SMTP_OAUTH2_SCOPES unset. For a separate cloud, set SMTP_OAUTH2_CLOUD.",
	},
	relays.GrantUnfit: {
		"this app may not ask for a token in this way.",
		"Compare its kind with the settings: a login by a person wants a desktop app, client credentials want one with a secret or a certificate.",
	},
	relays.RedirectUnfit: {
		"the app's registration does not have this redirect.",
		"At Microsoft, list http://localhost under \"Mobile and desktop applications\". At Google, the client must be of the type \"Desktop app\".",
	},
	relays.ScopeUnfit: {
		"the OAuth2 server did not understand the request or its scope.",
		"Leave SMTP_OAUTH2_SCOPES unset, so that the scope is that of the provider. Scopes of two resources cannot be mixed.",
	},
	relays.ServiceKeyGone: {
		"the key of the service account is not valid: it was deleted, or belongs to another account.",
		"Make a new key in console.cloud.google.com > IAM & Admin > Service Accounts > Keys, and set SMTP_OAUTH2_SERVICE_ACCOUNT_FILE to its JSON file.",
	},
	relays.ServiceSubject: {
		"the mailbox is no user of the Google Workspace domain.",
		"Set SMTP_USERNAME to the primary address of a user. Groups and aliases cannot be used.",
	},
	relays.ServiceUndelegated: {
		"the service account may not act for the domain's mailboxes.",
		"In admin.google.com > Security > Access and data control > API controls > Manage Domain Wide Delegation, add its numeric client id with the scope https://mail.google.com/. It can take a day.",
	},
	relays.AskedTooOften: {
		"the OAuth2 server was asked too often.",
		"{Nothing has to be done: it is asked again later|Try again in some minutes}. If this stays, look for another program with the same client.",
	},
	relays.ServerFault: {
		"the OAuth2 server has a fault.",
		"{Nothing has to be done: it is asked again by itself|Try again in some minutes}.",
	},
	relays.NotAnEndpoint: {
		"what answers is no token endpoint: a proxy, or another page.",
		"Compare SMTP_OAUTH2_TOKEN_URL with the provider's documentation, and see which proxy HTTPS_PROXY names.",
	},
	relays.ProxyRefused: {
		"the HTTP proxy on the way to the OAuth2 server wants a login.",
		"Put user name and password into HTTPS_PROXY, or let the proxy pass the server without.",
	},
}

// workloadTexts are for grants without a person, where a code means something else.
var workloadTexts = map[relays.TokenWord]adviceText{
	relays.LoginEnded: {
		"the OAuth2 server refused what the client shows in place of a login.",
		"Compare SMTP_OAUTH2_… and SMTP_USERNAME with the registration of the client. A wrong clock (date -u shows it) causes this, too.",
	},
	relays.LoginOfOther: {
		"the OAuth2 server refused what the client shows in place of a login.",
		"Compare SMTP_OAUTH2_… and SMTP_USERNAME with the registration of the client.",
	},
	relays.ConsentMissing: {
		"no administrator has consented to the app.",
		"Ask one: entra.microsoft.com > Enterprise applications > the app > Permissions > Grant admin consent.",
	},
	relays.TenantNeeded: {
		"client credentials need the directory's own endpoint.",
		"Set SMTP_OAUTH2_TENANT to \"Directory (tenant) ID\" of the app.",
	},
}

// clientTexts are for a client that the server does not accept, by what it proves itself
// with.
var clientTexts = map[Proof]adviceText{
	ProofNone: {
		"the OAuth2 server does not know the client, or wants a secret of it.",
		"Compare SMTP_OAUTH2_CLIENT_ID with the registration of the app; it may have been deleted. If the app has a secret, set SMTP_OAUTH2_CLIENT_SECRET.",
	},
	ProofCertificate: {
		"the OAuth2 server does not know the client, or its certificate.",
		"Compare SMTP_OAUTH2_CLIENT_ID with \"Application (client) ID\", and the certificate in SMTP_OAUTH2_CERT_FILE with those in the registration of the app" +
			" (Certificates & secrets > Certificates).",
	},
	ProofAssertion: {
		"the OAuth2 server does not know the client, or does not trust the token of the platform.",
		"Compare SMTP_OAUTH2_CLIENT_ID with \"Application (client) ID\", and issuer, subject and audience of the federated credential with those of the token in SMTP_OAUTH2_ASSERTION_FILE.",
	},
}

// serviceAccountText is for a service account that the server does not know.
var serviceAccountText = adviceText{
	"the OAuth2 server does not know the service account.",
	"See in console.cloud.google.com > IAM & Admin > Service Accounts whether it is there and enabled. Otherwise set SMTP_OAUTH2_SERVICE_ACCOUNT_FILE to the JSON file of another one.",
}

// OfToken says why there is no OAuth2 token and what to do about it. err is that of a
// token source or of a login; it must not be nil.
func OfToken(err error, s Settings) Advice {
	text := tokenText(err, s)
	a := Advice{Found: text.found, Do: text.do}
	a.expand("", s)
	return a
}

func tokenText(err error, s Settings) adviceText {
	memory, ok := errors.AsType[*token.MemoryError](err)
	if !ok {
		return tokenTextOf(err, s)
	}
	text := tokenTextOf(memory.Err, s)
	if strings.Contains(text.do, "$LOGIN") {
		text.do = "Set MAILSIDECAR_DATA_DIR to a directory that lasts and restart mailsidecar: without one no login can be stored. Then: " + text.do
	}
	return text
}

func tokenTextOf(err error, s Settings) adviceText {
	if refused, ok := errors.AsType[*token.Error](err); ok {
		return ofRefusal(refused, s)
	}
	if file, ok := errors.AsType[*token.ClientError](err); ok {
		return ofFile(file, s)
	}
	switch {
	case errors.As(err, new(*token.UnwritableError)):
		return adviceText{
			"the OAuth2 login cannot be stored, so that its refresh token is spared as long as possible: an OAuth2 server that replaces it would end the login.",
			"Make MAILSIDECAR_DATA_DIR writable for this user, and free some space: in a container that is user 65532.",
		}
	case errors.As(err, new(*token.LockedError)):
		return adviceText{
			"another mailsidecar process holds the OAuth2 login of this relay.",
			"Try again in a minute: it may be renewing the token. If this stays, see the log of that process: it may be unable to store its token. Make MAILSIDECAR_DATA_DIR writable for it, and free some space.",
		}
	case errors.Is(err, token.ErrNotStored):
		return notStored(s)
	case errors.As(err, new(*token.ForeignError)):
		return adviceText{
			"the stored OAuth2 login does not belong to the client or the server that the settings name.",
			"Log in again: $LOGIN. Or set SMTP_OAUTH2_… back to what they were.",
		}
	case errors.As(err, new(*token.DamagedError)):
		return adviceText{"the stored OAuth2 login is damaged.", "Log in again: $LOGIN."}
	case errors.As(err, new(*fs.PathError)):
		return adviceText{
			"a file with the OAuth2 token cannot be read or written.",
			"See that it is there and that this process may use it: in a container that is user 65532.",
		}
	}
	if text, ok := ofNetwork(err); ok {
		return text
	}
	return adviceText{
		"there is no OAuth2 access token to log in with.",
		"Check SMTP_OAUTH2_….",
	}
}

// notStored is for a relay that needs a login, and has none. Perhaps it was to need none.
func notStored(s Settings) adviceText {
	text := adviceText{"no OAuth2 login is stored for this relay.", "Log in: $LOGIN."}
	if s.Proof == ProofNone && s.Issuer != "google" {
		text.do += " Or, so that no person has to log in, set what the client proves itself with: SMTP_OAUTH2_CLIENT_SECRET, SMTP_OAUTH2_CERT_FILE or SMTP_OAUTH2_ASSERTION_FILE."
	}
	return text
}

// fileTexts name each kind of file with its setting, and say what belongs there.
var fileTexts = map[credentials.Kind]struct{ name, content string }{
	credentials.KindCertificate:    {"the OAuth2 client's certificate (SMTP_OAUTH2_CERT_FILE)", "Put the certificate there in PEM form, with its RSA key or with that in SMTP_OAUTH2_KEY_FILE."},
	credentials.KindKey:            {"the key of the OAuth2 client's certificate (SMTP_OAUTH2_KEY_FILE)", "Put the RSA key there that belongs to the certificate in SMTP_OAUTH2_CERT_FILE, in PEM form and without a passphrase."},
	credentials.KindAssertion:      {"the JWT that proves the OAuth2 client (SMTP_OAUTH2_ASSERTION_FILE)", "See that the platform writes its token there."},
	credentials.KindServiceAccount: {"the service account (SMTP_OAUTH2_SERVICE_ACCOUNT_FILE)", "Put the JSON file there that Google's console gave with the key."},
	credentials.KindAccessToken:    {"the access token (SMTP_OAUTH2_ACCESS_TOKEN_FILE)", "See that the program which renews the token writes it there, and no more than the token."},
}

// ofFile is for a file of the settings that cannot be used.
func ofFile(e *token.ClientError, s Settings) adviceText {
	text, ok := fileTexts[e.Kind]
	switch {
	case !ok:
		text.name = "the OAuth2 client"
	case errors.As(e.Err, new(*credentials.EndedError)):
		return adviceText{"the OAuth2 client's certificate has ended.", renewCertificate(s)}
	}
	if e.Unread {
		return adviceText{
			"the file with " + text.name + " cannot be read: " + e.Err.Error() + ".",
			"See that it is there, and that this process may read it: in a container that is user 65532.",
		}
	}
	return adviceText{"the file with " + text.name + " cannot be used: " + e.Err.Error() + ".", cmp.Or(text.content, "Check SMTP_OAUTH2_….")}
}

// renewCertificate says where a new certificate goes.
func renewCertificate(s Settings) string {
	text := "Make a new certificate, upload it to the app's registration, and put it into SMTP_OAUTH2_CERT_FILE"
	if s.KeyFile {
		return text + " and its key into SMTP_OAUTH2_KEY_FILE."
	}
	return text + ", together with its key."
}

func ofRefusal(e *token.Error, s Settings) adviceText {
	word := relays.TokenRefusal{
		Status: e.Status, Code: e.Code, Subtype: e.Subtype, Description: e.Description, Numbers: e.Numbers,
	}.Word()
	text := tokenTexts[word]
	if word == relays.ClientUnknown || word == relays.CertificateUnfit && s.Proof == ProofAssertion {
		if s.Grant == GrantServiceAccount {
			return serviceAccountText
		}
		if other, ok := clientTexts[s.Proof]; ok {
			return other
		}
	}
	if s.Grant == GrantClient || s.Grant == GrantServiceAccount {
		if other, ok := workloadTexts[word]; ok {
			text = other
		}
	}
	if word == relays.LoginEnded && s.Grant == GrantLogin && s.Issuer == "google" {
		text.do += inTesting
	}
	return text
}

// ofNetwork is for a token endpoint that could not be asked.
func ofNetwork(err error) (text adviceText, ok bool) {
	if refused, ok := errors.AsType[*token.ProxyError](err); ok && refused.Status == http.StatusProxyAuthRequired {
		return tokenTexts[relays.ProxyRefused], true
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !isProxy(err) {
		return adviceText{
			"the OAuth2 server's name " + dns.Name + " could not be looked up.",
			"Look whether this machine or container resolves names at all. A network without DNS for the outside needs HTTPS_PROXY.",
		}, true
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return adviceText{
			"the OAuth2 server's certificate is expired or not valid yet: most likely this machine's clock is wrong.",
			"Set the clock (date -u shows it).",
		}, true
	}
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, new(*tls.CertificateVerificationError)):
		return adviceText{
			"the OAuth2 server's certificate is not signed by an authority that this machine knows: something on the way intercepts HTTPS.",
			"If that is your own proxy, name its authority's certificate in SSL_CERT_FILE, together with the system's.",
		}, true
	case isProxy(err):
		return adviceText{
			"the OAuth2 server cannot be reached through the HTTP proxy.",
			"See what HTTPS_PROXY names, and whether that proxy lets HTTPS pass to the server.",
		}, true
	case isUnreached(err):
		return adviceText{
			"the OAuth2 server cannot be reached.",
			"This machine must reach it over HTTPS, port 443, or through the proxy that HTTPS_PROXY names.{ It is asked again by itself.|}",
		}, true
	}
	return adviceText{}, false
}

// isProxy reports whether the proxy could not be reached, or lets no connection pass.
func isProxy(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "proxyconnect" || errors.As(err, new(*token.ProxyError))
}

// isUnreached reports whether there was no connection, or none that lasted.
func isUnreached(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.As(err, new(*net.OpError)) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) // closed in the middle
}

// inTesting is why a login at Google ends after a week.
const inTesting = " A login of an app in testing lasts 7 days: publish the app (Google Auth Platform > Audience > Publish app) before you log in."

// OfWarning says what a source of tokens warns of, and what to do about it.
func OfWarning(w token.Warning, s Settings) Advice {
	a := Advice{Found: w.String() + "."}
	switch w.Kind {
	case token.WarningLogin:
		a.Do = "Log in again before that day: $LOGIN."
		if s.Issuer == "google" {
			a.Do += inTesting
		}
	case token.WarningSecret:
		a.Do = "Make a new secret, set SMTP_OAUTH2_CLIENT_SECRET to its Value and SMTP_OAUTH2_SECRET_EXPIRES to its end."
	case token.WarningCertificate:
		a.Do = renewCertificate(s)
	case token.WarningClock:
		a.Do = "Set the clock (date -u shows it): signed requests and certificates depend on it."
	case token.WarningNotStored:
		a.Do = "Set MAILSIDECAR_DATA_DIR to a directory on a volume that lasts, and see that it can be written."
	}
	if !w.At.IsZero() && !w.At.After(time.Now()) {
		a.Do = strings.Replace(a.Do, "before that day", "now", 1)
	}
	a.expand("", s)
	return a
}
