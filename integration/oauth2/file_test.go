package oauth2_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestTokenInPlaceOfFile: an access token that was set in place of the name of its file
// is shown nowhere.
func TestTokenInPlaceOfFile(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newMachine(t, i)
	for name := range s.settings {
		if strings.HasPrefix(name, "SMTP_OAUTH2_") {
			s.settings[name] = ""
		}
	}
	const secret = "EwBwA8l6BAAU0wDjFA6usBY8gB3LLZHC"
	s.settings["SMTP_OAUTH2_ACCESS_TOKEN_FILE"], s.settings["SMTP_USERNAME"] = secret, account
	srv := s.serve(t)
	srv.send("waits")
	await(t, "deferred mail", func() bool { return srv.log.find("deferred") != "" })
	shown := map[string]string{"the log": srv.log.String(), "/v1/relays": srv.relayState()}
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(srv.log.find("deferred"))[1]
	s.settings["MAILSIDECAR_URL"] = "http://" + srv.addr
	for name, args := range map[string][]string{
		"check": {"check"}, "check --json": {"check", "--json"}, "queue show": {"queue", "show", id}, "queue list": {"queue", "list"},
		"send": {"send", "--from", account, "--to", "x@example.org", "--subject", "hello", "--text", "hello"},
	} {
		_, shown[name] = s.run(t, args...)
	}
	for where, text := range shown {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the token:\n%s", where, text)
		}
		if where != "queue list" && !strings.Contains(text, "not shown") {
			t.Errorf("%s does not say that the name is not shown:\n%s", where, text)
		}
	}
}

// TestCheckWaitsForLock: while another process has the lock, check says so, and does not
// blame the network.
func TestCheckWaitsForLock(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	s.settings["SMTP_OAUTH2_REFRESH_TOKEN"], s.settings["SMTP_USERNAME"] = "any", account
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(s.dir, "oauth2-1.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := errors.Join(lock.Chmod(0o600), syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
	status, printed := s.run(t, "check", "--timeout", "3s")
	printed = strings.Join(strings.Fields(printed), " ")
	if status != 69 || !strings.Contains(printed, "another mailsidecar process holds") || !strings.Contains(printed, "oauth2-1.lock") || strings.Contains(printed, "cannot be reached") {
		t.Errorf("check = %d, want 69 and word of the lock alone; it prints\n%s", status, printed)
	}
}
