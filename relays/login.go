package relays

import (
	"slices"
	"strings"

	"mailsidecar/mailer"
)

// LoginWord is what a relay says when it refuses a login.
type LoginWord int

const (
	// CredentialsWrong: the user name or the password is wrong.
	CredentialsWrong LoginWord = iota
	// LoginLater: the relay cannot judge the login now, or has seen too many.
	LoginLater
	// MechanismRefused: the relay does not know the mechanism, whatever it offered.
	MechanismRefused
	// AppPasswordWanted: the account needs a password that is made for one program.
	AppPasswordWanted
	// TokenWanted: the relay takes no passwords any more.
	TokenWanted
	// SubmissionDisabled: SMTP AUTH is switched off for the mailbox or for all of the
	// customer's. No password and no token gets in.
	SubmissionDisabled
	// LoginForbidden: a rule of the customer's organization forbids this login.
	LoginForbidden
	// LoginWanted: the session is not logged in, or not as the relay wants.
	LoginWanted
	// BrowserWanted: the provider wants the owner of the account to log in with a
	// browser first. Only with a token.
	BrowserWanted
	// NoLoginHere: the relay takes no AUTH on this connection, whatever it offered.
	NoLoginHere

	// The following are about an OAuth2 token, and the relay was shown one.

	// TokenDead: it expired or was revoked, or the relay does not say what is wrong.
	TokenDead
	// TokenEndsSoon: it is valid, but not for as long as the relay wants.
	TokenEndsSoon
	// TokenUnfit: it is for another resource or another mailbox, or the mailbox gives
	// the client no permission.
	TokenUnfit
	// TokenWithoutRight: its scope does not cover sending.
	TokenWithoutRight
)

// AboutToken reports whether the relay found fault with the token.
func (w LoginWord) AboutToken() bool { return w >= TokenDead }

// NewTokenHelps reports whether the next token may fare better, from the same source.
// Where the relay accepted the token before, that also holds for every other word
// about the token.
func (w LoginWord) NewTokenHelps() bool { return w == TokenDead || w == TokenEndsSoon }

// TokenError is what a relay says of an OAuth2 token before it refuses the login, as
// JSON in a challenge (RFC 7628 §3.2.2, and XOAUTH2 alike). Its fields are printable,
// and empty where the relay does not say them.
type TokenError struct {
	Status  string // such as "401" or "invalid_token"
	Schemes string // such as "Bearer"
	Scope   string // that the token must have, such as "https://mail.google.com/"
}

// LoginRefusal returns what a reply to AUTH means that is no 2yz. said is nil where no
// OAuth2 token was shown.
func LoginRefusal(r mailer.Reply, said *TokenError) LoginWord {
	switch {
	case r.Code/100 == 4:
		return LoginLater
	case r.Code == 504, r.Enhanced == "5.7.4":
		return MechanismRefused
	case r.Code == 502, r.Code == 503: // the command itself: no credentials were looked at
		return NoLoginHere
	case WantsLogin(r):
		return LoginWanted
	case contains(r, "smtpclientauthentication is disabled"):
		return SubmissionDisabled
	case containsAny(r, forbidden):
		return LoginForbidden
	case said != nil:
		return tokenRefusal(r, *said)
	case contains(r, "credentials were incorrect"):
		return CredentialsWrong
	case WantsOAuth2(r):
		return TokenWanted
	case WantsAppPassword(r):
		return AppPasswordWanted
	default:
		return CredentialsWrong
	}
}

// forbidden is how Microsoft 365 says that security defaults, an authentication policy
// or Conditional Access stand in the way.
var forbidden = []string{"security defaults", "organization configuration", "did not meet the criteria", "blocked by your organization"}

// tokenRefusal is LoginRefusal for a 5yz to a token.
func tokenRefusal(r mailer.Reply, said TokenError) LoginWord {
	switch status := strings.ToLower(said.Status); {
	case r.Enhanced == "5.5.127", contains(r, "token will expire soon"):
		return TokenEndsSoon
	case status == "401", status == "invalid_token":
		return TokenDead
	case status == "403", status == "insufficient_scope":
		return TokenWithoutRight
	case WantsOAuth2(r): // Microsoft 365; a token of another kind was shown
		return LoginForbidden
	case r.Code == 534, r.Enhanced == "5.7.9", r.Enhanced == "5.7.14": // Gmail
		return BrowserWanted
	case status == "400", status == "invalid_request":
		return TokenUnfit
	case r.Code == 535 && r.Enhanced != "5.7.3": // which Microsoft 365 says to a fresh token, too
		return TokenDead
	default:
		return TokenUnfit
	}
}

// WantsOAuth2 reports whether a reply says that the relay takes no passwords any more,
// as Microsoft 365 and Outlook.com do.
func WantsOAuth2(r mailer.Reply) bool {
	return r.Enhanced == "5.7.139" || r.Enhanced == "5.7.30" || contains(r, "basic authentication")
}

// WantsAppPassword reports whether a reply to AUTH asks for a password that is
// made for one program, as Gmail does of accounts with two-step verification.
func WantsAppPassword(r mailer.Reply) bool {
	return r.Code == 534 || r.Enhanced == "5.7.9" || contains(r, "application-specific password") || contains(r, "app password")
}

// WantsLogin reports whether a reply says that the session is not logged in.
func WantsLogin(r mailer.Reply) bool { return r.Code == 530 }

// contains reports whether the reply's text holds words, which are in lower case.
func contains(r mailer.Reply, words string) bool {
	return strings.Contains(strings.ToLower(r.Text), words)
}

func containsAny(r mailer.Reply, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return contains(r, w) })
}
