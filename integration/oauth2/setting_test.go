package oauth2_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"
)

// loginTime is when the person whose login is stored logged in; empty for nothing.
func (s *sidecar) loginTime(t *testing.T) string {
	t.Helper()
	record := s.stored(t)
	loggedIn, _ := record["logged_in"].(string)
	issued, _ := record["issued"].(string)
	return cmp.Or(loggedIn, issued)
}

// renews lets the server renew the token, and sends a mail with it.
func (s *sidecar) renews(t *testing.T, srv *server, mails int) {
	t.Helper()
	before := s.stored(t)["refresh_token"]
	s.ended(t)
	srv.send(fmt.Sprint("mail ", mails))
	s.arrives(srv, mails)
	await(t, "replaced refresh token", func() bool { return s.stored(t)["refresh_token"] != before })
}

// TestLoginAndSetting: a person logs in while SMTP_OAUTH2_REFRESH_TOKEN is set where the
// server runs, to a token that is good or was refused. The login may come from a shell
// without that variable, or with another value, before or after the start. The login is
// used, and stays stored, unless the setting may have come after it.
func TestLoginAndSetting(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, func(z *zitadel) { z.keepsOld, z.life = true, 3*time.Second })
	for _, setting := range []string{"good", "stale"} {
		for _, inShell := range []string{"the same", "none", "another"} {
			for _, startedBefore := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, in the shell %s, started before: %v", setting, inShell, startedBefore), func(t *testing.T) {
					t.Parallel()
					s := newSidecar(t, i, nil)
					s.settings["SMTP_USERNAME"] = account
					value := "stale"
					if setting == "good" {
						value = anotherLogin(t, i)
					}
					mayBeLater := !startedBefore && inShell == "none"
					settingWins := mayBeLater && setting == "good"
					if !startedBefore && inShell == "another" {
						return // the setting has changed since the login, see TestSettingAndLogin
					}
					s.settings["SMTP_OAUTH2_REFRESH_TOKEN"] = value
					var srv *server
					if startedBefore {
						srv = s.serve(t)
						await(t, "end of the first renewal", func() bool {
							return s.stored(t) != nil || srv.log.find("OAuth2 token is not available") != ""
						})
					}
					s.settings["SMTP_OAUTH2_REFRESH_TOKEN"] = map[string]string{"the same": value, "another": "older"}[inShell]
					s.login(t, account)
					loggedIn := s.loginTime(t)
					s.settings["SMTP_OAUTH2_REFRESH_TOKEN"] = value
					if !startedBefore {
						srv = s.serve(t)
					} else {
						await(t, "new login in use", func() bool { return srv.log.find("new OAuth2 login is in use") != "" })
					}
					s.renews(t, srv, 1)
					srv.kill()
					again := s.serve(t)
					s.renews(t, again, 2)
					if got := s.loginTime(t); (got != loggedIn) != settingWins {
						t.Errorf("the login in use began at %s, the person's at %s; want the setting instead: %v\n%s\n%s", got, loggedIn, settingWins, srv.log, again.log)
					}
					line := srv.log.find("stored OAuth2 login is set aside for the configured refresh token")
					if (line != "") != mayBeLater || mayBeLater && (!strings.Contains(line, `"found":`) || !strings.Contains(line, "SMTP_OAUTH2_REFRESH_TOKEN")) {
						t.Errorf("want the setting tried first: %v; the log says %q", mayBeLater, line)
					}
				})
			}
		}
	}
}

// anotherLogin returns the refresh token of a login of its own.
func anotherLogin(t *testing.T, i *issuer) string {
	t.Helper()
	s := newSidecar(t, i, nil)
	s.login(t, account)
	token, _ := s.stored(t)["refresh_token"].(string)
	return token
}
