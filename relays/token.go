package relays

import (
	"net/http"
	"strings"
)

// TokenRefusal is how an OAuth2 server refuses a token (RFC 6749 §4.1.2.1, §5.2, RFC
// 8628 §3.5), at the token endpoint or on the way back from a browser.
type TokenRefusal struct {
	Status      int    // of HTTP; zero where a browser brought it
	Code        string // the field "error"
	Subtype     string // "error_subtype" or "suberror"
	Description string
	Numbers     []int // Microsoft's AADSTS numbers
}

// TokenWord is what the refusal of a token means. It chooses a sentence for people,
// and never what is done: Microsoft says that its numbers and texts may change.
type TokenWord int

const (
	// TokenRefused: the server says no more than its own words.
	TokenRefused TokenWord = iota
	// Of the login of a person.
	LoginEnded       // it ran out, was revoked, or the password was changed
	LoginOfWebPage   // it came by the redirect of a single-page application: 24 hours
	LoginTooOld      // a policy wants a new one every so many hours
	LoginOfOther     // the refresh token is another client's, or damaged
	SecondFactor     // it is needed now, or has to be set up
	SessionControl   // Google Workspace's policy on the length of sessions
	ConditionalBlock // Conditional Access, also of a device code
	DefaultsBlock    // security defaults
	ConsentMissing   // the account has not consented yet
	ConsentByAdmin   // only an administrator can
	ConsentDeclined  // the person or the administrator said no
	PermissionUnset  // the client's registration does not list it
	AppBarred        // an administrator bars the client
	AccountUnknown   // it is not in the directory, or in no organization
	AccountNotInApp  // it is not assigned to the client
	AccountDisabled  // or locked
	CodeUsed         // the code of a login was used or ran out: begin again
	// Of the client.
	ClientUnknown    // its id is wrong, or it was deleted or disabled
	ClientInOther    // it is not in this directory
	SecretWrong      // or neither known to the server
	SecretEnded      // it ran out
	SecretUnwanted   // a public client sent one
	SecretMissing    // a confidential client sent none, or public flows are off
	CertificateUnfit // it is not that of the registration
	FederationUnfit  // no federated credential of the registration fits the assertion
	AssertionTimes   // the assertion is not valid now: a clock is wrong
	TenantUnknown
	TenantNeeded       // a client of one directory came to "common"
	AccountKindUnfit   // personal account or work account, and the endpoint is for the other
	ResourceUnknown    // the scope's resource is not in this cloud
	GrantUnfit         // the client may not use this grant
	RedirectUnfit      // the redirect is not registered
	ScopeUnfit         // or the request is malformed
	ServiceKeyGone     // the key of a service account was deleted
	ServiceSubject     // the mailbox is no user of the domain
	ServiceUndelegated // the service account has no domain-wide delegation for the scope
	// Of the server.
	AskedTooOften
	ServerFault
	NotAnEndpoint // what answers is no token endpoint
	ProxyRefused  // the HTTP proxy wants a login
)

// aadsts has what Microsoft's numbers mean, as its page "Microsoft Entra authentication
// and authorization error codes" says.
var aadsts = map[int]TokenWord{
	700082: LoginEnded, 70008: LoginEnded, 50173: LoginEnded, 50133: LoginEnded, 70000: LoginEnded,
	700084: LoginOfWebPage,
	70043:  LoginTooOld,
	50076:  SecondFactor, 50079: SecondFactor, 50074: SecondFactor, 50078: SecondFactor, 50072: SecondFactor,
	53003: ConditionalBlock, 53000: ConditionalBlock, 53001: ConditionalBlock, 53002: ConditionalBlock, 530032: ConditionalBlock,
	50131: ConditionalBlock, 530034: ConditionalBlock,
	530035: DefaultsBlock,
	65001:  ConsentMissing, 90094: ConsentByAdmin, 90095: ConsentByAdmin, 65004: ConsentDeclined,
	650056: PermissionUnset, 650057: PermissionUnset,
	7000112: AppBarred,
	50034:   AccountUnknown, 50020: AccountUnknown, 500208: AccountKindUnfit, 50014: AccountUnknown,
	50105: AccountNotInApp, 50057: AccountDisabled, 50053: AccountDisabled,
	54005: CodeUsed, 501481: CodeUsed, 700005: CodeUsed, 50011: RedirectUnfit,
	7000215: SecretWrong, 7000222: SecretEnded, 700025: SecretUnwanted, 7000218: SecretMissing,
	70021: FederationUnfit, 700211: FederationUnfit, 700212: FederationUnfit, 700213: FederationUnfit,
	700027: CertificateUnfit, 700030: CertificateUnfit, 50012: CertificateUnfit, 700024: AssertionTimes,
	700016: ClientInOther, 700011: ClientInOther, 90002: TenantUnknown, 90038: TenantUnknown, 50194: TenantNeeded,
	9001023: AccountKindUnfit, 9002332: AccountKindUnfit, 500011: ResourceUnknown,
	70011: ScopeUnfit, 28002: ScopeUnfit, 28003: ScopeUnfit, 900144: ScopeUnfit, 700022: ScopeUnfit, 9002313: ScopeUnfit,
	50196: AskedTooOften, 90055: AskedTooOften,
	90033: ServerFault, 90006: ServerFault, 90012: ServerFault, 90024: ServerFault, 50033: ServerFault,
}

// tokenTexts are what Google says in the description or the subtype, in lower case, to
// an error of that code.
var tokenTexts = []struct {
	code, text string
	word       TokenWord
}{
	{"invalid_grant", "invalid_rapt", SessionControl},
	{"invalid_grant", "rapt_required", SessionControl},
	{"invalid_grant", "reasonable timeframe", AssertionTimes},
	{"invalid_grant", "invalid jwt signature", ServiceKeyGone},
	{"invalid_grant", "invalid jwt", AssertionTimes},
	{"invalid_grant", "invalid email or user id", ServiceSubject},
	{"invalid_grant", "account not found", ServiceSubject},
	{"invalid_grant", "bad request", LoginOfOther},
	{"unauthorized_client", "client is unauthorized to retrieve access tokens", ServiceUndelegated},
	{"invalid_scope", "empty or missing scope", ScopeUnfit},
}

// tokenCodes has what the codes mean where nothing says more.
var tokenCodes = map[string]TokenWord{
	"invalid_grant": LoginEnded, "login_required": LoginEnded, "account_selection_required": LoginEnded,
	"expired_token": CodeUsed, "bad_verification_code": CodeUsed,
	"interaction_required": SecondFactor, "consent_required": ConsentMissing,
	"access_denied": ConsentDeclined, "authorization_declined": ConsentDeclined,
	"admin_policy_enforced": AppBarred, "org_internal": AccountUnknown,
	"invalid_client": ClientUnknown, "deleted_client": ClientUnknown, "disabled_client": ClientUnknown,
	"unauthorized_client": GrantUnfit, "unsupported_grant_type": GrantUnfit, "unsupported_response_type": GrantUnfit,
	"redirect_uri_mismatch": RedirectUnfit,
	"invalid_scope":         ScopeUnfit, "invalid_request": ScopeUnfit, "invalid_target": ResourceUnknown, "invalid_resource": ResourceUnknown,
	"slow_down": AskedTooOften, "temporarily_unavailable": ServerFault, "server_error": ServerFault,
}

// Word returns what the refusal means. A number of Microsoft or a text of Google says
// more than the code, and the code more than the status.
func (r TokenRefusal) Word() TokenWord {
	for _, n := range r.Numbers {
		if w, ok := aadsts[n]; ok {
			return w
		}
	}
	said := strings.ToLower(r.Subtype + " " + r.Description)
	for _, t := range tokenTexts {
		if t.code == r.Code && strings.Contains(said, t.text) {
			return t.word
		}
	}
	if w, ok := tokenCodes[r.Code]; ok {
		return w
	}
	switch {
	case r.Status == http.StatusTooManyRequests:
		return AskedTooOften
	case r.Status == http.StatusProxyAuthRequired:
		return ProxyRefused
	case r.Status >= 500, r.Status == http.StatusRequestTimeout:
		return ServerFault
	case r.Code == "" && r.Status != 0:
		return NotAnEndpoint
	default:
		return TokenRefused
	}
}
