package relays

import (
	"maps"
	"slices"
	"testing"
)

// TestTokenWord has the refusals that Microsoft and Google are known to give.
func TestTokenWord(t *testing.T) {
	numbers := map[TokenWord][]int{
		LoginEnded: {700082, 70008, 50173, 50133, 70000}, LoginOfWebPage: {700084}, LoginTooOld: {70043},
		SecondFactor:     {50076, 50079, 50074, 50078, 50072},
		ConditionalBlock: {53003, 53000, 53001, 53002, 530032, 50131, 530034}, DefaultsBlock: {530035},
		ConsentMissing: {65001}, ConsentDeclined: {65004}, ConsentByAdmin: {90094, 90095}, PermissionUnset: {650056, 650057},
		SecretWrong: {7000215}, SecretEnded: {7000222}, SecretUnwanted: {700025}, SecretMissing: {7000218},
		FederationUnfit: {70021, 700211, 700212, 700213}, CertificateUnfit: {700027, 700030, 50012}, AssertionTimes: {700024},
		ClientInOther: {700016, 700011}, TenantUnknown: {90002, 90038}, TenantNeeded: {50194}, ResourceUnknown: {500011},
		AccountKindUnfit: {9001023, 9002332, 500208}, AccountUnknown: {50034, 50020, 50014}, AccountNotInApp: {50105}, AccountDisabled: {50057, 50053},
		RedirectUnfit: {50011}, CodeUsed: {54005, 501481, 700005}, AppBarred: {7000112},
		ScopeUnfit:    {70011, 28002, 28003, 900144, 700022, 9002313},
		AskedTooOften: {50196, 90055}, ServerFault: {90033, 90006, 90012, 90024, 50033},
	}
	for want, list := range numbers {
		for _, n := range list {
			r := TokenRefusal{Status: 400, Code: "invalid_grant", Description: "in any words", Numbers: []int{1, n}}
			if got := r.Word(); got != want {
				t.Errorf("Word() of AADSTS%d = %d, want %d", n, got, want)
			}
		}
	}
	if known := len(slices.Concat(slices.Collect(maps.Values(numbers))...)); known != len(aadsts) {
		t.Errorf("%d numbers are tested, want all %d", known, len(aadsts))
	}
	tests := []struct {
		refusal TokenRefusal
		want    TokenWord
	}{
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "Token has been expired or revoked."}, LoginEnded},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "Bad Request"}, LoginOfOther},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "reauth related error (invalid_rapt)", Subtype: "invalid_rapt"}, SessionControl},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "reauth related error (rapt_required)"}, SessionControl},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."}, AssertionTimes},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "Invalid JWT Signature."}, ServiceKeyGone},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "Invalid email or User ID"}, ServiceSubject},
		{TokenRefusal{Status: 401, Code: "unauthorized_client", Description: "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."}, ServiceUndelegated},
		{TokenRefusal{Status: 401, Code: "unauthorized_client", Description: "Unauthorized"}, GrantUnfit},
		{TokenRefusal{Status: 401, Code: "invalid_client", Description: "The OAuth client was not found."}, ClientUnknown},
		{TokenRefusal{Status: 401, Code: "deleted_client"}, ClientUnknown},
		{TokenRefusal{Status: 401, Code: "disabled_client"}, ClientUnknown},
		{TokenRefusal{Code: "access_denied"}, ConsentDeclined},
		{TokenRefusal{Status: 400, Code: "admin_policy_enforced"}, AppBarred},
		{TokenRefusal{Status: 403, Code: "org_internal"}, AccountUnknown},
		{TokenRefusal{Status: 400, Code: "redirect_uri_mismatch"}, RedirectUnfit},
		{TokenRefusal{Status: 400, Code: "invalid_scope", Description: "Invalid device flow scope: https://mail.google.com/"}, ScopeUnfit},
		{TokenRefusal{Status: 400, Code: "invalid_grant"}, LoginEnded},
		{TokenRefusal{Status: 400, Code: "invalid_grant", Description: "AADSTS999999: new.", Numbers: []int{999999}}, LoginEnded},
		{TokenRefusal{Status: 400, Code: "interaction_required"}, SecondFactor},
		{TokenRefusal{Status: 429}, AskedTooOften},
		{TokenRefusal{Status: 400, Code: "slow_down"}, AskedTooOften},
		{TokenRefusal{Status: 503}, ServerFault},
		{TokenRefusal{Status: 200, Code: "temporarily_unavailable"}, ServerFault},
		{TokenRefusal{Status: 407}, ProxyRefused},
		{TokenRefusal{Status: 404}, NotAnEndpoint},
		{TokenRefusal{Status: 200, Description: "the access token is empty"}, NotAnEndpoint},
		{TokenRefusal{Status: 400, Code: "something_new"}, TokenRefused},
		{TokenRefusal{}, TokenRefused},
	}
	for _, tt := range tests {
		if got := tt.refusal.Word(); got != tt.want {
			t.Errorf("Word() of %+v = %d, want %d", tt.refusal, got, tt.want)
		}
	}
}
