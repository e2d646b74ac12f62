package smtp_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestTokenRenewed: a new login is tried at once, whatever was refused before it. A
// token that is there again ends the wait for a token, and no other.
func TestTokenRenewed(t *testing.T) {
	noToken := errors.New("no token")
	for _, tt := range []struct {
		name     string
		before   error // of the source, for ten minutes; nil: it has a token that is refused
		newLogin bool
		want     string
	}{
		{"refused, then a new login", nil, true, "accepted 250"},
		{"refused, then a token", nil, false, "relay auth 535"},
		{"without a token, then a new login", noToken, true, "accepted 250"},
		{"without a token, then a token", noToken, false, "accepted 250"},
	} {
		synctest.Test(t, func(t *testing.T) {
			token, err := "old", tt.before
			p := newPoolTest(t, relaytest.Options{Password: "new"}, nil, func(o *smtp.Options) {
				o.Password, o.TokenSource = "", func(context.Context, string) (string, error) {
					if err != nil {
						return "", err
					}
					return token, nil
				}
			})
			for range 10 * 60 {
				p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
				time.Sleep(time.Second)
			}
			if tt.before == nil { // another one is refused: a changed token has to wait now
				token = "other"
				p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			}
			token, err = "new", nil
			p.relay.TokenRenewed(tt.newLogin)
			t.Log(tt.name)
			p.deliver(t, tt.want)
		})
	}
}

// TestAccount: the user name is that of the token's login, where none is set. Without
// an account there is no login, and no delivery either.
func TestAccount(t *testing.T) {
	for account, want := range map[string]string{"jo@example.com": "accepted 250", "": "relay auth"} {
		synctest.Test(t, func(t *testing.T) {
			fetched := false
			p := newPoolTest(t, relaytest.Options{Password: "token"}, nil, func(o *smtp.Options) {
				o.Username, o.Password = "", ""
				o.TokenSource = func(context.Context, string) (string, error) { fetched = true; return "token", nil }
				o.Account = func() string {
					if !fetched {
						return "" // it is known with the token
					}
					return account
				}
			})
			p.deliver(t, want)
			for _, c := range p.scripted.Credentials() {
				if c.Username != account || c.Secret != "token" {
					t.Errorf("credentials = %+v, want the account %q", c, account)
				}
			}
			if account == "" && (p.scripted.Said("AUTH") != 0 || p.scripted.Said("MAIL") != 0) {
				t.Errorf("account %q: %d logins, %d transactions, want none", account, p.scripted.Said("AUTH"), p.scripted.Said("MAIL"))
			}
		})
	}
}
