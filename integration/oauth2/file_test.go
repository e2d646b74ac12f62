package oauth2_test

import (
	"regexp"
	"strings"
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
