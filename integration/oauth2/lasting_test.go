package oauth2_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// login signs the person in and returns when the login is stored.
func (s *sidecar) login(t *testing.T, person string) {
	t.Helper()
	term := startIn(t, s.command(t.Context(), "login"))
	p := newPerson(t, person)
	p.visit(p.logIn(term.find(logInAt)))
	s.wantEnd(t, term, 0, person)
}

// ended waits until the stored access token has ended.
func (s *sidecar) ended(t *testing.T) {
	t.Helper()
	await(t, "end of the access token", func() bool {
		text, _ := s.stored(t)["access_token_expires"].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		return err == nil && time.Now().After(at)
	})
}

// wantCheck runs check and compares the exit status and what it says.
func (s *sidecar) wantCheck(t *testing.T, status int, says ...string) {
	t.Helper()
	got, printed := s.run(t, "check")
	if got != status {
		t.Errorf("check = %d, want %d; it prints\n%s", got, status, printed)
	}
	for _, want := range says {
		if !strings.Contains(strings.Join(strings.Fields(printed), " "), want) {
			t.Errorf("check prints\n%s\nwant %q", printed, want)
		}
	}
	for _, name := range []string{"refresh_token", "access_token"} {
		if secret, _ := s.stored(t)[name].(string); secret != "" && strings.Contains(printed, secret) {
			t.Errorf("check prints the %s", name)
		}
	}
}

// issuers are those that a login must outlast: each treats a refresh token that was
// used in its own way.
var issuers = []struct {
	name  string
	start func(t *testing.T, life time.Duration) *issuer
}{
	{"old token stays good", func(t *testing.T, life time.Duration) *issuer {
		_, i := newZitadel(t, func(z *zitadel) { z.keepsOld, z.life = true, life })
		return i
	}},
	{"old token ends", func(t *testing.T, life time.Duration) *issuer {
		_, i := newZitadel(t, func(z *zitadel) { z.life = life })
		return i
	}},
	{"old token ends all", func(t *testing.T, life time.Duration) *issuer {
		s, i := newStrict(t, nil)
		s.config.AccessTokenLifespan = life
		return i
	}},
}

// newAnySidecar is newSidecar for any of the issuers.
func newAnySidecar(t *testing.T, i *issuer) *sidecar {
	s := newSidecar(t, i, nil)
	if i.deviceURL == "" {
		s.settings["SMTP_OAUTH2_PROVIDER"] = ""
		s.settings["SMTP_OAUTH2_SCOPES"] = mailScope + ",offline_access,openid,profile"
	}
	return s
}

// TestRotation: each renewal replaces the refresh token, and the next process goes on
// with the new one.
func TestRotation(t *testing.T) {
	t.Parallel()
	for _, c := range issuers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := c.start(t, 2*time.Second)
			s := newAnySidecar(t, i)
			s.login(t, account)
			seen := map[string]bool{}
			for range 3 {
				token, _ := s.stored(t)["refresh_token"].(string)
				if seen[token] {
					t.Error("a refresh token was not replaced")
				}
				seen[token] = true
				s.ended(t)
				s.wantCheck(t, 0, "Result: 127.0.0.1 takes the login")
			}
			if n := i.grants("refresh_token"); n != 3 {
				t.Errorf("%d refresh tokens were spent, want 3", n)
			}
		})
	}
}

// TestTwoProcesses: processes that need a new token at the same time spend one refresh
// token each, in turn.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	for _, c := range issuers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := c.start(t, 3*time.Second)
			s := newAnySidecar(t, i)
			s.login(t, account)
			srv := s.serve(t)
			for n := 1; n <= 3; n++ {
				var checks sync.WaitGroup
				s.ended(t)
				for range 3 {
					checks.Go(func() { s.wantCheck(t, 0) })
				}
				checks.Wait()
				srv.send(fmt.Sprint("round ", n))
				s.arrives(srv, n)
			}
			if line := srv.log.find("OAuth2 token is not available"); line != "" {
				t.Errorf("the server logs %s", line)
			}
		})
	}
}

// TestNewLogin: a server without a login keeps the mail, says which command is missing,
// and takes the login without a restart.
func TestNewLogin(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	srv := s.serve(t)
	srv.send("early")
	await(t, "word about the login", func() bool {
		return strings.Contains(srv.log.find("OAuth2 token is not available"), "mailsidecar login microsoft")
	})
	await(t, "word about the login in /v1/relays", func() bool { return strings.Contains(srv.relayState(), "mailsidecar login microsoft") })
	s.login(t, account)
	stored := time.Now()
	s.arrives(srv, 1)
	if took := time.Since(stored); took > 30*time.Second {
		t.Errorf("the mail went out %v after the login", took)
	}
	for _, c := range s.relay.Credentials() {
		if !c.Accepted || c.Username != account {
			t.Errorf("a login at the relay as %q, accepted: %v", c.Username, c.Accepted)
		}
	}
}

// TestSettingAndLogin: a login takes the place of the refresh token that is configured,
// until that is changed.
func TestSettingAndLogin(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, func(z *zitadel) { z.keepsOld, z.life = true, 2*time.Second })
	s := newSidecar(t, i, nil)
	s.settings["SMTP_OAUTH2_REFRESH_TOKEN"], s.settings["SMTP_USERNAME"] = "ran out", account
	s.wantCheck(t, 69, "invalid_grant")
	term := startIn(t, s.command(t.Context(), "login"))
	ana := newPerson(t, account)
	ana.visit(ana.logIn(term.find(logInAt)))
	s.wantEnd(t, term, 0, account, "SMTP_OAUTH2_REFRESH_TOKEN is not used any more, until it changes")
	s.ended(t)
	s.wantCheck(t, 0)
	good, _ := s.stored(t)["refresh_token"].(string)
	s.ended(t)
	s.settings["SMTP_OAUTH2_REFRESH_TOKEN"] = ""
	s.wantCheck(t, 0)
	s.settings["SMTP_OAUTH2_REFRESH_TOKEN"] = "another that ran out"
	s.wantCheck(t, 69, "invalid_grant")
	s.settings["SMTP_OAUTH2_REFRESH_TOKEN"] = good
	s.wantCheck(t, 0)
}

// TestRevoked: a login that was revoked pauses the relay. The next one ends that.
func TestRevoked(t *testing.T) {
	t.Parallel()
	strict, i := newStrict(t, nil)
	strict.config.AccessTokenLifespan = 2 * time.Second
	s := newAnySidecar(t, i)
	s.login(t, account)
	srv := s.serve(t)
	srv.send("before")
	s.arrives(srv, 1)
	strict.revoke()
	await(t, "refusal", func() bool { return srv.log.find("OAuth2 token is not available") != "" })
	if line := srv.log.find("OAuth2 token is not available"); !strings.Contains(line, "invalid_grant") || !strings.Contains(line, "not valid any more") {
		t.Errorf("the log says %s", line)
	}
	s.wantCheck(t, 69, "the OAuth2 login is not valid any more", "invalid_grant", "Log in again: mailsidecar login (with")
	srv.send("meanwhile")
	s.login(t, account)
	s.arrives(srv, 2)
}

// TestExpired: the refresh token ran out.
func TestExpired(t *testing.T) {
	t.Parallel()
	strict, i := newStrict(t, nil)
	strict.config.AccessTokenLifespan, strict.config.RefreshTokenLifespan = 3*time.Second, time.Second
	s := newAnySidecar(t, i)
	s.login(t, account)
	s.ended(t)
	s.wantCheck(t, 69, "the OAuth2 login is not valid any more")
}

// TestKilled: the server dies between a rotation and the first use of the new token.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, c := range issuers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := c.start(t, 3*time.Second)
			s := newAnySidecar(t, i)
			s.login(t, account)
			for round := range 3 {
				s.ended(t)
				before, _ := s.stored(t)["refresh_token"].(string)
				srv := s.serve(t)
				await(t, "rotation", func() bool { return s.stored(t)["refresh_token"] != before })
				srv.kill()
				again := s.serve(t)
				again.send("after")
				s.arrives(again, round+1)
				again.kill()
			}
		})
	}
}

// TestLostAnswer: the endpoint has replaced the token, and its answer is lost. Where the
// old token stays good nothing happens; elsewhere a person is asked for.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, func(z *zitadel) { z.keepsOld, z.life = true, 2*time.Second })
	s := newSidecar(t, i, nil)
	s.login(t, account)
	s.ended(t)
	i.loseAnswers(true)
	s.wantCheck(t, 69, "OAuth2 server")
	i.loseAnswers(false)
	s.wantCheck(t, 0)
}

// TestEndpointDown: the token endpoint is down, and the mail waits for it.
func TestEndpointDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		fault http.HandlerFunc
	}{
		{"503", refuse(http.StatusServiceUnavailable, "<html>down</html>")},
		{"hangs up", hangUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, i := newZitadel(t, func(z *zitadel) { z.life = 3 * time.Second })
			s := newSidecar(t, i, nil)
			s.login(t, account)
			i.fail(c.fault)
			s.ended(t)
			srv := s.serve(t)
			srv.send("waits")
			await(t, "failure", func() bool { return srv.log.find("OAuth2 token is not available") != "" })
			i.fail(nil)
			s.arrives(srv, 1)
			if srv.log.find("OAuth2 token is there again") == "" {
				t.Errorf("the log does not say that the token is there again:\n%s", srv.log)
			}
		})
	}
}

// TestSlow: while an endpoint takes its time, another process waits for the lock, and
// spends nothing twice.
func TestSlow(t *testing.T) {
	t.Parallel()
	strict, i := newStrict(t, nil)
	strict.config.AccessTokenLifespan = 2 * time.Second
	s := newAnySidecar(t, i)
	s.login(t, account)
	s.ended(t)
	strict.config.AccessTokenLifespan = time.Hour
	release := i.holdAnswers()
	var checks sync.WaitGroup
	for range 2 {
		checks.Go(func() { s.wantCheck(t, 0) })
	}
	await(t, "request", func() bool { return i.grants("refresh_token") == 1 })
	time.AfterFunc(3*time.Second, release) // both have met the lock by then
	checks.Wait()
	if n := i.grants("refresh_token"); n != 1 {
		t.Errorf("%d refresh tokens were spent, want 1", n)
	}
}

// TestHostile: whatever answers, the command ends, says what is wrong, and keeps the
// login.
func TestHostile(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, func(z *zitadel) { z.life = 2 * time.Second })
	s := newSidecar(t, i, nil)
	s.login(t, account)
	s.ended(t)
	before := s.stored(t)["refresh_token"]
	for _, c := range []struct {
		name  string
		fault http.HandlerFunc
	}{
		{"a page", refuse(200, "<html>Welcome to the hotel</html>")},
		{"nothing", refuse(200, "")},
		{"no token", refuse(200, "{}")},
		{"an error as success", refuse(200, `{"error":"invalid_request"}`)},
		{"line ends in the token", refuse(200, `{"access_token":"a\r\nMAIL FROM:<x>","expires_in":3600}`)},
		{"a long token", refuse(200, `{"access_token":"`+strings.Repeat("a", 1<<20)+`"}`)},
		{"deep", refuse(200, strings.Repeat(`{"a":`, 100_000))},
		{"escape codes", refuse(500, "{\"error\":\"server_error\",\"error_description\":\"\\u001b[2J\"}")},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(`{"access_token":"` + strings.Repeat("a", 1<<16))); err != nil {
					return
				}
			}
		}},
		{"the secrets again", func(w http.ResponseWriter, r *http.Request) {
			refuse(500, `{"error":"server_error","error_description":"`+r.PostForm.Get("refresh_token")+`"}`)(w, r)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i.fail(c.fault)
			s.wantCheck(t, 69, "Result: no mail can go")
			if after := s.stored(t)["refresh_token"]; after != before {
				t.Error("the login was replaced")
			}
		})
	}
	i.fail(nil)
	s.wantCheck(t, 0)
}
