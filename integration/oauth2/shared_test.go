//go:build linux

package oauth2_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailsidecar/integration/postgres"
)

// TestSharedLogin: two instances at one database use one login, which is sealed there. They renew it in turn, spend no refresh
// token twice, and go on when one of them dies.
func TestSharedLogin(t *testing.T) {
	t.Parallel()
	for _, c := range issuers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := postgres.Start(t)
			const life = 3 * time.Second
			i := c.start(t, life)
			s := newAnySidecar(t, i)
			key := filepath.Join(t.TempDir(), "store-key")
			if err := os.WriteFile(key, []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.settings["MAILSIDECAR_QUEUE"], s.settings["MAILSIDECAR_STORE_KEY_FILE"], s.settings["MAILSIDECAR_DATA_DIR"] = db.URL(), key, ""
			s.settings["SMTP_IDLE_TIMEOUT"] = "1s" // each message needs a login at the relay
			if status, printed := s.run(t, "queue", "migrate"); status != 0 {
				t.Fatalf("queue migrate = %d\n%s", status, printed)
			}
			term := startIn(t, s.command(t.Context(), "login"))
			ana := newPerson(t, account)
			ana.visit(ana.logIn(term.find(logInAt)))
			s.wantEnd(t, term, 0, "", account) // no file has it
			began := time.Now()
			a, b := s.serve(t), s.serve(t)
			sent := 0
			both := func(servers ...*server) {
				t.Helper()
				time.Sleep(life) // the token has ended since
				for _, srv := range servers {
					sent++
					srv.send(fmt.Sprint("message ", sent))
				}
				s.arrives(servers[0], sent)
			}
			for range 3 {
				both(a, b)
			}
			a.kill()
			for range 2 {
				both(b)
			}
			for name, srv := range map[string]*server{"the first": a, "the second": b} {
				if line := srv.log.find("OAuth2 token is not available"); line != "" {
					t.Errorf("%s instance logs %s", name, line)
				}
			}
			// Each renewal is for both: a token is renewed once in its life.
			if n, most := i.grants("refresh_token"), int(time.Since(began)/(life/2))+2; n < 3 || n > most {
				t.Errorf("%d refresh tokens were spent, want 3 to %d", n, most)
			}
		})
	}
}
