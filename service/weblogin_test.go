package service

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/mailer/smtp/token/weblogin"
)

func TestNotGranted(t *testing.T) {
	const send, mail = "https://outlook.office.com/SMTP.Send", "https://mail.google.com/"
	for _, tt := range []struct{ asked, granted, want string }{
		{send + " offline_access openid profile", "", ""}, // not said
		{send + " offline_access", send, ""},
		{send, strings.ToLower(send), ""},
		{send, "https://outlook.office365.com/SMTP.Send", ""},
		{send, "https://outlook.office.com/IMAP.AccessAsUser.All", send},
		{send + " OpenID email", "profile", send},
		{mail, "openid https://www.googleapis.com/auth/userinfo.email", mail}, // the box was left unticked
		{mail, "https://example.com/ openid", mail},
		{mail, "openid " + mail, ""},
		{"mail:smtp", "login:info", "mail:smtp"},
	} {
		var granted []string
		if tt.granted != "" {
			granted = strings.Fields(tt.granted)
		}
		if got := notGranted(strings.Fields(tt.asked), granted); !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("notGranted(%q, %q) = %q, want %q", tt.asked, tt.granted, got, tt.want)
		}
	}
}

// loginFor prepares a login at a relay of Microsoft.
func loginFor(t *testing.T, dir string, change func(*config.Relay)) *Login {
	t.Helper()
	r := config.Default().Relays[0]
	r.Host, r.OAuth2.Provider, r.OAuth2.ClientID = "smtp.office365.com", "microsoft", "id"
	r.OAuth2.TokenURL, r.OAuth2.Scopes = "https://login.example.com/token", config.List{"https://outlook.office.com/SMTP.Send", "offline_access"}
	if change != nil {
		change(&r)
	}
	l, err := NewLogin(r, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func answerFor(account string) token.Answer {
	return token.Answer{
		AccessToken: "access", Life: time.Hour, RefreshToken: "refresh of " + account, RefreshLife: 7 * 24 * time.Hour,
		ID: token.Identity{Username: account},
	}
}

func TestComplete(t *testing.T) {
	l := loginFor(t, t.TempDir(), nil)
	good := answerFor("ana@example.com")
	if err := l.Complete(good); err != nil {
		t.Errorf("Complete() = %v", err)
	}
	for _, tt := range []struct {
		change func(*token.Answer)
		want   string
	}{
		{func(a *token.Answer) { a.Scopes = []string{"openid"} }, "SMTP.Send is missing"},
		{func(a *token.Answer) { a.RefreshToken = "" }, "Add offline_access to SMTP_OAUTH2_SCOPES"},
		{func(a *token.Answer) { a.ID = token.Identity{} }, "Set SMTP_USERNAME"},
	} {
		a := good
		tt.change(&a)
		err := l.Complete(a)
		if _, ok := errors.AsType[*IncompleteError](err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Complete(%+v) = %v, want %q", a.Scopes, err, tt.want)
		}
	}
}

// TestLoginTenant: the endpoints of one login are those of one tenant.
func TestLoginTenant(t *testing.T) {
	for tokenURL, want := range map[string]string{
		"https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token": "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/authorize?",
		"https://login.microsoftonline.us/t1/oauth2/v2.0/token":           "https://login.microsoftonline.us/t1/oauth2/v2.0/authorize?",
		"https://proxy.example.com/token":                                 "https://login.microsoftonline.com/t2/oauth2/v2.0/authorize?",
	} {
		l := loginFor(t, t.TempDir(), func(r *config.Relay) { r.OAuth2.TokenURL, r.OAuth2.Tenant = tokenURL, "t2" })
		b, err := l.AskBrowser(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		b.End(weblogin.Page{})
		if !strings.HasPrefix(b.URL, want) {
			t.Errorf("with the token endpoint %s the person logs in at %s, want %s", tokenURL, b.URL, want)
		}
	}
}

// TestKeep: a login that the relay refused does not take the place of another account's,
// unless that one is of no use any more.
func TestKeep(t *testing.T) {
	const ana, bob = "ana@example.com", "bob@example.com"
	otherScopes := func(r *config.Relay) { r.OAuth2.Scopes = config.List{"https://graph.microsoft.com/SMTP.Send"} }
	otherClient := func(r *config.Relay) { r.OAuth2.ClientID = "other" }
	newSetting := func(r *config.Relay) { r.OAuth2.RefreshToken = config.NewSecret("configured later") }
	for _, tt := range []struct {
		name            string
		was             func(*config.Relay)
		before          string              // the account whose login is stored; empty for none
		change          func(*config.Relay) // to the settings of now; was is that of then
		fresh           string
		proved, replace bool
		want            string // the account whose login is stored then
	}{
		{"the first, refused", nil, "", nil, ana, false, false, ana},
		{"the same, refused", nil, ana, nil, "ANA@example.com", false, false, "ANA@example.com"},
		{"another, refused", nil, ana, nil, bob, false, false, ana},
		{"another, refused, replace", nil, ana, nil, bob, false, true, bob},
		{"another, accepted", nil, ana, nil, bob, true, false, bob},
		{"other scopes, refused", nil, "Ana@example.com", otherScopes, ana, false, false, "Ana@example.com"},
		{"other scopes, accepted", nil, "Ana@example.com", otherScopes, ana, true, false, ana},
		{"the stored one is of another client", nil, ana, otherClient, bob, false, false, bob},
		{"the setting has changed since", nil, ana, newSetting, bob, false, false, bob},
		{"the setting was removed since", newSetting, ana, nil, bob, false, false, ana},
	} {
		dir := t.TempDir()
		if tt.before != "" {
			if _, err := loginFor(t, dir, tt.was).Keep(t.Context(), answerFor(tt.before), true, false); err != nil {
				t.Fatal(err)
			}
		}
		l := loginFor(t, dir, tt.change)
		kept, err := l.Keep(t.Context(), answerFor(tt.fresh), tt.proved, tt.replace)
		if err != nil {
			t.Errorf("%s: Keep() = %v", tt.name, err)
		}
		stored, err := l.store.Load(t.Context(), 1)
		if err != nil || stored.Account != tt.want || stored.RefreshToken != "refresh of "+tt.want {
			t.Errorf("%s: stored is %v, %v, want the login of %s", tt.name, stored, err, tt.want)
		}
		if stays := tt.want != tt.fresh; (kept.Stays != "") != stays || (kept.Replaced != "") != (tt.before != "" && !stays) {
			t.Errorf("%s: Keep() = %+v", tt.name, kept)
		}
	}
}

// TestKeepRecord: the record has all that a later renewal, and the warnings, need.
func TestKeepRecord(t *testing.T) {
	l := loginFor(t, t.TempDir(), func(r *config.Relay) {
		r.Number, r.OAuth2.Tenant, r.OAuth2.RefreshToken = 2, "example.com", config.NewSecret("configured")
	})
	begin := time.Now()
	if _, err := l.Keep(t.Context(), answerFor("ana@example.com"), true, false); err != nil {
		t.Fatal(err)
	}
	r, err := l.store.Load(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if r.Issuer != "microsoft" || r.Tenant != "example.com" || r.ClientID != "id" || r.TokenURL != "https://login.example.com/token" ||
		len(r.Scopes) != 2 || r.Digest != token.Digest("configured") || r.AccessToken != "access" {
		t.Errorf("stored is %v with %v", r, r.Scopes)
	}
	if r.Issued.Before(begin.Truncate(time.Second)) || r.Expires.Sub(r.Issued) != 7*24*time.Hour || r.AccessExpires.Sub(r.Issued) != time.Hour {
		t.Errorf("issued %v, expires %v, access token expires %v", r.Issued, r.Expires, r.AccessExpires)
	}
}

// TestLoginLocked: a login waits while a server renews its token. It says so before the
// person logs in if that lasts, and does without the lock where there is none.
func TestLoginLocked(t *testing.T) {
	for _, tt := range []struct {
		name string
		held time.Duration // by the server; negative: the directory has no locks
		ok   bool
	}{
		{"free", 0, true},
		{"while a token is renewed", 65 * time.Second, true},
		{"for ever", time.Hour, false},
		{"no locks", -1, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := loginFor(t, t.TempDir(), nil)
			if tt.held < 0 {
				if err := os.Mkdir(filepath.Join(l.dir, "oauth2-1.lock"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if tt.held > 0 {
				unlock, err := token.NewFileStore(l.dir).Lock(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(tt.held, unlock)
			}
			if err := l.CheckStore(t.Context()); (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "another process holds the lock of "+l.dir) {
				t.Errorf("%s: CheckStore() = %v", tt.name, err)
			}
			if _, err := l.Keep(t.Context(), answerFor("ana@example.com"), true, false); (err == nil) != tt.ok {
				t.Errorf("%s: Keep() = %v", tt.name, err)
			}
			time.Sleep(time.Hour)
		})
	}
}
