package oauth2_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer/relaytest"
)

const (
	// logInAt matches the address that login prints, backAt the one to which the
	// browser comes back.
	logInAt = `Log in at this address: (http://\S+)`
	backAt  = `comes back to (http://\S+?)/\.`
)

// stored returns what the data directory has of the first relay; nil for nothing.
func (s *sidecar) stored(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, "oauth2-1.json"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	return record
}

// wantEnd checks how a login ended: status, what it says, which account is stored
// (empty for nothing), and that it printed no secret.
func (s *sidecar) wantEnd(t *testing.T, term *terminal, status int, stored string, says ...string) {
	t.Helper()
	if got := term.exit(); got != status {
		t.Errorf("login = %d, want %d:\n%s", got, status, term.screen())
	}
	for _, want := range says {
		if !strings.Contains(term.screen(), want) {
			t.Errorf("login prints\n%s\nwant %q", term.screen(), want)
		}
	}
	record := s.stored(t)
	if got, _ := record["account"].(string); got != stored || (record == nil) != (stored == "") {
		t.Errorf("stored is the login of %q, want %q", got, stored)
	}
	for _, name := range []string{"refresh_token", "access_token"} {
		if secret, _ := record[name].(string); secret != "" && strings.Contains(term.screen(), secret) {
			t.Errorf("login prints the %s", name)
		}
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*probe*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

// TestLoginBrowser: the browser comes back, the relay takes the login, and a page says
// so.
func TestLoginBrowser(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	term := startIn(t, s.command(t.Context(), "login", "microsoft"))
	ana := newPerson(t, account)
	page := ana.visit(ana.logIn(term.find(logInAt)))
	if !strings.Contains(page, "<h1>Logged in</h1>") || !strings.Contains(page, "can be closed") {
		t.Errorf("the page is\n%s", page)
	}
	s.wantEnd(t, term, 0, account, "Logged in as "+account+".", "The relay takes the login on port", "Stored in "+s.dir+"/oauth2-1.json.")
	if n := s.relay.Said("MAIL"); n != 0 || s.relay.Said("QUIT") != 1 {
		t.Errorf("the relay got %d mails, and %d times QUIT", n, s.relay.Said("QUIT"))
	}
	info, err := os.Stat(filepath.Join(s.dir, "oauth2-1.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
}

// TestLoginPaste: the address is pasted. What is no help is told, and asked for again.
func TestLoginPaste(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	term := startIn(t, s.command(t.Context(), "login", "microsoft", "--port", freePort(t)))
	address, back := term.find(logInAt), term.find(backAt)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	term.enter("")
	term.enter("yes")
	term.await("this is not the address at the end of the login: it begins with " + back)
	term.enter(address)
	term.await("this is an address of the login itself")
	term.enter(back + "/?code=c1&state=old")
	term.await("this is the answer to another login, perhaps an older one")
	term.enter(back + "/?error=access_denied&error_description=AADSTS65004%3A+declined&state=" + u.Query().Get("state"))
	term.await("access_denied: AADSTS65004: declined")
	term.await("Log in again at the same address")
	ana := newPerson(t, account)
	term.enter(ana.logIn(address) + "&session_state=" + strings.Repeat("x", 2000))
	s.wantEnd(t, term, 0, account, "Logged in as "+account)
}

// TestLoginLongAddress: a terminal cuts lines at 4,095 octets, unless told otherwise.
func TestLoginLongAddress(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	term := startIn(t, s.command(t.Context(), "login", "microsoft"))
	ana := newPerson(t, account)
	last := ana.logIn(term.find(logInAt))
	before, after, _ := strings.Cut(last, "?")
	term.enter(before + "?session_state=" + strings.Repeat("x", 9000) + "&" + after)
	s.wantEnd(t, term, 0, account)
}

// TestLoginStrangers: other programs' requests do not end the login.
func TestLoginStrangers(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	term := startIn(t, s.command(t.Context(), "login", "microsoft"))
	address, back := term.find(logInAt), term.find(backAt)
	for _, target := range []string{"/", "/favicon.ico", "/?code=c1&state=x", "/?error=access_denied&state=x"} {
		newPerson(t, otherAccount).visit(back + target)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(back, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "\x16\x03\x01nonsense\r\n\r\n")
	ana := newPerson(t, account)
	ana.visit(ana.logIn(address))
	s.wantEnd(t, term, 0, account)
}

// TestLoginDeclined: the browser comes back with an error.
func TestLoginDeclined(t *testing.T) {
	t.Parallel()
	z, i := newZitadel(t, nil)
	z.denied = true
	s := newSidecar(t, i, nil)
	term := startIn(t, s.command(t.Context(), "login", "microsoft"))
	ana := newPerson(t, account)
	page := ana.visit(ana.logIn(term.find(logInAt)))
	if !strings.Contains(page, "Not logged in") || !strings.Contains(page, "AADSTS65004") {
		t.Errorf("the page is\n%s", page)
	}
	s.wantEnd(t, term, 77, "", "access_denied: AADSTS65004", "The login was declined.")
	if strings.Contains(term.screen(), "adminconsent") {
		t.Errorf("login names a page of Microsoft, and the server is another one:\n%s", term.screen())
	}
}

// TestLoginDevice: the code is typed in on another device.
func TestLoginDevice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		action string
		status int
		stored string
		say    string
	}{
		{"allow", 0, account, "Logged in as " + account},
		{"deny", 77, "", "access_denied"},
	} {
		t.Run(c.action, func(t *testing.T) {
			t.Parallel()
			_, i := newZitadel(t, nil)
			s := newSidecar(t, i, nil)
			term := startIn(t, s.command(t.Context(), "login", "microsoft", "--device"))
			address, code := term.find(`open (http://\S+)`), term.find(`this code: (\S+)`)
			// An endpoint that fails for a moment does not end the waiting.
			i.fail(refuse(http.StatusServiceUnavailable, "down"))
			asked := i.grants(deviceGrant)
			await(t, "question", func() bool { return i.grants(deviceGrant) > asked })
			i.fail(nil)
			newPerson(t, account).enterCode(address, code, c.action)
			s.wantEnd(t, term, c.status, c.stored, c.say)
		})
	}
}

// TestLoginAnswer: what the token endpoint says beside the token.
func TestLoginAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		amends   map[string]any
		settings map[string]string
		status   int
		stored   string
		says     []string
	}{
		{
			"another scope",
			map[string]any{"scope": "openid profile"},
			nil, 77, "",
			[]string{"nothing was stored: the login did not allow everything that was asked for: " + mailScope + " is missing"},
		},
		{"no refresh token", map[string]any{"refresh_token": nil}, nil, 77, "", []string{"there is no refresh token in the answer", "offline_access"}},
		{"nobody's name", map[string]any{"id_token": nil}, nil, 77, "", []string{"the answer does not say who logged in. Set SMTP_USERNAME"}},
		{"another kind of token", map[string]any{"token_type": "DPoP"}, nil, 69, "", []string{"no bearer token"}},
		{"a week", map[string]any{"refresh_token_expires_in": 604799}, nil, 0, account, []string{"The OAuth2 login ends on 20", "Log in again before that day"}},
		{"a week at Google", map[string]any{"refresh_token_expires_in": 604799}, map[string]string{"SMTP_OAUTH2_PROVIDER": "google", "SMTP_OAUTH2_SCOPES": mailScope + ",offline_access,profile"}, 0, account, []string{"publish the app"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, i := newZitadel(t, nil)
			i.amends = c.amends
			s := newSidecar(t, i, nil)
			for name, value := range c.settings {
				s.settings[name] = value
			}
			term := startIn(t, s.command(t.Context(), "login"))
			ana := newPerson(t, account)
			ana.visit(ana.logIn(term.find(logInAt)))
			s.wantEnd(t, term, c.status, c.stored, c.says...)
		})
	}
}

// TestLoginSharedMailbox: SMTP_USERNAME stays the mailbox, whoever logs in.
func TestLoginSharedMailbox(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	const shared = "shop@example.com"
	accepts := i.accepts
	i.accepts = func(user, token string) bool { return user == shared && accepts(account, token) }
	s := newSidecar(t, i, nil)
	s.settings["SMTP_USERNAME"] = shared
	term := startIn(t, s.command(t.Context(), "login", "microsoft"))
	ana := newPerson(t, account)
	ana.visit(ana.logIn(term.find(logInAt)))
	s.wantEnd(t, term, 0, account, "Logged in as "+account+", for the mailbox "+shared+" of SMTP_USERNAME.")
	s.wantCheck(t, 0)
}

// webPort is the port that the client "web" has registered.
const webPort = "18400"

// TestLoginClientSecret: a client with a secret shows it for the code, and at each
// renewal.
func TestLoginClientSecret(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, func(z *zitadel) { z.life = 2 * time.Second })
	s := newSidecar(t, i, nil)
	s.settings["SMTP_OAUTH2_CLIENT_ID"], s.settings["SMTP_OAUTH2_CLIENT_AUTH"] = "web", "basic"
	sign := func(secret string) *terminal {
		s.settings["SMTP_OAUTH2_CLIENT_SECRET"] = secret
		term := startIn(t, s.command(t.Context(), "login", "microsoft", "--port", webPort))
		ana := newPerson(t, account)
		ana.visit(ana.logIn(term.find(logInAt)))
		return term
	}
	s.wantEnd(t, sign("wrong"), 78, "", "invalid_client", "SMTP_OAUTH2_CLIENT_SECRET")
	term := sign(webSecret)
	s.wantEnd(t, term, 0, account)
	if strings.Contains(term.screen(), webSecret) {
		t.Error("login prints the client secret")
	}
	s.ended(t)
	s.wantCheck(t, 0)
}

// TestLoginDeviceForbidden: many organizations let nobody in with a device code.
func TestLoginDeviceForbidden(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	i.fail(refuse(http.StatusBadRequest, `{"error":"access_denied","error_description":"AADSTS53003: Access has been blocked by Conditional Access policies.","error_codes":[53003]}`))
	term := startIn(t, s.command(t.Context(), "login", "microsoft", "--device"))
	s.wantEnd(t, term, 77, "", "AADSTS53003", "log in with a browser instead")
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// TestLoginRelayRefuses: the relay does not take the login. It is stored, but not in
// place of another account's unless that is asked for.
func TestLoginRelayRefuses(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	off := relaytest.Script{"AUTH": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox."}
	s := newSidecar(t, i, off)
	sign := func(person string, args ...string) *terminal {
		term := startIn(t, s.command(t.Context(), append([]string{"login", "microsoft"}, args...)...))
		p := newPerson(t, person)
		if page := p.visit(p.logIn(term.find(logInAt))); !strings.Contains(page, "Mail cannot be sent yet") {
			t.Errorf("the page is\n%s", page)
		}
		return term
	}
	const says = "SmtpClientAuthentication is disabled"
	s.wantEnd(t, sign(account), 69, account, says, "Stored in", "no mail can go to the relay 127.0.0.1 yet")
	s.wantEnd(t, sign(otherAccount), 69, account, says, "The login of "+account+", stored before, stays.")
	s.wantEnd(t, sign(account), 69, account, says, "in place of the login of "+account)
	s.wantEnd(t, sign(otherAccount, "--replace"), 69, otherAccount, says, "in place of the login of "+account)
}

// TestLoginInterrupted: Ctrl-C ends it, and nothing is stored.
func TestLoginInterrupted(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"login", "microsoft"}, {"login", "microsoft", "--device"}} {
		_, i := newZitadel(t, nil)
		s := newSidecar(t, i, nil)
		term := startIn(t, s.command(t.Context(), args...))
		term.find(`(http://\S+)`)
		if _, err := io.WriteString(term.master, "\x03"); err != nil {
			t.Fatal(err)
		}
		s.wantEnd(t, term, 1, "", "interrupted: not logged in, and nothing was stored")
	}
}

// TestLoginLate: nobody logs in.
func TestLoginLate(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	term := startIn(t, s.command(t.Context(), "login", "--timeout", "1s"))
	s.wantEnd(t, term, 1, "", "the browser did not come back within 1s")
}

// TestLoginWithoutTerminal: standard input is closed; the browser ends the login.
func TestLoginWithoutTerminal(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	cmd := s.command(t.Context(), "login", "microsoft")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	buffer := make([]byte, 4096)
	for !strings.Contains(printed.String(), "Nothing can be pasted here") {
		n, err := out.Read(buffer)
		if err != nil {
			t.Fatalf("%v after\n%s%s", err, printed.String(), errOut.String())
		}
		printed.Write(buffer[:n])
	}
	_, address, _ := strings.Cut(printed.String(), "at this address:\n\n  ")
	address, _, _ = strings.Cut(address, "\n")
	ana := newPerson(t, account)
	ana.visit(ana.logIn(address))
	_, _ = io.Copy(&printed, out)
	if err := cmd.Wait(); err != nil || s.stored(t) == nil {
		t.Errorf("login: %v\n%s%s", err, printed.String(), errOut.String())
	}
}

// TestLoginOpensBrowser: with a screen, the system's program is asked to open the
// address. Here it plays the person.
func TestLoginOpensBrowser(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	s := newSidecar(t, i, nil)
	programs := t.TempDir()
	opened := filepath.Join(programs, "opened")
	script := "#!/bin/sh\nprintf %s \"$1\" > " + opened + ".new && mv " + opened + ".new " + opened + "\n"
	if err := os.WriteFile(filepath.Join(programs, "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s.settings["DISPLAY"], s.settings["PATH"] = ":0", programs+":/usr/bin:/bin"
	term := startIn(t, s.command(t.Context(), "login", "microsoft"))
	var address []byte
	await(t, "browser", func() (ok bool) {
		var err error
		address, err = os.ReadFile(opened)
		return err == nil
	})
	ana := newPerson(t, account)
	ana.visit(ana.logIn(string(address)))
	s.wantEnd(t, term, 0, account, "opened in this machine's browser")
}

// TestLoginCannot: one clear line for what is missing, and its exit status.
func TestLoginCannot(t *testing.T) {
	t.Parallel()
	_, i := newZitadel(t, nil)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		settings map[string]string
		args     []string
		status   int
		say      string
	}{
		{"no client id", map[string]string{"SMTP_OAUTH2_CLIENT_ID": ""}, nil, 78, "SMTP_OAUTH2_CLIENT_ID is not set"},
		{"another provider", nil, []string{"google"}, 64, "names another OAuth2 provider than google"},
		{"unknown provider", nil, []string{"yahoo"}, 64, "neither microsoft nor google"},
		{"two providers", nil, []string{"microsoft", "google"}, 64, "takes one argument"},
		{"no such relay", nil, []string{"--relay", "3"}, 64, "no setting begins with SMTP3_"},
		{"port out of range", nil, []string{"--port", "65536"}, 64, "--port 65536 is no port"},
		{"port taken", nil, []string{"--port", port}, 1, "--port " + port + " is taken by another program"},
		{"no data directory", map[string]string{"MAILSIDECAR_DATA_DIR": "", "MAILSIDECAR_QUEUE": "none"}, nil, 78, "MAILSIDECAR_DATA_DIR: is not set"},
		{"no directory", map[string]string{"MAILSIDECAR_DATA_DIR": "/dev/null/data"}, nil, 1, "no login can be stored in MAILSIDECAR_DATA_DIR /dev/null/data: not a directory."},
		{"no device code", map[string]string{"SMTP_OAUTH2_PROVIDER": "google", "SMTP_OAUTH2_DEVICE_URL": ""}, []string{"google", "--device"}, 78, "Google gives no device code for mail"},
		{"token endpoint down", map[string]string{"SMTP_OAUTH2_DEVICE_URL": "http://127.0.0.1:1/device"}, []string{"--device"}, 69, "The OAuth2 server cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSidecar(t, i, nil)
			for name, value := range c.settings {
				s.settings[name] = value
			}
			status, printed := s.run(t, append([]string{"login"}, c.args...)...)
			if status != c.status || !strings.Contains(printed, c.say) || strings.Count(strings.TrimSpace(printed), "\n") > 3 {
				t.Errorf("login %v = %d, want %d and %q; it prints\n%s", c.args, status, c.status, c.say, printed)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestLoginLoopbackAddress: an issuer of one's own, without a name known here.
func TestLoginLoopbackAddress(t *testing.T) {
	t.Parallel()
	_, i := newStrict(t, nil)
	s := newSidecar(t, i, nil)
	s.settings["SMTP_OAUTH2_PROVIDER"] = ""
	s.settings["SMTP_OAUTH2_SCOPES"] = mailScope + ",offline_access,openid,profile"
	term := startIn(t, s.command(t.Context(), "login"))
	if back := term.find(backAt); !strings.HasPrefix(back, "http://127.0.0.1:") {
		t.Errorf("the browser comes back to %s", back)
	}
	ana := newPerson(t, account)
	ana.visit(ana.logIn(term.find(logInAt)))
	s.wantEnd(t, term, 0, account, "Logged in as "+account)
}
