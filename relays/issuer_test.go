package relays

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestIssuerEndpoints(t *testing.T) {
	for _, tt := range []struct{ issuer, cloud, tenant, authorize, token, device string }{
		{
			"google", "", "example.com", "https://accounts.google.com/o/oauth2/v2/auth",
			"https://oauth2.googleapis.com/token", "",
		},
		{
			"microsoft", "", "", "https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
			"https://login.microsoftonline.com/common/oauth2/v2.0/token", "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
		},
		{
			"microsoft", "us", "contoso.example", "https://login.microsoftonline.us/contoso.example/oauth2/v2.0/authorize",
			"https://login.microsoftonline.us/contoso.example/oauth2/v2.0/token", "https://login.microsoftonline.us/contoso.example/oauth2/v2.0/devicecode",
		},
		{
			"microsoft", "cn", "example.com/x", "https://login.partner.microsoftonline.cn/example.com%2Fx/oauth2/v2.0/authorize",
			"https://login.partner.microsoftonline.cn/example.com%2Fx/oauth2/v2.0/token", "https://login.partner.microsoftonline.cn/example.com%2Fx/oauth2/v2.0/devicecode",
		},
	} {
		i, ok := IssuerNamed(tt.issuer, tt.cloud)
		if !ok {
			t.Errorf("IssuerNamed(%s, %s): none", tt.issuer, tt.cloud)
		}
		for _, got := range []struct{ name, url, want string }{
			{"AuthorizeURL", i.AuthorizeURL(tt.tenant), tt.authorize},
			{"TokenURL", i.TokenURL(tt.tenant), tt.token},
			{"DeviceURL", i.DeviceURL(tt.tenant), tt.device},
		} {
			if got.url != got.want {
				t.Errorf("%s(%q) of %s %s = %s, want %s", got.name, tt.tenant, tt.issuer, tt.cloud, got.url, got.want)
			}
		}
		if at, ok := IssuerAt(tt.token); !ok || at.Name != tt.issuer || at.Cloud != tt.cloud {
			t.Errorf("IssuerAt(%s) = %s %s, %v", tt.token, at.Name, at.Cloud, ok)
		}
	}
	for _, unknown := range [][2]string{{"google", "us"}, {"microsoft", "de"}, {"", ""}, {"yahoo", ""}} {
		if i, ok := IssuerNamed(unknown[0], unknown[1]); ok {
			t.Errorf("IssuerNamed%q = %+v, want none", unknown, i)
		}
	}
	for _, unknown := range []string{"", "https://login.example.com/token", "login.microsoftonline.com", "https://login.microsoftonline.com.example.org/", "://"} {
		if i, ok := IssuerAt(unknown); ok {
			t.Errorf("IssuerAt(%s) = %+v, want none", unknown, i)
		}
	}
}

// TestIssuersAreWhole: in each cloud every scope of mail belongs to one resource, and
// the relay's host leads back to the issuer.
func TestIssuersAreWhole(t *testing.T) {
	for _, i := range issuers {
		name := i.Name + " " + i.Cloud
		if !slices.ContainsFunc(i.Scopes, func(s string) bool { return strings.HasPrefix(s, "https://") }) {
			t.Errorf("%s has no scope for mail: %q", name, i.Scopes)
		}
		if strings.Contains(i.AuthorizeURL("x")+i.TokenURL("x")+i.DeviceURL("x"), "TENANT") {
			t.Errorf("%s does not fill in the tenant", name)
		}
		if got, ok := CloudOf(strings.ToUpper(i.SMTPHost) + "."); !ok || got.Name != i.Name || got.Cloud != i.Cloud {
			t.Errorf("CloudOf(%s) = %s %s, %v, want %s", i.SMTPHost, got.Name, got.Cloud, ok, name)
		}
		if (i.JWTAudience() != "") != (i.Name == "google") {
			t.Errorf("JWTAudience() of %s = %q", name, i.JWTAudience())
		}
	}
	if i, ok := CloudOf("smtp.example.com"); ok {
		t.Errorf("CloudOf(smtp.example.com) = %+v, want none", i)
	}
}

func TestConsentURL(t *testing.T) {
	us, _ := IssuerNamed("microsoft", "us")
	for _, tt := range []struct{ tenant, want string }{
		{"contoso.example", "https://login.microsoftonline.us/contoso.example/v2.0/adminconsent"},
		{"", "https://login.microsoftonline.us/organizations/v2.0/adminconsent"},
		{"common", "https://login.microsoftonline.us/organizations/v2.0/adminconsent"},
		{"consumers", "https://login.microsoftonline.us/organizations/v2.0/adminconsent"},
	} {
		got := us.ConsentURL(tt.tenant, "id&x", "http://localhost")
		page, query, _ := strings.Cut(got, "?")
		q, err := url.ParseQuery(query)
		if page != tt.want || err != nil || q.Get("client_id") != "id&x" || q.Get("redirect_uri") != "http://localhost" ||
			q.Get("scope") != "https://outlook.office365.us/SMTP.Send" {
			t.Errorf("ConsentURL(%q) = %s, %v, want %s", tt.tenant, got, err, tt.want)
		}
	}
	google, _ := IssuerNamed("google", "")
	if got := google.ConsentURL("", "id", "http://localhost"); got != "" {
		t.Errorf("ConsentURL of google = %s, want none", got)
	}
}
